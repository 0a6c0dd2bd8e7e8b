/* SPDX-License-Identifier: Apache-2.0 */
/* Processes agree on addresses through the store, also when a candidate is occupied in one of them.
 */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "core/arena.h"
#include "core/segment.h"
#include "core/space.h"
#include "harness.h"
#include "store/store.h"
#include "util/err.h"
#include "util/limits.h"

#define GIB	    0x40000000ull
#define PATIENCE_MS 20000

static struct deadline soon(void)
{
	return deadline_in_ms(PATIENCE_MS);
}

static struct store *connect_store(struct rank *r)
{
	struct store_url url;
	struct store *s = NULL;

	RANK_OK(r, store_url_parse(r->url, false, &url));
	RANK_OK(r, store_open(&url, r->rank == 0 ? STORE_HOST : STORE_CONNECT, soon(), &s));
	return s;
}

/* Rank 0 hosts the store, so it closes last. */
static void disconnect(struct rank *r, struct store *s)
{
	rank_barrier(r);
	store_close(s, 1000);
}

/* Something of the application's lies a little way into [begin, ...). */
static void *occupy(struct rank *r, uint64_t begin)
{
	void *want = (void *)(uintptr_t)(begin + SLOT_ALIGN);
	void *at = mmap(want, 4096, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	RANK_ASSERT(r, at == want);
	memset(at, 7, 4096);
	return at;
}

static uint64_t first_candidate(struct rank *r)
{
	struct arena_range range;

	RANK_OK(r, arena_get());
	RANK_ASSERT(r, arena_usable(1, &range, 1) == 1);
	arena_put();
	return range.begin;
}

static uint64_t all_equal(struct rank *r, const struct space *s)
{
	uint64_t mine = (uint64_t)(uintptr_t)s->base, all[RANK_MAX];

	rank_gather(r, &mine, sizeof(mine), all);
	for (uint32_t i = 0; i < r->size; i++)
		RANK_ASSERT(r, all[i] == mine);
	return mine;
}

/* All hold the same objects at once, in another order each; all get the same, apart. */
static void agree(struct rank *r)
{
	struct space s[4] = {{.base = NULL}};
	struct store *store = connect_store(r);
	char name[16];

	RANK_OK(r, space_get());
	RANK_OK(r, space_tell(store, soon()));
	rank_barrier(r);
	for (uint32_t i = 0; i < 4; i++) {
		uint32_t k = (i + r->rank) % 4;
		snprintf(name, sizeof(name), "bm/%u", k);
		RANK_OK(r, space_hold(store, name, (k + 1) * GIB, soon(), &s[k]));
	}
	for (uint32_t k = 0; k < 4; k++) {
		all_equal(r, &s[k]);
		for (uint32_t i = 0; i < k; i++)
			RANK_ASSERT(r, s[i].base + s[i].len <= s[k].base ||
					   s[k].base + s[k].len <= s[i].base);
	}
	for (uint32_t k = 0; k < 4; k++)
		space_release(&s[k]);
	disconnect(r, store);
	space_put();
}

/* One process cannot use the first candidate; as it says so in time, nobody does. */
static void occupied_in_one(struct rank *r)
{
	struct space s = {.base = NULL};
	uint64_t first = first_candidate(r);
	void *taken = r->rank == 1 ? occupy(r, first) : NULL;
	struct store *store = connect_store(r);

	RANK_OK(r, space_get());
	RANK_OK(r, space_tell(store, soon()));
	rank_barrier(r);
	RANK_OK(r, space_hold(store, "bm/1", GIB, soon(), &s));
	uint64_t base = all_equal(r, &s);
	RANK_ASSERT(r, base + GIB <= first + SLOT_ALIGN || base > first + SLOT_ALIGN);
	if (taken) {
		RANK_ASSERT(r, ((char *)taken)[4095] == 7);
		munmap(taken, 4096);
	}
	space_release(&s);
	disconnect(r, store);
	space_put();
}

/* One that comes when the others have agreed already, and cannot follow: an error that names the
 * range, the others do not notice, and it can have another object. */
static void cannot_follow(struct rank *r)
{
	struct space s = {.base = NULL}, t = {.base = NULL};
	struct store *store = connect_store(r);
	char text[64];
	uint64_t base = 0;

	if (r->rank != 2) {
		RANK_OK(r, space_get());
		RANK_OK(r, space_hold(store, "bm/1", GIB, soon(), &s));
		base = (uint64_t)(uintptr_t)s.base;
		if (r->rank == 0)
			rank_put(r, "base", &base, sizeof(base));
		rank_barrier(r);
		RANK_OK(r, space_hold(store, "bm/2", GIB, soon(), &t));
	} else {
		rank_get(r, "base", &base, sizeof(base));
		void *taken = occupy(r, base);
		RANK_OK(r, space_get());
		RANK_CODE(r, space_hold(store, "bm/1", GIB, soon(), &s), SMEM_RESOURCE_IN_USE);
		snprintf(text, sizeof(text), "%llx", (unsigned long long)base);
		RANK_ASSERT(r, strstr(err_detail(), text));
		rank_barrier(r);
		RANK_OK(r, space_hold(store, "bm/2", GIB, soon(), &t));
		munmap(taken, 4096);
	}
	all_equal(r, &t);
	space_release(&s);
	space_release(&t);
	disconnect(r, store);
	space_put();
}

/* A slot each at the agreed addresses, mapped in all; a pointer is the same byte everywhere. */
static void shared_pointers(struct rank *r)
{
	struct space s = {.base = NULL};
	struct segment seg[8] = {{.addr = NULL}};
	struct agent_peer *peer[8] = {NULL};
	struct segment_export ex[8];
	struct agent_addr addr[8];
	struct store *store = connect_store(r);
	uint64_t size = SLOT_ALIGN;

	RANK_OK(r, agent_get());
	RANK_OK(r, space_get());
	RANK_OK(r, space_hold(store, "shm/1", r->size * size, soon(), &s));
	RANK_OK(r, segment_create(size, s.base + r->rank * size, &seg[r->rank]));
	RANK_OK(r, segment_offer(&seg[r->rank]));
	rank_gather(r, &seg[r->rank].exported, sizeof(ex[0]), ex);
	rank_gather(r, agent_own(), sizeof(addr[0]), addr);
	for (uint32_t i = 0; i < r->size; i++) {
		if (i == r->rank)
			continue;
		RANK_OK(r, agent_peer_open(&addr[i], soon(), NULL, NULL, &peer[i]));
		RANK_OK(r, segment_import(peer[i], &ex[i], s.base + i * size, soon(), &seg[i]));
	}
	/* Everybody leaves in every slot a pointer to its place in the next slot. */
	for (uint32_t i = 0; i < r->size; i++) {
		void **at = (void **)(s.base + i * size) + r->rank;
		*at = (void **)(s.base + (i + 1) % r->size * size) + r->rank;
	}
	rank_barrier(r);
	for (uint32_t k = 0; k < r->size; k++) {
		void *p = (void **)s.base + k;
		for (uint32_t i = 0; i < r->size; i++)
			p = *(void **)p;
		RANK_ASSERT(r, p == (void **)s.base + k);
	}
	rank_barrier(r);
	for (uint32_t i = 0; i < r->size; i++) {
		segment_destroy(&seg[i]);
		agent_peer_close(peer[i]);
	}
	space_release(&s);
	disconnect(r, store);
	space_put();
	agent_put();
}

static const struct ranks_case cases[] = {
    {.name = "agree", .fn = agree, .sizes = {1, 2, 4, 8}},
    {.name = "occupied_in_one", .fn = occupied_in_one, .sizes = {2, 4}},
    {.name = "cannot_follow", .fn = cannot_follow, .sizes = {3}},
    {.name = "shared_pointers", .fn = shared_pointers, .sizes = {1, 2, 8}},
};

int main(int argc, char **argv)
{
	return ranks_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
