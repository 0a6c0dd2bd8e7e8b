/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Peers whose memory is mapped here at the address the peer uses: a put is a copy by the device.
 * Who mapped it (core/segment.c) has proven that it is the peer's. A mapping outlives its owner, so
 * a copy can never fault; that the owner is gone is learnt elsewhere and told by abandon().
 */
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "device/crew.h"
#include "transport/transport.h"
#include "util/err.h"

struct direct {
	struct endpoint base;
	_Atomic bool abandoned;
	char name[64];
};

static int32_t direct_start(const void *route, size_t route_len)
{
	(void)route;
	(void)route_len;
	crew_get();
	return SMEM_OK;
}

static void direct_stop(void)
{
	crew_put();
}

static int32_t direct_address(void *buf, size_t *len)
{
	(void)buf;
	*len = 0;
	return SMEM_OK;
}

static int32_t direct_connect(const struct transport_peer *peer, struct deadline deadline,
			      struct endpoint **ret)
{
	(void)deadline;
	if (!peer->agent_conn)
		return smem_err(SMEM_UNREACHABLE, "its memory cannot be mapped here");
	struct direct *d = calloc(1, sizeof(*d));
	if (!d)
		return smem_err(SMEM_MALLOC_FAILED, "path to %s", peer->name);
	d->base.ops = &transport_direct;
	snprintf(d->name, sizeof(d->name), "%s", peer->name);
	*ret = &d->base;
	return SMEM_OK;
}

static void direct_close(struct endpoint *ep)
{
	free(ep);
}

static int32_t direct_copy(struct endpoint *ep, const struct smem_xfer *x, size_t n)
{
	struct direct *d = (struct direct *)ep;

	if (atomic_load_explicit(&d->abandoned, memory_order_relaxed))
		return smem_err(SMEM_PEER_LOST, "%s is lost; range [%p, +%zu) and %zu more",
				d->name, x->dst, x->width, n - 1);
	device_host.copy(x, n);
	return SMEM_OK;
}

static void direct_abandon(struct endpoint *ep)
{
	atomic_store(&((struct direct *)ep)->abandoned, true);
}

const struct transport_ops transport_direct = {
    .name = "direct",
    .start = direct_start,
    .stop = direct_stop,
    .address = direct_address,
    .connect = direct_connect,
    .close = direct_close,
    .put = direct_copy,
    .get = direct_copy,
    .abandon = direct_abandon,
};
