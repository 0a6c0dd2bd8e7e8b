/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The data path of pools: which window, which slots, one overflow-safe range check, then the path.
 * No lock, no allocation, no system call of its own. Called inside the pool's gate.
 */
#ifndef CORE_COPY_H
#define CORE_COPY_H

#include "core/pool.h"

enum copy_way {
	COPY_TO_GLOBAL,	 /* dst is a global address, src any memory of this process */
	COPY_FROM_GLOBAL /* the other way round */
};

/*
 * Move all pieces. width and height are at least 1, pointers not NULL; the rest is checked here,
 * all of it before the first byte moves:
 *
 *   SMEM_INVALID_PARAM  pitch below width with several rows; a span that overflows; the global side
 *                       not inside one window; the other side in a slot that cannot be loaded from
 *   SMEM_NOT_STARTED    a slot is touched whose owner, or this rank, has not joined or has left
 *   SMEM_PEER_LOST      its owner is lost; also when that happened during the copy
 *
 * and what the path returns. The own slot is always usable.
 */
int32_t copy_run(const struct pool *pool, enum copy_way way, const struct smem_xfer *x, size_t n);

#endif
