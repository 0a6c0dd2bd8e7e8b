/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two counters a shard, used in turn. A drain flips the phase, so newcomers count elsewhere, and
 * waits for the old counters to reach zero; it does so twice, because a reader may have read the
 * phase before the flip and counted itself after the look (P. McKenney, "Sleepable Read-Copy
 * Update", LWN 2006).
 *
 * A reader's count and the writer's store must be in one order, and so must the reader's look at
 * what the writer stored. An atomic increment gives that, but it also waits until the stores before
 * it have left the processor - after a copy into cold memory longer than the copy itself took. So a
 * thread gets a shard of its own where it can, counts there with plain stores, and the writer, who
 * is rare, makes all processors that run this process's threads pass a barrier: membarrier(2),
 * "private expedited". Whatever a reader did is then before the barrier, and the writer sees its
 * count, or after it, and the reader sees the writer's store. Threads beyond the number of shards,
 * and all where membarrier() is not to be had, share shard 0 and count atomically.
 */
#include "util/gate.h"

#include <linux/futex.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "util/fork.h"

#define SHARED 1u /* number of the shard that all may use; numbers are index + 1 */

#ifdef __SANITIZE_THREAD__ /* it does not know what membarrier() orders */
#define OWN_SHARDS 0
#else
#define OWN_SHARDS 1
#endif

_Static_assert(GATE_SHARDS <= 32, "bits of `taken`");
#define ALL_TAKEN ((uint32_t)((1ull << GATE_SHARDS) - 1))

static _Atomic uint32_t taken = ALL_TAKEN; /* shards that have a thread; never fewer than shard 0 */
static bool ready;			   /* membarrier() works; set before main() */
static pthread_key_t key;		   /* gives a thread's shard back when it ends */
static __thread uint32_t my_number __attribute__((tls_model("initial-exec")));

void gate_init(struct gate *g)
{
	memset(g, 0, sizeof(*g));
}

static void give_back(void *arg)
{
	uint32_t number = (uint32_t)(uintptr_t)arg;

	my_number = 0; /* a later destructor of the thread may come here again */
	atomic_fetch_and(&taken, ~(1u << (number - 1)));
}

static uint32_t take_number(void)
{
	uint32_t seen = atomic_load(&taken);

	while (seen != ALL_TAKEN) {
		uint32_t free_bit = ~seen & (seen + 1);
		if (!atomic_compare_exchange_weak(&taken, &seen, seen | free_bit))
			continue;
		uint32_t number = (uint32_t)__builtin_ctz(free_bit) + 1;
		if (pthread_setspecific(key, (void *)(uintptr_t)number) == 0)
			return number;
		atomic_fetch_and(&taken, ~free_bit);
		break;
	}
	return SHARED;
}

uint32_t gate_enter(struct gate *g)
{
	if (my_number == 0)
		my_number = take_number();
	uint32_t shard = my_number - 1;
	uint32_t phase = atomic_load_explicit(&g->phase, memory_order_relaxed) & 1;
	_Atomic uint32_t *word = &g->shard[shard].inside[phase];
	if (my_number == SHARED) {
		atomic_fetch_add(word, 1);
	} else {
		uint32_t n = atomic_load_explicit(word, memory_order_relaxed);
		atomic_store_explicit(word, n + 1, memory_order_relaxed);
		atomic_signal_fence(memory_order_seq_cst);
	}
	return shard * 2 + phase;
}

void gate_exit(struct gate *g, uint32_t ticket)
{
	_Atomic uint32_t *word = &g->shard[ticket / 2].inside[ticket % 2];
	uint32_t left;

	if (ticket / 2 == SHARED - 1) {
		left = atomic_fetch_sub(word, 1) - 1;
	} else {
		left = atomic_load_explicit(word, memory_order_relaxed) - 1;
		atomic_store_explicit(word, left, memory_order_release);
		atomic_signal_fence(memory_order_seq_cst);
	}
	if (left == 0 && atomic_load_explicit(&g->draining, memory_order_acquire))
		syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

/* Every other thread of the process passes a full barrier between our stores and our loads. */
static void all_pass_a_barrier(void)
{
	atomic_thread_fence(memory_order_seq_cst);
	if (ready)
		syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
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
		all_pass_a_barrier();
		for (uint32_t s = 0; s < GATE_SHARDS && done; s++)
			done = wait_zero(&g->shard[s].inside[old], deadline);
	}
	atomic_fetch_sub(&g->draining, 1);
	turn_give(&g->drains);
	return done;
}

/* Before main() there is one thread, and then it costs nothing. */
__attribute__((constructor)) static void start(void)
{
	if (!OWN_SHARDS || pthread_key_create(&key, give_back) != 0)
		return;
	ready = syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0;
	if (ready)
		atomic_store(&taken, 1u << (SHARED - 1));
}

/* The library may be unloaded while threads live. */
__attribute__((destructor)) static void stop(void)
{
	atomic_store(&taken, ALL_TAKEN);
	if (OWN_SHARDS)
		pthread_key_delete(key);
}

/* The other threads are not here; the address space is new and must register again. */
static void fork_child(void)
{
	if (!ready)
		return;
	ready = syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0;
	if (!ready)
		my_number = SHARED;
	uint32_t own = my_number ? 1u << (my_number - 1) : 0;
	atomic_store(&taken, ready ? own | 1u << (SHARED - 1) : ALL_TAKEN);
}

static const struct fork_hooks hooks = {.order = FORK_ORDER_GATE, .child = fork_child};
FORK_HOOKS(hooks)
