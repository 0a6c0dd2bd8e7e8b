/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two counters a shard, used in turn. A drain flips the phase, so newcomers count elsewhere, and
 * waits for the old counters to reach zero; it does so twice, because a reader may have read the
 * phase before the flip and counted itself after the look (P. McKenney, "Sleepable Read-Copy
 * Update", LWN 2006). Sequential consistency everywhere: a reader's increment and the writer's
 * earlier store must be in one order.
 */
#include "util/gate.h"

#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static _Atomic uint32_t next_shard;
static __thread uint32_t my_shard __attribute__((tls_model("initial-exec"))); /* number + 1 */

void gate_init(struct gate *g)
{
	memset(g, 0, sizeof(*g));
}

uint32_t gate_enter(struct gate *g)
{
	if (my_shard == 0)
		my_shard = atomic_fetch_add(&next_shard, 1) % GATE_SHARDS + 1;
	uint32_t shard = my_shard - 1;
	uint32_t phase = atomic_load_explicit(&g->phase, memory_order_relaxed) & 1;
	atomic_fetch_add(&g->shard[shard].inside[phase], 1);
	return shard * 2 + phase;
}

void gate_exit(struct gate *g, uint32_t ticket)
{
	_Atomic uint32_t *word = &g->shard[ticket / 2].inside[ticket % 2];

	uint32_t before = atomic_fetch_sub(word, 1);
	if (before == 1 && atomic_load(&g->draining))
		syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static bool wait_zero(_Atomic uint32_t *word, struct deadline deadline)
{
	struct timespec until = deadline_timespec(deadline);

	for (uint32_t n = atomic_load(word); n != 0; n = atomic_load(word)) {
		if (deadline_passed(deadline))
			return false;
		syscall(SYS_futex, word, FUTEX_WAIT_BITSET_PRIVATE, n, &until, NULL,
			FUTEX_BITSET_MATCH_ANY);
	}
	return true;
}

bool gate_drain(struct gate *g, struct deadline deadline)
{
	bool done = true;

	/* Two at a time could both wait for the same phase and miss a reader of the other. */
	if (!turn_take(&g->drains, deadline))
		return false;
	atomic_fetch_add(&g->draining, 1);
	for (int flip = 0; flip < 2 && done; flip++) {
		uint32_t old = atomic_fetch_add(&g->phase, 1) & 1;
		for (uint32_t s = 0; s < GATE_SHARDS && done; s++)
			done = wait_zero(&g->shard[s].inside[old], deadline);
	}
	atomic_fetch_sub(&g->draining, 1);
	turn_give(&g->drains);
	return done;
}
