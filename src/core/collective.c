/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One 64-bit word in the control page is the whole state, so that every step is one compare and
 * swap and a rank that dies at any instruction leaves nothing half done:
 *
 *   63      broken: a rank is gone; final
 *   62      differ: the kinds in the round before this one may have been unlike
 *   61      away: all are inside, and one of them is at the store, where the other hosts are
 *   60..46  turn: counts those who went there
 *   45..32  round
 *   31      mixed: the kinds in this round may be unlike
 *   30..12  kind of the first rank inside: 0 barrier, else the bytes each rank contributes
 *   11..0   how many ranks are inside; away: who is at the store
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
 * Ranks on several hosts: collective_away.c.
 */
#include <inttypes.h>
#include <sched.h>
#include <string.h>

#include "core/collective_int.h"
#include "util/err.h"

#define SPIN_NS	    30000u /* what a wake-up costs where it is dear */
#define SPIN_CHECK  64u	   /* looks at the word between two looks at the clock */
#define SKIP_MAX    64u
#define LOOK_SLEEPS 64u /* sleeps between two looks at the CPUs */

#define PRESENT_NS (100 * NS_PER_MS) /* a wait that is worth telling the store of */

static void relax(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

void collective_init(struct collective *c, struct control *page, uint32_t rank)
{
	*c = (struct collective){
	    .page = page, .rank = rank, .size = page->size, .local = page->size};
	for (uint32_t i = 0; i < page->size; i++)
		set_add(&c->set, i);
}

void collective_outside(struct collective *c, const struct set *set, struct store_group *group)
{
	c->set = *set;
	c->local = set_count(set);
	c->outside = (struct outside){.group = group, .set = *set};
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
	c->spare = n >= c->local;
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

void sleep_once(struct collective *c, uint64_t seen, uint64_t until)
{
	struct control_head *head = c->page->head;

	if (c->sleeps++ % LOOK_SLEEPS == 0)
		look_at_cpus(c);
	atomic_fetch_add(&head->sleepers, 1);
	control_sleep(state_futex(head), (uint32_t)(seen >> 32), until);
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
		next =
		    (s & ~0xffffffffull) | (mixed ? MIXED : 0) | (uint64_t)first << KIND_SHIFT | n;
		if (n == c->local)
			next = c->outside.group ? sent_away(next, c->rank) : next_round(s, mixed);
	} while (!atomic_compare_exchange_weak(&head->state, &s, next));
	*ret = next;
	return true;
}

/* ---- waiting ---- */

/* Count this rank out. False: look again. */
static bool count_out(struct collective *c, uint64_t s, enum outcome why, enum outcome *ret)
{
	uint64_t next = count_of(s) == 1 ? s & ~0xffffffffull : s - 1;

	if (!atomic_compare_exchange_strong(&c->page->head->state, &s, next))
		return false;
	*ret = why;
	return true;
}

/* For the messages of those whose time is up at about the same time. */
static void say_gave_up(struct collective *c, uint32_t round)
{
	struct control_rank *own = control_rank(c->page, c->rank);

	atomic_store(&own->gave_up, clock_ns());
	atomic_store(&own->gave_up_in, round + 1);
}

/* It was counted out by who was away. */
static bool judged(const struct collective *c, uint64_t s, int32_t *ret)
{
	uint64_t verdict = atomic_load(&control_rank(c->page, c->rank)->verdict);

	*ret = (int32_t)(uint32_t)verdict;
	return verdict != 0 && verdict == verdict_of(s, *ret);
}

/* A last look before sleeping until something changes, or it is time for something. */
static void wait_once(struct collective *c, struct waiting *w, uint64_t s)
{
	uint64_t until = w->deadline.end, tell = w->deadline.start + PRESENT_NS;

	if (c->outside.group && !w->present && tell < until) {
		if (clock_ns() < tell) {
			until = tell;
		} else {
			outside_present(&c->outside, c->page, w->round);
			w->present = true;
		}
	}
	sleep_once(c, s, until);
}

/* One look at the state. True: it is over. */
static bool look(struct collective *c, struct waiting *w, enum outcome *ret)
{
	uint64_t s = atomic_load(&c->page->head->state);
	int32_t code;

	*ret = COMPLETED;
	if (round_of(s) != w->round)
		return true;
	if (s & AWAY) {
		w->present = false;
		look_away(c, w, s);
		return false;
	}
	*ret = IS_BROKEN;
	if (s & BROKEN)
		return true;
	if (judged(c, s, &code)) {
		say_gave_up(c, w->round);
		*ret = JUDGED;
		return true;
	}
	if (atomic_load(&c->closed))
		return count_out(c, s, IS_CLOSED, ret);
	if (deadline_passed(w->deadline)) {
		say_gave_up(c, w->round);
		return count_out(c, s, TIMED_OUT, ret);
	}
	wait_once(c, w, s);
	return false;
}

static enum outcome wait_for_all(struct collective *c, uint32_t round, struct deadline deadline)
{
	struct waiting w = {.round = round, .deadline = deadline};
	enum outcome outcome;

	while (!look(c, &w, &outcome))
		;
	return outcome;
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

static int32_t failed(const struct collective *c, enum outcome outcome, uint32_t kind,
		      uint32_t round, struct deadline deadline)
{
	int32_t code = (int32_t)(uint32_t)atomic_load(&control_rank(c->page, c->rank)->verdict);
	struct set others = {.word = {0}};

	if (outcome == IS_CLOSED || (outcome == IS_BROKEN && atomic_load(&c->closed)))
		return err_closed();
	if (outcome == IS_BROKEN)
		return err_broken(c, deadline);
	if (outcome == JUDGED && code != SMEM_TIMEOUT)
		return err_judged(c, kind, code);
	if (outcome == TIMED_OUT && c->outside.group)
		others = outside_missing(&c->outside, c->page, round);
	for (uint32_t w = 0; outcome == JUDGED && w < SET_WORDS; w++)
		others.word[w] =
		    atomic_load_explicit(&c->page->head->missing[w], memory_order_relaxed);
	return err_timeout(c, kind, round, &others, deadline);
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

	if (kind > 0)
		memcpy(control_contribution(c->page, c->rank, round, kind), send, kind);
	atomic_store_explicit(&own->kind[round & 1], kind, memory_order_relaxed);
	atomic_store_explicit(&own->inside, round + 1, memory_order_relaxed);
	atomic_store_explicit(&own->deadline, deadline.end, memory_order_relaxed);
	atomic_store_explicit(&own->verdict, 0, memory_order_relaxed);
	if (atomic_load(&c->closed)) {
		outcome = IS_CLOSED;
	} else if (!count_in(c, s, kind, &made)) {
		outcome = IS_BROKEN;
	} else if (round_of(made) == round) {
		if (!(made & AWAY))
			spin(c, round);
		outcome = wait_for_all(c, round, deadline);
	} else if (atomic_load(&head->sleepers) > 0) {
		control_wake(state_futex(head));
	}
	if (outcome != COMPLETED)
		atomic_store_explicit(&own->inside, 0, memory_order_relaxed);
	*ret = round;
	if (outcome != COMPLETED)
		return failed(c, outcome, kind, round, deadline);
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
		memcpy((char *)recv + (size_t)i * len, control_contribution(c->page, i, round, len),
		       len);
	}
	return SMEM_OK;
}
