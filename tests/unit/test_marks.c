/* SPDX-License-Identifier: Apache-2.0 */
/* Marks: who is waited for, who is not, and that what was awaited never lands. */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/mark_table.h"
#include "core/marks.h"
#include "util/err.h"

static struct marks *make(void)
{
	struct marks *m = NULL;

	assert_int_equal(marks_create(&m), 0);
	return m;
}

static void test_a_mark_is_waited_for_where_it_lies(void **state)
{
	struct marks *m = make();
	struct marker *k = NULL;
	struct mark_ref *ref = NULL;

	(void)state;
	assert_int_equal(marker_open(marks_fd(m), &k), 0);
	assert_int_equal(marker_take(k, &ref), 0);
	assert_int_equal(marks_await(m, 0, UINT64_MAX, deadline_in_ms(0)), 0);
	mark_set(ref, 1000, 2000);
	assert_int_equal(marks_await(m, 0, 1000, deadline_in_ms(0)), 0);
	assert_int_equal(marks_await(m, 2000, 3000, deadline_in_ms(0)), 0);
	assert_int_equal(marks_await(m, 1999, 2000, deadline_in_ms(10)), SMEM_RESOURCE_IN_USE);
	assert_non_null(strstr(err_detail(), "[0x3e8, 0x7d0)"));
	mark_clear(ref);
	assert_int_equal(marks_await(m, 0, UINT64_MAX, deadline_in_ms(0)), 0);
	marker_give(ref);
	marker_close(k);
	marks_destroy(m);
}

static void test_slots_of_many_calls_and_peers(void **state)
{
	enum { PEERS = 5, CALLS = 50 };
	struct marks *m = make();
	struct marker *k[PEERS];
	struct mark_ref *ref[PEERS][CALLS];

	(void)state;
	for (int p = 0; p < PEERS; p++) {
		assert_int_equal(marker_open(marks_fd(m), &k[p]), 0);
		for (uint64_t c = 0; c < CALLS; c++) {
			assert_int_equal(marker_take(k[p], &ref[p][c]), 0);
			mark_set(ref[p][c], c, c + 1);
		}
	}
	/* every mark counts on its own */
	for (int p = 0; p < PEERS; p++) {
		for (uint64_t c = 0; c < CALLS; c++) {
			assert_int_equal(marks_await(m, c, c + 1, deadline_in_ms(0)),
					 SMEM_RESOURCE_IN_USE);
			if (p == PEERS - 1) {
				for (int q = 0; q < PEERS; q++)
					mark_clear(ref[q][c]);
				assert_int_equal(marks_await(m, c, c + 1, deadline_in_ms(0)), 0);
			}
		}
	}
	for (int p = 0; p < PEERS; p++) {
		for (int c = 0; c < CALLS; c++)
			marker_give(ref[p][c]);
		marker_close(k[p]);
	}
	marks_destroy(m);
}

static void *clear_soon(void *arg)
{
	mark_clear(arg);
	return NULL;
}

static void test_a_wait_ends_with_the_mark(void **state)
{
	struct marks *m = make();
	struct marker *k = NULL;
	struct mark_ref *ref = NULL;

	(void)state;
	assert_int_equal(marker_open(marks_fd(m), &k), 0);
	assert_int_equal(marker_take(k, &ref), 0);
	for (int i = 0; i < 200; i++) {
		pthread_t t;
		mark_set(ref, 10, 20);
		assert_int_equal(pthread_create(&t, NULL, clear_soon, ref), 0);
		assert_int_equal(marks_await(m, 0, 100, deadline_in_s(30)), 0);
		pthread_join(t, NULL);
	}
	marker_give(ref);
	marker_close(k);
	marks_destroy(m);
}

/* ---- initiators that die or stop ---- */

/* The memfd reaches the child by a copy that is not closed at fork. */
static pid_t marking_child(int fd, uint64_t begin, uint64_t end)
{
	int up[2];
	char byte;

	assert_int_equal(pipe(up), 0);
	pid_t pid = fork();
	if (pid == 0) {
		struct marker *k = NULL;
		struct mark_ref *ref = NULL;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (marker_open(fd, &k) || marker_take(k, &ref))
			_exit(1);
		mark_set(ref, begin, end);
		(void)!write(up[1], "x", 1);
		for (;;)
			pause();
	}
	assert_true(pid > 0);
	close(up[1]);
	assert_int_equal(read(up[0], &byte, 1), 1);
	close(up[0]);
	return pid;
}

static void test_the_dead_block_nobody(void **state)
{
	struct marks *m = make();
	int fd = dup(marks_fd(m));
	struct marker *k = NULL;
	struct mark_ref *ref = NULL;

	(void)state;
	for (int i = 0; i < 20; i++) {
		pid_t pid = marking_child(fd, 100, 200);
		assert_int_equal(marks_await(m, 150, 151, deadline_in_ms(0)), SMEM_RESOURCE_IN_USE);
		kill(pid, SIGKILL);
		assert_int_equal(marks_await(m, 150, 151, deadline_in_s(30)), 0);
		assert_int_equal(waitpid(pid, NULL, 0), pid);
	}
	/* its slots serve the next one, clean; one block was enough for all of them */
	assert_int_equal(marker_open(fd, &k), 0);
	assert_int_equal(marker_take(k, &ref), 0);
	assert_int_equal(marks_await(m, 0, UINT64_MAX, deadline_in_ms(0)), 0);
	struct mark_table *t = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
	assert_int_equal(atomic_load(&t->high), 8);
	munmap(t, 4096);
	marker_give(ref);
	marker_close(k);
	close(fd);
	marks_destroy(m);
}

static void test_the_stopped_are_waited_for(void **state)
{
	struct marks *m = make();
	int fd = dup(marks_fd(m));

	(void)state;
	pid_t pid = marking_child(fd, 100, 200);
	kill(pid, SIGSTOP);
	assert_int_equal(waitpid(pid, NULL, WUNTRACED), pid);
	assert_int_equal(marks_await(m, 0, 1000, deadline_in_ms(50)), SMEM_RESOURCE_IN_USE);
	assert_int_equal(marks_await(m, 0, 100, deadline_in_ms(50)), 0);
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	assert_int_equal(marks_await(m, 0, 1000, deadline_in_ms(50)), 0);
	close(fd);
	marks_destroy(m);
}

/* ---- the point of it: open is looked at after the mark, so after a wait nothing lands ---- */

#define ROUNDS 30000

static _Atomic int open_now;
static _Atomic int stop;
static _Atomic uint64_t target;
static struct marker *shared;

static void *writer(void *arg)
{
	struct mark_ref *ref = NULL;

	(void)arg;
	while (!atomic_load(&stop)) {
		if (marker_take(shared, &ref))
			return (void *)1;
		mark_set(ref, 0, 8);
		if (atomic_load(&open_now))
			atomic_fetch_add_explicit(&target, 1, memory_order_relaxed);
		mark_clear(ref);
		marker_give(ref);
	}
	return NULL;
}

static void test_nothing_lands_after_a_wait(void **state)
{
	struct marks *m = make();
	pthread_t t[3];
	void *failed = NULL;

	(void)state;
	assert_int_equal(marker_open(marks_fd(m), &shared), 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&t[i], NULL, writer, NULL), 0);
	for (int round = 0; round < ROUNDS; round++) {
		atomic_store(&open_now, 1);
		atomic_store(&open_now, 0);
		assert_int_equal(marks_await(m, 0, 8, deadline_in_s(30)), 0);
		uint64_t before = atomic_load(&target);
		for (int spin = 0; spin < 20; spin++)
			assert_int_equal(atomic_load(&target), before);
	}
	atomic_store(&stop, 1);
	for (int i = 0; i < 3; i++) {
		pthread_join(t[i], &failed);
		assert_null(failed);
	}
	marker_close(shared);
	marks_destroy(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_a_mark_is_waited_for_where_it_lies),
	    cmocka_unit_test(test_slots_of_many_calls_and_peers),
	    cmocka_unit_test(test_a_wait_ends_with_the_mark),
	    cmocka_unit_test(test_the_dead_block_nobody),
	    cmocka_unit_test(test_the_stopped_are_waited_for),
	    cmocka_unit_test(test_nothing_lands_after_a_wait),
	};
	return cmocka_run_group_tests_name("marks", tests, NULL, NULL);
}
