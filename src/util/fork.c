/* SPDX-License-Identifier: Apache-2.0 */
/* One pthread_atfork() registration for the library; the table is filled by constructors, then only
 * read. */
#include "util/fork.h"

#include <pthread.h>
#include <stddef.h>
#include <string.h>

#define HOOKS_MAX 32

static const struct fork_hooks *table[HOOKS_MAX];
static size_t count;

static void run(enum fork_order order, size_t offset)
{
	for (size_t i = 0; i < count; i++) {
		void (*fn)(void);
		if (table[i]->order != order)
			continue;
		memcpy(&fn, (const char *)table[i] + offset, sizeof(fn));
		if (fn)
			fn();
	}
}

static void run_prepare(void)
{
	for (int order = FORK_ORDER_COUNT - 1; order >= 0; order--)
		run((enum fork_order)order, offsetof(struct fork_hooks, prepare));
}

static void run_parent(void)
{
	for (int order = 0; order < FORK_ORDER_COUNT; order++)
		run((enum fork_order)order, offsetof(struct fork_hooks, parent));
}

static void run_child(void)
{
	for (int order = FORK_ORDER_COUNT - 1; order >= 0; order--)
		run((enum fork_order)order, offsetof(struct fork_hooks, child));
}

void fork_register(const struct fork_hooks *hooks)
{
	if (count == 0)
		pthread_atfork(run_prepare, run_parent, run_child);
	if (count < HOOKS_MAX)
		table[count++] = hooks;
}
