/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A symmetric object: a pool that all ranks create together, with collectives, extra contexts and
 * group exit. Ranks on one host share a control page for these; when the ranks are spread over
 * hosts, one of each host goes to the store for all of it.
 *
 * Any thread but a loop's. Codes not listed are those of the pool and the store.
 */
#ifndef CORE_SYMMETRIC_H
#define CORE_SYMMETRIC_H

#include <stdbool.h>
#include <stdint.h>

#include "store/store.h"
#include "util/clock.h"
#include "util/gate.h"

struct symmetric_config {
	uint32_t id;
	uint32_t size; /* ranks */
	uint32_t rank;
	uint64_t bytes;	     /* of a slot */
	struct store *store; /* outlives the object */
	struct gate *gate;   /* what calls that use the slots pass */
};

enum symmetric_reach { SYMMETRIC_MAPPED = 1, SYMMETRIC_FABRIC = 2 };

struct symmetric;

/* The store that the ranks meet at, hosted here or not; codes of store_open(). The end lingers for
 * clients of a hosted one. */
int32_t symmetric_store_open(const struct store_url *url, bool host, struct deadline deadline,
			     struct store **ret);
void symmetric_store_close(struct store *store);

/* Make the object: memory and address, nobody else is needed. Undoes itself. */
int32_t symmetric_new(const struct symmetric_config *config, struct deadline deadline,
		      struct symmetric **ret);

/*
 * Meet the others; returns when all ranks have mapped all. SMEM_INVALID_PARAM, SMEM_TIMEOUT,
 * SMEM_PEER_LOST, naming ranks and values; what one rank could not do fails all with its code and
 * its name. SMEM_OBJECT_NOT_EXISTS after symmetric_wake(). After a failure only symmetric_free().
 */
int32_t symmetric_meet(struct symmetric *s, struct deadline deadline);

/* Before leaving: tell ranks on other hosts of deaths that only this host may know of. Waits for
 * the store, half a second at most. */
void symmetric_tell_losses(struct symmetric *s);

/* Leave: waits in here end with SMEM_OBJECT_NOT_EXISTS, collectives of the others fail. */
void symmetric_wake(struct symmetric *s);

/* After symmetric_wake(), when nobody is inside any more. Waits for no rank. NULL is fine. */
void symmetric_free(struct symmetric *s);

uint32_t symmetric_rank(const struct symmetric *s);
uint32_t symmetric_size(const struct symmetric *s);
char *symmetric_base(const struct symmetric *s);

/* As collective.h. */
int32_t symmetric_barrier(struct symmetric *s, struct deadline deadline);
int32_t symmetric_allgather(struct symmetric *s, const void *send, uint32_t len, void *recv,
			    struct deadline deadline);

/* As context.h; SMEM_PEER_LOST when the rank is gone. */
int32_t symmetric_set_context(struct symmetric *s, const void *buf, uint32_t len,
			      struct deadline deadline);
int32_t symmetric_get_context(struct symmetric *s, uint32_t rank, void *buf, uint32_t *len,
			      struct deadline deadline);

/* Bits of enum symmetric_reach; 0: the rank is gone. Never blocks. */
uint32_t symmetric_reach(const struct symmetric *s, uint32_t rank);

/* SMEM_REPEAT_CALL; see exit.h. */
int32_t symmetric_on_exit(struct symmetric *s, void (*fn)(int));
/* The first counts; later ones are logged. SMEM_UNREACHABLE. */
int32_t symmetric_exit(struct symmetric *s, int status, struct deadline deadline);

#endif
