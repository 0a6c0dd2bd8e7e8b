/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One thread, one event base. A turn of the loop reads what has come on all connections (a bounded
 * amount of each, so nobody is starved), feeds it to the kv, and then, in the flush event that runs
 * behind the reads, writes what has been queued: everything for one client in one system call.
 *
 * Two timers: the kv's next deadline, and a tick for what is not exact to the millisecond
 * (greetings that do not come, grace after a broken connection, silent hosts, full queues). The
 * tick is short only while something like that is under way.
 */
#include "store/server.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <utlist.h>

#include "store/listen.h"
#include "store/net.h"
#include "store/server_int.h"
#include "store/tls.h"
#include "util/cleanup.h"
#include "util/err.h"
#include "util/fd.h"
#include "util/log.h"

#define ACCEPTS	  64 /* per turn */
#define SHORT_MS  50
#define LONG_MS	  NET_LOOK_MS
#define DRAIN_MS  1000
#define LOG_LINES 20 /* cut-offs told per second; a flood of them must not fill a disk */

static void timer_set(struct event *timer, uint64_t ms)
{
	struct timeval t = {.tv_sec = (time_t)(ms / 1000),
			    .tv_usec = (suseconds_t)(ms % 1000) * 1000};

	event_add(timer, &t);
}

void server_hurry(struct server *s)
{
	if (s->hurried)
		return;
	s->hurried = true;
	timer_set(s->tick, SHORT_MS);
}

void server_cut_log(struct server *s, const char *peer, const char *why)
{
	uint64_t second = clock_ns() / NS_PER_S;

	if (second != s->log_second) {
		if (s->log_dropped)
			LOG_WARN("store", "%s: %u more clients were cut off", s->url.text,
				 s->log_dropped);
		s->log_second = second;
		s->log_lines = 0;
		s->log_dropped = 0;
	}
	if (s->log_lines++ < LOG_LINES)
		LOG_WARN("store", "%s: client %s cut off: %s", s->url.text, peer, why);
	else
		s->log_dropped++;
}

void server_left(struct server *s)
{
	s->count--;
	if (!s->stopping || s->conns || s->sessions)
		return;
	pthread_mutex_lock(&s->lock);
	s->gone = true;
	pthread_cond_signal(&s->cond);
	pthread_mutex_unlock(&s->lock);
}

/* ---- accepting ---- */

static void conn_read(struct bufferevent *bev, void *arg)
{
	(void)bev;
	session_greet(arg);
}

static void drain_read(struct bufferevent *bev, void *arg)
{
	struct evbuffer *in = bufferevent_get_input(bev);

	(void)arg;
	evbuffer_drain(in, evbuffer_get_length(in));
}

static void drain_event(struct bufferevent *bev, short what, void *arg)
{
	(void)bev;
	(void)what;
	conn_free(arg);
}

/*
 * TLS failed and an alert is on its way (or none, for who does not speak it): closing with bytes
 * unread would reset the connection and take the alert away from the peer. Read on, into nothing,
 * until it has closed or a moment is over.
 */
static void conn_drain(struct conn *c, bool alien)
{
	int fd = fd_own(fcntl(bufferevent_getfd(c->bev), F_DUPFD_CLOEXEC, 0));

	link_bev_free(c->bev);
	c->bev = fd < 0 ? NULL : bufferevent_socket_new(loop_base(c->server->loop), fd, 0);
	if (!c->bev) {
		fd_close(&fd);
		conn_free(c);
		return;
	}
	if (alien && send(fd, TLS_PLAIN_ALERT, sizeof(TLS_PLAIN_ALERT) - 1, MSG_NOSIGNAL) < 0)
		LOG_DEBUG("store", "%s: no alert for %s", c->server->url.text, c->peer);
	shutdown(fd, SHUT_WR);
	c->draining = true;
	c->born = clock_ns();
	bufferevent_setcb(c->bev, drain_read, NULL, drain_event, c);
	bufferevent_enable(c->bev, EV_READ);
}

static void conn_event(struct bufferevent *bev, short what, void *arg)
{
	struct conn *c = arg;
	char text[256];

	if (!(what & (BEV_EVENT_EOF | BEV_EVENT_ERROR)))
		return;
	enum tls_failure failure = tls_bev_failure(bev, text, sizeof(text));
	if (failure != TLS_NO_FAILURE) {
		server_cut_log(c->server, c->peer, text);
		conn_drain(c, failure == TLS_ALIEN);
		return;
	}
	LOG_DEBUG("store", "%s: %s went away before it said hello", c->server->url.text, c->peer);
	conn_free(c);
}

static void conn_new(struct server *s, int fd, const struct net_addr *from)
{
	struct conn *c = calloc(1, sizeof(*c));

	if (c)
		c->bev = s->tls ? tls_bev_new(s->tls, loop_base(s->loop), fd, true)
				: bufferevent_socket_new(loop_base(s->loop), fd, 0);
	if (!c || !c->bev) {
		LOG_WARN("store", "%s: out of memory for a connection", s->url.text);
		free(c);
		fd_close(&fd);
		return;
	}
	c->server = s;
	c->born = clock_ns();
	c->loopback = net_is_loopback(from);
	net_text(from, c->peer, sizeof(c->peer));
	net_tune(fd, c->loopback);
	bufferevent_setcb(c->bev, conn_read, NULL, conn_event, c);
	bufferevent_enable(c->bev, EV_READ | EV_WRITE);
	DL_APPEND(s->conns, c);
	s->count++;
	server_hurry(s);
}

static void accept_failed(struct server *s, int err)
{
	if (err != EMFILE && err != ENFILE && err != ENOBUFS && err != ENOMEM)
		return; /* nobody there any more, or that connection broke */
	if (!s->full)
		LOG_WARN("store", "%s: cannot accept more clients: errno %d; trying again",
			 s->url.text, err);
	s->full = true;
	event_del(s->accepting);
	server_hurry(s);
}

static void on_accept(evutil_socket_t fd, short what, void *arg)
{
	struct server *s = arg;

	(void)what;
	for (int i = 0; i < ACCEPTS; i++) {
		struct net_addr from = {.len = sizeof(from.sa)};
		int got = fd_own(accept4(fd, (struct sockaddr *)&from.sa, &from.len,
					 SOCK_CLOEXEC | SOCK_NONBLOCK));
		if (got < 0) {
			accept_failed(s, errno);
			return;
		}
		s->full = false;
		if (s->count < STORE_CLIENTS_MAX) {
			conn_new(s, got, &from);
			continue;
		}
		fd_close(&got);
		server_cut_log(s, "beyond the limit", "too many clients");
	}
}

/* ---- timers ---- */

static void kv_arm(struct server *s)
{
	uint64_t due = kv_due(s->kv);

	if (due == s->due_at)
		return;
	s->due_at = due;
	if (due == UINT64_MAX) {
		event_del(s->due);
		return;
	}
	uint64_t now = clock_ns();
	timer_set(s->due, due > now ? (due - now + NS_PER_MS - 1) / NS_PER_MS : 0);
}

static void on_due(evutil_socket_t fd, short what, void *arg)
{
	struct server *s = arg;

	(void)fd;
	(void)what;
	s->due_at = 0;
	kv_tick(s->kv, clock_ns());
	event_active(s->flush, EV_TIMEOUT, 0);
}

static void on_flush(evutil_socket_t fd, short what, void *arg)
{
	struct server *s = arg;

	(void)fd;
	(void)what;
	while (s->dirty) {
		struct session *d = s->dirty;
		s->dirty = d->next_dirty;
		d->dirty = false;
		session_flush(d);
	}
	kv_arm(s);
}

/* All queues together have a limit; beyond it the longest one goes. */
static void queues_look(struct server *s)
{
	struct session *i, *longest = NULL;
	size_t total = 0;

	DL_FOREACH(s->sessions, i)
	{
		total += i->link.queued;
		if (!longest || i->link.queued > longest->link.queued)
			longest = i;
	}
	if (total > STORE_QUEUE_MAX)
		session_cut(longest, "the queues of all clients are too long, its is the longest");
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	struct server *s = arg;
	uint64_t now = clock_ns();
	struct session *i, *tmp;
	struct conn *c, *ctmp;

	(void)fd;
	(void)what;
	bool look = now - s->looked >= (NET_LOOK_MS - SHORT_MS / 2) * NS_PER_MS;
	s->looked = look ? now : s->looked;
	s->hurried = false;
	DL_FOREACH_SAFE(s->conns, c, ctmp)
	{
		if (now - c->born <= (c->draining ? DRAIN_MS : STORE_HELLO_MS) * NS_PER_MS)
			continue;
		if (!c->draining)
			server_cut_log(s, c->peer, "it did not say hello in time");
		conn_free(c);
	}
	DL_FOREACH_SAFE(s->sessions, i, tmp)
	session_tick(i, now, look);
	queues_look(s);
	if (s->full && !s->stopping && event_add(s->accepting, NULL) == 0)
		server_hurry(s);
	if (s->conns)
		server_hurry(s);
	if (!s->hurried)
		timer_set(s->tick, LONG_MS);
	event_active(s->flush, EV_TIMEOUT, 0);
}

/* ---- life ---- */

struct starting {
	struct server *s;
	bool ok;
};

static void server_begin(void *arg)
{
	struct starting *start = arg;
	struct server *s = start->s;
	struct event_base *base = loop_base(s->loop);

	s->accepting = event_new(base, s->fd, EV_READ | EV_PERSIST, on_accept, s);
	s->flush = event_new(base, -1, 0, on_flush, s);
	s->due = event_new(base, -1, 0, on_due, s);
	s->tick = event_new(base, -1, 0, on_tick, s);
	start->ok =
	    s->accepting && s->flush && s->due && s->tick && event_add(s->accepting, NULL) == 0;
	if (start->ok)
		timer_set(s->tick, LONG_MS);
}

static void event_drop(struct event **ev)
{
	if (*ev)
		event_free(*ev);
	*ev = NULL;
}

/* The listening socket goes at once, and with it those that are not clients yet. */
static void stop_listening(void *arg)
{
	struct server *s = arg;

	event_drop(&s->accepting);
	fd_close(&s->fd);
	s->stopping = true;
	s->count++; /* for server_left(), which tells when nobody is there */
	while (s->conns)
		conn_free(s->conns);
	server_left(s);
}

static void server_end(void *arg)
{
	struct server *s = arg;

	while (s->conns)
		conn_free(s->conns);
	while (s->sessions)
		session_free(s->sessions, false);
	event_drop(&s->accepting);
	event_drop(&s->flush);
	event_drop(&s->due);
	event_drop(&s->tick);
}

static void server_free(struct server *s)
{
	if (s->loop)
		loop_call(s->loop, server_end, s);
	loop_destroy(s->loop);
	kv_destroy(s->kv);
	fd_close(&s->fd);
	pthread_mutex_destroy(&s->lock);
	pthread_cond_destroy(&s->cond);
	free(s);
}

static int32_t server_build(struct server *s, struct deadline retry)
{
	struct starting start = {.s = s};

	int32_t r = listen_open(&s->url, retry, &s->fd);
	if (r == SMEM_OK)
		r = kv_create(session_send, &s->kv);
	if (r == SMEM_OK)
		r = loop_create("smem-store", &s->loop);
	if (r != SMEM_OK)
		return r;
	loop_call(s->loop, server_begin, &start);
	return start.ok ? SMEM_OK : smem_err(SMEM_MALLOC_FAILED, "config store %s", s->url.text);
}

int32_t server_start(const struct store_url *url, struct tls *tls, struct deadline retry,
		     struct server **ret)
{
	struct server *s = calloc(1, sizeof(*s));

	if (!s)
		return smem_err(SMEM_MALLOC_FAILED, "config store %s", url->text);
	s->url = *url;
	s->tls = tls;
	s->fd = -1;
	s->due_at = UINT64_MAX;
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->cond, NULL);
	int32_t r = server_build(s, retry);
	if (r != SMEM_OK) {
		server_free(s);
		return r;
	}
	LOG_INFO("store", "%s: listening", url->text);
	*ret = s;
	return SMEM_OK;
}

void server_stop(struct server *s, uint32_t linger_ms)
{
	if (!s)
		return;
	struct timespec until = deadline_timespec(deadline_in_ms(linger_ms));
	loop_call(s->loop, stop_listening, s);
	pthread_mutex_lock(&s->lock);
	while (!s->gone && pthread_cond_clockwait(&s->cond, &s->lock, CLOCK_MONOTONIC, &until) == 0)
		;
	bool gone = s->gone;
	pthread_mutex_unlock(&s->lock);
	if (!gone)
		LOG_INFO("store", "%s: closed with clients", s->url.text);
	server_free(s);
}
