/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Processes and the store: death, stop, silence, linger, broken connections, fork, ports. Other
 * processes are this program again, with a role; they talk over pipes and die with the parent.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store_util.h"
#include "util/cleanup.h"

static struct deadline soon(void)
{
	return deadline_in_s(LONG_S);
}

/* ---- other processes ---- */

struct child {
	pid_t pid;
	int in;	 /* to write to it */
	int out; /* to read from it */
};

static void child_start(struct child *c, const char *role, const char *url)
{
	int in[2], out[2];

	assert_int_equal(pipe2(in, O_CLOEXEC), 0);
	assert_int_equal(pipe2(out, O_CLOEXEC), 0);
	c->pid = fork();
	assert_true(c->pid >= 0);
	if (c->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(in[0], 0);
		dup2(out[1], 1);
		execl("/proc/self/exe", "test_store_life", role, url, (char *)NULL);
		_exit(127);
	}
	close(in[0]);
	close(out[1]);
	c->in = in[1];
	c->out = out[0];
}

/* Its next word. */
static void child_says(struct child *c, char want)
{
	struct pollfd p = {.fd = c->out, .events = POLLIN};
	char got = 0;

	assert_int_equal(poll(&p, 1, LONG_S * 1000), 1);
	assert_int_equal(read(c->out, &got, 1), 1);
	assert_int_equal(got, want);
}

static bool child_is_quiet(struct child *c)
{
	struct pollfd p = {.fd = c->out, .events = POLLIN};

	return poll(&p, 1, 0) == 0;
}

static void child_tell(struct child *c, char word)
{
	assert_int_equal(write(c->in, &word, 1), 1);
}

static void child_end(struct child *c)
{
	int status;

	kill(c->pid, SIGKILL);
	assert_int_equal(waitpid(c->pid, &status, 0), c->pid);
	close(c->in);
	close(c->out);
}

static void say(char word)
{
	if (write(1, &word, 1) != 1)
		_exit(1);
}

static void on_event(void *arg, const struct store_event *e)
{
	(void)arg;
	(void)e;
}

static struct store_enter life_enter(uint32_t member, struct diary *d)
{
	return (struct store_enter){.name = "life",
				    .mode = STORE_GROUP_OPEN,
				    .member = member,
				    .size = 8,
				    .numbers = 8,
				    .fn = d ? diary_note : on_event,
				    .arg = d};
}

/* i: in the group; then for every 'p' a note, until the end of the pipe. */
static int role_member(struct store *s)
{
	struct store_group *g = NULL;
	struct store_enter e = life_enter(1, NULL);
	char word;

	if (store_group_enter(s, &e, soon(), NULL, &g) != 0)
		return 1;
	say('i');
	while (read(0, &word, 1) == 1) {
		if (store_group_note(g, "p", 1, false, soon()) != 0)
			return 1;
	}
	_exit(0); /* without a word to the store */
}

/* u: serves; on 'c' it closes (lingering 5 s), then c; 'q' the same with 300 ms. */
static int role_host(struct store *s)
{
	char word;

	say('u');
	if (read(0, &word, 1) != 1)
		_exit(0);
	say('b');
	store_close(s, word == 'q' ? 300 : STORE_LINGER_MS);
	say('c');
	return read(0, &word, 1) == 1;
}

static int role_main(const char *role, const char *text)
{
	enum store_role how = strcmp(role, "host") == 0 ? STORE_HOST : STORE_CONNECT;
	struct store_url url;
	struct store *s = NULL;

	if (store_url_parse(text, true, &url) != 0 || store_open(&url, how, soon(), &s) != 0) {
		fprintf(stderr, "%s: %s\n", role, err_detail());
		return 1;
	}
	return how == STORE_HOST ? role_host(s) : role_member(s);
}

static void url_of(struct store_url *url, const char *host, uint16_t port)
{
	char text[100];

	snprintf(text, sizeof(text), "tcp://%s:%u", host, port);
	assert_int_equal(store_url_parse(text, true, url), 0);
}

/* A host in another process; the port may be taken by a stranger meanwhile: try again. */
static void host_start(struct child *c, struct store_url *url)
{
	url_of(url, "127.0.0.1", port_free());
	child_start(c, "host", url->text);
	child_says(c, 'u');
}

/* ---- death and stop of a member ---- */

static void test_kill_and_stop(void **state)
{
	struct hub hub;
	struct child c;
	struct store_group *g = NULL;
	static struct diary d;
	char text[64];

	(void)state;
	hub_start(&hub);
	struct store *s = hub_client(&hub, 1);
	diary_init(&d);
	struct store_enter e = life_enter(0, &d);
	assert_int_equal(store_group_enter(s, &e, soon(), NULL, &g), 0);
	snprintf(text, sizeof(text), "tcp://127.0.0.9:%u", hub.port);
	child_start(&c, "member", text);
	child_says(&c, 'i');
	diary_wait(&d, 2);
	/* Stopped for longer than a silent host may be silent: nothing happens. */
	kill(c.pid, SIGSTOP);
	child_tell(&c, 'p');
	struct timespec until = deadline_timespec(deadline_in_ms(4000));
	pthread_mutex_lock(&d.lock);
	while (d.count == 2 &&
	       pthread_cond_clockwait(&d.cond, &d.lock, CLOCK_MONOTONIC, &until) == 0)
		;
	pthread_mutex_unlock(&d.lock);
	assert_int_equal(diary_count(&d), 2);
	kill(c.pid, SIGCONT);
	diary_wait(&d, 3);
	assert_int_equal(d.events[2].kind, STORE_EVENT_NOTE);
	uint64_t begin = clock_ns();
	kill(c.pid, SIGKILL);
	diary_wait(&d, 4);
	printf("# SIGKILL seen after %llu ms\n",
	       (unsigned long long)((clock_ns() - begin) / NS_PER_MS));
	assert_int_equal(d.events[3].kind, STORE_EVENT_LOST);
	assert_int_equal(d.events[3].member, 1);
	child_end(&c);
	/* A restart right after a death gets the number without trying again. */
	child_start(&c, "member", text);
	child_says(&c, 'i');
	struct child c2;
	kill(c.pid, SIGKILL);
	child_start(&c2, "member", text);
	child_says(&c2, 'i');
	child_end(&c);
	child_end(&c2);
	store_group_free(g);
	store_close(s, 0);
	hub_stop(&hub);
}

/* ---- the host ---- */

static void do_get(struct task *t)
{
	task_fail(t, store_get(t->store, "never", true, t->deadline, &t->bytes));
}

static void test_host_dies(void **state)
{
	struct child c;
	struct store_url url;
	struct store *s = NULL;
	struct store_group *g = NULL;
	static struct diary d;

	(void)state;
	host_start(&c, &url);
	assert_int_equal(store_open(&url, STORE_CONNECT, soon(), &s), 0);
	diary_init(&d);
	struct store_enter e = life_enter(0, &d);
	assert_int_equal(store_group_enter(s, &e, soon(), NULL, &g), 0);
	struct task t = {.store = s, .deadline = soon()};
	task_start(&t, do_get);
	uint64_t begin = clock_ns();
	child_end(&c);
	task_join(&t);
	printf("# death of the host seen after %llu ms\n",
	       (unsigned long long)((clock_ns() - begin) / NS_PER_MS));
	assert_int_equal(t.code, SMEM_UNREACHABLE);
	assert_non_null(strstr(t.detail, url.text));
	diary_wait(&d, 2);
	assert_int_equal(d.events[1].kind, STORE_EVENT_CLOSED);
	assert_true(store_lost(s));
	assert_int_equal(store_set(s, "k", "v", 1, 0, soon()), SMEM_UNREACHABLE);
	assert_int_equal(store_group_fence(g, store_group_seq(g), soon()), SMEM_UNREACHABLE);
	store_range_release(s, "x");
	/* The lost object stays what it is; a new opener gets a new one. */
	struct store *s2 = NULL;
	assert_int_equal(store_open(&url, STORE_HOST, soon(), &s2), 0);
	assert_true(s2 != s);
	assert_int_equal(store_set(s2, "k", "v", 1, 0, soon()), 0);
	assert_int_equal(store_group_leave(g, true, soon()), 0);
	store_group_free(g);
	store_close(s, STORE_LINGER_MS);
	store_close(s2, STORE_LINGER_MS);
}

static void test_linger(void **state)
{
	struct child c;
	struct store_url url;
	struct store *s = NULL, *late = NULL;
	int64_t v = 0;

	(void)state;
	host_start(&c, &url);
	assert_int_equal(store_open(&url, STORE_CONNECT, soon(), &s), 0);
	child_tell(&c, 'c');
	child_says(&c, 'b');
	/* It serves those it has and takes nobody new. */
	struct store_url other;
	url_of(&other, "localhost", url.port);
	while (store_open(&other, STORE_CONNECT, deadline_in_ms(50), &late) == 0)
		store_close(take_ptr(&late), 0);
	assert_int_equal(store_add(s, "x", 1, soon(), &v), 0);
	assert_int_equal(v, 1);
	assert_true(child_is_quiet(&c));
	store_close(s, 0);
	child_says(&c, 'c');
	/* The port is free at once. */
	assert_int_equal(store_open(&url, STORE_HOST, soon(), &s), 0);
	store_close(s, STORE_LINGER_MS);
	child_end(&c);
	/* Who stays is not waited for longer than the time given. */
	host_start(&c, &url);
	assert_int_equal(store_open(&url, STORE_CONNECT, soon(), &s), 0);
	child_tell(&c, 'q');
	child_says(&c, 'b');
	child_says(&c, 'c');
	assert_int_equal(store_add(s, "x", 1, soon(), &v), SMEM_UNREACHABLE);
	store_close(s, 0);
	child_end(&c);
}

/* ---- fork ---- */

static void test_fork(void **state)
{
#ifdef __SANITIZE_THREAD__
	(void)state;
	printf("# skipped: the thread sanitizer cannot start threads in a forked child\n");
	skip();
#else
	struct hub hub;
	struct store_group *g[2] = {NULL};
	static struct diary d[2];
	struct store *s[2];
	int status;

	(void)state;
	hub_start(&hub);
	for (unsigned i = 0; i < 2; i++) {
		s[i] = hub_client(&hub, i + 1);
		diary_init(&d[i]);
		struct store_enter e = life_enter(i, &d[i]);
		assert_int_equal(store_group_enter(s[i], &e, soon(), NULL, &g[i]), 0);
	}
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		/* The parent's objects are nothing here; the same URL makes a new client. */
		struct store_url url;
		struct store *mine = NULL;
		int64_t v = 0;
		char text[64];
		snprintf(text, sizeof(text), "tcp://127.0.0.2:%u", hub.port);
		if (store_url_parse(text, false, &url) != 0 ||
		    store_open(&url, STORE_CONNECT, soon(), &mine) != 0 || mine == s[0] ||
		    store_add(mine, "forked", 1, soon(), &v) != 0 || v != 1)
			_exit(1);
		store_close(mine, 0);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	int64_t v = 0;
	assert_int_equal(store_add(s[0], "forked", 1, soon(), &v), 0);
	assert_int_equal(v, 2);
	assert_int_equal(store_group_note(g[0], "n", 1, false, soon()), 0);
	for (unsigned i = 0; i < 2; i++) {
		diary_wait(&d[i], 3);
		assert_int_equal(d[i].events[2].kind, STORE_EVENT_NOTE);
	}
	for (unsigned i = 0; i < 2; i++) {
		store_group_free(g[i]);
		store_close(s[i], 0);
	}
	hub_stop(&hub);
#endif
}

/* ---- opening ---- */

static void *answer_http(void *arg)
{
	static const char text[] = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
	int fd = accept4(*(int *)arg, NULL, NULL, SOCK_CLOEXEC);
	char buf[512];

	if (recv(fd, buf, sizeof(buf), 0) > 0)
		send(fd, text, sizeof(text) - 1, MSG_NOSIGNAL);
	while (recv(fd, buf, sizeof(buf), 0) > 0)
		;
	close(fd);
	return NULL;
}

static void test_not_a_store(void **state)
{
	struct sockaddr_in sin = {.sin_family = AF_INET};
	socklen_t len = sizeof(sin);
	struct store_url url;
	struct store *s = NULL;
	pthread_t thread;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	(void)state;
	sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(bind(fd, (struct sockaddr *)&sin, len), 0);
	assert_int_equal(listen(fd, 4), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&sin, &len), 0);
	assert_int_equal(pthread_create(&thread, NULL, answer_http, &fd), 0);
	url_of(&url, "127.0.0.1", ntohs(sin.sin_port));
	assert_int_equal(store_open(&url, STORE_CONNECT, soon(), &s), SMEM_IO);
	assert_non_null(strstr(err_detail(), "not an smem"));
	pthread_join(thread, NULL);
	/* Somebody listens and says nothing. */
	uint64_t begin = clock_ns();
	assert_int_equal(store_open(&url, STORE_CONNECT, deadline_in_ms(300), &s), SMEM_TIMEOUT);
	assert_true(clock_ns() - begin < 20 * NS_PER_S);
	assert_non_null(strstr(err_detail(), url.text));
	/* The port is taken. */
	begin = clock_ns();
	assert_int_equal(store_open(&url, STORE_HOST, soon(), &s), SMEM_RESOURCE_IN_USE);
	assert_true(clock_ns() - begin >= 1900 * NS_PER_MS);
	close(fd);
}

static void test_opening(void **state)
{
	struct store_url url, other;
	struct store *a = NULL, *b = NULL;

	(void)state;
	url_of(&url, "127.0.0.1", port_free());
	assert_int_equal(store_open(&url, STORE_CONNECT, deadline_in_ms(200), &a), SMEM_TIMEOUT);
	assert_non_null(strstr(err_detail(), "refused"));
	assert_non_null(strstr(err_detail(), url.text));
	url_of(&other, "192.0.2.1", url.port);
	assert_int_equal(store_open(&other, STORE_HOST, soon(), &a), SMEM_INVALID_PARAM);
	/* (A network may answer for that name, but nothing listens there.) */
	url_of(&other, "no-such-host.invalid", url.port);
	assert_int_equal(store_open(&other, STORE_CONNECT, deadline_in_ms(300), &a), SMEM_TIMEOUT);
	assert_non_null(strstr(err_detail(), "no-such-host.invalid"));

	assert_int_equal(store_open(&url, STORE_HOST_IF_LOCAL, soon(), &a), 0);
	assert_true(store_hosting(a));
	assert_int_equal(store_open(&url, STORE_CONNECT, soon(), &b), 0);
	assert_ptr_equal(a, b);
	store_close(b, 0);
	assert_int_equal(store_open(&url, STORE_HOST, soon(), &b), 0);
	assert_ptr_equal(a, b);
	store_close(a, 0);
	assert_int_equal(store_set(b, "k", "v", 1, 0, soon()), 0);
	store_close(b, STORE_LINGER_MS);
	/* A wildcard owns its port on all addresses of this machine. */
	url_of(&other, "0.0.0.0", url.port);
	assert_int_equal(store_open(&other, STORE_HOST, soon(), &a), 0);
	assert_int_equal(store_open(&url, STORE_HOST, soon(), &b), 0);
	assert_ptr_equal(a, b);
	store_close(b, 0);
	url_of(&url, "localhost", url.port);
	assert_int_equal(store_open(&url, STORE_CONNECT, soon(), &b), 0);
	assert_ptr_equal(a, b);
	store_close(b, 0);
	store_close(a, STORE_LINGER_MS);
}

static void test_no_descriptors(void **state)
{
	struct hub hub;
	struct store_url url;
	struct store *s = NULL, *before;
	struct rlimit limit, low;
	int64_t v = 0;

	(void)state;
	hub_start(&hub);
	before = hub_client(&hub, 1); /* the I/O loop is there already */
	url_of(&url, "127.0.0.7", hub.port);
	int fd = dup(0);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	low = limit;
	low.rlim_cur = (rlim_t)fd;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
	int32_t r = store_open(&url, STORE_CONNECT, soon(), &s);
	int32_t again = store_add(before, "n", 1, soon(), &v);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	assert_int_equal(r, SMEM_NEW_OBJECT_FAILED);
	assert_int_equal(again, 0);
	assert_int_equal(store_open(&url, STORE_CONNECT, soon(), &s), 0);
	store_close(s, 0);
	store_close(before, 0);
	hub_stop(&hub);
}

static void do_open_waiting(struct task *t)
{
	struct store_url url;

	if (store_url_parse(t->key, false, &url) != 0)
		t->code = -1;
	else
		task_fail(t, store_open(&url, STORE_CONNECT, t->deadline, &t->store));
}

/* One thread waits for a store that does not exist yet, another one of the process makes it. */
static void test_host_while_waiting(void **state)
{
	struct store_url url;
	struct store *s = NULL;

	(void)state;
	url_of(&url, "127.0.0.1", port_free());
	struct task t = {.key = url.text, .deadline = soon()};
	task_start(&t, do_open_waiting);
	assert_int_equal(store_open(&url, STORE_HOST, soon(), &s), 0);
	task_join(&t);
	assert_int_equal(t.code, 0);
	assert_ptr_equal(t.store, s);
	store_close(t.store, 0);
	store_close(s, STORE_LINGER_MS);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_opening),	   cmocka_unit_test(test_host_while_waiting),
	    cmocka_unit_test(test_no_descriptors), cmocka_unit_test(test_not_a_store),
	    cmocka_unit_test(test_host_dies),	   cmocka_unit_test(test_linger),
	    cmocka_unit_test(test_kill_and_stop),  cmocka_unit_test(test_fork),
	};

	if (argc == 3)
		return role_main(argv[1], argv[2]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
