/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libfabric's descriptors are neither close-on-exec nor ours to know, and the library promises that
 * none of its descriptors survives an exec, and that a forked child holds no connection open.
 * So they are found: what appears while an object is opened, and sockets by their ports.
 */
#ifndef TRANSPORT_OFI_FDS_H
#define TRANSPORT_OFI_FDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OFI_CONGESTION 16u /* bytes of a name, the kernel's own limit */

struct ofi_fds_seen {
	unsigned char bit[1024]; /* descriptors up to 8191 */
};

/* Around a call that opens things. */
void ofi_fds_before(struct ofi_fds_seen *seen);
void ofi_fds_after(const struct ofi_fds_seen *seen);

/* Connections of the endpoint with this address (a sockaddr), or to it: they are made while it is
 * used, so look after it has been. */
void ofi_fds_connections(const void *addr, size_t len);

/* Bytes that the connections of the endpoint at `own` (which reaches the one at `peer`) have moved:
 * received, or sent and acknowledged by the other kernel. False: it has none that can be looked at.
 */
bool ofi_fds_moved(const void *own, size_t own_len, const void *peer, size_t peer_len,
		   uint64_t *ret);

/* By what congestion control the kernel sends on those connections: "cubic", "bbr". False: it has
 * none. */
bool ofi_fds_congestion(const void *own, size_t own_len, const void *peer, size_t peer_len,
			char ret[OFI_CONGESTION]);

/* After fork, in the child: close the sockets. */
void ofi_fds_drop(void);

#endif
