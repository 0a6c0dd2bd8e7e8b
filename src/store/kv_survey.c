/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A survey asks every client that is there for an answer, and is over when each of them has
 * answered or is gone, or when the asker's time is. It is a waiting request of the asker and
 * nothing else: no key, no trace at the clients, and it goes with the asker.
 *
 * Of a client that did not answer, the asker is told what it holds here: the names of its groups
 * and of its leased keys say who it is.
 */
#include <stdlib.h>
#include <string.h>

#include "store/kv_group.h"
#include "store/survey.h"
#include "util/err.h"

struct asked {
	struct kv_client *client; /* NULL: gone */
	enum store_survey_state state;
	struct blob *answer;
};

struct kv_survey {
	struct wait w; /* the asker's */
	uint64_t number;
	uint32_t count, open; /* asked; of them not answered and not gone */
	uint32_t most;	      /* bytes of one answer: so that all together fit */
	struct kv_survey *prev, *next;
	struct asked asked[];
};

static void survey_free(struct kv *kv, struct kv_survey *s)
{
	wait_end(kv, &s->w);
	DL_DELETE(kv->surveys, s);
	kv->survey_count--;
	for (uint32_t i = 0; i < s->count; i++)
		blob_put(s->asked[i].answer);
	free(s);
}

static void write_name(struct writer *w, enum store_held_kind kind, uint32_t member,
		       const char *name)
{
	write_u8(w, (uint8_t)kind);
	write_u32(w, member);
	write_span(w, (struct span){(const uint8_t *)name, strlen(name)});
}

static void write_held(struct writer *w, const struct kv_client *c)
{
	const char *leased[STORE_SURVEY_HELD_MAX];
	uint32_t members = HASH_COUNT(c->members), n = 0;

	if (members > STORE_SURVEY_HELD_MAX)
		members = STORE_SURVEY_HELD_MAX;
	uint32_t keys = keys_leased(c, STORE_SURVEY_HELD_MAX - members, leased);
	write_u32(w, members + keys);
	for (const struct kv_member *m = c->members; m && n < members; m = m->hh.next, n++)
		write_name(w, STORE_HELD_MEMBER, m->number, m->group->name);
	for (uint32_t i = 0; i < keys; i++)
		write_name(w, STORE_HELD_KEY, 0, leased[i]);
}

static void survey_reply(struct kv *kv, struct kv_survey *s)
{
	struct writer w = reply_begin(SMEM_OK, "");

	write_u32(&w, s->count);
	for (uint32_t i = 0; i < s->count; i++) {
		const struct asked *a = &s->asked[i];
		const char *address = a->client ? a->client->address : "";
		write_u8(&w, (uint8_t)a->state);
		write_span(&w, (struct span){(const uint8_t *)address, strlen(address)});
		write_span(&w, blob_span(a->answer));
		if (a->client && a->state != STORE_SURVEY_ANSWERED)
			write_held(&w, a->client);
		else
			write_u32(&w, 0);
	}
	if (w.failed)
		reply(kv, s->w.client, s->w.id, SMEM_MALLOC_FAILED,
		      "store: the answers together are too long");
	reply_end(kv, s->w.client, w.failed ? 0 : s->w.id, &w);
}

static void survey_over(struct kv *kv, struct wait *w, enum over why)
{
	struct kv_survey *s = (struct kv_survey *)w;

	if (why == OVER_TIMEOUT)
		survey_reply(kv, s);
	survey_free(kv, s);
}

static void settle(struct kv *kv, struct kv_survey *s)
{
	if (s->open > 0)
		return;
	survey_reply(kv, s);
	survey_free(kv, s);
}

static void ask(struct kv *kv, struct kv_survey *s, struct kv_client *c)
{
	struct asked *a = &s->asked[s->count++];

	a->client = c;
	a->state = c->version < PROTO_SURVEYS ? STORE_SURVEY_UNABLE : STORE_SURVEY_SILENT;
	if (a->state == STORE_SURVEY_UNABLE)
		return;
	s->open++;
	struct writer w = {.blob = NULL};
	write_u32(&w, s->most);
	push(kv, c, OP_ASKED, s->number, writer_done(&w));
}

void kv_survey(struct kv *kv, struct kv_client *c, const struct request *req, uint64_t now)
{
	struct kv_client *other;
	uint32_t n = 0;

	if (kv->survey_count >= STORE_SURVEYS_MAX) {
		reply(kv, c, req->id, SMEM_NEW_OBJECT_FAILED,
		      "store: %u surveys are under way already, at most %u", kv->survey_count,
		      STORE_SURVEYS_MAX);
		return;
	}
	DL_FOREACH(kv->clients, other)
	n++;
	struct kv_survey *s = calloc(1, sizeof(*s) + n * sizeof(s->asked[0]));
	if (!s) {
		reply(kv, c, req->id, SMEM_MALLOC_FAILED, "store: out of memory");
		return;
	}
	s->w.over = survey_over;
	if (!wait_begin(kv, &s->w, c, req, now)) {
		free(s);
		return;
	}
	s->number = ++kv->survey_number;
	s->most = n > 1 ? STORE_SURVEY_BYTES_MAX / (n - 1) : STORE_VALUE_MAX;
	if (s->most > STORE_VALUE_MAX)
		s->most = STORE_VALUE_MAX;
	kv->survey_count++;
	DL_APPEND(kv->surveys, s);
	DL_FOREACH(kv->clients, other)
	{
		if (other != c)
			ask(kv, s, other);
	}
	settle(kv, s);
}

static struct asked *find_open(struct kv_survey *s, const struct kv_client *c)
{
	for (uint32_t i = 0; i < s->count; i++) {
		if (s->asked[i].client == c && s->asked[i].state == STORE_SURVEY_SILENT)
			return &s->asked[i];
	}
	return NULL;
}

/* One that is over already, or was never: the answer is late. */
void kv_answer(struct kv *kv, struct kv_client *c, const struct request *req)
{
	struct kv_survey *s;

	DL_SEARCH_SCALAR(kv->surveys, s, number, req->seq);
	struct asked *a = s ? find_open(s, c) : NULL;
	if (a) {
		if (req->val.len <= s->most)
			a->answer = blob_new(req->val.data, req->val.len);
		a->state = a->answer ? STORE_SURVEY_ANSWERED : STORE_SURVEY_UNABLE;
		s->open--;
		settle(kv, s);
	}
	reply(kv, c, req->id, SMEM_OK, "%s", "");
}

void surveys_client_gone(struct kv *kv, struct kv_client *c)
{
	struct kv_survey *s, *tmp;

	DL_FOREACH_SAFE(kv->surveys, s, tmp)
	{
		for (uint32_t i = 0; i < s->count; i++) {
			struct asked *a = &s->asked[i];
			if (a->client != c)
				continue;
			s->open -= a->state == STORE_SURVEY_SILENT;
			a->client = NULL;
			if (a->state != STORE_SURVEY_ANSWERED)
				a->state = STORE_SURVEY_GONE;
			settle(kv, s);
			break;
		}
	}
}
