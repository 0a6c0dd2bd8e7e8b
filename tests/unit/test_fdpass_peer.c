/* SPDX-License-Identifier: Apache-2.0 */
/* The asking side of the agent against servers that do not keep to the protocol: every call ends in
 * time with an error, no descriptor is left, the next server is not affected. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "device/fdpass_wire.h"
#include "util/err.h"
#include "util/fd.h"
#include "util/loop.h"

#define PATIENCE_MS 10000

static const uint8_t cookie[AGENT_COOKIE] = "fifteen letters";

/* What a server does with the n-th frame of a connection; false: close the connection. */
typedef bool (*on_frame)(int fd, int n, const struct agent_frame *f);

struct server {
	struct agent_addr addr;
	int listen_fd;
	int stop[2];
	on_frame fn;
	pthread_t thread;
	_Atomic int connections;
};

static struct agent_frame hello_of(const struct server *s)
{
	struct agent_frame f = {.version = AGENT_VERSION, .type = AGENT_HELLO, .info_len = 32};

	memcpy(f.info, s->addr.name, 32);
	return f;
}

static struct server *serving; /* for the functions below */

static void serve_one(struct server *s, int fd)
{
	struct pollfd p[2] = {{.fd = fd, .events = POLLIN}, {.fd = s->stop[0], .events = POLLIN}};
	struct agent_frame f;

	for (int n = 0; poll(p, 2, PATIENCE_MS) > 0 && !p[1].revents; n++) {
		if (recv(fd, &f, sizeof(f), 0) <= 0 || !s->fn(fd, n, &f))
			break;
	}
	close(fd);
}

static void *serve(void *arg)
{
	struct server *s = arg;
	struct pollfd p[2] = {{.fd = s->listen_fd, .events = POLLIN},
			      {.fd = s->stop[0], .events = POLLIN}};

	while (poll(p, 2, PATIENCE_MS) > 0 && !p[1].revents) {
		int fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC);
		if (fd < 0)
			continue;
		s->connections++;
		serve_one(s, fd);
	}
	return NULL;
}

static void server_start(struct server *s, on_frame fn)
{
	struct agent_sock sock;

	*s = (struct server){.fn = fn};
	serving = s;
	assert_int_equal(agent_addr_make(&s->addr), 0);
	agent_sock_abstract(&s->addr, &sock);
	s->listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(s->listen_fd, (struct sockaddr *)&sock.sun, sock.len), 0);
	assert_int_equal(listen(s->listen_fd, 16), 0);
	assert_int_equal(pipe2(s->stop, O_CLOEXEC), 0);
	assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
}

static void server_stop(struct server *s)
{
	close(s->stop[1]);
	pthread_join(s->thread, NULL);
	close(s->stop[0]);
	close(s->listen_fd);
}

static int descriptors(void)
{
	int n = 0;

	for (int fd = 0; fd < 512; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static struct loop *held;
static int before;

/* The loop stays, so that its descriptors are not counted. */
static int setup(void **state)
{
	(void)state;
	int32_t r = loop_io_get(&held);
	before = descriptors();
	return r;
}

static int teardown(void **state)
{
	(void)state;
	int now = descriptors();
	loop_io_put(held);
	return now == before ? 0 : -1;
}

static int32_t open_server(struct server *s, uint64_t ms, struct agent_peer **ret)
{
	*ret = NULL;
	return agent_peer_open(&s->addr, deadline_in_ms(ms), NULL, NULL, ret);
}

static int32_t fetch(struct agent_peer *p, uint64_t ms, int *fd)
{
	return agent_fetch(p, 7, cookie, deadline_in_ms(ms), fd, NULL, NULL);
}

static bool say_nothing(int fd, int n, const struct agent_frame *f)
{
	(void)fd;
	(void)n;
	(void)f;
	return true;
}

static void test_silent(void **state)
{
	struct server s;
	struct agent_peer *p;

	(void)state;
	server_start(&s, say_nothing);
	assert_int_equal(open_server(&s, 50, &p), SMEM_TIMEOUT);
	assert_null(p);
	server_stop(&s);
}

static bool say_junk(int fd, int n, const struct agent_frame *f)
{
	static const char junk[300] = "HTTP/1.1 400 Bad Request\r\n";

	(void)f;
	send(fd, junk, n == 0 ? sizeof(struct agent_frame) : sizeof(junk), MSG_NOSIGNAL);
	return true;
}

static bool say_other_name(int fd, int n, const struct agent_frame *f)
{
	struct agent_frame a = hello_of(serving);

	(void)n;
	(void)f;
	a.info[3] ^= 1;
	agent_frame_send(fd, &a, -1);
	return true;
}

static bool hang_up(int fd, int n, const struct agent_frame *f)
{
	(void)fd;
	(void)n;
	(void)f;
	return false;
}

/* Not an agent, another agent, one that does not want us: refused after a few attempts. */
static void test_no_hello(void **state)
{
	static const on_frame fns[] = {say_junk, say_other_name, hang_up};
	struct server s;
	struct agent_peer *p;

	(void)state;
	for (int i = 0; i < 3; i++) {
		server_start(&s, fns[i]);
		assert_int_equal(open_server(&s, PATIENCE_MS, &p), SMEM_UNREACHABLE);
		assert_true(s.connections >= 1 && s.connections <= 5);
		server_stop(&s);
	}
}

static struct agent_frame reply_to(const struct agent_frame *f)
{
	return (struct agent_frame){.version = AGENT_VERSION, .type = AGENT_REPLY, .id = f->id};
}

static bool reply_without_fd(int fd, int n, const struct agent_frame *f)
{
	struct agent_frame a = n == 0 ? hello_of(serving) : reply_to(f);

	agent_frame_send(fd, &a, -1);
	return true;
}

static void test_no_descriptor(void **state)
{
	struct server s;
	struct agent_peer *p;
	int fd = -1;

	(void)state;
	server_start(&s, reply_without_fd);
	assert_int_equal(open_server(&s, PATIENCE_MS, &p), 0);
	assert_int_equal(fetch(p, PATIENCE_MS, &fd), SMEM_IO);
	assert_int_equal(fd, -1);
	agent_peer_close(p);
	server_stop(&s);
}

static void send_with_fds(int sock, const struct agent_frame *f, int count)
{
	int fds[20];
	struct iovec iov = {.iov_base = (void *)f, .iov_len = sizeof(*f)};
	union {
		char buf[CMSG_SPACE(sizeof(fds))];
		struct cmsghdr align;
	} control = {.buf = {0}};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control.buf,
			     .msg_controllen = CMSG_SPACE((size_t)count * sizeof(int))};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

	for (int i = 0; i < count; i++)
		fds[i] = STDERR_FILENO;
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN((size_t)count * sizeof(int));
	memcpy(CMSG_DATA(c), fds, (size_t)count * sizeof(int));
	sendmsg(sock, &msg, MSG_NOSIGNAL);
}

/* Descriptors nobody asked for, then too many of them. */
static bool reply_with_many(int fd, int n, const struct agent_frame *f)
{
	struct agent_frame a = n == 0 ? hello_of(serving) : reply_to(f);

	if (n > 0) {
		a.id += 1000;
		send_with_fds(fd, &a, 2);
		a.id -= 1000;
	}
	send_with_fds(fd, &a, n == 0 ? 1 : n == 1 ? 3 : 20);
	return true;
}

static void test_surplus_descriptors(void **state)
{
	struct server s;
	struct agent_peer *p;
	int fd = -1;

	(void)state;
	server_start(&s, reply_with_many);
	assert_int_equal(open_server(&s, PATIENCE_MS, &p), 0);
	for (int i = 0; i < 5; i++) {
		assert_int_equal(fetch(p, PATIENCE_MS, &fd), 0);
		assert_true(fd >= 0);
		fd_close(&fd);
	}
	agent_peer_close(p);
	server_stop(&s);
}

static bool hang_up_on_request(int fd, int n, const struct agent_frame *f)
{
	struct agent_frame a = hello_of(serving);

	(void)f;
	if (n == 0)
		agent_frame_send(fd, &a, -1);
	return n == 0;
}

/* It lives but cuts us off at every request: no death, no loop at full speed, an end in time. */
static void test_cut_again_and_again(void **state)
{
	struct server s;
	struct agent_peer *p;
	int fd = -1;

	(void)state;
	server_start(&s, hang_up_on_request);
	assert_int_equal(open_server(&s, PATIENCE_MS, &p), 0);
	assert_int_equal(fetch(p, 200, &fd), SMEM_TIMEOUT);
	assert_true(s.connections < 100);
	agent_peer_close(p);
	server_stop(&s);
}

/* Answers come in another order than the requests. */
static bool reply_in_pairs(int fd, int n, const struct agent_frame *f)
{
	static struct agent_frame first;
	struct agent_frame a = n == 0 ? hello_of(serving) : reply_to(f);

	if (n == 0) {
		agent_frame_send(fd, &a, -1);
	} else if (n % 2 == 1) {
		first = reply_to(f);
	} else {
		send_with_fds(fd, &a, 1);
		send_with_fds(fd, &first, 1);
	}
	return true;
}

static void *fetch_one(void *arg)
{
	int fd = -1;

	for (int i = 0; i < 50; i++) {
		if (fetch(arg, PATIENCE_MS, &fd) != 0)
			return arg;
		fd_close(&fd);
	}
	return NULL;
}

static void test_out_of_order(void **state)
{
	struct server s;
	struct agent_peer *p;
	pthread_t tid[2];
	void *failed;

	(void)state;
	server_start(&s, reply_in_pairs);
	assert_int_equal(open_server(&s, PATIENCE_MS, &p), 0);
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&tid[i], NULL, fetch_one, p), 0);
	for (int i = 0; i < 2; i++) {
		pthread_join(tid[i], &failed);
		assert_null(failed);
	}
	agent_peer_close(p);
	server_stop(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_silent, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_no_hello, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_no_descriptor, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_surplus_descriptors, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_cut_again_and_again, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_out_of_order, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
