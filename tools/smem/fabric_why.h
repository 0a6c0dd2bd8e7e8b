/* SPDX-License-Identifier: Apache-2.0 */
/* Why paths are not better: each reason once, with the pairs it is true of. */
#ifndef SMEM_TOOL_FABRIC_WHY_H
#define SMEM_TOOL_FABRIC_WHY_H

#include "fabric.h"

struct fabric_pair {
	uint32_t from, to; /* members */
};

struct fabric_why {
	uint32_t taken; /* text: the path that was taken; "" none */
	uint32_t path;	/* text: the better one; "" where there is none at all */
	uint32_t why;	/* text; numbers in it may be 'N' */
	uint32_t first; /* text: as it was said first */
	struct fabric_pair *pair;
	uint32_t n, cap;
};

struct fabric_whys {
	struct fabric_why *why;
	uint32_t n, cap;
};

void fabric_whys(const struct fabric_object *o, struct fabric_whys *ret);
void fabric_whys_free(struct fabric_whys *w);

/* "every pair on different hosts", or "0 to 1, 3; 2 to 4-7 and 12 more pairs". */
void fabric_pairs_text(const struct fabric_object *o, const struct fabric_why *w, char *buf,
		       size_t cap);

/* Members as ranks: "0-3, 7"; of TRANS as they are numbered. */
void fabric_ranks_text(const struct fabric_object *o, const uint32_t *member, uint32_t n, char *buf,
		       size_t cap);

#endif
