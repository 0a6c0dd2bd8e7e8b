/* SPDX-License-Identifier: Apache-2.0 */
/* A pool's keeper: the thread that follows the group's history while the pool is a member. */
#ifndef CORE_KEEPER_H
#define CORE_KEEPER_H

#include "core/pool.h"

/* Start it. `deadline` is that of the join: mapping the members that are there must end by then. */
int32_t keeper_start(struct pool *pool, struct deadline deadline, struct keeper **ret);

/* The store's callback, arg the keeper: on the I/O loop. */
void keeper_event(void *arg, const struct store_event *e);

/* Entering returned; the keeper may acknowledge from now on. */
void keeper_entered(struct keeper *k, struct store_group *group);

/* Of the newest ENTERED event that came so far. */
uint64_t keeper_last_entered(struct keeper *k);

/* What the keeper has done and acknowledged is visible to the caller from here on. */
void keeper_sync(struct keeper *k);

/* A peer whose agent's connection ended; on the I/O loop. */
void keeper_peer_lost(struct keeper *k, uint32_t rank, uint64_t incarnation);

/* End the thread; what is queued is dropped. NULL is fine, twice is fine. */
void keeper_stop(struct keeper *k);
/* Stopped, and no callback may come any more. NULL is fine. */
void keeper_free(struct keeper *k);

#endif
