/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the store is, without sockets and threads: keys, counters, gathers, watches, ranges, groups,
 * surveys and the clients that own parts of them. It is fed with decoded requests and a time, and
 * speaks through one callback. One thread at a time.
 *
 * Values of counters are 8 bytes, little-endian. State of a client goes when the client goes.
 */
#ifndef STORE_KV_H
#define STORE_KV_H

#include "store/proto.h"

struct kv;
struct kv_client;

/* Queue a frame for the client whose `peer` this is. Takes the blob over. Must not call back into
 * the kv. */
typedef void (*kv_send_fn)(void *peer, uint16_t op, uint64_t id, struct blob *body);

int32_t kv_create(kv_send_fn send, struct kv **ret);
void kv_destroy(struct kv *kv); /* NULL is fine */

struct kv_client *kv_client_add(struct kv *kv, void *peer); /* NULL: no memory */

/* What others may know of it: its address as text, and the version it speaks. */
void kv_client_about(struct kv_client *c, const char *address, uint32_t version);

/* Its connection broke and may come back: what waits for its verdict waits. */
void kv_client_detached(struct kv *kv, struct kv_client *c, bool detached, uint64_t now);

/* It said good-bye, or is lost. Frees it. */
void kv_client_gone(struct kv *kv, struct kv_client *c, bool lost, uint64_t now);

/* NULL, or why the client breaks the protocol and is to be cut off. */
const char *kv_request(struct kv *kv, struct kv_client *c, const struct request *req, uint64_t now);

/* When kv_tick() is due (clock_ns()); UINT64_MAX: never. */
uint64_t kv_due(const struct kv *kv);
void kv_tick(struct kv *kv, uint64_t now);

#endif
