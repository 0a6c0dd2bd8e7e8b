/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Group exit: the first announced status of an object reaches every rank that watches for it, in a
 * thread of its own. The status lies where the announcer's death cannot undo it: in the control
 * page, or in this process when the news comes through the store.
 */
#ifndef CORE_EXIT_H
#define CORE_EXIT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* The place of the status: a futex beside it changes whenever a watcher should look. */
struct exit_place {
	_Atomic uint64_t *status;
	_Atomic uint32_t *tick;
};

/* Announce; false: there is an earlier announcement. Never blocks. */
bool exit_announce(struct exit_place place, int status);

/* Make watchers look: the announcer may have died between its two steps. Never blocks. */
void exit_nudge(struct exit_place place);

/*
 * Call fn(status) once, on an internal thread, when it is announced, at once if it is already. The
 * place must outlive exit_unwatch(), which must not be called before this has returned.
 * SMEM_NEW_OBJECT_FAILED, SMEM_MALLOC_FAILED.
 */
struct exit_watch;
int32_t exit_watch(struct exit_place place, void (*fn)(int), struct exit_watch **ret);

/* After return fn does not start any more; it may still run, and may be who calls this. NULL is
 * fine. */
void exit_unwatch(struct exit_watch *w);

#endif
