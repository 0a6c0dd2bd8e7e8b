/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A round: all members of a CLOSED group inside at the same time. Whether their kinds agree is
 * looked at when the last one has arrived, so that a disagreement ends the same round for
 * everybody. A member that is gone can never arrive: then nobody waits. Who times out is out, and
 * the round goes on without it.
 */
#include <stdio.h>
#include <stdlib.h>

#include "store/kv_group.h"
#include "util/err.h"

static void round_free(struct kv *kv, struct kv_round *r)
{
	wait_end(kv, &r->w);
	r->member->round = NULL;
	r->member->group->round_count--;
	blob_put(r->kind);
	blob_put(r->val);
	free(r);
}

static void round_over(struct kv *kv, struct wait *w, enum over why)
{
	struct kv_round *r = (struct kv_round *)w;
	const struct kv_group *g = r->member->group;
	char text[512] = "";
	size_t used = 0;

	if (why == OVER_TIMEOUT) {
		for (uint32_t i = 0; i < g->numbers; i++) {
			if (g->by_number[i] && !g->by_number[i]->round && used < sizeof(text))
				used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%u",
							 used ? ", " : "", i);
		}
		reply(kv, w->client, w->id, SMEM_TIMEOUT, "group %s: missing rank %s", g->name,
		      text);
	}
	round_free(kv, r);
}

static void round_fail_all(struct kv *kv, struct kv_group *g, const struct kv_member *a,
			   const struct kv_member *b)
{
	struct store_conflict conflict = {.member = a->number, .own = b->number};
	struct blob *kind = blob_get(a->round->kind), *own = blob_get(b->round->kind);
	struct kv_member *m;

	DL_FOREACH(g->members, m)
	{
		reply_conflict(kv, &m->round->w, &conflict, blob_span(kind), blob_span(own),
			       "members of the group called different collectives");
		round_free(kv, m->round);
	}
	blob_put(kind);
	blob_put(own);
}

static void round_finish(struct kv *kv, struct kv_group *g)
{
	struct kv_member *first = g->by_number[0], *m;
	struct blob **vals = calloc(g->size, sizeof(struct blob *));

	for (uint32_t i = 0; i < g->size; i++) {
		m = g->by_number[i];
		if (!span_equal(blob_span(first->round->kind), blob_span(m->round->kind))) {
			free(vals);
			round_fail_all(kv, g, first, m);
			return;
		}
		if (vals)
			vals[i] = m->round->val;
	}
	struct blob *body = vals ? gather_reply(vals, g->size) : NULL;
	free(vals);
	DL_FOREACH(g->members, m)
	{
		if (body)
			push(kv, m->client, OP_REPLY, m->round->w.id, blob_get(body));
		else
			reply(kv, m->client, m->round->w.id, SMEM_MALLOC_FAILED,
			      "group %s: the parts together are too long", g->name);
		round_free(kv, m->round);
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

void round_begin(struct kv *kv, struct kv_member *m, const struct request *req, uint64_t now)
{
	struct kv_group *g = m->group;
	struct kv_round *r;

	if (g->mode != STORE_GROUP_CLOSED || m->round)
		return reply(kv, m->client, req->id, SMEM_INVALID_PARAM, "group %s: %s", g->name,
			     m->round ? "member is in a collective already" : "not closed");
	if (g->gone_count)
		return reply_gone(kv, m->client, req->id, g, gone_first(g));
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
	m->round = r;
	if (++g->round_count == g->size)
		round_finish(kv, g);
}

void round_member_gone(struct kv *kv, struct kv_group *g, uint32_t number,
		       enum store_event_kind why)
{
	struct kv_member *m;

	(void)why;
	DL_FOREACH(g->members, m)
	{
		if (m->round) {
			reply_gone(kv, m->client, m->round->w.id, g, number);
			round_free(kv, m->round);
		}
	}
}
