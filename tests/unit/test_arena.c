/* SPDX-License-Identifier: Apache-2.0 */
/* Reservations: disjoint, really held, kept apart by owner, given back, not inherited; with a
 * candidate that is occupied, and little address space. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/arena.h"
#include "smem.h"
#include "util/log.h"

#define GIB 0x40000000ull

static uint32_t usable(uint64_t owner, struct arena_range r[ARENA_MAX])
{
	return arena_usable(owner, r, ARENA_MAX);
}

static bool is_mapped(uint64_t addr)
{
	return msync((void *)(uintptr_t)addr, 4096, MS_ASYNC) == 0; /* ENOMEM where nothing is */
}

static void test_reserved(void **state)
{
	struct arena_range r[ARENA_MAX];

	(void)state;
	assert_int_equal(arena_get(), SMEM_OK);
	uint32_t n = usable(1, r);
	assert_true(n > 0);
	for (uint32_t i = 0; i < n; i++) {
		print_message("# [0x%llx, 0x%llx)\n", (unsigned long long)r[i].begin,
			      (unsigned long long)r[i].end);
		assert_true(r[i].begin % (2ull << 20) == 0 && r[i].end > r[i].begin);
		assert_true(is_mapped(r[i].begin) && is_mapped(r[i].end - 4096));
		for (uint32_t k = 0; k < i; k++)
			assert_true(r[i].end <= r[k].begin || r[i].begin >= r[k].end);
	}
	assert_int_equal(arena_get(), SMEM_OK);
	arena_put();
	assert_true(is_mapped(r[0].begin));
	arena_put();
	assert_false(is_mapped(r[0].begin));
	assert_int_equal(usable(1, r), 0);
}

static void test_parts(void **state)
{
	struct arena_range r[ARENA_MAX], s[ARENA_MAX];

	(void)state;
	assert_int_equal(arena_get(), SMEM_OK);
	uint32_t n = usable(1, r);
	uint64_t b = r[0].begin;
	assert_true(r[0].end - b >= 4 * GIB);
	assert_true(arena_take(1, b + GIB, GIB));
	assert_false(arena_take(1, b + GIB, GIB));
	assert_false(arena_take(2, b + 2 * GIB - 1, 1));
	assert_false(arena_take(2, r[0].end - GIB, 2 * GIB)); /* out of reserve, or of another */
	assert_false(arena_take(2, b, 0));
	assert_false(arena_take(2, b, UINT64_MAX - 5));
	assert_true(arena_take(2, b + 2 * GIB, GIB));
	/* An owner's own parts are for the store to keep apart. */
	assert_int_equal(usable(1, s), n + 1);
	assert_true(s[0].begin == b && s[0].end == b + 2 * GIB && s[1].begin == b + 3 * GIB);
	assert_int_equal(usable(2, s), n + 1);
	assert_true(s[0].end == b + GIB && s[1].begin == b + 2 * GIB);
	assert_int_equal(usable(3, s), n + 1);
	assert_true(s[0].end == b + GIB && s[1].begin == b + 3 * GIB);
	assert_int_equal(arena_usable(3, s, 1), 1);
	arena_give(b + GIB, GIB);
	arena_give(b + 2 * GIB, GIB);
	assert_int_equal(usable(3, s), n);
	assert_memory_equal(r, s, n * sizeof(r[0]));
	arena_put();
}

static void test_occupied(void **state)
{
	struct arena_range r[ARENA_MAX], s[ARENA_MAX];

	(void)state;
	assert_int_equal(arena_get(), SMEM_OK);
	uint32_t n = usable(1, r);
	arena_put();
	uint64_t at = r[0].begin + (1ull << 20);
	void *taken = mmap((void *)(uintptr_t)at, 4096, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	assert_true(taken == (void *)(uintptr_t)at);
	memset(taken, 7, 4096);
	assert_int_equal(arena_get(), SMEM_OK);
	uint32_t m = usable(1, s);
	assert_true(m >= n - 1 && m > 0);
	for (uint32_t i = 0; i < m; i++)
		assert_true(s[i].end <= at || s[i].begin > at);
	assert_false(arena_take(1, r[0].begin, 2ull << 20));
	assert_int_equal(((char *)taken)[4095], 7);
	arena_put();
	munmap(taken, 4096);
}

static int in_child(int (*fn)(void))
{
	int status;
	pid_t pid = fork();

	if (pid == 0)
		_exit(fn());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static uint64_t parents_base;

static int starts_anew(void)
{
	struct arena_range r[ARENA_MAX];

	if (is_mapped(parents_base) || usable(1, r) != 0 || arena_get() != SMEM_OK)
		return 1;
	/* The parent's part does not count here. */
	if (!arena_take(1, parents_base, GIB))
		return 2;
	arena_give(parents_base, GIB);
	arena_put();
	return 0;
}

static void test_fork(void **state)
{
	struct arena_range r[ARENA_MAX];

	(void)state;
	assert_int_equal(arena_get(), SMEM_OK);
	usable(1, r);
	parents_base = r[0].begin;
	assert_true(arena_take(1, parents_base, GIB));
	assert_int_equal(in_child(starts_anew), 0);
	assert_true(is_mapped(parents_base));
	arena_give(parents_base, GIB);
	arena_put();
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
static int with_little_space(void)
{
	struct rlimit lim = {.rlim_cur = 64 * GIB, .rlim_max = 64 * GIB};
	struct arena_range r[ARENA_MAX];
	uint64_t sum = 0;

	if (setrlimit(RLIMIT_AS, &lim) != 0 || arena_get() != SMEM_OK)
		return 1;
	uint32_t n = usable(1, r);
	for (uint32_t i = 0; i < n; i++)
		sum += r[i].end - r[i].begin;
	arena_put();
	return sum >= GIB && sum <= 33 * GIB ? 0 : 2;
}

static int with_no_space(void)
{
	struct rlimit lim = {.rlim_cur = GIB, .rlim_max = GIB};

	if (setrlimit(RLIMIT_AS, &lim) != 0)
		return 1;
	return arena_get() == SMEM_MALLOC_FAILED && arena_get() == SMEM_MALLOC_FAILED ? 0 : 2;
}

static void test_little_address_space(void **state)
{
	(void)state;
	assert_int_equal(in_child(with_little_space), 0);
	assert_int_equal(in_child(with_no_space), 0);
}
#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reserved),
		cmocka_unit_test(test_parts),
		cmocka_unit_test(test_occupied),
		cmocka_unit_test(test_fork),
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
		cmocka_unit_test(test_little_address_space),
#endif
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
