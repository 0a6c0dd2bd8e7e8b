/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A link: one incarnation of a peer session as this session reaches it. On the same host that is
 * its region table and marks, mapped; the files behind its regions, mapped when first used; and a
 * path for the rest. Elsewhere it is a path alone, and the peer checks the ranges.
 *
 * A link lives from link_open() until link_close(); those who move data through it are inside the
 * session's gate, and it is closed after a drain. Its death is final: a new incarnation is a new
 * link.
 */
#ifndef CORE_LINK_H
#define CORE_LINK_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/marks.h"
#include "core/path.h"
#include "core/regions.h"
#include "core/session_card.h"
#include "store/store.h"
#include "util/limits.h"

/* A file of the peer's, mapped whole. base NULL: it cannot be mapped here. */
struct link_map {
	uint64_t object;
	char *base;
	uint64_t size;
	struct link_map *next; /* of all that were made */
};

#define LINK_MAP_BLOCK 256u

struct link {
	char name[SESSION_NAME_MAX];
	uint64_t incarnation;
	uint32_t pid;  /* of its process, as it sees itself */
	uint64_t host; /* survey_host() */
	uint32_t role;
	bool shared; /* same host: view and marker are there */
	bool writable;
	_Atomic int32_t dead; /* SMEM_PEER_LOST, SMEM_OBJECT_NOT_EXISTS; 0: not known to be */
	struct region_view view;
	struct marker *marker;
	struct agent_peer *agent;
	struct store_watch *watch;
	struct path path; /* ep NULL: only what can be mapped is reached; why says so */
	_Atomic(struct endpoint *) ep; /* of path, for callbacks */
	uint8_t cookie[AGENT_COOKIE];
	pthread_mutex_t lock; /* for the maps */
	struct link_map *all_maps;
	_Atomic(_Atomic(struct link_map *) *) maps[BACKINGS_MAX / LINK_MAP_BLOCK];
	struct link *next; /* of the retired */
};

struct link_open {
	const char *name;
	const struct session_blob *blob;
	struct store *store;
	const _Atomic bool *closing; /* the session's: give up with SMEM_OBJECT_NOT_EXISTS */
	bool own_process;
};

/*
 * Reach the peer of `blob`. Waits for a peer that is paused as long as it lives.
 * SMEM_PEER_LOST, SMEM_STALE (the blob is outdated), SMEM_UNREACHABLE naming every refusal,
 * SMEM_OBJECT_NOT_EXISTS, and failures of the system. Not on a loop's thread.
 */
int32_t link_open(const struct link_open *o, struct link **ret);
void link_close(struct link *l); /* NULL is fine */

/* 0 while it lives; else why not. Any thread, no system call. */
int32_t link_state(const struct link *l);

/* Where `object` is mapped here; NULL: nowhere, use the path. Makes the mapping when it is new. */
const struct link_map *link_map_of(struct link *l, uint64_t object);

#endif
