/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The way from the ranks that share a control page to those that do not: a contribution at the
 * store for all of them, and laying out in the page what the others brought. What is here trusts
 * its caller that he speaks for the ranks of the page; collective.c sees to that.
 */
#ifndef CORE_OUTSIDE_H
#define CORE_OUTSIDE_H

#include <stdbool.h>

#include "core/control.h"
#include "store/store.h"
#include "util/clock.h"

struct outside {
	struct store_group *group; /* NULL: all ranks share the page */
	struct set set;		   /* those that do */
	bool reserved;		   /* the areas are really there */
};

/* A round as who is there for all knows it. */
struct outside_round {
	uint32_t round;
	uint32_t turn; /* 32 bits that grow, modulo 2^32, with whoever goes there */
	struct deadline deadline;
	/* Asked before the page is written to: does the word of who went there still count? */
	bool (*counts)(void *arg);
	void *arg;
};

/*
 * All ranks of the page are inside `round`, with their contributions and kinds in the page: meet
 * the others. 0: those of the others are there too; *differ: the kinds are not all the same, and
 * only these were laid out. SMEM_TIMEOUT: who was missing is in the page. SMEM_STALE: somebody else
 * is there now; or, as for SMEM_REPEAT_CALL, take the next turn and try again. Others are final.
 */
int32_t outside_meet(struct outside *o, const struct control *page, struct outside_round at,
		     bool *differ);
/* The same after the one of the page who did this does not answer, up to its turn: it has
 * succeeded, or it has not and never will. */
int32_t outside_settle(struct outside *o, const struct control *page, struct outside_round at,
		       bool *differ);

/* For messages. This rank is inside, waiting for others of the page; never blocks. */
void outside_present(const struct outside *o, const struct control *page, uint32_t round);
/* It was in vain: who is missing of the others? Waits half a second at most; empty when unknown. */
struct set outside_missing(const struct outside *o, const struct control *page, uint32_t round);

#endif
