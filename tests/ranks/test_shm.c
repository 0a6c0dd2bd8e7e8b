/* SPDX-License-Identifier: Apache-2.0 */
/* SHM among living ranks: objects, memory, collectives, contexts. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shm_util.h"

/* Same base, zeroed slots, every slot writable and readable by plain loads and stores. */
static void memory(struct rank *r)
{
	uint64_t *base, *bases = calloc(r->size, sizeof(*bases));
	char *gva;

	shm_up(r, 60, 60);
	smem_shm_t h = shm_make(r, 7, MIB2, &gva);
	uint64_t mine = (uint64_t)(uintptr_t)gva;
	rank_gather(r, &mine, sizeof(mine), bases);
	for (uint32_t i = 0; i < r->size; i++)
		RANK_ASSERT(r, bases[i] == mine);
	RANK_ASSERT(r, mine % MIB2 == 0);
	RANK_CODE(r, smem_shm_get_global_rank(h), r->rank);
	RANK_CODE(r, smem_shm_get_global_rank_size(h), r->size);

	size_t words = MIB2 / 8;
	base = (uint64_t *)(void *)gva;
	for (size_t i = 0; i < words * r->size; i += 509)
		RANK_ASSERT(r, base[i] == 0);
	RANK_OK(r, smem_shm_control_barrier(h));
	/* Each rank writes every slot, in its own stripe. */
	for (uint32_t s = 0; s < r->size; s++) {
		for (size_t i = r->rank; i < words; i += r->size)
			base[s * words + i] = (uint64_t)s << 40 | i;
	}
	RANK_OK(r, smem_shm_control_barrier(h));
	for (size_t i = 0; i < words * r->size; i++)
		RANK_ASSERT(r, base[i] == ((uint64_t)(i / words) << 40 | i % words));
	for (uint32_t i = 0; i < r->size; i++) {
		uint32_t reach = 0;
		RANK_OK(r, smem_shm_topology_can_reach(h, i, &reach));
		RANK_ASSERT(r, reach & SMEMS_DATA_OP_MTE);
	}
	RANK_OK(r, smem_shm_control_barrier(h));
	RANK_OK(r, smem_shm_destroy(h, 0));
	smem_shm_uninit(0);
	free(bases);
}

#define BARRIERS 10000u

/* Every rank writes, barrier, all read, and again: no reader is ever early or late. */
static void barriers(struct rank *r)
{
	char *gva;
	uint32_t rounds = r->size <= 8 ? BARRIERS : BARRIERS / 10;

	shm_up(r, 60, 60);
	smem_shm_t h = shm_make(r, 0, MIB2, &gva);
	for (uint32_t round = 1; round <= rounds; round++) {
		uint64_t *own = (uint64_t *)(void *)(gva + r->rank * MIB2);
		own[round % 2] = (uint64_t)round << 16 | r->rank;
		RANK_OK(r, smem_shm_control_barrier(h));
		for (uint32_t i = 0; i < r->size; i++) {
			uint64_t *peer = (uint64_t *)(void *)(gva + i * MIB2);
			RANK_ASSERT(r, peer[round % 2] == ((uint64_t)round << 16 | i));
		}
	}
	RANK_OK(r, smem_shm_destroy(h, 0));
	smem_shm_uninit(0);
}

static void fill(char *buf, size_t len, uint32_t rank, uint32_t round)
{
	for (size_t i = 0; i < len; i++)
		buf[i] = (char)(i * 31 + rank * 7 + round);
}

static void allgathers(struct rank *r)
{
	char *gva, *mine = malloc(65536), *want = malloc(65536), *all = malloc(65536ul * r->size);
	uint64_t random = r->seed;
	uint32_t rounds = r->size <= 8 ? 200 : 40;

	shm_up(r, 60, 60);
	smem_shm_t h = shm_make(r, 1, MIB2, &gva);
	for (uint32_t round = 0; round < rounds; round++) {
		uint32_t len = (uint32_t)(rank_random(&random) % 65536) + 1;
		if (round % 2)
			len = len % 200 + 1;
		else if (round == 0)
			len = 65536;
		fill(mine, len, r->rank, round);
		RANK_OK(r, smem_shm_control_allgather(h, mine, len, all, len * r->size));
		for (uint32_t i = 0; i < r->size; i++) {
			fill(want, len, i, round);
			RANK_ASSERT(r, memcmp(want, all + (size_t)i * len, len) == 0);
		}
	}
	RANK_OK(r, smem_shm_destroy(h, 0));
	smem_shm_uninit(0);
	free(mine);
	free(want);
	free(all);
}

/* Halves of the world with rank numbers of their own, under different ids. */
static void subgroups(struct rank *r)
{
	uint32_t half = r->rank % 2, size = r->size / 2, rank = size - 1 - r->rank / 2;
	char all[RANK_MAX], me = (char)r->rank;
	void *gva;

	shm_up(r, 60, 60);
	rank_barrier(r); /* nobody hosts and goes before all are connected */
	smem_shm_t h = smem_shm_create(half, size, rank, 2 * MIB2, SMEMS_DATA_OP_MTE, 0, &gva);
	RANK_ASSERT(r, h != NULL);
	RANK_CODE(r, smem_shm_get_global_rank(h), rank);
	RANK_CODE(r, smem_shm_get_global_rank_size(h), size);
	RANK_OK(r, smem_shm_control_allgather(h, &me, 1, all, size));
	for (uint32_t i = 0; i < size; i++)
		RANK_ASSERT(r, (uint32_t)all[i] == (size - 1 - i) * 2 + half);
	smem_shm_uninit(0); /* destroys */
	RANK_CODE(r, smem_shm_control_barrier(h), SMEM_NOT_INITIALIZED);
}

struct worker {
	struct rank *r;
	uint32_t id;
	smem_shm_t h;
	pthread_t thread;
};

static void *create_and_use(void *arg)
{
	struct worker *w = arg;
	char *gva, all[RANK_MAX * 4];

	w->h = shm_make(w->r, w->id, MIB2, &gva);
	for (uint32_t i = 0; i < 300; i++) {
		uint32_t x = i * 64 + w->id;
		RANK_OK(w->r, smem_shm_control_barrier(w->h));
		RANK_OK(w->r, smem_shm_control_allgather(w->h, (char *)&x, 4, all, 4 * w->r->size));
		for (uint32_t k = 0; k < w->r->size; k++)
			RANK_ASSERT(w->r, memcmp(all + k * 4ul, &x, 4) == 0);
	}
	RANK_OK(w->r, smem_shm_destroy(w->h, 0));
	return NULL;
}

/* Several objects, created and used by threads of their own at the same time. */
static void two_threads(struct rank *r)
{
	struct worker w[3];

	shm_up(r, 60, 60);
	for (uint32_t i = 0; i < 3; i++) {
		/* Not in the same order everywhere. */
		uint32_t id = (i + r->rank) % 3 + 60;
		w[i] = (struct worker){.r = r, .id = id};
		RANK_OK(r, pthread_create(&w[i].thread, NULL, create_and_use, &w[i]));
	}
	for (uint32_t i = 0; i < 3; i++)
		RANK_OK(r, pthread_join(w[i].thread, NULL));
	smem_shm_uninit(0);
}

/* The same id again at once, with other sizes, ranks leaving at different times: no residue. */
static void recreate(struct rank *r)
{
	char *gva, all[RANK_MAX];

	shm_up(r, 60, 60);
	for (uint32_t i = 0; i < 100; i++) {
		uint64_t bytes = MIB2 * (1 + i % 3);
		smem_shm_t h = shm_make(r, 5, bytes, &gva);
		char *own = gva + r->rank * bytes;
		for (uint64_t k = 0; k < bytes; k += 4096)
			RANK_ASSERT(r, own[k] == 0);
		memset(own, 1, bytes);
		char x = (char)i;
		RANK_OK(r, smem_shm_control_allgather(h, &x, 1, all, r->size));
		RANK_ASSERT(r, all[r->size - 1] == x);
		RANK_OK(r, smem_shm_destroy(h, 0));
	}
	smem_shm_uninit(0);
}

/* What each rank set before a barrier is seen by all after it. */
static void contexts(struct rank *r)
{
	char *gva, *mine = malloc(65536), *got = malloc(65536), *want = malloc(65536);
	uint32_t len = 0;

	shm_up(r, 60, 60);
	smem_shm_t h = shm_make(r, 63, MIB2, &gva);
	for (uint32_t i = 0; i < r->size; i++) {
		RANK_OK(r, smem_shm_get_extra_context(h, i, NULL, &len));
		RANK_ASSERT(r, len == 0);
	}
	RANK_OK(r, smem_shm_control_barrier(h));
	for (uint32_t round = 0; round < 50; round++) {
		uint32_t size = round == 0 ? 65536 : (r->rank * 977 + round * 31) % 65536 + 1;
		fill(mine, size, r->rank, round);
		RANK_OK(r, smem_shm_set_extra_context(h, mine, size));
		RANK_OK(r, smem_shm_control_barrier(h));
		for (uint32_t i = 0; i < r->size; i++) {
			size = round == 0 ? 65536 : (i * 977 + round * 31) % 65536 + 1;
			fill(want, size, i, round);
			len = 65536;
			RANK_OK(r, smem_shm_get_extra_context(h, i, got, &len));
			RANK_ASSERT(r, len == size && memcmp(got, want, size) == 0);
		}
		RANK_OK(r, smem_shm_control_barrier(h));
	}
	RANK_OK(r, smem_shm_control_barrier(h));
	RANK_OK(r, smem_shm_destroy(h, 0));
	smem_shm_uninit(0);
	free(mine);
	free(got);
	free(want);
}

static const struct ranks_case cases[] = {
    {.name = "memory", .fn = memory, .sizes = {1, 2, 4, 8, 32}},
    {.name = "barriers", .fn = barriers, .sizes = {1, 2, 4, 8, 32}},
    {.name = "allgathers", .fn = allgathers, .sizes = {1, 2, 4, 8, 32}},
    {.name = "subgroups", .fn = subgroups, .sizes = {2, 4, 8}},
    {.name = "two_threads", .fn = two_threads, .sizes = {1, 2, 4}},
    {.name = "recreate", .fn = recreate, .sizes = {1, 2, 4}},
    {.name = "contexts", .fn = contexts, .sizes = {1, 2, 4}},
};

int main(int argc, char **argv)
{
	return ranks_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
