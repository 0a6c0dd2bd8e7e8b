/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A group is its members in the order of their entering; the history needs no log, because what a
 * newcomer must know of it is who is there. An event is encoded once and shared by all receivers.
 * A group's life ends with its last member; then spec, notes and failures are forgotten and those
 * that waited for the next life are looked at.
 */
#include "store/kv_group.h"

#include <stdlib.h>
#include <string.h>

#include "util/err.h"
#include "util/rng.h"

struct kv_group *group_make(struct kv *kv, struct span name)
{
	struct kv_group *g;

	HASH_FIND(hh, kv->groups, name.data, name.len, g);
	if (g)
		return g;
	g = calloc(1, sizeof(*g));
	if (!g)
		return NULL;
	g->name = name_dup(name);
	if (g->name)
		HASH_ADD_KEYPTR(hh, kv->groups, g->name, name.len, g);
	if (!g->hh.tbl) {
		free(g->name);
		free(g);
		return NULL;
	}
	return g;
}

static void group_end_life(struct kv *kv, struct kv_group *g)
{
	failures_free(g);
	round_forget(kv, g);
	blob_put(g->spec);
	blob_put(g->once);
	free(g->by_number);
	free(g->gone);
	g->spec = NULL;
	g->once = NULL;
	g->by_number = NULL;
	g->gone = NULL;
	g->gone_count = 0;
	g->formed = false;
}

void group_tidy(struct kv *kv, struct kv_group *g)
{
	if (g->members || g->entering || g->refusal)
		return;
	group_end_life(kv, g);
	HASH_DELETE(hh, kv->groups, g);
	free(g->name);
	free(g);
}

bool group_begin(struct kv *kv, struct kv_group *g, const struct kv_entering *e)
{
	if (g->count)
		return true;
	group_end_life(kv, g);
	g->by_number = calloc(e->numbers, sizeof(struct kv_member *));
	g->gone = calloc(e->numbers, 1);
	if (!g->by_number || !g->gone) {
		free(g->by_number);
		free(g->gone);
		g->by_number = NULL;
		g->gone = NULL;
		return false;
	}
	g->mode = e->mode;
	g->size = e->size;
	g->numbers = e->numbers;
	g->spec = blob_get(e->spec);
	return true;
}

struct kv_member *member_add(struct kv_group *g, const struct kv_entering *e, uint32_t number)
{
	struct kv_client *c = e->w.client;
	struct kv_member *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	m->gid = e->w.gid;
	m->number = number;
	m->client = c;
	m->group = g;
	m->incarnation = rng_u64();
	m->blob = blob_get(e->blob);
	HASH_ADD(hh, c->members, gid, sizeof(m->gid), m);
	if (!m->hh.tbl) {
		blob_put(m->blob);
		free(m);
		return NULL;
	}
	m->seq = ++g->seq;
	m->acked = m->seq - 1;
	DL_APPEND(g->members, m);
	g->by_number[number] = m;
	if (g->gone[number])
		g->gone_count--;
	g->gone[number] = 0;
	g->count++;
	return m;
}

void member_event(struct writer *w, const struct kv_member *m, enum store_event_kind kind,
		  uint64_t seq, struct span data)
{
	event_encode(w, &(struct proto_event){.kind = (uint8_t)kind,
					      .member = m->number,
					      .seq = seq,
					      .incarnation = m->incarnation,
					      .data = data});
}

void group_emit(struct kv *kv, struct kv_group *g, const struct kv_member *except,
		struct blob *events)
{
	struct kv_member *m;

	DL_FOREACH(g->members, m)
	{
		if (m != except)
			push(kv, m->client, OP_EVENTS, m->gid, blob_get(events));
	}
	blob_put(events);
}

uint64_t member_remove(struct kv *kv, struct kv_member *m, enum store_event_kind why, uint64_t now)
{
	struct kv_group *g = m->group;
	struct writer w = {.blob = NULL};
	uint64_t seq = ++g->seq;
	uint32_t number = m->number;

	if (m->round && m->round->member == m) {
		reply(kv, m->client, m->round->w.id, SMEM_OBJECT_NOT_EXISTS,
		      "group %s: left during the call", g->name);
		m->round->w.over(kv, &m->round->w, OVER_CANCELLED);
	}
	DL_DELETE(g->members, m);
	HASH_DELETE(hh, m->client->members, m);
	m->client->thing_count--;
	g->by_number[number] = NULL;
	g->gone[number] = (uint8_t)why;
	g->gone_count++;
	g->count--;
	member_event(&w, m, why, seq, (struct span){NULL, 0});
	group_emit(kv, g, NULL, writer_done(&w));
	fence_member_gone(kv, m);
	round_member_gone(kv, g, number, why);
	blob_put(m->blob);
	free(m);
	if (g->count == 0)
		group_end_life(kv, g);
	if (g->entering)
		enter_again(kv, g, now);
	return seq;
}

static bool is_entering(const struct kv_group *g, const struct kv_client *c)
{
	const struct kv_entering *e;

	DL_FOREACH(g->entering, e)
	{
		if (e->w.client == c)
			return true;
	}
	return false;
}

void groups_client_back(struct kv *kv, struct kv_client *c, uint64_t now)
{
	struct kv_member *m, *tmp;

	HASH_ITER (hh, c->members, m, tmp) {
		if (m->group->entering)
			enter_again(kv, m->group, now);
	}
	struct kv_group *g, *gtmp;
	HASH_ITER (hh, kv->groups, g, gtmp) {
		if (is_entering(g, c)) {
			enter_again(kv, g, now);
			group_tidy(kv, g);
		}
	}
}

static void membership_end(struct kv *kv, struct kv_member *m, bool lost, uint64_t now)
{
	struct kv_group *g = m->group;

	member_remove(kv, m, lost ? STORE_EVENT_LOST : STORE_EVENT_LEFT, now);
	group_tidy(kv, g);
}

void groups_client_gone(struct kv *kv, struct kv_client *c, bool lost, uint64_t now)
{
	while (c->members)
		membership_end(kv, c->members, lost, now);
	refusal_client_gone(kv, c);
}

static struct kv_member *member_find(struct kv_client *c, uint64_t gid)
{
	struct kv_member *m;

	HASH_FIND(hh, c->members, &gid, sizeof(gid), m);
	return m;
}

void group_cancel_entered(struct kv *kv, struct kv_client *c, uint64_t gid, uint64_t now)
{
	struct kv_member *m = member_find(c, gid);

	if (m)
		membership_end(kv, m, false, now);
}

void reply_conflict(struct kv *kv, const struct wait *w, const struct store_conflict *c,
		    struct span spec, struct span own_spec, const char *text)
{
	struct writer out = reply_begin(SMEM_INVALID_PARAM, text);

	write_u32(&out, c->member);
	write_u32(&out, c->own);
	write_u8(&out, c->duplicate);
	write_span(&out, spec);
	write_span(&out, own_spec);
	reply_end(kv, w->client, w->id, &out);
}

static void group_blob(struct kv *kv, struct kv_member *m, const struct request *req)
{
	struct blob *b = blob_new(req->val.data, req->val.len);
	struct writer w = {.blob = NULL};

	if (!b) {
		reply(kv, m->client, req->id, SMEM_MALLOC_FAILED, "store: out of memory");
		return;
	}
	blob_put(m->blob);
	m->blob = b;
	member_event(&w, m, STORE_EVENT_BLOB, ++m->group->seq, blob_span(b));
	group_emit(kv, m->group, NULL, writer_done(&w));
	reply(kv, m->client, req->id, SMEM_OK, "%s", "");
}

static void group_note(struct kv *kv, struct kv_member *m, const struct request *req)
{
	struct kv_group *g = m->group;
	struct writer w = {.blob = NULL};

	if (!req->flags || !g->once) {
		member_event(&w, m, STORE_EVENT_NOTE, ++g->seq, req->val);
		struct blob *note = writer_done(&w);
		if (req->flags && note) {
			g->once = blob_get(note);
			g->once_seq = g->seq;
		}
		group_emit(kv, g, NULL, note);
	}
	reply(kv, m->client, req->id, SMEM_OK, "%s", "");
}

static void group_leave(struct kv *kv, struct kv_member *m, const struct request *req, uint64_t now)
{
	struct kv_client *c = m->client;
	struct kv_group *g = m->group;
	struct request fence = *req;

	fence.seq = member_remove(kv, m, STORE_EVENT_LEFT, now);
	if (req->flags)
		fence_begin(kv, c, g, &fence, now);
	else
		reply(kv, c, req->id, SMEM_OK, "%s", "");
	group_tidy(kv, g);
}

void group_request(struct kv *kv, struct kv_client *c, const struct request *req, uint64_t now)
{
	if (req->op == OP_ENTER)
		return enter_begin(kv, c, req, now);
	struct kv_member *m = member_find(c, req->gid);
	if (!m)
		return reply(kv, c, req->id, SMEM_OBJECT_NOT_EXISTS,
			     "store: %s in a group that was left", proto_op_name(req->op));
	switch (req->op) {
	case OP_GROUP_ACK:
		return fence_ack(kv, m, req);
	case OP_FENCE:
		return fence_begin(kv, c, m->group, req, now);
	case OP_ROUND:
	case OP_SET_ROUND:
		return round_begin(kv, m, req, now);
	case OP_SETTLE:
		return round_settle(kv, m, req, now);
	case OP_PRESENT:
		return round_present(kv, m, req, now);
	case OP_BLOB:
		return group_blob(kv, m, req);
	case OP_NOTE:
		return group_note(kv, m, req);
	default:
		return group_leave(kv, m, req, now);
	}
}
