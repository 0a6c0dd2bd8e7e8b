/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A gather lives from its first contribution until it is complete, then its key is free again. One
 * request and one reply for each contributor; the reply is encoded once and shared. Who times out
 * takes its contribution back; who is lost fails those that wait.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/kv_int.h"
#include "util/err.h"

struct part {
	struct wait w;
	struct kv_gather *gather;
	uint32_t index;
	struct blob *val;
};

struct kv_gather {
	UT_hash_handle hh;
	char *name;
	uint32_t size;
	uint32_t count;
	struct part **parts; /* by index */
};

static void gather_free(struct kv *kv, struct kv_gather *g)
{
	HASH_DELETE(hh, kv->gathers, g);
	free(g->name);
	free(g->parts);
	free(g);
}

/* Take a part out; the gather goes with its last one. */
static void part_free(struct kv *kv, struct part *p)
{
	struct kv_gather *g = p->gather;

	wait_end(kv, &p->w);
	g->parts[p->index] = NULL;
	blob_put(p->val);
	free(p);
	if (--g->count == 0)
		gather_free(kv, g);
}

/* "3, 5, 6 and 12 more" of those that are missing. */
static void missing_text(const struct kv_gather *g, char *text, size_t cap)
{
	size_t used = 0;
	uint32_t named = 0;

	text[0] = '\0';
	for (uint32_t i = 0; i < g->size && named < 16; i++) {
		if (!g->parts[i] && used < cap)
			used += (size_t)snprintf(text + used, cap - used, "%s%u",
						 named++ ? ", " : "", i);
	}
	uint32_t more = g->size - g->count - named;
	if (more && used < cap)
		snprintf(text + used, cap - used, " and %u more", more);
}

static void part_over(struct kv *kv, struct wait *w, enum over why)
{
	struct part *p = (struct part *)w;
	struct kv_gather *g = p->gather;
	uint32_t index = p->index, left = g->count - 1;
	char text[256];

	if (why == OVER_TIMEOUT) {
		missing_text(g, text, sizeof(text));
		reply(kv, w->client, w->id, SMEM_TIMEOUT, "gather %s: missing %s", g->name, text);
	}
	bool lost = why == OVER_LOST;
	uint32_t size = g->size;
	part_free(kv, p);
	for (uint32_t i = 0; lost && left && i < size; i++) {
		struct part *other = g->parts[i];
		if (!other)
			continue;
		reply(kv, other->w.client, other->w.id, SMEM_PEER_LOST,
		      "gather %s: contributor %u was lost", g->name, index);
		left--;
		part_free(kv, other);
	}
}

struct blob *gather_reply(struct blob *const *parts, uint32_t size)
{
	struct writer w = reply_begin(SMEM_OK, "");

	write_u32(&w, size);
	for (uint32_t i = 0; i < size; i++)
		write_span(&w, blob_span(parts[i]));
	return writer_done(&w);
}

static void gather_finish(struct kv *kv, struct kv_gather *g)
{
	uint32_t size = g->size;
	struct blob **vals = calloc(size, sizeof(struct blob *));

	for (uint32_t i = 0; vals && i < size; i++)
		vals[i] = g->parts[i]->val;
	struct blob *body = vals ? gather_reply(vals, size) : NULL;
	free(vals);
	for (uint32_t i = 0; i < size; i++) {
		struct part *p = g->parts[i];
		if (body)
			push(kv, p->w.client, OP_REPLY, p->w.id, blob_get(body));
		else
			reply(kv, p->w.client, p->w.id, SMEM_MALLOC_FAILED,
			      "gather %s: the parts together are too long", g->name);
		bool last = g->count == 1;
		part_free(kv, p);
		if (last)
			break;
	}
	blob_put(body);
}

static struct kv_gather *gather_make(struct kv *kv, const struct request *req)
{
	struct kv_gather *g;

	HASH_FIND(hh, kv->gathers, req->key.data, req->key.len, g);
	if (g)
		return g;
	g = calloc(1, sizeof(*g));
	if (!g)
		return NULL;
	g->size = req->size;
	g->name = name_dup(req->key);
	g->parts = calloc(req->size, sizeof(struct part *));
	if (g->name && g->parts)
		HASH_ADD_KEYPTR(hh, kv->gathers, g->name, req->key.len, g);
	if (!g->hh.tbl) {
		free(g->name);
		free(g->parts);
		free(g);
		return NULL;
	}
	return g;
}

void kv_gather(struct kv *kv, struct kv_client *c, const struct request *req, uint64_t now)
{
	if (req->size == 0 || req->size > WORLD_MAX || req->index >= req->size) {
		reply(kv, c, req->id, SMEM_INVALID_PARAM, "gather: index %u of %u", req->index,
		      req->size);
		return;
	}
	struct kv_gather *g = gather_make(kv, req);
	struct part *p = calloc(1, sizeof(*p));
	struct blob *val = blob_new(req->val.data, req->val.len);
	bool ok = false;
	if (!g || !p || !val)
		reply(kv, c, req->id, SMEM_MALLOC_FAILED, "store: out of memory");
	else if (g->size != req->size)
		reply(kv, c, req->id, SMEM_INVALID_PARAM, "gather %s: size %u, others have %u",
		      g->name, req->size, g->size);
	else if (g->parts[req->index])
		reply(kv, c, req->id, SMEM_DUPLICATED_OBJECT,
		      "gather %s: index %u has contributed already", g->name, req->index);
	else
		ok = wait_begin(kv, &p->w, c, req, now);
	if (!ok) {
		free(p);
		blob_put(val);
		if (g && g->count == 0)
			gather_free(kv, g);
		return;
	}
	p->w.over = part_over;
	p->gather = g;
	p->index = req->index;
	p->val = val;
	g->parts[p->index] = p;
	if (++g->count == g->size)
		gather_finish(kv, g);
}
