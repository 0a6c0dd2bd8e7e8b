/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The client of a store: one connection, many calls under way. Its state belongs to the shared I/O
 * loop; callers hand requests over and wait. store.h's calls are thin wrappers in calls.c and
 * groups.c.
 */
#ifndef STORE_CLIENT_H
#define STORE_CLIENT_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>

#include "store/link.h"
#include "store/proto.h"
#include "store/store.h"
#include "util/loop.h"

struct client;
struct tls;

/* Connect, retrying as 4.2 of the specification says. `tls` NULL: plain; borrowed. */
int32_t client_open(const struct store_url *url, struct tls *tls, struct deadline deadline,
		    struct client **ret);

/* Say good-bye, wait a moment until that is out, free. No call is under way. NULL is fine. */
void client_close(struct client *c);

bool client_lost(const struct client *c);
uint64_t client_id(const struct client *c);
uint32_t client_version(const struct client *c); /* of the protocol, that both speak */
void client_local_addr(const struct client *c, struct sockaddr_storage *ret, socklen_t *len);

/*
 * One request. `fill` describes it (op, fields); client_call() sends it and waits for its reply
 * until the deadline and 500 ms more (the server knows the deadline too, and says what was
 * missing). The reply's code and text are recorded as this thread's error when it is not 0.
 *
 * wait->body (malloc'ed; the caller frees) holds what follows code and text, also when the code is
 * not 0. `woken` not NULL: a group's flag; while it is set the call ends with
 * SMEM_OBJECT_NOT_EXISTS (client_wake()).
 */
struct call {
	struct request req;
	struct deadline deadline;
	const _Atomic bool *woken;
	uint32_t slack_ms; /* instead of the 500; 0: those */
	uint8_t *body;
	size_t body_len;
	/* private */
	struct client *client;
	struct blob *encoded;
	int32_t code;
	char text[640];
	bool done;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	struct call *prev, *next;
};

/* The deadline's rest goes into req.timeout_ms. */
int32_t client_call(struct client *c, struct call *call);

/* Send without a reply; any thread, never blocks, a lost store is fine. */
void client_cast(struct client *c, const struct request *req);

/*
 * Who gets what the server pushes: a group's events or a watch's values, by the number the client
 * chose. `push` runs on the loop with the frame's body; `closed` when the store is lost. Registered
 * before the request is sent.
 */
struct listener {
	uint64_t id;
	uint16_t op; /* OP_EVENTS or OP_WATCHED */
	void (*push)(struct listener *l, const uint8_t *data, size_t len);
	void (*closed)(struct listener *l);
	struct listener *prev, *next;
};
void client_listen(struct client *c,
		   struct listener *l); /* gives it a number; closed at once if lost */
void client_unlisten(struct client *c, struct listener *l); /* after return nothing of it runs */

/* `woken` was set: end the calls that carry it. */
void client_wake(struct client *c, const _Atomic bool *woken);

/* calls.c's way to the client of a store */
struct client *store_client(struct store *s);

#endif
