/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The data path against a flat reference: a pool of eight small slots, built by hand, of which some
 * are mapped and some are reached by a fake transport that insists on being handed whole pieces of
 * one slot. What is not mapped here cannot be touched (PROT_NONE).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "core/copy.h"
#include "smem.h"
#include "util/err.h"

#define SLOTS 8u
#define SIZE  4096u
#define LEN   (SLOTS * SIZE)
#define OWN   3u

struct fake {
	struct endpoint base;
	uint32_t rank;
	char memory[SIZE];
};

static struct pool pool;
static struct peer peers[SLOTS];
static struct fake fakes[SLOTS];
static char *base;
static int32_t fake_result;
static unsigned fake_calls;
static struct peer *dies_in_put;

/* The bytes behind an address of the peer's slot; fails the test when a piece leaves the slot. */
static char *behind(struct fake *f, const void *addr, const struct smem_xfer *x, size_t pitch)
{
	uint64_t at = (uint64_t)((const char *)addr - base), begin = f->rank * SIZE;
	uint64_t span = x->height > 1 ? pitch * (x->height - 1) + x->width : x->width;

	assert_true(at >= begin && at + span <= begin + SIZE);
	return f->memory + (at - begin);
}

static int32_t fake_put(struct endpoint *ep, const struct smem_xfer *x, size_t n)
{
	struct fake *f = (struct fake *)ep;

	assert_int_equal(n, 1);
	fake_calls++;
	if (dies_in_put) {
		atomic_store(&dies_in_put->state, PEER_LOST);
		atomic_fetch_add(&pool.losses, 1);
	}
	if (fake_result != SMEM_OK)
		return smem_err(fake_result, "as told");
	for (size_t i = 0; i < x->height; i++)
		memcpy(behind(f, x->dst, x, x->dpitch) + i * x->dpitch,
		       (const char *)x->src + i * x->spitch, x->width);
	return SMEM_OK;
}

static int32_t fake_get(struct endpoint *ep, const struct smem_xfer *x, size_t n)
{
	struct fake *f = (struct fake *)ep;

	assert_int_equal(n, 1);
	fake_calls++;
	if (fake_result != SMEM_OK)
		return smem_err(fake_result, "as told");
	for (size_t i = 0; i < x->height; i++)
		memcpy((char *)x->dst + i * x->dpitch,
		       behind(f, x->src, x, x->spitch) + i * x->spitch, x->width);
	return SMEM_OK;
}

static const struct transport_ops fake_ops = {.name = "fake", .put = fake_put, .get = fake_get};

static bool is_remote(uint32_t rank)
{
	return rank == 1 || rank == 4 || rank == 5;
}

static int setup(void **state)
{
	(void)state;
	base = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(base, MAP_FAILED);
	memset(&pool, 0, sizeof(pool));
	memset(fakes, 0, sizeof(fakes));
	strcpy(pool.name, "bm/1");
	pool.config.world = SLOTS;
	pool.config.rank = OWN;
	pool.window[POOL_DRAM].base = base;
	pool.window[POOL_DRAM].size = SIZE;
	pool.window[POOL_DRAM].len = LEN;
	pool.peers = peers;
	atomic_store(&pool.joined, true);
	for (uint32_t i = 0; i < SLOTS; i++) {
		memset(&peers[i], 0, sizeof(peers[i]));
		peers[i].rank = i;
		fakes[i].base.ops = &fake_ops;
		fakes[i].rank = i;
		atomic_store(&peers[i].state, PEER_MEMBER);
		atomic_store(&peers[i].mapped, !is_remote(i));
		peers[i].path.ep = is_remote(i) ? &fakes[i].base : NULL;
		if (is_remote(i))
			assert_int_equal(mprotect(base + i * SIZE, SIZE, PROT_NONE), 0);
	}
	fake_result = SMEM_OK;
	fake_calls = 0;
	dies_in_put = NULL;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	return munmap(base, LEN);
}

static void compare(const char *ref)
{
	for (uint32_t i = 0; i < SLOTS; i++)
		assert_memory_equal(is_remote(i) ? fakes[i].memory : base + i * SIZE,
				    ref + i * SIZE, SIZE);
}

static uint32_t rnd_state = 12345;

static uint32_t rnd(uint32_t below)
{
	rnd_state = rnd_state * 1664525u + 1013904223u;
	return (rnd_state >> 8) % below;
}

struct shape {
	size_t width, height, gpitch, lpitch, offset;
};

static struct shape draw_shape(void)
{
	struct shape s = {.width = 1 + rnd(rnd(2) ? 100 : 6000), .height = 1 + rnd(20)};

	s.gpitch = s.width + (rnd(2) ? rnd(3000) : rnd(3 * SIZE));
	s.lpitch = s.width + rnd(50);
	while (s.height > 1 && s.gpitch * (s.height - 1) + s.width > LEN)
		s.height--;
	if (s.width > LEN)
		s.width = LEN;
	s.offset = rnd((uint32_t)(LEN - (s.gpitch * (s.height - 1) + s.width) + 1));
	return s;
}

static void random_shapes(void **state)
{
	static char ref[LEN], local[20 * 6100], before[20 * 6100];

	(void)state;
	for (int round = 0; round < 3000; round++) {
		struct shape s = draw_shape();
		bool put = rnd(2);
		for (size_t i = 0; i < sizeof(local); i++)
			local[i] = (char)(rnd_state + i * 7);
		memcpy(before, local, sizeof(local));
		struct smem_xfer x = {.dst = put ? base + s.offset : local,
				      .src = put ? local : base + s.offset,
				      .dpitch = put ? s.gpitch : s.lpitch,
				      .spitch = put ? s.lpitch : s.gpitch,
				      .width = s.width,
				      .height = s.height};
		assert_int_equal(copy_run(&pool, put ? COPY_TO_GLOBAL : COPY_FROM_GLOBAL, &x, 1),
				 0);
		for (size_t i = 0; i < s.height; i++) {
			char *g = ref + s.offset + i * s.gpitch, *l = before + i * s.lpitch;
			memcpy(put ? g : l, put ? l : g, s.width);
		}
		assert_memory_equal(local, before, sizeof(local));
		compare(ref);
	}
	assert_true(fake_calls > 100);
}

static int32_t put(size_t offset, size_t n)
{
	static char local[LEN];
	struct smem_xfer x = {.dst = base + offset, .src = local, .width = n, .height = 1};

	return copy_run(&pool, COPY_TO_GLOBAL, &x, 1);
}

static void states(void **state)
{
	static const struct {
		enum peer_state state;
		int32_t code;
	} rows[] = {{PEER_NONE, SMEM_NOT_STARTED},
		    {PEER_JOINING, SMEM_NOT_STARTED},
		    {PEER_LEFT, SMEM_NOT_STARTED},
		    {PEER_LOST, SMEM_PEER_LOST},
		    {PEER_MEMBER, SMEM_OK}};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		atomic_store(&peers[6].state, rows[i].state);
		assert_int_equal(put(6 * SIZE, 1), rows[i].code);
		assert_int_equal(put(6 * SIZE - 1, 2), rows[i].code);
		assert_int_equal(put(7 * SIZE - 1, 2), rows[i].code);
		assert_int_equal(put(0, LEN), rows[i].code);
		assert_int_equal(put(7 * SIZE, SIZE), 0);
		assert_int_equal(put(6 * SIZE - 1, 1), 0);
	}
	atomic_store(&pool.joined, false);
	assert_int_equal(put(OWN * SIZE, SIZE), 0);
	assert_int_equal(put(OWN * SIZE, SIZE + 1), SMEM_NOT_STARTED);
	assert_int_equal(put(0, 1), SMEM_NOT_STARTED);
}

/* All is checked before the first byte, over all pieces of a batch. */
static void nothing_written(void **state)
{
	char local[8] = "abcdefg";
	struct smem_xfer x[2] = {{.dst = base, .src = local, .width = 8, .height = 1},
				 {.dst = base + LEN - 7, .src = local, .width = 8, .height = 1}};

	(void)state;
	assert_int_equal(copy_run(&pool, COPY_TO_GLOBAL, x, 2), SMEM_INVALID_PARAM);
	assert_int_equal(base[0], 0);
	atomic_store(&peers[7].state, PEER_LEFT);
	x[1].dst = base + 7 * SIZE;
	assert_int_equal(copy_run(&pool, COPY_TO_GLOBAL, x, 2), SMEM_NOT_STARTED);
	assert_int_equal(base[0], 0);
}

/* Rows over slots that must not be touched. */
static void gaps(void **state)
{
	char local[64] = {0};
	struct smem_xfer x = {.dst = base + 10,
			      .src = local,
			      .dpitch = 6 * SIZE,
			      .spitch = 8,
			      .width = 8,
			      .height = 2};

	(void)state;
	for (uint32_t i = 1; i < 6; i++)
		atomic_store(&peers[i].state, PEER_LOST);
	assert_int_equal(copy_run(&pool, COPY_TO_GLOBAL, &x, 1), 0);
	x.dpitch = 5 * SIZE;
	assert_int_equal(copy_run(&pool, COPY_TO_GLOBAL, &x, 1), SMEM_PEER_LOST);
}

static void failing_path(void **state)
{
	(void)state;
	fake_result = SMEM_UNREACHABLE;
	assert_int_equal(put(4 * SIZE, 8), SMEM_UNREACHABLE);
	assert_int_equal(put(0, SIZE), 0);
	assert_int_equal(put(0, LEN), SMEM_UNREACHABLE);
}

static void lost_meanwhile(void **state)
{
	(void)state;
	dies_in_put = &peers[4];
	assert_int_equal(put(4 * SIZE, 8), SMEM_PEER_LOST);
	atomic_store(&peers[4].state, PEER_MEMBER);
	dies_in_put = &peers[6]; /* not one of those touched */
	assert_int_equal(put(4 * SIZE, 8), 0);
}

/* Slots as the local side: only what is mapped. */
static void local_side(void **state)
{
	struct smem_xfer x = {.dst = base, .src = base + 2 * SIZE, .width = SIZE, .height = 1};

	(void)state;
	memset(base + 2 * SIZE, 'x', SIZE);
	assert_int_equal(copy_run(&pool, COPY_TO_GLOBAL, &x, 1), 0);
	assert_int_equal(base[SIZE - 1], 'x');
	x.src = base + 4 * SIZE;
	assert_int_equal(copy_run(&pool, COPY_TO_GLOBAL, &x, 1), SMEM_INVALID_PARAM);
	x.src = base + 4 * SIZE - 1;
	x.width = 2;
	assert_int_equal(copy_run(&pool, COPY_TO_GLOBAL, &x, 1), SMEM_INVALID_PARAM);
	/* a lost one's memory is memory still */
	atomic_store(&peers[2].state, PEER_LOST);
	x.src = base + 2 * SIZE;
	assert_int_equal(copy_run(&pool, COPY_TO_GLOBAL, &x, 1), 0);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
	    TEST(random_shapes), TEST(states),	       TEST(nothing_written), TEST(gaps),
	    TEST(failing_path),	 TEST(lost_meanwhile), TEST(local_side),
	};

	return cmocka_run_group_tests_name("copy", tests, NULL, NULL);
}
