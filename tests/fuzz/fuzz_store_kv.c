/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store's state under random clients: the input is a program of requests on few names, so that
 * everything meets everything. Every request with an id that is not cut off is answered at most
 * once, and when all clients are gone nothing is left (the leak checker and kv_destroy() see it).
 */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "store/kv.h"
#include "util/clock.h"

#define CLIENTS 4
#define CHECK(x)                                                                                   \
	do {                                                                                       \
		if (!(x))                                                                          \
			__builtin_trap();                                                          \
	} while (0)

struct peer {
	struct kv_client *client;
	uint64_t asked;	    /* ids 1..asked */
	uint8_t done[4096]; /* by id */
};

static struct peer peers[CLIENTS];

static void take(void *arg, uint16_t op, uint64_t id, struct blob *body)
{
	struct peer *p = arg;

	CHECK(p->client && body);
	if (op == OP_REPLY) {
		CHECK(id >= 1 && id <= p->asked && body->len >= 8);
		CHECK(!p->done[id % sizeof(p->done)]);
		p->done[id % sizeof(p->done)] = 1;
	} else {
		CHECK(op == OP_EVENTS || op == OP_WATCHED || op == OP_ASKED);
	}
	blob_put(body);
}

struct tape {
	const uint8_t *at, *end;
};

static uint8_t next(struct tape *t)
{
	return t->at < t->end ? *t->at++ : 0;
}

static struct span name(struct tape *t)
{
	static const uint8_t names[] = "abc";

	return (struct span){names + next(t) % 3, 1};
}

static struct span bytes(struct tape *t)
{
	size_t len = next(t) % 8;

	if (len > (size_t)(t->end - t->at))
		len = (size_t)(t->end - t->at);
	struct span s = {t->at, len};
	t->at += len;
	return s;
}

static void ask(struct kv *kv, struct tape *t, struct peer *p, uint64_t now)
{
	static const uint16_t ops[] = {
	    OP_CANCEL, OP_SET,	     OP_GET,	   OP_DEL,    OP_ADD,	  OP_CAS,     OP_APPEND,
	    OP_GATHER, OP_WATCH,     OP_UNWATCH,   OP_USABLE, OP_HOLD,	  OP_RELEASE, OP_ENTER,
	    OP_ENTER,  OP_ENTER,     OP_GROUP_ACK, OP_FENCE,  OP_ROUND,	  OP_BLOB,    OP_NOTE,
	    OP_LEAVE,  OP_SET_ROUND, OP_SET_ROUND, OP_SETTLE, OP_PRESENT, OP_SURVEY,  OP_ANSWER};
	struct request req = {.op = ops[next(t) % (sizeof(ops) / sizeof(ops[0]))]};
	uint8_t list[48];

	req.flags = next(t) % 4;
	req.index = next(t) % 5 == 4 ? UINT32_MAX : next(t) % 4;
	req.size = next(t) % 4;
	req.numbers = req.flags ? req.size : next(t) % 6;
	req.code = next(t) % 4 ? 0 : -1;
	req.timeout_ms = next(t) % 64;
	req.gid = next(t) % 4;
	req.seq = next(t) % 32;
	req.value = (uint64_t)next(t) << (next(t) % 48);
	req.align = 1ull << (next(t) % 40);
	req.key = name(t);
	req.val = bytes(t);
	req.extra = bytes(t);
	req.sort = bytes(t);
	if (req.op == OP_SET_ROUND) { /* mostly a set that could be one */
		list[0] = next(t);
		req.sort = (struct span){list, list[0] % 8 ? 1 : 0};
		req.seq = next(t);
	}
	if (req.op == OP_USABLE) {
		for (size_t i = 0; i < sizeof(list); i++)
			list[i] = i % 8 < 5 ? next(t) : 0;
		req.val = (struct span){list, sizeof(list) / 16 * 16};
	}
	if (p->asked + 1 < sizeof(p->done))
		req.id = ++p->asked;
	CHECK(kv_request(kv, p->client, &req, now) == NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct tape t = {data, data + size};
	uint64_t now = NS_PER_S;
	struct kv *kv;

	memset(peers, 0, sizeof(peers));
	CHECK(kv_create(take, &kv) == 0);
	while (t.at < t.end) {
		uint8_t what = next(&t);
		struct peer *p = &peers[what % CLIENTS];
		if (!p->client) {
			memset(p, 0, sizeof(*p));
			p->client = kv_client_add(kv, p);
			CHECK(p->client);
			kv_client_about(p->client, "here", PROTO_VERSION - what % 2);
		}
		if (what < 8) {
			struct kv_client *gone = p->client;
			kv_client_gone(kv, gone, what < 4, now);
			p->client = NULL;
		} else if (what < 16) {
			kv_client_detached(kv, p->client, what < 12, now);
		} else if (what < 32) {
			now += (uint64_t)next(&t) * NS_PER_MS;
			kv_tick(kv, now);
			CHECK(kv_due(kv) > now);
		} else {
			ask(kv, &t, p, now);
		}
	}
	/* All deadlines pass: nothing waits any more. */
	kv_tick(kv, now + 1000 * NS_PER_S);
	CHECK(kv_due(kv) == UINT64_MAX);
	kv_destroy(kv);
	return 0;
}

size_t fuzz_seed(unsigned n, uint8_t *buf, size_t cap)
{
	uint32_t state = n * 2654435761u + 1;
	size_t len = 200 + n * 40;

	if (n >= 24 || len > cap)
		return 0;
	for (size_t i = 0; i < len; i++) {
		state = state * 1664525u + 1013904223u;
		buf[i] = (uint8_t)(state >> 24);
	}
	return len;
}
