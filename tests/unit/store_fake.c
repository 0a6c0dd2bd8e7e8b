/* SPDX-License-Identifier: Apache-2.0 */
#include "store_fake.h"

#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "store/reply.h"
#include "util/err.h"

struct pending {
	struct store_group *group;
	uint64_t id;
	struct blob *body;
	struct pending *prev, *next;
};

pthread_mutex_t fake_lock = PTHREAD_MUTEX_INITIALIZER;
pthread_cond_t fake_changed = PTHREAD_COND_INITIALIZER;
static struct kv *kv;
static struct pending *pending;

static void take(void *peer, uint16_t op, uint64_t id, struct blob *body)
{
	struct pending *p;

	DL_FOREACH(pending, p)
	{
		if (op != OP_REPLY || p->group != peer || p->id != id)
			continue;
		p->body = blob_new(body->data, body->len); /* blobs belong to one thread */
		pthread_cond_broadcast(&fake_changed);
		break;
	}
	blob_put(body);
}

static void hold(struct store_group *g, enum hold where)
{
	if (g->hold != where)
		return;
	g->held = true;
	pthread_cond_broadcast(&fake_changed);
	while (g->hold == where)
		pthread_cond_wait(&fake_changed, &fake_lock);
	g->held = false;
}

/* Until the reply is there; whoever waits looks after the time. */
static void await(struct store_group *g, struct pending *p, bool wakes)
{
	while (!p->body && g->client && !(wakes && g->woken)) {
		uint64_t due = kv_due(kv), now = clock_ns();
		if (due <= now) {
			kv_tick(kv, now);
			continue;
		}
		struct deadline d = {.end = due < now + NS_PER_S ? due : now + NS_PER_S};
		struct timespec until = deadline_timespec(d);
		pthread_cond_clockwait(&fake_changed, &fake_lock, CLOCK_MONOTONIC, &until);
	}
}

static int32_t ask_locked(struct store_group *g, struct request *req, struct pending *p)
{
	g->calls++;
	hold(g, HOLD_BEFORE);
	if (g->unreachable)
		return smem_err(SMEM_UNREACHABLE, "the wire is cut");
	*p = (struct pending){.group = g, .id = ++g->next};
	req->id = p->id;
	DL_APPEND(pending, p);
	if (g->client && kv_request(kv, g->client, req, clock_ns()))
		abort();
	await(g, p, req->op != OP_SETTLE);
	DL_DELETE(pending, p);
	hold(g, HOLD_AFTER);
	if (!p->body)
		return smem_err(SMEM_OBJECT_NOT_EXISTS, "woken");
	if (g->deaf)
		return smem_err(SMEM_TIMEOUT, "no answer");
	return SMEM_OK;
}

static int32_t ask(struct store_group *g, struct request *req, struct deadline deadline,
		   struct set *missing, struct store_parts *ret)
{
	struct pending p = {.body = NULL};

	req->gid = 1;
	req->timeout_ms = (uint64_t)deadline_left_ms(deadline);
	memset(missing, 0, sizeof(*missing));
	pthread_mutex_lock(&fake_lock);
	int32_t r = ask_locked(g, req, &p);
	pthread_mutex_unlock(&fake_lock);
	struct blob *body = p.body;
	if (r == SMEM_OK) {
		struct reader in = reader_of(body->data, body->len);
		r = (int32_t)read_u32(&in);
		struct span text = read_span(&in);
		size_t len = (size_t)(in.end - in.at);
		uint8_t *copy = malloc(len ? len : 1);
		if (len)
			memcpy(copy, in.at, len);
		if (r != SMEM_OK)
			smem_err(r, "%.*s", (int)text.len, (const char *)text.data);
		if (r == SMEM_OK && ret) {
			r = parts_read(copy, len, ret);
		} else {
			if (len)
				set_decode(read_span(&in), missing);
			free(copy);
		}
	}
	blob_put(body);
	return r;
}

void store_parts_free(struct store_parts *p)
{
	free(p->part);
	free(p->body);
	*p = (struct store_parts){.count = 0};
}

int32_t reply_malformed(const char *what)
{
	return smem_err(SMEM_IO, "%s", what);
}

int32_t parts_read(uint8_t *body, size_t len, struct store_parts *ret)
{
	struct reader in = reader_of(body, len);
	struct store_parts p = {.body = body, .part = calloc(WORLD_MAX, sizeof(*p.part))};

	p.count = read_u32(&in);
	for (uint32_t i = 0; i < p.count; i++) {
		set_decode(read_span(&in), &p.part[i].set);
		struct span val = read_span(&in);
		p.part[i].data = val.data;
		p.part[i].len = val.len;
	}
	*ret = p;
	return reader_done(&in) ? SMEM_OK : reply_malformed("parts");
}

int32_t store_group_sets(struct store_group *g, const struct store_sets *sets,
			 struct deadline deadline, struct set *missing, struct store_parts *ret)
{
	struct writer w = {.blob = NULL};

	write_set(&w, sets->set);
	struct blob *set = writer_done(&w);
	struct request req = {.op = OP_SET_ROUND,
			      .seq = sets->turn,
			      .sort = {set->data + 4, set->len - 4},
			      .extra = {sets->kind, sets->kind_len},
			      .val = {sets->val, sets->len}};
	int32_t r = ask(g, &req, deadline, missing, ret);
	blob_put(set);
	return r;
}

int32_t store_group_settle(struct store_group *g, uint32_t turn, const void *kind, size_t kind_len,
			   struct deadline deadline, struct set *missing, struct store_parts *ret)
{
	struct request req = {.op = OP_SETTLE, .seq = turn, .extra = {kind, kind_len}};

	return ask(g, &req, deadline, missing, ret);
}

void store_group_present(struct store_group *g, const void *kind, size_t kind_len)
{
	struct request req = {.op = OP_PRESENT, .gid = 1, .flags = 1, .extra = {kind, kind_len}};

	pthread_mutex_lock(&fake_lock);
	if (g->client)
		kv_request(kv, g->client, &req, clock_ns());
	pthread_mutex_unlock(&fake_lock);
}

int32_t store_group_absent(struct store_group *g, const void *kind, size_t kind_len,
			   struct deadline deadline, struct set *missing)
{
	struct request req = {.op = OP_PRESENT, .extra = {kind, kind_len}};

	return ask(g, &req, deadline, missing, NULL);
}

/* ---- the test's side ---- */

void fake_start(void)
{
	pending = NULL;
	if (kv_create(take, &kv) != SMEM_OK)
		abort();
}

void fake_stop(void)
{
	kv_destroy(kv);
}

void fake_enter(struct store_group *g, uint32_t member, uint32_t size)
{
	struct request enter = {.op = OP_ENTER,
				.flags = STORE_GROUP_CLOSED,
				.index = member,
				.size = size,
				.numbers = size,
				.gid = 1,
				.timeout_ms = 60000,
				.key = {(const uint8_t *)"g", 1}};

	g->client = kv_client_add(kv, g);
	if (!g->client || kv_request(kv, g->client, &enter, clock_ns()))
		abort();
}

void fake_lost(struct store_group *g)
{
	struct kv_client *client = g->client;

	g->client = NULL;
	g->woken = true;
	if (g->hold == HOLD_NOT)
		g->hold = HOLD_AFTER; /* the thread that plays it does nothing any more */
	kv_client_gone(kv, client, true, clock_ns());
	pthread_cond_broadcast(&fake_changed);
}

void fake_hold(struct store_group *g, enum hold how)
{
	pthread_mutex_lock(&fake_lock);
	g->hold = how;
	pthread_cond_broadcast(&fake_changed);
	pthread_mutex_unlock(&fake_lock);
}

void fake_until_held(struct store_group *g)
{
	pthread_mutex_lock(&fake_lock);
	while (!g->held)
		pthread_cond_wait(&fake_changed, &fake_lock);
	pthread_mutex_unlock(&fake_lock);
}
