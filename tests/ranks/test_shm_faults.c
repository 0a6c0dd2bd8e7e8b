/* SPDX-License-Identifier: Apache-2.0 */
/* SHM when ranks disagree, are late, leave or die. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shm_util.h"

static void unlike_creates(struct rank *r)
{
	void *gva;
	char *base;

	shm_up(r, 60, 60);
	bool last = r->rank == r->size - 1;
	SHM_CREATE_FAILS(r, SMEM_INVALID_PARAM, 3, r->size, r->rank, last ? 2 * MIB2 : MIB2,
			 SMEMS_DATA_OP_MTE, 0);
	RANK_SAYS(r, "symmetricSize");
	RANK_SAYS(r, "2097152");
	RANK_SAYS(r, "4194304");
	rank_barrier(r);
	/* The last one thinks there are more ranks. */
	SHM_CREATE_FAILS(r, SMEM_INVALID_PARAM, 3, r->size + last, r->rank, MIB2, SMEMS_DATA_OP_MTE,
			 0);
	RANK_SAYS(r, "rankSize");
	rank_barrier(r);
	/* Two claim rank 0. */
	SHM_CREATE_FAILS(r, SMEM_INVALID_PARAM, 3, r->size, last ? 0 : r->rank, MIB2,
			 SMEMS_DATA_OP_MTE, 0);
	RANK_SAYS(r, "rank 0");
	rank_barrier(r);
	smem_shm_t h = shm_make(r, 3, MIB2, &base);
	RANK_OK(r, smem_shm_control_barrier(h));
	RANK_ASSERT(r,
		    smem_shm_create(3, r->size, r->rank, MIB2, SMEMS_DATA_OP_MTE, 0, &gva) == NULL);
	RANK_CODE(r, smem_get_last_err_code(), SMEM_DUPLICATED_OBJECT);
	RANK_OK(r, smem_shm_destroy(h, 0));
	smem_shm_uninit(0);
}

static void late_create(struct rank *r)
{
	char *base;

	shm_up(r, 1, 60);
	if (r->rank != 1) {
		uint64_t start = rank_ms();
		SHM_CREATE_FAILS(r, SMEM_TIMEOUT, 9, r->size, r->rank, MIB2, SMEMS_DATA_OP_MTE, 0);
		RANK_SAYS(r, "1");
		RANK_ASSERT(r, rank_ms() - start >= 900);
	}
	rank_barrier(r);
	smem_shm_uninit(0);
	rank_barrier(r); /* the old store is gone */
	shm_up(r, 60, 60);
	smem_shm_t h = shm_make(r, 9, MIB2, &base);
	RANK_OK(r, smem_shm_destroy(h, 0));
	smem_shm_uninit(0);
}

/* Unlike calls fail on all ranks; the object stays usable. */
static void unlike_calls(struct rank *r)
{
	char *base, buf[64], all[64 * RANK_MAX];

	shm_up(r, 60, 60);
	memset(buf, 'x', sizeof(buf));
	smem_shm_t h = shm_make(r, 3, MIB2, &base);
	for (int i = 0; i < 20; i++) {
		bool odd = (r->rank + (uint32_t)i) % r->size == 0;
		if (odd)
			RANK_CODE(r, smem_shm_control_barrier(h), SMEM_INVALID_PARAM);
		else
			RANK_CODE(r, smem_shm_control_allgather(h, buf, 64, all, 64 * r->size),
				  SMEM_INVALID_PARAM);
		RANK_SAYS(r, "barrier");
		RANK_SAYS(r, "64");
		uint32_t len = odd ? 3 : 5;
		RANK_CODE(r, smem_shm_control_allgather(h, buf, len, all, len * r->size),
			  SMEM_INVALID_PARAM);
		RANK_SAYS(r, "3 bytes");
		RANK_SAYS(r, "5 bytes");
		RANK_CODE(r, smem_shm_control_allgather(h, buf, 5, all, 5 * r->size + 1),
			  SMEM_INVALID_PARAM);
		RANK_OK(r, smem_shm_control_barrier(h));
	}
	RANK_OK(r, smem_shm_destroy(h, 0));
	smem_shm_uninit(0);
}

/* Ranks that do not agree who shares a page: all of them do without. */
static void unlike_pages(struct rank *r)
{
	static const char *const page[] = {"1", "2", "0", "3"};
	char *base, mine[300], all[300 * RANK_MAX];

	/* Ahead of the first call, while no other thread is there. */
	RANK_OK(r, setenv("SMEM_SHM_PAGE", page[(r->rank + r->seed) % 4], 1));
	shm_up(r, 60, 60);
	memset(mine, (int)r->rank, sizeof(mine));
	smem_shm_t h = shm_make(r, 3, MIB2, &base);
	for (int i = 0; i < 20; i++) {
		RANK_OK(r, smem_shm_control_barrier(h));
		RANK_OK(r, smem_shm_control_allgather(h, mine, sizeof(mine), all,
						      (uint32_t)sizeof(mine) * r->size));
		for (uint32_t k = 0; k < r->size; k++)
			RANK_ASSERT(r, all[300 * k] == (char)k && all[300 * k + 299] == (char)k);
	}
	RANK_OK(r, smem_shm_destroy(h, 0));
	smem_shm_uninit(0);
}

static void late_barrier(struct rank *r)
{
	const char *page = getenv("SMEM_SHM_PAGE");
	bool flat = page && strcmp(page, "0") == 0; /* each rank by itself at the store */
	char *base;

	shm_up(r, 60, 1);
	smem_shm_t h = shm_make(r, 3, MIB2, &base);
	for (int i = 0; i < 2; i++) {
		rank_barrier(r);
		if (r->rank != 1) {
			RANK_CODE(r, smem_shm_control_barrier(h), SMEM_TIMEOUT);
			RANK_SAYS(r, flat ? "missing rank 1 " : "barrier: rank 1 not there");
		}
		rank_barrier(r);
		RANK_OK(r, smem_shm_control_barrier(h));
	}
	RANK_OK(r, smem_shm_destroy(h, 0));
	smem_shm_uninit(0);
}

/* A rank goes on to destroy right after a barrier: the barrier succeeded for all, the next fails.
 */
static void leaves_after_barrier(struct rank *r)
{
	char *base;

	shm_up(r, 60, 60);
	for (uint32_t i = 0; i < 20; i++) {
		smem_shm_t h = shm_make(r, i, MIB2, &base);
		base[r->rank * MIB2] = 'a';
		RANK_OK(r, smem_shm_control_barrier(h));
		if (r->rank != i % r->size) {
			RANK_CODE(r, smem_shm_control_barrier(h), SMEM_PEER_LOST);
			RANK_SAYS(r, "left");
			for (uint32_t k = 0; k < r->size; k++)
				RANK_ASSERT(r, base[k * MIB2] == 'a');
		}
		RANK_OK(r, smem_shm_destroy(h, 0));
		rank_barrier(r);
	}
	smem_shm_uninit(0);
}

static void survivor_checks(struct rank *r, smem_shm_t h, uint32_t victim, const char *base)
{
	uint32_t reach = 7, len = 0;
	char name[32];

	snprintf(name, sizeof(name), "rank %u", victim);
	RANK_SAYS(r, name);
	RANK_CODE(r, smem_shm_control_barrier(h), SMEM_PEER_LOST);
	for (uint32_t i = 0; i < r->size; i++)
		RANK_ASSERT(r, base[i * MIB2] == (char)(i + 1));
	RANK_OK(r, smem_shm_topology_can_reach(h, victim, &reach));
	RANK_ASSERT(r, reach == 0);
	RANK_CODE(r, smem_shm_get_extra_context(h, victim, NULL, &len), SMEM_PEER_LOST);
}

/* SIGKILL of a random rank while all are in collectives without a pause. */
static void killed(struct rank *r, bool gather)
{
	char *base, buf[300], all[300 * RANK_MAX];
	uint64_t random = r->seed, rounds = 0, first;
	struct killer k = {.r = r, .victim = 1 + (uint32_t)(rank_random(&random) % (r->size - 1))};
	int32_t code;

	k.delay = (uint32_t)(rank_random(&random) % 100);
	memset(buf, 'y', sizeof(buf));
	shm_up(r, 60, 60);
	smem_shm_t h = shm_make(r, 3, MIB2, &base);
	base[r->rank * MIB2] = (char)(r->rank + 1);
	RANK_OK(r, smem_shm_control_barrier(h));
	if (r->rank == k.victim)
		rank_may_die(r);
	rank_barrier(r);
	if (r->rank == 0)
		killer_start(&k);
	do {
		code = gather ? smem_shm_control_allgather(h, buf, sizeof(buf), all,
							   (uint32_t)sizeof(buf) * r->size)
			      : smem_shm_control_barrier(h);
		rounds += code == SMEM_OK;
	} while (code == SMEM_OK);
	RANK_CODE(r, code, SMEM_PEER_LOST);
	survivor_checks(r, h, k.victim, base);
	if (r->rank == 0) {
		pthread_join(k.thread, NULL);
		rank_put(r, "rounds", &rounds, sizeof(rounds));
	}
	rank_get(r, "rounds", &first, sizeof(first));
	RANK_ASSERT(r, first == rounds); /* what completed, completed for all */
	RANK_OK(r, smem_shm_destroy(h, 0));
	smem_shm_uninit(0);
}

static void killed_in_barrier(struct rank *r)
{
	killed(r, false);
}

static void killed_in_allgather(struct rank *r)
{
	killed(r, true);
}

#define LIVES 8u

/*
 * Rank 1 dies somewhere in create, LIVES times over, and comes back. Whoever waited for it fails
 * at once and tries again; all go on when they have met its newest life.
 */
static void killed_in_create(struct rank *r)
{
	uint64_t random = r->seed + r->life;
	uint32_t life = r->rank == 1 ? r->life : 0;
	struct killer k = {.r = r, .victim = 1, .how = KILLER_STARTS_ANEW};
	uint32_t lives[RANK_MAX];
	void *base;

	shm_up(r, 60, 60);
	if (r->rank == 1 && r->life < LIVES)
		rank_may_die(r);
	for (uint32_t goal = life + 1; goal <= LIVES || r->rank == 1; goal++) {
		bool met = false;
		k.delay = (uint32_t)(rank_random(&random) % 60);
		if (r->rank == 0)
			killer_start(&k);
		while (!met) {
			smem_shm_t h =
			    smem_shm_create(3, r->size, r->rank, MIB2, SMEMS_DATA_OP_MTE, 0, &base);
			if (!h) {
				RANK_CODE(r, smem_get_last_err_code(), SMEM_PEER_LOST);
				continue;
			}
			int32_t code = smem_shm_control_allgather(h, (char *)&life, 4,
								  (char *)lives, 4 * r->size);
			if (code != SMEM_OK)
				RANK_CODE(r, code, SMEM_PEER_LOST);
			/* Rank 1 itself is done in its last life only. */
			met = code == SMEM_OK && lives[1] == (r->rank == 1 ? LIVES : goal);
			RANK_OK(r, smem_shm_destroy(h, 0));
		}
		if (r->rank == 0)
			pthread_join(k.thread, NULL);
		if (r->rank == 1)
			break;
	}
	smem_shm_uninit(0);
}

/*
 * A rank is stopped while all are in collectives without a pause: the others time out, in time, and
 * what completed has completed for all, the stopped one included. Then all go on.
 */
static void stopped(struct rank *r)
{
	char *base, buf[300], all[300 * RANK_MAX];
	uint64_t random = r->seed, rounds = 0, begin, every[RANK_MAX];
	struct killer k = {.r = r,
			   .victim = 1 + (uint32_t)(rank_random(&random) % (r->size - 1)),
			   .how = KILLER_STOPS};
	int32_t code;

	k.delay = (uint32_t)(rank_random(&random) % 100);
	memset(buf, 'y', sizeof(buf));
	shm_up(r, 60, 1);
	smem_shm_t h = shm_make(r, 3, MIB2, &base);
	RANK_OK(r, smem_shm_control_barrier(h));
	rank_barrier(r);
	if (r->rank == 0)
		killer_start(&k);
	do {
		begin = rank_ms();
		code = smem_shm_control_allgather(h, buf, sizeof(buf), all,
						  (uint32_t)sizeof(buf) * r->size);
		rounds += code == SMEM_OK;
	} while (code == SMEM_OK);
	RANK_CODE(r, code, SMEM_TIMEOUT);
	RANK_ASSERT(r,
		    r->rank == k.victim || rank_ms() - begin < 6000); /* 2000, on a busy machine */
	if (r->rank == 0) {
		pthread_join(k.thread, NULL);
		rank_cont(r, k.victim);
	}
	rank_gather(r, &rounds, sizeof(rounds), every);
	for (uint32_t i = 0; i < r->size; i++)
		RANK_ASSERT(r, every[i] == rounds);
	RANK_OK(r, smem_shm_control_barrier(h));
	RANK_OK(r, smem_shm_destroy(h, 0));
	smem_shm_uninit(0);
}

/*
 * Rank 0 hosts the store and is no rank of the object. It dies: collectives go on, creating fails
 * at once, and a death among the others is noticed without it.
 */
static void store_dies(struct rank *r)
{
	uint32_t size = r->size - 1, me = r->rank - 1;
	char all[RANK_MAX], x = (char)r->rank;
	void *base;

	if (getenv("SMEM_SHM_PAGE"))
		rank_skip(r, "collectives through the store end with it");
	if (r->rank == 0) {
		rank_may_die(r);
		RANK_OK(r, smem_create_config_store(r->url));
		rank_barrier(r);
		rank_meet(r, "die", r->size);
		rank_meet(r, "never", r->size + 1);
	}
	rank_barrier(r);
	smem_shm_config_t config = shm_config(60, 60);
	config.startConfigStore = false;
	RANK_OK(r, smem_shm_init(r->url, size, me, 0, &config));
	smem_shm_t h = smem_shm_create(1, size, me, MIB2, SMEMS_DATA_OP_MTE, 0, &base);
	RANK_ASSERT(r, h != NULL);
	RANK_OK(r, smem_shm_control_barrier(h));
	rank_meet(r, "die", r->size);
	if (me == 0)
		rank_kill(r, 0);
	rank_meet(r, "dead", size);
	for (int i = 0; i < 100; i++) {
		RANK_OK(r, smem_shm_control_barrier(h));
		RANK_OK(r, smem_shm_control_allgather(h, &x, 1, all, size));
		RANK_ASSERT(r, all[size - 1] == (char)(r->size - 1));
	}
	SHM_CREATE_FAILS(r, SMEM_UNREACHABLE, 2, size, me, MIB2, SMEMS_DATA_OP_MTE, 0);
	RANK_OK(r, smem_shm_control_barrier(h));
	if (me == size - 1)
		rank_may_die(r);
	rank_meet(r, "last", size);
	if (me == 0)
		rank_kill(r, r->size - 1);
	/* It may have died inside the first one, which then is complete for all. */
	int32_t code = smem_shm_control_barrier(h);
	if (code == SMEM_OK)
		code = smem_shm_control_barrier(h);
	RANK_CODE(r, code, SMEM_PEER_LOST);
	RANK_OK(r, smem_shm_destroy(h, 0));
	smem_shm_uninit(0);
}

static const struct ranks_case cases[] = {
    {.name = "unlike_creates", .fn = unlike_creates, .sizes = {2, 4}},
    {.name = "late_create", .fn = late_create, .sizes = {2, 4}},
    {.name = "unlike_calls", .fn = unlike_calls, .sizes = {2, 4}},
    {.name = "unlike_pages", .fn = unlike_pages, .sizes = {2, 3, 4, 8}},
    {.name = "late_barrier", .fn = late_barrier, .sizes = {2, 4}},
    {.name = "leaves_after_barrier", .fn = leaves_after_barrier, .sizes = {2, 4}},
    {.name = "killed_in_barrier", .fn = killed_in_barrier, .sizes = {2, 4, 8}},
    {.name = "killed_in_allgather", .fn = killed_in_allgather, .sizes = {2, 4, 8}},
    {.name = "stopped", .fn = stopped, .sizes = {2, 4, 8}},
    {.name = "store_dies", .fn = store_dies, .sizes = {3, 5}},
    {.name = "killed_in_create", .fn = killed_in_create, .sizes = {3, 4}},
};

int main(int argc, char **argv)
{
	return ranks_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
