/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Registrations of local memory, for providers that want the memory of the initiator registered
 * too (FI_MR_LOCAL: verbs, efa). One cache a domain.
 */
#ifndef TRANSPORT_OFI_LOCAL_H
#define TRANSPORT_OFI_LOCAL_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ofi_span { /* a region this process exposes, so that we are told when it goes */
	uint64_t id;
	uint64_t begin, end;
	bool writable;
};

struct ofi_local_ops { /* what a domain does; a fake in tests */
	int32_t (*open)(void *arg, void *addr, size_t len, uint64_t access, void **ret_mr,
			void **ret_desc);
	void (*close)(void *arg, void *mr);
	/* The largest exposed region that holds all of it. */
	bool (*region)(uint64_t addr, size_t len, struct ofi_span *ret);
};

struct ofi_local_reg {
	struct ofi_local_reg *prev, *next;
	uint64_t id;	     /* of the region it lies in */
	uint64_t begin, end; /* what it covers */
	uint64_t access;
	unsigned users; /* operations in flight */
	bool cached;	/* in the list; else it goes with its last user */
	void *mr;
	void *desc;
};

struct ofi_local {
	struct ofi_local *prev, *next; /* of all caches */
	const struct ofi_local_ops *ops;
	void *arg;
	bool on; /* the lead's: the provider wants it */
	pthread_mutex_t lock;
	struct ofi_local_reg *regs; /* most recently used first */
	size_t n, bytes;
};

void ofi_local_init(struct ofi_local *c);
/* For a domain that was opened, and before it is closed: nothing is in flight then. */
void ofi_local_start(struct ofi_local *c, const struct ofi_local_ops *ops, void *arg);
void ofi_local_stop(struct ofi_local *c); /* twice is fine */
void ofi_local_destroy(struct ofi_local *c);

/*
 * Around every use of the domain, since a withdrawal closes registrations from another thread and
 * domains are used by one at a time. Costs nothing where the provider wants no local registrations.
 */
void ofi_local_enter(struct ofi_local *c);
void ofi_local_leave(struct ofi_local *c);

/* Between enter and leave: a registration that covers the memory for FI_WRITE (the source of a
 * write) or FI_READ (the destination of a read); and the end of the operation that used it. */
int32_t ofi_local_get(struct ofi_local *c, void *addr, size_t len, uint64_t access,
		      struct ofi_local_reg **ret);
void ofi_local_put(struct ofi_local *c, struct ofi_local_reg *reg);

/* The region is exposed no more: no domain keeps a registration in it, but for operations that are
 * in flight. The table of regions does not find it any more. */
void ofi_local_withdraw(uint64_t id);

void ofi_local_forget(void); /* after fork, in the child */

#endif
