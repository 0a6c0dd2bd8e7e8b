/* SPDX-License-Identifier: Apache-2.0 */
/* What `smem info` finds out by trying. */
#ifndef SMEM_TOOL_INFO_H
#define SMEM_TOOL_INFO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proc.h"

#define PROBE_PEERS   64
#define PROBE_MISSING 8

struct probe_peer {
	uint32_t rank;
	char path[32];
	char why[400]; /* the better ones refused */
};

struct probe {
	bool local; /* two processes of this host */
	char error[600];
	char pages[64];
	struct probe_peer peer[PROBE_PEERS];
	size_t n;
	char missing[PROBE_MISSING][256]; /* transports that cannot be used here at all */
	size_t missing_n;
};

/* With another process of this host; url NULL: a store of our own. */
void probe_here(struct probe *ret, const char *url);
/* As one of n, the others anywhere. */
void probe_member(struct probe *ret, const char *url, unsigned n, unsigned rank);

int probe_child(struct child *c);

#endif
