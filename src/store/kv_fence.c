/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A fence counts the live members that were there at its event and have not acknowledged it. An
 * acknowledgement that moves a member from one number to a higher one counts down the fences in
 * between; a member that goes away counts down those it still owed. At zero the fence is answered.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "store/kv_group.h"
#include "util/err.h"

#define TEXT_MAX 512

static bool owes(const struct kv_member *m, uint64_t seq)
{
	return m->seq <= seq && m->acked < seq;
}

static void fence_free(struct kv *kv, struct kv_fence *f)
{
	wait_end(kv, &f->w);
	DL_DELETE(f->group->fences, f);
	free(f);
}

static void fence_over(struct kv *kv, struct wait *w, enum over why)
{
	struct kv_fence *f = (struct kv_fence *)w;
	struct kv_member *m;
	char text[TEXT_MAX] = "";
	size_t used = 0;

	if (why == OVER_TIMEOUT) {
		DL_FOREACH(f->group->members, m)
		{
			if (owes(m, f->seq) && used < sizeof(text))
				used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%u",
							 used ? ", " : "", m->number);
		}
		reply(kv, w->client, w->id, SMEM_TIMEOUT,
		      "group %s: no acknowledgement from member %s", f->group->name, text);
	}
	fence_free(kv, f);
}

static void fence_met(struct kv *kv, struct kv_fence *f)
{
	reply(kv, f->w.client, f->w.id, SMEM_OK, "%s", "");
	fence_free(kv, f);
}

static void reply_failure(struct kv *kv, struct kv_client *c, uint64_t id, const struct kv_group *g,
			  const struct kv_failure *x)
{
	reply(kv, c, id, x->code, "group %s: member %u: %s", g->name, x->member, x->text);
}

void fence_begin(struct kv *kv, struct kv_client *c, struct kv_group *g, const struct request *req,
		 uint64_t now)
{
	struct kv_failure *x;
	struct kv_member *m;
	uint32_t missing = 0;

	DL_FOREACH(g->failures, x)
	{
		if (x->seq == req->seq)
			return reply_failure(kv, c, req->id, g, x);
	}
	DL_FOREACH(g->members, m)
	missing += owes(m, req->seq);
	if (missing == 0)
		return reply(kv, c, req->id, SMEM_OK, "%s", "");
	struct kv_fence *f = calloc(1, sizeof(*f));
	if (!f)
		return reply(kv, c, req->id, SMEM_MALLOC_FAILED, "store: out of memory");
	f->w.over = fence_over;
	f->group = g;
	f->seq = req->seq;
	f->missing = missing;
	if (!wait_begin(kv, &f->w, c, req, now)) {
		free(f);
		return;
	}
	DL_APPEND(g->fences, f);
}

static void failure_add(struct kv *kv, struct kv_member *m, const struct request *req)
{
	struct kv_group *g = m->group;
	struct kv_failure *x = calloc(1, sizeof(*x));
	struct kv_fence *f, *tmp;

	if (x)
		x->text = name_dup(req->extra);
	if (!x || !x->text) {
		free(x);
		return;
	}
	x->seq = req->seq;
	x->member = m->number;
	x->code = req->code;
	DL_FOREACH_SAFE(g->fences, f, tmp)
	{
		if (f->seq == x->seq) {
			reply_failure(kv, f->w.client, f->w.id, g, x);
			fence_free(kv, f);
		}
	}
	DL_APPEND(g->failures, x);
	if (++g->failure_count > STORE_FAILURES_MAX) {
		struct kv_failure *oldest = g->failures;
		DL_DELETE(g->failures, oldest);
		free(oldest->text);
		free(oldest);
		g->failure_count--;
	}
}

void failures_free(struct kv_group *g)
{
	while (g->failures) {
		struct kv_failure *x = g->failures;
		DL_DELETE(g->failures, x);
		free(x->text);
		free(x);
	}
	g->failure_count = 0;
}

void fence_ack(struct kv *kv, struct kv_member *m, const struct request *req)
{
	struct kv_group *g = m->group;
	struct kv_fence *f, *tmp;
	uint64_t old = m->acked;

	if (req->seq > g->seq)
		return; /* nothing that happened yet */
	if (req->code != 0 && req->extra.len <= TEXT_MAX)
		failure_add(kv, m, req);
	if (req->seq <= old)
		return;
	m->acked = req->seq;
	DL_FOREACH_SAFE(g->fences, f, tmp)
	{
		if (f->seq > old && f->seq <= m->acked && m->seq <= f->seq && --f->missing == 0)
			fence_met(kv, f);
	}
}

void fence_member_gone(struct kv *kv, const struct kv_member *m)
{
	struct kv_fence *f, *tmp;

	DL_FOREACH_SAFE(m->group->fences, f, tmp)
	{
		if (owes(m, f->seq) && --f->missing == 0)
			fence_met(kv, f);
	}
}
