/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shared file behind an address, if it is one that peers can map as well: then bytes go to them
 * and from them by load and store instead of through the kernel.
 *
 * That is memory of the library (slots of pools, symmetric objects) and any other writable shared
 * mapping of a memfd that is sealed against shrinking. Without the seal the owner could make a peer
 * fault by truncating it, so such memory stays private, as heap, stack and the rest.
 *
 * Not thread-safe: the caller's lock.
 */
#ifndef CORE_BACKING_H
#define CORE_BACKING_H

#include <stdbool.h>
#include <stdint.h>

#include "core/regions.h"
#include "device/fdpass.h"

#define BACKING_PIECES 16u /* of one range; the rest of it counts as private */

struct backings;

/* What is found is offered by the agent under `cookie`; writable: peers get it for writing. */
int32_t backings_create(const uint8_t cookie[AGENT_COOKIE], bool writable, struct backings **ret);
void backings_destroy(struct backings *b); /* withdraws all; NULL is fine */

/*
 * Cut [begin, end) into at most BACKING_PIECES + 1 pieces with their objects, and take a reference
 * on each object. Cannot fail: what is not found is private. Does not grow with the length. Returns
 * the number of pieces.
 */
uint32_t backings_take(struct backings *b, uint64_t begin, uint64_t end, struct region_piece *ret);
void backings_drop(struct backings *b, const struct region_piece *piece, uint32_t n);

#endif
