/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a fork means to the modules that hold process-wide state.
 *
 * A module puts one static struct fork_hooks in FORK_HOOKS(). Around every fork(2) of the process,
 * `prepare` and, in the child, `child` run in descending order of `order` (services first, leaves
 * last); in the parent `parent` runs in ascending order.
 *
 * `child` drops everything the module holds: nobody holds a lock any more (initialise it anew), no
 * thread but the caller exists, memory of the parent's objects is simply forgotten, descriptors are
 * closed by util/fd. Since all is dropped it does not matter whether it was half changed, so most
 * modules have no `prepare`. Only a leaf may take a lock there, and never one under which another
 * lock is taken: a loop's thread that waits for it cannot be parked.
 */
#ifndef UTIL_FORK_H
#define UTIL_FORK_H

enum fork_order {
	FORK_ORDER_GATE,   /* which thread counts where */
	FORK_ORDER_FD,	   /* descriptors: closed after the loops let go of them */
	FORK_ORDER_LOOP,   /* event loops */
	FORK_ORDER_DEVICE, /* agents, arenas */
	FORK_ORDER_STORE,  /* store objects */
	FORK_ORDER_CORE,   /* pools, sessions */
	FORK_ORDER_API,	   /* services, handles */
	FORK_ORDER_COUNT
};

struct fork_hooks {
	enum fork_order order;
	void (*prepare)(void);
	void (*parent)(void);
	void (*child)(void);
};

/* Called by FORK_HOOKS before main or when the library is loaded. */
void fork_register(const struct fork_hooks *hooks);

#define FORK_HOOKS(h)                                                                              \
	__attribute__((constructor)) static void h##_register(void)                                \
	{                                                                                          \
		fork_register(&h);                                                                 \
	}

#endif
