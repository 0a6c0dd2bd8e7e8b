/* SPDX-License-Identifier: Apache-2.0 */
/* The agent inside one process, which is its own peer, and clients that do not keep to the
 * protocol. Between processes: tests/ranks/test_agent.c. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "device/fdpass_wire.h"
#include "util/err.h"
#include "util/fd.h"
#include "util/limits.h"
#include "util/log.h"

#define PATIENCE_MS 10000

static const uint8_t cookie[AGENT_COOKIE] = "fifteen letters";
static _Atomic int warnings;

static void count_warning(int level, const char *msg)
{
	(void)msg;
	if (level == LOG_LEVEL_WARN)
		warnings++;
}

static int setup(void **state)
{
	(void)state;
	log_set_sink(count_warning);
	warnings = 0;
	return agent_get();
}

static int teardown(void **state)
{
	(void)state;
	agent_put();
	return 0;
}

static void never(void *arg)
{
	(void)arg;
	fail_msg("lost was called");
}

static int memfd_with(const char *text)
{
	int fd = memfd_create("test", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	return fd;
}

static void fetch_and_compare(struct agent_peer *peer, uint64_t object, const char *want)
{
	char buf[64] = "", info[AGENT_INFO];
	size_t len = sizeof(info);
	int fd = -1;

	assert_int_equal(
	    agent_fetch(peer, object, cookie, deadline_in_ms(PATIENCE_MS), &fd, info, &len),
	    SMEM_OK);
	assert_int_equal(len, 4);
	assert_memory_equal(info, "info", 4);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	assert_true(pread(fd, buf, sizeof(buf) - 1, 0) >= 0);
	assert_string_equal(buf, want);
	fd_close(&fd);
}

static void test_offer_and_fetch(void **state)
{
	struct agent_peer *peer = NULL, *second = NULL;
	int fd = memfd_with("content"), got = -1;
	uint8_t wrong[AGENT_COOKIE] = "other";
	struct deadline d = deadline_in_ms(PATIENCE_MS);

	(void)state;
	assert_int_equal(agent_offer(7, cookie, fd, "info", 4), SMEM_OK);
	assert_int_equal(agent_offer(7, cookie, fd, "info", 4), SMEM_DUPLICATED_OBJECT);
	assert_int_equal(agent_offer(8, cookie, fd, "info", AGENT_INFO + 1), SMEM_INVALID_PARAM);
	assert_int_equal(agent_peer_open(agent_own(), d, never, NULL, &peer), SMEM_OK);
	assert_int_equal(agent_peer_open(agent_own(), d, never, NULL, &second), SMEM_OK);
	assert_int_equal(agent_peer_pid(peer), getpid());
	fetch_and_compare(peer, 7, "content");
	fetch_and_compare(second, 7, "content");
	assert_int_equal(agent_fetch(peer, 7, wrong, d, &got, NULL, NULL), SMEM_OBJECT_NOT_EXISTS);
	assert_int_equal(agent_fetch(peer, 9, cookie, d, &got, NULL, NULL), SMEM_OBJECT_NOT_EXISTS);
	assert_int_equal(got, -1);
	agent_peer_close(peer);
	agent_withdraw(7);
	assert_int_equal(agent_fetch(second, 7, cookie, d, &got, NULL, NULL),
			 SMEM_OBJECT_NOT_EXISTS);
	agent_peer_close(second);
	close(fd);
}

struct worker {
	struct agent_peer *peer;
	int failures;
};

static void *fetch_often(void *arg)
{
	struct worker *w = arg;

	for (int i = 0; i < 300; i++) {
		int fd = -1;
		if (agent_fetch(w->peer, 7, cookie, deadline_in_ms(PATIENCE_MS), &fd, NULL, NULL) !=
		    SMEM_OK)
			w->failures++;
		fd_close(&fd);
	}
	return NULL;
}

static void test_many_threads(void **state)
{
	struct worker w[6] = {{.failures = 0}};
	pthread_t tid[6];
	int fd = memfd_with("x");

	(void)state;
	assert_int_equal(agent_offer(7, cookie, fd, NULL, 0), SMEM_OK);
	for (int i = 0; i < 6; i++) {
		assert_int_equal(agent_peer_open(agent_own(), deadline_in_ms(PATIENCE_MS), never,
						 NULL, &w[i].peer),
				 SMEM_OK);
		pthread_create(&tid[i], NULL, fetch_often, &w[i]);
	}
	for (int i = 0; i < 6; i++) {
		pthread_join(tid[i], NULL);
		assert_int_equal(w[i].failures, 0);
		agent_peer_close(w[i].peer);
	}
	agent_withdraw(7);
	close(fd);
}

static int raw_connect(void)
{
	struct agent_sock sock;
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	agent_sock_abstract(agent_own(), &sock);
	assert_int_equal(connect(fd, (struct sockaddr *)&sock.sun, sock.len), 0);
	return fd;
}

/* Wait for the end of file; anything that comes before is counted. */
static int drain_to_end(int fd)
{
	struct agent_frame f;
	struct pollfd p = {.fd = fd, .events = POLLIN};
	int frames = 0;

	for (;;) {
		assert_int_equal(poll(&p, 1, PATIENCE_MS), 1);
		ssize_t n = recv(fd, &f, sizeof(f), 0);
		if (n <= 0)
			break;
		frames++;
	}
	close(fd);
	return frames;
}

static struct agent_frame hello_frame(void)
{
	struct agent_frame f = {.version = AGENT_VERSION, .type = AGENT_HELLO, .info_len = 32};

	memcpy(f.info, agent_own()->name, 32);
	return f;
}

static int raw_greeted(void)
{
	struct agent_frame f = hello_frame();
	int fd = raw_connect();

	assert_int_equal(send(fd, &f, sizeof(f), 0), sizeof(f));
	assert_int_equal(recv(fd, &f, sizeof(f), 0), sizeof(f));
	assert_int_equal(f.type, AGENT_HELLO);
	return fd;
}

static void test_garbage_is_cut(void **state)
{
	static const char junk[4096] = "GET / HTTP/1.1\r\n\r\n";
	static const size_t sizes[] = {1, 18, sizeof(struct agent_frame), 113, 4096};
	struct agent_frame f = hello_frame();
	struct agent_peer *healthy = NULL;
	int fd, mem = memfd_with("content");

	(void)state;
	assert_int_equal(agent_offer(7, cookie, mem, "info", 4), SMEM_OK);
	assert_int_equal(
	    agent_peer_open(agent_own(), deadline_in_ms(PATIENCE_MS), never, NULL, &healthy),
	    SMEM_OK);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		fd = raw_connect();
		assert_int_equal(send(fd, junk, sizes[i], 0), sizes[i]);
		assert_int_equal(drain_to_end(fd), 0);
		fd = raw_greeted();
		assert_int_equal(send(fd, junk, sizes[i], 0), sizes[i]);
		assert_int_equal(drain_to_end(fd), 0);
		fetch_and_compare(healthy, 7, "content");
	}
	assert_int_equal(warnings, 10);
	fd = raw_connect(); /* another agent is meant */
	f.info[0] ^= 1;
	send(fd, &f, sizeof(f), 0);
	assert_int_equal(drain_to_end(fd), 0);
	fd = raw_connect(); /* a request before HELLO, with the right cookie */
	f = (struct agent_frame){.version = AGENT_VERSION, .type = AGENT_FETCH, .object = 7};
	memcpy(f.cookie, cookie, AGENT_COOKIE);
	send(fd, &f, sizeof(f), 0);
	assert_int_equal(drain_to_end(fd), 0);
	fd = raw_greeted(); /* the wrong version */
	f.version = 2;
	send(fd, &f, sizeof(f), 0);
	assert_int_equal(drain_to_end(fd), 0);
	fetch_and_compare(healthy, 7, "content");
	agent_peer_close(healthy);
	agent_withdraw(7);
	close(mem);
}

static void test_guessing_is_cut(void **state)
{
	struct agent_frame f = {.version = AGENT_VERSION, .type = AGENT_FETCH, .object = 7};
	int fd = raw_greeted(), mem = memfd_with("content");

	(void)state;
	assert_int_equal(agent_offer(7, cookie, mem, NULL, 0), SMEM_OK);
	for (unsigned i = 0; i < AGENT_STRIKES_MAX; i++) {
		f.cookie[0] = (uint8_t)i;
		assert_int_equal(send(fd, &f, sizeof(f), MSG_NOSIGNAL), sizeof(f));
	}
	assert_int_equal(drain_to_end(fd), AGENT_STRIKES_MAX);
	agent_withdraw(7);
	close(mem);
}

/* Who asks and never reads, and who never says anything. */
static void test_stalled_is_cut(void **state)
{
	struct agent_frame f = {.version = AGENT_VERSION, .type = AGENT_FETCH, .object = 7};
	int fd = raw_greeted(), silent = raw_connect(), mem = memfd_with("content");
	struct agent_peer *healthy = NULL;

	(void)state;
	memcpy(f.cookie, cookie, AGENT_COOKIE);
	assert_int_equal(agent_offer(7, cookie, mem, "info", 4), SMEM_OK);
	assert_int_equal(
	    agent_peer_open(agent_own(), deadline_in_ms(PATIENCE_MS), never, NULL, &healthy),
	    SMEM_OK);
	while (send(fd, &f, sizeof(f), MSG_NOSIGNAL) == sizeof(f))
		;
	assert_true(errno == EPIPE || errno == ECONNRESET);
	close(fd);
	fetch_and_compare(healthy, 7, "content");
	assert_int_equal(drain_to_end(silent), 0);
	fetch_and_compare(healthy, 7, "content");
	agent_peer_close(healthy);
	agent_withdraw(7);
	close(mem);
}

static void test_another_user_gets_nothing(void **state)
{
	int status;

	(void)state;
	if (geteuid() != 0) {
		print_message("# skipped: needs root to become another user\n");
		skip();
	}
	struct agent_sock sock;
	agent_sock_abstract(agent_own(), &sock);
	struct agent_frame f = hello_frame();
	pid_t pid = fork();
	if (pid == 0) {
		char buf[256];
		int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
		if (setgid(65534) != 0 || setuid(65534) != 0)
			_exit(2);
		if (connect(fd, (struct sockaddr *)&sock.sun, sock.len) != 0)
			_exit(3);
		send(fd, &f, sizeof(f), MSG_NOSIGNAL);
		_exit(recv(fd, buf, sizeof(buf), 0) > 0 ? 1 : 0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void test_other_host_and_version(void **state)
{
	struct agent_addr addr = *agent_own();
	struct agent_peer *peer = NULL;
	struct deadline d = deadline_in_ms(PATIENCE_MS);

	(void)state;
	addr.boot_id[3] ^= 1;
	assert_int_equal(agent_peer_open(&addr, d, never, NULL, &peer), SMEM_UNREACHABLE);
	assert_non_null(strstr(err_detail(), "another host"));
	addr = *agent_own();
	addr.version = 99;
	assert_int_equal(agent_peer_open(&addr, d, never, NULL, &peer), SMEM_UNREACHABLE);
	addr = *agent_own();
	addr.name[5] ^= 1;
	assert_int_equal(agent_peer_open(&addr, d, never, NULL, &peer), SMEM_PEER_LOST);
	addr.netns ^= 1;
	assert_int_equal(agent_peer_open(&addr, d, never, NULL, &peer), SMEM_UNREACHABLE);
	assert_non_null(strstr(err_detail(), "SMEM_RUNTIME_DIR"));
	assert_null(peer);
}

static int entries(const char *dir)
{
	DIR *d = opendir(dir);
	int n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n - 2;
}

/* A socket file like those of killed processes. */
static void make_stale(const char *dir, const char *name, bool old)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	struct timespec past[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);

	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s/%s", dir, name);
	assert_int_equal(bind(fd, (struct sockaddr *)&sun, sizeof(sun)), 0);
	close(fd);
	if (old)
		assert_int_equal(utimensat(AT_FDCWD, sun.sun_path, past, 0), 0);
}

static void test_runtime_dir(void **state)
{
	char dir[] = "/tmp/smem-test-XXXXXX", path[64];

	(void)state;
	assert_non_null(mkdtemp(dir));
	make_stale(dir, "smem-old", true);
	make_stale(dir, "smem-new", false);
	make_stale(dir, "another", true);
	agent_put();
	setenv("SMEM_RUNTIME_DIR", dir, 1);
	assert_int_equal(agent_get(), SMEM_OK);
	assert_int_equal(agent_own()->has_path, 1);
	assert_int_equal(entries(dir), 3);
	agent_put();
	assert_int_equal(entries(dir), 2);
	setenv("SMEM_RUNTIME_DIR", "/nonexistent", 1);
	assert_int_equal(agent_get(), SMEM_OK);
	assert_int_equal(agent_own()->has_path, 0);
	unsetenv("SMEM_RUNTIME_DIR");
	snprintf(path, sizeof(path), "%s/smem-new", dir);
	unlink(path);
	snprintf(path, sizeof(path), "%s/another", dir);
	unlink(path);
	assert_int_equal(rmdir(dir), 0);
}

static int highest_fd(void)
{
	int fd = dup(0);

	close(fd);
	return fd;
}

/* Out of descriptors: connections are turned away, none stays in the queue, and later all is well.
 */
static void test_no_descriptors_left(void **state)
{
	struct rlimit old, few;
	struct agent_peer *peer = NULL;
	int fds[12], n = 0, mem = memfd_with("content");

	(void)state;
	assert_int_equal(agent_offer(7, cookie, mem, "info", 4), SMEM_OK);
	for (; n < 12; n++)
		fds[n] = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	getrlimit(RLIMIT_NOFILE, &old);
	few = old;
	few.rlim_cur = (rlim_t)highest_fd() + 2; /* two more for the agent */
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
	struct agent_sock sock;
	agent_sock_abstract(agent_own(), &sock);
	for (int i = 0; i < n; i++)
		assert_int_equal(connect(fds[i], (struct sockaddr *)&sock.sun, sock.len), 0);
	/* The last ones are turned away at once, the first two are served. */
	assert_int_equal(drain_to_end(fds[n - 1]), 0);
	struct agent_frame f = hello_frame();
	assert_int_equal(send(fds[0], &f, sizeof(f), 0), sizeof(f));
	assert_int_equal(recv(fds[0], &f, sizeof(f), 0), sizeof(f));
	for (int i = 0; i < n - 1; i++)
		close(fds[i]);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	assert_int_equal(
	    agent_peer_open(agent_own(), deadline_in_ms(PATIENCE_MS), never, NULL, &peer), SMEM_OK);
	fetch_and_compare(peer, 7, "content");
	agent_peer_close(peer);
	agent_withdraw(7);
	close(mem);
}

/* The child of a process with a busy agent starts anew; the parent does not notice. */
static void test_fork(void **state)
{
	struct agent_peer *peer = NULL;
	int status, mem = memfd_with("content");

	(void)state;
	assert_int_equal(agent_offer(7, cookie, mem, "info", 4), SMEM_OK);
	assert_int_equal(
	    agent_peer_open(agent_own(), deadline_in_ms(PATIENCE_MS), never, NULL, &peer), SMEM_OK);
	uint8_t parents_name[32];
	memcpy(parents_name, agent_own()->name, sizeof(parents_name));
	pid_t pid = fork();
	if (pid == 0) {
		struct agent_peer *own = NULL;
		int fd = -1;
		struct deadline d = deadline_in_ms(PATIENCE_MS);
#ifdef __SANITIZE_THREAD__
		_exit(0); /* cannot start a thread here */
#endif
		if (agent_get() != SMEM_OK ||
		    memcmp(parents_name, agent_own()->name, sizeof(parents_name)) == 0 ||
		    agent_peer_open(agent_own(), d, never, NULL, &own) != SMEM_OK)
			_exit(1);
		if (agent_fetch(own, 7, cookie, d, &fd, NULL, NULL) != SMEM_OBJECT_NOT_EXISTS)
			_exit(2);
		agent_peer_close(own);
		agent_put();
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	fetch_and_compare(peer, 7, "content");
	agent_peer_close(peer);
	agent_withdraw(7);
	close(mem);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_offer_and_fetch, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_many_threads, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_garbage_is_cut, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_guessing_is_cut, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_stalled_is_cut, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_another_user_gets_nothing, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_other_host_and_version, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_runtime_dir, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_no_descriptors_left, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_fork, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
