/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The core: clients, requests, and everything that waits. A waiting request is in two places, a
 * heap by its end and its client's list, and ends exactly once: with what it waited for (the noun
 * calls wait_end() and answers), or through its `over` callback. Answers are queued through
 * kv->send, which never calls back, so no state changes under a running request.
 */
#include "store/kv.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/kv_group.h"
#include "store/kv_int.h"
#include "util/clock.h"
#include "util/err.h"

static void heap_put(struct kv *kv, size_t i, struct wait *w)
{
	kv->heap[i] = w;
	w->slot = i + 1;
}

static void heap_up(struct kv *kv, size_t i, struct wait *w)
{
	while (i > 0 && kv->heap[(i - 1) / 2]->end > w->end) {
		heap_put(kv, i, kv->heap[(i - 1) / 2]);
		i = (i - 1) / 2;
	}
	heap_put(kv, i, w);
}

static void heap_down(struct kv *kv, size_t i, struct wait *w)
{
	for (;;) {
		size_t child = 2 * i + 1;
		if (child >= kv->heap_len)
			break;
		if (child + 1 < kv->heap_len && kv->heap[child + 1]->end < kv->heap[child]->end)
			child++;
		if (kv->heap[child]->end >= w->end)
			break;
		heap_put(kv, i, kv->heap[child]);
		i = child;
	}
	heap_put(kv, i, w);
}

static bool heap_add(struct kv *kv, struct wait *w)
{
	if (kv->heap_len == kv->heap_cap) {
		size_t cap = kv->heap_cap ? 2 * kv->heap_cap : 64;
		struct wait **grown = realloc(kv->heap, cap * sizeof(struct wait *));
		if (!grown)
			return false;
		kv->heap = grown;
		kv->heap_cap = cap;
	}
	heap_up(kv, kv->heap_len++, w);
	return true;
}

static void heap_remove(struct kv *kv, struct wait *w)
{
	size_t i = w->slot - 1;
	struct wait *last = kv->heap[--kv->heap_len];

	w->slot = 0;
	if (last == w)
		return;
	if (i > 0 && kv->heap[(i - 1) / 2]->end > last->end)
		heap_up(kv, i, last);
	else
		heap_down(kv, i, last);
}

bool wait_begin(struct kv *kv, struct wait *w, struct kv_client *c, const struct request *req,
		uint64_t now)
{
	uint64_t ms =
	    req->timeout_ms < UINT32_MAX * 1000ull ? req->timeout_ms : UINT32_MAX * 1000ull;

	w->client = c;
	w->id = req->id;
	w->gid = req->gid;
	w->begin = now;
	w->end = now + ms * NS_PER_MS;
	if (c->wait_count >= STORE_CLIENT_WAITS_MAX) {
		reply(kv, c, req->id, SMEM_NEW_OBJECT_FAILED,
		      "store: more than %u requests of one client wait", STORE_CLIENT_WAITS_MAX);
		return false;
	}
	if (!heap_add(kv, w)) {
		reply(kv, c, req->id, SMEM_MALLOC_FAILED, "store: out of memory");
		return false;
	}
	c->wait_count++;
	DL_APPEND(c->waits, w);
	return true;
}

void wait_end(struct kv *kv, struct wait *w)
{
	heap_remove(kv, w);
	w->client->wait_count--;
	DL_DELETE(w->client->waits, w);
}

void push(struct kv *kv, struct kv_client *c, uint16_t op, uint64_t id, struct blob *body)
{
	/* Without memory for the body the peer is told nothing; its own deadline ends the call. */
	if (body)
		kv->send(c->peer, op, id, body);
}

struct writer reply_begin(int32_t code, const char *text)
{
	struct writer w = {.blob = NULL};

	write_u32(&w, (uint32_t)code);
	write_span(&w, (struct span){(const uint8_t *)text, strlen(text)});
	return w;
}

void reply_end(struct kv *kv, struct kv_client *c, uint64_t id, struct writer *w)
{
	struct blob *body = writer_done(w);

	if (id != 0)
		push(kv, c, OP_REPLY, id, body);
	else
		blob_put(body);
}

void reply(struct kv *kv, struct kv_client *c, uint64_t id, int32_t code, const char *fmt, ...)
{
	char text[900] = "";
	va_list ap;

	if (id == 0)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	struct writer w = reply_begin(code, text);
	reply_end(kv, c, id, &w);
}

bool thing_take(struct kv *kv, struct kv_client *c, uint64_t id)
{
	if (c->thing_count >= STORE_CLIENT_THINGS_MAX) {
		reply(kv, c, id, SMEM_NEW_OBJECT_FAILED,
		      "store: more than %u groups, ranges and watches of one client",
		      STORE_CLIENT_THINGS_MAX);
		return false;
	}
	c->thing_count++;
	return true;
}

char *name_dup(struct span s)
{
	char *name = malloc(s.len + 1);

	if (!name)
		return NULL;
	memcpy(name, s.data, s.len);
	name[s.len] = '\0';
	return name;
}

int32_t kv_create(kv_send_fn send, struct kv **ret)
{
	struct kv *kv = calloc(1, sizeof(*kv));

	if (!kv)
		return smem_err(SMEM_MALLOC_FAILED, "config store");
	kv->send = send;
	*ret = kv;
	return SMEM_OK;
}

static void send_nowhere(void *peer, uint16_t op, uint64_t id, struct blob *body)
{
	(void)peer;
	(void)op;
	(void)id;
	blob_put(body);
}

void kv_destroy(struct kv *kv)
{
	if (!kv)
		return;
	kv->send = send_nowhere;
	while (kv->clients)
		kv_client_gone(kv, kv->clients, false, 0);
	keys_free(kv);
	free(kv->heap);
	free(kv);
}

struct kv_client *kv_client_add(struct kv *kv, void *peer)
{
	struct kv_client *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->peer = peer;
	DL_APPEND(kv->clients, c);
	return c;
}

void kv_client_about(struct kv_client *c, const char *address, uint32_t version)
{
	snprintf(c->address, sizeof(c->address), "%s", address);
	c->version = version;
}

void kv_client_detached(struct kv *kv, struct kv_client *c, bool detached, uint64_t now)
{
	c->detached = detached;
	if (!detached)
		groups_client_back(kv, c, now);
}

void kv_client_gone(struct kv *kv, struct kv_client *c, bool lost, uint64_t now)
{
	while (c->waits)
		c->waits->over(kv, c->waits, lost ? OVER_LOST : OVER_LEFT);
	surveys_client_gone(kv, c);
	groups_client_gone(kv, c, lost, now);
	ranges_client_gone(kv, c);
	keys_client_gone(kv, c);
	DL_DELETE(kv->clients, c);
	free(c);
}

uint64_t kv_due(const struct kv *kv)
{
	return kv->heap_len ? kv->heap[0]->end : UINT64_MAX;
}

void kv_tick(struct kv *kv, uint64_t now)
{
	while (kv->heap_len && kv->heap[0]->end <= now)
		kv->heap[0]->over(kv, kv->heap[0], OVER_TIMEOUT);
}

static void cancel(struct kv *kv, struct kv_client *c, const struct request *req, uint64_t now)
{
	struct wait *w, *tmp;

	DL_FOREACH_SAFE(c->waits, w, tmp)
	{
		if (w->id == req->seq) {
			w->over(kv, w, OVER_CANCELLED);
			return;
		}
	}
	if (req->gid)
		group_cancel_entered(kv, c, req->gid, now);
}

static void dispatch(struct kv *kv, struct kv_client *c, const struct request *req, uint64_t now)
{
	switch (req->op) {
	case OP_CANCEL:
		return cancel(kv, c, req, now);
	case OP_SET:
		return kv_set(kv, c, req);
	case OP_GET:
		return kv_get(kv, c, req, now);
	case OP_DEL:
		return kv_del(kv, c, req);
	case OP_ADD:
		return kv_add(kv, c, req);
	case OP_CAS:
		return kv_cas(kv, c, req);
	case OP_APPEND:
		return kv_append(kv, c, req);
	case OP_GATHER:
		return kv_gather(kv, c, req, now);
	case OP_WATCH:
		return kv_watch(kv, c, req);
	case OP_UNWATCH:
		return kv_unwatch(kv, c, req);
	case OP_USABLE:
		return kv_usable(kv, c, req);
	case OP_HOLD:
		return kv_hold(kv, c, req);
	case OP_RELEASE:
		return kv_release(kv, c, req);
	case OP_SURVEY:
		return kv_survey(kv, c, req, now);
	case OP_ANSWER:
		return kv_answer(kv, c, req);
	default:
		return group_request(kv, c, req, now);
	}
}

const char *kv_request(struct kv *kv, struct kv_client *c, const struct request *req, uint64_t now)
{
	const char *wrong = request_wrong(req);

	if (wrong)
		return wrong;
	dispatch(kv, c, req, now);
	return NULL;
}
