/* SPDX-License-Identifier: Apache-2.0 */
/* Rounds in which a member stands for several. */
#include "kv_peers.h"

static struct request set_round(uint8_t members, uint32_t turn, const char *kind, const char *val)
{
	static uint8_t bits[16];
	static unsigned n;
	uint8_t *set = &bits[n++ % 16];

	*set = members;
	return (struct request){.op = OP_SET_ROUND,
				.gid = 1,
				.timeout_ms = 1000,
				.seq = turn,
				.sort = {set, 1},
				.extra = text_span(kind),
				.val = text_span(val)};
}

static struct request plain_round(void)
{
	return (struct request){.op = OP_ROUND, .gid = 1, .timeout_ms = 9, .extra = text_span("k")};
}

static struct request settle(uint32_t turn, const char *kind)
{
	return (struct request){.op = OP_SETTLE, .gid = 1, .seq = turn, .extra = text_span(kind)};
}

static void closed_of(struct peer **p, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		p[i] = peer_new();
		ask(p[i], enter("s", STORE_GROUP_CLOSED, i, n));
	}
	for (unsigned i = 0; i < n; i++)
		assert_int_equal(p[i]->code, 0);
}

static void free_all(struct peer **p, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		if (p[i]->client)
			peer_gone(p[i], false);
		free(p[i]);
	}
}

/* The parts of the last reply, as "set:value " */
static const char *parts_text(const struct peer *p)
{
	static char text[256];
	struct reader r = reader_of(p->body, p->body_len);
	uint32_t n = read_u32(&r);
	struct set set;

	text[0] = '\0';
	for (uint32_t i = 0; i < n; i++) {
		assert_true(set_decode(read_span(&r), &set));
		struct span val = read_span(&r);
		snprintf(text + strlen(text), sizeof(text) - strlen(text), "%x:%.*s ",
			 (unsigned)set.word[0], (int)val.len, (const char *)val.data);
	}
	assert_true(reader_done(&r));
	return text;
}

static void test_sets_complete(void **state)
{
	struct peer *p[5];
	char kind[16];

	(void)state;
	closed_of(p, 5);
	unsigned before = p[0]->replies;
	for (uint32_t turn = UINT32_MAX - 5; turn != 5; turn++) { /* turns wrap */
		snprintf(kind, sizeof(kind), "%u", turn);
		assert_int_equal(ask(p[1], set_round(0x0b, turn, kind, "abd")), 1);
		assert_int_equal(ask(p[4], set_round(0x10, turn, kind, "e")), 1);
		assert_int_equal(ask(p[2], set_round(0x04, turn, kind, "")), 0);
		for (unsigned i = 1; i < 5; i++) {
			if (i == 3)
				continue;
			assert_int_equal(p[i]->code, 0);
			assert_string_equal(parts_text(p[i]), "b:abd 4: 10:e ");
		}
	}
	assert_int_equal(p[0]->replies, before); /* nobody bothers those who are stood for */
	free_all(p, 5);
}

static void test_sets_refused(void **state)
{
	static const uint8_t wide[WORLD_MAX / 8 + 1] = {1};
	struct peer *p[3];

	(void)state;
	closed_of(p, 3);
	assert_int_equal(ask(p[0], set_round(0x06, 1, "k", "")), SMEM_INVALID_PARAM);
	assert_int_equal(ask(p[0], set_round(0x00, 1, "k", "")), SMEM_INVALID_PARAM);
	assert_int_equal(ask(p[0], set_round(0x81, 1, "k", "")), SMEM_INVALID_PARAM);
	struct request req = set_round(1, 1, "k", "");
	req.sort = (struct span){wide, sizeof(wide)};
	assert_int_equal(ask(p[0], req), SMEM_INVALID_PARAM);
	assert_int_equal(ask(p[0], set_round(0x03, 1, "k", "")), 1);
	/* Stood for already, by whomever. */
	assert_int_equal(ask(p[1], set_round(0x02, 2, "k", "")), SMEM_INVALID_PARAM);
	assert_int_equal(ask(p[2], set_round(0x06, 2, "k", "")), SMEM_INVALID_PARAM);
	assert_int_equal(ask(p[1], plain_round()), SMEM_INVALID_PARAM);
	/* The two sorts of rounds do not mix. */
	ask(p[2], plain_round());
	assert_int_equal(p[0]->code, SMEM_INVALID_PARAM);
	assert_int_equal(p[2]->code, SMEM_INVALID_PARAM);
	/* A turn is used once. */
	assert_int_equal(ask(p[0], set_round(0x03, 1, "k", "")), SMEM_STALE);
	assert_int_equal(ask(p[1], set_round(0x03, 1, "k", "")), SMEM_STALE);
	assert_int_equal(ask(p[1], set_round(0x03, 2, "k", "")), 1);
	/* Kinds are compared when all are there, a kind that has completed at once. */
	ask(p[2], set_round(0x04, 2, "other", ""));
	assert_int_equal(p[1]->code, SMEM_INVALID_PARAM);
	assert_int_equal(ask(p[1], set_round(0x03, 3, "k", "")), 1);
	assert_int_equal(ask(p[2], set_round(0x04, 3, "k", "")), 0);
	assert_int_equal(ask(p[2], set_round(0x04, 4, "k", "")), SMEM_REPEAT_CALL);
	assert_int_equal(ask(p[2], set_round(0x04, 3, "k", "")), SMEM_STALE);
	assert_int_equal(ask(p[2], set_round(0x04, 4, "l", "")), 1);
	free_all(p, 3);
}

/* Members whose sender is silent learn the outcome, or take the contribution back. */
static void test_sets_settle(void **state)
{
	struct peer *p[4];

	(void)state;
	closed_of(p, 4);
	assert_int_equal(ask(p[0], set_round(0x03, 1, "1", "ab")), 1);
	assert_int_equal(ask(p[1], settle(1, "1")), SMEM_TIMEOUT);
	assert_int_equal(p[0]->code, SMEM_STALE);
	assert_int_equal(p[1]->missing.word[0], 0x0c);
	/* It was on its way still. */
	assert_int_equal(ask(p[1], settle(2, "1")), SMEM_TIMEOUT);
	assert_int_equal(ask(p[0], set_round(0x03, 2, "1", "late")), SMEM_STALE);
	/* Completed: told as often as asked, until the next one. */
	assert_int_equal(ask(p[1], set_round(0x03, 3, "1", "ab")), 1);
	assert_int_equal(ask(p[2], set_round(0x0c, 1, "1", "cd")), 0);
	peer_gone(p[1], true);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(ask(p[0], settle(3, "1")), 0);
		assert_string_equal(parts_text(p[0]), "3:ab c:cd ");
	}
	/* What has not completed never will. */
	assert_int_equal(ask(p[0], settle(4, "2")), SMEM_PEER_LOST);
	assert_int_equal(ask(p[0], set_round(0x01, 5, "2", "")), SMEM_PEER_LOST);
	free_all(p, 4);
}

static void test_sets_lose_a_member(void **state)
{
	struct peer *p[4];

	(void)state;
	closed_of(p, 4);
	/* Not the sender, but one that it stands for. */
	assert_int_equal(ask(p[0], set_round(0x03, 1, "1", "")), 1);
	peer_gone(p[1], true);
	assert_int_equal(p[0]->code, SMEM_PEER_LOST);
	assert_non_null(strstr(p[0]->text, "rank 1 was lost"));
	free_all(p, 4);
	/* The sender, while another one waits. */
	closed_of(p, 4);
	assert_int_equal(ask(p[0], set_round(0x03, 1, "1", "")), 1);
	assert_int_equal(ask(p[2], set_round(0x04, 1, "1", "")), 1);
	ask(p[0], (struct request){.op = OP_LEAVE, .gid = 1});
	assert_int_equal(p[2]->code, SMEM_PEER_LOST);
	assert_int_equal(ask(p[1], settle(1, "1")), SMEM_PEER_LOST);
	free_all(p, 4);
}

/* Who is missing: not those who say that they are inside, nor those who were a moment ago. */
static void test_sets_present(void **state)
{
	struct request present = {.op = OP_PRESENT, .gid = 1, .flags = 1, .extra = text_span("2")};
	struct request late = present, absent = present;
	struct peer *p[6];

	(void)state;
	absent.flags = 0;
	late.extra = text_span("1");
	closed_of(p, 6);
	assert_int_equal(ask(p[0], set_round(0x07, 1, "1", "")), 1);
	assert_int_equal(ask(p[4], set_round(0x38, 1, "1", "")), 0);
	ask(p[5], late); /* that round is over */
	ask(p[3], present);
	assert_int_equal(ask(p[0], set_round(0x07, 2, "2", "")), 1);
	move(1000);
	assert_int_equal(p[0]->code, SMEM_TIMEOUT);
	assert_int_equal(p[0]->missing.word[0], 0x30);
	assert_non_null(strstr(p[0]->text, "missing rank 4, 5"));
	move(900);
	assert_int_equal(ask(p[3], absent), 0);
	assert_int_equal(p[3]->missing.word[0], 0x30);
	move(200);
	assert_int_equal(ask(p[4], absent), 0);
	assert_int_equal(p[4]->missing.word[0], 0x27);
	free_all(p, 6);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

/* What waits and what is kept is bounded for all groups together, and given back. */
static void test_sets_limit(void **state)
{
	static uint8_t big[STORE_SET_VALUE_MAX];
	struct peer *p = peer_new();
	unsigned n = 0;
	int32_t r = 0;

	(void)state;
	for (; r == 0 && n <= STORE_ROUNDS_MAX / sizeof(big); n++) {
		char name[16];
		snprintf(name, sizeof(name), "%u", n);
		struct request in = enter(name, STORE_GROUP_CLOSED, 0, 1);
		in.gid = n + 1;
		assert_int_equal(ask(p, in), 0);
		struct request req = set_round(1, 1, "k", "");
		req.gid = n + 1;
		req.val = (struct span){big, sizeof(big)};
		r = ask(p, req);
	}
	assert_int_equal(r, SMEM_MALLOC_FAILED);
	assert_true(n > 4);
	assert_int_equal(ask(p, (struct request){.op = OP_LEAVE, .gid = 1}), 0);
	struct request again = set_round(1, 2, "l", "");
	again.gid = n;
	again.val = (struct span){big, sizeof(big)};
	assert_int_equal(ask(p, again), 0);
	free_all(&p, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_sets_complete), TEST(test_sets_refused),	     TEST(test_sets_settle),
	    TEST(test_sets_limit),    TEST(test_sets_lose_a_member), TEST(test_sets_present),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
