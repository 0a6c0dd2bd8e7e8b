/* SPDX-License-Identifier: Apache-2.0 */
/* What a process tells the store and what it does with the answer. The store here is a fake that
 * answers as it is told; the agreement between processes is tested with the real one. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "core/arena.h"
#include "core/space.h"
#include "util/err.h"
#include "util/limits.h"

#define GIB 0x40000000ull

struct store {
	uint64_t id;
	int told; /* how often */
	struct store_range usable[ARENA_MAX];
	uint32_t count;
	uint64_t answer; /* of the next hold; 0: the first usable place */
	int32_t code;	 /* of the next call */
	int holds, releases;
};

uint64_t store_client_id(const struct store *s)
{
	return s->id;
}

int32_t store_range_usable(struct store *s, const struct store_range *usable, uint32_t n,
			   struct deadline deadline)
{
	(void)deadline;
	s->told++;
	memcpy(s->usable, usable, n * sizeof(*usable));
	s->count = n;
	return s->code ? smem_err(s->code, "fake") : 0;
}

int32_t store_range_hold(struct store *s, const char *name, uint64_t len, uint64_t align,
			 struct deadline deadline, uint64_t *ret_begin)
{
	(void)name;
	(void)len;
	(void)deadline;
	assert_int_equal(align, SLOT_ALIGN);
	if (s->code)
		return smem_err(s->code, "fake");
	s->holds++;
	*ret_begin = s->answer ? s->answer : s->usable[0].begin;
	return 0;
}

void store_range_release(struct store *s, const char *name)
{
	(void)name;
	s->releases++;
}

static struct deadline soon(void)
{
	return deadline_in_ms(10000);
}

static int setup(void **state)
{
	(void)state;
	return space_get();
}

static int teardown(void **state)
{
	(void)state;
	space_put();
	return 0;
}

static void test_told_once(void **state)
{
	struct store s = {.id = 101};
	struct arena_range r[ARENA_MAX];
	struct space a = {.base = NULL}, b = {.base = NULL};

	(void)state;
	assert_int_equal(space_tell(&s, soon()), 0);
	assert_int_equal(s.count, arena_usable(1, r, ARENA_MAX));
	assert_true(s.usable[0].begin == r[0].begin && s.usable[0].end == r[0].end);
	assert_int_equal(space_hold(&s, "a", GIB, soon(), &a), 0);
	assert_true((uint64_t)(uintptr_t)a.base == r[0].begin && a.len == GIB);
	s.answer = r[0].begin + GIB;
	assert_int_equal(space_hold(&s, "b", GIB, soon(), &b), 0);
	assert_int_equal(s.told, 1);
	space_release(&a);
	space_release(&a);
	space_release(&b);
	assert_int_equal(s.holds, 2);
	assert_int_equal(s.releases, 2);
	/* Another life of the same store object. */
	s.id = 102;
	assert_int_equal(space_tell(&s, soon()), 0);
	assert_int_equal(s.told, 2);
}

/* What lies under one store is not offered to another. */
static void test_two_stores(void **state)
{
	struct store s = {.id = 201}, t = {.id = 202};
	struct space a = {.base = NULL}, b = {.base = NULL};

	(void)state;
	assert_int_equal(space_tell(&t, soon()), 0);
	assert_int_equal(space_hold(&s, "a", GIB, soon(), &a), 0);
	assert_int_equal(space_hold(&t, "a", GIB, soon(), &b), 0);
	assert_int_equal(t.told, 2);
	assert_true(b.base != a.base);
	assert_true(t.usable[0].begin == (uint64_t)(uintptr_t)a.base + GIB);
	space_release(&a);
	space_release(&b);
}

/* Others agreed on what this process cannot use: refused, and nothing stays held. */
static void test_cannot_follow(void **state)
{
	struct store s = {.id = 301, .answer = 0x123400000000};
	struct store t = {.id = 302};
	struct space a = {.base = NULL}, b = {.base = NULL};

	(void)state;
	assert_int_equal(space_hold(&s, "a", GIB, soon(), &a), SMEM_RESOURCE_IN_USE);
	assert_non_null(strstr(err_detail(), "[0x123400000000, +0x40000000)"));
	assert_int_equal(s.holds, s.releases);
	assert_null(a.base);
	assert_int_equal(space_hold(&t, "b", GIB, soon(), &b), 0);
	s.answer = (uint64_t)(uintptr_t)b.base;
	assert_int_equal(space_hold(&s, "a", GIB, soon(), &a), SMEM_RESOURCE_IN_USE);
	assert_int_equal(s.holds, s.releases);
	space_release(&b);
	assert_int_equal(space_hold(&s, "a", GIB, soon(), &a), 0);
	space_release(&a);
	space_release(&a);
}

static void test_store_fails(void **state)
{
	struct store s = {.id = 401, .code = SMEM_UNREACHABLE};
	struct space a = {.base = NULL};
	char name[80];

	(void)state;
	assert_int_equal(space_hold(&s, "a", GIB, soon(), &a), SMEM_UNREACHABLE);
	s.code = 0;
	assert_int_equal(space_tell(&s, soon()), 0);
	assert_int_equal(s.told, 2); /* the failed one did not count */
	s.code = SMEM_RESOURCE_IN_USE;
	assert_int_equal(space_hold(&s, "a", GIB, soon(), &a), SMEM_RESOURCE_IN_USE);
	assert_int_equal(s.holds, 0);
	memset(name, 'x', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	assert_int_equal(space_hold(&s, name, GIB, soon(), &a), SMEM_INVALID_PARAM);
	assert_null(a.base);
}

static void *hold_often(void *arg)
{
	struct store *s = arg;

	for (int i = 0; i < 200; i++) {
		struct space a = {.base = NULL};
		if (space_hold(s, "a", GIB, soon(), &a) == 0)
			space_release(&a);
	}
	return NULL;
}

/* Holds under several stores at a time: one may lose a race, but what is held never overlaps. */
static void test_threads(void **state)
{
	struct store s[4] = {{.id = 501}, {.id = 502}, {.id = 503}, {.id = 517}};
	struct arena_range before[ARENA_MAX], after[ARENA_MAX];
	pthread_t tid[4];

	(void)state;
	uint32_t n = arena_usable(1, before, ARENA_MAX);
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&tid[i], NULL, hold_often, &s[i]), 0);
	for (int i = 0; i < 4; i++) {
		pthread_join(tid[i], NULL);
		assert_int_equal(s[i].holds, s[i].releases);
	}
	assert_int_equal(arena_usable(1, after, ARENA_MAX), n);
	assert_memory_equal(before, after, n * sizeof(before[0]));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_told_once, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_two_stores, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_cannot_follow, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_store_fails, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_threads, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
