/* SPDX-License-Identifier: Apache-2.0 */
/* Both ends of a survey: asking is a call like others; an answer goes out from the loop. */
#include "store/survey.h"

#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "store/client_int.h"
#include "store/reply.h"
#include "util/cleanup.h"
#include "util/err.h"
#include "util/limits.h"

#define REPLY_SLACK_MS 5000 /* all answers in one reply: megabytes, of a store that is busy */

static _Atomic(store_answer_fn) answerer;

void store_answer_with(store_answer_fn fn)
{
	atomic_store(&answerer, fn);
}

/* Nothing is said any more after that. */
static bool says_good_bye(const struct client *c)
{
	const struct call *call;

	DL_FOREACH(c->calls, call)
	{
		if (call->req.op == OP_BYE)
			return true;
	}
	return false;
}

bool client_answer(struct client *c, uint64_t survey, const uint8_t *data, size_t len)
{
	store_answer_fn fn = atomic_load(&answerer);
	struct store_bytes bytes = {0};
	struct reader in = reader_of(data, len);
	uint32_t most = read_u32(&in);

	if (says_good_bye(c))
		return true;
	if (fn && !in.failed)
		fn(c->id, most < STORE_VALUE_MAX ? most : STORE_VALUE_MAX, &bytes);
	if (bytes.len > STORE_VALUE_MAX)
		bytes.len = 0;
	struct request req = {.op = OP_ANSWER, .seq = survey, .val = {bytes.data, bytes.len}};
	struct blob *body = request_encode(&req);
	/* without memory there is no answer, and the asker's deadline ends the survey */
	bool ok = !body || link_send(&c->link, OP_ANSWER, 0, body);
	store_bytes_free(&bytes);
	return ok;
}

static void copy_text(struct span s, char *ret, size_t cap)
{
	size_t len = s.len < cap - 1 ? s.len : cap - 1;

	if (len > 0)
		memcpy(ret, s.data, len);
	ret[len] = '\0';
}

static bool read_held(struct reader *in, struct store_surveyed *ret)
{
	uint32_t n = read_u32(in);

	if (in->failed || n > STORE_SURVEY_HELD_MAX)
		return false;
	ret->held = n ? calloc(n, sizeof(*ret->held)) : NULL;
	for (uint32_t i = 0; ret->held && i < n; i++) {
		struct store_held *h = &ret->held[ret->held_n++];
		h->kind = (enum store_held_kind)read_u8(in);
		h->member = read_u32(in);
		struct span name = read_span(in);
		h->name = malloc(name.len + 1);
		if (!h->name || in->failed || h->kind >= STORE_HELD_KINDS)
			return false;
		copy_text(name, h->name, name.len + 1);
	}
	return n == ret->held_n;
}

static bool read_client(struct reader *in, struct store_surveyed *ret)
{
	ret->state = (enum store_survey_state)read_u8(in);
	copy_text(read_span(in), ret->address, sizeof(ret->address));
	struct span answer = read_span(in);
	if (in->failed || ret->state >= STORE_SURVEY_STATES)
		return false;
	return bytes_copy(answer, &ret->answer) == SMEM_OK && read_held(in, ret);
}

int32_t survey_read(const uint8_t *body, size_t len, struct store_survey *ret)
{
	struct reader in = reader_of(body, len);
	struct store_survey s = {.n = 0};
	uint32_t n = read_u32(&in);

	if (in.failed || n > STORE_CLIENTS_MAX)
		return reply_malformed("survey");
	s.client = calloc(n ? n : 1, sizeof(*s.client));
	if (!s.client)
		return smem_err(SMEM_MALLOC_FAILED, "survey of %u clients", n);
	bool ok = true;
	while (ok && s.n < n)
		ok = read_client(&in, &s.client[s.n++]);
	if (!ok || !reader_done(&in)) {
		store_survey_free(&s);
		return reply_malformed("survey");
	}
	*ret = s;
	return SMEM_OK;
}

int32_t store_survey(struct store *s, struct deadline deadline, struct store_survey *ret)
{
	struct client *c = store_client(s);
	struct call call = {
	    .req = {.op = OP_SURVEY}, .deadline = deadline, .slack_ms = REPLY_SLACK_MS};

	if (client_version(c) < PROTO_SURVEYS)
		return smem_err(SMEM_NOT_SUPPORTED,
				"the store %s is of an older version that knows no surveys",
				store_url_text(s));
	int32_t r = client_call(c, &call);
	auto_free uint8_t *body = call.body;
	return r == SMEM_OK ? survey_read(body, call.body_len, ret) : r;
}

void store_survey_free(struct store_survey *s)
{
	for (uint32_t i = 0; i < s->n; i++) {
		struct store_surveyed *c = &s->client[i];
		store_bytes_free(&c->answer);
		for (uint32_t k = 0; k < c->held_n; k++)
			free(c->held[k].name);
		free(c->held);
	}
	free(s->client);
	*s = (struct store_survey){.n = 0};
}
