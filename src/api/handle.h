/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handles: generation-tagged numbers in a void *, looked up without a lock and never dereferenced.
 * Entries live in memory that is never freed, one gate each, so a look-up of any value whatever is
 * safe, and destroy can wait until every call that is inside has left. A value comes back only
 * after more than 2^16 creations.
 *
 *   entering:   obj = handle_enter(HANDLE_BM, h, &ref); if (!obj) ...; use obj; handle_exit(&ref);
 *   destroying: obj = handle_retire(HANDLE_BM, h) (NULL: somebody else did); wake waits in obj;
 *               handle_drain(h); free obj; handle_free(h);
 */
#ifndef API_HANDLE_H
#define API_HANDLE_H

#include <stdint.h>

#include "util/gate.h"

enum handle_kind { HANDLE_BM = 1, HANDLE_SHM = 2, HANDLE_TRANS = 3 };

struct handle_ref {
	struct gate *gate;
	uint32_t ticket;
};

/* SMEM_NEW_OBJECT_FAILED when 65536 objects are alive. */
int32_t handle_new(enum handle_kind kind, void *obj, void **ret);
/* The gate that guards the object: what its own drains use too. Valid for good. */
struct gate *handle_gate(void *handle);

void *handle_enter(enum handle_kind kind, void *handle, struct handle_ref *ref);
void handle_exit(struct handle_ref *ref);

void *handle_retire(enum handle_kind kind, void *handle);
void handle_drain(
    void *handle); /* callers in flight end by themselves: data movement, or woken waits */
void handle_free(void *handle);

/* Call fn(handle, arg) for every live handle of a kind; fn may retire and free it. For uninit. */
void handle_each(enum handle_kind kind, void (*fn)(void *handle, void *arg), void *arg);

#endif
