/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ranges: named intervals that lie apart, kept sorted by begin. A new one is looked for first in
 * what all clients can use, then in what the asking client can; with as much room behind it as
 * there is, so that it can grow in place, and packed only when nothing else is left. Lists of
 * usable intervals are mostly equal, so they are shared, and an intersection looks at each
 * different list once.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "store/kv_int.h"
#include "store/store.h"
#include "util/err.h"

struct kv_range {
	char *name;
	uint64_t begin;
	uint64_t end;
	struct kv_hold *holds;
	struct kv_range *prev, *next;
};

struct kv_usable {
	uint32_t refs;
	uint32_t count;
	struct store_range list[];
};

/* Lists made on purpose to be slow to intersect end the search for what all can use. */
#define SEARCH_BUDGET 20000

struct search {
	const struct kv *kv;
	const struct request *req;
	uint64_t room;
	uint32_t *budget;
};

/* Room behind a new range, tried in this order: the largest window there is, then less. */
static const uint64_t rooms[] = {4ull << 40, 256ull << 30, 16ull << 30, 0};

static void usable_put(struct kv_usable *u)
{
	if (u && --u->refs == 0)
		free(u);
}

static struct kv_usable *usable_share(struct kv *kv, struct kv_usable *u)
{
	struct kv_client *c;

	DL_FOREACH(kv->clients, c)
	{
		struct kv_usable *other = c->usable;
		if (other && other->count == u->count &&
		    memcmp(other->list, u->list, u->count * sizeof(u->list[0])) == 0) {
			free(u);
			other->refs++;
			return other;
		}
	}
	return u;
}

void kv_usable(struct kv *kv, struct kv_client *c, const struct request *req)
{
	struct reader r = reader_of(req->val.data, req->val.len);
	uint32_t count = (uint32_t)(req->val.len / 16);

	if (count > STORE_CLIENT_USABLE_MAX || req->val.len % 16 != 0) {
		reply(kv, c, req->id, SMEM_INVALID_PARAM, "store: %u usable ranges, at most %u",
		      count, STORE_CLIENT_USABLE_MAX);
		return;
	}
	struct kv_usable *u = calloc(1, sizeof(*u) + count * sizeof(u->list[0]));
	if (!u) {
		reply(kv, c, req->id, SMEM_MALLOC_FAILED, "store: out of memory");
		return;
	}
	u->refs = 1;
	u->count = count;
	for (uint32_t i = 0; i < count; i++) {
		u->list[i].begin = read_u64(&r);
		u->list[i].end = read_u64(&r);
		if (u->list[i].end < u->list[i].begin)
			u->list[i].end = u->list[i].begin;
	}
	u = usable_share(kv, u);
	usable_put(c->usable);
	c->usable = u;
	reply(kv, c, req->id, SMEM_OK, "%s", "");
}

static bool usable_covers(const struct kv_usable *u, uint64_t begin, uint64_t end)
{
	for (uint32_t i = 0; u && i < u->count; i++) {
		if (u->list[i].begin <= begin && end <= u->list[i].end)
			return true;
	}
	return false;
}

/* The first multiple of align in [begin, end) with len bytes free of ranges (and of the room behind
 * them) and `room` free behind it as far as the interval goes. */
static bool fit(const struct search *s, struct store_range in, uint64_t *ret)
{
	uint64_t align = s->req->align, room = s->room;
	uint64_t need = s->req->value > room ? s->req->value : room;
	uint64_t at = (in.begin + align - 1) / align * align;
	const struct kv_range *r;

	if (at < in.begin || need > in.end - in.begin)
		return false;
	DL_FOREACH(s->kv->ranges, r)
	{
		uint64_t taken = r->end;
		if (room > taken - r->begin && r->begin <= UINT64_MAX - room)
			taken = r->begin + room;
		if (taken <= at || r->begin >= in.end)
			continue;
		if (at <= in.end - need && at + need <= r->begin)
			break;
		if (taken > UINT64_MAX - align)
			return false;
		at = (taken + align - 1) / align * align;
	}
	if (at < in.begin || at > in.end - need)
		return false;
	*ret = at;
	return true;
}

/* Depth-first: what is left of `in` after the lists of the clients from `c` on; the first place in
 * it that fits. */
static bool fit_all(const struct search *s, const struct kv_client *c, const struct kv_usable *done,
		    struct store_range in, uint64_t *ret)
{
	if (*s->budget == 0)
		return false;
	--*s->budget;
	while (c && (!c->usable || c->usable == done))
		c = c->next;
	if (!c)
		return fit(s, in, ret);
	for (uint32_t i = 0; i < c->usable->count; i++) {
		struct store_range part = c->usable->list[i];
		if (part.begin < in.begin)
			part.begin = in.begin;
		if (part.end > in.end)
			part.end = in.end;
		if (part.begin < part.end && part.end - part.begin >= s->req->value &&
		    fit_all(s, c->next, c->usable, part, ret))
			return true;
	}
	return false;
}

static bool place(const struct kv *kv, const struct kv_client *c, const struct request *req,
		  bool for_all, uint64_t *ret)
{
	uint32_t budget = SEARCH_BUDGET;

	for (size_t k = 0; k < sizeof(rooms) / sizeof(rooms[0]); k++) {
		struct search s = {.kv = kv, .req = req, .room = rooms[k], .budget = &budget};
		for (uint32_t i = 0; c->usable && i < c->usable->count; i++) {
			if (fit_all(&s, for_all ? kv->clients : NULL, c->usable, c->usable->list[i],
				    ret))
				return true;
		}
	}
	return false;
}

static int range_order(const struct kv_range *a, const struct kv_range *b)
{
	return a->begin < b->begin ? -1 : a->begin > b->begin;
}

static struct kv_range *range_find(struct kv *kv, struct span name)
{
	struct kv_range *r;

	DL_FOREACH(kv->ranges, r)
	{
		if (strlen(r->name) == name.len && memcmp(r->name, name.data, name.len) == 0)
			return r;
	}
	return NULL;
}

static void range_tidy(struct kv *kv, struct kv_range *r)
{
	if (r->holds)
		return;
	kv->range_count--;
	DL_DELETE(kv->ranges, r);
	free(r->name);
	free(r);
}

static struct kv_range *range_make(struct kv *kv, struct kv_client *c, const struct request *req)
{
	uint64_t begin;

	if (kv->range_count >= STORE_RANGES_MAX) {
		reply(kv, c, req->id, SMEM_RESOURCE_IN_USE, "store: %u ranges are held",
		      STORE_RANGES_MAX);
		return NULL;
	}
	if (!place(kv, c, req, true, &begin) && !place(kv, c, req, false, &begin)) {
		reply(kv, c, req->id, SMEM_RESOURCE_IN_USE,
		      "store: no room for %" PRIu64 " bytes of %.*s in what this process can use",
		      req->value, (int)req->key.len, (const char *)req->key.data);
		return NULL;
	}
	struct kv_range *r = calloc(1, sizeof(*r));
	if (r)
		r->name = name_dup(req->key);
	if (!r || !r->name) {
		free(r);
		reply(kv, c, req->id, SMEM_MALLOC_FAILED, "store: out of memory");
		return NULL;
	}
	r->begin = begin;
	r->end = begin + req->value;
	kv->range_count++;
	DL_INSERT_INORDER(kv->ranges, r, range_order);
	return r;
}

/* False: answered. */
static bool range_grow(struct kv *kv, struct kv_client *c, const struct request *req,
		       struct kv_range *r)
{
	uint64_t end = r->begin + req->value;
	const struct kv_range *other;

	if (r->begin % req->align != 0 || end < r->begin ||
	    !usable_covers(c->usable, r->begin, end > r->end ? end : r->end)) {
		reply(kv, c, req->id, SMEM_RESOURCE_IN_USE,
		      "store: range 0x%" PRIx64 "-0x%" PRIx64
		      " of %s is agreed, and this process cannot use it",
		      r->begin, end > r->end ? end : r->end, r->name);
		return false;
	}
	if (end <= r->end)
		return true;
	DL_FOREACH(kv->ranges, other)
	{
		if (other->begin > r->begin && other->begin < end) {
			reply(kv, c, req->id, SMEM_RESOURCE_IN_USE,
			      "store: range 0x%" PRIx64 "-0x%" PRIx64
			      " of %s cannot grow: %s begins at 0x%" PRIx64,
			      r->begin, end, r->name, other->name, other->begin);
			return false;
		}
	}
	r->end = end;
	return true;
}

static struct kv_hold *hold_find(struct kv_client *c, const struct kv_range *r)
{
	struct kv_hold *h;

	DL_SEARCH_SCALAR(c->holds, h, range, r);
	return h;
}

static bool hold_make(struct kv *kv, struct kv_client *c, uint64_t id, struct kv_range *r)
{
	if (hold_find(c, r))
		return true;
	if (!thing_take(kv, c, id))
		return false;
	struct kv_hold *h = calloc(1, sizeof(*h));
	if (!h) {
		c->thing_count--;
		reply(kv, c, id, SMEM_MALLOC_FAILED, "store: out of memory");
		return false;
	}
	h->client = c;
	h->range = r;
	DL_APPEND(c->holds, h);
	DL_APPEND2(r->holds, h, rprev, rnext);
	return true;
}

void kv_hold(struct kv *kv, struct kv_client *c, const struct request *req)
{
	if (req->value == 0 || req->align == 0 || req->align > 1ull << 62) {
		reply(kv, c, req->id, SMEM_INVALID_PARAM, "store: range of length or alignment 0");
		return;
	}
	struct kv_range *r = range_find(kv, req->key);
	if (r && !range_grow(kv, c, req, r))
		return;
	if (!r)
		r = range_make(kv, c, req);
	if (!r)
		return;
	if (!hold_make(kv, c, req->id, r)) {
		range_tidy(kv, r);
		return;
	}
	struct writer w = reply_begin(SMEM_OK, "");
	write_u64(&w, r->begin);
	reply_end(kv, c, req->id, &w);
}

static void hold_free(struct kv *kv, struct kv_hold *h)
{
	struct kv_range *r = h->range;

	h->client->thing_count--;
	DL_DELETE(h->client->holds, h);
	DL_DELETE2(r->holds, h, rprev, rnext);
	free(h);
	range_tidy(kv, r);
}

void kv_release(struct kv *kv, struct kv_client *c, const struct request *req)
{
	struct kv_range *r = range_find(kv, req->key);
	struct kv_hold *h = r ? hold_find(c, r) : NULL;

	if (h)
		hold_free(kv, h);
	reply(kv, c, req->id, SMEM_OK, "%s", "");
}

void ranges_client_gone(struct kv *kv, struct kv_client *c)
{
	while (c->holds)
		hold_free(kv, c->holds);
	usable_put(c->usable);
	c->usable = NULL;
}
