/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two pictures of the same set. The owner keeps its registrations in a hash by start address; what
 * peers see is the union of them, cut into disjoint spans sorted by address, so that a look is one
 * binary search and ranges that adjoin or overlap are walked from span to span. Where a
 * registration overlaps earlier ones only its gaps become spans; where one is withdrawn its bytes
 * are cut out and what others still cover is put back. Both happen on a private vector; then the
 * vector's changed tail is copied into the table's copy that nobody looks at, and the generation is
 * raised: one atomic store that makes a batch of any size visible at once.
 *
 * Two copies and a generation instead of a seqlock: a reader never has to wait for an owner that is
 * stopped or dead in the middle of a change. It repeats its look only when the owner finished one.
 *
 * The memfd is as large as the largest table from the start, and sparse: nothing is ever remapped.
 * Pages are asked for before they are touched (fallocate), so want of memory is a code, not a
 * SIGBUS.
 */
#include "core/regions.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/region_table.h"
#include "util/cleanup.h"
#include "util/err.h"
#include "util/fd.h"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

#define BACKING_STEP (64u << 10)

struct regions {
	struct region_table *table;
	int fd;
	struct registration *by_begin;
	struct region_piece *span; /* disjoint, sorted */
	size_t count;
	size_t room;
	size_t dirty[2];    /* the table's copies equal span[] below these */
	uint64_t backed[2]; /* bytes of the copies that have pages */
	uint64_t generation;
	size_t pieces;	 /* of the live registrations: about as many spans may come of them */
	bool overlapped; /* since the set was empty last, registrations have overlapped */
};

/* ---- the private vector ---- */

static size_t first_ending_after(const struct regions *r, uint64_t addr)
{
	size_t lo = 0;
	size_t hi = r->count;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (r->span[mid].end > addr)
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo;
}

static void touched(struct regions *r, size_t from)
{
	for (int c = 0; c < 2; c++)
		if (r->dirty[c] > from)
			r->dirty[c] = from;
}

static int32_t reserve_pages(struct regions *r, size_t spans)
{
	uint64_t need = spans * sizeof(struct region_span);

	for (uint64_t c = 0; c < 2; c++) {
		if (need <= r->backed[c])
			continue;
		uint64_t want = r->backed[c] * 2 > need ? r->backed[c] * 2 : need;
		want = (want + BACKING_STEP - 1) / BACKING_STEP * BACKING_STEP;
		if (want > REGION_TABLE_COPY)
			want = REGION_TABLE_COPY;
		off_t at = (off_t)(REGION_TABLE_HEAD + c * REGION_TABLE_COPY + r->backed[c]);
		if (fallocate(r->fd, 0, at, (off_t)(want - r->backed[c])) < 0)
			return smem_errno(SMEM_MALLOC_FAILED, errno, "table of %zu registrations",
					  spans);
		r->backed[c] = want;
	}
	return 0;
}

/* Room for `spans` spans, in the vector and in the table. */
static int32_t reserve(struct regions *r, size_t spans)
{
	if (spans > REGION_SPANS_MAX)
		return smem_err(SMEM_MALLOC_FAILED, "%zu registrations, a session holds %u", spans,
				REGION_SPANS_MAX);
	if (spans > r->room) {
		size_t room = r->room * 2 > spans ? r->room * 2 : spans + 64;
		struct region_piece *grown = realloc(r->span, room * sizeof(*grown));
		if (!grown)
			return smem_err(SMEM_MALLOC_FAILED, "%zu registrations", spans);
		r->span = grown;
		r->room = room;
	}
	return reserve_pages(r, spans);
}

/* Replace span[lo..hi) by n others; the room is there. */
static void replace(struct regions *r, size_t lo, size_t hi, const struct region_piece *with,
		    size_t n)
{
	memmove(&r->span[lo + n], &r->span[hi], (r->count - hi) * sizeof(*with));
	memcpy(&r->span[lo], with, n * sizeof(*with));
	r->count = r->count - (hi - lo) + n;
	touched(r, lo);
}

static struct region_piece clip(struct region_piece p, uint64_t begin, uint64_t end)
{
	if (p.begin < begin) {
		p.offset += p.object ? begin - p.begin : 0;
		p.begin = begin;
	}
	if (p.end > end)
		p.end = end;
	return p;
}

/* Append to a sorted list; what continues the last piece in the same backing joins it. */
static size_t push(struct region_piece *out, size_t o, struct region_piece p)
{
	struct region_piece *last = o ? &out[o - 1] : NULL;

	if (last && last->end == p.begin && last->object == p.object &&
	    (!p.object || last->offset + (last->end - last->begin) == p.offset)) {
		last->end = p.end;
		return o;
	}
	out[o] = p;
	return o + 1;
}

/* Sweep old spans and new pieces, both sorted by start, into `out`: old ones as they are, of the
 * new ones what is not covered yet. */
static size_t sweep(struct regions *r, size_t lo, const struct region_piece *add, size_t n,
		    struct region_piece *out)
{
	size_t o = 0;
	size_t i = lo;
	uint64_t covered = 0; /* by the new pieces so far */

	for (size_t k = 0; k < n; k++) {
		uint64_t cur = add[k].begin;
		if (covered > cur) {
			r->overlapped = true;
			cur = covered;
		}
		while (i < r->count && r->span[i].end <= cur)
			o = push(out, o, r->span[i++]);
		while (cur < add[k].end) {
			bool old = i < r->count && r->span[i].begin < add[k].end;
			if (old && r->span[i].begin <= cur) {
				r->overlapped = true;
				cur = r->span[i].end;
				if (cur <= add[k].end) /* else it may cover the next one too */
					o = push(out, o, r->span[i++]);
				continue;
			}
			uint64_t stop = old ? r->span[i].begin : add[k].end;
			o = push(out, o, clip(add[k], cur, stop));
			cur = stop;
		}
		if (add[k].end > covered)
			covered = add[k].end;
	}
	while (i < r->count)
		o = push(out, o, r->span[i++]);
	return o;
}

/* Sorted pieces join the vector. */
static int32_t spans_add(struct regions *r, const struct region_piece *add, size_t n)
{
	size_t lo = first_ending_after(r, add[0].begin);

	if (lo > 0)
		lo--; /* the first may continue it */
	auto_free struct region_piece *out = malloc((2 * (r->count - lo) + n + 1) * sizeof(*out));
	if (!out)
		return smem_err(SMEM_MALLOC_FAILED, "table of %zu registrations", r->count + n);
	size_t o = sweep(r, lo, add, n, out);
	int32_t e = reserve(r, lo + o + 2);
	if (e)
		return e;
	replace(r, lo, r->count, out, o);
	return 0;
}

/* Cut [begin, end) out; there is room for one more span. */
static void spans_cut(struct regions *r, uint64_t begin, uint64_t end)
{
	struct region_piece rest[2];
	size_t n = 0;
	size_t lo = first_ending_after(r, begin);
	size_t hi = lo;

	while (hi < r->count && r->span[hi].begin < end)
		hi++;
	if (hi == lo)
		return;
	if (r->span[lo].begin < begin)
		rest[n++] = clip(r->span[lo], r->span[lo].begin, begin);
	if (r->span[hi - 1].end > end)
		rest[n++] = clip(r->span[hi - 1], end, r->span[hi - 1].end);
	replace(r, lo, hi, rest, n);
}

static int by_begin(const void *a, const void *b)
{
	const struct region_piece *x = a;
	const struct region_piece *y = b;

	return x->begin < y->begin ? -1 : x->begin > y->begin;
}

/* ---- the shared table ---- */

static void publish(struct regions *r)
{
	struct region_table *t = r->table;
	uint64_t generation = r->generation + 1;
	struct region_span *copy = region_table_copy(t, generation);
	size_t from = r->dirty[generation & 1];

	for (size_t i = from; i < r->count; i++) {
		atomic_store_explicit(&copy[i].begin, r->span[i].begin, memory_order_release);
		atomic_store_explicit(&copy[i].end, r->span[i].end, memory_order_release);
		atomic_store_explicit(&copy[i].object, r->span[i].object, memory_order_release);
		atomic_store_explicit(&copy[i].offset, r->span[i].offset, memory_order_release);
	}
	atomic_store_explicit(&t->count[generation & 1], r->count, memory_order_release);
	r->dirty[generation & 1] = r->count;
	r->generation = generation;
	/* seq_cst: against the marks of writers. The release stores of the next change come after
	 * it for readers who see them, so a torn look finds the generation moved. */
	atomic_store(&t->generation, generation);
}

static int32_t table_create(struct regions *r, uint64_t incarnation, bool writable)
{
	r->fd = fd_memfd("smem-regions", 0);
	if (r->fd < 0)
		return smem_errno(SMEM_NEW_OBJECT_FAILED, errno, "memfd_create");
	if (ftruncate(r->fd, (off_t)REGION_TABLE_SIZE) < 0 ||
	    fallocate(r->fd, 0, 0, REGION_TABLE_HEAD) < 0)
		return smem_errno(SMEM_MALLOC_FAILED, errno, "region table");
	void *map = mmap(NULL, REGION_TABLE_SIZE, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_NORESERVE, r->fd, 0);
	if (map == MAP_FAILED)
		return smem_errno(SMEM_MALLOC_FAILED, errno, "mapping of the region table");
	r->table = map;
	madvise(map, REGION_TABLE_SIZE, MADV_DONTFORK);
	if (fcntl(r->fd, F_ADD_SEALS,
		  F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) < 0)
		return smem_errno(SMEM_IO, errno, "sealing of the region table");

	pthread_mutexattr_t attr;
	pthread_mutexattr_init(&attr);
	pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
	pthread_mutex_init(&r->table->alive.mutex, &attr);
	pthread_mutexattr_destroy(&attr);

	r->table->span_size = sizeof(struct region_span);
	r->table->incarnation = incarnation;
	r->table->spans_max = REGION_SPANS_MAX;
	r->table->writable = writable;
	atomic_store(&r->table->state, REGION_TABLE_LIVE);
	r->table->version = REGION_TABLE_VERSION;
	return reserve(r, 2);
}

int32_t regions_create(uint64_t incarnation, bool writable, struct regions **ret)
{
	struct regions *r = calloc(1, sizeof(*r));

	if (!r)
		return smem_err(SMEM_MALLOC_FAILED, "region table");
	r->fd = -1;
	int32_t e = table_create(r, incarnation, writable);
	if (e) {
		regions_destroy(r);
		return e;
	}
	*ret = r;
	return 0;
}

void regions_destroy(struct regions *r)
{
	struct registration *reg;
	struct registration *next;

	if (!r)
		return;
	HASH_ITER (hh, r->by_begin, reg, next) {
		HASH_DEL(r->by_begin, reg);
		free(reg);
	}
	if (r->table)
		munmap(r->table, REGION_TABLE_SIZE);
	fd_close(&r->fd);
	free(r->span);
	free(r);
}

int regions_fd(const struct regions *r)
{
	return r->fd;
}

size_t regions_count(const struct regions *r)
{
	return HASH_COUNT(r->by_begin);
}

struct registration *regions_find(const struct regions *r, uint64_t begin)
{
	struct registration *reg;

	HASH_FIND(hh, r->by_begin, &begin, sizeof(begin), reg);
	return reg;
}

struct registration *regions_any(const struct regions *r)
{
	return r->by_begin;
}

/* ---- adding, closing ---- */

static int32_t taken(const struct registration *old, const struct registration *reg)
{
	if (old->closing)
		return smem_err(SMEM_DUPLICATED_OBJECT,
				"address 0x%llx is still being deregistered: a write is in flight",
				(unsigned long long)reg->begin);
	return smem_err(SMEM_DUPLICATED_OBJECT,
			"address 0x%llx capacity %llu, registered with capacity %llu",
			(unsigned long long)reg->begin, (unsigned long long)(reg->end - reg->begin),
			(unsigned long long)(old->end - old->begin));
}

/* Enter those that are new into the hash, marked fresh. */
static int32_t enter_all(struct regions *r, struct registration **reg, size_t n, size_t *pieces)
{
	for (size_t i = 0; i < n; i++) {
		struct registration *old = regions_find(r, reg[i]->begin);
		reg[i]->fresh = !old;
		if (old && (old->end != reg[i]->end || old->closing))
			return taken(old, reg[i]);
		if (old)
			continue;
		HASH_ADD(hh, r->by_begin, begin, sizeof(reg[i]->begin), reg[i]);
		*pieces += reg[i]->n;
	}
	return 0;
}

static void withdraw_fresh(struct regions *r, struct registration **reg, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (reg[i]->fresh)
			HASH_DEL(r->by_begin, reg[i]);
		reg[i]->fresh = false;
	}
}

static int32_t publish_fresh(struct regions *r, struct registration **reg, size_t n, size_t pieces)
{
	struct region_piece one;
	auto_free struct region_piece *many = NULL;
	struct region_piece *add = &one;
	size_t k = 0;

	if (pieces == 0)
		return 0;
	if (pieces > 1) {
		many = malloc(pieces * sizeof(*many));
		if (!many)
			return smem_err(SMEM_MALLOC_FAILED, "%zu registrations", pieces);
		add = many;
	}
	for (size_t i = 0; i < n; i++)
		for (uint32_t p = 0; reg[i]->fresh && p < reg[i]->n; p++)
			add[k++] = reg[i]->piece[p];
	if (k > 1)
		qsort(add, k, sizeof(*add), by_begin);
	int32_t e = reserve(r, r->pieces + pieces + 2);
	if (!e)
		e = spans_add(r, add, k);
	if (e)
		return e;
	r->pieces += pieces;
	publish(r);
	return 0;
}

int32_t regions_add(struct regions *r, struct registration **reg, size_t n)
{
	size_t pieces = 0;

	if (!r->by_begin)
		r->overlapped = false;
	for (size_t i = 0; i < n; i++)
		reg[i]->fresh = false;
	int32_t e = enter_all(r, reg, n, &pieces);
	if (!e)
		e = publish_fresh(r, reg, n, pieces);
	if (e) {
		withdraw_fresh(r, reg, n);
		return e;
	}
	for (size_t i = 0; i < n; i++) {
		if (!reg[i]->fresh)
			reg[i] = NULL;
		else
			reg[i]->fresh = false;
	}
	return 0;
}

/* What the other registrations still cover of [begin, end), sorted; malloc'ed. */
static int32_t still_covered(const struct regions *r, uint64_t begin, uint64_t end,
			     struct region_piece **ret, size_t *ret_n)
{
	struct region_piece *list = NULL;
	size_t n = 0;
	size_t room = 0;

	for (struct registration *o = r->by_begin; o; o = o->hh.next) {
		for (uint32_t p = 0; !o->closing && p < o->n; p++) {
			if (o->piece[p].begin >= end || o->piece[p].end <= begin)
				continue;
			if (n == room) {
				room = room * 2 + 16;
				void *grown = realloc(list, room * sizeof(*list));
				if (!grown) {
					free(list);
					return smem_err(SMEM_MALLOC_FAILED, "deregistration");
				}
				list = grown;
			}
			list[n++] = clip(o->piece[p], begin, end);
		}
	}
	if (n > 1)
		qsort(list, n, sizeof(*list), by_begin);
	*ret = list;
	*ret_n = n;
	return 0;
}

int32_t regions_close(struct regions *r, struct registration *reg)
{
	auto_free struct region_piece *rest = NULL;
	size_t n = 0;
	int32_t e = 0;

	if (reg->closing)
		return 0;
	e = reserve(r, r->count + 2); /* there unless registrations overlapped */
	if (e)
		return e;
	reg->closing = true;
	r->pieces -= reg->n;
	if (r->overlapped)
		e = still_covered(r, reg->begin, reg->end, &rest, &n);
	spans_cut(r, reg->begin, reg->end);
	if (!e && n)
		e = spans_add(r, rest, n);
	publish(r);
	return e;
}

void regions_forget(struct regions *r, struct registration *reg)
{
	HASH_DEL(r->by_begin, reg);
}

void regions_shut(struct regions *r)
{
	atomic_store(&r->table->state, REGION_TABLE_CLOSED);
}

int32_t regions_vouch(struct regions *r)
{
	int err = pthread_mutex_lock(&r->table->alive.mutex);

	return err ? smem_errno(SMEM_ERROR, err, "vouching for the region table") : 0;
}

void regions_unvouch(struct regions *r)
{
	pthread_mutex_unlock(&r->table->alive.mutex);
}
