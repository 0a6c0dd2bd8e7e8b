/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses and socket options of the store's connections. */
#ifndef STORE_NET_H
#define STORE_NET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "store/url.h"
#include "util/clock.h"

struct net_addr {
	struct sockaddr_storage sa;
	socklen_t len;
};

#define NET_ADDRS_MAX 16

/*
 * The addresses of a URL, in the order to try them; of a wildcard URL the loopback when `connect`.
 * Names are resolved in a thread of their own, waited for until the deadline: SMEM_TIMEOUT. SMEM_IO
 * when there is no such name (now).
 */
int32_t net_resolve(const struct store_url *url, bool connect, struct deadline deadline,
		    struct net_addr *ret, size_t *count);

/* No delay, keepalive as ENV_SILENCE_MS says. */
void net_tune(int fd, bool loopback);

bool net_is_loopback(const struct net_addr *a);
/* An address of this machine? */
bool net_is_own(const struct net_addr *a);
void net_text(const struct net_addr *a, char *text, size_t cap);

/*
 * Has the other host been silent for as long as ENV_SILENCE_MS (less NET_LOOK_MS, which is how
 * often to ask)? A stopped process on a live host is not silent: its kernel acknowledges. `since`
 * is the caller's, per connection, 0 at first. For sockets that net_tune() has seen, not on the
 * loopback.
 */
#define NET_LOOK_MS 250
bool net_silent(int fd, uint64_t now, uint64_t *since);

#endif
