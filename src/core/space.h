/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Address space: which ranges of virtual addresses this process holds in reserve, and taking parts
 * of them.
 *
 * At the first space_get() the process reserves every candidate arena it can (PROT_NONE,
 * MAP_NORESERVE, MAP_FIXED_NOREPLACE: costs nothing). What it holds is what it tells the store as
 * usable (store_range_usable); where an object lies is agreed there. Candidates lie where no
 * ordinary process, sanitizer, valgrind or small address space has anything; space.c has the table
 * and its reasons. Not inherited by fork.
 */
#ifndef CORE_SPACE_H
#define CORE_SPACE_H

#include <stddef.h>
#include <stdint.h>

#include "store/store.h"

/* Take and drop a reference on the arenas. SMEM_MALLOC_FAILED when not one candidate can be
 * reserved, with why. */
int32_t space_get(void);
void space_put(void);

/*
 * Tell the store which ranges this process can use, unless it knows. Also done by space_hold(); a
 * service that calls it at its init keeps others from agreeing on what this process cannot use.
 */
int32_t space_tell(struct store *store, struct deadline deadline);

/* Hold [name] of `len` bytes under the store and mark it used in this process. SMEM_RESOURCE_IN_USE
 * naming the range. */
struct space {
	char *base;
	uint64_t len;
	struct store *store;
	char name[64];
};
int32_t space_hold(struct store *store, const char *name, uint64_t len, struct deadline deadline,
		   struct space *ret);
void space_release(struct space *space); /* everything in it must be unmapped; twice is fine */

#endif
