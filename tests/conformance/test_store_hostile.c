/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clients that break the protocol, stall or flood: each is cut off with one log line and disturbs
 * nobody. A healthy client of the same store works all the while; its latency is printed.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "store/net.h"
#include "store/proto.h"
#include "store_util.h"
#include "util/log.h"

static struct hub hub;
static struct store *healthy;
static pthread_t beating;
static _Atomic bool stop;
static uint64_t beats, beat_sum, beat_max;

/* ---- log ---- */

static char logged[1 << 20];
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

static int log_lines(const char *what)
{
	int n = 0;

	for (const char *p = logged; (p = strstr(p, what)); p++)
		n++;
	return n;
}

/* Wait for `what`, then forget all. Exactly one line must have told of a cut-off. */
static void cut_once(const char *what)
{
	struct timespec until = deadline_timespec(deadline_in_s(LONG_S));
	char copy[sizeof(logged) / 64];

	pthread_mutex_lock(&log_lock);
	while (!strstr(logged, what) &&
	       pthread_cond_clockwait(&log_cond, &log_lock, CLOCK_MONOTONIC, &until) == 0)
		;
	int found = log_lines(what), cuts = log_lines("cut off");
	snprintf(copy, sizeof(copy), "%.*s", (int)sizeof(copy) - 1, logged);
	logged[0] = '\0';
	pthread_mutex_unlock(&log_lock);
	if (found != 1 || cuts != 1)
		fail_msg("wanted once '%s', log: %s", what, copy);
}

/* ---- the healthy one ---- */

static void *beat(void *arg)
{
	int64_t v;

	(void)arg;
	while (!atomic_load(&stop)) {
		uint64_t begin = clock_ns();
		if (store_add(healthy, "beat", 1, deadline_in_s(LONG_S), &v) != 0)
			return healthy;
		uint64_t took = clock_ns() - begin;
		beats++;
		beat_sum += took;
		beat_max = took > beat_max ? took : beat_max;
	}
	return NULL;
}

static int setup(void **state)
{
	(void)state;
	hub_start(&hub);
	healthy = hub_client(&hub, 1);
	log_set_sink(log_keep);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	log_set_sink(NULL);
	store_close(healthy, 0);
	hub_stop(&hub);
	return 0;
}

static void beat_start(void)
{
	stop = false;
	beats = beat_sum = beat_max = 0;
	assert_int_equal(pthread_create(&beating, NULL, beat, NULL), 0);
}

static void beat_stop(const char *during)
{
	void *failed;

	atomic_store(&stop, true);
	pthread_join(beating, &failed);
	assert_null(failed);
	assert_true(beats > 0);
	printf("# healthy client during %s: %llu operations, mean %.0f us, longest %.1f ms\n",
	       during, (unsigned long long)beats, (double)beat_sum / (double)beats / 1000,
	       (double)beat_max / 1e6);
}

/* ---- raw connections ---- */

static int raw_connect(void)
{
	struct sockaddr_in sin = {.sin_family = AF_INET, .sin_port = htons(hub.port)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&sin, sizeof(sin)), 0);
	return fd;
}

static bool raw_send(int fd, const void *data, size_t len)
{
	return send(fd, data, len, MSG_NOSIGNAL) == (ssize_t)len;
}

static void raw_frame(int fd, uint16_t op, uint64_t id, uint32_t number, struct blob *body)
{
	uint8_t head[FRAME_HEAD];

	frame_head_put(head,
		       &(struct frame_head){
			   .len = body ? body->len : 0, .op = op, .id = id, .number = number});
	assert_true(raw_send(fd, head, sizeof(head)));
	if (body && body->len)
		assert_true(raw_send(fd, body->data, body->len));
	blob_put(body);
}

static void raw_read(int fd, void *buf, size_t len)
{
	size_t have = 0;

	while (have < len) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		assert_int_equal(poll(&p, 1, LONG_S * 1000), 1);
		ssize_t n = recv(fd, (char *)buf + have, len - have, 0);
		assert_true(n > 0);
		have += (size_t)n;
	}
}

static uint16_t raw_take(int fd, uint8_t *body, size_t cap, size_t *len)
{
	uint8_t bytes[FRAME_HEAD];
	struct frame_head head;

	raw_read(fd, bytes, sizeof(bytes));
	assert_true(frame_head_get(bytes, (uint32_t)cap, &head));
	raw_read(fd, body, head.len);
	*len = head.len;
	return head.op;
}

/* A client that has been greeted; its token. */
static int raw_client(struct welcome *ret)
{
	int fd = raw_connect();
	static uint8_t body[4096];
	size_t len;

	raw_frame(fd, OP_HELLO, 0, 0,
		  hello_encode(&(struct hello){.version_min = PROTO_VERSION,
					       .version_max = PROTO_VERSION,
					       .client_id = 4711}));
	assert_int_equal(raw_take(fd, body, sizeof(body), &len), OP_WELCOME);
	assert_true(welcome_decode(body, len, ret));
	assert_int_equal(ret->code, 0);
	return fd;
}

/* The server has closed it. */
static void raw_closed(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	char buf[4096];
	ssize_t n;

	do {
		assert_int_equal(poll(&p, 1, LONG_S * 1000), 1);
		n = recv(fd, buf, sizeof(buf), 0);
	} while (n > 0);
	close(fd);
}

static struct blob *set_request(const char *key, const void *val, size_t len)
{
	return request_encode(&(struct request){
	    .op = OP_SET, .key = {(const uint8_t *)key, strlen(key)}, .val = {val, len}});
}

/* ---- tests ---- */

static void test_garbage(void **state)
{
	static const char http[] = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
	uint8_t noise[300];
	int fd = raw_connect();

	(void)state;
	assert_true(raw_send(fd, http, sizeof(http) - 1));
	raw_closed(fd);
	cut_once("did not begin with a hello");
	for (size_t i = 0; i < sizeof(noise); i++)
		noise[i] = (uint8_t)(i * 37 + 1);
	fd = raw_connect();
	assert_true(raw_send(fd, noise, sizeof(noise)));
	raw_closed(fd);
	cut_once("did not begin with a hello");
	/* A frame, but no greeting; a greeting that is none. */
	fd = raw_connect();
	raw_frame(fd, OP_SET, 1, 0, set_request("k", "v", 1));
	raw_closed(fd);
	cut_once("did not begin with a hello");
	fd = raw_connect();
	raw_frame(fd, OP_HELLO, 1, 0, set_request("k", "v", 1));
	raw_closed(fd);
	cut_once("hello is malformed");
}

static void test_after_greeting(void **state)
{
	struct welcome w;
	uint8_t head[FRAME_HEAD];

	(void)state;
	int fd = raw_client(&w);
	assert_true(raw_send(fd, "this is not a frame at all, is it?", 34));
	raw_closed(fd);
	cut_once("not a frame");
	fd = raw_client(&w);
	frame_head_put(head, &(struct frame_head){.len = 0xfffffff0u, .op = OP_SET});
	assert_true(raw_send(fd, head, sizeof(head)));
	raw_closed(fd);
	cut_once("too long");
	fd = raw_client(&w);
	raw_frame(fd, 999, 1, 0, blob_new("x", 1));
	raw_closed(fd);
	cut_once("malformed request");
	fd = raw_client(&w);
	raw_frame(fd, OP_SET, 1, 0, blob_new("\xff\xff\xff\xff\xff\xff\xff\xff", 8));
	raw_closed(fd);
	cut_once("malformed request");
	/* The same frame twice. */
	fd = raw_client(&w);
	raw_frame(fd, OP_SET, 1, 0, set_request("k", "v", 1));
	raw_frame(fd, OP_SET, 1, 0, set_request("k", "v", 1));
	raw_closed(fd);
	cut_once("out of its order");
	fd = raw_client(&w);
	frame_head_put(head, &(struct frame_head){.op = OP_ACK, .received = 17});
	assert_true(raw_send(fd, head, sizeof(head)));
	raw_closed(fd);
	cut_once("acknowledged what it was not sent");
	fd = raw_client(&w);
	raw_frame(fd, OP_SET, 1, 0, set_request("", "v", 1));
	raw_closed(fd);
	cut_once("key that is empty");
}

static void test_versions(void **state)
{
	static uint8_t body[4096];
	struct welcome w;
	size_t len;
	int fd = raw_connect();

	(void)state;
	raw_frame(fd, OP_HELLO, 0, 0,
		  hello_encode(&(struct hello){.version_min = 7, .version_max = 9}));
	assert_int_equal(raw_take(fd, body, sizeof(body), &len), OP_WELCOME);
	assert_true(welcome_decode(body, len, &w));
	assert_int_equal(w.code, SMEM_NOT_SUPPORTED);
	raw_closed(fd);
	pthread_mutex_lock(&log_lock);
	assert_int_equal(log_lines("speaks versions 7 to 9"), 1);
	logged[0] = '\0';
	pthread_mutex_unlock(&log_lock);
}

/* Nothing at all, half a greeting, one byte now and then: cut when the time for a hello is over. */
static void test_silent(void **state)
{
	int fd[3];

	(void)state;
	beat_start();
	for (int i = 0; i < 3; i++)
		fd[i] = raw_connect();
	assert_true(raw_send(fd[1], "SM", 2));
	struct deadline end = deadline_in_ms(STORE_HELLO_MS + 5000);
	struct pollfd p = {.fd = fd[2], .events = POLLIN};
	int bytes = 0;
	/* The pause between two bytes ends early when the server has closed. */
	while (poll(&p, 1, 500) == 0 && !deadline_passed(end) && raw_send(fd[2], "\0", 1))
		bytes++;
	for (int i = 0; i < 3; i++)
		raw_closed(fd[i]);
	beat_stop("three silent connections");
	assert_true(bytes >= 5);
	pthread_mutex_lock(&log_lock);
	assert_int_equal(log_lines("did not say hello in time"), 3);
	logged[0] = '\0';
	pthread_mutex_unlock(&log_lock);
}

#define IDLE 1000

static void test_idle_thousand(void **state)
{
	static int fd[IDLE];
	struct rlimit limit;
	struct welcome w;

	(void)state;
	getrlimit(RLIMIT_NOFILE, &limit);
	if (limit.rlim_cur < 2 * IDLE + 100 && limit.rlim_max >= 2 * IDLE + 100) {
		limit.rlim_cur = 2 * IDLE + 100; /* of the test only */
		setrlimit(RLIMIT_NOFILE, &limit);
	}
	if (limit.rlim_cur < 2 * IDLE + 100) {
		printf("# skipped: needs %d descriptors\n", 2 * IDLE + 100);
		skip();
	}
	beat_start();
	for (int i = 0; i < IDLE; i++)
		fd[i] = i % 2 ? raw_client(&w) : raw_connect();
	/* The half that said hello may be idle; the others are cut. */
	for (int i = 0; i < IDLE; i += 2)
		raw_closed(fd[i]);
	for (int i = 1; i < IDLE; i += 2)
		close(fd[i]);
	beat_stop("a thousand idle connections");
	pthread_mutex_lock(&log_lock);
	int lines = log_lines("did not say hello in time");
	logged[0] = '\0';
	pthread_mutex_unlock(&log_lock);
	assert_true(lines >= 1 && lines <= IDLE / 2);
}

/* Sends as fast as it can and never reads: it is not read any more, and its queue stays small. */
static void test_flood_stalled(void **state)
{
	struct welcome w;
	int fd = raw_client(&w), size = 4096;
	static uint8_t batch[64 * 1024];
	uint32_t number = 1;
	size_t pushed = 0;

	(void)state;
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	static char big[100000];
	raw_frame(fd, OP_SET, 1, 0, set_request("flood", big, sizeof(big)));
	beat_start();
	struct blob *get =
	    request_encode(&(struct request){.op = OP_GET, .key = {(const uint8_t *)"flood", 5}});
	assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
	struct deadline end = deadline_in_ms(1500);
	while (!deadline_passed(end)) {
		size_t len = 0;
		while (len + FRAME_HEAD + get->len <= sizeof(batch)) {
			frame_head_put(batch + len, &(struct frame_head){.len = get->len,
									 .op = OP_GET,
									 .id = number,
									 .number = number});
			memcpy(batch + len + FRAME_HEAD, get->data, get->len);
			len += FRAME_HEAD + get->len;
			number++;
		}
		for (size_t off = 0; off < len && !deadline_passed(end);) {
			struct pollfd p = {.fd = fd, .events = POLLOUT};
			ssize_t n = send(fd, batch + off, len - off, MSG_NOSIGNAL);
			if (n < 0 && poll(&p, 1, 50) < 0)
				break;
			off += n > 0 ? (size_t)n : 0;
			pushed += n > 0 ? (size_t)n : 0;
		}
	}
	blob_put(get);
	beat_stop("a flood that reads nothing");
	printf("# the flood got %zu bytes of requests in\n", pushed);
	/* Replies of 100 kB each would be gigabytes by now: it was held back, not served. */
	assert_true(pushed < 32u << 20);
	close(fd);
}

/* Pushes to a stalled reader are bounded too. */
static void test_many_waits(void **state)
{
	struct welcome w;
	int fd = raw_client(&w);
	static uint8_t body[4096];
	size_t len;
	uint32_t number = 0;
	unsigned refused = 0;

	(void)state;
	for (uint32_t i = 0; i < STORE_CLIENT_WAITS_MAX + 10; i++)
		raw_frame(fd, OP_GET, i + 1, number++,
			  request_encode(&(struct request){.op = OP_GET,
							   .flags = 1,
							   .timeout_ms = 60000,
							   .key = {(const uint8_t *)"never", 5}}));
	while (refused < 10) {
		if (raw_take(fd, body, sizeof(body), &len) != OP_REPLY)
			continue;
		struct reader r = reader_of(body, len);
		assert_int_equal((int32_t)read_u32(&r), SMEM_NEW_OBJECT_FAILED);
		refused++;
	}
	close(fd);
}

static bool leased_gone;

static void on_leased(void *arg, const char *key, const void *data, size_t len)
{
	(void)arg;
	(void)key;
	(void)len;
	pthread_mutex_lock(&log_lock);
	leased_gone = data == NULL;
	pthread_cond_broadcast(&log_cond);
	pthread_mutex_unlock(&log_lock);
}

/* A raw client whose connection breaks and comes back keeps its state; one that does not is lost.
 */
static void test_resume(void **state)
{
	struct welcome w, again;
	static uint8_t body[4096];
	struct store_bytes v;
	size_t len;
	int fd = raw_client(&w);
	struct hello h = {.version_min = PROTO_VERSION,
			  .version_max = PROTO_VERSION,
			  .client_id = 4711,
			  .resume = true};

	(void)state;
	memcpy(h.token, w.token, TOKEN_LEN);
	raw_frame(fd, OP_SET, 1, 0,
		  request_encode(&(struct request){.op = OP_SET,
						   .flags = STORE_EPHEMERAL,
						   .key = {(const uint8_t *)"leased", 6},
						   .val = {(const uint8_t *)"v", 1}}));
	assert_int_equal(raw_take(fd, body, sizeof(body), &len), OP_REPLY);
	close(fd);
	fd = raw_connect();
	raw_frame(fd, OP_HELLO, 0, 0, hello_encode(&h)); /* it saw no reply, says it */
	assert_int_equal(raw_take(fd, body, sizeof(body), &len), OP_WELCOME);
	assert_true(welcome_decode(body, len, &again));
	assert_int_equal(again.code, 0);
	assert_true(again.resumed);
	assert_int_equal(again.received, 1);
	assert_int_equal(raw_take(fd, body, sizeof(body), &len), OP_REPLY); /* sent again */
	assert_int_equal(store_get(healthy, "leased", false, deadline_in_s(LONG_S), &v), 0);
	store_bytes_free(&v);
	/* Another token is another client. */
	int other = raw_connect();
	h.token[0] ^= 1;
	raw_frame(other, OP_HELLO, 0, 0, hello_encode(&h));
	assert_int_equal(raw_take(other, body, sizeof(body), &len), OP_WELCOME);
	assert_true(welcome_decode(body, len, &again));
	assert_int_equal(again.code, SMEM_UNREACHABLE);
	raw_closed(other);
	struct timespec until = deadline_timespec(deadline_in_s(LONG_S));
	struct store_watch *watch = NULL;
	assert_int_equal(
	    store_watch(healthy, "leased", on_leased, NULL, deadline_in_s(LONG_S), &watch), 0);
	close(fd);
	pthread_mutex_lock(&log_lock);
	while (!leased_gone &&
	       pthread_cond_clockwait(&log_cond, &log_lock, CLOCK_MONOTONIC, &until) == 0)
		;
	bool gone = leased_gone;
	pthread_mutex_unlock(&log_lock);
	store_unwatch(watch);
	assert_true(gone);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_garbage),	  cmocka_unit_test(test_after_greeting),
	    cmocka_unit_test(test_versions),	  cmocka_unit_test(test_resume),
	    cmocka_unit_test(test_flood_stalled), cmocka_unit_test(test_many_waits),
	    cmocka_unit_test(test_silent),	  cmocka_unit_test(test_idle_thousand),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
