/* SPDX-License-Identifier: Apache-2.0 */
#include <regex.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "util/env.h"
#include "util/log.h"

static int records;
static int last_level;
static char last_text[4096];

static void sink(int level, const char *msg)
{
	records++;
	last_level = level;
	strncpy(last_text, msg, sizeof(last_text) - 1);
	LOG_ERROR("inner", "made by the sink itself: dropped");
}

static int formatted;

static int count_format(void)
{
	return ++formatted;
}

static int setup(void **state)
{
	(void)state;
	records = 0;
	log_set_level(LOG_LEVEL_WARN);
	log_set_sink(sink);
	return 0;
}

static void test_level_filters_before_formatting(void **state)
{
	(void)state;
	LOG_INFO("t", "%d", count_format());
	assert_int_equal(formatted, 0);
	assert_int_equal(records, 0);
	LOG_WARN("t", "%d", count_format());
	assert_int_equal(records, 1);
	assert_int_equal(last_level, LOG_LEVEL_WARN);
	assert_string_equal(last_text, "[t] 1");
	log_set_level(LOG_LEVEL_DEBUG);
	LOG_DEBUG("t", "x\ny");
	assert_string_equal(last_text, "[t] x?y");
}

static void test_default_sink_format(void **state)
{
	char line[4096] = {0};
	int pipes[2];
	regex_t re;

	(void)state;
	log_set_sink(NULL);
	assert_int_equal(pipe(pipes), 0);
	int saved = dup(STDERR_FILENO);
	dup2(pipes[1], STDERR_FILENO);
	LOG_ERROR("tag", "hello %d", 5);
	dup2(saved, STDERR_FILENO);
	close(saved);
	assert_true(read(pipes[0], line, sizeof(line) - 1) > 0);
	close(pipes[0]);
	close(pipes[1]);
	assert_int_equal(regcomp(&re,
				 "^[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{6}"
				 " error [0-9]+ \\[tag\\] hello 5\n$",
				 REG_EXTENDED | REG_NOSUB),
			 0);
	assert_int_equal(regexec(&re, line, 0, NULL, 0), 0);
	regfree(&re);
}

static void test_env_defaults_and_ranges(void **state)
{
	(void)state;
	unsetenv("SMEM_SILENCE_MS");
	assert_int_equal(env_int(ENV_SILENCE_MS), 3000);
	setenv("SMEM_SILENCE_MS", "1500", 1);
	assert_int_equal(env_int(ENV_SILENCE_MS), 1500);
	static const char *const bad[] = {"", "abc", "10", "1500x", "99999999999999999999"};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		records = 0;
		setenv("SMEM_SILENCE_MS", bad[i], 1);
		assert_int_equal(env_int(ENV_SILENCE_MS), 3000);
		assert_int_equal(records, 1);
		assert_non_null(strstr(last_text, "SMEM_SILENCE_MS"));
	}
	unsetenv("SMEM_SILENCE_MS");
	unsetenv("SMEM_FABRIC_PROVIDER");
	assert_string_equal(env_str(ENV_FABRIC_PROVIDER), "");
}

static void test_env_table_is_sound(void **state)
{
	(void)state;
	for (int i = 0; i < ENV_COUNT; i++) {
		assert_int_equal(strncmp(env_entries[i].name, "SMEM_", 5), 0);
		assert_true(strlen(env_entries[i].help) > 10);
		if (env_entries[i].is_int) {
			int64_t def = strtoll(env_entries[i].def, NULL, 10);
			assert_true(def >= env_entries[i].min && def <= env_entries[i].max);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup(test_level_filters_before_formatting, setup),
	    cmocka_unit_test_setup(test_default_sink_format, setup),
	    cmocka_unit_test_setup(test_env_defaults_and_ranges, setup),
	    cmocka_unit_test_setup(test_env_table_is_sound, setup),
	};
	return cmocka_run_group_tests_name("log_env", tests, NULL, NULL);
}
