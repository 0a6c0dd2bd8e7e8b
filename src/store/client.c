/* SPDX-License-Identifier: Apache-2.0 */
/*
 * States: DIALING (the first connection, driven attempt by attempt by client_open), UP, AGAIN (the
 * connection broke; redialing the same address for a moment), LOST (final). The link keeps
 * unacknowledged frames across AGAIN, so callers notice nothing of a broken connection but time.
 *
 * A broken connection whose address then refuses means that the store's process is gone: LOST at
 * once. Anything else is tried again for AGAIN_MS; a server that has forgotten the session, or
 * another server at that address, is LOST as well.
 *
 * A call is on its caller's stack. It leaves the client's list, on the loop, before its caller goes
 * on: by a reply, by loss, by a wake, or by the caller's own cancelling after its deadline.
 */
#include "store/client_int.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "store/dial.h"
#include "store/tls.h"
#include "util/cleanup.h"
#include "util/err.h"
#include "util/limits.h"
#include "util/log.h"
#include "util/rng.h"

#define AGAIN_MS                                                                                   \
	1000 /* more than the server's grace: who is not back by then is lost there too            \
	      */
#define GOODBYE_MS 1000
#define KEEP_MAX   (256u << 20)

static void again_start(struct client *c, const char *why);

void client_lose(struct client *c, const char *cause)
{
	struct call *call, *tmp;
	struct listener *l, *ltmp;
	char text[400];

	if (c->state == LOST)
		return;
	atomic_store(&c->state, LOST);
	snprintf(c->cause, sizeof(c->cause), "%s", cause);
	event_del(c->timer);
	dial_free(c->dial);
	c->dial = NULL;
	link_detach(&c->link);
	LOG_WARN("store", "connection to %s lost: %s", c->url->text, c->cause);
	snprintf(text, sizeof(text), "connection to the config store %.200s lost: %.150s",
		 c->url->text, c->cause);
	DL_FOREACH_SAFE(c->calls, call, tmp)
	client_call_end(c, call, SMEM_UNREACHABLE, text, strlen(text));
	DL_FOREACH_SAFE(c->listeners, l, ltmp)
	l->closed(l);
}

static const char *take_reply(struct client *c, const struct frame_head *head, const uint8_t *data)
{
	struct reader r = reader_of(data, head->len);
	int32_t code = (int32_t)read_u32(&r);
	struct span text = read_span(&r);
	struct call *call;

	if (r.failed)
		return "a malformed reply";
	DL_SEARCH_SCALAR(c->calls, call, req.id, head->id);
	if (!call)
		return NULL; /* cancelled meanwhile */
	size_t rest = (size_t)(r.end - r.at);
	if (rest > 0) {
		call->body = malloc(rest);
		if (!call->body) {
			static const char oom[] = "reply of the config store";
			client_call_end(c, call, SMEM_MALLOC_FAILED, oom, sizeof(oom) - 1);
			return NULL;
		}
		memcpy(call->body, r.at, rest);
		call->body_len = rest;
	}
	client_call_end(c, call, code, (const char *)text.data, text.len);
	return NULL;
}

static const char *on_frame(void *arg, const struct frame_head *head, const uint8_t *data)
{
	struct client *c = arg;
	struct listener *l, *tmp;

	switch (head->op) {
	case OP_REPLY:
		return take_reply(c, head, data);
	case OP_EVENTS:
	case OP_WATCHED:
		DL_FOREACH_SAFE(c->listeners, l, tmp)
		{
			if (l->id == head->id && l->op == head->op) {
				l->push(l, data, head->len);
				break;
			}
		}
		return NULL;
	case OP_ASKED:
		return client_answer(c, head->id, data, head->len)
			   ? NULL
			   : "it does not read what is sent";
	default:
		return "an unknown frame";
	}
}

static void on_down(void *arg, bool broken, const char *why)
{
	struct client *c = arg;

	link_detach(&c->link);
	if (broken)
		client_lose(c, why);
	else
		again_start(c, why);
}

static const struct link_ops link_ops = {.frame = on_frame, .down = on_down};

/* ---- dialing ---- */

static struct hello hello_of(const struct client *c, bool resume)
{
	struct hello h = {.client_id = c->id,
			  .version_min = PROTO_VERSION_MIN,
			  .version_max = PROTO_VERSION,
			  .resume = resume,
			  .received = c->link.received};

	memcpy(h.token, c->token, TOKEN_LEN);
	return h;
}

static void timer_in(struct client *c, unsigned ms)
{
	struct timeval t = {.tv_sec = ms / 1000, .tv_usec = (suseconds_t)(ms % 1000) * 1000};

	event_add(c->timer, &t);
}

static void go_up(struct client *c, struct bufferevent *bev, const struct welcome *w)
{
	int fd = bufferevent_getfd(bev);

	memcpy(c->token, w->token, TOKEN_LEN);
	atomic_store(&c->version, w->version);
	c->silent_since = 0;
	c->local_len = sizeof(c->local);
	if (getsockname(fd, (struct sockaddr *)&c->local, &c->local_len) != 0)
		c->local_len = 0;
	atomic_store(&c->state, UP);
	if (!net_is_loopback(&c->peer))
		timer_in(c, NET_LOOK_MS);
	if (!link_attach(&c->link, bev, w->received)) {
		link_bev_free(bev);
		client_lose(c, "it acknowledges what was never sent");
	}
}

static void tell_result(struct client *c, int32_t code, bool final, const char *text)
{
	pthread_mutex_lock(&c->lock);
	c->result = code;
	c->result_final = final;
	snprintf(c->result_text, sizeof(c->result_text), "%s", text);
	c->result_ready = true;
	pthread_cond_signal(&c->cond);
	pthread_mutex_unlock(&c->lock);
}

/* The outcome of the first connection's attempt. */
static void dialed_first(struct client *c, const struct dial_result *r)
{
	if (r->code == SMEM_OK) {
		c->peer = r->addr;
		go_up(c, r->bev, &r->welcome);
	}
	tell_result(c, r->code, r->final, r->text);
}

static void dialed_again(struct client *c, const struct dial_result *r)
{
	if (r->code == SMEM_OK && !r->welcome.resumed) {
		link_bev_free(r->bev);
		client_lose(c, "it has forgotten this process, or is another store");
	} else if (r->code == SMEM_OK) {
		LOG_INFO("store", "connection to %s is back", c->url->text);
		go_up(c, r->bev, &r->welcome);
	} else if (r->final || r->refused || deadline_passed(c->again)) {
		client_lose(c, r->text);
	} else {
		timer_in(c, c->pause_ms);
		c->pause_ms *= 2;
	}
}

static void on_dialed(void *arg, const struct dial_result *r)
{
	struct client *c = arg;

	c->dial = NULL;
	if (c->state == DIALING)
		dialed_first(c, r);
	else
		dialed_again(c, r);
}

static void dial_now(struct client *c, const struct net_addr *addrs, size_t n, unsigned ms,
		     bool resume)
{
	struct dial_request q = {.base = loop_base(c->loop),
				 .tls = c->tls,
				 .addrs = addrs,
				 .count = n,
				 .ms = ms,
				 .hello = hello_of(c, resume),
				 .done = on_dialed,
				 .arg = c};

	c->dial = dial_start(&q);
	if (!c->dial) {
		struct dial_result r = {.code = SMEM_MALLOC_FAILED, .text = "out of memory"};
		on_dialed(c, &r);
	}
}

static void again_dial(struct client *c)
{
	int left = deadline_left_ms(c->again);

	dial_now(c, &c->peer, 1, left > 0 ? (unsigned)left : 1, true);
}

static void again_start(struct client *c, const char *why)
{
	LOG_INFO("store", "connection to %s broke: %s; trying again", c->url->text, why);
	atomic_store(&c->state, AGAIN);
	c->again = deadline_in_ms(AGAIN_MS);
	c->pause_ms = 20;
	again_dial(c);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct client *c = arg;

	(void)fd;
	(void)what;
	if (c->state == AGAIN) {
		again_dial(c);
		return;
	}
	if (c->state != UP)
		return;
	if (net_silent(bufferevent_getfd(c->link.bev), clock_ns(), &c->silent_since))
		client_lose(c, "its host is silent");
	else
		timer_in(c, NET_LOOK_MS);
}

/* ---- the first connection, on the caller's thread ---- */

struct attempt {
	struct client *client;
	struct net_addr addrs[NET_ADDRS_MAX];
	size_t count;
	unsigned ms;
};

static void attempt_start(void *arg)
{
	struct attempt *a = arg;

	dial_now(a->client, a->addrs, a->count, a->ms, false);
}

static void attempt_stop(void *arg)
{
	struct client *c = arg;

	dial_free(c->dial);
	c->dial = NULL;
}

/* One attempt: resolve, dial, wait. Records the error; *final: do not try again. */
static int32_t attempt(struct client *c, struct deadline deadline, bool *final)
{
	struct attempt a = {.client = c};
	struct timespec until = deadline_timespec(deadline);

	*final = false;
	int32_t r = net_resolve(c->url, true, deadline, a.addrs, &a.count);
	if (r != SMEM_OK)
		return r;
	int left = deadline_left_ms(deadline);
	a.ms = left > 0 ? (unsigned)left : 1;
	c->result_ready = false;
	loop_call(c->loop, attempt_start, &a);
	pthread_mutex_lock(&c->lock);
	while (!c->result_ready && !deadline_passed(deadline))
		pthread_cond_clockwait(&c->cond, &c->lock, CLOCK_MONOTONIC, &until);
	bool ready = c->result_ready;
	pthread_mutex_unlock(&c->lock);
	if (!ready)
		loop_call(c->loop, attempt_stop, c);
	if (!c->result_ready)
		return smem_err(SMEM_TIMEOUT, "no answer");
	*final = c->result_final;
	return c->result == SMEM_OK ? SMEM_OK : smem_err(c->result, "%s", c->result_text);
}

/* Wait for a pause of 4.2 in the specification. */
static void pause_ms(struct client *c, unsigned ms, struct deadline deadline)
{
	struct deadline end = deadline_in_ms(ms);
	struct timespec until = deadline_timespec(end.end < deadline.end ? end : deadline);

	pthread_mutex_lock(&c->lock);
	while (pthread_cond_clockwait(&c->cond, &c->lock, CLOCK_MONOTONIC, &until) == 0)
		;
	pthread_mutex_unlock(&c->lock);
}

static int32_t connect_first(struct client *c, struct deadline deadline)
{
	unsigned ms = 10;
	bool final;

	for (;;) {
		int32_t r = attempt(c, deadline, &final);
		if (r == SMEM_OK)
			return r;
		if (final)
			return smem_err(r, "config store %s: %s", c->url->text, c->result_text);
		char cause[256];
		snprintf(cause, sizeof(cause), "%s", err_detail());
		pause_ms(c, ms, deadline);
		if (deadline_passed(deadline))
			return smem_err(SMEM_TIMEOUT,
					"config store %s not reached in %" PRIu64
					" ms, last cause: %s; is it started, and the URL right?",
					c->url->text, deadline_elapsed_ms(deadline), cause);
		ms = ms < 250 ? ms * 2 : 500;
	}
}

/* ---- life ---- */

static void on_watch(evutil_socket_t fd, short what, void *arg)
{
	struct client *c = arg;

	(void)fd;
	(void)what;
	tls_watch(c->tls, time(NULL));
}

static void client_start(void *arg)
{
	struct client *c = arg;
	struct event_base *base = loop_base(c->loop);

	c->timer = evtimer_new(base, on_timer, c);
	if (!c->tls)
		return;
	struct timeval period = {.tv_sec = (time_t)(tls_watch_period_ms(c->tls) / 1000)};
	c->watch = event_new(base, -1, EV_PERSIST, on_watch, c);
	if (c->watch)
		event_add(c->watch, &period);
}

static void client_stop(void *arg)
{
	struct client *c = arg;

	dial_free(c->dial);
	link_deinit(&c->link);
	if (c->timer)
		event_free(c->timer);
	if (c->watch)
		event_free(c->watch);
}

static void client_free(struct client *c)
{
	if (c->loop)
		loop_call(c->loop, client_stop, c);
	loop_io_put(c->loop);
	free(c);
}

int32_t client_open(const struct store_url *url, struct tls *tls, struct deadline deadline,
		    struct client **ret)
{
	struct client *c = calloc(1, sizeof(*c));

	if (!c)
		return smem_err(SMEM_MALLOC_FAILED, "client of the config store %s", url->text);
	c->url_copy = *url;
	c->url = &c->url_copy;
	c->tls = tls;
	c->next_id = 1;
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->cond, NULL);
	link_init(&c->link, &link_ops, c, STORE_FRAME_MAX, KEEP_MAX);
	c->id = rng_u64();
	int32_t r = rng_bytes(c->token, TOKEN_LEN);
	if (r == SMEM_OK)
		r = loop_io_get(&c->loop);
	if (r == SMEM_OK) {
		loop_call(c->loop, client_start, c);
		r = c->timer ? connect_first(c, deadline)
			     : smem_err(SMEM_MALLOC_FAILED, "client of the config store");
	}
	if (r != SMEM_OK) {
		client_free(c);
		return r;
	}
	*ret = c;
	return SMEM_OK;
}

void client_close(struct client *c)
{
	if (!c)
		return;
	struct call bye = {.req = {.op = OP_BYE}, .deadline = deadline_in_ms(GOODBYE_MS)};
	client_call(c, &bye);
	free(bye.body);
	client_free(c);
}

bool client_lost(const struct client *c)
{
	return atomic_load(&c->state) == LOST;
}

uint64_t client_id(const struct client *c)
{
	return c->id;
}

uint32_t client_version(const struct client *c)
{
	return atomic_load(&c->version);
}

void client_local_addr(const struct client *c, struct sockaddr_storage *ret, socklen_t *len)
{
	*ret = c->local;
	*len = c->local_len;
}
