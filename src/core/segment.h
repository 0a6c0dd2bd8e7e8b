/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A segment: one rank's contribution to one window, here or in another process of this host.
 *
 * Own:  segment_create -> segment_map at its slot -> segment_export (offer it through the agent)
 * ... segment_destroy. Peer: segment_import (fetch and map at its slot) ... segment_destroy.
 */
#ifndef CORE_SEGMENT_H
#define CORE_SEGMENT_H

#include <stdbool.h>
#include <stdint.h>

#include "device/device.h"
#include "device/fdpass.h"

/* What a peer needs to map it; part of the blob a rank publishes. Fixed widths, little-endian. */
struct segment_export {
	uint64_t object; /* number at the owner's agent; 0: no such segment */
	uint64_t size;
	uint8_t cookie[AGENT_COOKIE];
	uint8_t pages; /* enum mem_pages */
	uint8_t reserved[7];
};
_Static_assert(sizeof(struct segment_export) == 40, "wire layout");

struct segment {
	struct device_mem mem; /* fd -1 when imported and mapped */
	char *addr;	       /* where it is mapped; NULL: nowhere */
	struct segment_export exported;
	bool own;
	bool tables; /* imported with page tables that count against TABLES_MAX */
};

/* Allocate and map at addr. Rolls back on failure. */
int32_t segment_create(uint64_t size, char *addr, struct segment *ret);
int32_t segment_offer(struct segment *seg); /* fills seg->exported */
void segment_withdraw(struct segment *seg); /* no new peer gets it */

/* Fetch from the peer's agent and map at addr; proves the hand-over by size. */
int32_t segment_import(struct agent_peer *peer, const struct segment_export *ex, char *addr,
		       struct deadline deadline, struct segment *ret);

/* Unmap and close; any half-built state; twice is fine. */
void segment_destroy(struct segment *seg);

#endif
