/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store between hosts: a host that falls silent is lost within ENV_SILENCE_MS, on both sides,
 * whether something is under way or not; a stopped process never is, not even with its window full.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "hosts.h"
#include "store/store.h"
#include "util/cleanup.h"
#include "util/err.h"
#include "util/limits.h"
#include "util/log.h"

#define PATIENCE 30000 /* ms; never reached by a run that passes */
#define NOTE	 100000

struct seen {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	unsigned entered, lost, notes, closed;
	uint32_t who; /* was lost */
};

static struct seen seen = {.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};

static void on_event(void *arg, const struct store_event *e)
{
	struct seen *s = arg;

	LOCKED(&s->lock);
	s->entered += e->kind == STORE_EVENT_ENTERED;
	s->notes += e->kind == STORE_EVENT_NOTE;
	s->closed += e->kind == STORE_EVENT_CLOSED;
	if (e->kind == STORE_EVENT_LOST) {
		s->lost++;
		s->who = e->member;
	}
	pthread_cond_broadcast(&s->cond);
}

/* Until *what is `want`, or ms have passed. */
static bool await(const unsigned *what, unsigned want, unsigned ms)
{
	struct timespec until = deadline_timespec(deadline_in_ms(ms));

	LOCKED(&seen.lock);
	while (*what < want &&
	       pthread_cond_clockwait(&seen.cond, &seen.lock, CLOCK_MONOTONIC, &until) == 0)
		;
	return *what >= want;
}

static unsigned reading(const unsigned *what)
{
	LOCKED(&seen.lock);
	return *what;
}

static _Atomic unsigned warnings;

static void count_warnings(int level, const char *msg)
{
	if (level == LOG_LEVEL_WARN && strstr(msg, "plain TCP on a network"))
		atomic_fetch_add(&warnings, 1);
}

struct here {
	struct store *store;
	struct store_group *group;
};

static void enter(struct rank *r, struct here *h)
{
	struct store_url url;

	log_set_sink(count_warnings);
	RANK_OK(r, store_url_parse(r->url, false, &url));
	RANK_OK(r, store_open(&url, r->rank == 0 ? STORE_HOST : STORE_CONNECT,
			      deadline_in_ms(PATIENCE), &h->store));
	RANK_ASSERT(r, warnings == 1);
	struct store_enter e = {.name = "hosts",
				.mode = STORE_GROUP_OPEN,
				.member = r->rank,
				.size = r->size,
				.numbers = r->size,
				.fn = on_event,
				.arg = &seen};
	RANK_OK(r, store_group_enter(h->store, &e, deadline_in_ms(PATIENCE), NULL, &h->group));
	RANK_ASSERT(r, await(&seen.entered, r->size, PATIENCE));
	rank_barrier(r);
}

static void leave(struct rank *r, struct here *h)
{
	rank_barrier(r);
	store_group_free(h->group);
	store_close(h->store, STORE_LINGER_MS);
	log_set_sink(NULL);
}

static void lost_by_silence(struct rank *r, bool busy)
{
	struct here h;

	host_enter(r, r->rank);
	enter(r, &h);
	uint64_t begin = rank_ms();
	if (r->rank == 0)
		host_silence(r, 1, true);
	rank_barrier(r);
	if (r->rank != 1) {
		if (busy && r->rank == 0)
			RANK_OK(r,
				store_group_note(h.group, "n", 1, false, deadline_in_ms(PATIENCE)));
		RANK_ASSERT(r, await(&seen.lost, 1, PATIENCE));
		RANK_ASSERT(r, reading(&seen.who) == 1 && reading(&seen.closed) == 0);
	} else {
		int64_t v;
		if (busy)
			RANK_CODE(r, store_add(h.store, "k", 1, deadline_in_ms(PATIENCE), &v),
				  SMEM_UNREACHABLE);
		RANK_ASSERT(r, await(&seen.closed, 1, PATIENCE));
		RANK_ASSERT(r, store_lost(h.store));
	}
	uint64_t took = rank_ms() - begin;
	rank_note(r, "silence seen after %llu ms", (unsigned long long)took);
	RANK_ASSERT(r, took >= 1500 && took < 10000);
	rank_barrier(r);
	if (r->rank == 0)
		host_silence(r, 1, false);
	leave(r, &h);
}

static void silent_idle(struct rank *r)
{
	lost_by_silence(r, false);
}

static void silent_busy(struct rank *r)
{
	lost_by_silence(r, true);
}

static void stopped(struct rank *r)
{
	static char note[NOTE];
	struct here h;

	host_enter(r, r->rank);
	enter(r, &h);
	if (r->rank == 0) {
		rank_stop(r, 1);
		/* More than its window holds, then a long time of nothing. */
		for (int i = 0; i < 100; i++)
			RANK_OK(r, store_group_note(h.group, note, sizeof(note), false,
						    deadline_in_ms(PATIENCE)));
		RANK_ASSERT(r, !await(&seen.lost, 1, 6000));
		rank_cont(r, 1);
	}
	RANK_ASSERT(r, await(&seen.notes, 100, PATIENCE));
	RANK_ASSERT(r, reading(&seen.lost) == 0 && reading(&seen.closed) == 0);
	leave(r, &h);
}

static const struct ranks_case cases[] = {
    {.name = "silent_idle", .fn = silent_idle, .sizes = {3}},
    {.name = "silent_busy", .fn = silent_busy, .sizes = {3}},
    {.name = "stopped", .fn = stopped, .sizes = {3}},
};

int main(int argc, char **argv)
{
	return hosts_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
