/* SPDX-License-Identifier: Apache-2.0 */
/* A reader gets whole contexts while they are replaced, and the codes for every capacity. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <pthread.h>

#include "core/context.h"
#include "util/err.h"

static struct control page = {.fd = -1};

static void test_lengths(void **state)
{
	char buf[8] = "........";
	uint32_t len = 8;

	(void)state;
	assert_int_equal(context_get(&page, 1, buf, &len), SMEM_OK);
	assert_int_equal(len, 0);
	assert_int_equal(context_set(&page, 1, "abcde", 5), SMEM_OK);
	len = 0;
	assert_int_equal(context_get(&page, 1, NULL, &len), SMEM_OK);
	assert_int_equal(len, 5);
	len = 4;
	assert_int_equal(context_get(&page, 1, buf, &len), SMEM_INVALID_PARAM);
	assert_int_equal(len, 5);
	assert_memory_equal(buf, "........", 8);
	assert_string_equal(err_detail(), "size 4, the context of rank 1 has 5 bytes");
	assert_int_equal(context_get(&page, 1, buf, &len), SMEM_OK);
	assert_memory_equal(buf, "abcde...", 8);
	len = UINT32_MAX;
	assert_int_equal(context_set(&page, 1, "x", 1), SMEM_OK);
	assert_int_equal(context_get(&page, 1, buf, &len), SMEM_OK);
	assert_int_equal(len, 1);
	assert_memory_equal(buf, "xbcde...", 8);
	len = 8;
	assert_int_equal(context_get(&page, 0, buf, &len), SMEM_OK);
	assert_int_equal(len, 0);
}

static void test_edges(void **state)
{
	static const uint32_t sizes[] = {1, 7, 8, 9, 4095, 65535, 65536};
	char *in = malloc(EXTRA_CONTEXT_MAX), *out = malloc(EXTRA_CONTEXT_MAX);

	(void)state;
	for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
		uint32_t len = EXTRA_CONTEXT_MAX;
		for (uint32_t i = 0; i < sizes[s]; i++)
			in[i] = (char)(i * 13 + s);
		assert_int_equal(context_set(&page, 2, in, sizes[s]), SMEM_OK);
		assert_int_equal(context_get(&page, 2, out, &len), SMEM_OK);
		assert_int_equal(len, sizes[s]);
		assert_memory_equal(in, out, len);
	}
	free(in);
	free(out);
}

#define SETS 3000

static void *writer(void *arg)
{
	char buf[5000];

	for (uint32_t i = 1; i <= SETS; i++) {
		memset(buf, (int)(i & 0x7f), sizeof(buf));
		if (context_set(&page, 0, buf, 1 + i % 5000) != SMEM_OK)
			return arg;
	}
	return NULL;
}

static void test_never_torn(void **state)
{
	pthread_t t;
	char buf[5000];
	uint32_t len;
	void *failed;

	(void)state;
	assert_int_equal(pthread_create(&t, NULL, writer, buf), 0);
	do {
		len = sizeof(buf);
		assert_int_equal(context_get(&page, 0, buf, &len), SMEM_OK);
		for (uint32_t i = 1; i < len; i++)
			assert_int_equal(buf[i], buf[0]);
	} while (len != 1 + SETS % 5000 || buf[0] != (SETS & 0x7f));
	pthread_join(t, &failed);
	assert_null(failed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_lengths),
	    cmocka_unit_test(test_edges),
	    cmocka_unit_test(test_never_torn),
	};

	if (control_create(3, &page) != SMEM_OK)
		return 1;
	int r = cmocka_run_group_tests_name("context", tests, NULL, NULL);
	control_close(&page);
	return r;
}
