/* SPDX-License-Identifier: Apache-2.0 */
/* Growth doubles; a blob never exceeds what a frame may hold, which bounds every length here. */
#include "store/blob.h"

#include <stdlib.h>
#include <string.h>

#include "util/limits.h"

#define FIRST_CAP 112

struct blob *blob_new(const void *data, size_t len)
{
	struct blob *b = len <= UINT32_MAX ? malloc(sizeof(*b) + len) : NULL;

	if (!b)
		return NULL;
	b->refs = 1;
	b->len = (uint32_t)len;
	if (len)
		memcpy(b->data, data, len);
	return b;
}

struct blob *blob_get(struct blob *b)
{
	if (b)
		b->refs++;
	return b;
}

void blob_put(struct blob *b)
{
	if (b && --b->refs == 0)
		free(b);
}

bool span_equal(struct span a, struct span b)
{
	return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

static uint8_t *writer_room(struct writer *w, size_t len)
{
	size_t used = w->blob ? w->blob->len : 0;

	if (w->failed || len > STORE_FRAME_MAX - used) {
		w->failed = true;
		return NULL;
	}
	if (used + len > w->cap || !w->blob) {
		size_t cap = w->cap ? w->cap : FIRST_CAP;
		while (cap < used + len)
			cap *= 2;
		struct blob *grown = realloc(w->blob, sizeof(*grown) + cap);
		if (!grown) {
			w->failed = true;
			return NULL;
		}
		if (!w->blob) {
			grown->refs = 1;
			grown->len = 0;
		}
		w->blob = grown;
		w->cap = cap;
	}
	w->blob->len = (uint32_t)(used + len);
	return w->blob->data + used;
}

static void put_le(uint8_t *p, uint64_t v, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		p[i] = (uint8_t)(v >> (8 * i));
}

void write_u8(struct writer *w, uint8_t v)
{
	uint8_t *p = writer_room(w, 1);

	if (p)
		*p = v;
}

void write_u32(struct writer *w, uint32_t v)
{
	uint8_t *p = writer_room(w, 4);

	if (p)
		put_le(p, v, 4);
}

void write_u64(struct writer *w, uint64_t v)
{
	uint8_t *p = writer_room(w, 8);

	if (p)
		put_le(p, v, 8);
}

void write_bytes(struct writer *w, const void *data, size_t len)
{
	uint8_t *p = writer_room(w, len);

	if (p && len)
		memcpy(p, data, len);
}

void write_span(struct writer *w, struct span s)
{
	if (s.len > STORE_FRAME_MAX) {
		w->failed = true;
		return;
	}
	write_u32(w, (uint32_t)s.len);
	write_bytes(w, s.data, s.len);
}

struct blob *writer_done(struct writer *w)
{
	struct blob *b = w->blob;

	if (!b && !w->failed)
		b = blob_new(NULL, 0);
	if (w->failed) {
		blob_put(b);
		b = NULL;
	}
	*w = (struct writer){.blob = NULL};
	return b;
}

static const uint8_t *take(struct reader *r, size_t len)
{
	const uint8_t *p = r->at;

	if (r->failed || len > (size_t)(r->end - r->at)) {
		r->failed = true;
		return NULL;
	}
	r->at += len;
	return p;
}

static uint64_t read_le(struct reader *r, size_t bytes)
{
	const uint8_t *p = take(r, bytes);
	uint64_t v = 0;

	for (size_t i = 0; p && i < bytes; i++)
		v |= (uint64_t)p[i] << (8 * i);
	return v;
}

uint8_t read_u8(struct reader *r)
{
	return (uint8_t)read_le(r, 1);
}

uint32_t read_u32(struct reader *r)
{
	return (uint32_t)read_le(r, 4);
}

uint64_t read_u64(struct reader *r)
{
	return read_le(r, 8);
}

struct span read_span(struct reader *r)
{
	size_t len = read_u32(r);
	const uint8_t *p = take(r, len);

	return p ? (struct span){p, len} : (struct span){NULL, 0};
}

bool reader_done(const struct reader *r)
{
	return !r->failed && r->at == r->end;
}
