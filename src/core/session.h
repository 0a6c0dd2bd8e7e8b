/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A session: a named endpoint of TRANS, its registrations, and the peers it has written to.
 *
 * Any thread but a loop's. session_transfer() runs in parallel with everything; the caller's handle
 * keeps the session alive during a call. Codes and texts are those of 12 in the specification.
 */
#ifndef CORE_SESSION_H
#define CORE_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "smem_trans_def.h"
#include "util/clock.h"

struct session;

struct session_config {
	const char *store_url;
	const char *name;
	smem_trans_role_t role;
	uint32_t device; /* recorded */
	uint32_t timeout_s;
};

/* SMEM_INVALID_PARAM, SMEM_DUPLICATED_OBJECT, SMEM_TIMEOUT, and what network and memory may add.
 * Blocks until the deadline. */
int32_t session_create(const struct session_config *c, struct session **ret);

/* Waits that only the session's end can end return SMEM_OBJECT_NOT_EXISTS from now on. */
void session_wake(struct session *s);
/* Nobody is inside. Withdraws all, waiting at most 5 s for writes in flight; never for the lost. */
void session_destroy(struct session *s);

/* n registrations or none. SMEM_DUPLICATED_OBJECT, SMEM_UNREACHABLE, SMEM_MALLOC_FAILED. */
int32_t session_register(struct session *s, void *const *addr, const size_t *len, uint32_t n);
/* SMEM_OBJECT_NOT_EXISTS; SMEM_RESOURCE_IN_USE after 5 s. */
int32_t session_deregister(struct session *s, void *addr);

/* The elements of a batch: remote[i] is as the peer sees it. read: from remote to local. */
struct session_batch {
	const char *peer;
	void *const *local;
	void *const *remote;
	const size_t *len;
	uint32_t n;
	bool read;
};

/*
 * Move all. SMEM_INVALID_PARAM: the peer's name is malformed, a range wraps or is not registered
 * (nothing is written); SMEM_OBJECT_NOT_EXISTS, SMEM_PEER_LOST, SMEM_STALE, SMEM_UNREACHABLE,
 * SMEM_IO. After the return nothing of it moves any more.
 */
int32_t session_transfer(struct session *s, const struct session_batch *b);

#endif
