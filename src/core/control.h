/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control page: the memory that the ranks of one symmetric object on one host share beside
 * their slots. The lowest of them makes it, the others get its descriptor; it has no name and is
 * gone with its last user. It holds the state of the collectives, each rank's area for them, the
 * ranks' extra contexts and the exit status. Ranks of other hosts have areas too, for what they
 * contributed. It is sparse: an area costs memory once it is reserved.
 *
 * Nothing in it is a lock and nothing is a pointer: a process may die at any instruction, and maps
 * it wherever it likes. What peers write is never used as an index or a length without a check.
 *
 *   0      struct control_head                      4096 bytes
 *   4096   struct control_rank [size]               512 bytes each, up to a whole page
 *   data   allgather areas: rank r, round parity p  64 KiB each at (2 r + p) * 64 KiB
 *   ctx    extra contexts: rank r, version parity p the same again
 */
#ifndef CORE_CONTROL_H
#define CORE_CONTROL_H

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/set.h"
#include "util/limits.h"

#define CONTROL_VERSION 2u
#define CONTROL_SMALL	128u		 /* contributions up to here lie in the rank's record */
#define CONTROL_AREA	65536u		 /* = ALLGATHER_MAX = EXTRA_CONTEXT_MAX */
#define CONTROL_WORDS	(WORLD_MAX / 64) /* of a set of ranks or CPUs */
#define CONTROL_ROUNDS	0x3fffu		 /* the number of a round wraps behind this */
#define CONTROL_WHY	48u		 /* words of a text */

struct control_head {
	uint32_t version;
	uint32_t size; /* ranks */
	uint64_t bytes;
	_Alignas(64) _Atomic uint64_t state; /* of the collectives: collective.c */
	_Alignas(64) _Atomic uint32_t sleepers;
	_Alignas(64) _Atomic uint64_t exit; /* bit 32: announced; low half: the status */
	_Atomic uint32_t exit_tick;	    /* futex of those who wait for it */
	_Alignas(64) _Atomic uint64_t lost[CONTROL_WORDS]; /* sets of ranks, only ever growing */
	_Atomic uint64_t left[CONTROL_WORDS];
	/* From who was at the store for all: */
	_Atomic uint64_t missing[CONTROL_WORDS]; /* whom the store missed */
	_Atomic uint64_t why[CONTROL_WHY];	 /* text of what went wrong there */
	_Atomic uint32_t skew;			 /* the round there, less the one here: outside.c */
	uint8_t reserved[3068];
};
_Static_assert(sizeof(struct control_head) == 4096, "shared layout");
_Static_assert(offsetof(struct control_head, state) == 64, "shared layout");
_Static_assert(offsetof(struct control_head, sleepers) == 128, "shared layout");
_Static_assert(offsetof(struct control_head, exit) == 192, "shared layout");
_Static_assert(offsetof(struct control_head, exit_tick) == 200, "shared layout");
_Static_assert(offsetof(struct control_head, lost) == 256, "shared layout");
_Static_assert(offsetof(struct control_head, left) == 384, "shared layout");
_Static_assert(offsetof(struct control_head, skew) == 1024, "shared layout");
_Static_assert(sizeof(_Atomic uint64_t) == 8 && sizeof(_Atomic uint32_t) == 4, "plain atomics");

/* Written by its rank only, but for `verdict`; of a rank of another host: kind and small, by who
 * was at the store for all. */
struct control_rank {
	_Atomic uint32_t inside;  /* round + 1 this rank is in; for messages, as gave_up */
	_Atomic uint32_t kind[2]; /* by round parity: what it called, collective.c */
	uint32_t reserved0;
	_Atomic uint64_t context;	 /* number of the present extra context; 0: none */
	_Atomic uint32_t context_len[2]; /* by its parity */
	_Atomic uint64_t gave_up;	 /* CLOCK_MONOTONIC ns when it last timed out ... */
	_Atomic uint32_t gave_up_in;	 /* ... and round + 1 in which */
	uint32_t reserved1;
	_Atomic uint64_t deadline;		   /* CLOCK_MONOTONIC ns of the call it is in */
	_Atomic uint64_t verdict;		   /* how that ended at the store: collective.c */
	_Atomic uint64_t cpus[CONTROL_WORDS];	   /* where it may run */
	_Alignas(64) char small[2][CONTROL_SMALL]; /* by round parity */
	uint8_t reserved2[64];
};
_Static_assert(sizeof(struct control_rank) == 512, "shared layout");
_Static_assert(offsetof(struct control_rank, context) == 16, "shared layout");
_Static_assert(offsetof(struct control_rank, verdict) == 56, "shared layout");
_Static_assert(offsetof(struct control_rank, cpus) == 64, "shared layout");
_Static_assert(offsetof(struct control_rank, small) == 192, "shared layout");
_Static_assert(CONTROL_AREA >= ALLGATHER_MAX && CONTROL_AREA >= EXTRA_CONTEXT_MAX, "areas");

struct control {
	int fd;
	uint32_t size;
	uint64_t bytes;
	struct control_head *head; /* NULL: no page */
};

/* Make the page for `size` ranks. SMEM_MALLOC_FAILED, SMEM_NEW_OBJECT_FAILED. */
int32_t control_create(uint32_t size, struct control *ret);

/* Map a page got from the rank that made it; takes *fd. SMEM_NOT_SUPPORTED: another version,
 * SMEM_IO: not such a page. */
int32_t control_open(int *fd, uint32_t size, struct control *ret);

/* Make [offset, offset + len) really there, so that no later touch fails. SMEM_MALLOC_FAILED. */
int32_t control_reserve(const struct control *c, uint64_t offset, uint64_t len);

/* Unmap and close; twice is fine. */
void control_close(struct control *c);

/* Of ranks, as in the head. */
static inline bool in_set(const _Atomic uint64_t *set, uint32_t i)
{
	return atomic_load_explicit(&set[i / 64], memory_order_acquire) >> (i % 64) & 1;
}

static inline struct control_rank *control_rank(const struct control *c, uint32_t rank)
{
	return (struct control_rank *)(c->head + 1) + rank;
}

static inline uint64_t control_areas(uint32_t size)
{
	return (sizeof(struct control_head) + size * sizeof(struct control_rank) + 4095) & ~4095ull;
}

/* Offsets of a rank's two areas of each sort; the second one follows the first. */
static inline uint64_t control_data(const struct control *c, uint32_t rank)
{
	return control_areas(c->size) + 2ull * rank * CONTROL_AREA;
}

static inline uint64_t control_context(const struct control *c, uint32_t rank)
{
	return control_areas(c->size) + 2ull * (c->size + rank) * CONTROL_AREA;
}

static inline char *control_at(const struct control *c, uint64_t offset)
{
	return (char *)c->head + offset;
}

/* Where a rank's contribution of `len` bytes to a round lies. */
static inline char *control_contribution(const struct control *c, uint32_t rank, uint32_t round,
					 uint32_t len)
{
	if (len <= CONTROL_SMALL)
		return control_rank(c, rank)->small[round & 1];
	return control_at(c, control_data(c, rank)) + (size_t)(round & 1) * CONTROL_AREA;
}

/* Wait until *word is not `seen`, or `until` (CLOCK_MONOTONIC) has come, or for no reason. */
void control_sleep(_Atomic uint32_t *word, uint32_t seen, uint64_t until_ns);
void control_wake(_Atomic uint32_t *word);

#endif
