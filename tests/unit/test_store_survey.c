/* SPDX-License-Identifier: Apache-2.0 */
/* Surveys by themselves: who is asked, when they end, what they leave. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "store/kv.h"
#include "store/reply.h"
#include "util/clock.h"
#include "util/err.h"
#include "util/limits.h"

#define PEERS 4

struct peer {
	struct kv_client *client;
	unsigned asked, replies;
	uint64_t survey; /* asked last */
	uint32_t most;	 /* bytes of an answer */
	int32_t code;
	struct store_survey found; /* of the last reply */
};

static struct kv *kv;
static struct peer peer[PEERS];
static uint64_t now;

static void take(void *arg, uint16_t op, uint64_t id, struct blob *body)
{
	struct peer *p = arg;
	struct reader r = reader_of(body->data, body->len);

	if (op == OP_ASKED) {
		p->asked++;
		p->survey = id;
		p->most = read_u32(&r);
	} else if (op == OP_REPLY) {
		p->replies += id != 8;
		p->code = (int32_t)read_u32(&r);
		read_span(&r);
		if (p->code == 0 && id == 7)
			assert_int_equal(survey_read(r.at, (size_t)(r.end - r.at), &p->found), 0);
	}
	blob_put(body);
}

static void come(unsigned i)
{
	char address[] = "10.0.0.1:0";

	address[9] = (char)('0' + i);
	peer[i] = (struct peer){.client = kv_client_add(kv, &peer[i])};
	assert_non_null(peer[i].client);
	kv_client_about(peer[i].client, address, PROTO_VERSION);
}

static void go(unsigned i, bool lost)
{
	kv_client_gone(kv, peer[i].client, lost, now);
	peer[i].client = NULL;
}

static int setup(void **state)
{
	(void)state;
	now = NS_PER_S;
	if (kv_create(take, &kv) != 0)
		return -1;
	for (unsigned i = 0; i < PEERS; i++)
		come(i);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	for (unsigned i = 0; i < PEERS; i++)
		store_survey_free(&peer[i].found);
	kv_destroy(kv);
	return 0;
}

static void request(unsigned i, struct request req)
{
	assert_null(kv_request(kv, peer[i].client, &req, now));
}

static void survey(unsigned i)
{
	store_survey_free(&peer[i].found);
	request(i, (struct request){.op = OP_SURVEY, .id = 7, .timeout_ms = 100});
}

static void answer(unsigned i, uint64_t number, const char *text)
{
	request(i, (struct request){.op = OP_ANSWER,
				    .seq = number,
				    .val = {(const uint8_t *)text, strlen(text)}});
}

static void enter(unsigned i, const char *group, uint32_t member)
{
	request(i, (struct request){.op = OP_ENTER,
				    .id = 8,
				    .gid = 1,
				    .flags = STORE_GROUP_OPEN,
				    .index = member,
				    .size = 8,
				    .numbers = 8,
				    .timeout_ms = 10,
				    .key = {(const uint8_t *)group, strlen(group)}});
}

static void lease(unsigned i, const char *key)
{
	request(i, (struct request){.op = OP_SET,
				    .flags = STORE_EPHEMERAL,
				    .key = {(const uint8_t *)key, strlen(key)}});
}

static const struct store_surveyed *found(unsigned asker, unsigned i)
{
	const struct store_survey *s = &peer[asker].found;

	for (uint32_t k = 0; k < s->n; k++) {
		if (s->client[k].address[9] == (char)('0' + i))
			return &s->client[k];
	}
	return NULL;
}

static void all_answer(void **state)
{
	(void)state;
	survey(0);
	assert_int_equal(peer[0].asked, 0);
	for (unsigned i = 1; i < PEERS; i++) {
		assert_int_equal(peer[i].asked, 1);
		assert_int_equal(peer[0].replies, 0);
		answer(i, peer[i].survey, i == 2 ? "" : "me");
	}
	assert_int_equal(peer[0].replies, 1);
	assert_int_equal(peer[0].found.n, PEERS - 1);
	for (unsigned i = 1; i < PEERS; i++) {
		const struct store_surveyed *c = found(0, i);
		assert_non_null(c);
		assert_int_equal(c->state, STORE_SURVEY_ANSWERED);
		assert_int_equal(c->answer.len, i == 2 ? 0 : 2);
		assert_int_equal(c->held_n, 0);
	}
	assert_true(kv_due(kv) == UINT64_MAX);
}

static void alone(void **state)
{
	(void)state;
	for (unsigned i = 1; i < PEERS; i++)
		go(i, false);
	survey(0);
	assert_int_equal(peer[0].replies, 1);
	assert_int_equal(peer[0].found.n, 0);
}

static void silent(void **state)
{
	(void)state;
	enter(2, "bm/5", 3);
	lease(2, "trans/x");
	survey(0);
	answer(1, peer[1].survey, "me");
	answer(1, peer[1].survey, "again"); /* once only */
	go(3, true);
	assert_int_equal(peer[0].replies, 0);
	now += 100 * NS_PER_MS;
	kv_tick(kv, now);
	assert_int_equal(peer[0].replies, 1);
	assert_int_equal(found(0, 1)->state, STORE_SURVEY_ANSWERED);
	assert_memory_equal(found(0, 1)->answer.data, "me", 2);
	const struct store_surveyed *c = found(0, 2);
	assert_int_equal(c->state, STORE_SURVEY_SILENT);
	assert_int_equal(c->held_n, 2);
	assert_int_equal(c->held[0].kind, STORE_HELD_MEMBER);
	assert_int_equal(c->held[0].member, 3);
	assert_string_equal(c->held[0].name, "bm/5");
	assert_int_equal(c->held[1].kind, STORE_HELD_KEY);
	assert_string_equal(c->held[1].name, "trans/x");
	assert_null(found(0, 3));
	assert_int_equal(peer[0].found.n, 3);
	answer(2, peer[2].survey, "late");
	assert_int_equal(peer[0].replies, 1);
}

/* Who ends is not waited for. */
static void gone(void **state)
{
	(void)state;
	survey(0);
	answer(1, peer[1].survey, "me");
	go(1, false); /* what it said counts */
	answer(2, peer[2].survey, "me");
	go(3, true);
	assert_int_equal(peer[0].replies, 1);
	unsigned answered = 0, left = 0;
	for (uint32_t i = 0; i < peer[0].found.n; i++) {
		answered += peer[0].found.client[i].state == STORE_SURVEY_ANSWERED;
		left += peer[0].found.client[i].state == STORE_SURVEY_GONE;
	}
	assert_int_equal(answered, 2);
	assert_int_equal(left, 1);
}

static void old_client(void **state)
{
	(void)state;
	kv_client_about(peer[2].client, "10.0.0.1:2", PROTO_SURVEYS - 1);
	survey(0);
	assert_int_equal(peer[2].asked, 0);
	answer(1, peer[1].survey, "");
	answer(3, peer[3].survey, "");
	assert_int_equal(peer[0].replies, 1);
	assert_int_equal(found(0, 2)->state, STORE_SURVEY_UNABLE);
}

static void two_at_once(void **state)
{
	(void)state;
	survey(0);
	uint64_t first = peer[2].survey;
	survey(1);
	uint64_t second = peer[2].survey;
	assert_true(first != second);
	answer(2, second, "b");
	answer(2, first, "a");
	answer(3, first, "a");
	answer(1, first, "a");
	assert_int_equal(peer[0].replies, 1);
	assert_memory_equal(found(0, 2)->answer.data, "a", 1);
	assert_int_equal(peer[1].replies, 0);
	answer(3, second, "b");
	answer(0, second, "b");
	assert_int_equal(peer[1].replies, 1);
	assert_memory_equal(found(1, 2)->answer.data, "b", 1);
}

/* The asker dies: nothing waits, and answers find nobody. */
static void asker_gone(void **state)
{
	(void)state;
	survey(0);
	answer(1, peer[1].survey, "me");
	go(0, true);
	assert_true(kv_due(kv) == UINT64_MAX);
	answer(2, peer[2].survey, "me");
	answer(3, peer[3].survey, "me");
	survey(1);
	assert_int_equal(peer[1].code, 0);
	request(1, (struct request){.op = OP_CANCEL, .seq = 7});
	assert_true(kv_due(kv) == UINT64_MAX);
	assert_int_equal(peer[1].replies, 0);
}

static void limits(void **state)
{
	(void)state;
	for (unsigned i = 0; i < STORE_SURVEYS_MAX; i++)
		request(0, (struct request){.op = OP_SURVEY, .id = 10 + i, .timeout_ms = 100});
	assert_int_equal(peer[0].replies, 0);
	survey(1);
	assert_int_equal(peer[1].code, SMEM_NEW_OBJECT_FAILED);
	now += 100 * NS_PER_MS;
	kv_tick(kv, now);
	assert_int_equal(peer[0].replies, STORE_SURVEYS_MAX);
	assert_true(kv_due(kv) == UINT64_MAX);
}

/* Together they must fit a reply, so each is told how much; who says more has said nothing. */
static void too_long(void **state)
{
	enum { MORE = 3 * STORE_SURVEY_BYTES_MAX / STORE_VALUE_MAX };
	struct peer *more = calloc(MORE, sizeof(*more));
	char *large = calloc(1, STORE_VALUE_MAX);

	(void)state;
	assert_true(more && large);
	survey(0);
	assert_int_equal(peer[1].most, STORE_VALUE_MAX);
	for (unsigned i = 1; i < PEERS; i++)
		answer(i, peer[i].survey, "");
	for (unsigned i = 0; i < MORE; i++) {
		more[i].client = kv_client_add(kv, &more[i]);
		kv_client_about(more[i].client, "10.0.0.1:9", PROTO_VERSION);
	}
	survey(0);
	uint32_t most = peer[1].most;
	assert_int_equal(most, STORE_SURVEY_BYTES_MAX / (MORE + PEERS - 1));
	for (unsigned i = 0; i < MORE; i++) {
		struct request req = {.op = OP_ANSWER,
				      .seq = more[i].survey,
				      .val = {(const uint8_t *)large, most + (i == 0)}};
		assert_int_equal(more[i].most, most);
		assert_null(kv_request(kv, more[i].client, &req, now));
	}
	for (unsigned i = 1; i < PEERS; i++)
		answer(i, peer[i].survey, "me");
	assert_int_equal(peer[0].replies, 2);
	assert_int_equal(peer[0].code, 0);
	unsigned unable = 0, full = 0;
	for (uint32_t i = 0; i < peer[0].found.n; i++) {
		unable += peer[0].found.client[i].state == STORE_SURVEY_UNABLE;
		full += peer[0].found.client[i].answer.len == most;
	}
	assert_int_equal(unable, 1);
	assert_int_equal(full, MORE - 1);
	free(more);
	free(large);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(all_answer),  TEST(alone),	 TEST(silent), TEST(gone),     TEST(old_client),
	    TEST(two_at_once), TEST(asker_gone), TEST(limits), TEST(too_long),
	};

	return cmocka_run_group_tests_name("survey", tests, NULL, NULL);
}
