/* SPDX-License-Identifier: Apache-2.0 */
/* Internal threads: named, with all signals blocked (so the application's handlers never run on
 * them). */
#ifndef UTIL_THREAD_H
#define UTIL_THREAD_H

#include <pthread.h>
#include <stdint.h>

/* Start fn(arg). `name` at most 15 bytes. 0, or SMEM_NEW_OBJECT_FAILED recorded. Join with
 * pthread_join(). */
int32_t thread_start(pthread_t *ret, const char *name, void *(*fn)(void *), void *arg);

/* Conditions that wait on the monotonic clock come from PTHREAD_COND_INITIALIZER and
 * pthread_cond_clockwait(). */

#endif
