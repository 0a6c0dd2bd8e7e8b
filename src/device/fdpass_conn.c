/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The asking side of the agent: one connection per peer process, shared by watchers (struct
 * agent_peer) and requests.
 *
 *            connect ok           HELLO back
 *   DOWN ------------------> HELLO ---------> UP          OVER: the peer is gone, or not to be had
 *    ^  \ refused: OVER        |  end of file  |  BYE: OVER
 *    |   `--------.            |               |
 *    `--- retry <-+------------+---------------'
 *
 * An end of file is not yet a death: an agent also cuts off who asks too much. So the name is
 * connected to anew, at once; when nobody listens there any more the process is dead, for the name
 * is random and never used again. While a process dies its sockets close one after the other, so a
 * second or third attempt may be needed: the pauses before those double.
 *
 * The connection's state is changed on the loop only, under the connection's lock; requests take
 * the lock to send and to wait. A request that is in flight when the connection breaks is sent
 * again.
 */
#include "device/fdpass_conn.h"

#include <errno.h>
#include <event2/event.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <utlist.h>

#include "util/cleanup.h"
#include "util/env.h"
#include "util/err.h"
#include "util/fork.h"
#include "util/limits.h"
#include "util/log.h"

#define RETRY_MIN_MS 5
#define RETRY_MAX_MS 320 /* a death must be known within a second */
#define REFUSALS_MAX 3	 /* cut before the first HELLO so often: it does not want us */
#define FDS_MAX	     8	 /* descriptors looked for in an answer; one is right */
#define BURST	     32	 /* packets taken per turn of the loop */

static pthread_mutex_t conns_lock = PTHREAD_MUTEX_INITIALIZER;
static struct conn *conns;
static struct conn *forgotten;

static void conn_connect(struct conn *c);

/* ---- on the loop */

static void close_socket(struct conn *c)
{
	if (c->event)
		event_free(c->event);
	c->event = NULL;
	LOCKED(&c->lock);
	fd_close(&c->fd);
}

static void fire_watchers(struct conn *c)
{
	struct agent_peer *w;

again:
	DL_FOREACH(c->watchers, w)
	{
		if (w->fired)
			continue;
		w->fired = true;
		if (!w->lost)
			continue;
		w->lost(w->arg);
		goto again; /* the list may be another now */
	}
}

/* The end of a connection. `death`: the process is gone, tell those who watch. */
static void conn_over(struct conn *c, int32_t code, const char *why, bool death)
{
	struct request *q;

	close_socket(c);
	pthread_mutex_lock(&conns_lock);
	struct conn *found = NULL;
	HASH_FIND(hh, conns, c->addr.name, sizeof(c->addr.name), found);
	if (found == c)
		HASH_DEL(conns, c);
	pthread_mutex_unlock(&conns_lock);

	pthread_mutex_lock(&c->lock);
	c->state = CONN_OVER;
	c->code = code;
	snprintf(c->why, sizeof(c->why), "%s", why);
	DL_FOREACH(c->requests, q)
	{
		q->done = true;
		q->code = code;
	}
	pthread_cond_broadcast(&c->cond);
	pthread_mutex_unlock(&c->lock);
	if (death)
		fire_watchers(c);
}

static void conn_retry(struct conn *c)
{
	struct timeval tv = {.tv_usec = c->retry_ms * 1000};

	pthread_mutex_lock(&c->lock);
	c->state = CONN_DOWN;
	pthread_mutex_unlock(&c->lock);
	if (c->retry_ms == 0) {
		c->retry_ms = RETRY_MIN_MS;
		conn_connect(c);
		return;
	}
	c->retry_ms = c->retry_ms * 2 > RETRY_MAX_MS ? RETRY_MAX_MS : c->retry_ms * 2;
	event_add(c->timer, &tv);
}

static void conn_broken(struct conn *c)
{
	close_socket(c);
	if (!c->proven && ++c->refusals >= REFUSALS_MAX)
		conn_over(c, SMEM_UNREACHABLE, "its agent refuses connections from this process",
			  false);
	else
		conn_retry(c);
}

static void send_requests(struct conn *c)
{
	struct request *q;

	DL_FOREACH(c->requests, q)
	{
		if (!q->sent && agent_frame_send(c->fd, &q->frame, -1) == 0)
			q->sent = true;
	}
}

static bool on_hello(struct conn *c, const struct agent_frame *f)
{
	if (c->state != CONN_HELLO || f->info_len != sizeof(c->addr.name) ||
	    memcmp(f->info, c->addr.name, f->info_len) != 0)
		return false;
	LOCKED(&c->lock);
	c->proven = true;
	c->state = CONN_UP;
	send_requests(c);
	pthread_cond_broadcast(&c->cond);
	return true;
}

/* Give an answer to who waits for it. Takes over *fd if it does. */
static void on_reply(struct conn *c, const struct agent_frame *f, int *fd)
{
	struct request *q;

	c->retry_ms = 0; /* it does answer: the next end of file is worth an attempt at once */
	LOCKED(&c->lock);
	DL_FOREACH(c->requests, q)
	{
		if (q->id != f->id || q->done)
			continue;
		q->done = true;
		q->code = f->code == SMEM_OK && *fd < 0 ? SMEM_IO : f->code;
		if (q->code == SMEM_OK)
			q->fd = take_fd(fd);
		q->info_len = f->info_len;
		memcpy(q->info, f->info, f->info_len);
		pthread_cond_broadcast(&c->cond);
		return;
	}
}

/* Keep the first descriptor that came along, close what else did. */
static int take_first_fd(struct msghdr *msg)
{
	int fds[FDS_MAX], first = -1;

	for (struct cmsghdr *m = CMSG_FIRSTHDR(msg); m; m = CMSG_NXTHDR(msg, m)) {
		if (m->cmsg_level != SOL_SOCKET || m->cmsg_type != SCM_RIGHTS)
			continue;
		size_t n = (m->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		memcpy(fds, CMSG_DATA(m), n * sizeof(int));
		for (size_t i = 0; i < n; i++) {
			if (first < 0)
				first = fd_own(fds[i]);
			else
				close(fds[i]);
		}
	}
	return first;
}

/* One packet. 1: taken; 0: none there; -1: the connection is broken or speaks nonsense; -2: BYE */
static int conn_read(struct conn *c)
{
	struct agent_frame frames[2];
	struct iovec iov = {.iov_base = frames, .iov_len = sizeof(frames)};
	union {
		char buf[CMSG_SPACE(FDS_MAX * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control.buf,
			     .msg_controllen = sizeof(control.buf)};
	ssize_t n = recvmsg(c->fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n <= 0)
		return -1;
	auto_fd int fd = take_first_fd(&msg);
	if (!agent_frame_ok(&frames[0], n))
		return -1;
	if (frames[0].type == AGENT_BYE)
		return -2;
	if (frames[0].type == AGENT_HELLO)
		return on_hello(c, &frames[0]) ? 1 : -1;
	if (frames[0].type != AGENT_REPLY)
		return -1;
	on_reply(c, &frames[0], &fd);
	return 1;
}

static void on_conn(evutil_socket_t fd, short what, void *arg)
{
	struct conn *c = arg;
	int r = 1;

	(void)fd;
	(void)what;
	for (int i = 0; r > 0 && i < BURST; i++)
		r = conn_read(c);
	if (r == -1)
		conn_broken(c);
	else if (r == -2)
		conn_over(c, SMEM_PEER_LOST, "has shut its agent down", false);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	conn_connect(arg);
}

/* Nobody listens at the name: dead, or never seen from here. */
static void nobody_there(struct conn *c, int err)
{
	struct agent_addr own = {.netns = 0};
	char why[160];

	if (c->proven || (agent_addr_make(&own) == SMEM_OK && own.netns == c->addr.netns)) {
		conn_over(c, SMEM_PEER_LOST, "has died", true);
		return;
	}
	snprintf(why, sizeof(why),
		 "it is in another network namespace and %s: set %s to a directory both see (%s)",
		 c->addr.has_path ? "its socket file is not there" : "offers no socket file",
		 env_entries[ENV_RUNTIME_DIR].name, strerrordesc_np(err));
	conn_over(c, SMEM_UNREACHABLE, why, false);
}

/* The own network namespace first: it needs no files. */
static int connect_any(struct conn *c, int fd)
{
	struct agent_sock path;

	if (c->proven)
		return connect(fd, (struct sockaddr *)&c->sock.sun, c->sock.len);
	agent_sock_abstract(&c->addr, &c->sock);
	if (connect(fd, (struct sockaddr *)&c->sock.sun, c->sock.len) == 0)
		return 0;
	if (errno != ECONNREFUSED || !c->addr.has_path || !agent_sock_path(&c->addr, &path))
		return -1;
	c->sock = path;
	return connect(fd, (struct sockaddr *)&c->sock.sun, c->sock.len);
}

static void say_hello(struct conn *c, int fd, pid_t pid)
{
	struct agent_frame hello = {
	    .version = AGENT_VERSION, .type = AGENT_HELLO, .info_len = sizeof(c->addr.name)};

	memcpy(hello.info, c->addr.name, hello.info_len);
	pthread_mutex_lock(&c->lock);
	struct request *q;
	DL_FOREACH(c->requests, q)
	q->sent = false;
	c->fd = fd;
	c->pid = pid;
	c->state = CONN_HELLO;
	pthread_mutex_unlock(&c->lock);
	c->event = event_new(loop_base(c->loop), fd, EV_READ | EV_PERSIST, on_conn, c);
	if (!c->event || event_add(c->event, NULL) != 0 || agent_frame_send(fd, &hello, -1) != 0)
		conn_broken(c);
}

static void conn_connect(struct conn *c)
{
	struct ucred cred;
	auto_fd int fd = agent_socket();

	if (c->state == CONN_OVER)
		return;
	if (fd < 0 || connect_any(c, fd) != 0) {
		if (fd >= 0 && (errno == ECONNREFUSED || errno == ENOENT))
			nobody_there(c, errno);
		else if (fd >= 0 && (errno == EACCES || errno == EPERM || errno == ENOTDIR))
			conn_over(c, SMEM_UNREACHABLE, strerrordesc_np(errno), false);
		else
			conn_retry(c); /* its queue is full, or descriptors are short here */
		return;
	}
	if (agent_cred(fd, &cred) && cred.uid == geteuid())
		say_hello(c, take_fd(&fd), cred.pid);
	else if (c->proven) /* the name of a dead process, taken by somebody else */
		conn_over(c, SMEM_PEER_LOST, "has died", true);
	else
		conn_over(c, SMEM_UNREACHABLE, "it belongs to another user", false);
}

void conn_start(void *arg)
{
	struct conn *c = arg;

	c->timer = event_new(loop_base(c->loop), -1, 0, on_timer, c);
	if (c->timer)
		conn_connect(c);
	else
		conn_over(c, SMEM_MALLOC_FAILED, "event", false);
}

void conn_arm(void *arg)
{
	struct agent_peer *w = arg;
	struct conn *c = w->conn;

	w->armed = c->state == CONN_OVER ? c->code : SMEM_OK;
	if (w->armed == SMEM_OK)
		DL_APPEND(c->watchers, w);
}

void conn_disarm(void *arg)
{
	struct agent_peer *w = arg;

	DL_DELETE(w->conn->watchers, w);
}

static void conn_stop(void *arg)
{
	struct conn *c = arg;

	close_socket(c);
	if (c->timer)
		event_free(c->timer);
	c->timer = NULL;
}

/* ---- elsewhere */

void conn_release(struct conn *c)
{
	struct conn *found = NULL;

	pthread_mutex_lock(&conns_lock);
	bool last = --c->refs == 0;
	HASH_FIND(hh, conns, c->addr.name, sizeof(c->addr.name), found);
	if (last && found == c)
		HASH_DEL(conns, c);
	pthread_mutex_unlock(&conns_lock);
	if (!last)
		return;
	loop_call(c->loop, conn_stop, c);
	loop_io_put(c->loop);
	pthread_mutex_destroy(&c->lock);
	pthread_cond_destroy(&c->cond);
	free(c);
}

static struct conn *conn_new(const struct agent_addr *addr, struct loop *loop)
{
	struct conn *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->addr = *addr;
	c->fd = -1;
	c->loop = loop;
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->cond, NULL);
	return c;
}

int32_t conn_find(const struct agent_addr *addr, struct conn **ret, bool *fresh)
{
	struct loop *loop;
	struct conn *c = NULL;
	int32_t r = loop_io_get(&loop);

	if (r != SMEM_OK)
		return r;
	pthread_mutex_lock(&conns_lock);
	HASH_FIND(hh, conns, addr->name, sizeof(addr->name), c);
	*fresh = !c;
	if (!c && (c = conn_new(addr, loop)))
		HASH_ADD(hh, conns, addr.name, sizeof(c->addr.name), c);
	if (c)
		c->refs++;
	pthread_mutex_unlock(&conns_lock);
	if (!*fresh || !c)
		loop_io_put(loop);
	*ret = c;
	return c ? SMEM_OK : smem_err(SMEM_MALLOC_FAILED, "connection to an agent");
}

int32_t conn_over_err(const struct conn *c, struct deadline deadline)
{
	return smem_err(c->code, "process %u of this host: %s (after %" PRIu64 " ms)",
			(unsigned)c->addr.pid, c->why, deadline_elapsed_ms(deadline));
}

int32_t conn_wait_up(struct conn *c, struct deadline deadline)
{
	struct timespec until = deadline_timespec(deadline);

	LOCKED(&c->lock);
	while (c->state != CONN_UP && c->state != CONN_OVER) {
		if (deadline_passed(deadline))
			return smem_err(SMEM_TIMEOUT,
					"agent of process %u of this host does not answer (after "
					"%" PRIu64 " ms)",
					(unsigned)c->addr.pid, deadline_elapsed_ms(deadline));
		pthread_cond_clockwait(&c->cond, &c->lock, CLOCK_MONOTONIC, &until);
	}
	return c->state == CONN_OVER ? conn_over_err(c, deadline) : SMEM_OK;
}

/* The events of the old connections point into the parent's epoll: they are left alone. */
static void fork_child(void)
{
	forgotten = conns;
	conns = NULL;
	pthread_mutex_init(&conns_lock, NULL);
}

static const struct fork_hooks hooks = {
    .order = FORK_ORDER_DEVICE,
    .child = fork_child,
};
FORK_HOOKS(hooks)
