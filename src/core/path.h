/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Paths: the transports of this process, and which of them leads to a peer. The transports of
 * transport_table[] come up with the first paths_get() and go with the last paths_put(); one that
 * cannot start on this machine is left out and the reason kept. A peer is offered to them in the
 * table's order; the first that takes it is its path, and why the better ones did not is kept for
 * messages.
 *
 * Any thread but a loop's. Used by pools and by sessions alike.
 */
#ifndef CORE_PATH_H
#define CORE_PATH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "transport/transport.h"

#define PATH_ADDRS_MAX	 1024u /* bytes of all transports' addresses together */
#define PATH_WHY_MAX	 384u
#define PATH_REFUSED_MAX 4u

/* route: the local address of the connection to the store; the first caller's counts. */
int32_t paths_get(const void *route, size_t route_len);
void paths_put(void);

/* A store of this process is TLS: warn once when data then goes over the network in the clear. */
void paths_store_encrypted(void);

/* The addresses of all started transports, for the blob that peers get; cap >= PATH_ADDRS_MAX. */
int32_t paths_addresses(void *buf, size_t cap, size_t *ret_len);

/* transport_ops.expose and .withdraw on every started transport that has them. Expose undoes itself
 * on failure; withdraw goes through all and returns the first failure. */
int32_t paths_expose(uint64_t id, void *addr, size_t len, bool writable, const uint8_t secret[16]);
int32_t paths_withdraw(uint64_t id, struct deadline deadline);

struct path {
	struct endpoint *ep;	/* NULL: none */
	const char *name;	/* of the transport */
	char why[PATH_WHY_MAX]; /* "direct: no agent; cma: ..."; "" when the best one took it */
	/* The same, one by one: the transport, and where in `why` its reason is. */
	uint32_t refused_n;
	struct path_refused {
		const char *name;
		uint16_t at, len;
	} refused[PATH_REFUSED_MAX];
};

/*
 * Choose and connect. peer->addr is filled in here from `addrs`, what the peer's paths_addresses()
 * gave. mapped: its memory lies here at the addresses the peer uses; otherwise the direct transport
 * is left out (why says `unmapped`). SMEM_UNREACHABLE naming every refusal; other failures as
 * transport_ops.connect.
 */
int32_t path_connect(struct transport_peer *peer, const void *addrs, size_t addrs_len, bool mapped,
		     const char *unmapped, struct deadline deadline, struct path *ret);
void path_close(struct path *path); /* nothing is in flight; twice is fine */

#endif
