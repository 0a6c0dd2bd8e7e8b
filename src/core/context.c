/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two areas, used in turn: the number of the present context says which one holds. A writer fills
 * the other one and then publishes the next number, so a writer that dies midway leaves the old
 * context in place. A reader copies and looks at the number again; if it moved, the copy may be of
 * two contexts and is made anew. The areas are read and written as atomic words, for a reader may
 * look while they change.
 */
#include "core/context.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "util/cleanup.h"
#include "util/err.h"

#define TRIES 100000 /* each one means that the peer published a new context meanwhile */

static _Atomic uint64_t *area(const struct control *page, uint32_t rank, uint64_t number)
{
	uint64_t offset = control_context(page, rank) + (number & 1) * CONTROL_AREA;

	return (_Atomic uint64_t *)(void *)control_at(page, offset);
}

int32_t context_set(const struct control *page, uint32_t rank, const void *buf, uint32_t len)
{
	struct control_rank *own = control_rank(page, rank);
	uint64_t number = atomic_load(&own->context) + 1;
	_Atomic uint64_t *words = area(page, rank, number);

	int32_t r = control_reserve(page, (uint64_t)((char *)words - (char *)page->head), len);
	if (r != SMEM_OK)
		return r;
	atomic_store(&own->context_len[number & 1], len);
	for (uint32_t done = 0; done < len; done += 8) {
		uint64_t word = 0;
		memcpy(&word, (const char *)buf + done, len - done < 8 ? len - done : 8);
		atomic_store_explicit(words++, word, memory_order_relaxed);
	}
	atomic_store(&own->context, number);
	return SMEM_OK;
}

/* One try: false when it changed meanwhile. */
static bool copy_out(const struct control *page, uint32_t rank, void *buf, uint32_t cap,
		     uint32_t *len)
{
	const struct control_rank *peer = control_rank(page, rank);
	uint64_t number = atomic_load(&peer->context);
	_Atomic uint64_t *words = area(page, rank, number);

	*len = number == 0 ? 0 : atomic_load(&peer->context_len[number & 1]);
	for (uint32_t done = 0; *len <= cap && done < *len; done += 8) {
		uint64_t word = atomic_load_explicit(words++, memory_order_acquire);
		memcpy((char *)buf + done, &word, *len - done < 8 ? *len - done : 8);
	}
	return atomic_load(&peer->context) == number;
}

int32_t context_give(uint32_t rank, const void *context, uint32_t size, void *buf, uint32_t *len)
{
	bool asks = !buf && *len == 0;
	uint32_t had = *len;

	*len = size;
	if (asks)
		return SMEM_OK;
	if (size > had)
		return smem_err(SMEM_INVALID_PARAM, "size %u, the context of rank %u has %u bytes",
				had, rank, size);
	if (size > 0)
		memcpy(buf, context, size);
	return SMEM_OK;
}

int32_t context_get(const struct control *page, uint32_t rank, void *buf, uint32_t *len)
{
	uint32_t cap = *len < EXTRA_CONTEXT_MAX ? *len : EXTRA_CONTEXT_MAX;
	auto_free char *copy = cap > 0 ? malloc(cap) : NULL;
	uint32_t seen;

	if (cap > 0 && !copy)
		return smem_err(SMEM_MALLOC_FAILED, "%u bytes for the context", cap);
	for (int i = 0; !copy_out(page, rank, copy, cap, &seen); i++) {
		if (i == TRIES)
			return smem_err(SMEM_ERROR, "the context of rank %u never holds still",
					rank);
	}
	return context_give(rank, copy, seen, buf, len);
}
