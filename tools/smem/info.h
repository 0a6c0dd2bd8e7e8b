/* SPDX-License-Identifier: Apache-2.0 */
/* What `smem info` finds out by trying: the path between two processes, or those of several. */
#ifndef SMEM_TOOL_INFO_H
#define SMEM_TOOL_INFO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proc.h"
#include "smem_shm.h"

#define PROBE_PEERS   2
#define PROBE_MISSING 8

struct probe_peer {
	uint32_t rank;
	char path[32];
	char why[400]; /* the better ones refused */
};

struct probe {
	char error[600];
	char pages[64];
	struct probe_peer peer[PROBE_PEERS];
	size_t n;
	char missing[PROBE_MISSING][256]; /* transports that cannot be used here at all */
	size_t missing_n;
};

/* With another process of this host, at a store of our own. */
void probe_here(struct probe *ret);

/* Meet n - 1 others, anywhere, in an object; NULL and what went wrong. */
smem_shm_t probe_meet(const char *url, unsigned n, unsigned rank, char *error, size_t cap);
/* Wait for the others. False: it went wrong; error says how, unless it says something already. */
bool probe_turn(smem_shm_t met, char *error, size_t cap);
void probe_part(smem_shm_t met); /* NULL is fine */

int probe_child(struct child *c);

#endif
