/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS of a store object: one context for its client and its server. Made in the thread that makes
 * the object (files are read, the decrypt handler runs); used by the loops, read-only.
 */
#ifndef STORE_TLS_H
#define STORE_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "store/tls_conf.h"

struct bufferevent;
struct event_base;
struct tls;

/* As the environment says: *ret NULL for plain TCP. SMEM_SECURITY naming file and reason. */
int32_t tls_from_env(struct tls **ret);
int32_t tls_create(const struct tls_conf *conf, struct tls **ret);
void tls_destroy(struct tls *tls); /* NULL is fine */

/* A bufferevent that speaks TLS on the connected `fd`, which is its own from then on (and forgotten
 * by util/fd when link_bev_free() frees it). NULL: no memory, fd is still the caller's. */
struct bufferevent *tls_bev_new(struct tls *tls, struct event_base *base, int fd, bool accepting);

/* After BEV_EVENT_ERROR or EOF: how TLS failed, with the reason as text. */
enum tls_failure {
	TLS_NO_FAILURE, /* only the connection ended; no text */
	TLS_FAILED,
	TLS_ALIEN, /* the other side does not speak TLS and was told nothing yet */
};
enum tls_failure tls_bev_failure(struct bufferevent *bev, char *text, size_t cap);

/* A TLS alert in clear, for who does not speak TLS: "protocol version". */
#define TLS_PLAIN_ALERT "\x15\x03\x03\x00\x02\x02\x46"

/* Log what is expired (error) or expires soon (warning), as of `now`. */
void tls_watch(const struct tls *tls, time_t now);
uint64_t tls_watch_period_ms(const struct tls *tls);

#endif
