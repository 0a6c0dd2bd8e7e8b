/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cache of local registrations over a domain that only counts. No hardware that wants such
 * registrations is needed to know what is registered when, and what is let go.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <rdma/fabric.h>

#include "smem.h"
#include "transport/ofi_local.h"
#include "util/limits.h"

#define BASE	 0x100000000000ull
#define MIB	 (1ull << 20)
#define FAKE_MAX 256

static struct {
	struct ofi_span region[2];
	unsigned regions;
	struct {
		uint64_t begin, end, access;
		bool open;
	} mr[FAKE_MAX];
	unsigned opened, closed;
	size_t limit; /* larger ones fail */
} fake;

static int32_t fake_open(void *arg, void *addr, size_t len, uint64_t access, void **ret_mr,
			 void **ret_desc)
{
	uint64_t begin = (uint64_t)(uintptr_t)addr;

	assert_ptr_equal(arg, &fake);
	if (fake.limit && len > fake.limit)
		return SMEM_MALLOC_FAILED;
	assert_true(fake.opened < FAKE_MAX);
	fake.mr[fake.opened].begin = begin;
	fake.mr[fake.opened].end = begin + len;
	fake.mr[fake.opened].access = access;
	fake.mr[fake.opened].open = true;
	*ret_mr = &fake.mr[fake.opened++];
	*ret_desc = (char *)*ret_mr + 1;
	return SMEM_OK;
}

static void fake_close(void *arg, void *mr)
{
	assert_ptr_equal(arg, &fake);
	for (unsigned i = 0; i < fake.opened; i++) {
		if (mr == &fake.mr[i]) {
			assert_true(fake.mr[i].open);
			fake.mr[i].open = false;
			fake.closed++;
			return;
		}
	}
	fail();
}

static bool fake_region(uint64_t addr, size_t len, struct ofi_span *ret)
{
	for (unsigned i = 0; i < fake.regions; i++) {
		if (fake.region[i].begin <= addr && addr + len <= fake.region[i].end) {
			*ret = fake.region[i];
			return true;
		}
	}
	return false;
}

static const struct ofi_local_ops ops = {fake_open, fake_close, fake_region};
static struct ofi_local cache;

static int up(void **state)
{
	(void)state;
	memset(&fake, 0, sizeof(fake));
	fake.region[0] =
	    (struct ofi_span){.id = 1, .begin = BASE, .end = BASE + 64 * MIB, .writable = true};
	fake.regions = 1;
	ofi_local_init(&cache);
	ofi_local_start(&cache, &ops, &fake);
	return 0;
}

static int down(void **state)
{
	(void)state;
	ofi_local_stop(&cache);
	ofi_local_stop(&cache);
	ofi_local_destroy(&cache);
	return fake.opened == fake.closed ? 0 : -1;
}

static struct ofi_local_reg *get(uint64_t at, size_t len, uint64_t access)
{
	struct ofi_local_reg *reg = NULL;

	ofi_local_enter(&cache);
	int32_t r = ofi_local_get(&cache, (void *)(uintptr_t)at, len, access, &reg);
	ofi_local_leave(&cache);
	if (r != SMEM_OK)
		return NULL;
	assert_true(reg->begin <= at && at + len <= reg->end);
	assert_ptr_equal(reg->desc, (char *)reg->mr + 1);
	return reg;
}

static void put(struct ofi_local_reg *reg)
{
	ofi_local_enter(&cache);
	ofi_local_put(&cache, reg);
	ofi_local_leave(&cache);
}

static void touch(uint64_t at, size_t len, uint64_t access)
{
	struct ofi_local_reg *reg = get(at, len, access);

	assert_non_null(reg);
	put(reg);
}

static void a_region_is_registered_once(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 64; i++)
		touch(BASE + i * MIB, MIB, i % 2 ? FI_READ : FI_WRITE);
	assert_int_equal(fake.opened, 1);
	assert_int_equal(fake.closed, 0);
	assert_true(fake.mr[0].begin == BASE && fake.mr[0].end == BASE + 64 * MIB);
}

static void other_memory_is_never_kept(void **state)
{
	(void)state;
	for (unsigned i = 1; i <= 5; i++) {
		touch(BASE + 64 * MIB, MIB, FI_WRITE);	   /* behind it */
		touch(BASE + 63 * MIB, MIB + 1, FI_WRITE); /* across its end */
		touch(BASE - MIB, 2 * MIB, FI_READ);	   /* across its beginning */
		assert_int_equal(fake.opened, 3 * i);
		assert_int_equal(fake.closed, 3 * i);
	}
	assert_int_equal(fake.mr[0].access, FI_WRITE);
	assert_int_equal(fake.mr[2].access, FI_READ);
}

static void withdrawn_goes_at_once(void **state)
{
	(void)state;
	touch(BASE, MIB, FI_WRITE);
	ofi_local_withdraw(2);
	assert_int_equal(fake.closed, 0);
	fake.regions = 0;
	ofi_local_withdraw(1);
	assert_int_equal(fake.closed, 1);
	touch(BASE, MIB, FI_WRITE); /* for one operation, now */
	assert_int_equal(fake.opened, 2);
	assert_int_equal(fake.closed, 2);
}

/* The same addresses under another number are other memory. */
static void a_new_life_is_registered_anew(void **state)
{
	(void)state;
	touch(BASE, MIB, FI_WRITE);
	ofi_local_withdraw(1);
	fake.region[0].id = 7;
	touch(BASE, MIB, FI_WRITE);
	touch(BASE + MIB, MIB, FI_WRITE);
	assert_int_equal(fake.opened, 2);
	ofi_local_withdraw(7);
	assert_int_equal(fake.closed, 2);
}

static void in_flight_ends_first(void **state)
{
	struct ofi_local_reg *a, *b;

	(void)state;
	a = get(BASE, MIB, FI_WRITE);
	b = get(BASE + MIB, MIB, FI_WRITE);
	assert_ptr_equal(a, b);
	fake.regions = 0;
	ofi_local_withdraw(1);
	assert_int_equal(fake.closed, 0);
	put(a);
	assert_int_equal(fake.closed, 0);
	touch(BASE, MIB, FI_WRITE); /* finds the old one no more */
	assert_int_equal(fake.opened, 2);
	assert_int_equal(fake.closed, 1);
	put(b);
	assert_int_equal(fake.closed, 2);
}

/* A region that peers may only read may be memory that nobody can write. */
static void readonly_is_a_source_only(void **state)
{
	(void)state;
	fake.region[0].writable = false;
	touch(BASE, MIB, FI_WRITE);
	touch(BASE + MIB, MIB, FI_WRITE);
	assert_int_equal(fake.opened, 1);
	assert_int_equal(fake.mr[0].access, FI_WRITE);
	touch(BASE, MIB, FI_READ);
	assert_int_equal(fake.opened, 2);
	assert_int_equal(fake.closed, 1);
}

static void large_ones_in_stretches(void **state)
{
	(void)state;
	fake.region[0].end = BASE + 2 * OFI_LOCAL_SPAN + MIB;
	touch(BASE + 2 * OFI_LOCAL_SPAN, MIB, FI_WRITE); /* the rest behind two */
	assert_true(fake.mr[0].begin == BASE + 2 * OFI_LOCAL_SPAN);
	assert_true(fake.mr[0].end == BASE + 2 * OFI_LOCAL_SPAN + MIB);
	touch(BASE + OFI_LOCAL_SPAN - 1, 1, FI_WRITE);
	touch(BASE, 1, FI_WRITE);
	assert_int_equal(fake.opened, 2);
	touch(BASE + OFI_LOCAL_SPAN - 1, 2, FI_WRITE); /* across: for itself */
	assert_int_equal(fake.opened, 3);
	assert_int_equal(fake.closed, 1);
	ofi_local_withdraw(1);
	assert_int_equal(fake.closed, 3);
}

/* More stretches than are kept: the one not used for longest goes, and none that is in use. */
static void bounded_by_number(void **state)
{
	struct ofi_local_reg *held[OFI_LOCAL_REGS];

	(void)state;
	_Static_assert(OFI_LOCAL_REGS * OFI_LOCAL_SPAN >= OFI_LOCAL_BYTES, "bytes are tested so");
	fake.region[0].end = BASE + (OFI_LOCAL_REGS + 1) * OFI_LOCAL_SPAN;
	unsigned n = 0;
	for (; (n + 1) * OFI_LOCAL_SPAN <= OFI_LOCAL_BYTES && n < OFI_LOCAL_REGS; n++)
		touch(BASE + n * OFI_LOCAL_SPAN, 1, FI_WRITE);
	assert_int_equal(fake.closed, 0);
	touch(BASE, 1, FI_WRITE); /* so the second is the oldest */
	touch(BASE + n * OFI_LOCAL_SPAN, 1, FI_WRITE);
	assert_int_equal(fake.opened, n + 1);
	assert_int_equal(fake.closed, 1);
	assert_true(fake.mr[0].open);
	assert_false(fake.mr[1].open);
	ofi_local_withdraw(1);
	for (unsigned i = 0; i < n; i++)
		held[i] = get(BASE + i * OFI_LOCAL_SPAN, 1, FI_WRITE);
	unsigned opened = fake.opened, closed = fake.closed;
	touch(BASE + n * OFI_LOCAL_SPAN, 1, FI_WRITE); /* no room: for one operation */
	assert_int_equal(fake.opened, opened + 1);
	assert_int_equal(fake.closed, closed + 1);
	for (unsigned i = 0; i < n; i++)
		put(held[i]);
}

/* Small regions, so that the number is what ends first. */
static void bounded_by_count(void **state)
{
	(void)state;
	for (unsigned i = 0; i <= OFI_LOCAL_REGS; i++) {
		fake.region[0] = (struct ofi_span){.id = 100 + i,
						   .begin = BASE + i * MIB,
						   .end = BASE + (i + 1) * MIB,
						   .writable = true};
		touch(BASE + i * MIB, MIB, FI_WRITE);
	}
	assert_int_equal(fake.opened, OFI_LOCAL_REGS + 1);
	assert_int_equal(fake.closed, 1);
	assert_false(fake.mr[0].open);
}

static void what_cannot_be_pinned_whole(void **state)
{
	(void)state;
	fake.limit = 2 * MIB;
	touch(BASE, MIB, FI_WRITE);
	assert_int_equal(fake.opened, 1);
	assert_int_equal(fake.closed, 1);
	assert_null(get(BASE, 3 * MIB, FI_WRITE));
	assert_int_equal(fake.opened, 1);
}

static void off_is_free(void **state)
{
	struct ofi_local none;

	(void)state;
	ofi_local_init(&none);
	ofi_local_enter(&none);
	assert_int_equal(pthread_mutex_trylock(&none.lock), 0);
	pthread_mutex_unlock(&none.lock);
	ofi_local_leave(&none);
	ofi_local_destroy(&none);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(a_region_is_registered_once, up, down),
	    cmocka_unit_test_setup_teardown(other_memory_is_never_kept, up, down),
	    cmocka_unit_test_setup_teardown(withdrawn_goes_at_once, up, down),
	    cmocka_unit_test_setup_teardown(a_new_life_is_registered_anew, up, down),
	    cmocka_unit_test_setup_teardown(in_flight_ends_first, up, down),
	    cmocka_unit_test_setup_teardown(readonly_is_a_source_only, up, down),
	    cmocka_unit_test_setup_teardown(large_ones_in_stretches, up, down),
	    cmocka_unit_test_setup_teardown(bounded_by_number, up, down),
	    cmocka_unit_test_setup_teardown(bounded_by_count, up, down),
	    cmocka_unit_test_setup_teardown(what_cannot_be_pinned_whole, up, down),
	    cmocka_unit_test(off_is_free),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
