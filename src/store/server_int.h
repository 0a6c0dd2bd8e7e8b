/* SPDX-License-Identifier: Apache-2.0 */
/* What server.c and session.c share. Everything here is the server loop's own. */
#ifndef STORE_SERVER_INT_H
#define STORE_SERVER_INT_H

#include <event2/event.h>
#include <pthread.h>

#include "store/kv.h"
#include "store/link.h"
#include "store/server.h"
#include "util/limits.h"
#include "util/loop.h"

#define PEER_TEXT 64

/* A connection that has not been greeted. */
struct conn {
	struct server *server;
	struct bufferevent *bev;
	uint64_t born;
	bool loopback;
	bool draining; /* refused; only read until the other side has closed */
	char peer[PEER_TEXT];
	struct conn *prev, *next;
};

/* A client, with a connection or for a moment without. */
struct session {
	struct server *server;
	struct link link;
	struct kv_client *client; /* NULL: it said good-bye, only its last reply is to go out */
	uint64_t client_id;
	uint8_t token[TOKEN_LEN];
	uint64_t since; /* detached or ended since */
	bool loopback;
	bool dirty;
	bool held;	    /* not read until it takes its replies */
	const char *doomed; /* to be cut off when the stack has unwound: why */
	uint64_t silent;    /* net_silent()'s */
	uint32_t seen;	    /* link.received at the last look */
	uint64_t stuck;	    /* part of a frame lies there since */
	char peer[PEER_TEXT];
	struct session *prev, *next;
	struct session *next_dirty;
};

struct server {
	struct store_url url;
	struct tls *tls;
	struct loop *loop;
	struct kv *kv;
	int fd;
	struct event *accepting;
	struct event *flush; /* runs after all reads of a turn */
	struct event *due;   /* kv_due() */
	struct event *tick;
	uint64_t due_at;
	uint64_t looked; /* for silent hosts, last time */
	bool hurried;	 /* the tick is a short one */
	bool full;	 /* no descriptors: not accepting until the next tick */
	bool stopping;
	struct conn *conns;
	struct session *sessions;
	uint32_t count; /* of both */
	struct session *dirty;
	uint64_t log_second;
	unsigned log_lines, log_dropped;
	pthread_mutex_t lock; /* of `gone` */
	pthread_cond_t cond;
	bool gone; /* stopping, and nobody is there any more */
};

/* server.c */
void server_hurry(struct server *s); /* something needs the short tick */
void server_left(struct server *s);  /* a connection or session was freed */
void server_cut_log(struct server *s, const char *peer, const char *why);

/* session.c */
void session_greet(struct conn *c); /* bytes have come on a connection that is not greeted */
void session_tick(struct session *s, uint64_t now, bool look); /* look: for silent hosts */
void session_flush(struct session *s);
void session_free(struct session *s, bool lost);
void session_cut(struct session *s, const char *why);
void session_send(void *peer, uint16_t op, uint64_t id, struct blob *body);
void conn_free(struct conn *c); /* with its connection, if it still has it */

#endif
