/* SPDX-License-Identifier: Apache-2.0 */
/* Surveys through server and clients over TCP: all are asked, each answers for itself. */
#include "store_util.h"

#include "store/survey.h"

static struct hub hub;

static int setup(void **state)
{
	(void)state;
	hub_start(&hub);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	store_answer_with(NULL);
	hub_stop(&hub);
	return 0;
}

/* The id of the client, and as many bytes as the test wants more. */
static _Atomic size_t more;

static void answer(uint64_t client, size_t most, struct store_bytes *ret)
{
	assert_int_equal(most, STORE_VALUE_MAX);
	ret->len = sizeof(client) + atomic_load(&more);
	ret->data = calloc(1, ret->len);
	if (ret->data)
		memcpy(ret->data, &client, sizeof(client));
}

static void answers_are(const struct store_survey *s, struct store *const *others, uint32_t n,
			size_t len)
{
	assert_int_equal(s->n, n);
	for (uint32_t i = 0; i < n; i++) {
		bool there = false;
		for (uint32_t k = 0; k < n; k++) {
			uint64_t id = store_client_id(others[i]);
			const struct store_surveyed *c = &s->client[k];
			assert_int_equal(c->state, STORE_SURVEY_ANSWERED);
			assert_int_equal(c->answer.len, len);
			assert_true(strncmp(c->address, "127.0.0.", 8) == 0);
			there |= len >= sizeof(id) && memcmp(c->answer.data, &id, sizeof(id)) == 0;
		}
		assert_true(there || len < sizeof(uint64_t));
	}
}

static void test_all(void **state)
{
	struct store *s[4];
	struct store_survey found = {.n = 0};
	static const size_t extra[] = {0, 100000, STORE_VALUE_MAX - 8};

	(void)state;
	for (unsigned i = 0; i < 4; i++)
		s[i] = hub_client(&hub, i + 1);
	store_answer_with(NULL);
	assert_int_equal(store_survey(s[0], deadline_in_s(LONG_S), &found), 0);
	answers_are(&found, s + 1, 3, 0);
	store_survey_free(&found);
	store_answer_with(answer);
	for (unsigned i = 0; i < 3; i++) {
		atomic_store(&more, extra[i]);
		assert_int_equal(store_survey(s[0], deadline_in_s(LONG_S), &found), 0);
		answers_are(&found, s + 1, 3, extra[i] + 8);
		store_survey_free(&found);
	}
	atomic_store(&more, STORE_VALUE_MAX); /* too long: none rather than a broken frame */
	assert_int_equal(store_survey(s[0], deadline_in_s(LONG_S), &found), 0);
	answers_are(&found, s + 1, 3, 0);
	store_survey_free(&found);
	atomic_store(&more, 0);
	for (unsigned i = 0; i < 4; i++)
		store_close(s[i], 0);
}

static void survey(struct task *t)
{
	struct store_survey found = {.n = 0};

	for (unsigned i = 0; i < 20 && t->code == 0; i++) {
		int32_t code = store_survey(t->store, deadline_in_s(LONG_S), &found);
		if (code != 0)
			task_fail(t, code);
		else if (found.n != 3)
			task_fail(t, SMEM_ERROR);
		store_survey_free(&found);
	}
}

static void test_at_once(void **state)
{
	struct store *s[4];
	struct task t[4] = {0};

	(void)state;
	store_answer_with(answer);
	for (unsigned i = 0; i < 4; i++)
		s[i] = hub_client(&hub, i + 1);
	for (unsigned i = 0; i < 4; i++) {
		t[i].store = s[i];
		task_start(&t[i], survey);
	}
	for (unsigned i = 0; i < 4; i++) {
		task_join(&t[i]);
		assert_int_equal(t[i].code, 0);
	}
	for (unsigned i = 0; i < 4; i++)
		store_close(s[i], 0);
}

static void test_lost_store(void **state)
{
	struct hub own;
	struct store_survey found = {.n = 0};

	(void)state;
	hub_start(&own);
	struct store *s = hub_client(&own, 1);
	assert_int_equal(store_survey(s, deadline_in_s(LONG_S), &found), 0);
	assert_int_equal(found.n, 0);
	store_survey_free(&found);
	hub_stop(&own);
	assert_int_equal(store_survey(s, deadline_in_s(LONG_S), &found), SMEM_UNREACHABLE);
	store_close(s, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_all),
	    cmocka_unit_test(test_at_once),
	    cmocka_unit_test(test_lost_store),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
