/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What agents say to each other, and where they are. A connection is a Unix SOCK_SEQPACKET socket,
 * so a frame is a packet: there are no half frames. Both ends are of one host and one build may
 * meet another, so the version comes first.
 *
 *   client: HELLO (info: the name it means to reach)    server: HELLO (info: its name)
 *   client: FETCH (id, object, cookie)                  server: REPLY (id, code, info) + descriptor
 *                                                       server: BYE: the agent is shut down
 */
#ifndef DEVICE_FDPASS_WIRE_H
#define DEVICE_FDPASS_WIRE_H

#include <stdbool.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "device/fdpass.h"

#define AGENT_VERSION 1
#define AGENT_INFO    64

enum agent_frame_type { AGENT_HELLO = 1, AGENT_FETCH, AGENT_REPLY, AGENT_BYE };

struct agent_frame {
	uint32_t version;
	uint32_t type;
	uint64_t id;
	uint64_t object;
	uint8_t cookie[AGENT_COOKIE];
	int32_t code;
	uint32_t info_len;
	uint8_t info[AGENT_INFO];
};
_Static_assert(sizeof(struct agent_frame) == 112, "wire layout");

/* Did `n` received bytes make a sane frame? */
bool agent_frame_ok(const struct agent_frame *f, ssize_t n);

/* Send one frame without blocking, with a descriptor unless pass is -1. 0 or an errno. */
int agent_frame_send(int fd, const struct agent_frame *f, int pass);

struct agent_sock {
	struct sockaddr_un sun;
	socklen_t len;
};
void agent_sock_abstract(const struct agent_addr *addr, struct agent_sock *ret);
/* False when no runtime directory is set or its name is too long. */
bool agent_sock_path(const struct agent_addr *addr, struct agent_sock *ret);

/* A new own address: random name, this kernel, this namespace. */
int32_t agent_addr_make(struct agent_addr *ret);

/* Who is at the other end; false when the kernel does not say. */
bool agent_cred(int fd, struct ucred *ret);

/* A non-blocking SOCK_SEQPACKET socket, owned; -1 with errno. */
int agent_socket(void);

#endif
