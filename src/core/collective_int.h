/* SPDX-License-Identifier: Apache-2.0 */
/* What the collective*.c files share. Not for anybody else. */
#ifndef CORE_COLLECTIVE_INT_H
#define CORE_COLLECTIVE_INT_H

#include "core/collective.h"

/* ---- the state word: collective.c ---- */

#define BROKEN	   (1ull << 63)
#define DIFFER	   (1ull << 62)
#define AWAY	   (1ull << 61)
#define TURN_SHIFT 46
#define TURN_BITS  15
#define TURN_MASK  ((1u << TURN_BITS) - 1)
#define TURN_FIELD ((uint64_t)TURN_MASK << TURN_SHIFT)
#define MIXED	   (1u << 31)
#define COUNT_MASK 0xfffu
#define KIND_SHIFT 12
#define KIND_MASK  0x7ffffu

enum outcome { COMPLETED, IS_BROKEN, IS_CLOSED, TIMED_OUT, JUDGED };

static inline uint32_t round_of(uint64_t s)
{
	return (uint32_t)(s >> 32) & CONTROL_ROUNDS;
}

static inline uint32_t count_of(uint64_t s)
{
	return (uint32_t)s & COUNT_MASK;
}

static inline uint32_t kind_of(uint64_t s)
{
	return ((uint32_t)s >> KIND_SHIFT) & KIND_MASK;
}

static inline uint32_t turn_of(uint64_t s)
{
	return (uint32_t)(s >> TURN_SHIFT) & TURN_MASK;
}

/* The next turn, and `rank` is away. */
static inline uint64_t sent_away(uint64_t s, uint32_t rank)
{
	uint64_t turn = (turn_of(s) + 1) & TURN_MASK;

	return (s & ~(TURN_FIELD | COUNT_MASK)) | AWAY | turn << TURN_SHIFT | rank;
}

/* The half of the state that waiters sleep on. */
static inline _Atomic uint32_t *state_futex(struct control_head *head)
{
	return (_Atomic uint32_t *)&head->state + (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__);
}

static inline uint64_t next_round(uint64_t s, bool differ)
{
	uint64_t round = (round_of(s) + 1) & CONTROL_ROUNDS;

	return (s & (BROKEN | TURN_FIELD)) | round << 32 | (differ ? DIFFER : 0);
}

/* In the record of a rank that was counted out by who was away, in the turn that `s` is of. */
static inline uint64_t verdict_of(uint64_t s, int32_t code)
{
	uint64_t tag = (uint64_t)turn_of(s) << 16 | round_of(s);

	return 1ull << 63 | tag << 32 | (uint32_t)code;
}

/* ---- collective.c, collective_away.c ---- */

/* A call that waits. */
struct waiting {
	uint32_t round;
	struct deadline deadline;
	bool present;	/* the store knows */
	uint64_t state; /* the last one seen in which somebody was away ... */
	uint64_t since; /* ... and when it was seen first */
};

/* Sleep until the upper half of the state is not `seen`'s, or `until`. */
void sleep_once(struct collective *c, uint64_t seen, uint64_t until);
/* `s` says that somebody is away: do what is to be done, or wait a while. */
void look_away(struct collective *c, struct waiting *w, uint64_t s);

/* ---- collective_text.c ---- */

/* "barrier", "allgather of 8 bytes" */
const char *kind_text(uint32_t kind, char buf[32]);

int32_t err_closed(void);
int32_t err_broken(const struct collective *c, struct deadline deadline);
/* `others`: who was missing of those that do not share the page. */
int32_t err_timeout(const struct collective *c, uint32_t kind, uint32_t round,
		    const struct set *others, struct deadline deadline);
/* The kinds of a completed round, side by side. SMEM_OK when they are all the same after all. */
int32_t compare_kinds(const struct collective *c, uint32_t round);

/* What went wrong at the store, from who was there to the others. */
void why_put(const struct control *page, const char *text);
int32_t err_judged(const struct collective *c, uint32_t kind, int32_t code);

#endif
