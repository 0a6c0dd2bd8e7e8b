/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The group's history arrives on the I/O loop, where nothing may block, and is dealt with here in
 * the same order: map a newcomer and say so, take a leaver down and say so. Two things are done on
 * the loop at once, because they cannot wait for a keeper that is mapping gigabytes: a loss sets
 * the peer's state, and breaks off what is in flight to it.
 *
 * Before the own entering comes by, a member that cannot be mapped fails the own join: the
 * acknowledgement of the own entering carries it. After that it fails the newcomer's. In a CLOSED
 * group all enter together, so the first failure is carried by every acknowledgement.
 */
#include "core/keeper.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/cleanup.h"
#include "util/err.h"
#include "util/limits.h"
#include "util/log.h"
#include "util/thread.h"

struct event {
	struct event *next;
	enum store_event_kind kind;
	uint32_t member;
	uint64_t seq;
	uint64_t incarnation;
	size_t len;
	_Alignas(8) char data[];
};

struct keeper {
	struct pool *pool;
	struct deadline deadline;
	pthread_t thread;
	pthread_mutex_t lock; /* what follows, up to the gap */
	pthread_cond_t cond;
	struct event *head;
	struct event **tail;
	struct store_group *group; /* NULL: entering has not returned */
	uint64_t last_entered;
	bool stop;

	bool entered; /* the keeper's own: the own entering came by */
	int32_t code; /* why a member that was there cannot be used */
	char text[512];
};

/* ---- on the I/O loop ---- */

static void push(struct keeper *k, const struct store_event *e)
{
	struct event *ev = malloc(sizeof(*ev) + e->len);

	if (!ev) {
		LOG_ERROR("pool", "%s: out of memory for an event of rank %u", k->pool->name,
			  e->member);
		return;
	}
	*ev = (struct event){.kind = e->kind,
			     .member = e->member,
			     .seq = e->seq,
			     .incarnation = e->incarnation,
			     .len = e->len};
	if (e->len > 0)
		memcpy(ev->data, e->data, e->len);
	LOCKED(&k->lock);
	*k->tail = ev;
	k->tail = &ev->next;
	if (e->kind == STORE_EVENT_ENTERED && e->seq > k->last_entered)
		k->last_entered = e->seq;
	pthread_cond_broadcast(&k->cond);
}

void keeper_event(void *arg, const struct store_event *e)
{
	struct keeper *k = arg;
	struct pool *pool = k->pool;

	if (e->kind == STORE_EVENT_CLOSED)
		LOG_INFO("pool", "%s: the store is lost; joined members stay usable", pool->name);
	else if (e->member >= pool->config.world)
		return;
	if (e->kind == STORE_EVENT_LOST && e->member != pool->config.rank &&
	    peer_lose(&pool->peers[e->member], e->incarnation))
		atomic_fetch_add(&pool->losses, 1);
	if (e->kind == STORE_EVENT_ENTERED || e->kind == STORE_EVENT_LEFT ||
	    e->kind == STORE_EVENT_LOST)
		push(k, e);
	if (pool->config.event)
		pool->config.event(pool->config.arg, e);
}

void keeper_peer_lost(struct keeper *k, uint32_t rank, uint64_t incarnation)
{
	struct store_event e = {
	    .kind = STORE_EVENT_LOST, .member = rank, .incarnation = incarnation};

	push(k, &e);
	if (k->pool->config.event)
		k->pool->config.event(k->pool->config.arg, &e);
}

/* ---- the thread ---- */

/* Only a group that entering has returned can be spoken to. False: stop. */
static bool wait_group(struct keeper *k)
{
	LOCKED(&k->lock);
	while (!k->group && !k->stop)
		pthread_cond_wait(&k->cond, &k->lock);
	return !k->stop;
}

static void ack(struct keeper *k, uint64_t seq, int32_t code, const char *text)
{
	if (seq != 0 && wait_group(k))
		store_group_ack(k->group, seq, code, text);
}

static void drain(struct keeper *k)
{
	struct gate *gate = k->pool->config.gate;

	while (gate && !gate_drain(gate, deadline_in_s(3600)))
		;
}

/* Has it left meanwhile? Its leaving may be queued behind its entering. */
static bool has_left(struct keeper *k, uint32_t member, uint64_t incarnation)
{
	LOCKED(&k->lock);
	for (struct event *e = k->head; e; e = e->next) {
		if (e->member == member && e->incarnation == incarnation &&
		    e->kind != STORE_EVENT_ENTERED)
			return true;
	}
	return false;
}

static int32_t open_peer(struct keeper *k, struct peer *p, const struct event *e)
{
	struct pool *pool = k->pool;
	char *slot[PEER_SEGMENTS];

	if (peer_state(p) != PEER_NONE) {
		/* Its last contents were readable up to here. */
		atomic_store(&p->mapped, false);
		drain(k);
		peer_close(p);
	}
	int32_t r = peer_card_check(e->data, e->len);
	if (r != SMEM_OK)
		return r;
	for (int w = 0; w < POOL_WINDOWS; w++) {
		const struct segment_export *ex = &((const struct peer_card *)e->data)->seg[w];
		if (ex->size != pool->window[w].size)
			return smem_err(SMEM_IO, "rank %u announces %" PRIu64 " bytes of %" PRIu64,
					e->member, ex->size, pool->window[w].size);
		slot[w] = ex->size ? pool_slot(pool, w, e->member) : NULL;
	}
	struct deadline limit = deadline_in_ms(KEEPER_OPEN_MS);
	if (!k->entered && k->deadline.end < limit.end)
		limit.end = k->deadline.end;
	return peer_open(p, e->incarnation, (const struct peer_card *)e->data, slot, limit);
}

static void on_entered(struct keeper *k, const struct event *e)
{
	struct pool *pool = k->pool;
	struct peer *p = &pool->peers[e->member];

	if (e->member == pool->config.rank) {
		k->entered = true;
		ack(k, e->seq, k->code, k->text);
		return;
	}
	int32_t r = open_peer(k, p, e);
	if (r == SMEM_OK)
		LOG_INFO("pool", "%s: rank %u by %s%s%s", pool->name, e->member, p->path.name,
			 p->path.why[0] ? "; not " : "", p->path.why);
	if (r == SMEM_PEER_LOST || (r != SMEM_OK && has_left(k, e->member, e->incarnation)))
		r = SMEM_OK; /* nobody to be told */
	if (r != SMEM_OK && k->code == SMEM_OK &&
	    (!k->entered || pool->config.mode == STORE_GROUP_CLOSED)) {
		k->code = r;
		snprintf(k->text, sizeof(k->text), "rank %u cannot use the memory of rank %u: %s",
			 pool->config.rank, e->member, err_detail());
	}
	if (r == SMEM_OK || pool->config.mode == STORE_GROUP_CLOSED) {
		ack(k, e->seq, k->entered ? k->code : SMEM_OK, k->text);
		return;
	}
	char text[512];
	snprintf(text, sizeof(text), "rank %u cannot use the memory of rank %u: %s",
		 pool->config.rank, e->member, err_detail());
	LOG_WARN("pool", "%s: %s", pool->name, text);
	ack(k, e->seq, k->entered ? r : SMEM_OK, text);
}

/* Left or lost: nobody uses it any more from here on. What a lost member had stays readable. */
static void on_gone(struct keeper *k, const struct event *e)
{
	struct pool *pool = k->pool;
	struct peer *p = &pool->peers[e->member];

	if (e->member != pool->config.rank && atomic_load(&p->incarnation) == e->incarnation) {
		bool left = e->kind == STORE_EVENT_LEFT;
		bool unmap = left && !pool->config.keep_left;
		if (left)
			atomic_store(&p->state, PEER_LEFT);
		if (unmap)
			atomic_store(&p->mapped, false);
		drain(k);
		if (unmap)
			peer_close(p);
		else
			peer_cut(p);
		LOG_INFO("pool", "%s: rank %u %s", pool->name, e->member, left ? "left" : "lost");
	}
	ack(k, e->seq, SMEM_OK, "");
}

static struct event *pop(struct keeper *k)
{
	LOCKED(&k->lock);
	while (!k->head && !k->stop)
		pthread_cond_wait(&k->cond, &k->lock);
	if (k->stop)
		return NULL;
	struct event *e = k->head;
	k->head = e->next;
	if (!k->head)
		k->tail = &k->head;
	return e;
}

static void *run(void *arg)
{
	struct keeper *k = arg;

	for (struct event *e = pop(k); e; e = pop(k)) {
		if (e->kind == STORE_EVENT_ENTERED)
			on_entered(k, e);
		else
			on_gone(k, e);
		free(e);
	}
	return NULL;
}

int32_t keeper_start(struct pool *pool, struct deadline deadline, struct keeper **ret)
{
	struct keeper *k = calloc(1, sizeof(*k));

	if (!k)
		return smem_err(SMEM_MALLOC_FAILED, "keeper of %s", pool->name);
	k->pool = pool;
	k->deadline = deadline;
	k->tail = &k->head;
	pthread_mutex_init(&k->lock, NULL);
	pthread_cond_init(&k->cond, NULL);
	int32_t r = thread_start(&k->thread, "smem-keeper", run, k);
	if (r != SMEM_OK) {
		free(k);
		return r;
	}
	*ret = k;
	return SMEM_OK;
}

void keeper_entered(struct keeper *k, struct store_group *group)
{
	LOCKED(&k->lock);
	k->group = group;
	pthread_cond_broadcast(&k->cond);
}

uint64_t keeper_last_entered(struct keeper *k)
{
	LOCKED(&k->lock);
	return k->last_entered;
}

/* An acknowledgement takes the lock after the work it is for. */
void keeper_sync(struct keeper *k)
{
	LOCKED(&k->lock);
}

void keeper_stop(struct keeper *k)
{
	if (!k)
		return;
	pthread_mutex_lock(&k->lock);
	bool running = !k->stop;
	k->stop = true;
	pthread_cond_broadcast(&k->cond);
	pthread_mutex_unlock(&k->lock);
	if (running)
		pthread_join(k->thread, NULL);
}

void keeper_free(struct keeper *k)
{
	if (!k)
		return;
	for (struct event *e = k->head; e;) {
		struct event *next = e->next;
		free(e);
		e = next;
	}
	pthread_cond_destroy(&k->cond);
	pthread_mutex_destroy(&k->lock);
	free(k);
}
