/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A link: a stream of numbered frames between a client and the server that survives its connection.
 * Both sides have one per session. Frames are kept until the other side says they have arrived;
 * after a new connection exactly the others are sent again. All calls on the loop's thread.
 */
#ifndef STORE_LINK_H
#define STORE_LINK_H

#include <event2/bufferevent.h>

#include "store/proto.h"

struct link_frame;

struct link_ops {
	/* A frame has come, in order. NULL, or why the other side is to be cut off. May send on the
	 * link and may detach it. */
	const char *(*frame)(void *arg, const struct frame_head *head, const uint8_t *data);
	/* The connection ended, or (broken) the other side breaks the protocol: link_detach() it.
	 * Never inside link_send(). */
	void (*down)(void *arg, bool broken, const char *why);
	/* Something is to be sent: link_flush() soon. NULL: link_send() flushes itself. */
	void (*dirty)(void *arg);
	/* The connection has taken some of what was queued. May be NULL. */
	void (*sent)(void *arg);
	/* The longest body by op. NULL: frame_max for all. */
	uint32_t (*longest)(uint16_t op);
};

struct link {
	const struct link_ops *ops;
	void *arg;
	uint32_t frame_max;
	size_t keep_max;
	struct bufferevent *bev; /* NULL: no connection now */
	bool direct;		 /* plain TCP: written to without the bufferevent */
	uint32_t next;		 /* number of the next new frame */
	uint32_t received;
	uint32_t told;		 /* `received` as the other side knows it */
	size_t debt;		 /* bytes received since it was told */
	struct link_frame *head; /* not acknowledged, by number */
	struct link_frame **tail;
	struct link_frame *unsent; /* from here on not handed to the connection */
	size_t offset;		   /* bytes of `unsent` that were */
	size_t queued;		   /* bytes kept */
	size_t unsent_bytes;
};

/* frame_max: longest body that is accepted; keep_max: bytes kept for the other side. */
void link_init(struct link *l, const struct link_ops *ops, void *arg, uint32_t frame_max,
	       size_t keep_max);
void link_deinit(struct link *l); /* connection and queue */

/* Take over a connection whose greeting has passed. `peer_received`: how many of this side's frames
 * have arrived there. False: that cannot be; then `bev` is still the caller's. */
bool link_attach(struct link *l, struct bufferevent *bev, uint32_t peer_received);
void link_detach(struct link *l); /* closes the connection, keeps the queue; twice is fine */

/* Queue a frame; takes the body over (NULL: empty). False: no memory, or keep_max is reached. */
bool link_send(struct link *l, uint16_t op, uint64_t id, struct blob *body);
void link_flush(struct link *l);

/* For the greeting: one frame without a number. Takes the body over. */
void link_write_plain(struct bufferevent *bev, uint16_t op, struct blob *body);

/* Free a bufferevent of the store, plain or TLS, and close its socket. NULL is fine. */
void link_bev_free(struct bufferevent *bev);

#endif
