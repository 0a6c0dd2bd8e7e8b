/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls and listeners. A call is on its caller's stack; it leaves the client's list, on the loop,
 * before its caller goes on: by a reply, by loss, by a wake, or by the caller's own cancelling
 * after its deadline. Listeners come and go on the loop too, so after client_unlisten() nothing of
 * them runs.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "store/client_int.h"
#include "util/err.h"

#define SLACK_MS 500 /* the server answers at the deadline; so much more for the way */

void client_call_end(struct client *c, struct call *call, int32_t code, const char *text,
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

/* ---- calls, the callers' side ---- */

static void call_refuse(struct client *c, struct call *call)
{
	char text[400];

	snprintf(text, sizeof(text), "connection to the config store %.200s lost: %.150s",
		 c->url->text, c->cause);
	client_call_end(c, call, SMEM_UNREACHABLE, text, strlen(text));
}

static void call_woken(struct client *c, struct call *call)
{
	static const char text[] = "the object was destroyed during the call";

	client_call_end(c, call, SMEM_OBJECT_NOT_EXISTS, text, sizeof(text) - 1);
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
		client_lose(c, "it does not read what is sent");
	}
}

static void call_cancel(void *arg)
{
	struct call *call = arg;
	static const char late[] = "no answer of the config store in time";

	if (call->done)
		return;
	cancel_at_server(call->client, call);
	client_call_end(call->client, call, SMEM_TIMEOUT, late, sizeof(late) - 1);
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
	end.end += (call->slack_ms ? call->slack_ms : SLACK_MS) * NS_PER_MS;
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
		client_lose(cast->client, "it does not read what is sent");
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
