/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Three ways to move a run of bytes, by size only: nothing is calibrated, so that the same call
 * takes the same way every time.
 *
 *   small                memcpy(): destination and source may well be in the cache
 *   large                non-temporal stores (stream.c): the destination would not fit, or would
 * push out more than it is worth. A run is large by itself, or because it is part of a batch that
 * is large, CPUs idle     the same, the batch cut into parts that helpers take (crew.c)
 *
 * A call that streamed ends with a fence: then all bytes are visible before anything that follows.
 */
#include "device/copy.h"

#include <string.h>

#include "device/crew.h"
#include "device/pieces.h"
#include "device/stream.h"

#define RUN_LARGE   (16u << 10)	 /* beyond: streamed */
#define BATCH_LARGE (512u << 10) /* half of a common second-level cache */
#define BATCH_RUN   (4u << 10)	 /* in a large batch streamed from here on */
#define CREW_MIN    (4u << 20)	 /* waking somebody costs as much as copying an eighth of it */
#define CREW_PART   (128u << 10) /* a part takes less than a wake-up */

static inline void copy_run(char *dst, const char *src, size_t len, size_t large)
{
	if (len >= large && stream_copy)
		stream_copy(dst, src, len);
	else
		memcpy(dst, src, len);
}

static void copy_piece(const struct smem_xfer *x, size_t large)
{
	if (piece_is_flat(x)) {
		copy_run(x->dst, x->src, piece_bytes(x), large);
		return;
	}
	for (size_t row = 0; row < x->height; row++)
		copy_run((char *)x->dst + row * x->dpitch, (const char *)x->src + row * x->spitch,
			 x->width, large);
}

static void copy_part(void *arg, size_t i)
{
	const struct parts *p = arg;
	struct cursor c = p->start[i];
	struct run run;

	for (size_t left = part_bytes(p, i); left > 0 && cursor_next(&c, left, &run);
	     left -= run.len)
		copy_run(run.dst, run.src, run.len, BATCH_RUN);
	stream_fence();
}

static void copy_batch(const struct smem_xfer *x, size_t n)
{
	size_t total = pieces_bytes(x, n);
	unsigned helpers = total >= CREW_MIN ? crew_spare() : 0;

	if (helpers > 0) {
		struct parts p;
		parts_cut(&p, x, n, total, CREW_PART);
		crew_run(copy_part, &p, p.count, helpers);
		return;
	}
	size_t large = total >= BATCH_LARGE ? BATCH_RUN : RUN_LARGE;
	for (size_t i = 0; i < n; i++)
		copy_piece(&x[i], large);
	if (total >= RUN_LARGE)
		stream_fence();
}

void copy_pieces(const struct smem_xfer *x, size_t n)
{
	if (n == 1 && x->height == 1 && x->width < RUN_LARGE)
		memcpy(x->dst, x->src, x->width);
	else
		copy_batch(x, n);
}
