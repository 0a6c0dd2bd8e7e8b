/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Walking through the pieces of a copy as runs of contiguous bytes. Rows without a gap between them
 * are one run. A batch can be cut into parts of about equal size, so that several threads share it.
 */
#ifndef DEVICE_PIECES_H
#define DEVICE_PIECES_H

#include <stdbool.h>
#include <stddef.h>

#include "device/device.h"

/* A place in a batch: byte `off` of piece `i`, counted without the gaps. */
struct cursor {
	const struct smem_xfer *x;
	size_t n;
	size_t i;
	size_t off;
};

struct run {
	char *dst;
	const char *src;
	size_t len;
};

static inline size_t piece_bytes(const struct smem_xfer *x)
{
	return x->width * x->height;
}

static inline bool piece_is_flat(const struct smem_xfer *x)
{
	return x->height <= 1 || (x->dpitch == x->width && x->spitch == x->width);
}

static inline size_t pieces_bytes(const struct smem_xfer *x, size_t n)
{
	size_t sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += piece_bytes(&x[i]);
	return sum;
}

/* The next run of at most `max` bytes; false at the end. Empty pieces are skipped. */
static inline bool cursor_next(struct cursor *c, size_t max, struct run *ret)
{
	while (c->i < c->n && c->off >= piece_bytes(&c->x[c->i])) {
		c->i++;
		c->off = 0;
	}
	if (c->i >= c->n)
		return false;
	const struct smem_xfer *x = &c->x[c->i];
	bool flat = piece_is_flat(x);
	size_t row = flat ? 0 : c->off / x->width;
	size_t col = flat ? c->off : c->off % x->width;
	size_t len = (flat ? piece_bytes(x) : x->width) - col;
	ret->dst = (char *)x->dst + row * x->dpitch + col;
	ret->src = (const char *)x->src + row * x->spitch + col;
	ret->len = len < max ? len : max;
	c->off += ret->len;
	return true;
}

/* Move on by `bytes`; false when the batch ends before. */
static inline bool cursor_skip(struct cursor *c, size_t bytes)
{
	while (c->i < c->n) {
		size_t left = piece_bytes(&c->x[c->i]) - c->off;
		if (bytes < left) {
			c->off += bytes;
			return true;
		}
		bytes -= left;
		c->i++;
		c->off = 0;
	}
	return bytes == 0;
}

#define PARTS_MAX 64u

/* A batch cut into parts of about equal size, for several threads. */
struct parts {
	struct cursor start[PARTS_MAX];
	size_t count;
	size_t per; /* bytes; whole cache lines */
	size_t total;
};

/* Cut into parts of at least `want` bytes. total: of all pieces, not 0. */
static inline void parts_cut(struct parts *p, const struct smem_xfer *x, size_t n, size_t total,
			     size_t want)
{
	size_t count = total / want;
	struct cursor c = {.x = x, .n = n};

	count = count < 1 ? 1 : count < PARTS_MAX ? count : PARTS_MAX;
	p->total = total;
	p->per = ((total + count - 1) / count + 63) & ~(size_t)63;
	p->count = (total + p->per - 1) / p->per;
	for (size_t i = 0; i < p->count; i++) {
		p->start[i] = c;
		cursor_skip(&c, p->per);
	}
}

static inline size_t part_bytes(const struct parts *p, size_t i)
{
	size_t left = p->total - i * p->per;

	return left < p->per ? left : p->per;
}

#endif
