/* SPDX-License-Identifier: Apache-2.0 */
/* Segments within one process, which is its own peer: what is handed over is looked at before it is
 * mapped, and any half-built segment can be destroyed. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/arena.h"
#include "core/segment.h"
#include "util/err.h"
#include "util/limits.h"

#define SIZE (2 * SLOT_ALIGN)

static char *base;
static struct agent_peer *peer;

static void never(void *arg)
{
	(void)arg;
	fail_msg("lost was called");
}

static struct deadline soon(void)
{
	return deadline_in_ms(10000);
}

static int setup(void **state)
{
	struct arena_range r;

	(void)state;
	if (arena_get() != 0 || agent_get() != 0 || arena_usable(1, &r, 1) != 1)
		return -1;
	base = (char *)(uintptr_t)r.begin;
	return agent_peer_open(agent_own(), soon(), never, NULL, &peer);
}

static int teardown(void **state)
{
	(void)state;
	agent_peer_close(peer);
	agent_put();
	arena_put();
	return 0;
}

static int descriptors(void)
{
	int n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static void test_hand_over(void **state)
{
	struct segment own = {.addr = NULL}, other = {.addr = NULL};

	(void)state;
	int before = descriptors();
	assert_int_equal(segment_create(SIZE, base, &own), 0);
	assert_true(own.addr == base && own.own && own.mem.size == SIZE);
	strcpy(base + SIZE - 10, "at end");
	assert_int_equal(segment_offer(&own), 0);
	assert_int_equal(own.exported.size, SIZE);
	assert_int_equal(segment_import(peer, &own.exported, base + SIZE, soon(), &other), 0);
	assert_string_equal(base + 2 * SIZE - 10, "at end");
	assert_int_equal(other.mem.fd, -1);
	struct segment_export ex = own.exported;
	segment_withdraw(&own);
	struct segment third = {.addr = NULL};
	assert_int_equal(segment_import(peer, &ex, base + 2 * SIZE, soon(), &third),
			 SMEM_OBJECT_NOT_EXISTS);
	assert_null(third.addr);
	segment_destroy(&own); /* the other's mapping stays */
	assert_string_equal(base + 2 * SIZE - 10, "at end");
	segment_destroy(&other);
	segment_destroy(&other);
	segment_destroy(&own);
	assert_int_equal(msync(base, 2 * SIZE, MS_ASYNC), 0); /* in reserve again */
	assert_int_equal(descriptors(), before);
}

static void offer_fd(int fd, struct segment_export *ex)
{
	*ex = (struct segment_export){.object = 77, .size = SIZE, .cookie = "cookie"};
	assert_int_equal(agent_offer(ex->object, ex->cookie, fd, NULL, 0), 0);
}

static void test_unfit_memory(void **state)
{
	struct segment seg = {.addr = NULL};
	struct segment_export ex;
	int fd = memfd_create("x", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	(void)state;
	int before = descriptors();
	assert_int_equal(ftruncate(fd, (off_t)SIZE - 4096), 0);
	offer_fd(fd, &ex);
	assert_int_equal(segment_import(peer, &ex, base, soon(), &seg), SMEM_IO); /* too short */
	assert_non_null(strstr(err_detail(), "announced"));
	assert_int_equal(ftruncate(fd, (off_t)SIZE), 0);
	assert_int_equal(segment_import(peer, &ex, base, soon(), &seg), SMEM_IO); /* may shrink */
	assert_non_null(strstr(err_detail(), "sealed"));
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
	assert_int_equal(segment_import(peer, &ex, base, soon(), &seg), 0);
	segment_destroy(&seg);
	ex.size = SIZE + 1;
	assert_int_equal(segment_import(peer, &ex, base, soon(), &seg), SMEM_IO);
	ex.object = 0;
	assert_int_equal(segment_import(peer, &ex, base, soon(), &seg), SMEM_IO);
	agent_withdraw(77);
	assert_int_equal(descriptors(), before);
	close(fd);
}

static void test_no_memory(void **state)
{
	struct segment seg = {.addr = NULL, .mem.fd = -1};

	(void)state;
	assert_int_equal(segment_create(1ull << 45, base, &seg), SMEM_MALLOC_FAILED);
	assert_null(seg.addr);
	segment_destroy(&seg);
	segment_destroy(&(struct segment){.own = false});
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_hand_over, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_unfit_memory, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_no_memory, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
