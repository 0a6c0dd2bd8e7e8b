/* SPDX-License-Identifier: Apache-2.0 */
/* The server of a store: a loop thread of its own that feeds a kv from sockets. */
#ifndef STORE_SERVER_H
#define STORE_SERVER_H

#include "store/url.h"
#include "util/clock.h"

struct server;
struct tls;

/*
 * Listen on the URL. A taken port is tried again until `retry` passes: SMEM_RESOURCE_IN_USE.
 * SMEM_INVALID_PARAM: the host is no address of this machine. SMEM_IO, SMEM_NEW_OBJECT_FAILED,
 * SMEM_MALLOC_FAILED. `tls` NULL: plain; borrowed until server_stop().
 */
int32_t server_start(const struct store_url *url, struct tls *tls, struct deadline retry,
		     struct server **ret);

/* Close the listening socket at once, serve the clients that are there until they are gone or
 * `linger_ms` have passed, end. NULL is fine. */
void server_stop(struct server *s, uint32_t linger_ms);

#endif
