/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agreement on addresses: the arenas (arena.c) are what this process can use, the store's range
 * allocator decides. A store keeps the objects under it apart by itself; what it cannot know is
 * what this process uses under other stores, so that is left out of what it is told, and it is told
 * again when that has changed.
 *
 * Stores are told apart by the number of their client: an address of a store object may come back.
 */
#include "core/space.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "core/arena.h"
#include "util/cleanup.h"
#include "util/err.h"
#include "util/fork.h"
#include "util/limits.h"

#define TOLD_SLOTS 16u
#define TRIES	   3 /* a hold may lose a race with one under another store */

/* What a store was told last, by hash of its client. The lock is held while the store is told, so
 * that two tellings cannot overtake each other. */
struct told {
	pthread_mutex_t lock;
	uint64_t owner;
	uint32_t count;
	struct arena_range usable[ARENA_MAX];
};
static struct told told[TOLD_SLOTS] = {
    [0 ... TOLD_SLOTS - 1] = {.lock = PTHREAD_MUTEX_INITIALIZER},
};

int32_t space_get(void)
{
	return arena_get();
}

void space_put(void)
{
	arena_put();
}

static bool knows(const struct told *t, uint64_t owner, const struct arena_range *now, uint32_t n)
{
	return t->owner == owner && t->count == n && memcmp(t->usable, now, n * sizeof(*now)) == 0;
}

int32_t space_tell(struct store *store, struct deadline deadline)
{
	uint64_t owner = store_client_id(store);
	struct told *t = &told[owner % TOLD_SLOTS];
	struct arena_range now[ARENA_MAX];
	struct store_range usable[ARENA_MAX];

	LOCKED(&t->lock);
	uint32_t n = arena_usable(owner, now, ARENA_MAX);
	if (knows(t, owner, now, n))
		return SMEM_OK;
	for (uint32_t i = 0; i < n; i++)
		usable[i] = (struct store_range){now[i].begin, now[i].end};
	int32_t r = store_range_usable(store, usable, n, deadline);
	if (r != SMEM_OK)
		return r;
	t->owner = owner;
	t->count = n;
	memcpy(t->usable, now, n * sizeof(*now));
	return SMEM_OK;
}

static int32_t hold_once(struct space *s, struct deadline deadline, uint64_t *ret)
{
	int32_t r = space_tell(s->store, deadline);

	if (r == SMEM_OK)
		r = store_range_hold(s->store, s->name, s->len, SLOT_ALIGN, deadline, ret);
	if (r != SMEM_OK)
		return r;
	if (arena_take(store_client_id(s->store), *ret, s->len))
		return SMEM_OK;
	store_range_release(s->store, s->name);
	return smem_err(SMEM_RESOURCE_IN_USE,
			"address range [0x%" PRIx64 ", +0x%" PRIx64
			") of %s is taken in this process",
			*ret, s->len, s->name);
}

int32_t space_hold(struct store *store, const char *name, uint64_t len, struct deadline deadline,
		   struct space *ret)
{
	struct space s = {.len = len, .store = store};
	uint64_t begin = 0, before = 0;
	int32_t r = SMEM_RESOURCE_IN_USE;

	if ((size_t)snprintf(s.name, sizeof(s.name), "%s", name) >= sizeof(s.name))
		return smem_err(SMEM_INVALID_PARAM, "name of an address range is too long: %s",
				name);
	for (int i = 0; i < TRIES && r == SMEM_RESOURCE_IN_USE; i++) {
		r = hold_once(&s, deadline, &begin);
		if (begin == before)
			break; /* refused by the store, or agreed on by others already */
		before = begin;
	}
	if (r != SMEM_OK)
		return r;
	s.base = (char *)(uintptr_t)begin; /* NOLINT: integers are what processes agree on */
	*ret = s;
	return SMEM_OK;
}

void space_release(struct space *space)
{
	if (!space->base)
		return;
	arena_give((uint64_t)(uintptr_t)space->base, space->len);
	store_range_release(space->store, space->name);
	space->base = NULL;
}

static void fork_child(void)
{
	for (unsigned i = 0; i < TOLD_SLOTS; i++) {
		told[i].owner = 0;
		pthread_mutex_init(&told[i].lock, NULL);
	}
}

static const struct fork_hooks hooks = {
    .order = FORK_ORDER_DEVICE,
    .child = fork_child,
};
FORK_HOOKS(hooks)
