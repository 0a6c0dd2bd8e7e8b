/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS of the store: what the environment may say, every bad file, key and certificate with its own
 * readable error at the caller and one warning at the server, and no effect on others.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "certs.h"
#include "smem.h"
#include "store/server.h"
#include "store/store.h"
#include "store/tls.h"
#include "store_util.h"
#include "util/err.h"
#include "util/log.h"

/* ---- parsing ---- */

#define FULL "tlsCaPath:/ca;tlsCaFile:a.pem;tlsCert:/c;tlsPk:/k"

static void test_parse_good(void **state)
{
	struct tls_conf c;

	(void)state;
	assert_int_equal(tls_conf_parse(FULL, &c), 0);
	assert_string_equal(c.value[TLS_CA_PATH], "/ca");
	assert_null(c.value[TLS_PK_PWD]);
	tls_conf_free(&c);
	assert_int_equal(tls_conf_parse(" \n tlsCaPath \t: /old ;; tlsCaPath:\r\n /a b:c \n;" FULL
					"; nonsense ; unknown: x; tlsPk : /other ; ",
					&c),
			 0);
	assert_string_equal(c.value[TLS_CA_PATH], "/ca");
	assert_string_equal(c.value[TLS_PK], "/other");
	tls_conf_free(&c);
	assert_int_equal(tls_conf_parse(FULL ";tlsCaPath: /a b:c ;packagePath: /x;", &c), 0);
	assert_string_equal(c.value[TLS_CA_PATH], "/a b:c");
	tls_conf_free(&c);
}

static void test_parse_bad(void **state)
{
	static const struct {
		const char *text;
		const char *names;
	} bad[] = {
	    {"", "tlsCaPath"},
	    {" ;; ", "tlsCaPath"},
	    {"tlsCaPath:/ca;tlsCaFile:a;tlsCert:/c", "tlsPk is missing"},
	    {"tlsCaPath:/ca;tlsCaFile:a;tlsPk:/k", "tlsCert is missing"},
	    {FULL ";tlsPkPwd:", "tlsPkPwd has no value"},
	    {FULL ";tlsCrlPath:/x", "tlsCrlPath without tlsCrlFile"},
	    {FULL ";tlsCrlFile:x", "tlsCrlFile without tlsCrlPath"},
	    {FULL ";packagePath:;", "packagePath has no value"},
	};
	struct tls_conf c = {.value = {NULL}};
	char *longer = malloc(10242);

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(tls_conf_parse(bad[i].text, &c), SMEM_SECURITY);
		if (!strstr(err_detail(), bad[i].names))
			fail_msg("%s", err_detail());
	}
	memset(longer, ';', 10241);
	longer[10241] = '\0';
	assert_int_equal(tls_conf_parse(longer, &c), SMEM_SECURITY);
	assert_non_null(strstr(err_detail(), "10240"));
	memcpy(longer, FULL, strlen(FULL));
	longer[10240] = '\0';
	assert_int_equal(tls_conf_parse(longer, &c), 0);
	tls_conf_free(&c);
	free(longer);
}

static void test_enable(void **state)
{
	struct tls *tls = NULL;

	(void)state;
	certs_unset();
	assert_int_equal(tls_from_env(&tls), 0);
	assert_null(tls);
	setenv("SMEM_CONF_STORE_TLS_ENABLE", "1", 1);
	assert_int_equal(tls_from_env(&tls), SMEM_SECURITY);
	assert_non_null(strstr(err_detail(), "SMEM_CONF_STORE_TLS_INFO is not set"));
	setenv("SMEM_CONF_STORE_TLS_ENABLE", "2", 1);
	assert_int_equal(tls_from_env(&tls), SMEM_SECURITY);
	setenv("SMEM_CONF_STORE_TLS_ENABLE", "", 1);
	assert_int_equal(tls_from_env(&tls), SMEM_SECURITY);
	unsetenv("SMEM_CONF_STORE_TLS_ENABLE");
	setenv("SMEM_CONF_STORE_TLS_INFO", "", 1);
	assert_int_equal(tls_from_env(&tls), SMEM_SECURITY);
	setenv("SMEM_CONF_STORE_TLS_ENABLE", "0", 1);
	assert_int_equal(tls_from_env(&tls), 0);
	assert_null(tls);
	certs_use("ca", "node", "node.key", NULL);
	unsetenv("SMEM_CONF_STORE_TLS_ENABLE");
	assert_int_equal(tls_from_env(&tls), 0);
	assert_non_null(tls);
	tls_destroy(tls);
	certs_unset();
}

/* ---- log ---- */

static char logged[65536];
static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t log_cond = PTHREAD_COND_INITIALIZER;

static void log_keep(int level, const char *msg)
{
	pthread_mutex_lock(&log_lock);
	size_t used = strlen(logged);
	snprintf(logged + used, sizeof(logged) - used, "%d %s\n", level, msg);
	pthread_cond_broadcast(&log_cond);
	pthread_mutex_unlock(&log_lock);
}

static void log_reset(void)
{
	pthread_mutex_lock(&log_lock);
	logged[0] = '\0';
	pthread_mutex_unlock(&log_lock);
}

/* How often; waits for the first. */
static int log_count(const char *what)
{
	struct timespec until = deadline_timespec(deadline_in_s(LONG_S));
	int n = 0;

	pthread_mutex_lock(&log_lock);
	while (!strstr(logged, what) &&
	       pthread_cond_clockwait(&log_cond, &log_lock, CLOCK_MONOTONIC, &until) == 0)
		;
	for (const char *p = logged; (p = strstr(p, what)); p++)
		n++;
	pthread_mutex_unlock(&log_lock);
	return n;
}

/* ---- own files ---- */

static void refused(const char *ca, const char *cert, const char *key, const char *more,
		    const char *why)
{
	struct tls *tls = NULL;

	certs_use(ca, cert, key, more);
	assert_int_equal(tls_from_env(&tls), SMEM_SECURITY);
	if (!strstr(err_detail(), why))
		fail_msg("wanted '%s', got: %s", why, err_detail());
	if (!strstr(err_detail(), certs_dir()))
		fail_msg("no file named: %s", err_detail());
}

static void test_own_files(void **state)
{
	(void)state;
	refused("ca", "expired", "expired.key", NULL, "expired.pem has expired");
	refused("ca", "notyet", "notyet.key", NULL, "is not yet valid");
	refused("ca", "weak", "weak.key", NULL, "too weak");
	refused("ca", "node", "peer.key", NULL, "does not match");
	refused("ca", "node", "open.key", NULL, "by others");
	refused("ca", "node", "ca.crl", NULL, "no private key");
	refused("ca", "absent", "node.key", NULL, "cannot read");
	refused("ca", "node", "absent.key", NULL, "cannot read");
	refused("absent", "node", "node.key", NULL, "cannot read");
	refused("expired", "node", "node.key", NULL, "expired.pem has expired");
	refused("ca", "node", "node.key", "tlsCaFile: node.key", "no certificate");
	refused("ca", "node", "node.key", "tlsCaPath: %s/ca.pem", "not a directory");
	refused("ca", "node", "node.key", "tlsPk: %s", "not a regular file");
	refused("ca", "node", "node.key", "tlsCrlPath: %s; tlsCrlFile: ca.pem",
		"no revocation list");
	refused("ca", "node", "node.key", "tlsCrlPath: %s; tlsCrlFile: absent.crl", "cannot read");
	struct tls *tls = NULL;
	certs_use("ca", "node", "node.key", "tlsCaFile: ../x");
	assert_int_equal(tls_from_env(&tls), SMEM_SECURITY);
	assert_non_null(strstr(err_detail(), "'/'"));
	certs_use("ca", "rsa", "rsa.key", "tlsCaFile: ca.pem , otherca.pem");
	assert_int_equal(tls_from_env(&tls), 0);
	tls_destroy(tls);
}

/* ---- pass phrases ---- */

static int handler_code, handler_len = -1;
static char handler_saw[64];

static int handler(const char *cipher, int *cipher_len, char *plain, int *plain_len)
{
	assert_int_equal((int)strlen(cipher), *cipher_len);
	assert_true(*plain_len >= 1024);
	snprintf(handler_saw, sizeof(handler_saw), "%s", cipher);
	memcpy(plain, "open sesame", 11);
	*plain_len = handler_len >= 0 ? handler_len : 11;
	return handler_code;
}

/* Without a handler first: one cannot be taken away again. */
static void test_pass_phrases(void **state)
{
	struct tls *tls = NULL;

	(void)state;
	refused("ca", "node", "node.enc.key", NULL, "is encrypted, and tlsPkPwd is not given");
	refused("ca", "node", "node.enc.key", "tlsPkPwd: %s/wrong.pwd", "wrong pass phrase");
	refused("ca", "node", "node.enc.key", "tlsPkPwd: %s/absent.pwd", "cannot read");
	certs_use("ca", "node", "node.enc.key", "tlsPkPwd: %s/node.pwd");
	assert_int_equal(tls_from_env(&tls), 0);
	tls_destroy(tls);

	assert_int_equal(smem_register_decrypt_handler(NULL), SMEM_INVALID_PARAM);
	assert_int_equal(smem_register_decrypt_handler(handler), 0);
	certs_use("ca", "node", "node.enc.key", "tlsPkPwd: %s/wrong.pwd");
	assert_int_equal(tls_from_env(&tls), 0);
	assert_string_equal(handler_saw, "wrong");
	tls_destroy(tls);
	handler_code = 7;
	refused("ca", "node", "node.enc.key", "tlsPkPwd: %s/node.pwd", "handler failed");
	assert_null(strstr(err_detail(), "sesame"));
	handler_code = 0;
	handler_len = 0;
	refused("ca", "node", "node.enc.key", "tlsPkPwd: %s/node.pwd", "handler failed");
	handler_len = 5;
	refused("ca", "node", "node.enc.key", "tlsPkPwd: %s/node.pwd", "wrong pass phrase");
	handler_len = -1;
}

/* ---- peers ---- */

static struct hub hub;

static int32_t dial_client(unsigned n, unsigned ms, struct store **ret)
{
	struct store_url url;
	char text[64];

	snprintf(text, sizeof(text), "tcp://127.0.0.%u:%u", n, hub.port);
	assert_int_equal(store_url_parse(text, false, &url), 0);
	return store_open(&url, STORE_CONNECT, deadline_in_ms(ms), ret);
}

static void client_refused(const char *why, const char *at_server)
{
	struct store *s = NULL;
	uint64_t begin = clock_ns();

	log_reset();
	assert_int_equal(dial_client(9, 30000, &s), SMEM_SECURITY);
	if (!strstr(err_detail(), why))
		fail_msg("wanted '%s', got: %s", why, err_detail());
	/* Within 2 s; this only catches what waits for a time-out. */
	assert_true(clock_ns() - begin < 10ull * NS_PER_S);
	assert_int_equal(log_count(at_server), 1);
	assert_int_equal(log_count("cut off"), 1);
}

static void healthy(struct store *s)
{
	int64_t v;

	assert_int_equal(store_add(s, "beat", 1, deadline_in_s(LONG_S), &v), 0);
}

static void test_peers(void **state)
{
	struct store *good = NULL;

	(void)state;
	setenv("STORE_TEST_TLS", "1", 1);
	hub_start(&hub);
	log_set_sink(log_keep);
	assert_int_equal(dial_client(1, 30000, &good), 0);
	healthy(good);
	certs_unset();
	client_refused("speaks TLS", "does not speak TLS");
	certs_use("ca", "revoked", "revoked.key", NULL);
	client_refused("it is revoked", "revoked");
	certs_use("ca", "mail", "mail.key", NULL);
	client_refused("not meant for this use", "purpose");
	certs_use("ca", "stranger", "stranger.key", NULL);
	client_refused("does not chain", "unable to get local issuer");
	certs_use("otherca", "stranger", "stranger.key", NULL);
	client_refused("certificate is refused: self-signed certificate in certificate chain",
		       "does not chain");
	certs_use("ca", "peer", "peer.key", "tlsCrlPath: %s; tlsCrlFile: otherca.crl");
	client_refused("unable to get certificate CRL", "no revocation list");
	healthy(good);
	store_close(good, 0);
	hub_stop(&hub);
	log_set_sink(NULL);
	unsetenv("STORE_TEST_TLS");
	certs_unset();
}

static void test_tls_client_plain_store(void **state)
{
	struct store *s = NULL;

	(void)state;
	hub_start(&hub);
	certs_use("ca", "node", "node.key", NULL);
	log_set_sink(log_keep);
	log_reset();
	assert_int_equal(dial_client(2, 30000, &s), SMEM_SECURITY);
	assert_non_null(strstr(err_detail(), "does not speak TLS"));
	assert_int_equal(log_count("it speaks TLS, this store does not"), 1);
	log_set_sink(NULL);
	hub_stop(&hub);
	certs_unset();
}

#define HALF 100

/* Handshakes that never end are cut off in time, and the healthy client does not notice. */
static void test_half_handshakes(void **state)
{
	static const uint8_t begin[] = {0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc};
	struct store *good = NULL;
	int fd[HALF];
	char byte;

	(void)state;
	setenv("STORE_TEST_TLS", "1", 1);
	hub_start(&hub);
	log_set_sink(log_keep);
	log_reset();
	assert_int_equal(dial_client(1, 30000, &good), 0);
	struct sockaddr_in sin = {.sin_family = AF_INET, .sin_port = htons(hub.port)};
	sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	for (int i = 0; i < HALF; i++) {
		fd[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		assert_int_equal(connect(fd[i], (struct sockaddr *)&sin, sizeof(sin)), 0);
		size_t len = (size_t)i % (sizeof(begin) + 1);
		assert_int_equal(send(fd[i], begin, len, MSG_NOSIGNAL), len);
	}
	uint64_t start = clock_ns();
	for (int i = 0; i < HALF; i++) {
		struct pollfd p = {.fd = fd[i], .events = POLLIN};
		while (poll(&p, 1, 20) == 0) {
			healthy(good);
			assert_true(clock_ns() - start < LONG_S * NS_PER_S);
		}
		assert_true(recv(fd[i], &byte, 1, 0) <= 0);
		close(fd[i]);
	}
	assert_true(log_count("did not say hello in time") >= 1);
	store_close(good, 0);
	hub_stop(&hub);
	log_set_sink(NULL);
	unsetenv("STORE_TEST_TLS");
	certs_unset();
}

static void test_old_crl(void **state)
{
	struct store *s = NULL;

	(void)state;
	setenv("STORE_TEST_TLS", "1", 1);
	hub_start(&hub);
	log_set_sink(log_keep);
	log_reset();
	certs_use("ca", "peer", "peer.key", "tlsCrlPath: %s; tlsCrlFile: old.crl");
	assert_int_equal(dial_client(3, 30000, &s), 0);
	assert_int_equal(log_count("out of date"), 1);
	store_close(s, 0);
	log_set_sink(NULL);
	hub_stop(&hub);
	unsetenv("STORE_TEST_TLS");
	certs_unset();
}

static void test_expiry_watch(void **state)
{
	struct tls *tls = NULL;
	time_t end = 2493072000; /* 2049-01-01 */

	(void)state;
	setenv("ACCLINK_CHECK_PERIOD_HOURS", "24", 1);
	setenv("ACCLINK_CERT_CHECK_AHEAD_DAYS", "9000", 1);
	certs_use("ca", "node", "node.key", NULL);
	log_set_sink(log_keep);
	log_reset();
	assert_int_equal(tls_from_env(&tls), 0);
	assert_int_equal(log_count("ACCLINK_CERT_CHECK_AHEAD_DAYS ignored"), 1);
	assert_int_equal(tls_watch_period_ms(tls), 24ull * 3600 * 1000);
	log_reset();
	tls_watch(tls, end - 29 * 24 * 3600);
	assert_int_equal(log_count("2 [store] TLS: certificate /CN=smem node expires within 30"),
			 1);
	log_reset();
	tls_watch(tls, end + 3600);
	assert_int_equal(log_count("3 [store] TLS: certificate /CN=smem node has expired"), 1);
	tls_destroy(tls);
	setenv("ACCLINK_CHECK_PERIOD_HOURS", "720", 1);
	setenv("ACCLINK_CERT_CHECK_AHEAD_DAYS", "7", 1);
	log_reset();
	assert_int_equal(tls_from_env(&tls), 0);
	assert_int_equal(log_count("shorter than the check's period"), 1);
	tls_destroy(tls);
	unsetenv("ACCLINK_CHECK_PERIOD_HOURS");
	unsetenv("ACCLINK_CERT_CHECK_AHEAD_DAYS");
	log_set_sink(NULL);
	certs_unset();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_parse_good),
	    cmocka_unit_test(test_parse_bad),
	    cmocka_unit_test(test_enable),
	    cmocka_unit_test(test_own_files),
	    cmocka_unit_test(test_pass_phrases),
	    cmocka_unit_test(test_peers),
	    cmocka_unit_test(test_half_handshakes),
	    cmocka_unit_test(test_old_crl),
	    cmocka_unit_test(test_tls_client_plain_store),
	    cmocka_unit_test(test_expiry_watch),
	};

	if (!certs_make()) {
		printf("1..0 # SKIP no test certificates: openssl(1) is missing\n");
		return 0;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
