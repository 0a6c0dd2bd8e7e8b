/* SPDX-License-Identifier: Apache-2.0 */
/* An announcement reaches every watcher once; watchers go in every order with their callbacks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <pthread.h>

#include "core/exit.h"
#include "util/clock.h"

static _Atomic uint64_t status;
static _Atomic uint32_t tick;
static const struct exit_place place = {.status = &status, .tick = &tick};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static int calls, seen, may_end;
static struct exit_watch *watch;

static int setup(void **state)
{
	(void)state;
	atomic_store(&status, 0);
	pthread_mutex_lock(&lock);
	calls = seen = 0;
	may_end = 1;
	pthread_mutex_unlock(&lock);
	return 0;
}

static void until_calls(int n)
{
	struct timespec until = deadline_timespec(deadline_in_s(60));

	pthread_mutex_lock(&lock);
	while (calls < n && pthread_cond_clockwait(&cond, &lock, CLOCK_MONOTONIC, &until) == 0)
		;
	assert_int_equal(calls, n);
	pthread_mutex_unlock(&lock);
}

static void callback(int st)
{
	pthread_mutex_lock(&lock);
	calls++;
	seen = st;
	pthread_cond_broadcast(&cond);
	while (!may_end)
		pthread_cond_wait(&cond, &lock);
	pthread_mutex_unlock(&lock);
}

static void test_watch_then_announce(void **state)
{
	struct exit_watch *w[3];

	(void)state;
	for (int i = 0; i < 3; i++)
		assert_int_equal(exit_watch(place, callback, &w[i]), 0);
	assert_true(exit_announce(place, -7));
	until_calls(3);
	assert_int_equal(seen, -7);
	assert_false(exit_announce(place, 8));
	for (int i = 0; i < 3; i++)
		exit_unwatch(w[i]);
	assert_int_equal(calls, 3);
}

static void test_announce_then_watch(void **state)
{
	struct exit_watch *w;

	(void)state;
	assert_true(exit_announce(place, 0));
	assert_int_equal(exit_watch(place, callback, &w), 0);
	until_calls(1);
	exit_unwatch(w);
}

static void test_unwatched_is_never_called(void **state)
{
	(void)state;
	for (int i = 0; i < 200; i++) {
		struct exit_watch *w;
		assert_int_equal(exit_watch(place, callback, &w), 0);
		exit_unwatch(w);
	}
	assert_true(exit_announce(place, 1));
	assert_int_equal(calls, 0);
	exit_unwatch(NULL);
}

/* The announcer died before it woke anybody; the news of its death does. */
static void test_nudge(void **state)
{
	struct exit_watch *w;

	(void)state;
	assert_int_equal(exit_watch(place, callback, &w), 0);
	atomic_store(&status, 1ull << 32 | 5);
	exit_nudge(place);
	until_calls(1);
	assert_int_equal(seen, 5);
	exit_unwatch(w);
}

static void destroying(int st)
{
	exit_unwatch(watch);
	callback(st);
}

static void test_callback_may_unwatch_itself(void **state)
{
	(void)state;
	assert_int_equal(exit_watch(place, destroying, &watch), 0);
	exit_announce(place, 3);
	until_calls(1);
}

static void test_unwatch_does_not_wait_for_a_callback(void **state)
{
	struct exit_watch *w;

	(void)state;
	may_end = 0;
	assert_int_equal(exit_watch(place, callback, &w), 0);
	exit_announce(place, 3);
	until_calls(1);
	exit_unwatch(w); /* returns while it runs */
	pthread_mutex_lock(&lock);
	assert_int_equal(may_end, 0);
	may_end = 1;
	pthread_cond_broadcast(&cond);
	pthread_mutex_unlock(&lock);
}

#define RACES 500
static _Atomic int counts[RACES];

static void count(int st)
{
	atomic_fetch_add(&counts[st], 1);
}

static void *announcer(void *arg)
{
	exit_announce(place, *(int *)arg);
	return NULL;
}

/* Announcing and unwatching at once: called at most once. */
static void test_race(void **state)
{
	(void)state;
	for (int i = 0; i < RACES; i++) {
		struct exit_watch *w;
		pthread_t t;
		atomic_store(&status, 0);
		assert_int_equal(exit_watch(place, count, &w), 0);
		assert_int_equal(pthread_create(&t, NULL, announcer, &i), 0);
		exit_unwatch(w);
		pthread_join(t, NULL);
	}
	for (int i = 0; i < RACES; i++)
		assert_in_range(atomic_load(&counts[i]), 0, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup(test_watch_then_announce, setup),
	    cmocka_unit_test_setup(test_announce_then_watch, setup),
	    cmocka_unit_test_setup(test_unwatched_is_never_called, setup),
	    cmocka_unit_test_setup(test_nudge, setup),
	    cmocka_unit_test_setup(test_callback_may_unwatch_itself, setup),
	    cmocka_unit_test_setup(test_unwatch_does_not_wait_for_a_callback, setup),
	    cmocka_unit_test_setup(test_race, setup),
	};

	return cmocka_run_group_tests_name("exit", tests, NULL, NULL);
}
