/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pool is built by a row of steps and taken down by one destructor that finds whatever prefix of
 * them is there. Membership is another such row on top: keeper, group, fence.
 *
 * Joining is three round trips to the store, however many join at the same time: enter, the
 * members' acknowledgements, and the fence's answer. The fence is on the own entering: all who were
 * there have mapped this rank, and the own acknowledgement, which counts too, says that this rank
 * has mapped them. Who enters later waits for this rank in its own fence.
 */
#include "core/pool.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/keeper.h"
#include "util/cleanup.h"
#include "util/err.h"
#include "util/limits.h"
#include "util/log.h"
#include "util/rng.h"

/* What all members must agree on; travels as the group's spec. */
struct pool_spec {
	uint32_t version;
	uint32_t world;
	uint32_t members;
	uint32_t reserved;
	uint64_t size[POOL_WINDOWS];
	uint64_t base[POOL_WINDOWS];
};
_Static_assert(sizeof(struct pool_spec) == 48, "wire layout");
#define POOL_SPEC_VERSION 1u

static const char *const kind_name[POOL_WINDOWS] = {"hbm", "dram"};

/* ---- create ---- */

static int32_t create_window(struct pool *pool, int kind, struct deadline deadline)
{
	struct pool_window *w = &pool->window[kind];
	const struct pool_config *c = &pool->config;
	char name[sizeof(pool->name) + 8];

	w->size = c->size[kind];
	w->len = w->size * c->world;
	if (w->size == 0)
		return SMEM_OK;
	snprintf(name, sizeof(name), "%s/%s", pool->name, kind_name[kind]);
	int32_t r = space_hold(c->store, name, w->len, deadline, &w->space);
	if (r != SMEM_OK)
		return r;
	w->base = w->space.base;
	r = segment_create(w->size, pool_slot(pool, kind, c->rank), &w->own);
	if (r != SMEM_OK)
		return r;
	r = segment_offer(&w->own);
	if (r != SMEM_OK)
		return r;
	pool->expose_id[kind] = rng_u64();
	return paths_expose(pool->expose_id[kind], w->own.addr, w->size, true, pool->secret);
}

static void peer_agent_lost(void *arg, struct peer *p)
{
	struct pool *pool = arg;

	atomic_fetch_add(&pool->losses, 1);
	keeper_peer_lost(pool->keeper, p->rank, atomic_load(&p->incarnation));
}

static int32_t create_peers(struct pool *pool)
{
	pool->peers = calloc(pool->config.world, sizeof(*pool->peers));
	if (!pool->peers)
		return smem_err(SMEM_MALLOC_FAILED, "%u peers of %s", pool->config.world,
				pool->name);
	for (uint32_t i = 0; i < pool->config.world; i++) {
		struct peer *p = &pool->peers[i];
		p->rank = i;
		p->on_lost = peer_agent_lost;
		p->arg = pool;
		pthread_mutex_init(&p->path_lock, NULL);
	}
	atomic_store(&pool->peers[pool->config.rank].state, PEER_MEMBER);
	atomic_store(&pool->peers[pool->config.rank].mapped, true);
	return SMEM_OK;
}

static int32_t create_steps(struct pool *pool, struct deadline deadline)
{
	struct sockaddr_storage route;
	socklen_t route_len = sizeof(route);

	int32_t r = rng_bytes(pool->secret, sizeof(pool->secret));
	if (r == SMEM_OK)
		r = create_peers(pool);
	if (r == SMEM_OK)
		r = store_local_addr(pool->config.store, &route, &route_len);
	if (r != SMEM_OK)
		return r;
	r = space_get();
	if (r != SMEM_OK)
		return r;
	pool->has_space = true;
	r = agent_get();
	if (r != SMEM_OK)
		return r;
	pool->has_agent = true;
	if (store_encrypted(pool->config.store))
		paths_store_encrypted();
	r = paths_get(&route, route_len);
	if (r != SMEM_OK)
		return r;
	pool->has_paths = true;
	for (int kind = 0; kind < POOL_WINDOWS && r == SMEM_OK; kind++)
		r = create_window(pool, kind, deadline);
	return r;
}

static void free_window(struct pool *pool, int kind, struct deadline deadline)
{
	struct pool_window *w = &pool->window[kind];

	if (pool->expose_id[kind] != 0 && paths_withdraw(pool->expose_id[kind], deadline))
		LOG_WARN("pool", "%s: withdrawing the own memory: %s", pool->name, err_detail());
	segment_destroy(&w->own);
	if (w->space.base)
		space_release(&w->space);
}

static void report(void *arg, struct survey_writer *w)
{
	struct pool *pool = arg;
	bool closed = pool->config.mode == STORE_GROUP_CLOSED;

	survey_object(w, &(struct survey_object){.kind = closed ? SURVEY_SHM : SURVEY_BM,
						 .name = pool->name,
						 .rank = pool->config.rank,
						 .world = pool->config.world,
						 .joined = atomic_load(&pool->joined)});
	for (uint32_t i = 0; i < pool->config.world; i++) {
		if (i != pool->config.rank)
			peer_report(&pool->peers[i], w);
	}
}

/* Any prefix of create_steps(). */
static void pool_free(struct pool *pool, struct deadline deadline)
{
	survey_unlist(&pool->survey);
	for (int kind = 0; kind < POOL_WINDOWS; kind++)
		free_window(pool, kind, deadline);
	if (pool->has_paths)
		paths_put();
	if (pool->has_agent)
		agent_put();
	if (pool->has_space)
		space_put();
	for (uint32_t i = 0; pool->peers && i < pool->config.world; i++)
		pthread_mutex_destroy(&pool->peers[i].path_lock);
	free(pool->peers);
	pthread_mutex_destroy(&pool->control);
	pthread_mutex_destroy(&pool->lock);
	free(pool);
}

int32_t pool_create(const struct pool_config *config, struct deadline deadline, struct pool **ret)
{
	struct pool *pool = calloc(1, sizeof(*pool));

	if (!pool)
		return smem_err(SMEM_MALLOC_FAILED, "pool %s", config->name);
	pool->config = *config;
	snprintf(pool->name, sizeof(pool->name), "%s", config->name);
	pool->config.name = pool->name;
	pthread_mutex_init(&pool->control, NULL);
	pthread_mutex_init(&pool->lock, NULL);
	int32_t r = create_steps(pool, deadline);
	if (r != SMEM_OK) {
		pool_free(pool, deadline_in_ms(0));
		return r;
	}
	pool->survey =
	    (struct survey_source){.store = config->store, .report = report, .arg = pool};
	survey_list(&pool->survey);
	*ret = pool;
	return SMEM_OK;
}

/* ---- join ---- */

static struct pool_spec make_spec(const struct pool *pool)
{
	struct pool_spec spec = {.version = POOL_SPEC_VERSION,
				 .world = pool->config.world,
				 .members = pool->config.members};

	for (int w = 0; w < POOL_WINDOWS; w++) {
		spec.size[w] = pool->window[w].size;
		spec.base[w] = (uint64_t)(uintptr_t)pool->window[w].base;
	}
	return spec;
}

static int32_t differs(const char *what, uint64_t own, uint64_t theirs, uint32_t own_rank,
		       uint32_t rank)
{
	return smem_err(SMEM_INVALID_PARAM,
			"%s %" PRIu64 " of rank %u, group has %" PRIu64 " (rank %u)", what, own,
			own_rank, theirs, rank);
}

/* Entering said that somebody's spec is another: which field, and both values. */
static int32_t conflict_error(const struct pool *pool, const struct store_conflict *c)
{
	const struct pool_config *config = &pool->config;
	struct pool_spec own = make_spec(pool), theirs;
	uint32_t own_rank = config->rank;

	if (c->duplicate)
		return smem_err(SMEM_INVALID_PARAM, "rank %u is used twice in %s", c->member,
				pool->name);
	if (c->spec.len != sizeof(theirs))
		return smem_err(SMEM_INVALID_PARAM, "%s is something else for rank %u", pool->name,
				c->member);
	memcpy(&theirs, c->spec.data, sizeof(theirs));
	if (c->own_spec.len == sizeof(own)) {
		memcpy(&own, c->own_spec.data, sizeof(own));
		own_rank = c->own;
	}
	if (theirs.world != own.world)
		return differs(config->mode == STORE_GROUP_OPEN ? "worldSize"
								: config->members_name,
			       own.world, theirs.world, own_rank, c->member);
	if (theirs.members != own.members)
		return differs(config->members_name, own.members, theirs.members, own_rank,
			       c->member);
	for (int w = 0; w < POOL_WINDOWS; w++) {
		if (theirs.size[w] != own.size[w])
			return differs(config->size_name[w], own.size[w], theirs.size[w], own_rank,
				       c->member);
		if (theirs.base[w] != own.base[w])
			return smem_err(SMEM_INVALID_PARAM,
					"%s window of rank %u at 0x%" PRIx64
					", group has 0x%" PRIx64 " (rank %u)",
					kind_name[w], own_rank, own.base[w], theirs.base[w],
					c->member);
	}
	return smem_err(SMEM_INVALID_PARAM, "%s is of another version for rank %u", pool->name,
			c->member);
}

static int32_t make_card(const struct pool *pool, void *buf, size_t *ret_len)
{
	struct peer_card card = {.version = PEER_CARD_VERSION, .agent = *agent_own()};
	size_t addrs_len = 0;

	int32_t r = paths_addresses((char *)buf + sizeof(card), PATH_ADDRS_MAX, &addrs_len);
	if (r != SMEM_OK)
		return r;
	card.addrs_len = (uint32_t)addrs_len;
	memcpy(card.secret, pool->secret, sizeof(card.secret));
	for (int w = 0; w < POOL_WINDOWS; w++)
		card.seg[w] = pool->window[w].own.exported;
	memcpy(buf, &card, sizeof(card));
	*ret_len = sizeof(card) + addrs_len;
	return SMEM_OK;
}

static int32_t enter(struct pool *pool, struct deadline deadline, struct store_group **ret)
{
	const struct pool_config *c = &pool->config;
	struct pool_spec spec = make_spec(pool);
	struct store_conflict conflict = {0};
	_Alignas(8) char card[PEER_CARD_MAX];
	size_t card_len;

	int32_t r = make_card(pool, card, &card_len);
	if (r != SMEM_OK)
		return r;
	struct store_enter e = {
	    .name = pool->name,
	    .mode = c->mode,
	    .member = c->rank,
	    .size = c->members,
	    .numbers = c->world,
	    .spec = &spec,
	    .spec_len = sizeof(spec),
	    .blob = card,
	    .blob_len = card_len,
	    .fn = keeper_event,
	    .arg = pool->keeper,
	    .woken = &pool->woken,
	};
	r = store_group_enter(c->store, &e, deadline, &conflict, ret);
	if (r == SMEM_INVALID_PARAM)
		r = conflict_error(pool, &conflict);
	store_bytes_free(&conflict.spec);
	store_bytes_free(&conflict.own_spec);
	return r;
}

/* The membership is known from here on to who wakes. SMEM_OBJECT_NOT_EXISTS: too late. */
static int32_t set_group(struct pool *pool, struct store_group *group)
{
	LOCKED(&pool->lock);
	pool->group = group;
	if (!atomic_load(&pool->woken))
		return SMEM_OK;
	return smem_err(SMEM_OBJECT_NOT_EXISTS, "%s is being destroyed", pool->name);
}

/* All peers go: their memory is unmapped when nobody is inside the gate any more. */
static void drop_peers(struct pool *pool)
{
	uint32_t own = pool->config.rank;

	for (uint32_t i = 0; i < pool->config.world; i++) {
		if (i == own)
			continue;
		atomic_store(&pool->peers[i].state, PEER_NONE);
		atomic_store(&pool->peers[i].mapped, false);
	}
	while (pool->config.gate && !gate_drain(pool->config.gate, deadline_in_s(3600)))
		;
	for (uint32_t i = 0; i < pool->config.world; i++) {
		if (i != own)
			peer_close(&pool->peers[i]);
	}
}

/*
 * The end of a membership, whatever is there of it, after the group was left: no event comes any
 * more. The group goes under the lock, so that nobody wakes what is freed.
 */
static void dissolve(struct pool *pool)
{
	struct store_group *group = pool->group;

	pthread_mutex_lock(&pool->lock);
	pool->group = NULL;
	pthread_mutex_unlock(&pool->lock);
	/* Peers' agents report to the keeper until they are closed. */
	keeper_stop(pool->keeper);
	drop_peers(pool);
	keeper_free(take_ptr(&pool->keeper));
	store_group_free(group);
}

/* The result of leaving; all is taken down whatever it is. */
static int32_t withdraw(struct pool *pool, bool wait_acks, struct deadline deadline)
{
	int32_t r = SMEM_OK;

	atomic_store(&pool->joined, false);
	if (pool->group)
		r = store_group_leave(pool->group, wait_acks, deadline);
	dissolve(pool);
	return r;
}

/* CLOSED: all were there, so one that is not any more ends it. */
static int32_t check_all_live(const struct pool *pool)
{
	for (uint32_t i = 0; i < pool->config.world; i++) {
		if (peer_state(&pool->peers[i]) == PEER_LOST)
			return pool_peer_error(pool, i);
	}
	return SMEM_OK;
}

static int32_t join_steps(struct pool *pool, struct deadline deadline)
{
	struct store_group *group = NULL;

	int32_t r = keeper_start(pool, deadline, &pool->keeper);
	if (r == SMEM_OK)
		r = enter(pool, deadline, &group);
	if (r == SMEM_OK)
		r = set_group(pool, group);
	if (r != SMEM_OK)
		return r;
	keeper_entered(pool->keeper, group);
	bool closed = pool->config.mode == STORE_GROUP_CLOSED;
	uint64_t seq = closed ? keeper_last_entered(pool->keeper) : store_group_seq(group);
	r = store_group_fence(group, seq, deadline);
	keeper_sync(pool->keeper);
	if (r == SMEM_OK && closed)
		r = check_all_live(pool);
	return r;
}

int32_t pool_join(struct pool *pool, struct deadline deadline)
{
	char detail[900];

	LOCKED(&pool->control);
	if (atomic_load(&pool->joined))
		return SMEM_OK;
	if (atomic_load(&pool->woken))
		return smem_err(SMEM_OBJECT_NOT_EXISTS, "%s is being destroyed", pool->name);
	int32_t r = join_steps(pool, deadline);
	if (r == SMEM_OK) {
		atomic_store(&pool->joined, true);
		return SMEM_OK;
	}
	snprintf(detail, sizeof(detail), "%s", err_detail());
	withdraw(pool, false, deadline_in_ms(JOIN_UNDO_MS));
	return smem_err(r, "%s", detail);
}

/* ---- leave, destroy ---- */

static int32_t leave_unheard(const struct pool *pool)
{
	return smem_err(SMEM_UNREACHABLE,
			"the store %s is lost: rank %u cannot leave %s, only destroy it",
			store_url_text(pool->config.store), pool->config.rank, pool->name);
}

int32_t pool_leave(struct pool *pool, struct deadline deadline)
{
	LOCKED(&pool->control);
	if (!atomic_load(&pool->joined))
		return smem_err(SMEM_NOT_STARTED, "rank %u has not joined %s", pool->config.rank,
				pool->name);
	if (store_lost(pool->config.store))
		return leave_unheard(pool);
	atomic_store(&pool->joined, false);
	int32_t r = store_group_try_leave(pool->group, deadline);
	if (r == SMEM_UNREACHABLE && store_lost(pool->config.store)) {
		/* Nobody was told: as before, and the members may go on copying. */
		atomic_store(&pool->joined, true);
		return leave_unheard(pool);
	}
	dissolve(pool);
	return r;
}

void pool_destroy(struct pool *pool, struct deadline deadline)
{
	if (!pool)
		return;
	/* Where what a leaver had stays mapped, nobody has to be waited for. */
	if (pool->group && withdraw(pool, !pool->config.keep_left, deadline) != SMEM_OK)
		LOG_INFO("pool", "%s: leaving for good: %s", pool->name, err_detail());
	pool_free(pool, deadline);
}

void pool_wake(struct pool *pool)
{
	LOCKED(&pool->lock);
	atomic_store(&pool->woken, true);
	if (pool->group)
		store_group_wake(pool->group);
	else
		store_enter_wake(pool->config.store, &pool->woken);
}

struct store_group *pool_group(struct pool *pool)
{
	LOCKED(&pool->lock);
	return pool->group;
}

int32_t pool_peer_error(const struct pool *pool, uint32_t rank)
{
	const struct peer *p = pool_peer(pool, rank);

	switch (peer_state(p)) {
	case PEER_LOST:
		return smem_err(SMEM_PEER_LOST, "rank %u of %s was lost %llu ms ago", rank,
				pool->name, clock_ns() / NS_PER_MS - atomic_load(&p->lost_ms));
	case PEER_LEFT:
		return smem_err(SMEM_NOT_STARTED, "rank %u has left %s", rank, pool->name);
	default:
		return smem_err(SMEM_NOT_STARTED, "rank %u has not joined %s", rank, pool->name);
	}
}
