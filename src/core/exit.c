/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A watcher is a thread that sleeps on the futex beside the status. Its callback may do anything,
 * including to destroy the object it belongs to, so nobody waits for a callback that runs: who
 * unwatches then leaves the watcher to its thread, which touches nothing but the watcher after it.
 */
#include "core/exit.h"

#include <pthread.h>
#include <stdlib.h>

#include "core/control.h"
#include "util/err.h"
#include "util/thread.h"

#define ANNOUNCED (1ull << 32)

enum watch_state { WAITING, CANCELLED, RUNNING, DONE, ABANDONED };

struct exit_watch {
	struct exit_place place;
	void (*fn)(int status);
	pthread_t thread;
	_Atomic int state;
};

bool exit_announce(struct exit_place place, int status)
{
	uint64_t none = 0;
	bool first =
	    atomic_compare_exchange_strong(place.status, &none, ANNOUNCED | (uint32_t)status);

	exit_nudge(place);
	return first;
}

void exit_nudge(struct exit_place place)
{
	atomic_fetch_add(place.tick, 1);
	control_wake(place.tick);
}

static bool become(struct exit_watch *w, int from, int to)
{
	return atomic_compare_exchange_strong(&w->state, &from, to);
}

static void *watch_run(void *arg)
{
	struct exit_watch *w = arg;
	uint64_t status = 0;

	while (!(status & ANNOUNCED)) {
		uint32_t tick = atomic_load(w->place.tick);
		if (atomic_load(&w->state) == CANCELLED)
			return NULL;
		status = atomic_load(w->place.status);
		if (!(status & ANNOUNCED))
			control_sleep(w->place.tick, tick, INT64_MAX);
	}
	if (!become(w, WAITING, RUNNING))
		return NULL;
	w->fn((int)(uint32_t)status);
	if (!become(w, RUNNING, DONE))
		free(w);
	return NULL;
}

int32_t exit_watch(struct exit_place place, void (*fn)(int), struct exit_watch **ret)
{
	struct exit_watch *w = calloc(1, sizeof(*w));

	if (!w)
		return smem_err(SMEM_MALLOC_FAILED, "exit watcher");
	w->place = place;
	w->fn = fn;
	int32_t r = thread_start(&w->thread, "smem-exit", watch_run, w);
	if (r != SMEM_OK) {
		free(w);
		return r;
	}
	*ret = w;
	return SMEM_OK;
}

void exit_unwatch(struct exit_watch *w)
{
	if (!w)
		return;
	if (become(w, WAITING, CANCELLED)) {
		exit_nudge(w->place);
	} else if (atomic_load(&w->state) == RUNNING) {
		pthread_detach(w->thread);
		if (become(w, RUNNING, ABANDONED))
			return;
		free(w); /* it ended just now */
		return;
	}
	pthread_join(w->thread, NULL);
	free(w);
}
