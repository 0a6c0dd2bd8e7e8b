/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Helper threads for large copies: one crew a process, used only while CPUs are idle.
 * ENV_COPY_THREADS says how many at most. They start with the first work, sleep in between, and end
 * with the last crew_put().
 */
#ifndef DEVICE_CREW_H
#define DEVICE_CREW_H

#include <stddef.h>

/* Take and drop a reference; without one nobody helps. Cannot fail. Never from a loop's thread. */
void crew_get(void);
void crew_put(void);

/* How many helpers crew_run() would find idle CPUs for now; cheap enough for every large copy. */
unsigned crew_spare(void);

/*
 * Run fn(arg, 0) .. fn(arg, parts - 1), each once, on the caller and on up to `helpers` others, and
 * return when all have ended. fn must neither block nor fail. Any thread; one crowd at a time gets
 * help, others do their work alone.
 */
void crew_run(void (*fn)(void *arg, size_t part), void *arg, size_t parts, unsigned helpers);

#endif
