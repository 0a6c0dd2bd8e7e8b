/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keys that a peer gave us, found by address: the initiator's half of the registration cache.
 * No lock: the link's.
 */
#ifndef TRANSPORT_OFI_KEYS_H
#define TRANSPORT_OFI_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ofi_key {
	uint64_t id;
	uint64_t begin, end; /* addresses of the peer */
	uint64_t rma;	     /* what RMA calls `begin` */
	uint64_t key;
	bool writable;
	bool revoked;	   /* nothing new; the peer waits for the last of what is in flight */
	unsigned inflight; /* operations */
};

struct ofi_keys {
	struct ofi_key **at; /* by begin */
	uint64_t *reach;     /* the largest end of at[0..i] */
	size_t n, cap;
};

/* A copy of *key is kept; one with the same id is replaced. SMEM_MALLOC_FAILED. */
int32_t ofi_keys_add(struct ofi_keys *keys, const struct ofi_key *key);
/* A key that holds the address and is not revoked; NULL: ask the peer. */
struct ofi_key *ofi_keys_find(const struct ofi_keys *keys, uint64_t addr, bool writable);
struct ofi_key *ofi_keys_by_id(const struct ofi_keys *keys, uint64_t id);
void ofi_keys_remove(struct ofi_keys *keys, struct ofi_key *key);
void ofi_keys_clear(struct ofi_keys *keys);

#endif
