/* SPDX-License-Identifier: Apache-2.0 */
/* A set of members of a group, by their numbers. */
#ifndef STORE_SET_H
#define STORE_SET_H

#include <stdbool.h>
#include <stdint.h>

#include "util/limits.h"

#define SET_WORDS (WORLD_MAX / 64)

struct set {
	uint64_t word[SET_WORDS];
};

/* i < WORLD_MAX */
static inline bool set_has(const struct set *s, uint32_t i)
{
	return s->word[i / 64] >> (i % 64) & 1;
}

static inline void set_add(struct set *s, uint32_t i)
{
	s->word[i / 64] |= 1ull << (i % 64);
}

static inline uint32_t set_count(const struct set *s)
{
	uint32_t n = 0;

	for (uint32_t w = 0; w < SET_WORDS; w++)
		n += (uint32_t)__builtin_popcountll(s->word[w]);
	return n;
}

/* The lowest member from `from` on; WORLD_MAX: none. */
static inline uint32_t set_next(const struct set *s, uint32_t from)
{
	for (uint32_t w = from / 64; w < SET_WORDS; w++) {
		uint64_t bits = s->word[w];
		if (w == from / 64)
			bits &= ~0ull << (from % 64);
		if (bits)
			return w * 64 + (uint32_t)__builtin_ctzll(bits);
	}
	return WORLD_MAX;
}

#define SET_FOREACH(i, s) for ((i) = set_next(s, 0); (i) < WORLD_MAX; (i) = set_next(s, (i) + 1))

#endif
