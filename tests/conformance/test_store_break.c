/* SPDX-License-Identifier: Apache-2.0 */
/* A client whose connection breaks again and again, through a proxy: its session goes on. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "store_util.h"

static struct deadline soon(void)
{
	return deadline_in_s(LONG_S);
}

static void url_of(struct store_url *url, const char *host, uint16_t port)
{
	char text[100];

	snprintf(text, sizeof(text), "tcp://%s:%u", host, port);
	assert_int_equal(store_url_parse(text, true, url), 0);
}

static struct store_enter life_enter(uint32_t member, struct diary *d)
{
	return (struct store_enter){.name = "life",
				    .mode = STORE_GROUP_OPEN,
				    .member = member,
				    .size = 8,
				    .numbers = 8,
				    .fn = diary_note,
				    .arg = d};
}

struct proxy {
	pthread_t thread;
	int listener;
	int wake[2];
	uint16_t port, to;
	_Atomic unsigned cuts, connections;
};

static int tcp_to(uint16_t port)
{
	struct sockaddr_in sin = {.sin_family = AF_INET, .sin_port = htons(port)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (connect(fd, (struct sockaddr *)&sin, sizeof(sin)) != 0) {
		close(fd);
		return -1;
	}
	return fd;
}

static bool pass_on(int from, int to)
{
	static char buf[65536];
	ssize_t n = recv(from, buf, sizeof(buf), 0);

	for (ssize_t off = 0, k; off < n; off += k) {
		k = send(to, buf + off, (size_t)(n - off), MSG_NOSIGNAL);
		if (k <= 0)
			return false;
	}
	return n > 0;
}

/* One connection at a time; a byte on the pipe cuts it, end of file ends the proxy. */
static void *proxy_run(void *arg)
{
	struct proxy *p = arg;
	int a = -1, b = -1;

	for (;;) {
		struct pollfd f[4] = {{.fd = p->wake[0], .events = POLLIN},
				      {.fd = p->listener, .events = a < 0 ? POLLIN : 0},
				      {.fd = a, .events = POLLIN},
				      {.fd = b, .events = POLLIN}};
		bool cut = false;
		char word;
		poll(f, 4, -1);
		if (f[0].revents) {
			if (read(p->wake[0], &word, 1) != 1)
				break;
			atomic_fetch_add(&p->cuts, 1);
			cut = true;
		}
		if (!cut && a < 0 && f[1].revents) {
			a = accept4(p->listener, NULL, NULL, SOCK_CLOEXEC);
			b = tcp_to(p->to);
			atomic_fetch_add(&p->connections, 1);
			continue;
		}
		if (a >= 0 && !cut)
			cut = (f[2].revents && !pass_on(a, b)) || (f[3].revents && !pass_on(b, a));
		if (cut && a >= 0) {
			close(a);
			close(b);
			a = b = -1;
		}
	}
	if (a >= 0) {
		close(a);
		close(b);
	}
	return NULL;
}

static void proxy_start(struct proxy *p, uint16_t to)
{
	struct sockaddr_in sin = {.sin_family = AF_INET};
	socklen_t len = sizeof(sin);

	memset(p, 0, sizeof(*p));
	sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	p->to = to;
	p->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(p->listener, (struct sockaddr *)&sin, len), 0);
	assert_int_equal(listen(p->listener, 16), 0);
	assert_int_equal(getsockname(p->listener, (struct sockaddr *)&sin, &len), 0);
	p->port = ntohs(sin.sin_port);
	assert_int_equal(pipe2(p->wake, O_CLOEXEC), 0);
	assert_int_equal(pthread_create(&p->thread, NULL, proxy_run, p), 0);
}

static void proxy_stop(struct proxy *p)
{
	close(p->wake[1]);
	pthread_join(p->thread, NULL);
	close(p->wake[0]);
	close(p->listener);
}

#define CUTS 20

/* Counters must neither lose nor repeat an addition, groups must not notice. */
static void test_broken_connection(void **state)
{
	struct hub hub;
	struct proxy p;
	struct store *s = NULL, *direct;
	struct store_url url;
	struct store_group *g = NULL, *gd = NULL;
	static struct diary d, dd;
	int64_t v = 0;

	(void)state;
	hub_start(&hub);
	proxy_start(&p, hub.port);
	url_of(&url, "127.0.0.1", p.port);
	assert_int_equal(store_open(&url, STORE_CONNECT, soon(), &s), 0);
	direct = hub_client(&hub, 1);
	diary_init(&d);
	diary_init(&dd);
	struct store_enter e = life_enter(0, &d);
	assert_int_equal(store_group_enter(s, &e, soon(), NULL, &g), 0);
	e = life_enter(1, &dd);
	assert_int_equal(store_group_enter(direct, &e, soon(), NULL, &gd), 0);
	assert_int_equal(store_set(s, "mine", "x", 1, STORE_EPHEMERAL, soon()), 0);
	for (int i = 0; i < CUTS; i++) {
		assert_int_equal(write(p.wake[1], "c", 1), 1);
		assert_int_equal(store_group_note(gd, "n", 1, false, soon()), 0);
		for (int k = 0; k < 5; k++) {
			if (store_add(s, "sum", 1, soon(), &v) != 0)
				fail_msg("%s", err_detail());
		}
		assert_int_equal(v, 5 * (i + 1));
	}
	diary_wait(&d, 2 + CUTS);
	for (size_t i = 1; i < 2 + CUTS; i++)
		assert_true(d.events[i].seq > d.events[i - 1].seq);
	assert_int_equal(diary_count(&dd), 2 + CUTS);
	struct store_bytes b;
	assert_int_equal(store_get(direct, "mine", false, soon(), &b), 0);
	store_bytes_free(&b);
	printf("# %u connections for one session\n", p.connections);
	assert_true(p.connections > 1);
	store_group_free(g);
	store_group_free(gd);
	store_close(s, 0);
	store_close(direct, 0);
	proxy_stop(&p);
	hub_stop(&hub);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_broken_connection)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
