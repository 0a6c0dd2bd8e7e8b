/* SPDX-License-Identifier: Apache-2.0 */
/* The blob of transports' addresses comes from other processes: its decoder believes nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/path.c"

static void finds_what_was_put(void **state)
{
	uint8_t blob[PATH_ADDRS_MAX], addr[256];
	size_t used = 0, len = 99;

	(void)state;
	memset(addr, 7, sizeof(addr));
	used += put_address(blob + used, sizeof(blob) - used, "cma", "\1\2", 2);
	used += put_address(blob + used, sizeof(blob) - used, "ofi", addr, 256);
	used += put_address(blob + used, sizeof(blob) - used, "none", "", 0);
	const uint8_t *at = find_address(blob, used, "cma", &len);
	assert_non_null(at);
	assert_int_equal(len, 2);
	assert_memory_equal(at, "\1\2", 2);
	at = find_address(blob, used, "ofi", &len);
	assert_non_null(at);
	assert_int_equal(len, 256);
	assert_memory_equal(at, addr, 256);
	assert_non_null(find_address(blob, used, "none", &len));
	assert_int_equal(len, 0);
	assert_null(find_address(blob, used, "direct", &len));
	assert_null(find_address(blob, used, "of", &len));
	assert_null(find_address(NULL, 0, "ofi", &len));
}

static void full_blob(void **state)
{
	uint8_t blob[16], addr[16] = {0};

	(void)state;
	assert_int_equal(put_address(blob, sizeof(blob), "ofi", addr, 10), 16);
	assert_int_equal(put_address(blob, sizeof(blob), "ofi", addr, 11), 0);
}

/* Whatever the bytes, what is found lies inside. Exact blocks, so that a sanitizer sees more. */
static void garbage(void **state)
{
	uint32_t rng = 1;
	size_t len;

	(void)state;
	for (int round = 0; round < 20000; round++) {
		size_t n = (rng >> 8) % 40;
		uint8_t *blob = malloc(n + 1);
		assert_non_null(blob);
		for (size_t i = 0; i < n; i++) {
			rng = rng * 1664525u + 1013904223u;
			blob[i] =
			    (rng >> 8) % 3 ? (uint8_t)((rng >> 16) % 4) : (uint8_t)(rng >> 16);
		}
		if (n > 3 && round % 2)
			memcpy(blob, "\3ofi", n < 4 ? n : 4);
		uint8_t *exact = malloc(n ? n : 1);
		assert_non_null(exact);
		memcpy(exact, blob, n);
		const uint8_t *at = find_address(exact, n, "ofi", &len);
		if (at)
			assert_true(at >= exact && at + len <= exact + n);
		free(exact);
		free(blob);
		rng = rng * 1664525u + 1013904223u;
	}
}

/* What a message tells in one line is there one by one too, as far as the line goes. */
static void refusals(void **state)
{
	static const char *const name[] = {"direct", "cma", "ofi", "none", "fifth"};
	struct path path = {0};
	char text[300], long_one[300];

	(void)state;
	memset(long_one, 'x', sizeof(long_one) - 1);
	long_one[sizeof(long_one) - 1] = '\0';
	for (unsigned i = 0; i < 5; i++)
		add_why(&path, name[i], i == 1 ? long_one : "no; not: at all");
	assert_int_equal(path.refused_n, PATH_REFUSED_MAX);
	for (unsigned i = 0; i < path.refused_n; i++) {
		const struct path_refused *r = &path.refused[i];
		assert_string_equal(r->name, name[i]);
		assert_true((size_t)r->at + r->len <= strlen(path.why));
		snprintf(text, sizeof(text), "%.*s", (int)r->len, path.why + r->at);
		if (i == 1)
			assert_int_equal(strspn(text, "x"), 200);
		else
			assert_string_equal(text, "no; not: at all");
	}
	assert_memory_equal(path.why, "direct: no; not: at all; cma: xx", 32);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(finds_what_was_put),
	    cmocka_unit_test(full_blob),
	    cmocka_unit_test(garbage),
	    cmocka_unit_test(refusals),
	};

	return cmocka_run_group_tests_name("path", tests, NULL, NULL);
}
