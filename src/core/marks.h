/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Marks of what is in flight, in memory shared by a session and its peers on the same host.
 *
 * An initiator marks a range before it looks whether the range is registered, and takes the mark
 * away when the bytes have landed. The owner withdraws the range and then waits for every mark that
 * was there (Dekker: both sides store, then look, in one total order). What it never waits for is
 * the mark of a dead process: a slot belongs to whoever holds a lock of the file on it (open file
 * description lock), and the kernel lets go of that only after the last thread of the process has
 * ended - so when the lock is gone no byte of the mark's owner can land any more, and a reused pid
 * means nothing.
 *
 * Any thread. Not inherited by fork.
 */
#ifndef CORE_MARKS_H
#define CORE_MARKS_H

#include <stdint.h>

#include "util/clock.h"

/* ---- the owner's side ---- */

struct marks;

int32_t marks_create(struct marks **ret); /* SMEM_MALLOC_FAILED, SMEM_NEW_OBJECT_FAILED, SMEM_IO */
void marks_destroy(struct marks *m);	  /* NULL is fine */
int marks_fd(const struct marks *m);	  /* the memfd; borrowed */

/*
 * Wait until no mark made before the call touches [begin, end). SMEM_RESOURCE_IN_USE naming the
 * process when one is still there at the deadline. What was withdrawn must have been so before.
 */
int32_t marks_await(struct marks *m, uint64_t begin, uint64_t end, struct deadline deadline);

/* ---- the initiator's side ---- */

struct marker;	 /* one peer's marks, opened by this process */
struct mark_ref; /* one call in flight */

/* fd is not consumed. SMEM_IO: not a file of marks, or /proc is missing; SMEM_MALLOC_FAILED. */
int32_t marker_open(int fd, struct marker **ret);
void marker_close(struct marker *m); /* nothing is marked; NULL is fine */

/*
 * Take a slot for a call; then mark, work, unmark as often as wanted, and give it back.
 * SMEM_NEW_OBJECT_FAILED when all slots of the peer are taken.
 */
int32_t marker_take(struct marker *m, struct mark_ref **ret);
void marker_give(struct mark_ref *ref);

void mark_set(struct mark_ref *ref, uint64_t begin, uint64_t end);
void mark_clear(struct mark_ref *ref);

#endif
