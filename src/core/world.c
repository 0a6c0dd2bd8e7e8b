/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ranks that all arrive together are a LOBBY, all others an OPEN group. Who holds which part of the
 * address space in reserve is told to the store before the rank is taken, so that nobody agrees on
 * addresses that a process already in the world cannot use.
 */
#include "core/world.h"

#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "core/space.h"
#include "util/err.h"
#include "util/limits.h"
#include "util/log.h"

/* By what ranks are numbered: family, address, device; bytewise. */
struct sort_key {
	uint8_t family; /* 4 or 6 */
	uint8_t addr[16];
	uint8_t device[2];
};
_Static_assert(sizeof(struct sort_key) == 19, "wire layout");

static int32_t make_sort_key(const struct world *w, struct sort_key *ret)
{
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);
	uint16_t device = w->config.device;
	struct sort_key key = {.device = {(uint8_t)(device >> 8), (uint8_t)device}};

	int32_t r = store_local_addr(w->store, &ss, &len);
	if (r != SMEM_OK)
		return r;
	const struct sockaddr_in *v4 = (const struct sockaddr_in *)&ss;
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&ss;
	key.family = ss.ss_family == AF_INET ? 4 : 6;
	if (ss.ss_family == AF_INET) {
		memcpy(key.addr, &v4->sin_addr, 4);
	} else if (IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr)) {
		key.family = 4;
		memcpy(key.addr, v6->sin6_addr.s6_addr + 12, 4);
	} else {
		memcpy(key.addr, &v6->sin6_addr, 16);
	}
	*ret = key;
	return SMEM_OK;
}

/* A loss in the world shows in the pools' groups, where it matters. */
static void world_event(void *arg, const struct store_event *e)
{
	(void)arg;
	if (e->kind == STORE_EVENT_LOST)
		LOG_INFO("world", "rank %u is lost", e->member);
}

static int32_t conflict_error(const struct world *w, const struct store_conflict *c)
{
	uint32_t theirs = 0;

	if (c->spec.len == sizeof(theirs))
		memcpy(&theirs, c->spec.data, sizeof(theirs));
	return smem_err(SMEM_INVALID_PARAM, "worldSize %u, the world at %s has %u (rank %u)",
			w->config.size, w->config.url.text, theirs, c->member);
}

static int32_t enter(struct world *w, struct deadline deadline)
{
	const struct world_config *c = &w->config;
	struct store_conflict conflict = {0};
	struct sort_key key;

	int32_t r = make_sort_key(w, &key);
	if (r != SMEM_OK)
		return r;
	struct store_enter e = {
	    .name = "bm/world",
	    .mode = c->ranking == WORLD_TOGETHER ? STORE_GROUP_LOBBY : STORE_GROUP_OPEN,
	    .member = c->ranking == WORLD_GIVEN ? c->rank : STORE_MEMBER_ANY,
	    .size = c->size,
	    .numbers = c->size,
	    .spec = &c->size,
	    .spec_len = sizeof(c->size),
	    .sort = &key,
	    .sort_len = sizeof(key),
	    .fn = world_event,
	};
	r = store_group_enter(w->store, &e, deadline, &conflict, &w->group);
	if (r == SMEM_INVALID_PARAM)
		r = conflict_error(w, &conflict);
	store_bytes_free(&conflict.spec);
	store_bytes_free(&conflict.own_spec);
	if (r == SMEM_OK)
		w->rank = store_group_member(w->group);
	return r;
}

static int32_t open_steps(struct world *w, struct deadline deadline)
{
	int32_t r = store_open(&w->config.url, w->config.role, deadline, &w->store);

	if (r != SMEM_OK || w->config.store_only)
		return r;
	r = space_get();
	if (r != SMEM_OK)
		return r;
	w->has_space = true;
	r = space_tell(w->store, deadline);
	if (r != SMEM_OK)
		return r;
	return enter(w, deadline);
}

int32_t world_open(const struct world_config *config, struct deadline deadline, struct world *ret)
{
	struct world w = {.config = *config, .rank = WORLD_NO_RANK};
	char detail[900];

	int32_t r = open_steps(&w, deadline);
	if (r == SMEM_OK) {
		*ret = w;
		return SMEM_OK;
	}
	snprintf(detail, sizeof(detail), "%s", err_detail());
	world_close(&w, INIT_LINGER_MS);
	return smem_err(r, "%s", detail);
}

void world_close(struct world *world, uint32_t linger_ms)
{
	if (world->group)
		store_group_leave(world->group, false, deadline_in_ms(linger_ms));
	store_group_free(world->group);
	if (world->has_space)
		space_put();
	store_close(world->store, linger_ms);
	*world = (struct world){.rank = WORLD_NO_RANK};
}
