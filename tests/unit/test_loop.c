/* SPDX-License-Identifier: Apache-2.0 */
/* Loops, descriptors and what a fork does to them. */
#include <dirent.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "util/cleanup.h"
#include "util/loop.h"

static int fds_open(void)
{
	int n = 0;
	DIR *d = opendir("/proc/self/fd");

	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

#define POSTS 10000

static int order_next; /* the loop's only */
static int order_wrong;

static void note_order(void *arg)
{
	if ((int)(intptr_t)arg != order_next++)
		order_wrong++;
}

static void test_posts_run_in_order(void **state)
{
	struct loop *loop;
	int before = fds_open();

	(void)state;
	assert_int_equal(loop_create("test", &loop), 0);
	for (intptr_t i = 0; i < POSTS; i++)
		assert_int_equal(loop_post(loop, note_order, (void *)i), 0);
	loop_destroy(loop);
	assert_int_equal(order_next, POSTS);
	assert_int_equal(order_wrong, 0);
	assert_int_equal(fds_open(), before);
}

static void see_inside(void *arg)
{
	void **p = arg;

	*(bool *)p[1] = loop_inside(p[0]);
}

static void call_again(void *arg)
{
	void **p = arg;

	loop_call(p[0], see_inside, p);
}

static void test_call_waits_and_nests(void **state)
{
	struct loop *loop;
	bool inside = false;

	(void)state;
	assert_int_equal(loop_create("test", &loop), 0);
	void *p[2] = {loop, &inside};
	loop_call(loop, call_again, p);
	assert_true(inside);
	assert_false(loop_inside(loop));
	loop_destroy(loop);
}

static void test_io_loop_is_shared(void **state)
{
	struct loop *a, *b;
	int before = fds_open();

	(void)state;
	assert_int_equal(loop_io_get(&a), 0);
	assert_int_equal(loop_io_get(&b), 0);
	assert_ptr_equal(a, b);
	loop_io_put(a);
	bool inside = false;
	void *p[2] = {b, &inside};
	loop_call(b, see_inside, p);
	assert_true(inside);
	loop_io_put(b);
	assert_int_equal(fds_open(), before);
}

/* A pair of connected sockets, one end watched by the loop, which echoes. */
static void echo(evutil_socket_t fd, short what, void *arg)
{
	char c;

	(void)what;
	(void)arg;
	if (read(fd, &c, 1) == 1 && write(fd, &c, 1) != 1)
		close(fd);
}

struct watch {
	struct loop *loop;
	int fd;
	struct event *ev;
};

static void watch_add(void *arg)
{
	struct watch *w = arg;

	w->ev = event_new(loop_base(w->loop), w->fd, EV_READ | EV_PERSIST, echo, NULL);
	event_add(w->ev, NULL);
}

static void watch_del(void *arg)
{
	struct watch *w = arg;

	event_free(w->ev);
}

static bool echoes(int fd)
{
	char c = 'x';
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return write(fd, &c, 1) == 1 && poll(&p, 1, 10000) == 1 && read(fd, &c, 1) == 1;
}

static void child_checks(struct watch *w, int before)
{
	struct loop *fresh;
	int code = 0;

	if (fcntl(w->fd, F_GETFD) != -1 || errno != EBADF)
		code |= 1; /* an owned descriptor is still open */
	if (fds_open() > before)
		code |= 2;     /* the loop's own ones are */
	loop_destroy(w->loop); /* not ours: nothing happens */
#ifdef __SANITIZE_THREAD__
	_exit(code); /* the sanitizer cannot start threads in the child of a threaded process */
#endif
	if (loop_create("child", &fresh) != 0)
		code |= 4;
	bool inside = false;
	void *p[2] = {fresh, &inside};
	loop_call(fresh, see_inside, p);
	if (!inside)
		code |= 8;
	loop_destroy(fresh);
	_exit(code);
}

static void test_fork_leaves_the_parent_alone(void **state)
{
	int pair[2];
	struct watch w = {0};
	int status;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	int before = fds_open() - 1;
	w.fd = fd_own(pair[1]);
	assert_int_equal(loop_create("test", &w.loop), 0);
	loop_call(w.loop, watch_add, &w);
	assert_true(echoes(pair[0]));
	for (int i = 0; i < 20; i++) {
		pid_t pid = fork();
		assert_true(pid >= 0);
		if (pid == 0)
			child_checks(&w, before);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFEXITED(status));
		assert_int_equal(WEXITSTATUS(status), 0);
		assert_true(echoes(pair[0]));
	}
	loop_call(w.loop, watch_del, &w);
	loop_destroy(w.loop);
	fd_close(&w.fd);
	close(pair[0]);
}

static _Atomic int busy_stop;

static void nothing(void *arg)
{
	(void)arg;
}

static void *post_busily(void *arg)
{
	while (!atomic_load(&busy_stop))
		loop_call(arg, nothing, NULL);
	return NULL;
}

static void test_fork_while_the_loop_works(void **state)
{
	struct loop *loop;
	pthread_t t;
	int status;

	(void)state;
	assert_int_equal(loop_create("test", &loop), 0);
	assert_int_equal(pthread_create(&t, NULL, post_busily, loop), 0);
	for (int i = 0; i < 100; i++) {
		pid_t pid = fork();
		assert_true(pid >= 0);
		if (pid == 0) {
			loop_destroy(loop);
			_exit(0);
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	}
	atomic_store(&busy_stop, 1);
	pthread_join(t, NULL);
	loop_destroy(loop);
}

static void test_signals_stay_with_the_application(void **state)
{
	struct loop *loop;
	sigset_t mask;

	(void)state;
	assert_int_equal(loop_create("test", &loop), 0);
	pthread_sigmask(SIG_BLOCK, NULL, &mask);
	assert_int_equal(sigismember(&mask, SIGINT), 0);
	loop_destroy(loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_posts_run_in_order),
	    cmocka_unit_test(test_call_waits_and_nests),
	    cmocka_unit_test(test_io_loop_is_shared),
	    cmocka_unit_test(test_fork_leaves_the_parent_alone),
	    cmocka_unit_test(test_fork_while_the_loop_works),
	    cmocka_unit_test(test_signals_stay_with_the_application),
	};
	return cmocka_run_group_tests_name("loop", tests, NULL, NULL);
}
