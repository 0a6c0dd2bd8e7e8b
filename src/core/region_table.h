/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shared page of a session's registrations, as it lies in its memfd: one header page, then two
 * copies of the table. The owner alone can write (F_SEAL_FUTURE_WRITE); peers map it read-only and
 * look into it at every call. Version first, fixed widths, offsets instead of pointers; generation
 * is published last.
 *
 * Copy number (generation & 1) is the present one; the owner prepares the other and then raises
 * generation. A reader that sees generation unchanged after its look has seen one state.
 */
#ifndef CORE_REGION_TABLE_H
#define CORE_REGION_TABLE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "util/limits.h"

#define REGION_TABLE_VERSION 1u

enum region_table_state { REGION_TABLE_LIVE = 1, REGION_TABLE_CLOSED = 2 };

/* Registered bytes [begin, end) at the owner's addresses. object: the owner's agent hands out a
 * descriptor under that number, in which `begin` lies at `offset`; 0: private memory. */
struct region_span {
	_Atomic uint64_t begin;
	_Atomic uint64_t end;
	_Atomic uint64_t object;
	_Atomic uint64_t offset;
};
_Static_assert(sizeof(struct region_span) == 32, "shared layout");

struct region_table {
	uint32_t version;
	uint32_t span_size;
	uint64_t incarnation;
	uint64_t spans_max;
	uint32_t writable; /* 0: peers may only read */
	_Atomic uint32_t state;
	_Atomic uint64_t generation;
	_Atomic uint64_t count[2];
	/* A robust mutex that a thread of the owner holds for life: when the process dies the
	 * kernel sets FUTEX_OWNER_DIED in its first word, before anything else of the process can
	 * be reused. */
	union {
		_Atomic uint32_t word;
		pthread_mutex_t mutex;
		uint8_t room[64];
	} alive;
};
_Static_assert(offsetof(struct region_table, incarnation) == 8, "shared layout");
_Static_assert(offsetof(struct region_table, generation) == 32, "shared layout");
_Static_assert(offsetof(struct region_table, count) == 40, "shared layout");
_Static_assert(sizeof(struct region_table) == 120, "shared layout");

#define REGION_TABLE_HEAD 4096u
#define REGION_TABLE_COPY ((uint64_t)REGION_SPANS_MAX * sizeof(struct region_span))
#define REGION_TABLE_SIZE (REGION_TABLE_HEAD + 2 * REGION_TABLE_COPY)

static inline struct region_span *region_table_copy(const struct region_table *t, uint64_t which)
{
	return (struct region_span *)((uintptr_t)t + REGION_TABLE_HEAD +
				      (which & 1) * REGION_TABLE_COPY);
}

#endif
