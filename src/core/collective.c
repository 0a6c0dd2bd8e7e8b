/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One 64-bit word in the control page is the whole state, so that every step is one compare and
 * swap and a rank that dies at any instruction leaves nothing half done:
 *
 *   63      broken: a rank is gone; final
 *   62      differ: the kinds in the round before this one may have been unlike
 *   61..32  round
 *   31      mixed: the kinds in this round may be unlike
 *   30..12  kind of the first rank inside: 0 barrier, else the bytes each rank contributes
 *   11..0   how many ranks are inside
 *
 * A rank writes its contribution into its own area of the round's parity, then counts itself in.
 * Who makes the count complete moves the word to the next round instead, and that is the one moment
 * at which the round completes for all. A rank withdraws by counting itself out; if the round has
 * moved on it has succeeded. While a rank is not inside, the round cannot move; therefore nobody
 * writes into an area that a slower rank still reads: the next round has other areas, and the one
 * after it cannot begin before the slow rank has entered the next.
 *
 * `mixed` and `differ` only say that the kinds in the records need comparing: a rank that brought
 * another kind may have withdrawn since.
 *
 * Waiters sleep on the upper half, which changes when the round ends or the object breaks. They
 * spin before that only when every rank has a CPU of its own, and less often when it was in vain.
 * `sleepers` spares the wake-up when all spin; a sleeper that dies leaves it too high, which costs
 * no more than needless wake-ups. If the rank that completed a round dies before it woke the
 * others, its loss wakes them, and they see that the round completed.
 *
 * With ranks on several hosts the count here would be that of one host, and its last rank would go
 * to the other hosts' leaders before it moves the word.
 */
#include "core/collective.h"

#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "util/err.h"

#define BROKEN	   (1ull << 63)
#define DIFFER	   (1ull << 62)
#define ROUND_MASK 0x3fffffffu
#define MIXED	   (1u << 31)
#define COUNT_MASK 0xfffu
#define KIND_SHIFT 12
#define KIND_MASK  0x7ffffu

#define SPIN_NS	    30000u /* what a wake-up costs where it is dear */
#define SPIN_CHECK  64u	   /* looks at the word between two looks at the clock */
#define SKIP_MAX    64u
#define TOGETHER_NS (1000 * NS_PER_MS)
#define LOOK_SLEEPS 64u /* sleeps between two looks at the CPUs */

enum outcome { COMPLETED, IS_BROKEN, IS_CLOSED, TIMED_OUT };

static uint32_t round_of(uint64_t s)
{
	return (uint32_t)(s >> 32) & ROUND_MASK;
}

static uint32_t count_of(uint64_t s)
{
	return (uint32_t)s & COUNT_MASK;
}

static uint32_t kind_of(uint64_t s)
{
	return ((uint32_t)s >> KIND_SHIFT) & KIND_MASK;
}

/* The half of the state that waiters sleep on. */
static _Atomic uint32_t *state_futex(struct control_head *head)
{
	return (_Atomic uint32_t *)&head->state + (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__);
}

static void relax(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

static bool in_set(const _Atomic uint64_t *set, uint32_t i)
{
	return atomic_load_explicit(&set[i / 64], memory_order_acquire) >> (i % 64) & 1;
}

/* Text that grows: "ranks 0, 4-7". */
struct text {
	char s[400];
	size_t len;
};

static void text_add(struct text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void text_add(struct text *t, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	int n = vsnprintf(t->s + t->len, sizeof(t->s) - t->len, fmt, ap);
	va_end(ap);
	if (n > 0)
		t->len += (size_t)n;
	if (t->len >= sizeof(t->s))
		t->len = sizeof(t->s) - 1;
}

static void text_ranks(struct text *t, const uint64_t *set)
{
	uint32_t n = 0;

	for (uint32_t w = 0; w < CONTROL_WORDS; w++)
		n += (uint32_t)__builtin_popcountll(set[w]);
	text_add(t, n == 1 ? "rank" : n == 0 ? "no rank" : "ranks");
	const char *sep = " ";
	for (uint32_t i = 0; i < WORLD_MAX; i++) {
		uint32_t end = i;
		while (end < WORLD_MAX && set[end / 64] >> (end % 64) & 1)
			end++;
		if (end == i)
			continue;
		text_add(t, end - i > 1 ? "%s%u-%u" : "%s%u", sep, i, end - 1);
		sep = ", ";
		i = end;
	}
}

void collective_init(struct collective *c, struct control *page, uint32_t rank)
{
	*c = (struct collective){.page = page, .rank = rank, .size = page->size};
}

static void break_up(struct control_head *head)
{
	atomic_fetch_or(&head->state, BROKEN);
	control_wake(state_futex(head));
}

void collective_lost(struct control *page, uint32_t rank, bool left)
{
	struct control_head *head = page->head;
	_Atomic uint64_t *set = left ? head->left : head->lost;

	if (rank >= page->size)
		return;
	if (!in_set(head->left, rank))
		atomic_fetch_or(&set[rank / 64], 1ull << (rank % 64));
	break_up(head); /* even if it is known: who learnt it first may have died here */
}

int32_t collective_alive(const struct control *page, uint32_t rank)
{
	if (in_set(page->head->left, rank))
		return SMEM_NOT_STARTED;
	return in_set(page->head->lost, rank) ? SMEM_PEER_LOST : SMEM_OK;
}

void collective_close(struct collective *c)
{
	atomic_store(&c->closed, true);
	collective_lost(c->page, c->rank, true);
}

/* ---- may we spin? ---- */

/* Say where this process may run, and look whether the ranks together have a CPU each. */
static void look_at_cpus(struct collective *c)
{
	uint64_t all[CONTROL_WORDS] = {0};
	uint32_t n = 0;
	cpu_set_t set;

	_Static_assert(sizeof(set) >= sizeof(all), "1024 CPUs");
	c->sleeps = 0;
	if (sched_getaffinity(0, sizeof(set), &set) == 0) {
		memcpy(all, &set, sizeof(all));
		for (uint32_t w = 0; w < CONTROL_WORDS; w++)
			atomic_store_explicit(&control_rank(c->page, c->rank)->cpus[w], all[w],
					      memory_order_relaxed);
	}
	for (uint32_t r = 0; r < c->size; r++) {
		for (uint32_t w = 0; w < CONTROL_WORDS; w++)
			all[w] |= atomic_load_explicit(&control_rank(c->page, r)->cpus[w],
						       memory_order_relaxed);
	}
	for (uint32_t w = 0; w < CONTROL_WORDS; w++)
		n += (uint32_t)__builtin_popcountll(all[w]);
	c->spare = n >= c->size;
}

/* True when the round ended or broke while spinning. */
static bool spin(struct collective *c, uint32_t round)
{
	struct control_head *head = c->page->head;

	if (!c->spare)
		return false;
	if (c->skip > 0) {
		c->skip--;
		return false;
	}
	uint64_t end = 0;
	do {
		for (uint32_t i = 0; i < SPIN_CHECK; i++) {
			uint64_t s = atomic_load_explicit(&head->state, memory_order_acquire);
			if (round_of(s) != round || (s & BROKEN)) {
				c->skip_next = 0;
				return true;
			}
			relax();
		}
		uint64_t now = clock_ns();
		if (end == 0)
			end = now + SPIN_NS;
		else if (now >= end)
			break;
	} while (!atomic_load_explicit(&c->closed, memory_order_relaxed));
	c->skip_next = c->skip_next == 0 ? 1 : c->skip_next * 2;
	if (c->skip_next > SKIP_MAX)
		c->skip_next = SKIP_MAX;
	c->skip = c->skip_next;
	return false;
}

static void sleep_once(struct collective *c, uint64_t seen, struct deadline deadline)
{
	struct control_head *head = c->page->head;

	if (c->sleeps++ % LOOK_SLEEPS == 0)
		look_at_cpus(c);
	atomic_fetch_add(&head->sleepers, 1);
	control_sleep(state_futex(head), (uint32_t)(seen >> 32), deadline.end);
	atomic_fetch_sub(&head->sleepers, 1);
}

/* ---- a round ---- */

/* Count this rank in. False: broken. *ret: the state that this rank made. */
static bool count_in(struct collective *c, uint64_t s, uint32_t kind, uint64_t *ret)
{
	struct control_head *head = c->page->head;
	uint64_t next;

	do {
		if (s & BROKEN)
			return false;
		uint32_t n = count_of(s) + 1;
		uint32_t first = n == 1 ? kind : kind_of(s);
		bool mixed = n > 1 && ((s & MIXED) || first != kind);
		if (n == c->size)
			next =
			    (uint64_t)((round_of(s) + 1) & ROUND_MASK) << 32 | (mixed ? DIFFER : 0);
		else
			next = (s & ~0xffffffffull) | (mixed ? MIXED : 0) |
			       (uint64_t)first << KIND_SHIFT | n;
	} while (!atomic_compare_exchange_weak(&head->state, &s, next));
	*ret = next;
	return true;
}

/* Count this rank out of `round`. COMPLETED when that came too late. */
static enum outcome count_out(struct collective *c, uint32_t round, enum outcome why)
{
	struct control_head *head = c->page->head;
	uint64_t s = atomic_load(&head->state);
	uint64_t next;

	do {
		if (round_of(s) != round)
			return COMPLETED;
		if (s & BROKEN)
			return IS_BROKEN;
		next = count_of(s) == 1 ? s & ~0xffffffffull : s - 1;
	} while (!atomic_compare_exchange_weak(&head->state, &s, next));
	return why;
}

static enum outcome give_up(struct collective *c, uint32_t round)
{
	struct control_rank *own = control_rank(c->page, c->rank);

	atomic_store(&own->gave_up, clock_ns());
	atomic_store(&own->gave_up_in, round + 1);
	return count_out(c, round, TIMED_OUT);
}

static enum outcome wait_for_all(struct collective *c, uint32_t round, struct deadline deadline)
{
	struct control_head *head = c->page->head;

	spin(c, round);
	for (;;) {
		uint64_t s = atomic_load(&head->state);
		if (round_of(s) != round)
			return COMPLETED;
		if (atomic_load(&c->closed))
			return count_out(c, round, IS_CLOSED);
		if (s & BROKEN)
			return IS_BROKEN;
		if (deadline_passed(deadline))
			return give_up(c, round);
		sleep_once(c, s, deadline);
	}
}

/* ---- what went wrong ---- */

static const char *kind_text(uint32_t kind, char buf[32])
{
	if (kind == 0)
		return "barrier";
	snprintf(buf, 32, "allgather of %u bytes", kind);
	return buf;
}

static int32_t err_closed(void)
{
	return smem_err(SMEM_OBJECT_NOT_EXISTS, "the object was destroyed during the call");
}

static int32_t err_broken(const struct collective *c, struct deadline deadline)
{
	uint64_t lost[CONTROL_WORDS], left[CONTROL_WORDS];
	uint64_t any_lost = 0, any_left = 0;
	struct text t = {.len = 0};

	for (uint32_t w = 0; w < CONTROL_WORDS; w++) {
		left[w] = atomic_load(&c->page->head->left[w]);
		lost[w] = atomic_load(&c->page->head->lost[w]) & ~left[w];
		any_lost |= lost[w];
		any_left |= left[w];
	}
	if (any_lost) {
		text_ranks(&t, lost);
		text_add(&t, " lost%s", any_left ? ", " : "");
	}
	if (any_left) {
		text_ranks(&t, left);
		text_add(&t, " left by destroying the object");
	}
	return smem_err(SMEM_PEER_LOST, "%s (after %" PRIu64 " ms)", t.s,
			deadline_elapsed_ms(deadline));
}

/* Ranks whose time runs out together have missed somebody else, not each other. */
static bool was_there(const struct control_rank *peer, uint32_t round)
{
	if (atomic_load(&peer->inside) == round + 1)
		return true;
	return atomic_load(&peer->gave_up_in) == round + 1 &&
	       clock_ns() - atomic_load(&peer->gave_up) < TOGETHER_NS;
}

static int32_t err_timeout(const struct collective *c, uint32_t kind, uint32_t round,
			   struct deadline deadline)
{
	uint64_t missing[CONTROL_WORDS] = {0};
	struct text t = {.len = 0};
	char buf[32];

	for (uint32_t r = 0; r < c->size; r++) {
		if (r != c->rank && !was_there(control_rank(c->page, r), round))
			missing[r / 64] |= 1ull << (r % 64);
	}
	text_ranks(&t, missing);
	return smem_err(SMEM_TIMEOUT, "%s: %s not there after %" PRIu64 " ms", kind_text(kind, buf),
			t.s, deadline_elapsed_ms(deadline));
}

/* The kinds of a completed round, side by side. SMEM_OK when they are all the same after all. */
static int32_t compare_kinds(const struct collective *c, uint32_t round)
{
	uint64_t done[CONTROL_WORDS] = {0};
	struct text t = {.len = 0};
	uint32_t kinds = 0;
	char buf[32];

	for (uint32_t r = 0; r < c->size; r++) {
		uint64_t same[CONTROL_WORDS] = {0};
		if (done[r / 64] >> (r % 64) & 1)
			continue;
		uint32_t kind = atomic_load(&control_rank(c->page, r)->kind[round & 1]);
		for (uint32_t i = r; i < c->size; i++) {
			if (atomic_load(&control_rank(c->page, i)->kind[round & 1]) == kind)
				same[i / 64] |= 1ull << (i % 64);
		}
		for (uint32_t w = 0; w < CONTROL_WORDS; w++)
			done[w] |= same[w];
		text_add(&t, "%s%s: ", kinds++ ? "; " : "", kind_text(kind, buf));
		text_ranks(&t, same);
	}
	if (kinds == 1)
		return SMEM_OK;
	return smem_err(SMEM_INVALID_PARAM, "the ranks made unlike calls: %s", t.s);
}

/* ---- calls ---- */

static int32_t take_turn(struct collective *c, uint32_t kind, struct deadline deadline)
{
	char buf[32];

	if (turn_take(&c->turn, deadline))
		return SMEM_OK;
	if (atomic_load(&c->closed))
		return err_closed();
	return smem_err(SMEM_TIMEOUT,
			"%s: another thread of rank %u was inside for all of %" PRIu64 " ms",
			kind_text(kind, buf), c->rank, deadline_elapsed_ms(deadline));
}

/* Under `turn`. *ret: the round that completed. */
static int32_t round_run(struct collective *c, uint32_t kind, const void *send,
			 struct deadline deadline, uint32_t *ret)
{
	struct control_head *head = c->page->head;
	struct control_rank *own = control_rank(c->page, c->rank);
	uint64_t s = atomic_load(&head->state);
	uint32_t round = round_of(s);
	uint64_t made;
	enum outcome outcome = COMPLETED;

	if (kind > CONTROL_SMALL)
		memcpy(control_at(c->page, control_data(c->page, c->rank)) +
			   (size_t)(round & 1) * CONTROL_AREA,
		       send, kind);
	else if (kind > 0)
		memcpy(own->small[round & 1], send, kind);
	atomic_store_explicit(&own->kind[round & 1], kind, memory_order_relaxed);
	atomic_store_explicit(&own->inside, round + 1, memory_order_relaxed);
	if (atomic_load(&c->closed))
		outcome = IS_CLOSED;
	else if (!count_in(c, s, kind, &made))
		outcome = IS_BROKEN;
	else if (round_of(made) == round)
		outcome = wait_for_all(c, round, deadline);
	else if (atomic_load(&head->sleepers) > 0)
		control_wake(state_futex(head));
	if (outcome != COMPLETED)
		atomic_store_explicit(&own->inside, 0, memory_order_relaxed);
	*ret = round;
	switch (outcome) {
	case IS_CLOSED:
		return err_closed();
	case IS_BROKEN:
		return atomic_load(&c->closed) ? err_closed() : err_broken(c, deadline);
	case TIMED_OUT:
		return err_timeout(c, kind, round, deadline);
	case COMPLETED:
		break;
	}
	/* Valid until this rank enters the next round. */
	return atomic_load(&head->state) & DIFFER ? compare_kinds(c, round) : SMEM_OK;
}

int32_t collective_barrier(struct collective *c, struct deadline deadline)
{
	uint32_t round;
	int32_t r = take_turn(c, 0, deadline);

	if (r != SMEM_OK)
		return r;
	auto_turn turn = &c->turn;
	return round_run(c, 0, NULL, deadline, &round);
}

int32_t collective_allgather(struct collective *c, const void *send, uint32_t len, void *recv,
			     struct deadline deadline)
{
	uint32_t round;
	int32_t r = take_turn(c, len, deadline);

	if (r != SMEM_OK)
		return r;
	auto_turn turn = &c->turn;
	if (len > CONTROL_SMALL && !c->reserved) {
		r = control_reserve(c->page, control_data(c->page, c->rank), 2ull * CONTROL_AREA);
		if (r != SMEM_OK)
			return r;
		c->reserved = true;
	}
	r = round_run(c, len, send, deadline, &round);
	if (r != SMEM_OK)
		return r;
	for (uint32_t i = 0; i < c->size; i++) {
		const char *from = control_rank(c->page, i)->small[round & 1];
		if (len > CONTROL_SMALL)
			from = control_at(c->page, control_data(c->page, i)) +
			       (size_t)(round & 1) * CONTROL_AREA;
		memcpy((char *)recv + (size_t)i * len, from, len);
	}
	return SMEM_OK;
}
