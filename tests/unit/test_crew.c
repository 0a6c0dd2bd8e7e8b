/* SPDX-License-Identifier: Apache-2.0 */
/* Helpers: every part is done once, whoever does it; they are gone after the last put and in a
 * child. */
#include <dirent.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "device/crew.h"
#include "util/clock.h"

#define PARTS 64

struct tally {
	_Atomic int count[PARTS];
	_Atomic int on_caller;
	pthread_t caller;
	_Atomic int inside;
	int meet; /* parts wait until so many are inside at a time */
};

static void tick(void *arg, size_t part)
{
	struct tally *t = arg;
	struct deadline d = deadline_in_ms(20000);

	atomic_fetch_add(&t->inside, 1);
	while (atomic_load(&t->inside) < t->meet && !deadline_passed(d))
		sched_yield();
	atomic_fetch_add(&t->count[part], 1);
	if (pthread_equal(pthread_self(), t->caller))
		atomic_fetch_add(&t->on_caller, 1);
}

static void run(struct tally *t, unsigned helpers, int meet)
{
	memset(t, 0, sizeof(*t));
	t->caller = pthread_self();
	t->meet = meet;
	crew_run(tick, t, PARTS, helpers);
	for (int i = 0; i < PARTS; i++)
		assert_int_equal(t->count[i], 1);
}

static int tasks(void)
{
	DIR *d = opendir("/proc/self/task");
	int n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n - 2;
}

static void test_alone(void **state)
{
	struct tally t;

	(void)state;
	run(&t, 3, 0); /* no reference: nobody helps */
	assert_int_equal(t.on_caller, PARTS);
	assert_int_equal(crew_spare(), 0);
	setenv("SMEM_COPY_THREADS", "0", 1);
	crew_get();
	run(&t, 3, 0);
	assert_int_equal(t.on_caller, PARTS);
	assert_int_equal(crew_spare(), 0);
	crew_put();
}

static void test_helped(void **state)
{
	struct tally t;
	int before = tasks();

	(void)state;
	setenv("SMEM_COPY_THREADS", "2", 1);
	crew_get();
	assert_int_equal(tasks(), before); /* not before they are needed */
	run(&t, 2, 3);			   /* can only end when three run at a time */
	assert_true(t.on_caller < PARTS);
	assert_int_equal(tasks(), before + 2);
	for (int i = 0; i < 300; i++)
		run(&t, 1 + (unsigned)i % 8, 0);
	assert_int_equal(tasks(), before + 2);
	assert_true(crew_spare() <= 2);
	crew_get();
	crew_put();
	run(&t, 2, 3);
	crew_put();
	run(&t, 2, 0);
	assert_int_equal(t.on_caller, PARTS);
}

static void *run_often(void *arg)
{
	struct tally t;

	(void)arg;
	for (int i = 0; i < 200; i++)
		run(&t, 2, 0);
	return NULL;
}

static void test_many_callers(void **state)
{
	pthread_t tid[4];

	(void)state;
	setenv("SMEM_COPY_THREADS", "2", 1);
	crew_get();
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&tid[i], NULL, run_often, NULL), 0);
	for (int i = 0; i < 4; i++)
		pthread_join(tid[i], NULL);
	crew_put();
}

/* Threads of one process copy while another thread forks; the child may have a crew of its own. */
static void test_fork(void **state)
{
	pthread_t tid;
	struct tally t;

	(void)state;
	setenv("SMEM_COPY_THREADS", "2", 1);
	crew_get();
	run(&t, 2, 3);
	assert_int_equal(pthread_create(&tid, NULL, run_often, NULL), 0);
	for (int i = 0; i < 20; i++) {
		int status;
		pid_t pid = fork();
		if (pid == 0) {
			run(&t, 2, 0);
			if (t.on_caller != PARTS)
				_exit(1);
#ifndef __SANITIZE_THREAD__
			crew_get();
			run(&t, 2, 3);
			crew_put();
#endif
			_exit(0);
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_int_equal(status, 0);
	}
	pthread_join(tid, NULL);
	crew_put();
}

static void *nothing(void *arg)
{
	return arg;
}

int main(void)
{
	pthread_t tid;

	/* The thread sanitizer starts a thread of its own with the first one. */
	if (pthread_create(&tid, NULL, nothing, NULL) == 0)
		pthread_join(tid, NULL);
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_alone),
	    cmocka_unit_test(test_helped),
	    cmocka_unit_test(test_many_callers),
	    cmocka_unit_test(test_fork),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
