/* SPDX-License-Identifier: Apache-2.0 */
/* The grammar of store URLs and session names, row by row. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "store/url.h"
#include "util/err.h"

static const struct {
	const char *text;
	const char *canonical;
	int family;
} good[] = {
    {"tcp://127.0.0.1:8570", "tcp://127.0.0.1:8570", AF_INET},
    {"tcp:://127.0.0.1:8570", "tcp://127.0.0.1:8570", AF_INET},
    {"tcp://10.1.2.3/24:1", "tcp://10.1.2.3:1", AF_INET},
    {"tcp://10.1.2.3/0:65535", "tcp://10.1.2.3:65535", AF_INET},
    {"tcp://255.255.255.255/32:80", "tcp://255.255.255.255:80", AF_INET},
    {"tcp://[::1]:9", "tcp://[::1]:9", AF_INET6},
    {"tcp://[2001:DB8:0:0:0:0:0:1]:9", "tcp://[2001:db8::1]:9", AF_INET6},
    {"tcp://LocalHost:9", "tcp://localhost:9", 0},
    {"tcp://my_host-1.Example.COM:9", "tcp://my_host-1.example.com:9", 0},
    {"tcp://1a:9", "tcp://1a:9", 0},
};

static void test_good(void **state)
{
	struct store_url url;

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		assert_int_equal(store_url_parse(good[i].text, false, &url), 0);
		assert_string_equal(url.text, good[i].canonical);
		assert_int_equal(url.family, good[i].family);
		assert_false(url.wildcard);
	}
}

static const char *const bad[] = {
    "",
    "tcp://",
    "tcp://:9",
    "tcp://1.2.3.4",
    "tcp://1.2.3.4:",
    "http://1.2.3.4:9",
    "TCP://1.2.3.4:9",
    "1.2.3.4:9",
    "tcp:1.2.3.4:9",
    "tcp://1.2.3.4:0",
    "tcp://1.2.3.4:65536",
    "tcp://1.2.3.4:99999999999999999999",
    "tcp://1.2.3.4:05",
    "tcp://1.2.3.4:+5",
    "tcp://1.2.3.4:-5",
    "tcp://1.2.3.4:5 ",
    " tcp://1.2.3.4:5",
    "tcp://1.2.3.4 :5",
    "tcp://1.2.3.4:5/",
    "tcp://1.2.3.4:5/x",
    "tcp://01.2.3.4:9",
    "tcp://1.2.3.256:9",
    "tcp://1.2.3:9",
    "tcp://1.2.3.4.5:9",
    "tcp://1.2..4:9",
    "tcp://1234:9",
    "tcp://1.2.3.4/33:9",
    "tcp://1.2.3.4/:9",
    "tcp://1.2.3.4/01:9",
    "tcp://::1:9",
    "tcp://[::1]",
    "tcp://[::1:9",
    "tcp://::1]:9",
    "tcp://[::1%lo]:9",
    "tcp://[::1]/64:9",
    "tcp://[fe80::1::2]:9",
    "tcp://[1.2.3.4]:9",
    "tcp://[]:9",
    "tcp://a..b:9",
    "tcp://.a:9",
    "tcp://a.:9",
    "tcp://a b:9",
    "tcp://a/b:9",
    "tcp://a:b:9",
    "tcp://\xc3\xa4:9",
    "tcp:///127.0.0.1:9",
    "tcp:::///127.0.0.1:9",
    "tcp://aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa:9",
};

static void test_bad(void **state)
{
	struct store_url url = {.port = 77};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		if (store_url_parse(bad[i], true, &url) != SMEM_INVALID_PARAM)
			fail_msg("accepted: %s", bad[i]);
		assert_int_equal(url.port, 77);
		if (bad[i][0])
			assert_non_null(strstr(err_detail(), "store URL '"));
	}
}

static void test_long_names(void **state)
{
	char text[400] = "tcp://";
	struct store_url url;

	(void)state;
	for (int i = 0; i < 4; i++) {
		memset(text + strlen(text), 'a', i < 3 ? 63 : 61);
		strcat(text, i < 3 ? "." : ":9");
	}
	assert_int_equal(store_url_parse(text, false, &url), 0);
	assert_int_equal(strlen(url.host), 253);
	memset(text, 0, sizeof(text));
	strcpy(text, "tcp://");
	for (int i = 0; i < 4; i++) {
		memset(text + strlen(text), 'a', i < 3 ? 63 : 62);
		strcat(text, i < 3 ? "." : ":9");
	}
	assert_int_equal(store_url_parse(text, false, &url), SMEM_INVALID_PARAM);
}

static void test_wildcards(void **state)
{
	struct store_url url;

	(void)state;
	assert_int_equal(store_url_parse("tcp://0.0.0.0:5", true, &url), 0);
	assert_true(url.wildcard);
	assert_int_equal(store_url_parse("tcp://0.0.0.0/0:5", true, &url), 0);
	assert_true(url.wildcard);
	assert_int_equal(store_url_parse("tcp://[0::0]:5", true, &url), 0);
	assert_true(url.wildcard);
	assert_string_equal(url.text, "tcp://[::]:5");
	assert_int_equal(store_url_parse("tcp://0.0.0.0:5", false, &url), SMEM_INVALID_PARAM);
	assert_int_equal(store_url_parse("tcp://[::]:5", false, &url), SMEM_INVALID_PARAM);
	assert_int_equal(store_session_parse("0.0.0.0:5", &url), SMEM_INVALID_PARAM);
	assert_int_equal(store_session_parse("[::]:5", &url), SMEM_INVALID_PARAM);
}

static void test_sessions(void **state)
{
	struct store_url url;

	(void)state;
	assert_int_equal(store_session_parse("127.0.0.1/8:321", &url), 0);
	assert_string_equal(url.text, "127.0.0.1:321");
	assert_int_equal(store_session_parse("[::0001]:321", &url), 0);
	assert_string_equal(url.text, "[::1]:321");
	assert_int_equal(store_session_parse("Worker-7.Pool:321", &url), 0);
	assert_string_equal(url.text, "worker-7.pool:321");
	assert_int_equal(store_session_parse("tcp://127.0.0.1:321", &url), SMEM_INVALID_PARAM);
	assert_non_null(strstr(err_detail(), "session 'tcp://127.0.0.1:321'"));
	assert_int_equal(store_session_parse("127.0.0.1", &url), SMEM_INVALID_PARAM);
	assert_int_equal(store_session_parse("", &url), SMEM_INVALID_PARAM);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_good),       cmocka_unit_test(test_bad),
	    cmocka_unit_test(test_long_names), cmocka_unit_test(test_wildcards),
	    cmocka_unit_test(test_sessions),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
