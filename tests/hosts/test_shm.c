/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Symmetric memory over several hosts. A slot of another host is reached by copies of the library
 * only, so what is tested is what needs none: creating, reach, collectives and their faults.
 */
#include <pthread.h>
#include <stdio.h>
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

/* Where the rank is: on two hosts by turns, or on three unevenly. */
static unsigned host_of(uint32_t rank, bool uneven)
{
	static const unsigned hosts[] = {0, 2, 1, 1, 2, 2, 2, 2};

	return uneven ? hosts[rank % 8] : rank % 2;
}

static smem_shm_t up_on(struct rank *r, bool uneven, uint32_t control_s, char **base)
{
	host_enter(r, host_of(r->rank, uneven));
	shm_up(r, 30, control_s);
	return shm_make(r, 1, MIB2, base);
}

/* Every byte of allgathers of all sizes, small and large areas, and barriers between. */
static void all_bytes(struct rank *r, bool uneven)
{
	static const uint32_t len[] = {1, 128, 129, 65536, 4, 1000};
	char *base = NULL, *mine = malloc(65536), *all = malloc((size_t)r->size * 65536);
	smem_shm_t h = up_on(r, uneven, 60, &base);

	for (uint32_t round = 0; round < 240; round++) {
		uint32_t n = len[round % 6];
		for (uint32_t i = 0; i < n; i++)
			mine[i] = (char)(i * 7 + r->rank * 31 + round);
		RANK_OK(r, smem_shm_control_allgather(h, mine, n, all, n * r->size));
		for (uint32_t k = 0; k < r->size; k++) {
			for (uint32_t i = 0; i < n; i++)
				RANK_ASSERT(r, all[(size_t)k * n + i] ==
						   (char)(i * 7 + k * 31 + round));
		}
	}
	for (uint32_t round = 0; round < 2000; round++)
		RANK_OK(r, smem_shm_control_barrier(h));
	free(mine);
	free(all);
	RANK_OK(r, smem_shm_destroy(h, 0));
	smem_shm_uninit(0);
}

static void all_bytes_2(struct rank *r)
{
	all_bytes(r, false);
}

static void all_bytes_3(struct rank *r)
{
	all_bytes(r, true);
}

/* The message names the ranks that are missing, wherever they are, and no others. */
static void late(struct rank *r, bool uneven)
{
	char *base = NULL, name[64];
	smem_shm_t h = up_on(r, uneven, 1, &base);

	for (uint32_t k = 0; k < 3; k++) {
		uint32_t a = (k + 2) % r->size, b = k == 2 ? 5 : a;
		snprintf(name, sizeof(name),
			 a == b ? "barrier: rank %u not there" : "barrier: ranks %u-%u not there",
			 a, b);
		rank_barrier(r);
		if (r->rank != a && r->rank != b) {
			uint64_t begin = rank_ms();
			RANK_CODE(r, smem_shm_control_barrier(h), SMEM_TIMEOUT);
			RANK_SAYS(r, name);
			RANK_ASSERT(r, rank_ms() - begin >= 1000);
		}
		rank_barrier(r);
		RANK_OK(r, smem_shm_control_barrier(h));
	}
	RANK_OK(r, smem_shm_destroy(h, 0));
	smem_shm_uninit(0);
}

static void late_2(struct rank *r)
{
	late(r, false);
}

static void late_3(struct rank *r)
{
	late(r, true);
}

static void unlike(struct rank *r)
{
	char *base = NULL, buf[64] = "", all[64 * 8];
	smem_shm_t h = up_on(r, true, 30, &base);

	for (uint32_t k = 0; k < r->size; k++) {
		char says[64];
		if (r->rank == k)
			RANK_CODE(r, smem_shm_control_allgather(h, buf, 64, all, 64 * r->size),
				  SMEM_INVALID_PARAM);
		else
			RANK_CODE(r, smem_shm_control_barrier(h), SMEM_INVALID_PARAM);
		snprintf(says, sizeof(says), "allgather of 64 bytes: rank %u", k);
		RANK_SAYS(r, says);
		RANK_SAYS(r, k == 0		? "barrier: ranks 1-6"
			     : k == r->size - 1 ? "barrier: ranks 0-5"
						: "barrier: ranks 0");
		RANK_OK(r, smem_shm_control_allgather(h, buf, 64, all, 64 * r->size));
	}
	RANK_OK(r, smem_shm_destroy(h, 0));
	smem_shm_uninit(0);
}

/* A rank that waits for another host is destroyed by a thread of its own. */
static void *destroy_run(void *h)
{
	smem_shm_destroy(h, 0);
	return NULL;
}

static void destroyed(struct rank *r)
{
	uint32_t victim = r->seed % 2 ? 1 : 3; /* of a host that is complete, or not */
	char *base = NULL;
	smem_shm_t h = up_on(r, false, 30, &base);
	pthread_t thread;

	RANK_OK(r, smem_shm_control_barrier(h));
	rank_barrier(r);
	if (r->rank == 0) {
		rank_meet(r, "destroyed", 2);
	} else if (r->rank == victim) {
		RANK_OK(r, pthread_create(&thread, NULL, destroy_run, h));
		int32_t code = smem_shm_control_barrier(h);
		/* Destroyed before the call, or during it. */
		RANK_ASSERT(r, code == SMEM_OBJECT_NOT_EXISTS || code == SMEM_INVALID_PARAM);
		pthread_join(thread, NULL);
		rank_meet(r, "destroyed", 2);
	}
	if (r->rank != victim) {
		RANK_CODE(r, smem_shm_control_barrier(h), SMEM_PEER_LOST);
		RANK_SAYS(r, "left by destroying");
		RANK_OK(r, smem_shm_destroy(h, 0));
	}
	smem_shm_uninit(0);
}

/* A rank dies while all are in collectives without a pause: what completed has completed for all
 * that live. */
static void killed_in_traffic(struct rank *r)
{
	char *base = NULL, buf[300] = "", all[300 * 8];
	uint64_t random = r->seed, rounds = 0, first, begin;
	struct killer k = {.r = r, .victim = 1 + (uint32_t)(rank_random(&random) % (r->size - 1))};
	smem_shm_t h = up_on(r, r->seed % 2, 60, &base);
	int32_t code;

	k.delay = (uint32_t)(rank_random(&random) % 100);
	RANK_OK(r, smem_shm_control_barrier(h));
	if (r->rank == k.victim)
		rank_may_die(r);
	rank_barrier(r);
	if (r->rank == 0)
		killer_start(&k);
	do {
		begin = rank_ms();
		code = smem_shm_control_allgather(h, buf, 300, all, 300 * r->size);
		rounds += code == SMEM_OK;
	} while (code == SMEM_OK);
	RANK_CODE(r, code, SMEM_PEER_LOST);
	RANK_ASSERT(r, rank_ms() - begin < 5000);
	if (r->rank == 0) {
		pthread_join(k.thread, NULL);
		rank_put(r, "rounds", &rounds, sizeof(rounds));
	}
	rank_get(r, "rounds", &first, sizeof(first));
	RANK_ASSERT(r, first == rounds);
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

/* Those of a host see a death before the store does, and leave: the others still name the dead. */
static void leaves_after_a_death(struct rank *r)
{
	uint32_t victim = r->size - 1;
	char *base = NULL, name[32];

	host_enter(r, r->rank % 2);
	if (r->rank == victim)
		rank_may_die(r);
	shm_up(r, 30, 60);
	smem_shm_t h = shm_make(r, 1, MIB2, &base);
	RANK_OK(r, smem_shm_control_barrier(h));
	if (r->rank == victim)
		rank_meet(r, "never", r->size + 1);
	if (r->rank == 0)
		rank_kill(r, victim);
	RANK_CODE(r, smem_shm_control_barrier(h), SMEM_PEER_LOST);
	snprintf(name, sizeof(name), "rank %u lost", victim);
	RANK_SAYS(r, name);
	RANK_OK(r, smem_shm_destroy(h, 0));
	smem_shm_uninit(0);
}

static const struct ranks_case cases[] = {
    {.name = "reach", .fn = reach, .sizes = {2, 4, 8}},
    {.name = "collectives", .fn = collectives, .sizes = {2, 4, 8}},
    {.name = "all_bytes_2", .fn = all_bytes_2, .sizes = {4, 8}},
    {.name = "all_bytes_3", .fn = all_bytes_3, .sizes = {4, 7}},
    {.name = "late_2", .fn = late_2, .sizes = {8}},
    {.name = "late_3", .fn = late_3, .sizes = {7}},
    {.name = "unlike", .fn = unlike, .sizes = {7}},
    {.name = "destroyed", .fn = destroyed, .sizes = {4}},
    {.name = "killed", .fn = killed, .sizes = {2, 4, 8}},
    {.name = "leaves_after_a_death", .fn = leaves_after_a_death, .sizes = {4, 6}},
    {.name = "killed_in_traffic", .fn = killed_in_traffic, .sizes = {4, 8, 8}},
};

int main(int argc, char **argv)
{
	return hosts_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
