/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store.h's groups, the client's side: the number the client listens by (gid) names the membership
 * at the server. Events are delivered on the loop; everything else is a call.
 */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "store/client.h"
#include "store/reply.h"
#include "util/cleanup.h"
#include "util/err.h"
#include "util/limits.h"

struct store_group {
	struct listener listener; /* first */
	struct client *client;
	store_event_fn fn;
	void *arg;
	uint32_t member;
	uint64_t incarnation;
	uint64_t seq;
	_Atomic bool woken;
	bool left;
};

static void group_push(struct listener *l, const uint8_t *data, size_t len)
{
	struct store_group *g = (struct store_group *)l;
	struct reader in = reader_of(data, len);
	struct proto_event e;

	while (in.at < in.end && event_decode(&in, &e)) {
		struct store_event event = {.kind = (enum store_event_kind)e.kind,
					    .member = e.member,
					    .seq = e.seq,
					    .incarnation = e.incarnation,
					    .data = e.data.data,
					    .len = e.data.len};
		g->fn(g->arg, &event);
	}
}

static void group_closed(struct listener *l)
{
	struct store_group *g = (struct store_group *)l;
	struct store_event event = {.kind = STORE_EVENT_CLOSED, .member = g->member};

	g->fn(g->arg, &event);
}

static int32_t conflict_read(const struct call *call, struct store_conflict *ret)
{
	struct reader in = reader_of(call->body, call->body_len);
	struct store_conflict c = {.member = read_u32(&in)};

	c.own = read_u32(&in);
	c.duplicate = read_u8(&in) != 0;
	struct span spec = read_span(&in);
	struct span own_spec = read_span(&in);
	if (in.failed)
		return reply_malformed(proto_op_name(call->req.op));
	int32_t r = bytes_copy(spec, &c.spec);
	if (r == SMEM_OK)
		r = bytes_copy(own_spec, &c.own_spec);
	if (r != SMEM_OK)
		store_bytes_free(&c.spec);
	else
		*ret = c;
	return r;
}

/* A refusal may come with the two sides of a conflict. */
static int32_t refused(const struct call *call, int32_t code, struct store_conflict *conflict)
{
	if (code != SMEM_INVALID_PARAM || !conflict || call->body_len == 0)
		return code;
	int32_t r = conflict_read(call, conflict);
	return r == SMEM_OK ? smem_err(code, "%s", call->text) : r;
}

static int32_t entered(struct store_group *g, const struct call *call)
{
	struct reader in = reader_of(call->body, call->body_len);

	g->member = read_u32(&in);
	g->seq = read_u64(&in);
	g->incarnation = read_u64(&in);
	return in.failed ? reply_malformed("enter") : SMEM_OK;
}

int32_t store_group_enter(struct store *s, const struct store_enter *e, struct deadline deadline,
			  struct store_conflict *conflict, struct store_group **ret)
{
	struct store_group *g = calloc(1, sizeof(*g));

	if (!g)
		return smem_err(SMEM_MALLOC_FAILED, "group %s", e->name);
	if (conflict)
		*conflict = (struct store_conflict){.member = STORE_MEMBER_ANY};
	g->listener =
	    (struct listener){.op = OP_EVENTS, .push = group_push, .closed = group_closed};
	g->client = store_client(s);
	g->fn = e->fn;
	g->arg = e->arg;
	g->member = e->member;
	client_listen(g->client, &g->listener);
	struct call call = {.req = {.op = OP_ENTER,
				    .gid = g->listener.id,
				    .flags = e->mode,
				    .index = e->member,
				    .size = e->size,
				    .numbers = e->mode == STORE_GROUP_OPEN ? e->numbers : e->size,
				    .key = {(const uint8_t *)e->name, strlen(e->name)},
				    .val = {e->blob, e->blob_len},
				    .extra = {e->spec, e->spec_len},
				    .sort = {e->sort, e->sort_len}},
			    .deadline = deadline,
			    .woken = e->woken};
	int32_t r = client_call(g->client, &call);
	r = r == SMEM_OK ? entered(g, &call) : refused(&call, r, conflict);
	free(call.body);
	if (r != SMEM_OK) {
		client_unlisten(g->client, &g->listener);
		free(g);
		return r;
	}
	*ret = g;
	return SMEM_OK;
}

void store_enter_wake(struct store *s, const _Atomic bool *woken)
{
	client_wake(store_client(s), woken);
}

uint32_t store_group_member(const struct store_group *g)
{
	return g->member;
}

uint64_t store_group_incarnation(const struct store_group *g)
{
	return g->incarnation;
}

uint64_t store_group_seq(const struct store_group *g)
{
	return g->seq;
}

void store_group_ack(struct store_group *g, uint64_t seq, int32_t code, const char *text)
{
	struct request req = {.op = OP_GROUP_ACK,
			      .gid = g->listener.id,
			      .seq = seq,
			      .code = code,
			      .extra = {(const uint8_t *)text, text ? strlen(text) : 0}};

	client_cast(g->client, &req);
}

static int32_t group_call(struct store_group *g, struct call *call)
{
	call->req.gid = g->listener.id;
	int32_t r = client_call(g->client, call);
	free(take_ptr(&call->body));
	return r;
}

int32_t store_group_fence(struct store_group *g, uint64_t seq, struct deadline deadline)
{
	struct call call = {
	    .req = {.op = OP_FENCE, .seq = seq}, .deadline = deadline, .woken = &g->woken};

	return group_call(g, &call);
}

int32_t store_group_gather(struct store_group *g, const void *kind, size_t kind_len,
			   const void *val, size_t len, struct deadline deadline,
			   struct store_conflict *conflict, struct store_gathered *ret)
{
	struct call call = {.req = {.op = OP_ROUND,
				    .gid = g->listener.id,
				    .extra = {kind, kind_len},
				    .val = {val, len}},
			    .deadline = deadline,
			    .woken = &g->woken};

	if (conflict)
		*conflict = (struct store_conflict){.member = STORE_MEMBER_ANY};
	int32_t r = client_call(g->client, &call);
	r = r == SMEM_OK ? gathered_read(call.body, call.body_len, ret)
			 : refused(&call, r, conflict);
	free(call.body);
	return r;
}

/* ---- rounds of sets ---- */

void store_parts_free(struct store_parts *p)
{
	free(p->part);
	free(p->body);
	*p = (struct store_parts){.count = 0};
}

int32_t parts_read(uint8_t *body, size_t len, struct store_parts *ret)
{
	struct store_parts p = {.body = body};
	struct reader in = reader_of(body, len);
	uint32_t count = read_u32(&in);
	bool ok = !in.failed && count <= WORLD_MAX;

	if (ok)
		p.part = calloc(count ? count : 1, sizeof(*p.part));
	if (ok && !p.part) {
		free(body);
		return smem_err(SMEM_MALLOC_FAILED, "round of %u parts", count);
	}
	for (; ok && p.count < count; p.count++) {
		struct store_part *part = &p.part[p.count];
		ok = set_decode(read_span(&in), &part->set);
		struct span val = read_span(&in);
		part->data = val.data;
		part->len = val.len;
	}
	if (!ok || !reader_done(&in)) {
		store_parts_free(&p);
		return reply_malformed("set round");
	}
	*ret = p;
	return SMEM_OK;
}

static int32_t parts_call(struct store_group *g, struct call *call, struct set *missing,
			  struct store_parts *ret)
{
	call->req.gid = g->listener.id;
	*missing = (struct set){.word = {0}};
	int32_t r = client_call(g->client, call);
	if (r == SMEM_OK && ret)
		return parts_read(call->body, call->body_len, ret);
	struct reader in = reader_of(call->body, call->body_len);
	if (call->body_len > 0 && (r == SMEM_OK || r == SMEM_TIMEOUT) &&
	    !set_decode(read_span(&in), missing))
		r = reply_malformed(proto_op_name(call->req.op));
	free(call->body);
	return r;
}

int32_t store_group_sets(struct store_group *g, const struct store_sets *sets,
			 struct deadline deadline, struct set *missing, struct store_parts *ret)
{
	struct writer w = {.blob = NULL};

	write_set(&w, sets->set);
	struct blob *set = writer_done(&w);
	if (!set)
		return smem_err(SMEM_MALLOC_FAILED, "set of members");
	struct span bits = blob_span(set);
	struct call call = {.req = {.op = OP_SET_ROUND,
				    .seq = sets->turn,
				    .sort = {bits.data + 4, bits.len - 4},
				    .extra = {sets->kind, sets->kind_len},
				    .val = {sets->val, sets->len}},
			    .deadline = deadline,
			    .woken = &g->woken};
	int32_t r = parts_call(g, &call, missing, ret);
	blob_put(set);
	return r;
}

int32_t store_group_settle(struct store_group *g, uint32_t turn, const void *kind, size_t kind_len,
			   struct deadline deadline, struct set *missing, struct store_parts *ret)
{
	struct call call = {.req = {.op = OP_SETTLE, .seq = turn, .extra = {kind, kind_len}},
			    .deadline = deadline};

	return parts_call(g, &call, missing, ret);
}

void store_group_present(struct store_group *g, const void *kind, size_t kind_len)
{
	struct request req = {
	    .op = OP_PRESENT, .gid = g->listener.id, .flags = 1, .extra = {kind, kind_len}};

	client_cast(g->client, &req);
}

int32_t store_group_absent(struct store_group *g, const void *kind, size_t kind_len,
			   struct deadline deadline, struct set *missing)
{
	struct call call = {.req = {.op = OP_PRESENT, .extra = {kind, kind_len}},
			    .deadline = deadline,
			    .woken = &g->woken};

	return parts_call(g, &call, missing, NULL);
}

int32_t store_group_blob(struct store_group *g, const void *blob, size_t len,
			 struct deadline deadline)
{
	struct call call = {
	    .req = {.op = OP_BLOB, .val = {blob, len}}, .deadline = deadline, .woken = &g->woken};

	return group_call(g, &call);
}

int32_t store_group_note(struct store_group *g, const void *note, size_t len, bool once,
			 struct deadline deadline)
{
	struct call call = {.req = {.op = OP_NOTE, .flags = once, .val = {note, len}},
			    .deadline = deadline,
			    .woken = &g->woken};

	return group_call(g, &call);
}

void store_group_wake(struct store_group *g)
{
	atomic_store(&g->woken, true);
	client_wake(g->client, &g->woken);
}

static void left(struct store_group *g)
{
	g->left = true;
	client_unlisten(g->client, &g->listener);
}

int32_t store_group_leave(struct store_group *g, bool wait_acks, struct deadline deadline)
{
	struct call call = {.req = {.op = OP_LEAVE, .flags = wait_acks}, .deadline = deadline};
	int32_t r = group_call(g, &call);

	left(g);
	return r == SMEM_UNREACHABLE ? SMEM_OK : r;
}

int32_t store_group_try_leave(struct store_group *g, struct deadline deadline)
{
	struct call call = {
	    .req = {.op = OP_LEAVE, .flags = true}, .deadline = deadline, .woken = &g->woken};
	int32_t r = group_call(g, &call);

	if (r == SMEM_UNREACHABLE)
		return r;
	if (r == SMEM_OBJECT_NOT_EXISTS) {
		/* Woken before it was sent, perhaps: a second one is no harm. */
		struct request req = {.op = OP_LEAVE, .gid = g->listener.id};
		client_cast(g->client, &req);
	}
	left(g);
	return r;
}

void store_group_free(struct store_group *g)
{
	if (!g)
		return;
	if (!g->left) {
		struct request req = {.op = OP_LEAVE, .gid = g->listener.id};
		client_unlisten(g->client, &g->listener);
		client_cast(g->client, &req);
	}
	free(g);
}
