/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent: one per process, hands the process's memory descriptors to other processes of the same
 * user on the same host over a Unix socket (SCM_RIGHTS), and is the death notice between them.
 *
 * It listens on an abstract address (random name) and, when ENV_RUNTIME_DIR is set, on a path below
 * it too, so that containers with separate network namespaces can meet. A request must come from
 * the same user (SO_PEERCRED) and carry the object's number and its 16-byte cookie; everything else
 * gets nothing but a closed connection and one log line. A client that stalls or sends garbage is
 * cut and delays nobody; the number of connections is limited.
 *
 * Calls: any thread but a loop's, except where said. The agent starts with the first agent_get().
 */
#ifndef DEVICE_FDPASS_H
#define DEVICE_FDPASS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/clock.h"

#define AGENT_COOKIE 16

/* Where an agent is: goes to peers through the store. Version first, fixed width, little-endian. */
struct agent_addr {
	uint32_t version;
	uint32_t pid;	     /* in its own pid namespace; for messages and CMA */
	uint8_t boot_id[16]; /* of the kernel: another host is told apart at once */
	uint8_t name[32];    /* random; abstract name and file name derive from it in hexadecimal */
	uint32_t netns; /* inode of the network namespace, where abstract names live; 0: unknown */
	uint8_t has_path; /* also below the runtime directory */
	uint8_t reserved[3];
};
_Static_assert(sizeof(struct agent_addr) == 64, "wire layout");

/* Take and drop a reference on this process's agent. */
int32_t agent_get(void);
void agent_put(void);

/* The own address; valid while a reference is held. */
const struct agent_addr *agent_own(void);

/* Is that agent under this kernel? Any thread, no reference needed. */
bool agent_same_host(const struct agent_addr *addr);

/* Offer `fd` (borrowed until withdrawn) as `object`, with `info` (at most 64 bytes) told to who
 * fetches it. */
int32_t agent_offer(uint64_t object, const uint8_t cookie[AGENT_COOKIE], int fd, const void *info,
		    size_t len);
void agent_withdraw(uint64_t object);

/*
 * A connection to a peer's agent. Connecting proves that the peer is on this host and of this user.
 * One connection per peer process is shared by all who ask for it.
 *
 * `lost` (may be NULL) is called at most once, on the I/O loop, when the peer's process ends
 * without having shut its agent down; maybe before this returns; not after agent_peer_close()
 * returned; never when this failed.
 *
 *   SMEM_UNREACHABLE  another host, another user, or not to be reached from here: the detail says
 * why SMEM_PEER_LOST    it was on this host and is gone, or has shut its agent down SMEM_TIMEOUT
 */
struct agent_peer;
int32_t agent_peer_open(const struct agent_addr *addr, struct deadline deadline,
			void (*lost)(void *arg), void *arg, struct agent_peer **ret);
void agent_peer_close(struct agent_peer *peer); /* NULL is fine */

/* The peer's process number as this process sees it; 0 when it is in a pid namespace not seen from
 * here. */
int32_t agent_peer_pid(const struct agent_peer *peer);

/*
 * Fetch a descriptor. SMEM_OBJECT_NOT_EXISTS when the peer does not offer it under that cookie;
 * SMEM_PEER_LOST, SMEM_TIMEOUT. *ret_fd is the caller's (owned through util/fd); info may be NULL.
 */
int32_t agent_fetch(struct agent_peer *peer, uint64_t object, const uint8_t cookie[AGENT_COOKIE],
		    struct deadline deadline, int *ret_fd, void *info, size_t *info_len);

#endif
