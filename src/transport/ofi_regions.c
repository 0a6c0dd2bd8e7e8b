/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A peer asks by address, so that one question serves pools (one region a window) and sessions (any
 * number of regions, overlapping or adjoining). Questions are rare, since peers remember the
 * answers: a walk through the table is good enough.
 *
 * Lock order: the table's lock, then a port's.
 */
#include "transport/ofi_regions.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>

#include "util/cleanup.h"
#include "util/err.h"

struct key {
	struct key *next;
	struct ofi_port *port;
	struct ofi_ep *ep; /* NULL: good for all endpoints of the port */
	struct fid_mr *mr;
	uint64_t rma;
};

struct region {
	uint64_t id;
	char *addr;
	size_t len;
	bool writable;
	bool hidden;
	unsigned awaited;
	uint8_t secret[16];
	struct key *keys;
	UT_hash_handle hh;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t released = PTHREAD_COND_INITIALIZER;
static struct region *table;

static struct region *find(uint64_t id)
{
	struct region *r;

	HASH_FIND(hh, table, &id, sizeof(id), r);
	return r;
}

int32_t ofi_regions_add(uint64_t id, void *addr, size_t len, bool writable,
			const uint8_t secret[16])
{
	LOCKED(&lock);
	if (find(id))
		return smem_err(SMEM_DUPLICATED_OBJECT, "region %" PRIx64 " is exposed already",
				id);
	struct region *r = calloc(1, sizeof(*r));
	if (!r)
		return smem_err(SMEM_MALLOC_FAILED, "region %p + %zu", addr, len);
	*r = (struct region){.id = id, .addr = addr, .len = len, .writable = writable};
	memcpy(r->secret, secret, sizeof(r->secret));
	HASH_ADD(hh, table, id, sizeof(r->id), r);
	return SMEM_OK;
}

static struct region *best(uint64_t addr, const uint8_t code[OFI_CODE], const struct ofi_nonces *n)
{
	struct region *found = NULL, *r, *tmp;
	uint8_t want[OFI_CODE];

	HASH_ITER (hh, table, r, tmp) {
		uint64_t begin = (uint64_t)(uintptr_t)r->addr;
		if (r->hidden || addr < begin || addr - begin >= r->len)
			continue;
		if (found && begin + r->len <= (uint64_t)(uintptr_t)found->addr + found->len)
			continue;
		ofi_code(r->secret, sizeof(r->secret), "open", n, addr, want);
		if (ofi_code_equal(want, code))
			found = r;
	}
	return found;
}

static int32_t key_make(struct region *r, struct ofi_port *port, struct ofi_ep *bind,
			struct key **ret)
{
	uint64_t access = FI_REMOTE_READ | (r->writable ? FI_REMOTE_WRITE : 0);
	struct key *k = calloc(1, sizeof(*k));

	if (!k)
		return smem_err(SMEM_MALLOC_FAILED, "memory key");
	*k = (struct key){.port = port, .ep = bind};
	pthread_mutex_lock(&port->lock);
	int32_t e = ofi_memory_open(&port->dom, bind, r->addr, r->len, access, &k->mr, &k->rma);
	pthread_mutex_unlock(&port->lock);
	if (e != SMEM_OK) {
		free(k);
		return e;
	}
	k->next = r->keys;
	r->keys = k;
	*ret = k;
	return SMEM_OK;
}

static int32_t key_for(struct region *r, struct ofi_port *port, struct ofi_ep *ep, struct key **ret)
{
	const struct fi_domain_attr *attr = port->dom.offer->info->domain_attr;
	struct ofi_ep *bind = attr->mr_mode & FI_MR_ENDPOINT ? ep : NULL;

	for (struct key *k = r->keys; k; k = k->next) {
		if (k->port == port && k->ep == bind) {
			*ret = k;
			return SMEM_OK;
		}
	}
	return key_make(r, port, bind, ret);
}

int32_t ofi_regions_resolve(uint64_t addr, const uint8_t code[OFI_CODE],
			    const struct ofi_nonces *nonces, struct ofi_port *port,
			    struct ofi_ep *ep, struct ofi_region *ret, uint8_t ret_secret[16])
{
	struct key *k = NULL;

	LOCKED(&lock);
	struct region *r = best(addr, code, nonces);
	if (!r)
		return smem_err(SMEM_STALE, "0x%" PRIx64 " is not exposed to the peer", addr);
	int32_t e = key_for(r, port, ep, &k);
	if (e != SMEM_OK)
		return e;
	ret->id = r->id;
	ret->begin = (uint64_t)(uintptr_t)r->addr;
	ret->end = ret->begin + r->len;
	ret->rma = k->rma;
	ret->key = fi_mr_key(k->mr);
	ret->writable = r->writable;
	memcpy(ret_secret, r->secret, sizeof(r->secret));
	return SMEM_OK;
}

bool ofi_regions_holds(uint64_t addr, size_t len, struct ofi_span *ret)
{
	struct region *r, *tmp;
	uint64_t furthest = 0;

	LOCKED(&lock);
	HASH_ITER (hh, table, r, tmp) {
		uint64_t begin = (uint64_t)(uintptr_t)r->addr, end = begin + r->len;
		if (r->hidden || addr < begin || addr + len > end || end <= furthest)
			continue;
		furthest = end;
		*ret = (struct ofi_span){
		    .id = r->id, .begin = begin, .end = end, .writable = r->writable};
	}
	return furthest > 0;
}

bool ofi_regions_hide(uint64_t id)
{
	LOCKED(&lock);
	struct region *r = find(id);
	if (r)
		r->hidden = true;
	return r != NULL;
}

void ofi_regions_await(uint64_t id, unsigned peers)
{
	LOCKED(&lock);
	struct region *r = find(id);
	if (r)
		r->awaited += peers;
}

void ofi_regions_released(uint64_t id)
{
	LOCKED(&lock);
	struct region *r = find(id);
	if (r && r->awaited > 0 && --r->awaited == 0)
		pthread_cond_broadcast(&released);
}

bool ofi_regions_wait(uint64_t id, struct deadline deadline)
{
	struct timespec until = deadline_timespec(deadline);
	struct region *r;
	int err = 0;

	LOCKED(&lock);
	while ((r = find(id)) && r->awaited > 0 && err == 0)
		err = pthread_cond_clockwait(&released, &lock, CLOCK_MONOTONIC, &until);
	return !r || r->awaited == 0;
}

static void key_close(struct key *k)
{
	pthread_mutex_lock(&k->port->lock);
	fi_close(&k->mr->fid);
	pthread_mutex_unlock(&k->port->lock);
	free(k);
}

static void region_free(struct region *r)
{
	while (r->keys) {
		struct key *k = r->keys;
		r->keys = k->next;
		key_close(k);
	}
	HASH_DELETE(hh, table, r);
	free(r);
}

void ofi_regions_remove(uint64_t id)
{
	LOCKED(&lock);
	struct region *r = find(id);
	if (r)
		region_free(r);
}

void ofi_regions_unbind(struct ofi_port *port, struct ofi_ep *ep)
{
	struct region *r, *tmp;

	LOCKED(&lock);
	HASH_ITER (hh, table, r, tmp) {
		for (struct key **at = &r->keys; *at;) {
			struct key *k = *at;
			if (k->ep != ep && !(port->single && k->port == port)) {
				at = &k->next;
				continue;
			}
			*at = k->next;
			key_close(k);
		}
	}
}

void ofi_regions_clear(void)
{
	struct region *r, *tmp;

	LOCKED(&lock);
	HASH_ITER (hh, table, r, tmp)
		region_free(r);
}

void ofi_regions_forget(void)
{
	pthread_mutex_init(&lock, NULL);
	pthread_cond_init(&released, NULL);
	table = NULL;
}
