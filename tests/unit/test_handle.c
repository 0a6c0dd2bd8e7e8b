/* SPDX-License-Identifier: Apache-2.0 */
/* Handles: what is unknown, that values do not come back, and that destroy waits for who is inside.
 */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "api/handle.h"
#include "smem.h"

static int object;

static bool known(enum handle_kind kind, void *handle)
{
	struct handle_ref ref;
	bool found = handle_enter(kind, handle, &ref) != NULL;

	if (found)
		handle_exit(&ref);
	return found;
}

static void destroy(void *handle)
{
	assert_ptr_equal(handle_retire(HANDLE_BM, handle), &object);
	handle_drain(handle);
	handle_free(handle);
}

static void unknown_values(void **state)
{
	void *h;

	(void)state;
	assert_int_equal(handle_new(HANDLE_BM, &object, &h), 0);
	assert_true(known(HANDLE_BM, h));
	assert_false(known(HANDLE_SHM, h));
	assert_false(known(HANDLE_TRANS, h));
	assert_false(known(HANDLE_BM, NULL));
	assert_false(known(HANDLE_BM, (void *)1));
	assert_false(known(HANDLE_BM, &h));
	assert_false(known(HANDLE_BM, (void *)UINTPTR_MAX));
	for (int bit = 0; bit < 64; bit++)
		assert_false(known(HANDLE_BM, (void *)((uintptr_t)h ^ (uintptr_t)1 << bit)));
	assert_null(handle_retire(HANDLE_SHM, h));
	assert_null(handle_retire(HANDLE_BM, (void *)1));
	destroy(h);
	assert_false(known(HANDLE_BM, h));
	assert_null(handle_retire(HANDLE_BM, h));
}

static void unpublished(void **state)
{
	void *h;

	(void)state;
	assert_int_equal(handle_new(HANDLE_BM, NULL, &h), 0);
	assert_non_null(handle_gate(h));
	assert_false(known(HANDLE_BM, h));
	assert_null(handle_retire(HANDLE_BM, h));
	handle_publish(h, &object);
	assert_true(known(HANDLE_BM, h));
	destroy(h);
	assert_int_equal(handle_new(HANDLE_BM, NULL, &h), 0);
	handle_free(h);
}

static void values_do_not_return(void **state)
{
	void *first, *h;

	(void)state;
	assert_int_equal(handle_new(HANDLE_BM, &object, &first), 0);
	destroy(first);
	for (int i = 0; i < 70000; i++) {
		assert_int_equal(handle_new(HANDLE_BM, &object, &h), 0);
		assert_ptr_not_equal(h, first);
		destroy(h);
	}
	assert_false(known(HANDLE_BM, first));
}

static void count_one(void *handle, void *arg)
{
	(void)handle;
	++*(int *)arg;
}

static void destroy_each(void *handle, void *arg)
{
	(void)arg;
	destroy(handle);
}

static void many_and_each(void **state)
{
	void *h[200], *other;
	int n = 0;

	(void)state;
	for (int i = 0; i < 200; i++)
		assert_int_equal(handle_new(HANDLE_BM, &object, &h[i]), 0);
	assert_int_equal(handle_new(HANDLE_SHM, &object, &other), 0);
	handle_each(HANDLE_BM, count_one, &n);
	assert_int_equal(n, 200);
	handle_each(HANDLE_BM, destroy_each, NULL);
	n = 0;
	handle_each(HANDLE_BM, count_one, &n);
	assert_int_equal(n, 0);
	assert_true(known(HANDLE_SHM, other));
	assert_ptr_equal(handle_retire(HANDLE_SHM, other), &object);
	handle_free(other);
}

struct visit {
	void *handle;
	bool hold;
	_Atomic int inside;
	_Atomic int leave;
	_Atomic int left;
};

static void *visit(void *arg)
{
	struct visit *v = arg;
	struct handle_ref ref;
	void *obj = v->hold ? handle_hold(HANDLE_BM, v->handle, &ref)
			    : handle_enter(HANDLE_BM, v->handle, &ref);

	if (!obj)
		return NULL;
	v->inside = 1;
	while (!v->leave)
		sched_yield();
	v->left = 1;
	handle_exit(&ref);
	return obj;
}

static void *drain(void *arg)
{
	struct visit *v = arg;

	assert_ptr_equal(handle_retire(HANDLE_BM, v->handle), &object);
	assert_true(handle_retired(v->handle));
	v->leave = 1;
	handle_drain(v->handle);
	assert_int_equal(v->left, 1);
	return NULL;
}

static void drain_waits(void **state)
{
	(void)state;
	for (int hold = 0; hold < 2; hold++) {
		struct visit v = {.hold = hold};
		pthread_t a, b;
		void *got;
		assert_int_equal(handle_new(HANDLE_BM, &object, &v.handle), 0);
		assert_int_equal(pthread_create(&a, NULL, visit, &v), 0);
		while (!v.inside)
			sched_yield();
		assert_int_equal(pthread_create(&b, NULL, drain, &v), 0);
		pthread_join(b, NULL);
		pthread_join(a, &got);
		assert_ptr_equal(got, &object);
		handle_free(v.handle);
	}
}

static void child_knows_none(void **state)
{
	void *h, *again;
	int status;

	(void)state;
	assert_int_equal(handle_new(HANDLE_BM, &object, &h), 0);
	pid_t pid = fork();
	if (pid == 0) {
		bool ok = !known(HANDLE_BM, h) && handle_new(HANDLE_BM, &object, &again) == 0 &&
			  again != h && known(HANDLE_BM, again) && !known(HANDLE_BM, h);
		_exit(ok ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	destroy(h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(unknown_values),	    cmocka_unit_test(unpublished),
	    cmocka_unit_test(values_do_not_return), cmocka_unit_test(many_and_each),
	    cmocka_unit_test(drain_waits),	    cmocka_unit_test(child_knows_none),
	};

	return cmocka_run_group_tests_name("handle", tests, NULL, NULL);
}
