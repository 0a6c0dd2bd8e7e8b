/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Entering. Everybody passes through the list of those that enter; three things take them out:
 *
 *  - admission of one (OPEN, and LOBBY once formed): there is room and the number is free. Where
 *    only a member stands in the way whose connection is broken just now, the verdict on that
 *    member is waited for: a restarted process gets its old number without trying again.
 *  - forming (CLOSED, LOBBY): all are there, and become members together.
 *  - refusal: of one, or, CLOSED, of all that wait when two of them disagree or one is lost.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/kv_group.h"
#include "util/err.h"

#define EVENTS_MAX (1u << 20) /* bytes of events collected into one frame */

static void entering_free(struct kv *kv, struct kv_entering *e)
{
	wait_end(kv, &e->w);
	DL_DELETE(e->group->entering, e);
	blob_put(e->spec);
	blob_put(e->blob);
	blob_put(e->sort);
	free(e);
}

/* Out without becoming a member. */
static void entering_drop(struct kv *kv, struct kv_entering *e)
{
	e->w.client->thing_count--;
	entering_free(kv, e);
}

static uint32_t entering_count(const struct kv_group *g)
{
	const struct kv_entering *e;
	uint32_t n = 0;

	DL_FOREACH(g->entering, e)
	n++;
	return n;
}

static void missing_text(const struct kv_group *g, const struct kv_entering *mine, char *text,
			 size_t cap)
{
	uint8_t *there = calloc(mine->numbers, 1);
	const struct kv_entering *e;
	size_t used = 0;

	text[0] = '\0';
	DL_FOREACH(g->entering, e)
	{
		if (there && e->member < mine->numbers)
			there[e->member] = 1;
	}
	for (uint32_t i = 0; there && i < mine->numbers; i++) {
		if (!there[i] && used < cap)
			used +=
			    (size_t)snprintf(text + used, cap - used, "%s%u", used ? ", " : "", i);
	}
	free(there);
}

static void reply_timeout(struct kv *kv, const struct kv_entering *e)
{
	const struct kv_group *g = e->group;
	char text[512];

	if (g->formed || e->mode == STORE_GROUP_OPEN) {
		reply(kv, e->w.client, e->w.id, SMEM_TIMEOUT,
		      "group %s: its %u members have not all left", g->name, g->count);
	} else if (e->mode == STORE_GROUP_LOBBY) {
		reply(kv, e->w.client, e->w.id, SMEM_TIMEOUT, "group %s: %u of %u have arrived",
		      g->name, entering_count(g), e->size);
	} else {
		missing_text(g, e, text, sizeof(text));
		reply(kv, e->w.client, e->w.id, SMEM_TIMEOUT, "group %s: missing rank %s", g->name,
		      text);
	}
}

static void entering_over(struct kv *kv, struct wait *w, enum over why)
{
	struct kv_entering *e = (struct kv_entering *)w;
	struct kv_group *g = e->group;
	uint32_t number = e->member;
	bool fail_all = why == OVER_LOST && e->mode == STORE_GROUP_CLOSED;

	if (why == OVER_TIMEOUT)
		reply_timeout(kv, e);
	entering_drop(kv, e);
	struct kv_entering *tmp;
	DL_FOREACH_SAFE(fail_all ? g->entering : NULL, e, tmp)
	{
		if (e->member == number)
			continue; /* its successor, which waits for the others to try again */
		reply(kv, e->w.client, e->w.id, SMEM_PEER_LOST,
		      "group %s: rank %u was lost while it entered", g->name, number);
		entering_drop(kv, e);
	}
	if (g->entering)
		enter_again(kv, g, 0);
	group_tidy(kv, g);
}

static void reply_entered(struct kv *kv, const struct kv_entering *e, const struct kv_member *m)
{
	struct writer w = reply_begin(SMEM_OK, "");

	write_u32(&w, m->number);
	write_u64(&w, m->seq);
	write_u64(&w, m->incarnation);
	reply_end(kv, e->w.client, e->w.id, &w);
}

static bool events_full(const struct writer *w)
{
	return w->blob && w->blob->len >= EVENTS_MAX;
}

/* What a newcomer must know: who is there, in the order of entering, and the note for all. */
static void send_snapshot(struct kv *kv, const struct kv_member *newcomer)
{
	struct kv_group *g = newcomer->group;
	struct writer w = {.blob = NULL};
	const struct kv_member *m;
	bool told = g->once == NULL;

	DL_FOREACH(g->members, m)
	{
		if (!told && g->once_seq < m->seq) {
			push(kv, newcomer->client, OP_EVENTS, newcomer->gid, writer_done(&w));
			push(kv, newcomer->client, OP_EVENTS, newcomer->gid, blob_get(g->once));
			told = true;
		}
		member_event(&w, m, STORE_EVENT_ENTERED, m->seq, blob_span(m->blob));
		if (events_full(&w))
			push(kv, newcomer->client, OP_EVENTS, newcomer->gid, writer_done(&w));
	}
	push(kv, newcomer->client, OP_EVENTS, newcomer->gid, writer_done(&w));
}

static void refuse(struct kv *kv, struct kv_entering *e, int32_t code, const char *text)
{
	reply(kv, e->w.client, e->w.id, code, "group %s: %s", e->group->name, text);
	entering_drop(kv, e);
}

/* Shape of a group: what all members must agree on. */
static bool same_shape(const struct kv_entering *e, uint32_t size, uint32_t numbers,
		       const struct blob *spec)
{
	return e->size == size && e->numbers == numbers &&
	       span_equal(blob_span(e->spec), blob_span(spec));
}

static bool any_detached(const struct kv_group *g)
{
	const struct kv_member *m;

	DL_FOREACH(g->members, m)
	{
		if (m->client->detached)
			return true;
	}
	return false;
}

static uint32_t lowest_free(const struct kv_group *g)
{
	uint32_t i = 0;

	while (i < g->numbers && g->by_number[i])
		i++;
	return i;
}

/* The number for it; or STORE_MEMBER_ANY when it was refused (and freed) or must wait. */
static uint32_t admit_number(struct kv *kv, struct kv_group *g, struct kv_entering *e)
{
	char text[128];

	if (!same_shape(e, g->size, g->numbers, g->spec)) {
		const struct kv_member *m = g->members;
		struct store_conflict c = {.member = m->number, .own = e->member};
		reply_conflict(kv, &e->w, &c, blob_span(g->spec), blob_span(e->spec),
			       "size or specification differs from that of the members");
		entering_drop(kv, e);
		return STORE_MEMBER_ANY;
	}
	bool any = e->member == STORE_MEMBER_ANY;
	const struct kv_member *holder = any ? NULL : g->by_number[e->member];
	if (holder && !holder->client->detached) {
		snprintf(text, sizeof(text), "member %u is taken by a live process", e->member);
		refuse(kv, e, SMEM_DUPLICATED_OBJECT, text);
		return STORE_MEMBER_ANY;
	}
	uint32_t number = any ? lowest_free(g) : e->member;
	bool full = g->count >= g->size || number >= g->numbers;
	if (full && !any_detached(g)) {
		snprintf(text, sizeof(text), "full, %u members of at most %u", g->count, g->size);
		refuse(kv, e, SMEM_RESOURCE_IN_USE, text);
		return STORE_MEMBER_ANY;
	}
	return full || holder ? STORE_MEMBER_ANY : number;
}

static void admit(struct kv *kv, struct kv_group *g, struct kv_entering *e)
{
	struct writer w = {.blob = NULL};

	if (!group_begin(kv, g, e)) {
		refuse(kv, e, SMEM_MALLOC_FAILED, "out of memory");
		return;
	}
	uint32_t number = g->count ? admit_number(kv, g, e) : e->member;
	if (!g->count && number == STORE_MEMBER_ANY)
		number = 0;
	if (number == STORE_MEMBER_ANY)
		return;
	struct kv_member *m = member_add(g, e, number);
	if (!m) {
		refuse(kv, e, SMEM_MALLOC_FAILED, "out of memory");
		return;
	}
	member_event(&w, m, STORE_EVENT_ENTERED, m->seq, blob_span(m->blob));
	group_emit(kv, g, m, writer_done(&w));
	send_snapshot(kv, m);
	reply_entered(kv, e, m);
	entering_free(kv, e);
}

static int by_member(const void *a, const void *b)
{
	const struct kv_entering *x = *(struct kv_entering *const *)a;
	const struct kv_entering *y = *(struct kv_entering *const *)b;

	return x->member < y->member ? -1 : x->member > y->member;
}

struct ordered {
	struct kv_entering *e;
	uint32_t arrival;
};

static int by_sort_key(const void *a, const void *b)
{
	const struct ordered *x = a, *y = b;
	struct span s = blob_span(x->e->sort), t = blob_span(y->e->sort);
	size_t len = s.len < t.len ? s.len : t.len;
	int order = len ? memcmp(s.data, t.data, len) : 0;

	if (order == 0)
		order = s.len < t.len ? -1 : s.len > t.len;
	return order ? order : x->arrival < y->arrival ? -1 : 1;
}

/* LOBBY: numbers by (sort key, arrival). */
static bool lobby_number(struct kv_group *g, uint32_t count)
{
	struct ordered *list = calloc(count, sizeof(*list));
	struct kv_entering *e;
	uint32_t i = 0;

	if (!list)
		return false;
	DL_FOREACH(g->entering, e)
	{
		list[i].e = e;
		list[i].arrival = i;
		i++;
	}
	qsort(list, count, sizeof(*list), by_sort_key);
	for (i = 0; i < count; i++)
		list[i].e->member = i;
	free(list);
	return true;
}

static void form_members(struct kv *kv, struct kv_group *g, struct kv_entering **list,
			 uint32_t count)
{
	struct writer w = {.blob = NULL};

	g->formed = true;
	for (uint32_t i = 0; i < count; i++) {
		if (!member_add(g, list[i], list[i]->member)) {
			refuse(kv, list[i], SMEM_MALLOC_FAILED, "out of memory");
			list[i] = NULL;
		}
	}
	struct kv_member *m;
	DL_FOREACH(g->members, m)
	{
		member_event(&w, m, STORE_EVENT_ENTERED, m->seq, blob_span(m->blob));
		if (events_full(&w))
			group_emit(kv, g, NULL, writer_done(&w));
	}
	group_emit(kv, g, NULL, writer_done(&w));
	for (uint32_t i = 0; i < count; i++) {
		if (!list[i])
			continue;
		reply_entered(kv, list[i], g->by_number[list[i]->member]);
		entering_free(kv, list[i]);
	}
}

static void form(struct kv *kv, struct kv_group *g)
{
	uint32_t count = g->entering->size, i = 0;
	struct kv_entering **list = calloc(count, sizeof(struct kv_entering *));
	struct kv_entering *e;

	if (!list || !group_begin(kv, g, g->entering) ||
	    (g->entering->mode == STORE_GROUP_LOBBY && !lobby_number(g, count))) {
		free(list);
		while (g->entering)
			refuse(kv, g->entering, SMEM_MALLOC_FAILED, "out of memory");
		return;
	}
	DL_FOREACH(g->entering, e)
	list[i++] = e;
	qsort(list, count, sizeof(struct kv_entering *), by_member);
	form_members(kv, g, list, count);
	free(list);
}

/* ---- CLOSED: two disagree ---- */

#define REFUSAL_MS 60000ull /* a rank that is later than this was not of the same attempt */

static void refusal_free(struct kv *kv, struct kv_group *g)
{
	if (!g->refusal)
		return;
	kv->refusal_count--;
	blob_put(g->refusal->spec);
	blob_put(g->refusal->own);
	free(g->refusal);
	g->refusal = NULL;
}

void refusal_client_gone(struct kv *kv, struct kv_client *c)
{
	struct kv_group *g, *tmp;

	HASH_ITER (hh, kv->groups, g, tmp) {
		struct kv_refusal *r = g->refusal;
		bool any = false;
		for (uint32_t i = 0; r && i < r->count; i++) {
			if (r->told[i] == c)
				r->told[i] = NULL;
			any = any || r->told[i];
		}
		if (r && !any) {
			refusal_free(kv, g);
			group_tidy(kv, g);
		}
	}
}

static bool was_told(const struct kv_refusal *r, const struct kv_client *c)
{
	for (uint32_t i = 0; i < r->count; i++) {
		if (r->told[i] == c)
			return true;
	}
	return false;
}

static void tell(struct kv *kv, struct kv_refusal *r, struct kv_entering *e)
{
	reply_conflict(kv, &e->w, &r->conflict, blob_span(r->spec), blob_span(r->own), r->text);
	if (r->count < r->size)
		r->told[r->count++] = e->w.client;
	entering_drop(kv, e);
}

/* Of an attempt that has failed already, and not told so far? Then it is told and gone. */
static bool refused_before(struct kv *kv, struct kv_group *g, struct kv_entering *e)
{
	struct kv_refusal *r = g->refusal;

	if (r && e->w.begin >= r->end)
		refusal_free(kv, g);
	else if (r && !was_told(r, e->w.client)) {
		tell(kv, r, e);
		if (r->count == r->size)
			refusal_free(kv, g);
		return true;
	}
	return false;
}

/* All that wait are told, and those that have yet to come will be. */
static void refuse_all(struct kv *kv, struct kv_group *g, const struct kv_entering *a,
		       const struct kv_entering *b, bool duplicate)
{
	uint32_t size = a->size > b->size ? a->size : b->size;
	struct kv_refusal *r = calloc(1, sizeof(*r) + (size_t)size * sizeof(struct kv_client *));

	refusal_free(kv, g);
	if (!r) {
		while (g->entering)
			refuse(kv, g->entering, SMEM_MALLOC_FAILED, "out of memory");
		return;
	}
	r->conflict =
	    (struct store_conflict){.member = a->member, .own = b->member, .duplicate = duplicate};
	r->spec = blob_get(a->spec);
	r->own = blob_get(b->spec);
	r->end = b->w.begin + REFUSAL_MS * NS_PER_MS;
	r->size = size;
	snprintf(r->text, sizeof(r->text),
		 duplicate ? "member %u entered twice"
			   : "members %u and %u differ in size or specification",
		 a->member, b->member);
	g->refusal = r;
	kv->refusal_count++;
	while (g->entering)
		tell(kv, r, g->entering);
	if (r->count == r->size || kv->refusal_count > STORE_REFUSALS_MAX)
		refusal_free(kv, g);
}

/* One more waits for a life that has not begun. `e` is the last of the list. */
static void gather_up(struct kv *kv, struct kv_group *g, struct kv_entering *e)
{
	const struct kv_entering *first = g->entering, *other;
	bool closed = e->mode == STORE_GROUP_CLOSED;

	if (closed && refused_before(kv, g, e))
		return;
	if (e->mode != first->mode) {
		refuse(kv, e, SMEM_INVALID_PARAM, "others enter it in another mode");
		return;
	}
	if (!same_shape(e, first->size, first->numbers, first->spec)) {
		struct store_conflict c = {.member = first->member, .own = e->member};
		if (closed)
			return refuse_all(kv, g, first, e, false);
		reply_conflict(kv, &e->w, &c, blob_span(first->spec), blob_span(e->spec),
			       "size or specification differs from that of the first");
		entering_drop(kv, e);
		return;
	}
	uint32_t count = 0;
	bool verdict = true; /* on all whose connection is broken: back or lost? */
	DL_FOREACH(g->entering, other)
	{
		bool detached = other->w.client->detached;
		if (closed && other != e && other->member == e->member && !detached)
			return refuse_all(kv, g, other, e, true);
		verdict = verdict && !detached;
		count++;
	}
	if (count == e->size && verdict)
		form(kv, g);
}

/* Decide on one that is in the list; the list must not hold later ones that wait for a next life.
 */
static void consider(struct kv *kv, struct kv_group *g, struct kv_entering *e)
{
	if (g->count && e->mode != g->mode)
		refuse(kv, e, SMEM_INVALID_PARAM, "its members entered it in another mode");
	else if (e->mode == STORE_GROUP_OPEN || (g->formed && e->mode == STORE_GROUP_LOBBY))
		admit(kv, g, e);
	else if (!g->formed)
		gather_up(kv, g, e);
	/* else CLOSED and alive: wait for the next life */
}

void enter_again(struct kv *kv, struct kv_group *g, uint64_t now)
{
	struct kv_entering *waiting = g->entering, *e, *tmp;

	(void)now;
	if (g->formed && g->mode == STORE_GROUP_CLOSED)
		return;
	/* As if they came again, one after the other. */
	g->entering = NULL;
	DL_FOREACH_SAFE(waiting, e, tmp)
	{
		DL_DELETE(waiting, e);
		DL_APPEND(g->entering, e);
		consider(kv, g, e);
	}
}

static const char *enter_wrong(const struct request *req)
{
	bool any = req->index == STORE_MEMBER_ANY;

	if (req->flags > STORE_GROUP_LOBBY)
		return "unknown mode";
	if (req->size == 0 || req->size > WORLD_MAX || req->numbers > WORLD_MAX ||
	    req->numbers < req->size)
		return "size is not 1 to 1024";
	if (!any && req->index >= req->numbers)
		return "member number is too large";
	if (req->flags == STORE_GROUP_CLOSED && (any || req->numbers != req->size))
		return "a closed group needs member numbers below its size";
	if (req->flags == STORE_GROUP_LOBBY && (!any || req->numbers != req->size))
		return "a lobby gives the numbers";
	return NULL;
}

static struct kv_entering *entering_new(struct kv_group *g, const struct request *req)
{
	struct kv_entering *e = calloc(1, sizeof(*e));

	if (!e)
		return NULL;
	e->w.over = entering_over;
	e->group = g;
	e->mode = (enum store_group_mode)req->flags;
	e->member = req->index;
	e->size = req->size;
	e->numbers = req->numbers;
	e->spec = blob_new(req->extra.data, req->extra.len);
	e->blob = blob_new(req->val.data, req->val.len);
	e->sort = blob_new(req->sort.data, req->sort.len);
	if (e->spec && e->blob && e->sort)
		return e;
	blob_put(e->spec);
	blob_put(e->blob);
	blob_put(e->sort);
	free(e);
	return NULL;
}

void enter_begin(struct kv *kv, struct kv_client *c, const struct request *req, uint64_t now)
{
	const char *wrong = enter_wrong(req);
	struct kv_member *member;

	HASH_FIND(hh, c->members, &req->gid, sizeof(req->gid), member);
	if (wrong || member || req->gid == 0)
		return reply(kv, c, req->id, SMEM_INVALID_PARAM, "group %.*s: %s",
			     (int)req->key.len, (const char *)req->key.data,
			     wrong ? wrong : "its number at the client is in use");
	if (!thing_take(kv, c, req->id))
		return;
	struct kv_group *g = group_make(kv, req->key);
	if (g && entering_count(g) >= STORE_ENTERING_MAX) {
		c->thing_count--;
		return reply(kv, c, req->id, SMEM_RESOURCE_IN_USE,
			     "group %s: %u others wait to enter", g->name, STORE_ENTERING_MAX);
	}
	struct kv_entering *e = g ? entering_new(g, req) : NULL;
	bool ok = e && wait_begin(kv, &e->w, c, req, now);
	if (!ok) {
		if (!e)
			reply(kv, c, req->id, SMEM_MALLOC_FAILED, "store: out of memory");
		if (e) {
			blob_put(e->spec);
			blob_put(e->blob);
			blob_put(e->sort);
			free(e);
		}
		c->thing_count--;
	} else {
		DL_APPEND(g->entering, e);
		consider(kv, g, e);
	}
	if (g)
		group_tidy(kv, g);
}
