/* SPDX-License-Identifier: Apache-2.0 */
/* What every device promises, by one list of cases over device_ops. A device is a row of `devices`.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "device/crew.h"
#include "device/device.h"
#include "device/pieces.h"
#include "device/stream.h"
#include "smem.h"
#include "util/limits.h"

#define SIZE ((size_t)(4 * SLOT_ALIGN))

static const struct device_ops *const devices[] = {&device_host};

static const struct device_ops *dev(void **state)
{
	return *(const struct device_ops *const *)*state;
}

static char *reserve(size_t size)
{
	char *p = mmap(NULL, size + SLOT_ALIGN, PROT_NONE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	assert_true(p != MAP_FAILED);
	return p;
}

static char *align_up(char *p)
{
	return p + (-(uintptr_t)p & (SLOT_ALIGN - 1));
}

static uint64_t random_next(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	return *s ^= *s << 17;
}

static void fill(char *p, size_t len, uint64_t seed)
{
	for (size_t i = 0; i + 8 <= len; i += 8) {
		uint64_t v = random_next(&seed);
		memcpy(p + i, &v, 8);
	}
}

static void test_alloc_is_zero(void **state)
{
	const struct device_ops *d = dev(state);
	char *whole = reserve(SIZE), *at = align_up(whole);
	struct device_mem mem;

	for (int round = 0; round < 2; round++) { /* memory comes back dirty if at all */
		assert_int_equal(d->alloc(SIZE, &mem), SMEM_OK);
		assert_int_equal(mem.size, SIZE);
		assert_int_equal(d->map(&mem, at, round == 1), SMEM_OK);
		for (size_t i = 0; i < SIZE; i += 8)
			assert_true(*(uint64_t *)(at + i) == 0);
		memset(at, 0xff, SIZE);
		d->unmap(at, SIZE);
		d->free(&mem);
		d->free(&mem);
	}
	munmap(whole, SIZE + SLOT_ALIGN);
}

/* Two mappings, and a mapping that outlives the descriptor. */
static void test_two_mappings(void **state)
{
	const struct device_ops *d = dev(state);
	char *whole = reserve(3 * SIZE), *a = align_up(whole), *b = a + SIZE;
	struct device_mem mem;

	assert_int_equal(d->alloc(SIZE, &mem), SMEM_OK);
	assert_int_equal(d->map(&mem, a, true), SMEM_OK);
	assert_int_equal(d->map(&mem, b, false), SMEM_OK);
	d->free(&mem);
	strcpy(a + 12345, "seen");
	assert_string_equal(b + 12345, "seen");
	d->unmap(a, SIZE);
	assert_string_equal(b + 12345, "seen");
	assert_int_equal(msync(a, SIZE, MS_ASYNC), 0); /* reserved still */
	d->unmap(b, SIZE);
	munmap(whole, 3 * SIZE + SLOT_ALIGN);
}

static void test_too_much(void **state)
{
	const struct device_ops *d = dev(state);
	struct device_mem mem = {.fd = -1};

	assert_int_equal(d->alloc((size_t)1 << 46, &mem), SMEM_MALLOC_FAILED);
	assert_int_equal(mem.fd, -1);
}

/* ---- copies */

#define AREA (1u << 20)
static char *src, *dst, *want;

static void areas_make(size_t size)
{
	src = malloc(size);
	dst = malloc(size);
	want = malloc(size);
	assert_true(src && dst && want);
	fill(src, size, 1);
	fill(dst, size, 2);
	memcpy(want, dst, size);
}

static void areas_free(void)
{
	free(src);
	free(dst);
	free(want);
}

/* Every length to 600 and those around what copy engines care for, at every alignment that matters.
 */
static void test_copy_sizes(void **state)
{
	const struct device_ops *d = dev(state);
	static const size_t around[] = {1024,  4096,   8192,   16384, 32768,
					65536, 131072, 262144, 524288};
	static const size_t offs[] = {0, 1, 7, 8, 15, 16, 31, 32, 33, 63};
	size_t lens[600 + 9 * 5], n = 0;

	for (size_t i = 1; i <= 600; i++)
		lens[n++] = i;
	for (size_t i = 0; i < 9; i++) {
		for (size_t k = 0; k < 5; k++)
			lens[n++] = around[i] - 65 + k * 33;
	}
	areas_make(AREA);
	for (size_t i = 0; i < n; i++) {
		for (size_t k = 0; k<100; k += lens[i]> 600 ? 7 : 1) {
			size_t s = offs[k / 10], t = 64 + offs[k % 10], len = lens[i];
			struct smem_xfer x = {
			    .dst = dst + t, .src = src + s, .width = len, .height = 1};
			d->copy(&x, 1);
			memcpy(want + t, src + s, len);
			assert_memory_equal(dst, want, t + len + 128);
		}
		fill(dst, lens[i] + 256, i);
		memcpy(want, dst, lens[i] + 256);
	}
	areas_free();
}

/* Each kind of streaming that this CPU has, by itself. */
static void test_stream_kinds(void **state)
{
	const char *name;
	stream_fn fn, last = NULL;

	(void)state;
	areas_make(AREA);
	for (size_t i = 0; (fn = stream_kind(i, &name)); i++) {
		if (fn == last)
			continue;
		last = fn;
		print_message("# %s\n", name);
		for (size_t len = 0; len < 1500; len++) {
			size_t s = len % 67, t = 64 + len % 61;
			fn(dst + t, src + s, len);
			stream_fence();
			memcpy(want + t, src + s, len);
			assert_memory_equal(dst, want, t + len + 128);
		}
	}
	areas_free();
}

static void apply(const struct smem_xfer *x, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		for (size_t row = 0; row < x[i].height; row++)
			memcpy(want + ((char *)x[i].dst - dst) + row * x[i].dpitch,
			       (const char *)x[i].src + row * x[i].spitch, x[i].width);
	}
}

#define BATCH 40

static size_t random_batch(uint64_t *seed, struct smem_xfer x[BATCH], size_t area)
{
	size_t n = 1 + random_next(seed) % BATCH, share = area / n;

	for (size_t i = 0; i < n; i++) {
		size_t rows = 1 + random_next(seed) % 9;
		size_t width = 1 + random_next(seed) % (share / rows / 2 + 1);
		size_t dpitch = width + random_next(seed) % 2 * (random_next(seed) % width);
		size_t spitch = width + random_next(seed) % 2 * (random_next(seed) % width);
		size_t dspan = (rows - 1) * dpitch + width, sspan = (rows - 1) * spitch + width;
		if (dspan > share || sspan > area) {
			rows = 1;
			dspan = sspan = width = width < share ? width : share;
		}
		x[i] = (struct smem_xfer){.dst = dst + i * share +
						 random_next(seed) % (share - dspan + 1),
					  .src = src + random_next(seed) % (area - sspan + 1),
					  .dpitch = rows > 1 ? dpitch : 12345, /* must not count */
					  .spitch = rows > 1 ? spitch : 0,
					  .width = width,
					  .height = rows};
	}
	return n;
}

static void random_rounds(const struct device_ops *d, size_t area, int rounds)
{
	struct smem_xfer x[BATCH];
	uint64_t seed = 88172645463325252ull;

	areas_make(area);
	for (int i = 0; i < rounds; i++) {
		size_t n = random_batch(&seed, x, area);
		d->copy(x, n);
		apply(x, n);
		assert_memory_equal(dst, want, area);
	}
	areas_free();
}

static void test_copy_batches(void **state)
{
	random_rounds(dev(state), 65536, 300);
	random_rounds(dev(state), AREA, 100);
}

/* Large enough for helpers, if CPUs are idle; with and without them. */
static void test_copy_large(void **state)
{
	random_rounds(dev(state), 24 << 20, 8);
	crew_get();
	random_rounds(dev(state), 24 << 20, 12);
	crew_put();
}

struct worker {
	const struct device_ops *d;
	char *from, *to;
	size_t len;
};

static void *copy_often(void *arg)
{
	struct worker *w = arg;
	struct smem_xfer x = {.dst = w->to, .src = w->from, .width = w->len, .height = 1};

	for (int i = 0; i < 10; i++)
		w->d->copy(&x, 1);
	return NULL;
}

static void test_copy_threads(void **state)
{
	struct worker w[4];
	pthread_t tid[4];
	size_t area = 32 << 20;

	areas_make(area);
	crew_get();
	for (size_t i = 0; i < 4; i++) {
		w[i] =
		    (struct worker){dev(state), src + i * area / 4, dst + i * area / 4, area / 4};
		assert_int_equal(pthread_create(&tid[i], NULL, copy_often, &w[i]), 0);
	}
	for (int i = 0; i < 4; i++)
		pthread_join(tid[i], NULL);
	crew_put();
	assert_memory_equal(dst, src, area);
	areas_free();
}

int main(void)
{
	static void *rows[sizeof(devices) / sizeof(devices[0])];
	int failed = 0;

	for (size_t i = 0; i < sizeof(devices) / sizeof(devices[0]); i++) {
		rows[i] = (void *)&devices[i];
		const struct CMUnitTest tests[] = {
		    cmocka_unit_test_prestate(test_alloc_is_zero, rows[i]),
		    cmocka_unit_test_prestate(test_two_mappings, rows[i]),
		    cmocka_unit_test_prestate(test_too_much, rows[i]),
		    cmocka_unit_test_prestate(test_copy_sizes, rows[i]),
		    cmocka_unit_test_prestate(test_stream_kinds, rows[i]),
		    cmocka_unit_test_prestate(test_copy_batches, rows[i]),
		    cmocka_unit_test_prestate(test_copy_large, rows[i]),
		    cmocka_unit_test_prestate(test_copy_threads, rows[i]),
		};
		failed += cmocka_run_group_tests_name(devices[i]->name, tests, NULL, NULL);
	}
	return failed;
}
