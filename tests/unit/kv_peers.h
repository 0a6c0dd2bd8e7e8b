/* SPDX-License-Identifier: Apache-2.0 */
/* The store's state by itself, with a clock that the test moves and clients that only count. */
#ifndef TEST_KV_PEERS_H
#define TEST_KV_PEERS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "store/kv.h"
#include "store/store.h"
#include "util/clock.h"
#include "util/err.h"
#include "util/limits.h"

struct peer {
	struct kv_client *client;
	unsigned frames, replies, events, watched;
	int32_t code; /* of the last reply */
	char text[256];
	uint32_t number; /* first field behind code and text */
	struct set missing;
	uint8_t body[512]; /* behind code and text */
	size_t body_len;
	uint8_t last_kind;
	uint64_t last_seq;
	bool disorder;
};

static struct kv *kv;
static uint64_t now;

static inline void take_events(struct peer *p, struct blob *body)
{
	struct reader r = reader_of(body->data, body->len);
	struct proto_event e;

	while (r.at < r.end && event_decode(&r, &e)) {
		p->disorder = p->disorder || e.seq <= p->last_seq;
		p->last_seq = e.seq;
		p->last_kind = e.kind;
		p->events++;
	}
	assert_false(r.failed);
}

static inline void take(void *arg, uint16_t op, uint64_t id, struct blob *body)
{
	struct peer *p = arg;
	struct reader r = reader_of(body->data, body->len);

	(void)id;
	p->frames++;
	if (op == OP_EVENTS) {
		take_events(p, body);
	} else if (op == OP_WATCHED) {
		p->watched++;
	} else {
		p->replies++;
		p->code = (int32_t)read_u32(&r);
		struct span text = read_span(&r);
		snprintf(p->text, sizeof(p->text), "%.*s", (int)text.len, (const char *)text.data);
		p->body_len =
		    (size_t)(r.end - r.at) <= sizeof(p->body) ? (size_t)(r.end - r.at) : 0;
		if (p->body_len)
			memcpy(p->body, r.at, p->body_len);
		struct reader copy = r;
		set_decode(read_span(&copy), &p->missing);
		p->number = read_u32(&r);
	}
	blob_put(body);
}

static inline int setup(void **state)
{
	(void)state;
	now = NS_PER_S;
	return kv_create(take, &kv);
}

static inline int teardown(void **state)
{
	(void)state;
	kv_destroy(kv);
	return 0;
}

static inline struct peer *peer_new(void)
{
	struct peer *p = calloc(1, sizeof(*p));

	p->client = kv_client_add(kv, p);
	assert_non_null(p->client);
	return p;
}

static inline void peer_gone(struct peer *p, bool lost)
{
	kv_client_gone(kv, p->client, lost, now);
	p->client = NULL;
}

static inline struct span text_span(const char *s)
{
	return (struct span){(const uint8_t *)s, strlen(s)};
}

static inline int32_t ask(struct peer *p, struct request req)
{
	unsigned before = p->replies;

	req.id = 1 + p->replies;
	assert_null(kv_request(kv, p->client, &req, now));
	return p->replies > before ? p->code : 1; /* 1: it waits */
}

static inline struct request enter(const char *name, enum store_group_mode mode, uint32_t member,
				   uint32_t size)
{
	return (struct request){.op = OP_ENTER,
				.flags = mode,
				.index = member,
				.size = size,
				.numbers = size,
				.gid = 1,
				.timeout_ms = 1000,
				.key = text_span(name)};
}

static inline void move(uint64_t ms)
{
	now += ms * NS_PER_MS;
	kv_tick(kv, now);
}

#endif
