/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A key exists while it has a value, somebody waits for one, or somebody watches it. Its memory
 * counts against the client that made the value; an ephemeral value goes with that client, another
 * one stays and then counts only in all.
 */
#include <stdlib.h>
#include <string.h>

#include "store/kv_int.h"
#include "store/store.h"
#include "util/err.h"

struct get_wait {
	struct wait w;
	struct kv_key *key;
	struct get_wait *kprev, *knext;
};

struct kv_watch {
	uint64_t id;
	struct kv_client *client;
	struct kv_key *key;
	struct kv_watch *prev, *next;	/* of the client */
	struct kv_watch *kprev, *knext; /* of the key */
};

struct kv_key {
	UT_hash_handle hh;
	char *name;
	struct blob *val;	  /* NULL: no value */
	struct kv_client *client; /* that made the value; NULL: gone */
	bool ephemeral;
	struct get_wait *waits;
	struct kv_watch *watches;
	struct kv_key *prev, *next; /* of the client */
};

static size_t key_cost(const struct kv_key *k)
{
	return sizeof(*k) + strlen(k->name) + k->val->len;
}

static struct kv_key *key_find(struct kv *kv, struct span name)
{
	struct kv_key *k;

	HASH_FIND(hh, kv->keys, name.data, name.len, k);
	return k;
}

static struct kv_key *key_make(struct kv *kv, struct span name)
{
	struct kv_key *k = key_find(kv, name);

	if (k)
		return k;
	k = calloc(1, sizeof(*k));
	if (k)
		k->name = name_dup(name);
	if (!k || !k->name) {
		free(k);
		return NULL;
	}
	HASH_ADD_KEYPTR(hh, kv->keys, k->name, name.len, k);
	if (!k->hh.tbl) {
		free(k->name);
		free(k);
		return NULL;
	}
	return k;
}

static void key_tidy(struct kv *kv, struct kv_key *k)
{
	if (k->val || k->waits || k->watches)
		return;
	HASH_DELETE(hh, kv->keys, k);
	free(k->name);
	free(k);
}

static void key_disown(struct kv *kv, struct kv_key *k)
{
	if (!k->val)
		return;
	kv->key_count--;
	kv->key_bytes -= key_cost(k);
	if (k->client) {
		k->client->key_count--;
		k->client->key_bytes -= key_cost(k);
		DL_DELETE(k->client->keys, k);
	}
	k->client = NULL;
}

static void key_own(struct kv *kv, struct kv_key *k, struct kv_client *c)
{
	kv->key_count++;
	kv->key_bytes += key_cost(k);
	k->client = c;
	if (c) {
		c->key_count++;
		c->key_bytes += key_cost(k);
		DL_APPEND(c->keys, k);
	}
}

static void watch_push(struct kv *kv, struct kv_watch *w)
{
	struct writer out = {.blob = NULL};

	write_u8(&out, w->key->val != NULL);
	write_span(&out, blob_span(w->key->val));
	push(kv, w->client, OP_WATCHED, w->id, writer_done(&out));
}

static void reply_value(struct kv *kv, struct kv_client *c, uint64_t id, const struct blob *val)
{
	struct writer w = reply_begin(SMEM_OK, "");

	write_span(&w, blob_span(val));
	reply_end(kv, c, id, &w);
}

/* Everybody who waits or watches hears of the value as it is now. */
static void key_changed(struct kv *kv, struct kv_key *k)
{
	struct get_wait *g, *tmp;
	struct kv_watch *w;

	if (k->val) {
		DL_FOREACH_SAFE2(k->waits, g, tmp, knext)
		{
			reply_value(kv, g->w.client, g->w.id, k->val);
			wait_end(kv, &g->w);
			DL_DELETE2(k->waits, g, kprev, knext);
			free(g);
		}
	}
	DL_FOREACH2(k->watches, w, knext)
	watch_push(kv, w);
}

/* The same limits hold for all ways to make a value. False: answered. */
static bool key_fits(struct kv *kv, struct kv_client *c, uint64_t id, size_t len)
{
	if (len > STORE_VALUE_MAX)
		reply(kv, c, id, SMEM_INVALID_PARAM, "store: value of %zu bytes, at most %u", len,
		      STORE_VALUE_MAX);
	else if (c->key_count >= STORE_CLIENT_KEYS_MAX ||
		 c->key_bytes + len > STORE_CLIENT_BYTES_MAX)
		reply(kv, c, id, SMEM_MALLOC_FAILED,
		      "store: one client has %u keys with %zu bytes, at most %u and %u",
		      c->key_count, c->key_bytes, STORE_CLIENT_KEYS_MAX, STORE_CLIENT_BYTES_MAX);
	else if (kv->key_count >= STORE_KEYS_MAX || kv->key_bytes + len > STORE_BYTES_MAX)
		reply(kv, c, id, SMEM_MALLOC_FAILED,
		      "store: %zu keys with %zu bytes in all, at most %u and %u", kv->key_count,
		      kv->key_bytes, STORE_KEYS_MAX, STORE_BYTES_MAX);
	else
		return true;
	return false;
}

static bool key_put(struct kv *kv, struct kv_client *c, const struct request *req, struct span val,
		    bool ephemeral)
{
	if (!key_fits(kv, c, req->id, val.len))
		return false;
	struct kv_key *k = key_make(kv, req->key);
	struct blob *b = k ? blob_new(val.data, val.len) : NULL;
	if (!b) {
		if (k)
			key_tidy(kv, k);
		reply(kv, c, req->id, SMEM_MALLOC_FAILED, "store: out of memory");
		return false;
	}
	/* Who adds to an ephemeral value does not prolong its life. */
	struct kv_client *owner = req->op == OP_APPEND && ephemeral ? k->client : c;
	key_disown(kv, k);
	blob_put(k->val);
	k->val = b;
	k->ephemeral = ephemeral;
	key_own(kv, k, owner);
	key_changed(kv, k);
	return true;
}

static void key_clear(struct kv *kv, struct kv_key *k)
{
	if (k->val) {
		key_disown(kv, k);
		blob_put(k->val);
		k->val = NULL;
		key_changed(kv, k);
	}
	key_tidy(kv, k);
}

void kv_set(struct kv *kv, struct kv_client *c, const struct request *req)
{
	struct kv_key *k = key_find(kv, req->key);

	if ((req->flags & STORE_EXCLUSIVE) && k && k->val) {
		reply(kv, c, req->id, SMEM_DUPLICATED_OBJECT, "store: key %s exists", k->name);
		return;
	}
	if (key_put(kv, c, req, req->val, (req->flags & STORE_EPHEMERAL) != 0))
		reply(kv, c, req->id, SMEM_OK, "%s", "");
}

static void get_over(struct kv *kv, struct wait *w, enum over why)
{
	struct get_wait *g = (struct get_wait *)w;
	struct kv_key *k = g->key;

	if (why == OVER_TIMEOUT)
		reply(kv, w->client, w->id, SMEM_TIMEOUT, "store: key %s was not set", k->name);
	wait_end(kv, w);
	DL_DELETE2(k->waits, g, kprev, knext);
	free(g);
	key_tidy(kv, k);
}

void kv_get(struct kv *kv, struct kv_client *c, const struct request *req, uint64_t now)
{
	struct kv_key *k = key_find(kv, req->key);

	if (k && k->val) {
		reply_value(kv, c, req->id, k->val);
		return;
	}
	if (!req->flags) {
		reply(kv, c, req->id, SMEM_OBJECT_NOT_EXISTS, "store: no key %.*s",
		      (int)req->key.len, (const char *)req->key.data);
		return;
	}
	struct get_wait *g = calloc(1, sizeof(*g));
	k = g ? key_make(kv, req->key) : NULL;
	if (!k) {
		free(g);
		reply(kv, c, req->id, SMEM_MALLOC_FAILED, "store: out of memory");
		return;
	}
	g->w.over = get_over;
	g->key = k;
	if (!wait_begin(kv, &g->w, c, req, now)) {
		free(g);
		key_tidy(kv, k);
		return;
	}
	DL_APPEND2(k->waits, g, kprev, knext);
}

void kv_del(struct kv *kv, struct kv_client *c, const struct request *req)
{
	struct kv_key *k = key_find(kv, req->key);

	if (k)
		key_clear(kv, k);
	reply(kv, c, req->id, SMEM_OK, "%s", "");
}

void kv_add(struct kv *kv, struct kv_client *c, const struct request *req)
{
	struct kv_key *k = key_find(kv, req->key);
	uint8_t bytes[8];
	uint64_t v = 0;

	if (k && k->val) {
		struct reader r = reader_of(k->val->data, k->val->len);
		v = read_u64(&r);
		if (!reader_done(&r)) {
			reply(kv, c, req->id, SMEM_INVALID_PARAM, "store: key %s is no counter",
			      k->name);
			return;
		}
	}
	v += req->value;
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(v >> (8 * i));
	if (!key_put(kv, c, req, (struct span){bytes, sizeof(bytes)}, false))
		return;
	struct writer w = reply_begin(SMEM_OK, "");
	write_u64(&w, v);
	reply_end(kv, c, req->id, &w);
}

void kv_cas(struct kv *kv, struct kv_client *c, const struct request *req)
{
	struct kv_key *k = key_find(kv, req->key);
	const struct blob *val = k ? k->val : NULL;
	bool expect = (req->flags & CAS_EXPECT) != 0;

	if (expect ? !val || !span_equal(blob_span(val), req->extra) : val != NULL) {
		struct writer w = reply_begin(SMEM_RESOURCE_IN_USE, "store: another value");
		write_u8(&w, val != NULL);
		write_span(&w, blob_span(val));
		reply_end(kv, c, req->id, &w);
		return;
	}
	if (req->flags & CAS_VALUE) {
		if (!key_put(kv, c, req, req->val, false))
			return;
	} else if (k) {
		key_clear(kv, k);
	}
	reply(kv, c, req->id, SMEM_OK, "%s", "");
}

void kv_append(struct kv *kv, struct kv_client *c, const struct request *req)
{
	struct kv_key *k = key_find(kv, req->key);
	size_t old = k && k->val ? k->val->len : 0;
	uint8_t *joined = malloc(old + req->val.len + 1);

	if (!joined) {
		reply(kv, c, req->id, SMEM_MALLOC_FAILED, "store: out of memory");
		return;
	}
	if (old)
		memcpy(joined, k->val->data, old);
	if (req->val.len)
		memcpy(joined + old, req->val.data, req->val.len);
	bool ephemeral = k && k->val && k->ephemeral;
	struct span all = {joined, old + req->val.len};
	if (key_put(kv, c, req, all, ephemeral)) {
		struct writer w = reply_begin(SMEM_OK, "");
		write_u64(&w, all.len);
		reply_end(kv, c, req->id, &w);
	}
	free(joined);
}

static void watch_free(struct kv *kv, struct kv_watch *w)
{
	struct kv_key *k = w->key;

	w->client->thing_count--;
	DL_DELETE(w->client->watches, w);
	DL_DELETE2(k->watches, w, kprev, knext);
	free(w);
	key_tidy(kv, k);
}

void kv_watch(struct kv *kv, struct kv_client *c, const struct request *req)
{
	if (!thing_take(kv, c, req->id))
		return;
	struct kv_watch *w = calloc(1, sizeof(*w));
	struct kv_key *k = w ? key_make(kv, req->key) : NULL;
	if (!k) {
		free(w);
		c->thing_count--;
		reply(kv, c, req->id, SMEM_MALLOC_FAILED, "store: out of memory");
		return;
	}
	*w = (struct kv_watch){.id = req->seq, .client = c, .key = k};
	DL_APPEND(c->watches, w);
	DL_APPEND2(k->watches, w, kprev, knext);
	if (k->val)
		watch_push(kv, w);
	reply(kv, c, req->id, SMEM_OK, "%s", "");
}

void kv_unwatch(struct kv *kv, struct kv_client *c, const struct request *req)
{
	struct kv_watch *w;

	DL_SEARCH_SCALAR(c->watches, w, id, req->seq);
	if (w)
		watch_free(kv, w);
	reply(kv, c, req->id, SMEM_OK, "%s", "");
}

void keys_client_gone(struct kv *kv, struct kv_client *c)
{
	while (c->watches)
		watch_free(kv, c->watches);
	while (c->keys) {
		struct kv_key *k = c->keys;
		if (k->ephemeral) {
			key_clear(kv, k);
		} else {
			key_disown(kv, k);
			key_own(kv, k, NULL);
		}
	}
}

uint32_t keys_leased(const struct kv_client *c, uint32_t max, const char **ret)
{
	const struct kv_key *k;
	uint32_t n = 0;

	DL_FOREACH(c->keys, k)
	{
		if (n == max)
			break;
		if (k->ephemeral)
			ret[n++] = k->name;
	}
	return n;
}

void keys_free(struct kv *kv)
{
	struct kv_key *k, *tmp;

	HASH_ITER (hh, kv->keys, k, tmp)
		key_clear(kv, k);
}
