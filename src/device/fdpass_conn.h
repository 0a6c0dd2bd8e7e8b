/* SPDX-License-Identifier: Apache-2.0 */
/* A connection to a peer's agent, as fdpass_conn.c keeps it and fdpass_peer.c uses it. */
#ifndef DEVICE_FDPASS_CONN_H
#define DEVICE_FDPASS_CONN_H

#include <pthread.h>
#include <uthash.h>

#include "device/fdpass_wire.h"
#include "util/loop.h"

enum conn_state { CONN_DOWN, CONN_HELLO, CONN_UP, CONN_OVER };

struct request {
	uint64_t id;
	struct agent_frame frame;
	bool sent;
	bool done;
	int32_t code;
	int fd;
	uint32_t info_len;
	uint8_t info[AGENT_INFO];
	struct request *prev, *next;
};

struct conn {
	struct agent_addr addr;
	unsigned refs; /* under conns_lock */
	struct loop *loop;
	struct agent_peer *watchers; /* on the loop */
	struct event *event;	     /* on the loop, as the rest of this paragraph */
	struct event *timer;
	struct agent_sock sock;
	uint32_t retry_ms;
	unsigned refusals;
	bool proven; /* it has answered once */

	pthread_mutex_t lock;
	pthread_cond_t cond;
	enum conn_state state;
	int32_t code; /* OVER: why */
	char why[160];
	int fd;
	pid_t pid;
	struct request *requests;
	unsigned request_count;
	uint64_t next_id;
	UT_hash_handle hh;
};

struct agent_peer {
	struct conn *conn;
	void (*lost)(void *arg);
	void *arg;
	bool fired;
	int32_t armed; /* 0, or why not */
	struct agent_peer *prev, *next;
};

/* The connection to addr with a reference for the caller; *fresh: it has to be started. */
int32_t conn_find(const struct agent_addr *addr, struct conn **ret, bool *fresh);
void conn_release(struct conn *c);

/* For loop_call(): start a conn; add and remove an agent_peer as its watcher. */
void conn_start(void *conn);
void conn_arm(void *peer);
void conn_disarm(void *peer);

/* Wait until it has answered; else the error of why not. */
int32_t conn_wait_up(struct conn *c, struct deadline deadline);
/* Why it is over, recorded. */
int32_t conn_over_err(const struct conn *c, struct deadline deadline);

#endif
