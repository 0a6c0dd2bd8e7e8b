/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A registration pins pages. One that outlives them - the user unmaps, and maps something else at
 * the address - would send bytes nobody meant, and nobody tells us when ordinary memory is
 * unmapped. So what is kept is what somebody has to tell us about: memory inside regions that this
 * process exposes, which are the slots of its pools and what its sessions registered. Withdrawing
 * the region, which comes before its memory may go, ends the registration too. Whole regions are
 * registered, or aligned stretches of large ones, because the next operation is likely to use
 * another part. Any other memory is registered for one operation; who wants speed from such a
 * provider registers its buffers.
 *
 * What is kept is bounded by number and by bytes, and the least recently used goes first.
 *
 * Lock order: the list of caches, then a cache, then the table of regions.
 */
#include "transport/ofi_local.h"

#include <rdma/fabric.h>
#include <stdlib.h>
#include <utlist.h>

#include "util/cleanup.h"
#include "util/err.h"
#include "util/limits.h"

static pthread_mutex_t list_lock = PTHREAD_MUTEX_INITIALIZER;
static struct ofi_local *list;

void ofi_local_init(struct ofi_local *c)
{
	*c = (struct ofi_local){.on = false};
	pthread_mutex_init(&c->lock, NULL);
}

void ofi_local_start(struct ofi_local *c, const struct ofi_local_ops *ops, void *arg)
{
	c->ops = ops;
	c->arg = arg;
	c->on = true;
	LOCKED(&list_lock);
	DL_APPEND(list, c);
}

static void reg_free(struct ofi_local *c, struct ofi_local_reg *reg)
{
	c->ops->close(c->arg, reg->mr);
	free(reg);
}

/* Out of the list, and gone unless it is in use. */
static void reg_drop(struct ofi_local *c, struct ofi_local_reg *reg)
{
	DL_DELETE(c->regs, reg);
	c->n--;
	c->bytes -= reg->end - reg->begin;
	reg->cached = false;
	if (reg->users == 0)
		reg_free(c, reg);
}

void ofi_local_stop(struct ofi_local *c)
{
	if (!c->on)
		return;
	pthread_mutex_lock(&list_lock);
	DL_DELETE(list, c);
	pthread_mutex_unlock(&list_lock);
	while (c->regs)
		reg_drop(c, c->regs);
	c->on = false;
}

void ofi_local_destroy(struct ofi_local *c)
{
	ofi_local_stop(c);
	pthread_mutex_destroy(&c->lock);
}

void ofi_local_enter(struct ofi_local *c)
{
	if (c->on)
		pthread_mutex_lock(&c->lock);
}

void ofi_local_leave(struct ofi_local *c)
{
	if (c->on)
		pthread_mutex_unlock(&c->lock);
}

static struct ofi_local_reg *find(struct ofi_local *c, uint64_t begin, uint64_t end,
				  uint64_t access)
{
	struct ofi_local_reg *reg;

	DL_FOREACH(c->regs, reg)
	{
		if (reg->begin <= begin && end <= reg->end && (reg->access & access) == access)
			return reg;
	}
	return NULL;
}

/* Make room for `bytes` more; false: too much is in use. */
static bool make_room(struct ofi_local *c, size_t bytes)
{
	struct ofi_local_reg *reg = c->regs ? c->regs->prev : NULL; /* the last */

	while (c->n >= OFI_LOCAL_REGS || c->bytes + bytes > OFI_LOCAL_BYTES) {
		while (reg && reg->users > 0)
			reg = reg == c->regs ? NULL : reg->prev;
		if (!reg)
			return false;
		struct ofi_local_reg *idle = reg;
		reg = reg == c->regs ? NULL : reg->prev;
		reg_drop(c, idle);
	}
	return true;
}

/* The stretch of an exposed region to be registered for [begin, end). */
static bool stretch(struct ofi_local *c, uint64_t begin, uint64_t end, struct ofi_span *ret)
{
	if (!c->ops->region(begin, end - begin, ret))
		return false;
	ret->begin += (begin - ret->begin) / OFI_LOCAL_SPAN * OFI_LOCAL_SPAN;
	if (ret->end - ret->begin > OFI_LOCAL_SPAN)
		ret->end = ret->begin + OFI_LOCAL_SPAN;
	return end <= ret->end;
}

static int32_t reg_new(struct ofi_local *c, const struct ofi_span *at, uint64_t access,
		       struct ofi_local_reg **ret)
{
	struct ofi_local_reg *reg = calloc(1, sizeof(*reg));

	if (!reg)
		return smem_err(SMEM_MALLOC_FAILED, "registration");
	reg->id = at->id;
	reg->begin = at->begin;
	reg->end = at->end;
	reg->access = access;
	int32_t r = c->ops->open(c->arg, (void *)(uintptr_t)at->begin, at->end - at->begin, access,
				 &reg->mr, &reg->desc);
	if (r != SMEM_OK) {
		free(reg);
		return r;
	}
	*ret = reg;
	return SMEM_OK;
}

int32_t ofi_local_get(struct ofi_local *c, void *addr, size_t len, uint64_t access,
		      struct ofi_local_reg **ret)
{
	struct ofi_span at = {.begin = (uint64_t)(uintptr_t)addr,
			      .end = (uint64_t)(uintptr_t)addr + len},
			whole;
	struct ofi_local_reg *reg = find(c, at.begin, at.end, access);
	int32_t r = SMEM_OK;

	if (reg) {
		DL_DELETE(c->regs, reg);
		DL_PREPEND(c->regs, reg);
	} else if (stretch(c, at.begin, at.end, &whole) && (whole.writable || access == FI_WRITE) &&
		   make_room(c, whole.end - whole.begin) &&
		   reg_new(c, &whole, whole.writable ? FI_WRITE | FI_READ : FI_WRITE, &reg) ==
		       SMEM_OK) {
		reg->cached = true;
		DL_PREPEND(c->regs, reg);
		c->n++;
		c->bytes += whole.end - whole.begin;
	} else { /* also where the whole is more than may be pinned */
		r = reg_new(c, &at, access, &reg);
	}
	if (r != SMEM_OK)
		return r;
	reg->users++;
	*ret = reg;
	return SMEM_OK;
}

void ofi_local_put(struct ofi_local *c, struct ofi_local_reg *reg)
{
	if (--reg->users == 0 && !reg->cached)
		reg_free(c, reg);
}

void ofi_local_withdraw(uint64_t id)
{
	struct ofi_local_reg *reg, *next;
	struct ofi_local *c;

	LOCKED(&list_lock);
	DL_FOREACH(list, c)
	{
		pthread_mutex_lock(&c->lock);
		DL_FOREACH_SAFE(c->regs, reg, next)
		{
			if (reg->id == id)
				reg_drop(c, reg);
		}
		pthread_mutex_unlock(&c->lock);
	}
}

void ofi_local_forget(void)
{
	pthread_mutex_init(&list_lock, NULL);
	list = NULL;
}
