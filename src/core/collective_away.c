/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ranks on several hosts: the word counts those of this host, and who makes the count complete does
 * not move it but goes away to the store, for all of them. It comes back with what the other hosts'
 * ranks contributed, lays that out in the page, and moves the word: that is when the round
 * completes here. While somebody is away nobody counts himself out, for the round may have
 * completed elsewhere already: only the store's verdict tells. Whose time is up waits for that
 * verdict; the deadline at the store is the earliest of all inside. If the verdict is a time-out,
 * the store has taken the contribution back, and who was away counts out those whose time is up
 * (`verdict` in their records, valid for this turn only), itself maybe among them, and leaves the
 * others inside; the next to make the count complete goes away again.
 *
 * One who is away and dies, or is stopped, is replaced by any of the others: at once when it is
 * gone, else when the own time has been up for a moment, or when another rank is gone. That is one
 * compare and swap, so there is always one whose word counts; who has been replaced finds that out
 * by its own compare and swap, which fails. The new one asks the store what became of the
 * contribution: it has completed, and here is the outcome again, or it is taken back, even if it is
 * yet to arrive. What a replaced one still writes into the page does no harm: it is the outcome
 * that the new one writes too, and the next round, which has other areas, does not complete without
 * it.
 */
#include "core/collective_int.h"
#include "util/err.h"

/* What who is away may be late, before it is replaced; and when somebody is gone, so that there is
 * little hope. */
#define GRACE_NS      (200 * NS_PER_MS)
#define GRACE_GONE_NS (50 * NS_PER_MS)

/* Is it still this one's word that counts? */
static bool still_away(uint64_t now, uint64_t then)
{
	return (now & ~BROKEN) == (then & ~BROKEN);
}

static void all_there(struct collective *c, uint64_t s, bool differ)
{
	struct control_head *head = c->page->head;
	uint64_t seen = s;

	do {
		if (!still_away(seen, s))
			return;
	} while (!atomic_compare_exchange_weak(&head->state, &seen, next_round(seen, differ)));
	if (atomic_load(&head->sleepers) > 0)
		control_wake(state_futex(head));
}

/* Count those out whose time is up, or for another code all. How many stay? */
static uint32_t judge(struct collective *c, uint64_t s, int32_t code)
{
	uint64_t now = clock_ns();
	uint32_t stay = 0, i;

	if (code != SMEM_TIMEOUT)
		why_put(c->page, err_detail());
	SET_FOREACH(i, &c->set)
	{
		struct control_rank *r = control_rank(c->page, i);
		if (code == SMEM_TIMEOUT && atomic_load(&r->deadline) > now)
			stay++;
		else
			atomic_store(&r->verdict, verdict_of(s, code));
	}
	return stay;
}

/* Come back without the others. */
static void come_back(struct collective *c, uint64_t s, int32_t code)
{
	struct control_head *head = c->page->head;
	uint64_t seen = atomic_load(&head->state), next;

	if (!still_away(seen, s))
		return;
	uint32_t stay = judge(c, s, code);
	do {
		if (!still_away(seen, s))
			return;
		if (stay == c->local && !(seen & BROKEN))
			next = sent_away(seen, c->rank); /* nobody's time is up: once more */
		else if (stay == 0)
			next = seen & ~(AWAY | 0xffffffffull);
		else
			next = (seen & ~(AWAY | COUNT_MASK)) | stay;
	} while (!atomic_compare_exchange_weak(&head->state, &seen, next));
	control_wake(state_futex(head));
}

/* `s` says that this rank is away; r is the store's verdict. */
static void bring_back(struct collective *c, uint64_t s, int32_t r, bool differ)
{
	if (r == SMEM_OK)
		all_there(c, s, differ);
	else if (r == SMEM_STALE || r == SMEM_REPEAT_CALL)
		atomic_compare_exchange_strong(&c->page->head->state, &s, sent_away(s, c->rank));
	else
		come_back(c, s, r);
}

/* Who is away, and since which state. */
struct away {
	const struct collective *c;
	uint64_t state;
};

static bool away_counts(void *arg)
{
	const struct away *a = arg;

	return still_away(atomic_load(&a->c->page->head->state), a->state);
}

/* Turns as wide as the store compares them. */
static struct outside_round round_at(const struct waiting *w, uint64_t s, struct deadline deadline,
				     struct away *a)
{
	return (struct outside_round){.round = w->round,
				      .turn = turn_of(s) << (32 - TURN_BITS),
				      .deadline = deadline,
				      .counts = away_counts,
				      .arg = a};
}

static void go_away(struct collective *c, const struct waiting *w, uint64_t s)
{
	struct away a = {.c = c, .state = s};
	struct deadline first = w->deadline;
	bool differ = false;
	uint32_t i;

	SET_FOREACH(i, &c->set)
	{
		uint64_t end = atomic_load(&control_rank(c->page, i)->deadline);
		first.end = end < first.end ? end : first.end;
	}
	int32_t r = outside_meet(&c->outside, c->page, round_at(w, s, first, &a), &differ);
	if (r == SMEM_OBJECT_NOT_EXISTS && atomic_load(&c->closed))
		return; /* woken: that is no verdict */
	bring_back(c, s, r, differ);
}

static void replace(struct collective *c, const struct waiting *w, uint64_t s)
{
	uint64_t next = sent_away(s, c->rank);
	struct away a = {.c = c, .state = next};
	bool differ = false;

	if (!atomic_compare_exchange_strong(&c->page->head->state, &s, next))
		return;
	int32_t r =
	    outside_settle(&c->outside, c->page, round_at(w, s, deadline_in_ms(0), &a), &differ);
	bring_back(c, next, r, differ);
}

/* How long to wait for who is away. */
static uint64_t limit_of(const struct collective *c, const struct waiting *w, uint64_t s)
{
	const struct control_head *head = c->page->head;
	uint32_t who = count_of(s);

	if (!(s & BROKEN))
		return (w->deadline.end > w->since ? w->deadline.end : w->since) + GRACE_NS;
	if (in_set(head->lost, who) || in_set(head->left, who))
		return 0;
	return w->since + GRACE_GONE_NS;
}

void look_away(struct collective *c, struct waiting *w, uint64_t s)
{
	bool own = count_of(s) == c->rank, closed = atomic_load(&c->closed);

	if (own && !closed) {
		go_away(c, w, s);
		return;
	}
	uint64_t now = clock_ns();
	if (s != w->state) {
		w->state = s;
		w->since = now;
	}
	uint64_t limit = limit_of(c, w, s);
	if (own || now >= limit)
		replace(c, w, s);
	else
		sleep_once(c, s, limit);
}
