/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store's state by itself, with a clock that the test moves and clients that only count: what
 * needs exact times, many clients, limits, or a connection that is broken just now.
 */
#include "kv_peers.h"

static void test_deadlines_in_order(void **state)
{
	static const uint16_t ms[] = {50, 10, 40, 20, 30, 20, 60, 5};
	struct peer *p[8];

	(void)state;
	assert_true(kv_due(kv) == UINT64_MAX);
	for (unsigned i = 0; i < 8; i++) {
		p[i] = peer_new();
		assert_int_equal(ask(p[i], (struct request){.op = OP_GET,
							    .flags = 1,
							    .timeout_ms = ms[i],
							    .key = text_span("k")}),
				 1);
	}
	assert_true(kv_due(kv) == now + 5 * NS_PER_MS);
	peer_gone(p[1], true); /* takes its wait with it */
	for (unsigned t = 1; t <= 60; t++) {
		move(1);
		for (unsigned i = 0; i < 8; i++) {
			if (i != 1)
				assert_int_equal(p[i]->replies, t >= ms[i]);
		}
	}
	assert_true(kv_due(kv) == UINT64_MAX);
	assert_int_equal(p[0]->code, SMEM_TIMEOUT);
	for (unsigned i = 0; i < 8; i++)
		free(p[i]);
}

/* A closed group of the largest size: a request, a frame of events and a reply for each. */
static void test_thousand_closed(void **state)
{
	static struct peer *p[WORLD_MAX];
	unsigned frames = 0;

	(void)state;
	for (uint32_t i = 0; i < WORLD_MAX; i++) {
		p[i] = peer_new();
		int32_t r = ask(p[i], enter("c", STORE_GROUP_CLOSED, i, WORLD_MAX));
		assert_int_equal(r, i + 1 < WORLD_MAX ? 1 : 0);
	}
	for (uint32_t i = 0; i < WORLD_MAX; i++) {
		assert_int_equal(p[i]->code, 0);
		assert_int_equal(p[i]->number, i);
		assert_int_equal(p[i]->events, WORLD_MAX);
		assert_false(p[i]->disorder);
		frames += p[i]->frames;
	}
	assert_int_equal(frames, 2 * WORLD_MAX);
	/* A round: one frame each. */
	for (uint32_t i = 0; i < WORLD_MAX; i++)
		ask(p[i], (struct request){.op = OP_ROUND,
					   .gid = 1,
					   .timeout_ms = 1000,
					   .extra = text_span("barrier")});
	for (uint32_t i = 0; i < WORLD_MAX; i++) {
		assert_int_equal(p[i]->code, 0);
		assert_int_equal(p[i]->frames, 3);
		assert_int_equal(p[i]->number, WORLD_MAX);
	}
	/* One lost: an event for each of the others. */
	peer_gone(p[7], true);
	for (uint32_t i = 0; i < WORLD_MAX; i++) {
		if (i == 7)
			continue;
		assert_int_equal(p[i]->frames, 4);
		assert_int_equal(p[i]->last_kind, STORE_EVENT_LOST);
	}
	for (uint32_t i = 0; i < WORLD_MAX; i++)
		free(p[i]);
}

static void test_detached(void **state)
{
	struct peer *a = peer_new(), *b = peer_new(), *c = peer_new();

	(void)state;
	assert_int_equal(ask(a, enter("d", STORE_GROUP_OPEN, 0, 2)), 0);
	assert_int_equal(ask(b, enter("d", STORE_GROUP_OPEN, 0, 2)), SMEM_DUPLICATED_OBJECT);
	/* The holder's connection is broken: the verdict is waited for. */
	kv_client_detached(kv, a->client, true, now);
	assert_int_equal(ask(b, enter("d", STORE_GROUP_OPEN, 0, 2)), 1);
	kv_client_detached(kv, a->client, false, now);
	assert_int_equal(b->code, SMEM_DUPLICATED_OBJECT);
	assert_int_equal(b->replies, 2);
	kv_client_detached(kv, a->client, true, now);
	assert_int_equal(ask(b, enter("d", STORE_GROUP_OPEN, 0, 2)), 1);
	peer_gone(a, true);
	assert_int_equal(b->replies, 3);
	assert_int_equal(b->code, 0);
	assert_int_equal(b->number, 0);
	/* The same where the group is full. */
	assert_int_equal(ask(c, enter("d", STORE_GROUP_OPEN, STORE_MEMBER_ANY, 2)), 0);
	struct peer *d = peer_new();
	assert_int_equal(ask(d, enter("d", STORE_GROUP_OPEN, STORE_MEMBER_ANY, 2)),
			 SMEM_RESOURCE_IN_USE);
	kv_client_detached(kv, c->client, true, now);
	assert_int_equal(ask(d, enter("d", STORE_GROUP_OPEN, STORE_MEMBER_ANY, 2)), 1);
	move(999);
	assert_int_equal(d->replies, 1);
	move(1);
	assert_int_equal(d->code, SMEM_TIMEOUT);
	free(a);
	free(b);
	free(c);
	free(d);
}

static void test_closed_lost_while_entering(void **state)
{
	struct peer *a = peer_new(), *b = peer_new(), *c = peer_new();

	(void)state;
	assert_int_equal(ask(a, enter("l", STORE_GROUP_CLOSED, 0, 3)), 1);
	assert_int_equal(ask(b, enter("l", STORE_GROUP_CLOSED, 1, 3)), 1);
	peer_gone(b, true);
	assert_int_equal(a->code, SMEM_PEER_LOST);
	assert_non_null(strstr(a->text, "1 was lost"));
	/* One that says good-bye only takes itself away. */
	b->client = kv_client_add(kv, b);
	assert_int_equal(ask(a, enter("l", STORE_GROUP_CLOSED, 0, 3)), 1);
	assert_int_equal(ask(b, enter("l", STORE_GROUP_CLOSED, 1, 3)), 1);
	peer_gone(b, false);
	assert_int_equal(a->replies, 1);
	b->client = kv_client_add(kv, b);
	b->replies = 0;
	assert_int_equal(ask(b, enter("l", STORE_GROUP_CLOSED, 1, 3)), 1);
	assert_int_equal(ask(c, enter("l", STORE_GROUP_CLOSED, 2, 3)), 0);
	assert_int_equal(a->code, 0);
	free(a);
	free(b);
	free(c);
}

static void test_cancel(void **state)
{
	struct peer *a = peer_new(), *b = peer_new();

	(void)state;
	assert_int_equal(ask(a, enter("x", STORE_GROUP_CLOSED, 0, 2)), 1);
	struct request cancel = {.op = OP_CANCEL, .seq = 1, .gid = 1};
	assert_null(kv_request(kv, a->client, &cancel, now));
	assert_true(kv_due(kv) == UINT64_MAX);
	/* Too late: it has entered, and is taken out again. */
	assert_int_equal(ask(b, enter("y", STORE_GROUP_OPEN, 0, 2)), 0);
	assert_int_equal(ask(a, enter("y", STORE_GROUP_OPEN, 1, 2)), 0);
	cancel.seq = 99;
	assert_null(kv_request(kv, a->client, &cancel, now));
	assert_int_equal(b->last_kind, STORE_EVENT_LEFT);
	free(a);
	free(b);
}

static void test_limits(void **state)
{
	struct peer *a = peer_new(), *b = peer_new();
	static uint8_t big[STORE_VALUE_MAX];
	char name[32];
	unsigned n = 0;
	int32_t r = 0;

	(void)state;
	for (; n <= STORE_CLIENT_BYTES_MAX / STORE_VALUE_MAX && r == 0; n++) {
		snprintf(name, sizeof(name), "big%u", n);
		r = ask(a, (struct request){.op = OP_SET,
					    .flags = STORE_EPHEMERAL,
					    .key = text_span(name),
					    .val = {big, sizeof(big)}});
	}
	assert_int_equal(r, SMEM_MALLOC_FAILED);
	assert_int_equal(n, STORE_CLIENT_BYTES_MAX / STORE_VALUE_MAX);
	/* Others have their own share, and get back what a client leaves. */
	assert_int_equal(ask(b, (struct request){.op = OP_SET,
						 .key = text_span("mine"),
						 .val = {big, sizeof(big)}}),
			 0);
	peer_gone(a, true);
	assert_int_equal(ask(b, (struct request){.op = OP_GET, .key = text_span("big0")}),
			 SMEM_OBJECT_NOT_EXISTS);
	r = 0;
	for (n = 0; n <= STORE_CLIENT_THINGS_MAX && r == 0; n++)
		r = ask(b, (struct request){.op = OP_WATCH, .seq = n, .key = text_span("w")});
	assert_int_equal(r, SMEM_NEW_OBJECT_FAILED);
	assert_int_equal(n, STORE_CLIENT_THINGS_MAX + 1);
	free(a);
	free(b);
}

static void put_u64(uint8_t *p, uint64_t v)
{
	for (int i = 0; i < 8; i++)
		p[i] = (uint8_t)(v >> (8 * i));
}

/* Lists made to be slow to intersect end the search, and the asking client alone counts. */
static void test_hostile_usable(void **state)
{
	static uint8_t list[STORE_CLIENT_USABLE_MAX * 16];
	struct peer *a[6], *b = peer_new();

	(void)state;
	for (unsigned k = 0; k < 6; k++) {
		a[k] = peer_new();
		for (unsigned i = 0; i < STORE_CLIENT_USABLE_MAX; i++) {
			put_u64(list + i * 16, k);
			put_u64(list + i * 16 + 8, (1ull << 40) + i);
		}
		assert_int_equal(
		    ask(a[k], (struct request){.op = OP_USABLE, .val = {list, sizeof(list)}}), 0);
	}
	put_u64(list, 1ull << 41);
	put_u64(list + 8, 1ull << 42);
	assert_int_equal(ask(b, (struct request){.op = OP_USABLE, .val = {list, 16}}), 0);
	uint64_t begin = clock_ns();
	assert_int_equal(ask(b, (struct request){.op = OP_HOLD,
						 .value = 1u << 30,
						 .align = 4096,
						 .key = text_span("r")}),
			 0);
	assert_true(clock_ns() - begin < 10 * NS_PER_S);
	for (unsigned k = 0; k < 6; k++)
		free(a[k]);
	free(b);
}

static void test_wrong_enters(void **state)
{
	struct peer *a = peer_new();
	struct request bad[] = {
	    enter("e", (enum store_group_mode)7, 0, 2),
	    enter("e", STORE_GROUP_OPEN, 0, 0),
	    enter("e", STORE_GROUP_OPEN, 0, WORLD_MAX + 1),
	    enter("e", STORE_GROUP_OPEN, 2, 2),
	    enter("e", STORE_GROUP_CLOSED, STORE_MEMBER_ANY, 2),
	    enter("e", STORE_GROUP_LOBBY, 0, 2),
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(ask(a, bad[i]), SMEM_INVALID_PARAM);
	assert_int_equal(ask(a, enter("e", STORE_GROUP_OPEN, 0, 2)), 0);
	assert_int_equal(ask(a, enter("f", STORE_GROUP_OPEN, 0, 2)), SMEM_INVALID_PARAM);
	assert_int_equal(ask(a, (struct request){.op = OP_FENCE, .gid = 9}),
			 SMEM_OBJECT_NOT_EXISTS);
	free(a);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_deadlines_in_order),
	    TEST(test_thousand_closed),
	    TEST(test_detached),
	    TEST(test_closed_lost_while_entering),
	    TEST(test_cancel),
	    TEST(test_limits),
	    TEST(test_hostile_usable),
	    TEST(test_wrong_enters),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
