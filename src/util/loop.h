/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An event loop: one libevent base, one thread. libevent runs without locks here: everything that
 * touches the base or a bufferevent runs on the loop's thread; other threads hand work over with
 * loop_post() or loop_call().
 *
 * Callbacks on a loop never block: no wait on another thread, no disk, no DNS, no mapping of large
 * memory.
 *
 * Fork: the loops are parked around it (their threads wait between two callbacks), and are gone in
 * the child.
 */
#ifndef UTIL_LOOP_H
#define UTIL_LOOP_H

#include <stdbool.h>
#include <stdint.h>

struct event_base;
struct loop;

/* Start a loop with a thread `name` (at most 15 bytes). SMEM_NEW_OBJECT_FAILED, SMEM_MALLOC_FAILED.
 */
int32_t loop_create(const char *name, struct loop **ret);

/*
 * Run what was posted, stop the thread and free the base. Every event on the base must have been
 * freed by then (do so in a loop_call()). NULL is fine. Never from the loop's own thread. In a
 * forked child: does nothing.
 */
void loop_destroy(struct loop *loop);

/* The base, for the loop's own thread only. */
struct event_base *loop_base(struct loop *loop);

bool loop_inside(const struct loop *loop);

/* Run fn(arg) on the loop soon, in the order posted. Any thread, never blocks. SMEM_MALLOC_FAILED.
 */
int32_t loop_post(struct loop *loop, void (*fn)(void *arg), void *arg);

/* Run fn(arg) on the loop and wait for its end; straight away when already on the loop. Never
 * fails. */
void loop_call(struct loop *loop, void (*fn)(void *arg), void *arg);

/*
 * The process's shared I/O loop (store clients, agent): started by the first get, stopped by the
 * last put. Never from a loop's thread.
 */
int32_t loop_io_get(struct loop **ret);
void loop_io_put(struct loop *loop);

#endif
