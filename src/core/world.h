/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The world of BM: which process is which rank. One group of the store whose member numbers are the
 * ranks, so that a rank is exclusive while its process lives and free as soon as it is lost.
 */
#ifndef CORE_WORLD_H
#define CORE_WORLD_H

#include <stdbool.h>
#include <stdint.h>

#include "store/store.h"

#define WORLD_NO_RANK UINT32_MAX

enum world_ranking {
	WORLD_GIVEN,	 /* config.rank */
	WORLD_TOGETHER,	 /* all `size` arrive, then are numbered by (address, device, arrival) */
	WORLD_FIRST_FREE /* no waiting: the lowest free number */
};

struct world_config {
	struct store_url url;
	enum store_role role;
	bool store_only; /* host the store, take no rank */
	enum world_ranking ranking;
	uint32_t rank; /* WORLD_GIVEN */
	uint32_t size;
	uint16_t device;
};

struct world {
	struct world_config config;
	struct store *store;
	struct store_group *group; /* NULL: store_only */
	uint32_t rank;		   /* WORLD_NO_RANK: store_only */
	bool has_space;
};

/*
 * Open the store and take a rank. SMEM_INVALID_PARAM another world size, naming both;
 * SMEM_DUPLICATED_OBJECT a live process has the rank; SMEM_RESOURCE_IN_USE no free rank, or the
 * store's port is taken; SMEM_TIMEOUT; the store's. Undoes itself.
 */
int32_t world_open(const struct world_config *config, struct deadline deadline, struct world *ret);

/* Give the rank back and let the store go, lingering for its clients at most linger_ms. Any prefix
 * of an opening; twice is fine. */
void world_close(struct world *world, uint32_t linger_ms);

#endif
