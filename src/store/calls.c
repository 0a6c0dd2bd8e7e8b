/* SPDX-License-Identifier: Apache-2.0 */
/* store.h's calls on keys and ranges: a request, and reading its reply. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "store/client.h"
#include "store/reply.h"
#include "util/cleanup.h"
#include "util/err.h"
#include "util/limits.h"

static struct span key_span(const char *key)
{
	return (struct span){(const uint8_t *)key, strlen(key)};
}

static struct span bytes_span(const void *data, size_t len)
{
	return (struct span){data, len};
}

int32_t reply_malformed(const char *what)
{
	return smem_err(SMEM_IO, "malformed reply of the config store to %s", what);
}

/* A copy that belongs to the caller. */
int32_t bytes_copy(struct span s, struct store_bytes *ret)
{
	struct store_bytes b = {.len = s.len};

	if (s.len > 0) {
		b.data = malloc(s.len);
		if (!b.data)
			return smem_err(SMEM_MALLOC_FAILED, "%zu bytes from the config store",
					s.len);
		memcpy(b.data, s.data, s.len);
	}
	*ret = b;
	return SMEM_OK;
}

void store_bytes_free(struct store_bytes *b)
{
	free(b->data);
	*b = (struct store_bytes){.data = NULL};
}

/* A call whose reply says nothing but its code. */
static int32_t call_plain(struct store *s, struct call *call)
{
	int32_t r = client_call(store_client(s), call);

	free(call->body);
	return r;
}

int32_t store_set(struct store *s, const char *key, const void *val, size_t len, uint32_t flags,
		  struct deadline deadline)
{
	struct call call = {.req = {.op = OP_SET,
				    .key = key_span(key),
				    .val = bytes_span(val, len),
				    .flags = flags},
			    .deadline = deadline};

	return call_plain(s, &call);
}

int32_t store_get(struct store *s, const char *key, bool wait, struct deadline deadline,
		  struct store_bytes *ret)
{
	struct call call = {.req = {.op = OP_GET, .key = key_span(key), .flags = wait},
			    .deadline = deadline};
	int32_t r = client_call(store_client(s), &call);
	auto_free uint8_t *body = call.body;
	struct reader in = reader_of(body, call.body_len);

	if (r != SMEM_OK)
		return r;
	struct span val = read_span(&in);
	return in.failed ? reply_malformed("get") : bytes_copy(val, ret);
}

int32_t store_del(struct store *s, const char *key, struct deadline deadline)
{
	struct call call = {.req = {.op = OP_DEL, .key = key_span(key)}, .deadline = deadline};

	return call_plain(s, &call);
}

/* A call whose reply is one number. */
static int32_t call_u64(struct store *s, struct call *call, uint64_t *ret)
{
	int32_t r = client_call(store_client(s), call);
	auto_free uint8_t *body = call->body;
	struct reader in = reader_of(body, call->body_len);

	if (r != SMEM_OK)
		return r;
	uint64_t v = read_u64(&in);
	if (in.failed)
		return reply_malformed(proto_op_name(call->req.op));
	*ret = v;
	return SMEM_OK;
}

int32_t store_add(struct store *s, const char *key, int64_t delta, struct deadline deadline,
		  int64_t *ret)
{
	struct call call = {.req = {.op = OP_ADD, .key = key_span(key), .value = (uint64_t)delta},
			    .deadline = deadline};
	uint64_t v = 0;
	int32_t r = call_u64(s, &call, &v);

	if (r == SMEM_OK)
		*ret = (int64_t)v;
	return r;
}

int32_t store_append(struct store *s, const char *key, const void *val, size_t len,
		     struct deadline deadline, uint64_t *new_len)
{
	struct call call = {
	    .req = {.op = OP_APPEND, .key = key_span(key), .val = bytes_span(val, len)},
	    .deadline = deadline};

	return call_u64(s, &call, new_len);
}

int32_t store_cas(struct store *s, const char *key, const struct store_bytes *expect,
		  const struct store_bytes *val, struct deadline deadline, struct store_bytes *seen)
{
	struct call call = {.req = {.op = OP_CAS, .key = key_span(key)}, .deadline = deadline};

	if (expect) {
		call.req.flags |= CAS_EXPECT;
		call.req.extra = bytes_span(expect->data, expect->len);
	}
	if (val) {
		call.req.flags |= CAS_VALUE;
		call.req.val = bytes_span(val->data, val->len);
	}
	int32_t r = client_call(store_client(s), &call);
	auto_free uint8_t *body = call.body;
	if (r != SMEM_RESOURCE_IN_USE || !seen)
		return r;
	struct reader in = reader_of(body, call.body_len);
	read_u8(&in);
	struct span other = read_span(&in);
	if (in.failed)
		return reply_malformed("cas");
	int32_t copied = bytes_copy(other, seen);
	return copied == SMEM_OK ? r : copied;
}

void store_gathered_free(struct store_gathered *g)
{
	for (uint32_t i = 0; g->part && i < g->size; i++)
		store_bytes_free(&g->part[i]);
	free(g->part);
	*g = (struct store_gathered){.size = 0};
}

int32_t gathered_read(const uint8_t *body, size_t len, struct store_gathered *ret)
{
	struct reader in = reader_of(body, len);
	struct store_gathered g = {.size = read_u32(&in)};
	int32_t r = SMEM_OK;

	if (in.failed || g.size > WORLD_MAX)
		return reply_malformed("gather");
	g.part = calloc(g.size ? g.size : 1, sizeof(*g.part));
	if (!g.part)
		return smem_err(SMEM_MALLOC_FAILED, "gather of %u parts", g.size);
	for (uint32_t i = 0; i < g.size && r == SMEM_OK; i++) {
		struct span part = read_span(&in);
		r = in.failed ? reply_malformed("gather") : bytes_copy(part, &g.part[i]);
	}
	if (r != SMEM_OK)
		store_gathered_free(&g);
	else
		*ret = g;
	return r;
}

int32_t store_gather(struct store *s, const char *key, uint32_t index, uint32_t size,
		     const void *val, size_t len, struct deadline deadline,
		     struct store_gathered *ret)
{
	struct call call = {.req = {.op = OP_GATHER,
				    .key = key_span(key),
				    .index = index,
				    .size = size,
				    .val = bytes_span(val, len)},
			    .deadline = deadline};
	int32_t r = client_call(store_client(s), &call);
	auto_free uint8_t *body = call.body;

	return r == SMEM_OK ? gathered_read(body, call.body_len, ret) : r;
}

/* ---- watches ---- */

struct store_watch {
	struct listener listener; /* first */
	struct client *client;
	store_watch_fn fn;
	void *arg;
	char key[];
};

static void watch_push(struct listener *l, const uint8_t *data, size_t len)
{
	struct store_watch *w = (struct store_watch *)l;
	struct reader in = reader_of(data, len);
	bool there = read_u8(&in) != 0;
	struct span val = read_span(&in);

	if (in.failed)
		return;
	static const uint8_t empty[1];
	const uint8_t *bytes = val.data ? val.data : empty;
	w->fn(w->arg, w->key, there ? bytes : NULL, there ? val.len : 0);
}

static void watch_closed(struct listener *l)
{
	(void)l; /* whoever watches asks store_lost(); a value that does not change is not news */
}

int32_t store_watch(struct store *s, const char *key, store_watch_fn fn, void *arg,
		    struct deadline deadline, struct store_watch **ret)
{
	size_t len = strlen(key);
	struct store_watch *w = calloc(1, sizeof(*w) + len + 1);

	if (!w)
		return smem_err(SMEM_MALLOC_FAILED, "watch of %s", key);
	w->listener =
	    (struct listener){.op = OP_WATCHED, .push = watch_push, .closed = watch_closed};
	w->client = store_client(s);
	w->fn = fn;
	w->arg = arg;
	memcpy(w->key, key, len + 1);
	client_listen(w->client, &w->listener);
	struct call call = {.req = {.op = OP_WATCH, .key = key_span(key), .seq = w->listener.id},
			    .deadline = deadline};
	int32_t r = call_plain(s, &call);
	if (r != SMEM_OK) {
		store_unwatch(w);
		return r;
	}
	*ret = w;
	return SMEM_OK;
}

void store_unwatch(struct store_watch *w)
{
	if (!w)
		return;
	struct request req = {.op = OP_UNWATCH, .seq = w->listener.id};
	client_unlisten(w->client, &w->listener);
	client_cast(w->client, &req);
	free(w);
}

/* ---- ranges ---- */

int32_t store_range_usable(struct store *s, const struct store_range *usable, uint32_t n,
			   struct deadline deadline)
{
	struct writer w = {.blob = NULL};

	for (uint32_t i = 0; i < n; i++) {
		write_u64(&w, usable[i].begin);
		write_u64(&w, usable[i].end);
	}
	struct blob *list = writer_done(&w);
	if (!list && n > 0)
		return smem_err(SMEM_MALLOC_FAILED, "list of %u ranges", n);
	struct call call = {.req = {.op = OP_USABLE, .val = blob_span(list)}, .deadline = deadline};
	int32_t r = call_plain(s, &call);
	blob_put(list);
	return r;
}

int32_t store_range_hold(struct store *s, const char *name, uint64_t len, uint64_t align,
			 struct deadline deadline, uint64_t *ret_begin)
{
	struct call call = {
	    .req = {.op = OP_HOLD, .key = key_span(name), .value = len, .align = align},
	    .deadline = deadline};

	return call_u64(s, &call, ret_begin);
}

void store_range_release(struct store *s, const char *name)
{
	struct request req = {.op = OP_RELEASE, .key = key_span(name)};

	client_cast(store_client(s), &req);
}
