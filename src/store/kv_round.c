/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A round: all members of a CLOSED group inside at the same time. Whether their kinds agree is
 * looked at when the last one has arrived, so that a disagreement ends the same round for
 * everybody. A member that is gone can never arrive: then nobody waits. Who times out is out, and
 * the round goes on without it.
 *
 * A contribution stands for its sender, or (a set round) for a set of members that chose the sender
 * among themselves. These may want another sender while this one is not answering, and then must
 * know what became of its contribution. Settling tells, and decides: the round has completed, and
 * here is its outcome once more (it is kept until the next one completes); or the contribution is
 * taken back, and does not count if it is still to come. For that the contributions for a member
 * have turns that only grow.
 *
 * Messages name the members that are missing. Some are inside although nobody can contribute for
 * them yet, because others of their set are missing: they say so themselves when they have waited
 * for long. And ranks whose time runs out together have missed somebody else, not each other.
 */
#include <stdio.h>
#include <stdlib.h>

#include "store/kv_group.h"
#include "util/clock.h"
#include "util/err.h"

#define TOGETHER_NS (1000 * NS_PER_MS)

/* Turns are compared as the serial numbers of RFC 1982 are. */
static bool turn_used(const struct kv_member *m, uint32_t turn)
{
	return m->has_turn && (int32_t)(turn - m->turn) <= 0;
}

static void turn_use(struct kv_member *m, uint32_t turn)
{
	if (turn_used(m, turn))
		return;
	m->has_turn = true;
	m->turn = turn;
}

/* The contribution that i sent; NULL: none. */
static struct kv_round *round_sent(const struct kv_group *g, uint32_t i)
{
	struct kv_member *m = g->by_number[i];

	return m && m->round && m->round->member == m ? m->round : NULL;
}

/* Whom it stood for counts as inside until `present`. */
static void round_free(struct kv *kv, struct kv_round *r, uint64_t present)
{
	struct kv_group *g = r->member->group;
	uint32_t i;

	wait_end(kv, &r->w);
	SET_FOREACH(i, &r->set)
	{
		struct kv_member *m = g->by_number[i];
		if (!m || m->round != r)
			continue;
		m->round = NULL;
		m->present = present;
	}
	g->round_count -= r->count;
	if (r->of_set && r->val)
		kv->round_bytes -= r->val->len;
	blob_put(r->kind);
	blob_put(r->val);
	free(r);
}

static struct set missing(const struct kv_group *g, uint64_t now)
{
	struct set s = {.word = {0}};

	for (uint32_t i = 0; i < g->numbers; i++) {
		const struct kv_member *m = g->by_number[i];
		if (m && !m->round && m->present <= now)
			set_add(&s, i);
	}
	return s;
}

static void reply_missing(struct kv *kv, struct kv_client *c, uint64_t id, int32_t code,
			  const struct kv_group *g, uint64_t now)
{
	struct set s = missing(g, now);
	char text[512];
	int used = snprintf(text, sizeof(text), "group %s: ", g->name);
	const char *sep = "missing rank ";
	uint32_t i;

	SET_FOREACH(i, &s)
	{
		if ((size_t)used < sizeof(text))
			used += snprintf(text + used, sizeof(text) - (size_t)used, "%s%u", sep, i);
		sep = ", ";
	}
	if (set_count(&s) == 0 && (size_t)used < sizeof(text))
		snprintf(text + used, sizeof(text) - (size_t)used,
			 "all ranks came, but never all at a time");
	struct writer w = reply_begin(code, code == SMEM_OK ? "" : text);
	write_set(&w, &s);
	reply_end(kv, c, id, &w);
}

static void round_over(struct kv *kv, struct wait *w, enum over why)
{
	struct kv_round *r = (struct kv_round *)w;

	if (why == OVER_TIMEOUT)
		reply_missing(kv, w->client, w->id, SMEM_TIMEOUT, r->member->group, w->end);
	round_free(kv, r, why == OVER_TIMEOUT ? w->end + TOGETHER_NS : 0);
}

static bool same_kind(const struct kv_round *a, const struct kv_round *b)
{
	return a->of_set == b->of_set && span_equal(blob_span(a->kind), blob_span(b->kind));
}

static void round_fail_all(struct kv *kv, struct kv_group *g, const struct kv_round *a,
			   const struct kv_round *b)
{
	struct store_conflict conflict = {.member = a->member->number, .own = b->member->number};
	struct blob *kind = blob_get(a->kind), *own = blob_get(b->kind);

	for (uint32_t i = 0; i < g->numbers; i++) {
		struct kv_round *r = round_sent(g, i);
		if (!r)
			continue;
		reply_conflict(kv, &r->w, &conflict, blob_span(kind), blob_span(own),
			       "members of the group called different collectives");
		round_free(kv, r, 0);
	}
	blob_put(kind);
	blob_put(own);
}

/* The outcome: how many contributions, and for each its set and what it brought. */
static struct blob *set_reply(const struct kv_group *g)
{
	struct writer w = reply_begin(SMEM_OK, "");
	uint32_t count = 0;

	for (uint32_t i = 0; i < g->numbers; i++)
		count += round_sent(g, i) != NULL;
	write_u32(&w, count);
	for (uint32_t i = 0; i < g->numbers; i++) {
		const struct kv_round *r = round_sent(g, i);
		if (!r)
			continue;
		write_set(&w, &r->set);
		write_span(&w, blob_span(r->val));
	}
	return writer_done(&w);
}

static struct blob *plain_reply(const struct kv_group *g)
{
	struct blob **vals = calloc(g->size, sizeof(struct blob *));

	if (!vals)
		return NULL;
	for (uint32_t i = 0; i < g->size; i++)
		vals[i] = g->by_number[i]->round->val;
	struct blob *body = gather_reply(vals, g->size);
	free(vals);
	return body;
}

void round_forget(struct kv *kv, struct kv_group *g)
{
	if (g->done)
		kv->round_bytes -= g->done->len;
	blob_put(g->done_kind);
	blob_put(g->done);
	g->done_kind = NULL;
	g->done = NULL;
}

static void round_finish(struct kv *kv, struct kv_group *g)
{
	struct kv_round *first = g->by_number[0]->round, *r;

	for (uint32_t i = 0; i < g->numbers; i++) {
		r = round_sent(g, i);
		if (r && !same_kind(first, r)) {
			round_fail_all(kv, g, first, r);
			return;
		}
	}
	struct blob *body = first->of_set ? set_reply(g) : plain_reply(g);
	if (body && first->of_set) {
		round_forget(kv, g);
		g->done_kind = blob_get(first->kind);
		g->done = blob_get(body);
		kv->round_bytes += body->len;
	}
	for (uint32_t i = 0; i < g->numbers; i++) {
		r = round_sent(g, i);
		if (!r)
			continue;
		if (body)
			push(kv, r->w.client, OP_REPLY, r->w.id, blob_get(body));
		else
			reply(kv, r->w.client, r->w.id, SMEM_MALLOC_FAILED,
			      "group %s: the parts together are too long", g->name);
		round_free(kv, r, 0);
	}
	blob_put(body);
}

static void reply_gone(struct kv *kv, struct kv_client *c, uint64_t id, const struct kv_group *g,
		       uint32_t number)
{
	reply(kv, c, id, SMEM_PEER_LOST, "group %s: rank %u %s", g->name, number,
	      g->gone[number] == STORE_EVENT_LOST ? "was lost" : "has left");
}

static uint32_t gone_first(const struct kv_group *g)
{
	uint32_t i = 0;

	while (i + 1 < g->numbers && !g->gone[i])
		i++;
	return i;
}

static bool is_done(const struct kv_group *g, const struct request *req)
{
	return g->done_kind && span_equal(blob_span(g->done_kind), req->extra);
}

/* Why `req` cannot stand for member i; SMEM_OK. */
static int32_t stand_for(const struct kv_group *g, uint32_t i, const struct request *req,
			 const char **why)
{
	const struct kv_member *m = i < g->numbers ? g->by_number[i] : NULL;
	bool of_set = req->op == OP_SET_ROUND;

	*why = "is no member";
	if (!m)
		return SMEM_INVALID_PARAM;
	*why = "has had a later turn"; /* first of all: who comes late gets no other answer */
	if (of_set && turn_used(m, (uint32_t)req->seq))
		return SMEM_STALE;
	*why = "has completed this round";
	if (of_set && is_done(g, req))
		return SMEM_REPEAT_CALL;
	*why = "is in a collective already";
	return m->round ? SMEM_INVALID_PARAM : SMEM_OK;
}

/* Whom the request stands for. False: answered already. */
static bool round_set(struct kv *kv, const struct kv_member *m, const struct request *req,
		      struct set *ret)
{
	const struct kv_group *g = m->group;
	struct set s = {.word = {0}};
	const char *why;
	uint32_t i;

	set_add(&s, m->number);
	if (req->op == OP_SET_ROUND && (!set_decode(req->sort, &s) || !set_has(&s, m->number))) {
		reply(kv, m->client, req->id, SMEM_INVALID_PARAM,
		      "group %s: not a set of members with rank %u", g->name, m->number);
		return false;
	}
	SET_FOREACH(i, &s)
	{
		int32_t code = stand_for(g, i, req, &why);
		if (code != SMEM_OK) {
			reply(kv, m->client, req->id, code, "group %s: rank %u %s", g->name, i,
			      why);
			return false;
		}
	}
	*ret = s;
	return true;
}

/* False: answered already. */
static bool round_allowed(struct kv *kv, const struct kv_member *m, const struct request *req,
			  struct set *ret)
{
	const struct kv_group *g = m->group;

	if (g->mode != STORE_GROUP_CLOSED)
		reply(kv, m->client, req->id, SMEM_INVALID_PARAM, "group %s: not closed", g->name);
	else if (g->gone_count)
		reply_gone(kv, m->client, req->id, g, gone_first(g));
	else if (req->op == OP_SET_ROUND && kv->round_bytes + req->val.len > STORE_ROUNDS_MAX)
		reply(kv, m->client, req->id, SMEM_MALLOC_FAILED,
		      "store: more than %u bytes in collectives", STORE_ROUNDS_MAX);
	else
		return round_set(kv, m, req, ret);
	return false;
}

void round_begin(struct kv *kv, struct kv_member *m, const struct request *req, uint64_t now)
{
	struct kv_group *g = m->group;
	struct kv_round *r;
	struct set set;
	uint32_t i;

	if (!round_allowed(kv, m, req, &set))
		return;
	r = calloc(1, sizeof(*r));
	if (r) {
		r->kind = blob_new(req->extra.data, req->extra.len);
		r->val = blob_new(req->val.data, req->val.len);
	}
	if (!r || !r->kind || !r->val)
		reply(kv, m->client, req->id, SMEM_MALLOC_FAILED, "store: out of memory");
	if (!r || !r->kind || !r->val || !wait_begin(kv, &r->w, m->client, req, now)) {
		if (r) {
			blob_put(r->kind);
			blob_put(r->val);
		}
		free(r);
		return;
	}
	r->w.over = round_over;
	r->member = m;
	r->set = set;
	r->count = set_count(&set);
	r->of_set = req->op == OP_SET_ROUND;
	SET_FOREACH(i, &set)
	{
		g->by_number[i]->round = r;
		if (r->of_set)
			turn_use(g->by_number[i], (uint32_t)req->seq);
	}
	g->round_count += r->count;
	if (r->of_set)
		kv->round_bytes += r->val->len;
	if (g->round_count == g->size)
		round_finish(kv, g);
}

void round_settle(struct kv *kv, struct kv_member *m, const struct request *req, uint64_t now)
{
	struct kv_group *g = m->group;
	struct kv_round *r = m->round;
	uint32_t turn = (uint32_t)req->seq;

	turn_use(m, turn);
	if (is_done(g, req)) {
		push(kv, m->client, OP_REPLY, req->id, blob_get(g->done));
		return;
	}
	if (r && r->of_set && m->turn == turn) {
		reply(kv, r->w.client, r->w.id, SMEM_STALE,
		      "group %s: rank %u has taken over for the ranks of its host", g->name,
		      m->number);
		round_free(kv, r, now + TOGETHER_NS);
	}
	if (g->gone_count)
		reply_gone(kv, m->client, req->id, g, gone_first(g));
	else
		reply_missing(kv, m->client, req->id, SMEM_TIMEOUT, g, now);
}

void round_present(struct kv *kv, struct kv_member *m, const struct request *req, uint64_t now)
{
	if (!is_done(m->group, req)) /* else it comes late */
		m->present = req->flags ? UINT64_MAX : now + TOGETHER_NS;
	if (req->id != 0)
		reply_missing(kv, m->client, req->id, SMEM_OK, m->group, now);
}

void round_member_gone(struct kv *kv, struct kv_group *g, uint32_t number,
		       enum store_event_kind why)
{
	(void)why;
	for (uint32_t i = 0; i < g->numbers; i++) {
		struct kv_round *r = round_sent(g, i);
		if (!r)
			continue;
		reply_gone(kv, r->w.client, r->w.id, g, number);
		round_free(kv, r, 0);
	}
}
