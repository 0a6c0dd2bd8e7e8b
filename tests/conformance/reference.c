/* SPDX-License-Identifier: Apache-2.0 */
/* One thing a time and one row after the other: slow, and easy to see right. */
#include "reference.h"

#include <stdlib.h>
#include <string.h>

void fill(char *p, size_t len, uint64_t seed)
{
	for (size_t i = 0; i < len; i++)
		p[i] = (char)rank_random(&seed);
}

/* Row by row, with memcpy. */
void apply(const struct smem_xfer *x, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		for (size_t row = 0; row < x[i].height; row++)
			memcpy((char *)x[i].dst + row * x[i].dpitch,
			       (const char *)x[i].src + row * x[i].spitch, x[i].width);
	}
}

/* The same pieces with the side that lies in [from, from + MEM) moved to `to`. */
void rebase(struct smem_xfer *x, size_t n, bool dst, const char *from, char *to)
{
	for (size_t i = 0; i < n; i++) {
		if (dst)
			x[i].dst = to + ((char *)x[i].dst - from);
		else
			x[i].src = to + ((const char *)x[i].src - from);
	}
}

/* Disjoint random pieces: dst cut from [dst, +len), src anywhere in [src, +len). */
size_t random_batch(uint64_t *seed, struct smem_xfer x[BATCH], char *dst, const char *src,
		    size_t len)
{
	size_t n = 1 + rank_random(seed) % BATCH, share = len / n;

	for (size_t i = 0; i < n; i++) {
		size_t big = rank_random(seed) % 4 == 0 ? share / 2 : 700;
		size_t width = 1 + rank_random(seed) % big;
		size_t rows = 1 + rank_random(seed) % 5;
		size_t dpitch = width + rank_random(seed) % 3 * (rank_random(seed) % 100);
		size_t spitch = width + rank_random(seed) % 3 * (rank_random(seed) % 100);
		if (rows * dpitch > share || rows * spitch > len)
			rows = 1;
		size_t dslack = share - ((rows - 1) * dpitch + width);
		size_t sslack = len - ((rows - 1) * spitch + width);
		x[i] = (struct smem_xfer){.dst = dst + i * share + rank_random(seed) % (dslack + 1),
					  .src = src + rank_random(seed) % (sslack + 1),
					  .dpitch = rows > 1 ? dpitch : 0,
					  .spitch = rows > 1 ? spitch : 0,
					  .width = width,
					  .height = rows};
	}
	return n;
}

void check_equal(struct rank *r, const char *got, const char *want, size_t len, const char *what)
{
	for (size_t i = 0; i < len; i++) {
		if (got[i] != want[i])
			rank_fail(r, __FILE__, __LINE__, "%s: byte %zu is %d, want %d", what, i,
				  got[i], want[i]);
	}
}

char *buffer(struct rank *r, size_t len)
{
	char *p = malloc(len);

	RANK_ASSERT(r, p);
	return p;
}

uint64_t digest(const char *p, size_t len)
{
	uint64_t h = 14695981039346656037ull;

	for (size_t i = 0; i < len; i += 8) {
		uint64_t v;
		memcpy(&v, p + i, 8);
		h = (h ^ v) * 1099511628211ull;
	}
	return h;
}
