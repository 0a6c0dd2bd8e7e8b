/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pool: windows of slots at agreed addresses, the own segments in them, and the peers. BM uses it
 * with an OPEN group, SHM with a CLOSED one.
 *
 *   pool_create   reserve the windows, allocate and map the own memory; talks to the store, waits
 *                 for nobody
 *   pool_join     OPEN: enter; every live member maps this rank, this rank maps them; then return.
 *                 CLOSED: the same, together: returns when all `world` ranks have mapped all
 *   pool_leave    OPEN: members stop using this rank's slots and acknowledge; then return
 *   pool_destroy  leave if joined, unmap, give the addresses back
 *
 * A pool has a keeper while it is joined: a thread that takes the group's events in order, maps and
 * unmaps, and acknowledges. Losses are seen before that, on the I/O loop, by the peer's state.
 *
 * What may be read without a lock: everything marked const below; peers' state by pool_peer();
 * their memory only inside `gate` and only while the state allows it.
 */
#ifndef CORE_POOL_H
#define CORE_POOL_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/peer.h"
#include "core/space.h"
#include "store/store.h"
#include "util/gate.h"

enum pool_kind { POOL_HBM, POOL_DRAM, POOL_WINDOWS };
_Static_assert((int)POOL_WINDOWS == (int)PEER_SEGMENTS, "one segment a window");

struct pool_config {
	const char *name;    /* names it under the store: "bm/7", "shm/7"; at most 31 bytes */
	struct store *store; /* outlives the pool */
	enum store_group_mode mode;
	uint32_t world;	  /* slots of a window */
	uint32_t members; /* OPEN: most members at a time; CLOSED: = world */
	uint32_t rank;
	uint64_t size[POOL_WINDOWS];	     /* of a slot; 0: no such window */
	const char *size_name[POOL_WINDOWS]; /* of the argument, for messages */
	const char *members_name;
	bool keep_left;	   /* what a member that left had stays mapped, so destroy waits for none */
	struct gate *gate; /* what copies pass; drained before memory goes away */
	/*
	 * Every event of the group after the pool's own quick look at it, on the I/O loop; NULL:
	 * not wanted. A death that only the agent saw comes as STORE_EVENT_LOST with seq 0; the
	 * store's own may follow.
	 */
	void (*event)(void *arg, const struct store_event *e);
	void *arg;
};

struct pool_window { /* const from create to destroy */
	char *base;
	uint64_t size; /* of a slot; 0: no such window */
	uint64_t len;  /* world * size */
	struct space space;
	struct segment own;
};

struct keeper;

struct pool {
	struct pool_config config; /* const; config.name points to `name` */
	struct pool_window window[POOL_WINDOWS];
	struct peer *peers; /* const pointer: world entries; the own one has state MEMBER, mapped */
	_Atomic bool joined;	 /* copies to others are allowed */
	_Atomic uint32_t losses; /* grows with every loss: copies look whether it did */
	char name[32];
	uint8_t secret[16];
	uint64_t expose_id[POOL_WINDOWS];
	pthread_mutex_t control;   /* join, leave, destroy: one at a time */
	pthread_mutex_t lock;	   /* group, and that waking finds it or is seen */
	struct store_group *group; /* NULL while not entered */
	_Atomic bool woken;	   /* also what entering waits for */
	bool has_space;		   /* what pool_free() has to give back */
	bool has_agent;
	bool has_paths;
	struct keeper *keeper;
	struct survey_source survey;
};

/*
 * SMEM_RESOURCE_IN_USE naming the range; SMEM_MALLOC_FAILED, SMEM_NEW_OBJECT_FAILED;
 * SMEM_TIMEOUT; the store's. Undoes itself.
 */
int32_t pool_create(const struct pool_config *config, struct deadline deadline, struct pool **ret);

/*
 * Leave if joined, waiting for live members' acknowledgements until the deadline at most, and
 * free. Nobody else is inside: the handle was retired, pool_wake() called, both gates drained. A
 * lost store is fine.
 */
void pool_destroy(struct pool *pool, struct deadline deadline);

/*
 * Join; joined already: 0. SMEM_INVALID_PARAM when sizes, members or windows are unlike those of
 * the group (CLOSED: or a rank is used twice), naming both; SMEM_RESOURCE_IN_USE full;
 * SMEM_UNREACHABLE no path to a live member, or theirs to here; SMEM_TIMEOUT; CLOSED:
 * SMEM_PEER_LOST; SMEM_OBJECT_NOT_EXISTS woken by pool_wake(). A failure leaves nothing behind.
 * Never inside `gate`.
 */
int32_t pool_join(struct pool *pool, struct deadline deadline);

/*
 * SMEM_NOT_STARTED not joined; SMEM_UNREACHABLE the store was lost before: nothing changed.
 * SMEM_TIMEOUT: a live member did not acknowledge, this rank has left nevertheless. Never inside
 * `gate`.
 */
int32_t pool_leave(struct pool *pool, struct deadline deadline);

/* Waits in join and leave, and those on pool_group(), end with SMEM_OBJECT_NOT_EXISTS. */
void pool_wake(struct pool *pool);

/* The group, for collectives, notes and blobs; while joined. */
struct store_group *pool_group(struct pool *pool);

static inline char *pool_slot(const struct pool *pool, enum pool_kind kind, uint32_t rank)
{
	return pool->window[kind].base + rank * pool->window[kind].size;
}

static inline const struct peer *pool_peer(const struct pool *pool, uint32_t rank)
{
	return &pool->peers[rank];
}

/* Of the SHM API: the window a pool's plain pointers mean: HBM if there is one, else DRAM. */
static inline enum pool_kind pool_main(const struct pool *pool)
{
	return pool->window[POOL_HBM].size ? POOL_HBM : POOL_DRAM;
}

/* Why a slot may not be used: SMEM_NOT_STARTED, SMEM_PEER_LOST, recorded with rank and since when.
 */
int32_t pool_peer_error(const struct pool *pool, uint32_t rank) __attribute__((cold));

#endif
