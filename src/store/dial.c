/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connect, say HELLO, read WELCOME. The first bytes that come back tell what is at the other end:
 * our greeting, a TLS alert (it speaks TLS and we do not), or something else altogether.
 */
#include "store/dial.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/link.h"
#include "store/tls.h"
#include "util/cleanup.h"
#include "util/err.h"

#define WELCOME_MAX 4096u
#define TLS_ALERT   0x15

struct dial {
	struct dial_request q;
	struct net_addr addrs[NET_ADDRS_MAX];
	struct deadline end;
	size_t next; /* address to try next */
	struct bufferevent *bev;
	struct event *timer; /* the end of the present address */
	struct event *kick;  /* start the next address from the loop, not from inside a call */
	bool connected;
	bool encrypted;
	struct dial_result result; /* of the last address */
};

void dial_free(struct dial *d)
{
	if (!d)
		return;
	if (d->timer)
		event_free(d->timer);
	if (d->kick)
		event_free(d->kick);
	link_bev_free(d->bev);
	free(d);
}

static void finish(struct dial *d)
{
	struct dial_result r = d->result;
	void (*done)(void *arg, const struct dial_result *r) = d->q.done;
	void *arg = d->q.arg;

	dial_free(d);
	done(arg, &r);
}

/* This address is done for. */
static void fail(struct dial *d, int32_t code, bool final, const char *why)
{
	d->result.code = code;
	d->result.final = final;
	snprintf(d->result.text, sizeof(d->result.text), "%s", why);
	link_bev_free(d->bev);
	d->bev = NULL;
	d->connected = false;
	d->encrypted = false;
	if (final || d->next >= d->q.count)
		finish(d);
	else
		event_active(d->kick, EV_TIMEOUT, 0);
}

static void fail_errno(struct dial *d, int err)
{
	bool out = err == EMFILE || err == ENFILE; /* of descriptors */

	d->result.refused = err == ECONNREFUSED;
	fail(d, out ? SMEM_NEW_OBJECT_FAILED : SMEM_IO, out, evutil_socket_error_to_string(err));
}

static void welcome(struct dial *d, const uint8_t *data, size_t len)
{
	struct welcome w;
	char text[sizeof(d->result.text)];

	if (!welcome_decode(data, len, &w)) {
		fail(d, SMEM_IO, true, "the server there is not an smem config store");
		return;
	}
	if (w.code != SMEM_OK) {
		snprintf(text, sizeof(text), "%.*s", (int)w.text.len, (const char *)w.text.data);
		fail(d, w.code, true, text);
		return;
	}
	if (w.version < PROTO_VERSION_MIN || w.version > PROTO_VERSION) {
		fail(d, SMEM_NOT_SUPPORTED, true, "the store speaks another version");
		return;
	}
	evbuffer_drain(bufferevent_get_input(d->bev), FRAME_HEAD + len);
	bufferevent_setcb(d->bev, NULL, NULL, NULL, NULL);
	bufferevent_disable(d->bev, EV_READ);
	d->result.code = SMEM_OK;
	d->result.refused = false;
	d->result.bev = d->bev;
	d->result.welcome = w;
	d->result.addr = d->addrs[d->next - 1];
	d->bev = NULL;
	finish(d);
}

static void on_read(struct bufferevent *bev, void *arg)
{
	struct dial *d = arg;
	struct evbuffer *in = bufferevent_get_input(bev);
	size_t have = evbuffer_get_length(in);
	struct frame_head head;
	uint8_t first = 0;

	evbuffer_copyout(in, &first, 1);
	if (first == TLS_ALERT && have >= 2 && !d->q.tls) {
		fail(d, SMEM_SECURITY, true,
		     "the store there speaks TLS, this process does not: set "
		     "SMEM_CONF_STORE_TLS_INFO");
		return;
	}
	if (have < FRAME_HEAD)
		return;
	const uint8_t *bytes = evbuffer_pullup(in, FRAME_HEAD);
	if (!bytes || !frame_head_get(bytes, WELCOME_MAX, &head) || head.op != OP_WELCOME) {
		fail(d, SMEM_IO, true, "the server there is not an smem config store");
		return;
	}
	if (have < FRAME_HEAD + head.len)
		return;
	bytes = evbuffer_pullup(in, (ev_ssize_t)(FRAME_HEAD + head.len));
	if (!bytes)
		fail(d, SMEM_MALLOC_FAILED, false, "out of memory");
	else
		welcome(d, bytes + FRAME_HEAD, head.len);
}

static void on_event(struct bufferevent *bev, short what, void *arg);

/* The TCP connection stands: go on with TLS on the same socket. */
static void encrypt(struct dial *d)
{
	int fd = bufferevent_getfd(d->bev);

	bufferevent_setcb(d->bev, NULL, NULL, NULL, NULL);
	bufferevent_disable(d->bev, EV_READ | EV_WRITE);
	bufferevent_setfd(d->bev, -1);
	bufferevent_free(d->bev);
	d->encrypted = true;
	d->bev = tls_bev_new(d->q.tls, d->q.base, fd, false);
	if (!d->bev) {
		fd_close(&fd);
		fail(d, SMEM_MALLOC_FAILED, false, "out of memory");
		return;
	}
	bufferevent_setcb(d->bev, on_read, NULL, on_event, d);
	bufferevent_enable(d->bev, EV_READ | EV_WRITE);
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
	struct dial *d = arg;
	int err = errno;

	if ((what & BEV_EVENT_CONNECTED) && d->q.tls && !d->encrypted) {
		encrypt(d);
		return;
	}
	if (what & BEV_EVENT_CONNECTED) {
		struct blob *hello = hello_encode(&d->q.hello);
		d->connected = true;
		if (hello)
			link_write_plain(bev, OP_HELLO, hello);
		else
			fail(d, SMEM_MALLOC_FAILED, false, "out of memory");
		return;
	}
	char text[sizeof(d->result.text)];
	if (tls_bev_failure(bev, text, sizeof(text)) != TLS_NO_FAILURE) {
		fail(d, SMEM_SECURITY, true, text);
		return;
	}
	/* A refusal may have come right before the end. */
	size_t have = evbuffer_get_length(bufferevent_get_input(bev));
	if (have >= FRAME_HEAD)
		fail(d, SMEM_IO, true, "the server there is not an smem config store");
	else if (what & BEV_EVENT_EOF)
		fail(d, SMEM_IO, false, "the server closed the connection");
	else
		fail_errno(d, err);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct dial *d = arg;

	(void)fd;
	(void)what;
	fail(d, SMEM_IO, false,
	     d->connected ? "connected, but the server there does not answer"
			  : "no answer from that address");
}

/* A bufferevent on a new socket; NULL with errno. */
static struct bufferevent *bev_new(struct dial *d, const struct net_addr *a)
{
	auto_fd int fd =
	    fd_own(socket(a->sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));

	if (fd < 0)
		return NULL;
	net_tune(fd, net_is_loopback(a));
	struct bufferevent *bev = bufferevent_socket_new(d->q.base, fd, 0);
	if (bev)
		take_fd(&fd);
	else
		errno = ENOMEM;
	return bev;
}

/* An address that never answers leaves time for those after it. */
static void timer_start(struct dial *d)
{
	uint64_t ms = (uint64_t)deadline_left_ms(d->end) / (d->q.count - d->next + 1) + 1;
	struct timeval t = {.tv_sec = (time_t)(ms / 1000),
			    .tv_usec = (suseconds_t)(ms % 1000) * 1000};

	event_add(d->timer, &t);
}

static void try_next(evutil_socket_t fd, short what, void *arg)
{
	struct dial *d = arg;
	struct net_addr *a = &d->addrs[d->next++];

	(void)fd;
	(void)what;
	timer_start(d);
	d->bev = bev_new(d, a);
	if (!d->bev) {
		fail_errno(d, errno);
		return;
	}
	bufferevent_setcb(d->bev, on_read, NULL, on_event, d);
	bufferevent_enable(d->bev, EV_READ | EV_WRITE);
	if (bufferevent_socket_connect(d->bev, (struct sockaddr *)&a->sa, (int)a->len) != 0)
		fail_errno(d, errno);
}

struct dial *dial_start(const struct dial_request *q)
{
	struct dial *d = calloc(1, sizeof(*d));

	if (d) {
		d->end = deadline_in_ms(q->ms);
		d->q = *q;
		d->q.count = q->count < NET_ADDRS_MAX ? q->count : NET_ADDRS_MAX;
		memcpy(d->addrs, q->addrs, d->q.count * sizeof(d->addrs[0]));
		d->result.code = SMEM_IO;
		d->timer = evtimer_new(q->base, on_timer, d);
		d->kick = evtimer_new(q->base, try_next, d);
	}
	if (!d || !d->timer || !d->kick) {
		dial_free(d);
		return NULL;
	}
	event_active(d->kick, EV_TIMEOUT, 0);
	return d;
}
