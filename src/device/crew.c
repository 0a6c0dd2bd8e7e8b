/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A job is a counter of parts: the caller and the helpers take numbers from it until there are
 * none. The caller never depends on a helper that did not come: it may well do all parts itself. It
 * waits only for helpers inside a part, first spinning (a part is short) and then asleep.
 *
 * Idle CPUs are counted by the kernel's number of runnable threads (/proc/loadavg), read at most
 * once a millisecond: a look at a clock is all that most copies pay. Own helpers that are awake are
 * not counted against themselves. A second process that copies at the same time counts, so on a
 * machine with as many copying processes as CPUs nobody gets help.
 */
#include "device/crew.h"

#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "device/cgroup.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/env.h"
#include "util/err.h"
#include "util/fork.h"
#include "util/log.h"
#include "util/thread.h"

#define HELPERS_MAX 8 /* by itself; a machine's memory is saturated by fewer */
#define SAMPLE_NS   NS_PER_MS
#define SPIN_NS	    30000 /* about two parts, or one wake-up */
#define BAN_MIN_NS  (10 * NS_PER_MS)
#define BAN_SHIFTS  6  /* 640 ms at most */
#define NAP_S	    60 /* a wait is never without an end */

struct job {
	void (*fn)(void *arg, size_t part);
	void *arg;
	size_t parts;
	unsigned wanted; /* helpers that may still join; under lock */
	_Atomic size_t next;
	_Atomic unsigned inside; /* helpers; raised under lock */
};

static pthread_mutex_t refs_lock = PTHREAD_MUTEX_INITIALIZER; /* starting and ending of threads */
static unsigned refs;
static int loadavg_fd = -1;
static _Atomic unsigned limit; /* most helpers; 0: no crew */
static unsigned cpus;	       /* of the machine, as what runs is counted */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t work_cond = PTHREAD_COND_INITIALIZER;
static pthread_cond_t done_cond = PTHREAD_COND_INITIALIZER;
static struct job *current;
static pthread_t threads[64];
static unsigned thread_count;
static bool stopping;

static _Atomic unsigned awake;
static _Atomic uint64_t sampled_at;
static _Atomic unsigned sampled; /* CPUs idle then */
static _Atomic uint64_t banned_until;
static _Atomic unsigned late; /* jobs in a row that had to wait for a helper */

static void take_parts(struct job *job)
{
	size_t part;

	while ((part = atomic_fetch_add_explicit(&job->next, 1, memory_order_relaxed)) < job->parts)
		job->fn(job->arg, part);
}

static void *help(void *arg)
{
	(void)arg;
	pthread_mutex_lock(&lock);
	while (!stopping) {
		struct job *job = current;
		if (!job || job->wanted == 0) {
			struct timespec nap = deadline_timespec(deadline_in_s(NAP_S));
			pthread_cond_clockwait(&work_cond, &lock, CLOCK_MONOTONIC, &nap);
			continue;
		}
		job->wanted--;
		atomic_fetch_add(&job->inside, 1);
		atomic_fetch_add(&awake, 1);
		pthread_mutex_unlock(&lock);
		take_parts(job);
		atomic_fetch_sub(&awake, 1);
		pthread_mutex_lock(&lock);
		if (atomic_fetch_sub(&job->inside, 1) == 1)
			pthread_cond_broadcast(&done_cond);
	}
	pthread_mutex_unlock(&lock);
	return NULL;
}

/* More threads up to n; fewer is no failure. Under lock. */
static void hire(unsigned n)
{
	while (thread_count < n &&
	       thread_start(&threads[thread_count], "smem-copy", help, NULL) == SMEM_OK)
		thread_count++;
}

static inline void relax(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#endif
}

static void wait_for_helpers(struct job *job)
{
	uint64_t until = clock_ns() + SPIN_NS;

	while (atomic_load(&job->inside) > 0 && clock_ns() < until)
		relax();
	if (atomic_load(&job->inside) > 0) {
		unsigned n = atomic_load(&late);
		atomic_store(&banned_until, until + (BAN_MIN_NS << n));
		atomic_store(&late, n < BAN_SHIFTS ? n + 1 : n);
	} else {
		atomic_store(&late, 0);
	}
	pthread_mutex_lock(&lock);
	current = NULL; /* nobody comes any more */
	while (atomic_load(&job->inside) > 0) {
		struct timespec nap = deadline_timespec(deadline_in_s(NAP_S));
		pthread_cond_clockwait(&done_cond, &lock, CLOCK_MONOTONIC, &nap);
	}
	pthread_mutex_unlock(&lock);
}

void crew_run(void (*fn)(void *arg, size_t part), void *arg, size_t parts, unsigned helpers)
{
	struct job job = {.fn = fn, .arg = arg, .parts = parts};
	unsigned most = atomic_load_explicit(&limit, memory_order_relaxed);

	if (helpers > most)
		helpers = most;
	bool shared = helpers > 0 && parts > 1 && pthread_mutex_trylock(&lock) == 0;
	if (shared && (current || stopping)) {
		pthread_mutex_unlock(&lock);
		shared = false;
	}
	if (shared) {
		hire(helpers);
		job.wanted = helpers < thread_count ? helpers : thread_count;
		current = &job;
		for (unsigned i = 0; i < job.wanted; i++)
			pthread_cond_signal(&work_cond);
		pthread_mutex_unlock(&lock);
	}
	take_parts(&job);
	if (shared)
		wait_for_helpers(&job);
}

/* How many threads of the machine run or want to; 0 when the kernel does not say. */
static unsigned runnable(void)
{
	char text[128];
	unsigned n = 0;
	ssize_t len = pread(loadavg_fd, text, sizeof(text) - 1, 0);

	if (len <= 0)
		return 0;
	text[len] = '\0';
	return sscanf(text, "%*s %*s %*s %u/", &n) == 1 ? n : 0;
}

unsigned crew_spare(void)
{
	unsigned most = atomic_load_explicit(&limit, memory_order_relaxed);

	if (most == 0)
		return 0;
	uint64_t now = clock_ns();
	if (now < atomic_load_explicit(&banned_until, memory_order_relaxed))
		return 0;
	if (now - atomic_load_explicit(&sampled_at, memory_order_relaxed) >= SAMPLE_NS) {
		unsigned mine = atomic_load(&awake), busy = runnable();
		busy = busy > mine ? busy - mine : 1;
		atomic_store(&sampled, cpus > busy ? cpus - busy : 0);
		atomic_store(&sampled_at, now);
	}
	unsigned idle = atomic_load_explicit(&sampled, memory_order_relaxed);
	return idle < most ? idle : most;
}

/* Whole CPUs that the process's control groups grant; to use up a quota is to stand still for what
 * is left of a tenth of a second. */
static unsigned quota_cpus(void)
{
	struct cgroup groups;
	uint64_t v[2], least = UINT_MAX;

	cgroup_find("", "cpu", &groups);
	for (size_t i = 0; i < groups.count; i++) {
		const char *dir = groups.level[i].dir;
		bool known = groups.level[i].v2
				 ? cgroup_numbers(dir, "cpu.max", v, 2) == 2
				 : cgroup_numbers(dir, "cpu.cfs_quota_us", &v[0], 1) == 1 &&
				       cgroup_numbers(dir, "cpu.cfs_period_us", &v[1], 1) == 1;
		if (known && v[0] < INT64_MAX && v[1] > 0 && v[0] / v[1] < least)
			least = v[0] / v[1];
	}
	cgroup_clear(&groups);
	return least > 0 ? (unsigned)least : 1;
}

static unsigned usable_cpus(void)
{
	cpu_set_t set;
	unsigned n = sched_getaffinity(0, sizeof(set), &set) == 0 ? (unsigned)CPU_COUNT(&set) : 1;
	unsigned quota = quota_cpus();

	return n < quota ? n : quota;
}

static void start(void)
{
	int64_t want = env_int(ENV_COPY_THREADS);

	unsigned others = usable_cpus() - 1;
	if (want < 0)
		want = others < HELPERS_MAX ? others : HELPERS_MAX;
	if (want == 0)
		return;
	cpus = (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
	loadavg_fd = fd_own(open("/proc/loadavg", O_RDONLY | O_CLOEXEC));
	if (loadavg_fd < 0)
		return;
	stopping = false;
	atomic_store(&sampled_at, 0);
	atomic_store(&banned_until, 0);
	atomic_store(&late, 0);
	atomic_store(&limit, (unsigned)want);
}

static void stop(void)
{
	atomic_store(&limit, 0);
	pthread_mutex_lock(&lock);
	stopping = true;
	pthread_cond_broadcast(&work_cond);
	unsigned n = thread_count;
	thread_count = 0;
	pthread_mutex_unlock(&lock);
	for (unsigned i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
	fd_close(&loadavg_fd);
}

void crew_get(void)
{
	LOCKED(&refs_lock);
	if (refs++ == 0)
		start();
}

void crew_put(void)
{
	LOCKED(&refs_lock);
	if (refs > 0 && --refs == 0)
		stop();
}

static void fork_child(void)
{
	refs = 0;
	loadavg_fd = -1;
	current = NULL;
	thread_count = 0;
	stopping = false;
	atomic_store(&limit, 0);
	atomic_store(&awake, 0);
	pthread_mutex_init(&refs_lock, NULL);
	pthread_mutex_init(&lock, NULL);
	pthread_cond_init(&work_cond, NULL);
	pthread_cond_init(&done_cond, NULL);
}

static const struct fork_hooks hooks = {
    .order = FORK_ORDER_DEVICE,
    .child = fork_child,
};
FORK_HOOKS(hooks)
