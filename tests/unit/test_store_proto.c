/* SPDX-License-Identifier: Apache-2.0 */
/* Frames: what is written is read again; every shorter or longer body is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "store/proto.h"
#include "util/limits.h"

static const struct request full = {
    .flags = 3,
    .index = 0xfffffffe,
    .size = 1024,
    .numbers = 77,
    .code = -2004,
    .timeout_ms = 0x123456789abcdef0,
    .gid = 5,
    .seq = UINT64_MAX,
    .value = 0x8000000000000001,
    .align = 1ull << 62,
    .key = {(const uint8_t *)"key", 3},
    .val = {(const uint8_t *)"value\0with zero", 15},
    .extra = {(const uint8_t *)"", 0},
    .sort = {(const uint8_t *)"sort", 4},
};

static void test_requests(void **state)
{
	unsigned known = 0;

	(void)state;
	for (uint16_t op = 0; op < OP_END + 10; op++) {
		struct request req = full, got = {.id = 42};
		req.op = op;
		struct blob *b = request_encode(&req);
		assert_non_null(b);
		if (strcmp(proto_op_name(op), "unknown") == 0) {
			assert_false(request_decode(op, b->data, b->len, &got));
			blob_put(b);
			continue;
		}
		known++;
		assert_true(request_decode(op, b->data, b->len, &got));
		assert_int_equal(got.op, op);
		assert_int_equal(got.id, 42);
		struct blob *again = request_encode(&got);
		assert_true(span_equal(blob_span(b), blob_span(again)));
		for (size_t len = 0; len < b->len; len++)
			assert_false(request_decode(op, b->data, len, &got));
		struct writer w = {.blob = NULL};
		for (size_t i = 0; i < b->len; i++)
			write_u8(&w, b->data[i]);
		write_u8(&w, 0);
		struct blob *longer = writer_done(&w);
		assert_false(request_decode(op, longer->data, longer->len, &got));
		blob_put(longer);
		blob_put(again);
		blob_put(b);
	}
	assert_int_equal(known, 27);
}

static void test_fields(void **state)
{
	struct request req = full, got = {.id = 1};

	(void)state;
	req.op = OP_ENTER;
	struct blob *b = request_encode(&req);
	assert_true(request_decode(OP_ENTER, b->data, b->len, &got));
	assert_int_equal(got.flags, full.flags);
	assert_int_equal(got.index, full.index);
	assert_int_equal(got.size, full.size);
	assert_int_equal(got.numbers, full.numbers);
	assert_true(got.timeout_ms == full.timeout_ms && got.gid == full.gid);
	assert_true(span_equal(got.key, full.key) && span_equal(got.val, full.val));
	assert_true(span_equal(got.extra, full.extra) && span_equal(got.sort, full.sort));
	blob_put(b);
}

static void test_heads(void **state)
{
	struct frame_head head = {.len = 1000, .op = OP_SET, .id = 1ull << 63, .number = 7}, got;
	uint8_t bytes[FRAME_HEAD];

	(void)state;
	head.received = UINT32_MAX;
	frame_head_put(bytes, &head);
	assert_true(frame_head_get(bytes, 1000, &got));
	assert_true(got.id == head.id && got.number == 7 && got.received == UINT32_MAX);
	assert_int_equal(got.op, OP_SET);
	assert_false(frame_head_get(bytes, 999, &got));
	bytes[6] ^= 1;
	assert_false(frame_head_get(bytes, 1000, &got));
}

static void test_greetings(void **state)
{
	struct hello h = {.client_id = 9, .version_min = 1, .version_max = 3, .resume = true}, h2;
	struct welcome w = {.code = -2023, .version = 1, .text = {(const uint8_t *)"no", 2}}, w2;

	(void)state;
	memset(h.token, 0xaa, TOKEN_LEN);
	struct blob *b = hello_encode(&h);
	assert_true(hello_decode(b->data, b->len, &h2));
	assert_true(h2.client_id == 9 && h2.version_max == 3 && h2.resume);
	assert_memory_equal(h2.token, h.token, TOKEN_LEN);
	for (size_t len = 0; len < b->len; len++)
		assert_false(hello_decode(b->data, len, &h2));
	blob_put(b);
	b = welcome_encode(&w);
	assert_true(welcome_decode(b->data, b->len, &w2));
	assert_int_equal(w2.code, -2023);
	assert_true(span_equal(w2.text, w.text));
	for (size_t len = 0; len < b->len; len++)
		assert_false(welcome_decode(b->data, len, &w2));
	blob_put(b);
}

static void test_limits(void **state)
{
	static uint8_t big[STORE_VALUE_MAX + 1];
	struct request req = {.op = OP_SET, .key = {big, STORE_KEY_MAX}, .val = {big, sizeof(big)}};

	(void)state;
	assert_non_null(request_wrong(&req));
	req.val.len--;
	assert_null(request_wrong(&req));
	req.key.len++;
	assert_non_null(request_wrong(&req));
	req.key.len = 0;
	assert_non_null(request_wrong(&req));
	req.op = OP_FENCE;
	assert_null(request_wrong(&req));
}

static void test_writer_stops(void **state)
{
	struct writer w = {.blob = NULL};
	uint8_t byte = 1;

	(void)state;
	write_span(&w, (struct span){&byte, (size_t)STORE_FRAME_MAX + 1});
	write_u32(&w, 1);
	assert_null(writer_done(&w));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_requests), cmocka_unit_test(test_fields),
	    cmocka_unit_test(test_heads),    cmocka_unit_test(test_greetings),
	    cmocka_unit_test(test_limits),   cmocka_unit_test(test_writer_stops),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
