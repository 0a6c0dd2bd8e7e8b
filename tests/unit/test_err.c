/* SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "util/err.h"
#include "util/log.h"

static int records;
static char record[2048];

static void sink(int level, const char *msg)
{
	assert_int_equal(level, LOG_LEVEL_ERROR);
	records++;
	strncpy(record, msg, sizeof(record) - 1);
}

static int setup(void **state)
{
	(void)state;
	log_set_sink(sink);
	records = 0;
	err_last_clear();
	return 0;
}

static void test_failure_sets_and_logs_once(void **state)
{
	struct err_scope s;

	(void)state;
	err_enter(&s, "smem_bm_join");
	assert_int_equal(err_leave(&s, smem_err(SMEM_INVALID_PARAM, "rank %d", 7)), -2000);
	assert_string_equal(err_last(), "smem_bm_join: SMEM_INVALID_PARAM (-2000): rank 7");
	assert_int_equal(err_last_code(), SMEM_INVALID_PARAM);
	assert_int_equal(records, 1);
	assert_string_equal(record, "[smem] smem_bm_join: SMEM_INVALID_PARAM (-2000): rank 7");
}

static void test_success_changes_nothing(void **state)
{
	struct err_scope s;

	(void)state;
	err_enter(&s, "smem_a");
	err_leave(&s, smem_err(SMEM_TIMEOUT, "first"));
	err_enter(&s, "smem_b");
	smem_err(SMEM_IO, "recovered from");
	assert_int_equal(err_leave(&s, 0), 0);
	assert_string_equal(err_last(), "smem_a: SMEM_TIMEOUT (-2004): first");
	assert_int_equal(records, 1);
}

static void test_clear_keeps_the_text_valid(void **state)
{
	struct err_scope s;

	(void)state;
	err_enter(&s, "smem_a");
	err_leave(&s, smem_err(SMEM_IO, "one"));
	const char *text = err_last_clear();
	assert_string_equal(text, "smem_a: SMEM_IO (-2024): one");
	assert_string_equal(err_last(), "");
	assert_string_equal(err_last_clear(), "");
	assert_int_equal(err_last_code(), 0);
	assert_string_equal(text, "smem_a: SMEM_IO (-2024): one");
}

static void test_text_is_one_short_line(void **state)
{
	struct err_scope s;
	char longer[3000];

	(void)state;
	for (size_t i = 0; i + 3 < sizeof(longer); i += 3)
		memcpy(longer + i, "\xe2\x82\xac", 4);
	err_enter(&s, "smem_a");
	err_leave(&s, smem_err(SMEM_IO, "a\nb\x7f%s", longer));
	size_t n = strlen(err_last());
	assert_true(n <= 1023);
	assert_null(strchr(err_last(), '\n'));
	assert_null(strchr(err_last(), 0x7f));
	assert_memory_equal(err_last() + n - 3, "\xe2\x82\xac", 3);
}

static void test_errno_is_told(void **state)
{
	struct err_scope s;

	(void)state;
	err_enter(&s, "smem_a");
	err_leave(&s, smem_errno(SMEM_IO, 2, "open %s", "/x"));
	assert_string_equal(
	    err_last(), "smem_a: SMEM_IO (-2024): open /x: No such file or directory (errno 2)");
}

static void test_detail_may_quote_the_one_before(void **state)
{
	struct err_scope s;

	(void)state;
	err_enter(&s, "smem_a");
	smem_err(SMEM_IO, "inner");
	err_leave(&s, smem_err(SMEM_UNREACHABLE, "outer: %s", err_detail()));
	assert_string_equal(err_last(), "smem_a: SMEM_UNREACHABLE (-2021): outer: inner");
}

static void test_code_without_record_is_described(void **state)
{
	struct err_scope s;

	(void)state;
	err_enter(&s, "smem_a");
	err_leave(&s, SMEM_STALE);
	assert_non_null(strstr(err_last(), "smem_a: SMEM_STALE (-2022): "));
	assert_string_not_equal(err_last(), "smem_a: SMEM_STALE (-2022): ");
}

static void *other_thread(void *arg)
{
	struct err_scope s;

	(void)arg;
	assert_string_equal(err_last(), "");
	err_enter(&s, "smem_other");
	err_leave(&s, smem_err(SMEM_IO, "there"));
	return NULL;
}

static void test_threads_have_their_own(void **state)
{
	pthread_t t;
	struct err_scope s;

	(void)state;
	err_enter(&s, "smem_a");
	err_leave(&s, smem_err(SMEM_IO, "here"));
	assert_int_equal(pthread_create(&t, NULL, other_thread, NULL), 0);
	pthread_join(t, NULL);
	assert_string_equal(err_last(), "smem_a: SMEM_IO (-2024): here");
}

static void test_strerror_knows_all(void **state)
{
	(void)state;
	for (int32_t code = -2100; code < 10; code++) {
		assert_non_null(smem_strerror(code));
		assert_true(err_name(code) == NULL || strlen(smem_strerror(code)) > 0);
	}
	assert_string_equal(smem_strerror(12345), smem_strerror(-5));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup(test_failure_sets_and_logs_once, setup),
	    cmocka_unit_test_setup(test_success_changes_nothing, setup),
	    cmocka_unit_test_setup(test_clear_keeps_the_text_valid, setup),
	    cmocka_unit_test_setup(test_text_is_one_short_line, setup),
	    cmocka_unit_test_setup(test_errno_is_told, setup),
	    cmocka_unit_test_setup(test_detail_may_quote_the_one_before, setup),
	    cmocka_unit_test_setup(test_code_without_record_is_described, setup),
	    cmocka_unit_test_setup(test_threads_have_their_own, setup),
	    cmocka_unit_test_setup(test_strerror_knows_all, setup),
	};
	return cmocka_run_group_tests_name("err", tests, NULL, NULL);
}
