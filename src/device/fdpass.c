/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The serving side of the agent; fdpass_peer.c is the asking side.
 *
 * Sockets, events and clients belong to the shared I/O loop's thread. The table of offers has a
 * lock of its own, because offers come from other threads; a descriptor is sent under that lock, so
 * that it cannot be closed, and its number reused, while it is on its way. A client is never waited
 * for: a request is a packet and so is the answer, and who does not read answers is cut.
 *
 * Process exit, however it comes, closes the sockets; that is the death notice. An orderly stop
 * says BYE first, which is none.
 */
#include "device/fdpass.h"

#include <dirent.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <uthash.h>
#include <utlist.h>

#include "device/fdpass_wire.h"
#include "util/cleanup.h"
#include "util/env.h"
#include "util/err.h"
#include "util/fork.h"
#include "util/limits.h"
#include "util/log.h"
#include "util/loop.h"

#define BACKLOG 4096
#define BURST	32 /* packets or connections taken per turn of the loop */
#define STALE_SECONDS                                                                              \
	10 /* a socket file nobody answers is older than that: its process was killed */
#define STALE_SCAN_MAX 256 /* files looked at when the agent starts */

struct offer {
	uint64_t object;
	uint8_t cookie[AGENT_COOKIE];
	int fd;
	size_t info_len;
	uint8_t info[AGENT_INFO];
	UT_hash_handle hh;
};

struct client {
	struct agent *agent;
	int fd;
	struct event *event;
	bool greeted;
	unsigned strikes;
	struct ucred cred;
	struct client *prev, *next;
};

struct listener {
	int fd;
	struct event *event;
};

struct agent {
	struct loop *loop;
	struct agent_addr addr;
	struct listener abstract;
	struct listener path;
	struct agent_sock path_sock;
	int spare_fd; /* given up for a moment to turn a connection away when descriptors run out */
	struct client *clients;
	unsigned client_count;
	int32_t failed; /* of start_on_loop() */
	struct agent
	    *older; /* of processes this one was forked from: kept reachable, never touched */
};

static pthread_mutex_t agent_lock = PTHREAD_MUTEX_INITIALIZER; /* never taken on the loop */
static struct agent *agent;
static struct agent *forgotten;
static unsigned agent_refs;

static pthread_mutex_t offers_lock = PTHREAD_MUTEX_INITIALIZER;
static struct offer *offers;
static struct offer *forgotten_offers; /* the parent's, maybe half changed: kept reachable only */

static void client_free(struct client *c)
{
	DL_DELETE(c->agent->clients, c);
	c->agent->client_count--;
	if (c->event)
		event_free(c->event);
	fd_close(&c->fd);
	free(c);
}

static void client_cut(struct client *c, const char *why)
{
	LOG_WARN("agent", "process %d (uid %u) cut off: %s", (int)c->cred.pid,
		 (unsigned)c->cred.uid, why);
	client_free(c);
}

/* In time that does not depend on where they differ. */
static bool cookie_equal(const uint8_t *a, const uint8_t *b)
{
	uint8_t diff = 0;

	for (size_t i = 0; i < AGENT_COOKIE; i++)
		diff |= a[i] ^ b[i];
	return diff == 0;
}

/* Answer a FETCH. Returns 0 or an errno of sending; *refused tells that it got nothing. */
static int answer(int fd, const struct agent_frame *q, bool *refused)
{
	struct agent_frame a = {.version = AGENT_VERSION,
				.type = AGENT_REPLY,
				.id = q->id,
				.object = q->object,
				.code = SMEM_OBJECT_NOT_EXISTS};
	struct offer *o = NULL;

	LOCKED(&offers_lock);
	HASH_FIND(hh, offers, &q->object, sizeof(q->object), o);
	if (o && cookie_equal(o->cookie, q->cookie)) {
		a.code = SMEM_OK;
		a.info_len = (uint32_t)o->info_len;
		memcpy(a.info, o->info, o->info_len);
	}
	*refused = a.code != SMEM_OK;
	return agent_frame_send(fd, &a, *refused ? -1 : o->fd);
}

static int greet(struct client *c, const struct agent_frame *q)
{
	struct agent_frame a = {
	    .version = AGENT_VERSION, .type = AGENT_HELLO, .info_len = sizeof(c->agent->addr.name)};

	if (q->info_len != sizeof(c->agent->addr.name) ||
	    memcmp(q->info, c->agent->addr.name, q->info_len) != 0)
		return EPROTO;
	memcpy(a.info, c->agent->addr.name, a.info_len);
	c->greeted = true;
	event_remove_timer(c->event); /* adding it anew would keep the time-out */
	return agent_frame_send(c->fd, &a, -1);
}

/* False when the client is gone. */
static bool client_frame(struct client *c, const struct agent_frame *q)
{
	bool refused = false;
	int err = EPROTO;

	if (!c->greeted && q->type == AGENT_HELLO)
		err = greet(c, q);
	else if (c->greeted && q->type == AGENT_FETCH)
		err = answer(c->fd, q, &refused);
	if (err != 0) {
		client_cut(c, err == EAGAIN   ? "it does not read its answers"
			      : err == EPROTO ? "not the agent's protocol"
					      : "sending failed");
		return false;
	}
	if (!refused)
		return true;
	LOG_WARN("agent",
		 "process %d (uid %u) asked for object %" PRIx64
		 ": not offered, or not under that cookie",
		 (int)c->cred.pid, (unsigned)c->cred.uid, q->object);
	if (++c->strikes < AGENT_STRIKES_MAX)
		return true;
	client_cut(c, "too many refused requests");
	return false;
}

static void on_client(evutil_socket_t fd, short what, void *arg)
{
	struct client *c = arg;
	struct agent_frame frames[2]; /* a packet that is too long shows */

	if (what & EV_TIMEOUT) {
		client_cut(c, "it did not say hello");
		return;
	}
	for (int i = 0; i < BURST; i++) {
		/* recv(), not recvmsg(): descriptors sent along are dropped by the kernel. */
		ssize_t n = recv(fd, frames, sizeof(frames), MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n <= 0) {
			client_free(c);
			return;
		}
		if (!agent_frame_ok(&frames[0], n)) {
			client_cut(c, "not the agent's protocol");
			return;
		}
		if (!client_frame(c, &frames[0]))
			return;
	}
}

static void client_new(struct agent *a, int fd)
{
	struct client *c = calloc(1, sizeof(*c));
	struct timeval hello = {.tv_sec = AGENT_HELLO_MS / 1000,
				.tv_usec = AGENT_HELLO_MS % 1000 * 1000};

	if (!c) {
		fd_close(&fd);
		return;
	}
	c->agent = a;
	c->fd = fd;
	DL_APPEND(a->clients, c);
	a->client_count++;
	if (!agent_cred(fd, &c->cred) || c->cred.uid != geteuid()) {
		client_cut(c, "of another user");
		return;
	}
	if (a->client_count > AGENT_CLIENTS_MAX) {
		client_cut(c, "too many connections");
		return;
	}
	c->event = event_new(loop_base(a->loop), fd, EV_READ | EV_PERSIST, on_client, c);
	if (!c->event || event_add(c->event, &hello) != 0)
		client_free(c);
}

static int spare_open(void)
{
	return fd_own(open("/dev/null", O_RDONLY | O_CLOEXEC));
}

/* Out of descriptors: without this the connection would stay in the queue and wake the loop for
 * ever. */
static void turn_away(struct agent *a, int listen_fd)
{
	fd_close(&a->spare_fd);
	int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd >= 0)
		close(fd);
	a->spare_fd = spare_open();
	LOG_WARN("agent", "no descriptor left for a connection; it was turned away");
}

static void on_listener(evutil_socket_t listen_fd, short what, void *arg)
{
	struct agent *a = arg;

	(void)what;
	for (int i = 0; i < BURST; i++) {
		int fd = fd_own(accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK));
		if (fd >= 0)
			client_new(a, fd);
		else if (errno == EMFILE || errno == ENFILE)
			turn_away(a, listen_fd);
		else if (errno != EINTR && errno != ECONNABORTED)
			return;
	}
}

static int32_t listen_at(struct listener *l, const struct agent_sock *sock)
{
	l->fd = agent_socket();
	if (l->fd < 0)
		return smem_errno(SMEM_NEW_OBJECT_FAILED, errno, "agent's socket");
	if (bind(l->fd, (const struct sockaddr *)&sock->sun, sock->len) != 0 ||
	    listen(l->fd, BACKLOG) != 0) {
		int err = errno;
		fd_close(&l->fd);
		return smem_errno(SMEM_NEW_OBJECT_FAILED, err, "agent's socket");
	}
	return SMEM_OK;
}

static bool nobody_answers(const struct sockaddr_un *sun)
{
	auto_fd int fd = agent_socket();

	return fd >= 0 && connect(fd, (const struct sockaddr *)sun, sizeof(*sun)) != 0 &&
	       errno == ECONNREFUSED;
}

/* Socket files of processes that were killed. */
static void remove_stale(const char *dir)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	struct dirent *e;
	struct stat st;
	DIR *d = opendir(dir);

	/* cppcheck-suppress readdirCalled ; one stream, one thread */
	for (int i = 0; d && i < STALE_SCAN_MAX && (e = readdir(d)); i++) {
		int n = snprintf(sun.sun_path, sizeof(sun.sun_path), "%s/%s", dir, e->d_name);
		if (strncmp(e->d_name, "smem-", 5) != 0 || n < 0 ||
		    (size_t)n >= sizeof(sun.sun_path))
			continue;
		if (stat(sun.sun_path, &st) == 0 && S_ISSOCK(st.st_mode) &&
		    st.st_uid == geteuid() && st.st_mtime + STALE_SECONDS < time(NULL) &&
		    nobody_answers(&sun))
			unlink(sun.sun_path);
	}
	if (d)
		closedir(d);
}

static void listen_at_path(struct agent *a)
{
	const char *dir = env_str(ENV_RUNTIME_DIR);

	if (dir[0] == '\0')
		return;
	if (!agent_sock_path(&a->addr, &a->path_sock)) {
		LOG_WARN("agent", "%s=%s ignored: too long for a socket's path",
			 env_entries[ENV_RUNTIME_DIR].name, dir);
		return;
	}
	remove_stale(dir);
	if (listen_at(&a->path, &a->path_sock) == SMEM_OK)
		a->addr.has_path = 1;
	else
		LOG_WARN("agent", "%s=%s ignored: %s", env_entries[ENV_RUNTIME_DIR].name, dir,
			 err_detail());
}

static int32_t listener_start(struct agent *a, struct listener *l)
{
	if (l->fd < 0)
		return SMEM_OK;
	l->event = event_new(loop_base(a->loop), l->fd, EV_READ | EV_PERSIST, on_listener, a);
	if (!l->event || event_add(l->event, NULL) != 0)
		return SMEM_MALLOC_FAILED;
	return SMEM_OK;
}

static void start_on_loop(void *arg)
{
	struct agent *a = arg;

	a->failed = listener_start(a, &a->abstract);
	if (a->failed == SMEM_OK)
		a->failed = listener_start(a, &a->path);
}

static void stop_on_loop(void *arg)
{
	struct agent *a = arg;
	struct agent_frame bye = {.version = AGENT_VERSION, .type = AGENT_BYE};

	if (a->abstract.event)
		event_free(a->abstract.event);
	if (a->path.event)
		event_free(a->path.event);
	struct client *c, *next;
	DL_FOREACH_SAFE(a->clients, c, next)
	{
		agent_frame_send(c->fd, &bye, -1);
		client_free(c);
	}
}

/* Any half-built agent. */
static void agent_free(struct agent *a)
{
	if (a->loop)
		loop_call(a->loop, stop_on_loop, a);
	fd_close(&a->abstract.fd);
	if (a->path.fd >= 0)
		unlink(a->path_sock.sun.sun_path);
	fd_close(&a->path.fd);
	fd_close(&a->spare_fd);
	loop_io_put(a->loop);
	free(a);
}

static int32_t agent_build(struct agent *a)
{
	struct agent_sock sock;
	int32_t r = agent_addr_make(&a->addr);

	if (r != SMEM_OK)
		return r;
	a->spare_fd = spare_open();
	agent_sock_abstract(&a->addr, &sock);
	r = listen_at(&a->abstract, &sock);
	if (r != SMEM_OK)
		return r;
	listen_at_path(a);
	r = loop_io_get(&a->loop);
	if (r != SMEM_OK)
		return r;
	loop_call(a->loop, start_on_loop, a);
	return a->failed ? smem_err(a->failed, "agent's events") : SMEM_OK;
}

int32_t agent_get(void)
{
	LOCKED(&agent_lock);
	if (!agent) {
		struct agent *a = calloc(1, sizeof(*a));
		if (!a)
			return smem_err(SMEM_MALLOC_FAILED, "agent");
		a->abstract.fd = a->path.fd = a->spare_fd = -1;
		int32_t r = agent_build(a);
		if (r != SMEM_OK) {
			agent_free(a);
			return r;
		}
		agent = a;
	}
	agent_refs++;
	return SMEM_OK;
}

void agent_put(void)
{
	LOCKED(&agent_lock);
	if (agent_refs == 0 || --agent_refs > 0)
		return;
	agent_free(agent);
	agent = NULL;
}

const struct agent_addr *agent_own(void)
{
	return &agent->addr;
}

int32_t agent_offer(uint64_t object, const uint8_t cookie[AGENT_COOKIE], int fd, const void *info,
		    size_t len)
{
	struct offer *o, *old = NULL;

	if (len > AGENT_INFO)
		return smem_err(SMEM_INVALID_PARAM,
				"%zu bytes of information on an object, most are %d", len,
				AGENT_INFO);
	o = calloc(1, sizeof(*o));
	if (!o)
		return smem_err(SMEM_MALLOC_FAILED, "offer of an object");
	o->object = object;
	memcpy(o->cookie, cookie, AGENT_COOKIE);
	o->fd = fd;
	o->info_len = len;
	if (len > 0)
		memcpy(o->info, info, len);
	LOCKED(&offers_lock);
	HASH_FIND(hh, offers, &object, sizeof(object), old);
	if (old) {
		free(o);
		return smem_err(SMEM_DUPLICATED_OBJECT, "object %" PRIx64 " is offered already",
				object);
	}
	HASH_ADD(hh, offers, object, sizeof(o->object), o);
	return SMEM_OK;
}

void agent_withdraw(uint64_t object)
{
	struct offer *o = NULL;

	LOCKED(&offers_lock);
	HASH_FIND(hh, offers, &object, sizeof(object), o);
	if (!o)
		return;
	HASH_DEL(offers, o);
	free(o);
}

/* The loop's half of the old agent must not be touched: its events point into the parent's epoll.
 */
static void fork_child(void)
{
	if (agent) {
		agent->older = forgotten;
		forgotten = agent;
	}
	agent = NULL;
	agent_refs = 0;
	forgotten_offers = offers;
	offers = NULL;
	pthread_mutex_init(&agent_lock, NULL);
	pthread_mutex_init(&offers_lock, NULL);
}

static const struct fork_hooks hooks = {
    .order = FORK_ORDER_DEVICE,
    .child = fork_child,
};
FORK_HOOKS(hooks)
