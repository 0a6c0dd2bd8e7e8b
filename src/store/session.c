/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A session is a client as the server sees it: made by a hello, kept through a broken connection
 * for the grace time, ended by a good-bye or a loss. Whatever a client does wrong ends its session
 * with one log line. A client that does not take its replies is not read any further, so its own
 * requests cannot fill its queue; only what others cause can, up to a limit.
 */
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "store/net.h"
#include "store/server_int.h"
#include "util/err.h"
#include "util/log.h"
#include "util/rng.h"

#define HELLO_MAX     4096u
#define ENDED_MS      1000 /* to take the last reply */
#define TLS_HANDSHAKE 0x16

static void clean_dirty(struct session *s)
{
	struct session **p = &s->server->dirty;

	while (s->dirty && *p) {
		if (*p == s) {
			*p = s->next_dirty;
			s->dirty = false;
			return;
		}
		p = &(*p)->next_dirty;
	}
}

void session_free(struct session *s, bool lost)
{
	struct server *server = s->server;

	if (s->client)
		kv_client_gone(server->kv, s->client, lost, clock_ns());
	clean_dirty(s);
	link_deinit(&s->link);
	DL_DELETE(server->sessions, s);
	free(s);
	server_left(server);
	event_active(server->flush, EV_TIMEOUT, 0);
}

void session_cut(struct session *s, const char *why)
{
	server_cut_log(s->server, s->peer, why);
	session_free(s, true);
}

static void make_dirty(struct session *s)
{
	if (s->dirty)
		return;
	s->dirty = true;
	s->next_dirty = s->server->dirty;
	s->server->dirty = s;
	event_active(s->server->flush, EV_TIMEOUT, 0);
}

void session_send(void *peer, uint16_t op, uint64_t id, struct blob *body)
{
	struct session *s = peer;

	if (!link_send(&s->link, op, id, body) && !s->doomed) {
		s->doomed = "it does not take what is sent to it";
		make_dirty(s);
	}
}

/* Reading goes on only while the client takes its replies. */
static void hold_or_read(struct session *s)
{
	size_t unsent = s->link.unsent_bytes;

	if (!s->link.bev)
		return;
	if (!s->held && unsent > STORE_CLIENT_BACKLOG) {
		s->held = true;
		bufferevent_disable(s->link.bev, EV_READ);
	} else if (s->held && unsent <= STORE_CLIENT_BACKLOG / 2) {
		s->held = false;
		bufferevent_enable(s->link.bev, EV_READ);
	}
}

void session_flush(struct session *s)
{
	if (s->doomed) {
		session_cut(s, s->doomed);
		return;
	}
	link_flush(&s->link);
	hold_or_read(s);
}

static void good_bye(struct session *s, uint64_t id)
{
	struct writer w = {.blob = NULL};

	kv_client_gone(s->server->kv, s->client, false, clock_ns());
	s->client = NULL;
	s->since = clock_ns();
	write_u32(&w, 0);
	write_span(&w, (struct span){NULL, 0});
	session_send(s, OP_REPLY, id, writer_done(&w));
	server_hurry(s->server);
}

static const char *on_frame(void *arg, const struct frame_head *head, const uint8_t *data)
{
	struct session *s = arg;
	struct request req = {.id = head->id};

	if (!s->client)
		return "it speaks after its good-bye";
	if (!request_decode(head->op, data, head->len, &req))
		return "it sent a malformed request";
	if (req.op == OP_BYE) {
		good_bye(s, req.id);
		return NULL;
	}
	return kv_request(s->server->kv, s->client, &req, clock_ns());
}

static void on_down(void *arg, bool broken, const char *why)
{
	struct session *s = arg;

	if (broken) {
		session_cut(s, why);
		return;
	}
	if (!s->client) {
		session_free(s, false);
		return;
	}
	LOG_DEBUG("store", "%s: connection of %s broke: %s", s->server->url.text, s->peer, why);
	link_detach(&s->link);
	s->held = false;
	s->since = clock_ns();
	kv_client_detached(s->server->kv, s->client, true, s->since);
	server_hurry(s->server);
}

static void on_dirty(void *arg)
{
	make_dirty(arg);
}

static void on_sent(void *arg)
{
	hold_or_read(arg);
}

static const struct link_ops link_ops = {
    .frame = on_frame, .down = on_down, .dirty = on_dirty, .sent = on_sent, .longest = request_max};

/* A part of a frame that does not go on. */
static bool stuck(struct session *s, uint64_t now)
{
	struct evbuffer *in = bufferevent_get_input(s->link.bev);

	if (s->held || evbuffer_get_length(in) == 0 || s->seen != s->link.received || !s->stuck)
		s->stuck = now;
	s->seen = s->link.received;
	return now - s->stuck > STORE_FRAME_MS * NS_PER_MS;
}

void session_tick(struct session *s, uint64_t now, bool look)
{
	struct server *server = s->server;

	if (!s->client) {
		bool out = !s->link.unsent && s->link.bev &&
			   evbuffer_get_length(bufferevent_get_output(s->link.bev)) == 0;
		if (!s->link.bev || (out && server->stopping) ||
		    now - s->since > ENDED_MS * NS_PER_MS)
			session_free(s, false);
		else
			server_hurry(server);
	} else if (!s->link.bev) {
		if (now - s->since > STORE_GRACE_MS * NS_PER_MS) {
			LOG_INFO("store", "%s: client %s is lost", server->url.text, s->peer);
			session_free(s, true);
		} else {
			server_hurry(server);
		}
	} else if (stuck(s, now)) {
		session_cut(s, "it does not finish a frame");
	} else if (look && !s->loopback &&
		   net_silent(bufferevent_getfd(s->link.bev), now, &s->silent)) {
		LOG_INFO("store", "%s: the host of client %s is silent: lost", server->url.text,
			 s->peer);
		session_free(s, true);
	}
}

/* ---- greeting ---- */

void conn_free(struct conn *c)
{
	struct server *server = c->server;

	link_bev_free(c->bev);
	DL_DELETE(server->conns, c);
	free(c);
	server_left(server);
}

static void refuse_out(struct bufferevent *bev, void *arg)
{
	(void)bev;
	conn_free(arg);
}

static void refuse_failed(struct bufferevent *bev, short what, void *arg)
{
	(void)what;
	refuse_out(bev, arg);
}

/* Tell why, then close: the tick closes what does not take even that. */
static void refuse(struct conn *c, int32_t code, const char *text)
{
	struct blob *body = welcome_encode(&(struct welcome){
	    .code = code, .version = PROTO_VERSION, .text = {(const uint8_t *)text, strlen(text)}});

	if (!body) {
		conn_free(c);
		return;
	}
	bufferevent_disable(c->bev, EV_READ);
	bufferevent_setcb(c->bev, NULL, refuse_out, refuse_failed, c);
	link_write_plain(c->bev, OP_WELCOME, body);
}

static void cut(struct conn *c, const char *why)
{
	server_cut_log(c->server, c->peer, why);
	conn_free(c);
}

static struct session *session_new(struct conn *c, const struct hello *h)
{
	struct session *s = calloc(1, sizeof(*s));

	if (!s || rng_bytes(s->token, TOKEN_LEN) != SMEM_OK) {
		free(s);
		return NULL;
	}
	s->server = c->server;
	s->client_id = h->client_id;
	s->client = kv_client_add(c->server->kv, s);
	if (!s->client) {
		free(s);
		return NULL;
	}
	link_init(&s->link, &link_ops, s, STORE_SET_REQUEST_MAX, STORE_CLIENT_QUEUE_MAX);
	DL_APPEND(c->server->sessions, s);
	c->server->count++;
	return s;
}

static struct session *session_find(struct server *server, const struct hello *h)
{
	struct session *s;

	DL_FOREACH(server->sessions, s)
	{
		if (s->client && s->client_id == h->client_id &&
		    memcmp(s->token, h->token, TOKEN_LEN) == 0)
			return s;
	}
	return NULL;
}

static void welcome(struct conn *c, struct session *s, const struct hello *h)
{
	uint32_t version = h->version_max < PROTO_VERSION ? h->version_max : PROTO_VERSION;
	struct welcome w = {.version = version, .resumed = h->resume, .received = s->link.received};
	struct bufferevent *bev = c->bev;

	memcpy(w.token, s->token, TOKEN_LEN);
	struct blob *body = welcome_encode(&w);
	if (!body) {
		conn_free(c);
		return;
	}
	snprintf(s->peer, sizeof(s->peer), "%s", c->peer);
	s->loopback = c->loopback;
	s->silent = 0;
	s->held = false;
	link_write_plain(bev, OP_WELCOME, body);
	if (!link_attach(&s->link, bev, h->received)) {
		cut(c, "it acknowledged what it was not sent");
		return;
	}
	c->bev = NULL; /* the link's now */
	conn_free(c);
	kv_client_about(s->client, s->peer, version);
	if (h->resume)
		kv_client_detached(s->server->kv, s->client, false, clock_ns());
	event_active(s->server->flush, EV_TIMEOUT, 0);
}

static void greet(struct conn *c, const struct hello *h)
{
	struct session *s;

	if (h->version_max < PROTO_VERSION_MIN || h->version_min > PROTO_VERSION) {
		LOG_WARN("store", "%s: client %s speaks versions %u to %u, not %u to %u",
			 c->server->url.text, c->peer, h->version_min, h->version_max,
			 PROTO_VERSION_MIN, PROTO_VERSION);
		refuse(c, SMEM_NOT_SUPPORTED, "the store speaks another version of the protocol");
		return;
	}
	s = h->resume ? session_find(c->server, h) : session_new(c, h);
	if (s)
		welcome(c, s, h);
	else if (h->resume)
		refuse(c, SMEM_UNREACHABLE, "the store does not know this process any more");
	else
		refuse(c, SMEM_MALLOC_FAILED, "the store is out of memory");
}

void session_greet(struct conn *c)
{
	struct evbuffer *in = bufferevent_get_input(c->bev);
	size_t have = evbuffer_get_length(in);
	struct frame_head head;
	struct hello hello;
	uint8_t first = 0;

	evbuffer_copyout(in, &first, 1);
	if (first == TLS_HANDSHAKE && !c->server->tls) {
		server_cut_log(c->server, c->peer, "it speaks TLS, this store does not");
		refuse(c, SMEM_SECURITY, "the store does not speak TLS");
		return;
	}
	if (have < FRAME_HEAD)
		return;
	uint8_t *data = evbuffer_pullup(in, FRAME_HEAD);
	if (!data || !frame_head_get(data, HELLO_MAX, &head) || head.op != OP_HELLO) {
		cut(c, "it did not begin with a hello");
		return;
	}
	if (have < FRAME_HEAD + head.len)
		return;
	data = evbuffer_pullup(in, (ev_ssize_t)(FRAME_HEAD + head.len));
	if (!data || !hello_decode(data + FRAME_HEAD, head.len, &hello)) {
		cut(c, "its hello is malformed");
		return;
	}
	evbuffer_drain(in, FRAME_HEAD + head.len);
	greet(c, &hello);
}
