/* SPDX-License-Identifier: Apache-2.0 */
/* What client.c and client_calls.c share: the client, and what both do on its loop. */
#ifndef STORE_CLIENT_INT_H
#define STORE_CLIENT_INT_H

#include "store/client.h"
#include "store/dial.h"
#include "store/net.h"

enum state { DIALING, UP, AGAIN, LOST };

struct client {
	struct loop *loop;
	const struct store_url *url; /* own copy below */
	struct store_url url_copy;
	struct tls *tls;
	struct link link;
	uint64_t id;
	uint8_t token[TOKEN_LEN];

	/* the loop's */
	_Atomic int state;
	struct dial *dial;
	struct event *timer; /* AGAIN: the next attempt; UP: look for silence */
	struct event *watch; /* of certificates' expiry */
	struct deadline again;
	unsigned pause_ms;
	uint64_t silent_since;
	struct net_addr peer; /* where the connection went */
	struct call *calls;
	struct listener *listeners;
	uint64_t next_id;
	_Atomic uint32_t version; /* of the protocol, as the server speaks it */
	char cause[256];	  /* of the loss */
	struct sockaddr_storage local;
	socklen_t local_len;

	/* client_open waits here for an attempt's result, client_close for the last byte */
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool result_ready;
	int32_t result;
	bool result_final;
	char result_text[320];
};

/* On the loop. The connection is given up for good: every call fails, every listener hears. */
void client_lose(struct client *c, const char *cause);
/* The call leaves the list and its caller goes on. */
void client_call_end(struct client *c, struct call *call, int32_t code, const char *text,
		     size_t text_len);

/* On the loop: the answer to a survey goes out. False: the connection takes no more. */
bool client_answer(struct client *c, uint64_t survey, const uint8_t *data, size_t len);

#endif
