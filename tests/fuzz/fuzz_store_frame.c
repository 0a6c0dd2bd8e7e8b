/* SPDX-License-Identifier: Apache-2.0 */
/* Heads, greetings, requests, events, sets: whatever is accepted must encode to the same bytes. */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "store/proto.h"
#include "store/reply.h"
#include "util/limits.h"

#define CHECK(x)                                                                                   \
	do {                                                                                       \
		if (!(x))                                                                          \
			__builtin_trap();                                                          \
	} while (0)

static void same(struct blob *b, const uint8_t *data, size_t len)
{
	CHECK(b && b->len == len && (len == 0 || memcmp(b->data, data, len) == 0));
	blob_put(b);
}

static void body(uint16_t op, const uint8_t *data, size_t len)
{
	struct request req = {.id = 1};
	struct welcome w;
	struct hello h;

	if (request_decode(op, data, len, &req)) {
		request_wrong(&req);
		same(request_encode(&req), data, len);
	}
	if (hello_decode(data, len, &h)) {
		struct blob *b = hello_encode(&h);
		struct hello again;
		CHECK(b && hello_decode(b->data, b->len, &again));
		CHECK(memcmp(again.token, h.token, TOKEN_LEN) == 0);
		blob_put(b);
	}
	if (welcome_decode(data, len, &w))
		blob_put(welcome_encode(&w));
}

static void events(const uint8_t *data, size_t len)
{
	struct reader r = reader_of(data, len);
	struct writer w = {.blob = NULL};
	struct proto_event e;
	const uint8_t *end = data;

	while (r.at < r.end && event_decode(&r, &e)) {
		event_encode(&w, &e);
		end = r.at;
	}
	same(writer_done(&w), data, (size_t)(end - data));
}

static void sets(const uint8_t *data, size_t len)
{
	struct writer w = {.blob = NULL};
	struct store_parts parts;
	struct set set;

	if (set_decode((struct span){data, len}, &set)) {
		while (len > 0 && data[len - 1] == 0)
			len--; /* written without them */
		write_set(&w, &set);
		struct blob *b = writer_done(&w);
		CHECK(b && b->len == len + 4 && (len == 0 || memcmp(b->data + 4, data, len) == 0));
		blob_put(b);
	}
	uint8_t *body = malloc(len ? len : 1);
	memcpy(body, data, len);
	if (parts_read(body, len, &parts) != 0)
		return;
	write_u32(&w, parts.count);
	for (uint32_t i = 0; i < parts.count; i++) {
		CHECK(parts.part[i].len == 0 ||
		      (parts.part[i].data >= parts.body &&
		       parts.part[i].data + parts.part[i].len <= parts.body + len));
		write_set(&w, &parts.part[i].set);
	}
	blob_put(writer_done(&w));
	store_parts_free(&parts);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct frame_head head;

	while (size >= FRAME_HEAD) {
		uint8_t again[FRAME_HEAD];
		if (!frame_head_get(data, STORE_REQUEST_MAX, &head))
			return 0;
		frame_head_put(again, &head);
		CHECK(memcmp(again, data, FRAME_HEAD) == 0);
		data += FRAME_HEAD;
		size -= FRAME_HEAD;
		size_t len = head.len < size ? head.len : size;
		/* Exactly as long as it is, so that reading beyond is seen. */
		uint8_t *copy = malloc(len ? len : 1);
		memcpy(copy, data, len);
		body(head.op, copy, len);
		events(copy, len);
		sets(copy, len);
		free(copy);
		data += len;
		size -= len;
	}
	return 0;
}

static struct blob *seed_body(unsigned n, uint16_t *op)
{
	static const uint16_t ops[] = {
	    OP_ACK,	OP_BYE,	      OP_CANCEL,    OP_SET,	OP_GET,	    OP_DEL,    OP_ADD,
	    OP_CAS,	OP_APPEND,    OP_GATHER,    OP_WATCH,	OP_UNWATCH, OP_USABLE, OP_HOLD,
	    OP_RELEASE, OP_ENTER,     OP_GROUP_ACK, OP_FENCE,	OP_ROUND,   OP_BLOB,   OP_NOTE,
	    OP_LEAVE,	OP_SET_ROUND, OP_SETTLE,    OP_PRESENT, OP_SURVEY,  OP_ANSWER};
	const uint8_t *text = (const uint8_t *)"some bytes to send";
	struct writer w = {.blob = NULL};

	*op = OP_HELLO;
	if (n == 0)
		return hello_encode(&(struct hello){.version_max = PROTO_VERSION, .received = 3});
	*op = OP_WELCOME;
	if (n == 1)
		return welcome_encode(&(struct welcome){.version = 1, .text = {text, 4}});
	*op = OP_EVENTS;
	if (n == 2) {
		event_encode(&w, &(struct proto_event){.kind = 1, .seq = 2, .data = {text, 9}});
		event_encode(&w, &(struct proto_event){.kind = 2, .seq = 3});
		return writer_done(&w);
	}
	*op = OP_REPLY;
	if (n == 3) {
		write_u32(&w, 2);
		write_set(&w, &(struct set){.word = {5, 1}});
		write_span(&w, (struct span){text, 9});
		write_set(&w, &(struct set){.word = {2}});
		write_span(&w, (struct span){NULL, 0});
		return writer_done(&w);
	}
	n -= 4;
	if (n >= sizeof(ops) / sizeof(ops[0]))
		return NULL;
	*op = ops[n];
	return request_encode(&(struct request){.op = ops[n],
						.size = 2,
						.numbers = 4,
						.timeout_ms = 100,
						.gid = 7,
						.value = 4096,
						.align = 4096,
						.key = {text, 4},
						.val = {text, 18},
						.extra = {text, 6},
						.sort = {text, 2}});
}

size_t fuzz_seed(unsigned n, uint8_t *buf, size_t cap)
{
	uint16_t op;
	struct blob *b = seed_body(n, &op);

	if (!b || b->len + FRAME_HEAD > cap) {
		blob_put(b);
		return 0;
	}
	size_t len = b->len;
	frame_head_put(buf, &(struct frame_head){.len = b->len, .op = op, .id = n});
	memcpy(buf + FRAME_HEAD, b->data, len);
	blob_put(b);
	return FRAME_HEAD + len;
}
