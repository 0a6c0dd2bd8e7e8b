/* SPDX-License-Identifier: Apache-2.0 */
/* Deaths: of a member, in the middle of a join, of the store's host; and what is no death. */
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bm_util.h"

#define SLOT	  (2 * MIB)
#define DETECT_MS 1000 /* specification: a death is seen within a second */
#define PROMPT_MS 2000

static char *slot(smem_bm_t bm, uint32_t rank)
{
	return smem_bm_ptr(bm, (uint16_t)rank);
}

static void check_survivors_work(struct rank *r, smem_bm_t bm, uint32_t dead)
{
	uint32_t next = (r->rank + 1) % r->size;
	char buf[32];

	if (next == dead)
		next = (next + 1) % r->size;
	RANK_OK(r, bm_write(bm, slot(bm, next) + 64 * r->rank, "works", 6));
	RANK_OK(r, bm_read(bm, buf, slot(bm, next) + 64 * r->rank, 6));
	RANK_ASSERT(r, strcmp(buf, "works") == 0);
}

/* The last rank is killed while joined; a new process takes its number. */
static void killed(struct rank *r)
{
	uint32_t dead = r->size - 1;
	char buf[32];

	smem_bm_t bm = bm_up(r, 1, SLOT, 0);
	if (r->rank == dead && r->life == 1) {
		/* fresh memory, and everybody can use it at once */
		RANK_ASSERT(r, slot(bm, dead)[0] == 0);
		for (uint32_t i = 0; i < r->size; i++)
			RANK_OK(r, bm_write(bm, slot(bm, i) + 4096, "back", 5));
		rank_meet(r, "back", r->size);
		rank_meet(r, "end", r->size);
		smem_bm_uninit(0);
		return;
	}
	strcpy(slot(bm, r->rank), "contents");
	rank_barrier(r);
	if (r->rank == dead)
		rank_meet(r, "never", r->size + 1);
	if (r->rank == 0)
		rank_kill(r, dead);
	rank_meet(r, "killed", r->size - 1);
	EVENTUALLY(r, bm_read(bm, buf, slot(bm, dead), 9), SMEM_PEER_LOST, DETECT_MS + SLACK_MS);
	RANK_CODE(r, bm_write(bm, slot(bm, dead), "x", 1), SMEM_PEER_LOST);
	RANK_ASSERT(r, strstr(smem_get_last_err_msg(), "lost"));
	RANK_ASSERT(r, strcmp(slot(bm, dead), "contents") == 0); /* readable still */
	check_survivors_work(r, bm, dead);
	rank_meet(r, "seen", r->size - 1);
	if (r->rank == 0)
		rank_spawn(r, dead);
	rank_meet(r, "back", r->size);
	bm_touch(r, bm);
	RANK_ASSERT(r, strcmp(slot(bm, dead) + 4096, "back") == 0);
	RANK_ASSERT(r, strcmp(slot(bm, r->rank) + 4096, "back") == 0);
	RANK_OK(r, bm_write(bm, slot(bm, dead), "x", 1));
	rank_meet(r, "end", r->size);
	smem_bm_uninit(0);
}

/* A process that just ends, without a word. */
static void exits(struct rank *r)
{
	smem_bm_t bm = bm_up(r, 1, SLOT, 0);

	rank_barrier(r);
	if (r->rank == 1) {
		rank_may_die(r);
		_exit(0);
	}
	EVENTUALLY(r, bm_write(bm, slot(bm, 1), "x", 1), SMEM_PEER_LOST, DETECT_MS + SLACK_MS);
	/* leaving and destroying wait for nobody */
	uint64_t begin = rank_ms();
	if (r->rank == 0)
		RANK_OK(r, smem_bm_leave(bm, 0));
	smem_bm_destroy(bm);
	RANK_ASSERT(r, rank_ms() - begin < PROMPT_MS + SLACK_MS);
	rank_meet(r, "survivors", r->size - 1);
	smem_bm_uninit(0);
}

/* Rank 1 dies again and again somewhere on its way to being joined; rank 2 joins meanwhile. */
static void killed_in_join(struct rank *r)
{
	void *own;

	if (r->rank == 1) {
		bm_init(r);
		smem_bm_t bm = smem_bm_create(1, 0, SMEMB_DATA_OP_SDMA, SLOT, 0, 0);
		RANK_ASSERT(r, bm != NULL);
		rank_meet(r, "go", 2);
		RANK_OK(r, smem_bm_join(bm, 0, &own));
		rank_meet(r, "never", r->size + 1);
	}
	if (r->rank == 2) {
		smem_bm_t bm = bm_up(r, 1, SLOT, 0);
		rank_meet(r, "ready", 2);
		for (int i = 0; i < 10; i++) {
			uint64_t begin = rank_ms();
			rank_meet(r, "round", 2);
			RANK_OK(r, smem_bm_leave(bm, 0));
			RANK_OK(r, smem_bm_join(bm, 0, &own));
			RANK_OK(r, bm_write(bm, slot(bm, 0), "x", 1));
			RANK_ASSERT(r, rank_ms() - begin < 10000 + SLACK_MS);
			rank_meet(r, "round end", 2);
		}
		rank_meet(r, "end", 2);
		smem_bm_uninit(0);
		return;
	}
	smem_bm_t bm = bm_up(r, 1, SLOT, 0);
	rank_spawn(r, 2);
	uint64_t rng = r->seed;
	rank_meet(r, "ready", 2);
	for (int i = 0; i < 10; i++) {
		rank_spawn(r, 1);
		rank_meet(r, "go", 2);
		rank_meet(r, "round", 2);
		uint64_t until = rank_ms() + rank_random(&rng) % 8;
		while (rank_ms() < until)
			sched_yield();
		rank_kill(r, 1);
		rank_meet(r, "round end", 2);
	}
	EVENTUALLY(r, bm_write(bm, slot(bm, 2), "x", 1), SMEM_OK, DETECT_MS);
	rank_meet(r, "end", 2);
	smem_bm_uninit(0);
}

/* The process that hosts the store dies: it is rank 0 too. */
static void store_host_killed(struct rank *r)
{
	void *own;

	smem_bm_t bm = bm_up(r, 1, SLOT, 0);
	smem_bm_t idle = smem_bm_create(2, 0, SMEMB_DATA_OP_SDMA, SLOT, 0, 0);
	RANK_ASSERT(r, idle != NULL);
	rank_barrier(r);
	if (r->rank == 0)
		rank_meet(r, "never", r->size + 1);
	if (r->rank == 1)
		rank_kill(r, 0);
	rank_meet(r, "survivors", r->size - 1);
	check_survivors_work(r, bm, 0);
	uint64_t begin = rank_ms();
	RANK_CODE(r, smem_bm_join(idle, 0, &own), SMEM_UNREACHABLE);
	RANK_ASSERT(r, !smem_bm_create(3, 0, SMEMB_DATA_OP_SDMA, SLOT, 0, 0));
	RANK_CODE(r, smem_get_last_err_code(), SMEM_UNREACHABLE);
	RANK_CODE(r, smem_bm_leave(bm, 0), SMEM_UNREACHABLE);
	RANK_ASSERT(r, rank_ms() - begin < PROMPT_MS + SLACK_MS);
	EVENTUALLY(r, bm_write(bm, slot(bm, 0), "x", 1), SMEM_PEER_LOST, DETECT_MS + SLACK_MS);
	check_survivors_work(r, bm, 0);
	rank_meet(r, "survivors", r->size - 1);
	begin = rank_ms();
	smem_bm_destroy(bm);
	smem_bm_uninit(0);
	RANK_ASSERT(r, rank_ms() - begin < PROMPT_MS + SLACK_MS);
	rank_meet(r, "survivors", r->size - 1);
	/* a new store, a new world */
	smem_bm_config_t c = bm_config(r);
	c.rankId = (uint16_t)(r->rank - 1);
	RANK_OK(r, smem_bm_init(r->url, r->size - 1, 0, &c));
	bm = smem_bm_create(1, 0, SMEMB_DATA_OP_SDMA, SLOT, 0, 0);
	RANK_ASSERT(r, bm != NULL);
	RANK_OK(r, smem_bm_join(bm, 0, &own));
	rank_meet(r, "survivors", r->size - 1);
	smem_bm_uninit(0);
}

/* The host of the store ends in order while others are joined: they keep copying. */
static void store_host_leaves(struct rank *r)
{
	smem_bm_t bm = bm_up(r, 1, SLOT, 0);

	rank_barrier(r);
	if (r->rank == 0) {
		uint64_t begin = rank_ms();
		smem_bm_uninit(0);
		/* lingers for those that are still there, 5 s at most */
		RANK_ASSERT(r, rank_ms() - begin < 6000 + SLACK_MS);
		rank_meet(r, "gone", r->size);
		return;
	}
	EVENTUALLY(r, bm_write(bm, slot(bm, 0), "x", 1), SMEM_NOT_STARTED, DETECT_MS + SLACK_MS);
	check_survivors_work(r, bm, 0);
	rank_meet(r, "gone", r->size);
	check_survivors_work(r, bm, 0);
	EVENTUALLY(r, smem_bm_leave(bm, 0), SMEM_UNREACHABLE, DETECT_MS + SLACK_MS);
	check_survivors_work(r, bm, 0);
	rank_meet(r, "survivors", r->size - 1);
	smem_bm_uninit(0);
}

/* A stopped process on a live host is not lost, however long. */
static void stopped(struct rank *r)
{
	smem_bm_t bm = bm_up(r, 1, SLOT, 0);

	rank_barrier(r);
	if (r->rank == 0) {
		rank_stop(r, 1);
		uint64_t until = rank_ms() + 4500; /* more than a silent host would get */
		while (rank_ms() < until) {
			RANK_OK(r, bm_write(bm, slot(bm, 1), "x", 1));
			poll(NULL, 0, 100);
		}
		rank_cont(r, 1);
	}
	rank_barrier(r);
	RANK_OK(r, bm_write(bm, slot(bm, 1 - r->rank), "x", 1));
	rank_barrier(r);
	RANK_OK(r, smem_bm_leave(bm, 0));
	smem_bm_uninit(0);
}

/* Members die under running copies: no crash, only these codes. */
static void killed_under_copies(struct rank *r)
{
	static char buf[MIB];

	smem_bm_t bm = bm_up(r, 1, SLOT, 0);
	rank_barrier(r);
	if (r->rank > 1)
		rank_meet(r, "never", r->size + 1);
	if (r->rank == 1) {
		for (uint32_t i = 2; i < r->size; i++)
			rank_kill(r, i);
		rank_meet(r, "barrier", 2);
		smem_bm_uninit(0);
		return;
	}
	uint32_t left = r->size - 2;
	bool lost[RANK_MAX] = {false};
	uint64_t until = rank_ms() + 10000;
	while (left > 0 && rank_ms() < until) {
		for (uint32_t i = 2; i < r->size; i++) {
			int32_t code = bm_write(bm, slot(bm, i), buf, sizeof(buf));
			RANK_ASSERT(r, code == SMEM_PEER_LOST || (code == SMEM_OK && !lost[i]));
			left -= code == SMEM_PEER_LOST && !lost[i];
			lost[i] |= code == SMEM_PEER_LOST;
		}
	}
	RANK_ASSERT(r, left == 0);
	rank_meet(r, "barrier", 2);
	smem_bm_uninit(0);
}

static const struct ranks_case cases[] = {
    {.name = "killed", .fn = killed, .sizes = {2, 4, 8}},
    {.name = "exits", .fn = exits, .sizes = {2, 4}},
    {.name = "killed_in_join", .fn = killed_in_join, .sizes = {3}, .initial = 1},
    {.name = "store_host_killed", .fn = store_host_killed, .sizes = {3, 5}},
    {.name = "store_host_leaves", .fn = store_host_leaves, .sizes = {3, 5}},
    {.name = "stopped", .fn = stopped, .sizes = {2}},
    {.name = "killed_under_copies", .fn = killed_under_copies, .sizes = {4, 8}},
};

int main(int argc, char **argv)
{
	return ranks_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
