/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dialing: from addresses to a connection whose greeting is done. One attempt; who tries again, and
 * when, is the client's business.
 */
#ifndef STORE_DIAL_H
#define STORE_DIAL_H

#include "store/net.h"
#include "store/proto.h"

struct bufferevent;
struct event_base;
struct tls;

struct dial_result {
	int32_t code;
	bool final;   /* trying again is of no use: not an smem store, another version, TLS */
	bool refused; /* nobody listens there */
	char text[320];
	struct bufferevent *bev; /* code 0: the receiver's now; disabled, no callbacks */
	struct welcome welcome;	 /* its text is not valid any more */
	struct net_addr addr;
};

struct dial_request {
	struct event_base *base;
	struct tls *tls;	      /* NULL: plain */
	const struct net_addr *addrs; /* tried in turn; copied */
	size_t count;
	unsigned ms; /* for all of it */
	struct hello hello;
	void (*done)(
	    void *arg,
	    const struct dial_result *r); /* once, unless freed before; never inside dial_start() */
	void *arg;
};

struct dial;

/* On the loop's thread; count >= 1. NULL: out of memory, and done() is not called. */
struct dial *dial_start(const struct dial_request *q);
void dial_free(struct dial *d); /* give up; NULL is fine */

#endif
