/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Barrier and allgather among the ranks that share one control page; or among more ranks than
 * these, the others being reached through the store by one of these for all.
 *
 * A round completes when all ranks are inside it at the same time, and then for all of them,
 * whatever happens to any of them afterwards. A call that fails is out of the round, as if it had
 * not been made; the next one counts afresh. Before a return of 0 all plain stores made by any rank
 * before its call are visible here.
 *
 * Codes of both calls:
 *   SMEM_INVALID_PARAM      all were inside, but not in the same call or with the same size;
 *                           told to all, naming ranks and values
 *   SMEM_TIMEOUT            naming the missing ranks
 *   SMEM_PEER_LOST          a rank was lost or has left (collective_lost()); from then on always
 *   SMEM_OBJECT_NOT_EXISTS  collective_close() was called here
 *   SMEM_MALLOC_FAILED      no memory for this rank's contribution; it takes no part
 *   SMEM_UNREACHABLE, SMEM_IO, SMEM_MALLOC_FAILED  on the way to ranks that do not share the page;
 *                           for all that do
 *
 * Calls of several threads are done one after the other. All functions may be called from any
 * thread; collective_lost() and collective_close() never block.
 */
#ifndef CORE_COLLECTIVE_H
#define CORE_COLLECTIVE_H

#include <stdbool.h>

#include "core/control.h"
#include "core/outside.h"
#include "util/clock.h"
#include "util/turn.h"

struct collective {
	struct control *page;
	uint32_t rank;
	uint32_t size;
	struct set set;		/* who shares the page, */
	uint32_t local;		/* how many these are, */
	struct outside outside; /* and the way to the others */
	_Atomic bool closed;
	struct turn turn; /* one call at a time; guards what follows */
	bool reserved;	  /* this rank's areas are really there */
	bool spare;	  /* at least as many CPUs as ranks that share the page */
	uint32_t sleeps;  /* since `spare` was looked at */
	uint32_t skip;	  /* waits that will not spin, after spinning was in vain */
	uint32_t skip_next;
};

/* `page` must outlive it; each rank of the page is attached at most once at a time. */
void collective_init(struct collective *c, struct control *page, uint32_t rank);

/* Before the first call: only the ranks of `set`, the own one among them, share the page; `group`
 * is all ranks by their numbers, and outlives the last call. */
void collective_outside(struct collective *c, const struct set *set, struct store_group *group);

int32_t collective_barrier(struct collective *c, struct deadline deadline);
/* len 1..ALLGATHER_MAX; recv has room for size * len; may overlap send. */
int32_t collective_allgather(struct collective *c, const void *send, uint32_t len, void *recv,
			     struct deadline deadline);

/* Rank `rank` died, or its host is silent (left false), or it has left in order. Twice is fine. */
void collective_lost(struct control *page, uint32_t rank, bool left);
/* Is it gone, and how? SMEM_OK, SMEM_PEER_LOST, or SMEM_NOT_STARTED when it has left. No text. */
int32_t collective_alive(const struct control *page, uint32_t rank);

/* This rank leaves: calls in flight here and later ones end with SMEM_OBJECT_NOT_EXISTS, those of
 * the others with SMEM_PEER_LOST. */
void collective_close(struct collective *c);

#endif
