/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looking into another process's region table. The owner is not trusted beyond its own memory: the
 * memfd must be sealed against shrinking (no SIGBUS here), counts are bounded, and a wrong table
 * can only misdirect writes within the process that wrote it.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "core/region_table.h"
#include "core/regions.h"
#include "util/err.h"

int32_t region_view_open(int fd, uint64_t incarnation, struct region_view *ret)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return smem_errno(SMEM_IO, errno, "region table");
	int seals = fcntl(fd, F_GET_SEALS);
	if (seals < 0 || !(seals & F_SEAL_SHRINK) || (uint64_t)st.st_size < REGION_TABLE_HEAD)
		return smem_err(SMEM_IO, "region table: not a sealed memfd of the right size");
	void *map = mmap(NULL, REGION_TABLE_SIZE, PROT_READ, MAP_SHARED | MAP_NORESERVE, fd, 0);
	if (map == MAP_FAILED)
		return smem_errno(SMEM_MALLOC_FAILED, errno, "mapping of a peer's region table");
	madvise(map, REGION_TABLE_SIZE, MADV_DONTFORK);

	const struct region_table *t = map;
	int32_t e = 0;
	if (t->version != REGION_TABLE_VERSION)
		e = smem_err(SMEM_NOT_SUPPORTED, "region table of version %u, this is %u",
			     t->version, REGION_TABLE_VERSION);
	else if ((uint64_t)st.st_size != REGION_TABLE_SIZE ||
		 t->span_size != sizeof(struct region_span) || t->spans_max != REGION_SPANS_MAX)
		e = smem_err(SMEM_IO, "region table: wrong layout");
	else if (t->incarnation != incarnation)
		e = smem_err(SMEM_STALE, "region table of another incarnation");
	if (e) {
		munmap(map, REGION_TABLE_SIZE);
		return e;
	}
	ret->table = t;
	return 0;
}

void region_view_close(struct region_view *v)
{
	if (v->table)
		munmap((void *)(uintptr_t)v->table, REGION_TABLE_SIZE);
	v->table = NULL;
}

enum region_life region_view_life(const struct region_view *v)
{
	const struct region_table *t = v->table;

	if (atomic_load(&t->state) != REGION_TABLE_LIVE)
		return REGION_LIFE_SHUT;
	if (atomic_load_explicit(&t->alive.word, memory_order_acquire) & FUTEX_OWNER_DIED)
		return REGION_LIFE_DEAD;
	return REGION_LIFE_LIVE;
}

bool region_view_writable(const struct region_view *v)
{
	return v->table->writable != 0;
}

uint64_t region_view_generation(const struct region_view *v)
{
	return atomic_load(&v->table->generation);
}

static struct region_piece load_span(const struct region_span *s)
{
	return (struct region_piece){
	    .begin = atomic_load_explicit(&s->begin, memory_order_acquire),
	    .end = atomic_load_explicit(&s->end, memory_order_acquire),
	    .object = atomic_load_explicit(&s->object, memory_order_acquire),
	    .offset = atomic_load_explicit(&s->offset, memory_order_acquire),
	};
}

static uint64_t count_of(const struct region_table *t, uint64_t generation)
{
	uint64_t n = atomic_load_explicit(&t->count[generation & 1], memory_order_acquire);

	return n < REGION_SPANS_MAX ? n : REGION_SPANS_MAX;
}

static bool holds(struct region_piece p, uint64_t addr)
{
	return p.begin <= addr && addr < p.end;
}

/* One look into one copy, which may be torn when the generation has moved meanwhile. */
static bool look(const struct region_span *copy, uint64_t n, uint64_t addr, struct region_hit *hit)
{
	for (uint64_t i = hit->index; i < n && i < hit->index + 2; i++) {
		struct region_piece p = load_span(&copy[i]);
		if (holds(p, addr)) {
			*hit = (struct region_hit){.index = i, .piece = p};
			return true;
		}
	}
	uint64_t lo = 0;
	uint64_t hi = n;
	while (lo < hi) {
		uint64_t mid = lo + (hi - lo) / 2;
		if (atomic_load_explicit(&copy[mid].end, memory_order_acquire) > addr)
			hi = mid;
		else
			lo = mid + 1;
	}
	if (lo == n)
		return false;
	struct region_piece p = load_span(&copy[lo]);
	if (!holds(p, addr))
		return false;
	*hit = (struct region_hit){.index = lo, .piece = p};
	return true;
}

bool region_view_find(const struct region_view *v, uint64_t addr, struct region_hit *hit)
{
	const struct region_table *t = v->table;

	for (;;) {
		uint64_t generation = atomic_load(&t->generation);
		struct region_hit found = *hit;
		bool yes =
		    look(region_table_copy(t, generation), count_of(t, generation), addr, &found);
		if (atomic_load_explicit(&t->generation, memory_order_acquire) != generation)
			continue;
		if (yes)
			*hit = found;
		return yes;
	}
}

int32_t region_view_list(const struct region_view *v, struct region_piece **ret, size_t *ret_n)
{
	const struct region_table *t = v->table;

	for (;;) {
		uint64_t generation = atomic_load(&t->generation);
		uint64_t n = count_of(t, generation);
		const struct region_span *copy = region_table_copy(t, generation);
		struct region_piece *list = malloc((n + 1) * sizeof(*list));
		if (!list)
			return smem_err(SMEM_MALLOC_FAILED, "copy of %llu registrations",
					(unsigned long long)n);
		for (uint64_t i = 0; i < n; i++)
			list[i] = load_span(&copy[i]);
		if (atomic_load_explicit(&t->generation, memory_order_acquire) == generation) {
			*ret = list;
			*ret_n = n;
			return 0;
		}
		free(list);
	}
}
