/* SPDX-License-Identifier: Apache-2.0 */
/* Readers look at an object that a writer takes away: nobody may see it after the drain. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "util/gate.h"

#define FEW    4
#define MANY   (2 * GATE_SHARDS) /* more than can have a shard of their own */
#define ROUNDS 20000

static struct gate gate;
static _Atomic(uint64_t *) object;
static _Atomic int stop;
static _Atomic int wrong;

static void *reader(void *arg)
{
	(void)arg;
	while (!atomic_load(&stop)) {
		uint32_t ticket = gate_enter(&gate);
		uint64_t *seen = atomic_load(&object);
		if (seen && *seen != 42)
			atomic_store(&wrong, 1);
		gate_exit(&gate, ticket);
	}
	return NULL;
}

static void take_away(unsigned readers, int rounds)
{
	pthread_t t[MANY];

	atomic_store(&stop, 0);
	for (unsigned i = 0; i < readers; i++)
		assert_int_equal(pthread_create(&t[i], NULL, reader, NULL), 0);
	for (int round = 0; round < rounds; round++) {
		uint64_t *o = malloc(sizeof(*o));
		*o = 42;
		atomic_store(&object, o);
		atomic_store(&object, NULL);
		assert_true(gate_drain(&gate, deadline_in_s(30)));
		*o = 13;
		free(o);
	}
	atomic_store(&stop, 1);
	for (unsigned i = 0; i < readers; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(atomic_load(&wrong), 0);
}

static void test_nobody_is_inside_after_a_drain(void **state)
{
	(void)state;
	take_away(FEW, ROUNDS);
}

static void test_more_threads_than_shards(void **state)
{
	(void)state;
	take_away(MANY, 500);
}

static void *pass_once(void *arg)
{
	gate_exit(arg, gate_enter(arg));
	return NULL;
}

/* Shards go from thread to thread. */
static void test_threads_come_and_go(void **state)
{
	static struct gate g;
	uint32_t ticket = gate_enter(&g);

	(void)state;
	for (int i = 0; i < 200; i++) {
		pthread_t t;
		assert_int_equal(pthread_create(&t, NULL, pass_once, &g), 0);
		pthread_join(t, NULL);
	}
	assert_false(gate_drain(&g, deadline_in_ms(5)));
	gate_exit(&g, ticket);
	assert_true(gate_drain(&g, deadline_in_s(5)));
}

/* The counts of a child are its own, and it can drain alone. */
static void test_fork(void **state)
{
	static struct gate g;
	int status;

	(void)state;
	uint32_t ticket = gate_enter(&g);
	pid_t child = fork();
	if (child == 0) {
		gate_init(&g);
		uint32_t own = gate_enter(&g);
		bool held = !gate_drain(&g, deadline_in_ms(5));
		gate_exit(&g, own);
		_exit(held && gate_drain(&g, deadline_in_s(5)) ? 0 : 1);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	gate_exit(&g, ticket);
	assert_true(gate_drain(&g, deadline_in_s(5)));
}

static void test_drain_has_a_deadline(void **state)
{
	static struct gate g;

	(void)state;
	uint32_t ticket = gate_enter(&g);
	assert_false(gate_drain(&g, deadline_in_ms(20)));
	gate_exit(&g, ticket);
	assert_true(gate_drain(&g, deadline_in_s(5)));
}

static void test_enter_nests(void **state)
{
	static struct gate g;

	(void)state;
	uint32_t a = gate_enter(&g);
	uint32_t b = gate_enter(&g);
	gate_exit(&g, a);
	assert_false(gate_drain(&g, deadline_in_ms(5)));
	gate_exit(&g, b);
	assert_true(gate_drain(&g, deadline_in_s(5)));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_nobody_is_inside_after_a_drain),
	    cmocka_unit_test(test_more_threads_than_shards),
	    cmocka_unit_test(test_threads_come_and_go),
	    cmocka_unit_test(test_fork),
	    cmocka_unit_test(test_drain_has_a_deadline),
	    cmocka_unit_test(test_enter_nests),
	};
	return cmocka_run_group_tests_name("gate", tests, NULL, NULL);
}
