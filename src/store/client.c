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
#include "store/client.h"

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
	1000	       /* more than the server's grace: who is not back by then is lost there too  \
			*/
#define SLACK_MS   500 /* the server answers at the deadline; so much more for the way */
#define GOODBYE_MS 1000
#define KEEP_MAX   (256u << 20)

enum state { DIALING, UP, AGAIN, LOST };

struct client {
	struct loop *loop;
	const struct store_url *url; /* own copy below */
	struct store_url url_copy;
	struct tls *tls;
	struct link link;
	uint64_t id;
	uint8_t token[TOKEN_LEN];

	/* the loop's */
	_Atomic int state;
	struct dial *dial;
	struct event *timer; /* AGAIN: the next attempt; UP: look for silence */
	struct event *watch; /* of certificates' expiry */
	struct deadline again;
	unsigned pause_ms;
	uint64_t silent_since;
	struct net_addr peer; /* where the connection went */
	struct call *calls;
	struct listener *listeners;
	uint64_t next_id;
	char cause[256]; /* of the loss */
	struct sockaddr_storage local;
	socklen_t local_len;

	/* client_open waits here for an attempt's result, client_close for the last byte */
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool result_ready;
	int32_t result;
	bool result_final;
	char result_text[320];
};

static void again_start(struct client *c, const char *why);

/* ---- calls ---- */

static void call_end(struct client *c, struct call *call, int32_t code, const char *text,
		     size_t text_len)
{
	DL_DELETE(c->calls, call);
	call->code = code;
	if (text_len >= sizeof(call->text))
		text_len = sizeof(call->text) - 1;
	memcpy(call->text, text, text_len);
	call->text[text_len] = '\0';
	pthread_mutex_lock(&call->lock);
	call->done = true;
	pthread_cond_signal(&call->cond);
	pthread_mutex_unlock(&call->lock);
}

static void lose(struct client *c, const char *cause)
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
	call_end(c, call, SMEM_UNREACHABLE, text, strlen(text));
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
			call_end(c, call, SMEM_MALLOC_FAILED, oom, sizeof(oom) - 1);
			return NULL;
		}
		memcpy(call->body, r.at, rest);
		call->body_len = rest;
	}
	call_end(c, call, code, (const char *)text.data, text.len);
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
	default:
		return "an unknown frame";
	}
}

static void on_down(void *arg, bool broken, const char *why)
{
	struct client *c = arg;

	link_detach(&c->link);
	if (broken)
		lose(c, why);
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
	c->silent_since = 0;
	c->local_len = sizeof(c->local);
	if (getsockname(fd, (struct sockaddr *)&c->local, &c->local_len) != 0)
		c->local_len = 0;
	atomic_store(&c->state, UP);
	if (!net_is_loopback(&c->peer))
		timer_in(c, NET_LOOK_MS);
	if (!link_attach(&c->link, bev, w->received)) {
		link_bev_free(bev);
		lose(c, "it acknowledges what was never sent");
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
		lose(c, "it has forgotten this process, or is another store");
	} else if (r->code == SMEM_OK) {
		LOG_INFO("store", "connection to %s is back", c->url->text);
		go_up(c, r->bev, &r->welcome);
	} else if (r->final || r->refused || deadline_passed(c->again)) {
		lose(c, r->text);
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
		lose(c, "its host is silent");
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

/* Wait for a pause of behaviour.md 4.2. */
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

void client_local_addr(const struct client *c, struct sockaddr_storage *ret, socklen_t *len)
{
	*ret = c->local;
	*len = c->local_len;
}

void client_run(struct client *c, void (*fn)(void *arg), void *arg)
{
	loop_call(c->loop, fn, arg);
}

/* ---- calls, the callers' side ---- */

static void call_refuse(struct client *c, struct call *call)
{
	char text[400];

	snprintf(text, sizeof(text), "connection to the config store %.200s lost: %.150s",
		 c->url->text, c->cause);
	call_end(c, call, SMEM_UNREACHABLE, text, strlen(text));
}

static void call_woken(struct client *c, struct call *call)
{
	static const char text[] = "the object was destroyed during the call";

	call_end(c, call, SMEM_OBJECT_NOT_EXISTS, text, sizeof(text) - 1);
}

static void cancel_at_server(struct client *c, const struct call *call)
{
	struct request cancel = {.op = OP_CANCEL,
				 .seq = call->req.id,
				 .gid = call->req.op == OP_ENTER ? call->req.gid : 0};

	if (c->state != LOST)
		link_send(&c->link, OP_CANCEL, 0, request_encode(&cancel));
}

static void call_start(void *arg)
{
	struct call *call = arg;
	struct client *c = call->client;
	struct blob *encoded = call->encoded;

	call->req.id = c->next_id++;
	DL_APPEND(c->calls, call);
	if (c->state == LOST || (call->woken && atomic_load(call->woken))) {
		blob_put(encoded);
		if (c->state == LOST)
			call_refuse(c, call);
		else
			call_woken(c, call);
	} else if (!link_send(&c->link, call->req.op, call->req.id, encoded)) {
		lose(c, "it does not read what is sent");
	}
}

static void call_cancel(void *arg)
{
	struct call *call = arg;
	static const char late[] = "no answer of the config store in time";

	if (call->done)
		return;
	cancel_at_server(call->client, call);
	call_end(call->client, call, SMEM_TIMEOUT, late, sizeof(late) - 1);
}

static bool call_wait(struct call *call, struct deadline deadline)
{
	struct timespec until = deadline_timespec(deadline);

	pthread_mutex_lock(&call->lock);
	while (!call->done && !deadline_passed(deadline))
		pthread_cond_clockwait(&call->cond, &call->lock, CLOCK_MONOTONIC, &until);
	bool done = call->done;
	pthread_mutex_unlock(&call->lock);
	return done;
}

int32_t client_call(struct client *c, struct call *call)
{
	struct deadline end = call->deadline;

	call->client = c;
	call->body = NULL;
	call->body_len = 0;
	call->done = false;
	pthread_mutex_init(&call->lock, NULL);
	pthread_cond_init(&call->cond, NULL);
	const char *wrong = request_wrong(&call->req);
	if (wrong)
		return smem_err(SMEM_INVALID_PARAM,
				"config store: %s (key of %zu, value of %zu bytes)", wrong,
				call->req.key.len, call->req.val.len);
	call->req.timeout_ms = (uint64_t)deadline_left_ms(call->deadline);
	call->encoded = request_encode(&call->req);
	if (!call->encoded)
		return smem_err(SMEM_MALLOC_FAILED, "request to the config store");
	int32_t r = loop_post(c->loop, call_start, call);
	if (r != SMEM_OK) {
		blob_put(call->encoded);
		return r;
	}
	end.end += SLACK_MS * NS_PER_MS;
	if (!call_wait(call, end))
		loop_call(c->loop, call_cancel, call);
	pthread_mutex_destroy(&call->lock);
	pthread_cond_destroy(&call->cond);
	if (call->code != SMEM_OK)
		return smem_err(call->code, "%s (after %" PRIu64 " ms)", call->text,
				deadline_elapsed_ms(call->deadline));
	return SMEM_OK;
}

struct cast {
	struct client *client;
	uint16_t op;
	struct blob *encoded;
};

static void cast_start(void *arg)
{
	struct cast *cast = arg;

	if (cast->client->state == LOST)
		blob_put(cast->encoded);
	else if (!link_send(&cast->client->link, cast->op, 0, cast->encoded))
		lose(cast->client, "it does not read what is sent");
	free(cast);
}

void client_cast(struct client *c, const struct request *req)
{
	struct cast *cast = malloc(sizeof(*cast));

	if (!cast)
		return;
	*cast = (struct cast){.client = c, .op = req->op, .encoded = request_encode(req)};
	if (!cast->encoded || loop_post(c->loop, cast_start, cast) != SMEM_OK) {
		blob_put(cast->encoded);
		free(cast);
	}
}

/* ---- listeners ---- */

struct listening {
	struct client *client;
	struct listener *listener;
};

static void listen_start(void *arg)
{
	struct listening *a = arg;

	a->listener->id = a->client->next_id++;
	DL_APPEND(a->client->listeners, a->listener);
	if (a->client->state == LOST)
		a->listener->closed(a->listener);
}

static void listen_stop(void *arg)
{
	struct listening *a = arg;
	struct listener *l;

	DL_FOREACH(a->client->listeners, l)
	{
		if (l == a->listener) {
			DL_DELETE(a->client->listeners, l);
			return;
		}
	}
}

void client_listen(struct client *c, struct listener *l)
{
	struct listening a = {.client = c, .listener = l};

	loop_call(c->loop, listen_start, &a);
}

void client_unlisten(struct client *c, struct listener *l)
{
	struct listening a = {.client = c, .listener = l};

	loop_call(c->loop, listen_stop, &a);
}

struct waking {
	struct client *client;
	const _Atomic bool *woken;
};

static void wake_calls(void *arg)
{
	struct waking *a = arg;
	struct call *call, *tmp;

	DL_FOREACH_SAFE(a->client->calls, call, tmp)
	{
		if (call->woken == a->woken) {
			cancel_at_server(a->client, call);
			call_woken(a->client, call);
		}
	}
}

void client_wake(struct client *c, const _Atomic bool *woken)
{
	struct waking a = {.client = c, .woken = woken};

	loop_call(c->loop, wake_calls, &a);
}
