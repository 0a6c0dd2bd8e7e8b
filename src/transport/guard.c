/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The address is drawn here, not left to the kernel: processes forked from one parent have the same
 * layout, and the kernel would give them the same free place. It is drawn from where nothing lies,
 * beside the arenas of core/arena.c; the second range is for the thread sanitizer, which allows no
 * other.
 */
#include "transport/guard.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "util/cleanup.h"
#include "util/err.h"
#include "util/fork.h"
#include "util/rng.h"

#define DRAWS 8 /* a range */

static const struct {
	uint64_t begin;
	uint64_t len;
} ranges[] = {
    {0x380000000000, 0x080000000000}, /* 8 TiB: 2^31 pages */
    {0x7ec000000000, 0x002000000000},
    {0x5000000000, 0x500000000}, /* 39-bit address spaces */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned refs;
static void *page;
static struct guard_addr own;

static void *map_random(size_t size)
{
	for (size_t r = 0; r < sizeof(ranges) / sizeof(ranges[0]); r++) {
		for (int i = 0; i < DRAWS; i++) {
			uint64_t slot = rng_u64() % (ranges[r].len / size);
			void *want = (void *)(uintptr_t)(ranges[r].begin + slot * size);
			/* A hint: where it is refused the page comes to lie elsewhere, and goes. */
			void *at = mmap(want, size, PROT_READ | PROT_WRITE,
					MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
			if (at == want)
				return at;
			if (at != MAP_FAILED)
				munmap(at, size);
		}
	}
	return MAP_FAILED;
}

static int32_t make(void)
{
	size_t size = (size_t)sysconf(_SC_PAGESIZE);
	int32_t r = rng_bytes(own.cookie, sizeof(own.cookie));

	if (r != SMEM_OK)
		return r;
	void *at = map_random(size);
	if (at == MAP_FAILED)
		return smem_errno(SMEM_MALLOC_FAILED, errno, "guard page");
	if (madvise(at, size, MADV_DONTFORK) != 0) {
		int err = errno;
		munmap(at, size);
		return smem_errno(SMEM_MALLOC_FAILED, err, "guard page");
	}
	memcpy(at, own.cookie, sizeof(own.cookie));
	page = at;
	own.addr = (uint64_t)(uintptr_t)at;
	return SMEM_OK;
}

int32_t guard_get(void)
{
	LOCKED(&lock);
	int32_t r = refs == 0 ? make() : SMEM_OK;
	if (r == SMEM_OK)
		refs++;
	return r;
}

void guard_put(void)
{
	LOCKED(&lock);
	if (refs == 0 || --refs > 0)
		return;
	munmap(page, (size_t)sysconf(_SC_PAGESIZE));
	page = NULL;
}

void guard_own(struct guard_addr *ret)
{
	LOCKED(&lock);
	*ret = own;
}

static void fork_child(void)
{
	refs = 0;
	page = NULL;
	pthread_mutex_init(&lock, NULL);
}

static const struct fork_hooks hooks = {
    .order = FORK_ORDER_DEVICE,
    .child = fork_child,
};
FORK_HOOKS(hooks)
