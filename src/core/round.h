/* SPDX-License-Identifier: Apache-2.0 */
/* Barrier and allgather of a closed group through the store, each rank by itself: where ranks share
 * no page. Codes as collective.h, and SMEM_UNREACHABLE. */
#ifndef CORE_ROUND_H
#define CORE_ROUND_H

#include <stdint.h>

#include "store/store.h"
#include "util/clock.h"
#include "util/turn.h"

struct round {
	uint32_t rank;
	uint32_t size;
	struct turn turn; /* one call at a time */
};

void round_init(struct round *round, uint32_t rank, uint32_t size);

int32_t round_barrier(struct round *round, struct store_group *group, struct deadline deadline);
int32_t round_allgather(struct round *round, struct store_group *group, const void *send,
			uint32_t len, void *recv, struct deadline deadline);

#endif
