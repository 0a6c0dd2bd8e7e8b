/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Symmetric memory over several hosts. A slot of another host is reached by copies of the library
 * only, so what is tested is what needs none: creating, reach, collectives and their faults.
 */
#include <stdlib.h>
#include <string.h>

#include "hosts.h"
#include "shm_util.h"

static bool same_host(uint32_t a, uint32_t b)
{
	return a % 2 == b % 2;
}

static void reach(struct rank *r)
{
	char *base = NULL;

	host_enter(r, r->rank % 2);
	shm_up(r, 30, 30);
	smem_shm_t h = shm_make(r, 1, MIB2, &base);
	for (uint32_t i = 0; i < r->size; i++) {
		uint32_t bits = 0;
		RANK_OK(r, smem_shm_topology_can_reach(h, i, &bits));
		bool near = same_host(i, r->rank);
		RANK_CODE(r, (bits & SMEMS_DATA_OP_MTE) != 0, near);
		RANK_ASSERT(r, near || (bits & SMEMS_DATA_OP_ROCE));
	}
	RANK_OK(r, smem_shm_control_barrier(h));
	RANK_OK(r, smem_shm_destroy(h, 0));
	smem_shm_uninit(0);
}

/* Rounds of both kinds; same-host stores made before a barrier are seen after it. */
static void collectives(struct rank *r)
{
	char *base = NULL;

	host_enter(r, r->rank % 2);
	shm_up(r, 30, 30);
	smem_shm_t h = shm_make(r, 1, MIB2, &base);
	uint64_t mine[8], *all = calloc(r->size, sizeof(mine));
	for (uint64_t round = 0; round < 100; round++) {
		for (int i = 0; i < 8; i++)
			mine[i] = round * 1000 + r->rank * 10 + (uint64_t)i;
		*(volatile uint64_t *)(base + r->rank * MIB2) = round;
		RANK_OK(r, smem_shm_control_allgather(h, (char *)mine, sizeof(mine), (char *)all,
						      (uint32_t)(r->size * sizeof(mine))));
		for (uint64_t k = 0; k < r->size * 8; k++)
			RANK_ASSERT(r, all[k] == round * 1000 + k / 8 * 10 + k % 8);
		for (uint32_t i = 0; i < r->size; i++)
			RANK_ASSERT(r, !same_host(i, r->rank) ||
					   *(volatile uint64_t *)(base + i * MIB2) == round);
		RANK_OK(r, smem_shm_control_barrier(h));
	}
	free(all);
	RANK_OK(r, smem_shm_destroy(h, 0));
	smem_shm_uninit(0);
}

/* A rank of another host dies in a round: all others are told promptly. */
static void killed(struct rank *r)
{
	char *base = NULL;

	host_enter(r, r->rank % 2);
	if (r->rank == r->size - 1)
		rank_may_die(r);
	shm_up(r, 30, 60);
	smem_shm_t h = shm_make(r, 1, MIB2, &base);
	RANK_OK(r, smem_shm_control_barrier(h));
	if (r->rank == r->size - 1)
		rank_meet(r, "never", r->size + 1);
	if (r->rank == 0)
		rank_kill(r, r->size - 1);
	uint64_t begin = rank_ms();
	RANK_CODE(r, smem_shm_control_barrier(h), SMEM_PEER_LOST);
	RANK_ASSERT(r, rank_ms() - begin < 5000);
	rank_meet(r, "told", r->size - 1);
	RANK_OK(r, smem_shm_destroy(h, 0));
	smem_shm_uninit(0);
}

static const struct ranks_case cases[] = {
    {.name = "reach", .fn = reach, .sizes = {2, 4, 8}},
    {.name = "collectives", .fn = collectives, .sizes = {2, 4, 8}},
    {.name = "killed", .fn = killed, .sizes = {2, 4}},
};

int main(int argc, char **argv)
{
	return hosts_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
