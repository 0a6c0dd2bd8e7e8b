/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How bytes reach a peer. A transport never touches the store: core carries its address (a blob) to
 * the peers. transport_table[] is ordered, best first; core offers each peer to them in turn and
 * keeps the first that takes it.
 *
 * All functions may be called from any thread but a loop's. put and get run in parallel.
 */
#ifndef TRANSPORT_TRANSPORT_H
#define TRANSPORT_TRANSPORT_H

#include <stddef.h>
#include <stdint.h>

#include "device/device.h"
#include "device/fdpass.h"
#include "util/clock.h"

#define TRANSPORT_ADDR_MAX 256 /* bytes of one transport's address */

struct transport;
struct endpoint; /* one peer as one transport reaches it; starts with this header */

struct transport_peer {
	const struct agent_addr *agent; /* of the peer's process */
	struct agent_peer *agent_conn;	/* NULL: not reachable through its agent */
	const void *addr; /* the peer's address blob for this transport; NULL: it has none */
	size_t addr_len;
	uint64_t incarnation;  /* of the peer */
	const uint8_t *secret; /* 16 bytes both got through the store */
	const char *name;      /* for messages: "rank 3", "session 10.0.0.1:9" */
};

struct transport_ops {
	const char *name; /* "direct", "cma", "ofi" */

	/*
	 * Bring the transport up for this process, once; refcounted by the caller's table. `route`
	 * is the local address of the connection to the store (may be NULL). SMEM_NOT_SUPPORTED
	 * with the reason when this machine has none.
	 */
	int32_t (*start)(const void *route, size_t route_len);
	void (*stop)(void);

	/* The own address for peers; *len in: capacity, out: bytes. 0 bytes: peers need none. */
	int32_t (*address)(void *buf, size_t *len);

	/*
	 * Let peers that know `secret` reach [addr, addr + len) of this process under `id`, until
	 * withdraw returns. O(1) in len; may be lazy. withdraw waits for or cuts off what is in
	 * flight, at most until the deadline (SMEM_RESOURCE_IN_USE). Both NULL where the transport
	 * needs neither. writable 0: peers may read only.
	 */
	int32_t (*expose)(uint64_t id, void *addr, size_t len, int writable,
			  const uint8_t secret[16]);
	int32_t (*withdraw)(uint64_t id, struct deadline deadline);

	/*
	 * Can this transport reach the peer? Proves it with a real access. SMEM_UNREACHABLE with
	 * the reason means "no"; anything else is a failure. Nothing is logged; core says which
	 * path was taken and why better ones were not.
	 */
	int32_t (*connect)(const struct transport_peer *peer, struct deadline deadline,
			   struct endpoint **ret);
	void (*close)(struct endpoint *ep); /* nothing is in flight; NULL is fine */

	/*
	 * Move all pieces: put writes to x.dst in the peer, get reads x.src from the peer; the
	 * other side is local memory. Remote addresses are those the peer itself uses. Returns when
	 * every byte is applied and visible at the target (put) or here (get), or with an error
	 * after which nothing of the call moves any more: SMEM_PEER_LOST, SMEM_UNREACHABLE,
	 * SMEM_STALE (withdrawn), SMEM_IO; detail names peer, range and cause. n >= 1; ranges are
	 * the caller's business, but a transport that asks the peer for regions (ofi) says
	 * SMEM_INVALID_PARAM before the first byte moves when not all of it is exposed.
	 */
	int32_t (*put)(struct endpoint *ep, const struct smem_xfer *x, size_t n);
	int32_t (*get)(struct endpoint *ep, const struct smem_xfer *x, size_t n);

	/*
	 * The peer's death or a broken link was learnt elsewhere: calls in flight and later ones
	 * end with SMEM_PEER_LOST, soon. Any thread, a loop's too; never blocks.
	 */
	void (*abandon)(struct endpoint *ep);

	/*
	 * By what of several kinds the peer is reached, for people: a libfabric provider. Any
	 * thread, a loop's too; never blocks. NULL: there is one kind only.
	 */
	void (*via)(struct endpoint *ep, char *buf, size_t cap);
};

struct endpoint {
	const struct transport_ops *ops;
};

extern const struct transport_ops
    transport_direct; /* memory is mapped here at the address the peer uses */
extern const struct transport_ops transport_cma; /* process_vm_readv/writev */
extern const struct transport_ops transport_ofi; /* libfabric */

/* Best first, NULL at the end. */
extern const struct transport_ops *const transport_table[];

#endif
