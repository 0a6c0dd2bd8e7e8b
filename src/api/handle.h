/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handles: generation-tagged numbers in a void *, looked up without a lock and never dereferenced.
 * Entries live in memory that is never freed, so a look-up of any value whatever is safe, and
 * destroy can wait until every call that is inside has left. A value does not come back within
 * 2^32 creations.
 *
 * An entry has two gates. Calls that only move data or read go through the first: handle_enter().
 * Calls that wait for others (join, leave, barrier) go through the second: handle_hold(), so that
 * they may themselves drain the first one, which is what unmapping memory under running copies
 * takes.
 *
 *   entering:   obj = handle_enter(HANDLE_BM, h, &ref); if (!obj) ...; use obj; handle_exit(&ref);
 *   waiting:    the same with handle_hold()
 *   destroying: obj = handle_retire(HANDLE_BM, h) (NULL: somebody else did); wake waits in obj;
 *               handle_drain(h); free obj; handle_free(h);
 */
#ifndef API_HANDLE_H
#define API_HANDLE_H

#include <stdbool.h>
#include <stdint.h>

#include "util/gate.h"

enum handle_kind { HANDLE_BM = 1, HANDLE_SHM = 2, HANDLE_TRANS = 3 };

struct handle_ref {
	struct gate *gate;
	uint32_t ticket;
};

/*
 * A new handle of obj. obj NULL: the number is taken but looks unknown until handle_publish(), so
 * that an object can know its gate before anybody can reach it. SMEM_NEW_OBJECT_FAILED when 65536
 * are alive.
 */
int32_t handle_new(enum handle_kind kind, void *obj, void **ret);
void handle_publish(void *handle, void *obj);

/* The first gate: what drains of the object's own memory use, one at a time. Valid for good. */
struct gate *handle_gate(void *handle);

/* NULL: no such handle of this kind. Any thread, never blocks. */
void *handle_enter(enum handle_kind kind, void *handle, struct handle_ref *ref);
void *handle_hold(enum handle_kind kind, void *handle, struct handle_ref *ref);
void handle_exit(struct handle_ref *ref); /* of either */

/* Destroyed meanwhile? For calls that wait inside: they then return SMEM_OBJECT_NOT_EXISTS. */
bool handle_retired(void *handle);

/* From now on unknown to newcomers. The object; NULL when unknown, retired, or not published. */
void *handle_retire(enum handle_kind kind, void *handle);
/* Wait for all callers inside; they end by themselves: data movement, or woken waits. */
void handle_drain(void *handle);
void handle_free(void *handle); /* retired, or never published */

/* Call fn(handle, arg) for every published handle of a kind; fn may retire and free it. For uninit.
 */
void handle_each(enum handle_kind kind, void (*fn)(void *handle, void *arg), void *arg);

#endif
