/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A window is one range of addresses, and slots whose memory is mapped here are plain memory of it:
 * a copy over any number of them is one copy of the device, borders or not. Only what touches a
 * peer that cannot be mapped is cut at the slots' borders and handed to the peers' paths piece by
 * piece.
 *
 * A loss during the copy is told by the peers' states, looked at once more afterwards: the bytes
 * may be in memory that nobody owns any more. A member that left in order waited for this copy (the
 * gate), so that is no failure.
 */
#include "core/copy.h"

#include <inttypes.h>

#include "util/err.h"

static const char *side_name(enum copy_way way, bool global)
{
	return (way == COPY_TO_GLOBAL) == global ? "dest" : "src";
}

static int32_t bad_range(const struct pool *pool, const char *side, const void *addr, uint64_t span)
    __attribute__((cold));
static int32_t bad_range(const struct pool *pool, const char *side, const void *addr, uint64_t span)
{
	const struct pool_window *h = &pool->window[POOL_HBM], *d = &pool->window[POOL_DRAM];

	return smem_err(SMEM_INVALID_PARAM,
			"%s %p + %" PRIu64 " is not inside one window of %s (HBM %p + %" PRIu64
			", DRAM %p + %" PRIu64 ")",
			side, addr, span, pool->name, (void *)h->base, h->len, (void *)d->base,
			d->len);
}

/* Bytes from the first to the last one touched on a side. */
static int32_t span_of(const struct smem_xfer *x, const void *addr, size_t pitch, const char *side,
		       uint64_t *ret)
{
	uint64_t span = x->width, end;

	if (x->height > 1) {
		if (pitch < x->width)
			return smem_err(SMEM_INVALID_PARAM, "%s pitch %zu is below width %zu", side,
					pitch, x->width);
		if (__builtin_mul_overflow(pitch, x->height - 1, &span) ||
		    __builtin_add_overflow(span, x->width, &span))
			return smem_err(SMEM_INVALID_PARAM,
					"%s pitch %zu with height %zu and width %zu overflows",
					side, pitch, x->height, x->width);
	}
	if (__builtin_add_overflow((uint64_t)(uintptr_t)addr, span, &end))
		return smem_err(SMEM_INVALID_PARAM, "%s %p + %" PRIu64 " overflows", side, addr,
				span);
	*ret = span;
	return SMEM_OK;
}

static const struct pool_window *window_of(const struct pool *pool, const void *addr, uint64_t span,
					   uint64_t *ret_offset)
{
	for (int kind = 0; kind < POOL_WINDOWS; kind++) {
		const struct pool_window *w = &pool->window[kind];
		uint64_t offset = (uint64_t)(uintptr_t)addr - (uint64_t)(uintptr_t)w->base;
		if (offset < w->len && span <= w->len - offset) {
			*ret_offset = offset;
			return w;
		}
	}
	return NULL;
}

static inline int32_t slot_usable(const struct pool *pool, uint32_t rank, bool *direct)
{
	const struct peer *p = pool_peer(pool, rank);

	if (rank == pool->config.rank)
		return SMEM_OK;
	if (!atomic_load(&pool->joined))
		return smem_err(SMEM_NOT_STARTED, "this rank, %u, has not joined %s",
				pool->config.rank, pool->name);
	if (peer_state(p) != PEER_MEMBER)
		return pool_peer_error(pool, rank);
	if (!atomic_load_explicit(&p->mapped, memory_order_relaxed))
		*direct = false;
	return SMEM_OK;
}

/* The slots touched by the bytes [offset, offset + len) of the window. */
static int32_t check_slots(const struct pool *pool, const struct pool_window *w, uint64_t offset,
			   uint64_t len, bool *direct)
{
	uint32_t first = (uint32_t)(offset / w->size);
	uint32_t last = first;

	if (offset - first * w->size + len > w->size)
		last = (uint32_t)((offset + len - 1) / w->size);
	for (uint32_t rank = first; rank <= last; rank++) {
		int32_t r = slot_usable(pool, rank, direct);
		if (r != SMEM_OK)
			return r;
	}
	return SMEM_OK;
}

static int32_t check_global(const struct pool *pool, enum copy_way way, const struct smem_xfer *x,
			    bool *direct)
{
	const void *addr = way == COPY_TO_GLOBAL ? x->dst : x->src;
	size_t pitch = way == COPY_TO_GLOBAL ? x->dpitch : x->spitch;
	uint64_t span = 0, offset = 0;

	int32_t r = span_of(x, addr, pitch, side_name(way, true), &span);
	if (r != SMEM_OK)
		return r;
	const struct pool_window *w = window_of(pool, addr, span, &offset);
	if (!w)
		return bad_range(pool, side_name(way, true), addr, span);
	if (x->height == 1 || pitch - x->width < w->size)
		return check_slots(pool, w, offset, span, direct);
	/* Gaps that may hold whole slots: only those count that a row touches. */
	for (size_t i = 0; i < x->height && r == SMEM_OK; i++)
		r = check_slots(pool, w, offset + i * pitch, x->width, direct);
	return r;
}

/* Slots of other ranks as plain memory of this process: only what is mapped here. */
static int32_t check_loadable(const struct pool *pool, const struct pool_window *w, uint64_t lo,
			      uint64_t hi, const char *side)
{
	uint64_t base = (uint64_t)(uintptr_t)w->base;
	uint32_t first = (uint32_t)((lo - base) / w->size);
	uint32_t last = (uint32_t)((hi - 1 - base) / w->size);

	for (uint32_t rank = first; rank <= last; rank++) {
		if (!atomic_load(&pool_peer(pool, rank)->mapped))
			return smem_err(SMEM_INVALID_PARAM,
					"%s 0x%" PRIx64 " lies in the slot of rank %u, which "
					"cannot be loaded from here",
					side, lo, rank);
	}
	return SMEM_OK;
}

static int32_t check_local(const struct pool *pool, enum copy_way way, const struct smem_xfer *x)
{
	const void *addr = way == COPY_TO_GLOBAL ? x->src : x->dst;
	size_t pitch = way == COPY_TO_GLOBAL ? x->spitch : x->dpitch;
	uint64_t span = 0;

	int32_t r = span_of(x, addr, pitch, side_name(way, false), &span);
	if (r != SMEM_OK)
		return r;
	uint64_t lo = (uint64_t)(uintptr_t)addr, hi = lo + span;
	for (int kind = 0; kind < POOL_WINDOWS; kind++) {
		const struct pool_window *w = &pool->window[kind];
		uint64_t base = (uint64_t)(uintptr_t)w->base, end = base + w->len;
		if (lo >= end || hi <= base)
			continue;
		r = check_loadable(pool, w, lo > base ? lo : base, hi < end ? hi : end,
				   side_name(way, false));
		if (r != SMEM_OK)
			return r;
	}
	return SMEM_OK;
}

/* ---- moving ---- */

static int32_t move_in_slot(const struct pool *pool, enum copy_way way, uint32_t rank,
			    const struct smem_xfer *x)
{
	const struct peer *p = pool_peer(pool, rank);

	if (atomic_load_explicit(&p->mapped, memory_order_relaxed)) {
		device_host.copy(x, 1);
		return SMEM_OK;
	}
	const struct transport_ops *t = p->path.ep->ops;
	return way == COPY_TO_GLOBAL ? t->put(p->path.ep, x, 1) : t->get(p->path.ep, x, 1);
}

/* How many rows from row i on end before `room` bytes after its beginning. 0: not even one. */
static size_t rows_within(const struct smem_xfer *x, size_t pitch, size_t i, uint64_t room)
{
	if (room < x->width)
		return 0;
	if (x->height == 1)
		return 1;
	uint64_t fit = (room - x->width) / pitch + 1;
	return fit < x->height - i ? (size_t)fit : x->height - i;
}

static struct smem_xfer part_of(const struct smem_xfer *x, size_t row, size_t column, size_t width,
				size_t height)
{
	struct smem_xfer part = *x;

	part.dst = (char *)x->dst + (x->height > 1 ? row * x->dpitch : 0) + column;
	part.src = (const char *)x->src + (x->height > 1 ? row * x->spitch : 0) + column;
	part.width = width;
	part.height = height;
	return part;
}

/* One row that crosses borders. */
static int32_t move_row(const struct pool *pool, enum copy_way way, const struct pool_window *w,
			const struct smem_xfer *x, size_t row)
{
	size_t pitch = way == COPY_TO_GLOBAL ? x->dpitch : x->spitch;
	const void *addr = way == COPY_TO_GLOBAL ? x->dst : x->src;
	uint64_t begin = (uint64_t)(uintptr_t)addr - (uint64_t)(uintptr_t)w->base +
			 (x->height > 1 ? row * pitch : 0);
	int32_t r = SMEM_OK;

	for (size_t done = 0; done < x->width && r == SMEM_OK;) {
		uint64_t at = begin + done;
		uint64_t room = w->size - at % w->size;
		size_t width = room < x->width - done ? (size_t)room : x->width - done;
		struct smem_xfer part = part_of(x, row, done, width, 1);
		r = move_in_slot(pool, way, (uint32_t)(at / w->size), &part);
		done += width;
	}
	return r;
}

static int32_t move_cut(const struct pool *pool, enum copy_way way, const struct smem_xfer *x)
{
	size_t pitch = way == COPY_TO_GLOBAL ? x->dpitch : x->spitch;
	const void *addr = way == COPY_TO_GLOBAL ? x->dst : x->src;
	uint64_t offset = 0;
	const struct pool_window *w = window_of(pool, addr, x->width, &offset);
	int32_t r = SMEM_OK;

	for (size_t i = 0; i < x->height && r == SMEM_OK;) {
		uint64_t at = offset + (x->height > 1 ? i * pitch : 0);
		size_t rows = rows_within(x, pitch, i, w->size - at % w->size);
		if (rows > 0) {
			struct smem_xfer part = part_of(x, i, 0, x->width, rows);
			r = move_in_slot(pool, way, (uint32_t)(at / w->size), &part);
		} else {
			r = move_row(pool, way, w, x, i);
		}
		i += rows > 0 ? rows : 1;
	}
	return r;
}

/* Somebody was lost since: was it one of these? */
static int32_t check_after(const struct pool *pool, enum copy_way way, const struct smem_xfer *x,
			   size_t n)
{
	bool direct;

	for (size_t i = 0; i < n; i++) {
		if (check_global(pool, way, &x[i], &direct) == SMEM_PEER_LOST)
			return SMEM_PEER_LOST;
	}
	return SMEM_OK;
}

int32_t copy_run(const struct pool *pool, enum copy_way way, const struct smem_xfer *x, size_t n)
{
	uint32_t losses = atomic_load(&pool->losses);
	bool direct = true; /* all slots of the global sides are mapped here */
	int32_t r = SMEM_OK;

	for (size_t i = 0; i < n && r == SMEM_OK; i++) {
		r = check_global(pool, way, &x[i], &direct);
		if (r == SMEM_OK)
			r = check_local(pool, way, &x[i]);
	}
	if (r != SMEM_OK)
		return r;
	if (direct)
		device_host.copy(x, n);
	for (size_t i = 0; i < n && !direct && r == SMEM_OK; i++)
		r = move_cut(pool, way, &x[i]);
	if (r == SMEM_OK && atomic_load(&pool->losses) != losses)
		r = check_after(pool, way, x, n);
	return r;
}
