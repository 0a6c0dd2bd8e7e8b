/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Candidates are where nothing else is. Linux on 64-bit machines puts a program near the bottom
 * (fixed) or at two thirds of its address space (position-independent: 0x5555.., heap behind it),
 * and mmap() grows down from the top by up to 2^28 or 2^32 random pages. What the rest must avoid:
 *
 *   ASan x86-64      shadow up to 0x10007fff8000, its heap at 0x600000000000..0x640000000000
 *   TSan x86-64      uses and polices nearly everything: programs may map below 0x8000000000, from
 *                    0x550000000000 (a program is mapped at 0x555555554000) and from 0x7e8000000000
 *   valgrind         keeps a note for every 64 KiB, a cheap one only below 128 GiB; its upper half
 * is its own 39-bit kernels   below 512 GiB (some arm64), program at 0x5555555000, mmap down from
 * the top
 *
 * so the wide ranges come first and three narrow ones follow. Each is reserved in chunks: what sits
 * in one costs that chunk only. Neighbouring chunks are one range again, so that an object may span
 * them.
 *
 * A reservation is PROT_NONE memory that is not accounted and not inherited. It counts against
 * RLIMIT_AS, though; where that is set, half of what is left is reserved at most, in smaller
 * chunks.
 */
#include "core/arena.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "util/cleanup.h"
#include "util/err.h"
#include "util/fork.h"
#include "util/log.h"

#define GIB 0x40000000ull
#define TIB 0x10000000000ull

/* A kernel before 4.17 takes the flag for a hint, which does as well: the result is looked at. */
#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

struct candidate {
	uint64_t begin;
	uint64_t len;
	uint64_t chunk;
};

/* Asked for what it polices, it lets the kernel choose, and dies of the kernel's choice. */
#if defined(__SANITIZE_THREAD__)
#define TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define TSAN 1
#endif
#endif

static const struct candidate candidates[] = {
#ifndef TSAN
    {0x280000000000, 16 * TIB, 4 * TIB}, /* beyond ASan's shadow */
    {0x400000000000, 16 * TIB, 4 * TIB}, /* in case something has taken the first */
    {0x180000000000, 16 * TIB, 4 * TIB}, /* the same, below */
#endif
    {0x7e8000000000, 256 * GIB, 64 * GIB}, /* TSan's modules */
    {0x550000000000, 256 * GIB, 64 * GIB}, /* TSan's programs */
    {0x1000000000, 256 * GIB, 64 * GIB},   /* 39-bit kernels, TSan's low programs */
    {0x400000000, 32 * GIB, 16 * GIB},	   /* valgrind; the last one */
};
#define CANDIDATES (sizeof(candidates) / sizeof(candidates[0]))

#define CHUNK_MIN GIB /* no chunk is halved below this */

struct part {
	uint64_t owner;
	uint64_t begin;
	uint64_t end;
	struct part *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned refs;
static struct arena_range ranges[ARENA_MAX];
static uint32_t range_count;
static struct part *parts; /* in use; few */

static int reserve_chunk(uint64_t begin, uint64_t len)
{
	void *want = (void *)(uintptr_t)begin;
	void *at = mmap(want, len, PROT_NONE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);

	if (at == MAP_FAILED)
		return errno;
	if (at != want) {
		munmap(at, len);
		return EEXIST;
	}
	madvise(at, len, MADV_DONTFORK);
	madvise(at, len, MADV_DONTDUMP);
	return 0;
}

/* False when the table is full. */
static bool range_add(uint64_t begin, uint64_t len)
{
	struct arena_range *last = range_count ? &ranges[range_count - 1] : NULL;

	if (last && last->end == begin) {
		last->end += len;
		return true;
	}
	if (range_count == ARENA_MAX)
		return false;
	ranges[range_count++] = (struct arena_range){begin, begin + len};
	return true;
}

/* How much address space may be reserved: all, or half of what RLIMIT_AS leaves. */
static uint64_t budget_read(void)
{
	struct rlimit lim;
	uint64_t pages = 0;

	if (getrlimit(RLIMIT_AS, &lim) != 0 || lim.rlim_cur == RLIM_INFINITY)
		return UINT64_MAX;
	FILE *f = fopen("/proc/self/statm", "re");
	if (f) {
		if (fscanf(f, "%lu", &pages) != 1)
			pages = 0;
		fclose(f);
	}
	uint64_t used = pages * (uint64_t)sysconf(_SC_PAGESIZE);
	return lim.rlim_cur > used ? (lim.rlim_cur - used) / 2 : 0;
}

/* Reserve what can be had of [begin, begin + len), whole chunks; smaller ones when they are too big
 * for the budget or the kernel. Returns the last errno. */
static int reserve(const struct candidate *c, uint64_t *budget)
{
	uint64_t chunk = c->chunk;
	int err = 0;

	for (uint64_t off = 0; off < c->len;) {
		while (chunk > *budget && chunk > CHUNK_MIN)
			chunk /= 2;
		if (chunk > *budget)
			return ENOMEM;
		err = reserve_chunk(c->begin + off, chunk);
		if (err == ENOMEM && chunk > CHUNK_MIN) {
			chunk /= 2;
			continue;
		}
		if (err == 0 && !range_add(c->begin + off, chunk)) {
			munmap((void *)(uintptr_t)(c->begin + off), chunk);
			return ENOMEM;
		}
		if (err == 0)
			*budget -= *budget == UINT64_MAX ? 0 : chunk;
		if (err == ENOMEM)
			return err;
		off += chunk;
	}
	return err;
}

/* It preloads its own library into every program. */
static bool under_valgrind(void)
{
	const char *preload = getenv("LD_PRELOAD");

	return preload && strstr(preload, "/vgpreload_");
}

int32_t arena_get(void)
{
	int err = 0;

	LOCKED(&lock);
	if (refs == 0) {
		uint64_t budget = budget_read();
		for (size_t i = under_valgrind() ? CANDIDATES - 1 : 0; i < CANDIDATES; i++) {
			int e = reserve(&candidates[i], &budget);
			err = err ? err : e;
		}
		if (range_count == 0)
			return smem_errno(
			    SMEM_MALLOC_FAILED, err,
			    "none of %zu address ranges can be reserved, the first is "
			    "[0x%llx, +0x%llx)",
			    CANDIDATES, (unsigned long long)candidates[0].begin,
			    (unsigned long long)candidates[0].len);
	}
	refs++;
	return SMEM_OK;
}

void arena_put(void)
{
	LOCKED(&lock);
	if (refs == 0 || --refs > 0)
		return;
	if (parts)
		LOG_WARN("arena", "address range at 0x%llx is still in use",
			 (unsigned long long)parts->begin);
	for (uint32_t i = 0; i < range_count; i++)
		munmap((void *)(uintptr_t)ranges[i].begin, ranges[i].end - ranges[i].begin);
	range_count = 0;
}

/* The lowest foreign part that touches [begin, end); NULL when there is none. */
static const struct part *first_foreign(uint64_t owner, uint64_t begin, uint64_t end)
{
	const struct part *first = NULL;

	for (const struct part *p = parts; p; p = p->next) {
		if (p->owner != owner && p->begin < end && p->end > begin &&
		    (!first || p->begin < first->begin))
			first = p;
	}
	return first;
}

uint32_t arena_usable(uint64_t owner, struct arena_range *ret, uint32_t max)
{
	uint32_t n = 0;

	LOCKED(&lock);
	for (uint32_t i = 0; i < range_count; i++) {
		uint64_t at = ranges[i].begin;
		while (at < ranges[i].end && n < max) {
			const struct part *p = first_foreign(owner, at, ranges[i].end);
			uint64_t end = p ? p->begin : ranges[i].end;
			if (end > at)
				ret[n++] = (struct arena_range){at, end};
			at = p ? p->end : end;
		}
	}
	return n;
}

static bool in_reserve(uint64_t begin, uint64_t end)
{
	for (uint32_t i = 0; i < range_count; i++) {
		if (begin >= ranges[i].begin && end <= ranges[i].end)
			return true;
	}
	return false;
}

bool arena_take(uint64_t owner, uint64_t begin, uint64_t len)
{
	uint64_t end = begin + len;

	LOCKED(&lock);
	if (end <= begin || !in_reserve(begin, end))
		return false;
	for (const struct part *p = parts; p; p = p->next) {
		if (p->begin < end && p->end > begin)
			return false;
	}
	struct part *p = malloc(sizeof(*p));
	if (!p)
		return false;
	*p = (struct part){.owner = owner, .begin = begin, .end = end, .next = parts};
	parts = p;
	return true;
}

void arena_give(uint64_t begin, uint64_t len)
{
	LOCKED(&lock);
	for (struct part **at = &parts; *at; at = &(*at)->next) {
		struct part *p = *at;
		if (p->begin == begin && p->end == begin + len) {
			*at = p->next;
			free(p);
			return;
		}
	}
}

/* The reservations are not there in the child; it starts anew. */
static void fork_child(void)
{
	while (parts) {
		struct part *next = parts->next;
		free(parts);
		parts = next;
	}
	refs = 0;
	range_count = 0;
	pthread_mutex_init(&lock, NULL);
}

static const struct fork_hooks hooks = {
    .order = FORK_ORDER_DEVICE,
    .child = fork_child,
};
FORK_HOOKS(hooks)
