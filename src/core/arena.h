/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The address ranges this process holds in reserve, and which parts of them are in use by whom.
 * Pure bookkeeping and mmap; what an object gets is agreed through the store, see space.h.
 * Thread-safe.
 */
#ifndef CORE_ARENA_H
#define CORE_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ARENA_MAX 64u /* reserved ranges, neighbours merged */

struct arena_range {
	uint64_t begin;
	uint64_t end; /* exclusive */
};

/* Take and drop a reference; the first reserves every candidate it can. SMEM_MALLOC_FAILED when not
 * one can be had, with why. */
int32_t arena_get(void);
void arena_put(void);

/* What is in reserve and not used by owners other than `owner`, best first. At most `max` ranges
 * are written; returns how many. */
uint32_t arena_usable(uint64_t owner, struct arena_range *ret, uint32_t max);

/* Mark [begin, begin + len) used by `owner`. False when it is not wholly in reserve, or used. */
bool arena_take(uint64_t owner, uint64_t begin, uint64_t len);
void arena_give(uint64_t begin, uint64_t len);

#endif
