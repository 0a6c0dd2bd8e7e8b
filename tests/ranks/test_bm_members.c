/* SPDX-License-Identifier: Apache-2.0 */
/* Who is in a pool: joining and leaving, alone and all together, under traffic, and destroying. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bm_util.h"

#define SLOT (2 * MIB)

static smem_bm_t create(struct rank *r, uint32_t id)
{
	smem_bm_t bm = smem_bm_create(id, 0, SMEMB_DATA_OP_SDMA, SLOT, 0, 0);

	RANK_ASSERT(r, bm != NULL);
	return bm;
}

static char *slot(smem_bm_t bm, uint32_t rank)
{
	return smem_bm_ptr(bm, (uint16_t)rank);
}

/* All join at once; whoever is back may copy to all. */
static void join_all(struct rank *r)
{
	uint64_t joined[RANK_MAX], start[RANK_MAX];
	smem_bm_t bm = bm_up(r, 1, SLOT, 0);
	uint64_t now = rank_ms(), first = UINT64_MAX, last = 0, end = 0;

	rank_gather(r, &now, sizeof(now), joined);
	rank_gather(r, &r->start_ms, sizeof(now), start);
	for (uint32_t i = 0; i < r->size; i++) {
		uint64_t word = r->rank * 1000 + i;
		RANK_OK(r, bm_write(bm, slot(bm, i) + 64 * r->rank, &word, sizeof(word)));
		first = start[i] < first ? start[i] : first;
		last = start[i] > last ? start[i] : last;
		end = joined[i] > end ? joined[i] : end;
	}
	if (r->rank == 0)
		rank_note(r, "%u ranks joined %llu ms after the first exec, %llu ms after the last",
			  r->size, (unsigned long long)(end - first),
			  (unsigned long long)(end - last));
	rank_barrier(r);
	for (uint32_t i = 0; i < r->size; i++) {
		uint64_t word;
		memcpy(&word, slot(bm, r->rank) + 64 * i, sizeof(word));
		RANK_ASSERT(r, word == i * 1000 + r->rank);
	}
	rank_barrier(r);
	smem_bm_uninit(0);
}

/* Codes before, between and after memberships. */
static void codes(struct rank *r)
{
	char buf[64] = {0};
	void *own = NULL, *again = NULL;

	bm_init(r);
	smem_bm_t bm = create(r, 1);
	uint32_t other = 1 - r->rank;
	RANK_CODE(r, smem_bm_leave(bm, 0), SMEM_NOT_STARTED);
	RANK_OK(r, bm_write(bm, slot(bm, r->rank), "own", 4));
	RANK_CODE(r, bm_write(bm, slot(bm, other), "x", 1), SMEM_NOT_STARTED);
	rank_barrier(r);
	if (r->rank == 0) {
		RANK_OK(r, smem_bm_join(bm, 0, &own));
		RANK_OK(r, smem_bm_join(bm, 0, &again));
		RANK_ASSERT(r, own == again && own == slot(bm, 0));
		RANK_CODE(r, bm_read(bm, buf, slot(bm, 1), 4), SMEM_NOT_STARTED);
	}
	rank_barrier(r);
	if (r->rank == 1) {
		RANK_CODE(r, bm_read(bm, buf, slot(bm, 0), 4), SMEM_NOT_STARTED);
		RANK_OK(r, smem_bm_join(bm, 0, &own));
	}
	rank_barrier(r);
	RANK_OK(r, bm_read(bm, buf, slot(bm, other), 4));
	RANK_ASSERT(r, strcmp(buf, "own") == 0);
	rank_barrier(r);
	if (r->rank == 1) {
		RANK_OK(r, smem_bm_leave(bm, 0));
		RANK_CODE(r, smem_bm_leave(bm, 0), SMEM_NOT_STARTED);
		RANK_CODE(r, bm_read(bm, buf, slot(bm, 0), 4), SMEM_NOT_STARTED);
		RANK_OK(r, bm_read(bm, buf, slot(bm, 1), 4));
		RANK_ASSERT(r, strcmp(buf, "own") == 0);
	}
	rank_barrier(r);
	if (r->rank == 0) {
		RANK_CODE(r, bm_read(bm, buf, slot(bm, 1), 4), SMEM_NOT_STARTED);
		RANK_ASSERT(r, strstr(smem_get_last_err_msg(), "rank 1 has left"));
		/* a range over both slots is checked before anything is written */
		memcpy(slot(bm, 0) + SLOT - 4, "keep", 4);
		RANK_CODE(r, bm_write(bm, slot(bm, 0) + SLOT - 4, "zzzzzzzz", 8), SMEM_NOT_STARTED);
		RANK_ASSERT(r, memcmp(slot(bm, 0) + SLOT - 4, "keep", 4) == 0);
	}
	rank_barrier(r);
	smem_bm_destroy(bm);
	RANK_CODE(r, smem_bm_join(bm, 0, &own), SMEM_INVALID_PARAM);
	bm = create(r, 1);
	RANK_ASSERT(r, slot(bm, r->rank)[0] == 0);
	smem_bm_uninit(0);
	RANK_CODE(r, smem_bm_join(bm, 0, &own), SMEM_NOT_INITIALIZED);
}

/* Traffic of one rank to all others while those come and go. Only these codes may be seen. */
static void traffic(struct rank *r, smem_bm_t bm)
{
	static char buf[100000];
	_Atomic uint64_t *stop = (void *)slot(bm, 0);
	uint64_t rng = r->seed + r->rank;

	memset(buf, (int)r->rank, sizeof(buf));
	while (atomic_load(stop) == 0) {
		uint32_t to = (uint32_t)rank_random(&rng) % r->size;
		size_t n = rank_random(&rng) % sizeof(buf) + 1;
		size_t at = 4096 + rank_random(&rng) % (SLOT - 4096 - sizeof(buf));
		int32_t code = rank_random(&rng) % 2 ? bm_write(bm, slot(bm, to) + at, buf, n)
						     : bm_read(bm, buf, slot(bm, to) + at, n);
		if (code != SMEM_OK && code != SMEM_NOT_STARTED)
			rank_fail(r, __FILE__, __LINE__, "copy to rank %u: %d", to, code);
	}
}

/* After leave, nobody writes here any more. */
static void quiet_after_leave(struct rank *r, smem_bm_t bm)
{
	static char seen[SLOT];

	memcpy(seen, slot(bm, r->rank), SLOT);
	for (int i = 0; i < 3; i++) {
		sched_yield();
		RANK_ASSERT(r, memcmp(seen, slot(bm, r->rank), SLOT) == 0);
	}
}

/* Ranks 0 and 1 stay and copy; the others come and go. */
static void churn(struct rank *r)
{
	void *own;

	bm_init(r);
	smem_bm_t bm = create(r, 1);
	if (r->rank < 2)
		RANK_OK(r, smem_bm_join(bm, 0, &own));
	rank_barrier(r);
	if (r->rank == 1) {
		char byte;
		RANK_OK(r, bm_read(bm, &byte, slot(bm, 0), 1)); /* see bm_touch() */
		traffic(r, bm);
	} else if (r->rank > 1) {
		for (int i = 0; i < 15; i++) {
			RANK_OK(r, smem_bm_join(bm, 0, &own));
			RANK_OK(r, bm_write(bm, slot(bm, 0) + 64 * r->rank, &i, sizeof(i)));
			RANK_OK(r, smem_bm_leave(bm, 0));
			quiet_after_leave(r, bm);
		}
		rank_meet(r, "churned", r->size - 1);
	} else {
		uint64_t one = 1;
		rank_meet(r, "churned", r->size - 1);
		RANK_OK(r, bm_write(bm, slot(bm, 0), &one, sizeof(one)));
	}
	rank_barrier(r);
	smem_bm_uninit(0);
}

/* Everybody joins and leaves at the same time, again and again; now and then they meet. */
static void join_leave_all(struct rank *r)
{
	void *own;

	bm_init(r);
	smem_bm_t bm = create(r, 7);
	for (uint32_t i = 0; i < 12; i++) {
		RANK_OK(r, smem_bm_join(bm, 0, &own));
		if (i % 3 == 0) {
			rank_barrier(r);
			for (uint32_t k = 0; k < r->size; k++)
				RANK_OK(r, bm_write(bm, slot(bm, k) + 64 * r->rank, &i, sizeof(i)));
			rank_barrier(r);
			for (uint32_t k = 0; k < r->size; k++)
				RANK_ASSERT(r,
					    *(uint32_t *)(void *)(slot(bm, r->rank) + 64 * k) == i);
			rank_barrier(r);
		}
		RANK_OK(r, smem_bm_leave(bm, 0));
	}
	smem_bm_destroy(bm);
	smem_bm_uninit(0);
}

static void member_limit(struct rank *r)
{
	void *own;

	bm_init(r);
	smem_bm_t bm = smem_bm_create(1, 2, SMEMB_DATA_OP_ROCE, SLOT, SLOT, 0);
	RANK_ASSERT(r, bm != NULL);
	if (r->rank < 2)
		RANK_OK(r, smem_bm_join(bm, 0, &own));
	rank_barrier(r);
	if (r->rank == 2)
		RANK_CODE(r, smem_bm_join(bm, 0, &own), SMEM_RESOURCE_IN_USE);
	rank_barrier(r);
	if (r->rank == 1)
		RANK_OK(r, smem_bm_leave(bm, 0));
	rank_barrier(r);
	if (r->rank == 2)
		RANK_OK(r, smem_bm_join(bm, 0, &own));
	rank_barrier(r);
	smem_bm_uninit(0);
}

static void expect_mismatch(struct rank *r, uint32_t members, uint64_t dram, uint64_t hbm,
			    const char *text)
{
	void *own;

	smem_bm_t bm = smem_bm_create(1, members, SMEMB_DATA_OP_SDMA, dram, hbm, 0);
	RANK_ASSERT(r, bm != NULL);
	RANK_CODE(r, smem_bm_join(bm, 0, &own), SMEM_INVALID_PARAM);
	RANK_ASSERT(r, strstr(smem_get_last_err_msg(), text) != NULL);
	smem_bm_destroy(bm);
}

/* The first joiner's values count. */
static void mismatch(struct rank *r)
{
	void *own;

	bm_init(r);
	if (r->rank == 0) {
		smem_bm_t bm = smem_bm_create(1, 2, SMEMB_DATA_OP_SDMA, 0, SLOT, 0);
		RANK_ASSERT(r, bm != NULL);
		RANK_OK(r, smem_bm_join(bm, 0, &own));
	}
	rank_barrier(r);
	if (r->rank == 1) {
		expect_mismatch(r, 2, 0, 2 * SLOT,
				"localHBMSize 4194304 of rank 1, group has 2097152 (rank 0)");
		expect_mismatch(r, 1, 0, SLOT, "memberSize 1 of rank 1, group has 2 (rank 0)");
		expect_mismatch(r, 2, SLOT, SLOT, "localDRAMSize 2097152 of rank 1, group has 0");
		expect_mismatch(r, 2, SLOT, 0, "localHBMSize 0 of rank 1, group has 2097152");
		smem_bm_t bm = smem_bm_create(1, 2, SMEMB_DATA_OP_SDMA, 0, SLOT, 0);
		RANK_ASSERT(r, bm != NULL);
		RANK_OK(r, smem_bm_join(bm, 0, &own));
	}
	rank_barrier(r);
	smem_bm_uninit(0);
}

static void two_objects(struct rank *r)
{
	void *own;

	smem_bm_t a = bm_up(r, 1, SLOT, 2 * SLOT);
	smem_bm_t b = smem_bm_create(4294967295u, 0, SMEMB_DATA_OP_SDMA, 2 * SLOT, 0, 0);
	RANK_ASSERT(r, b != NULL && b != a);
	RANK_ASSERT(r, !smem_bm_create(1, 0, SMEMB_DATA_OP_SDMA, SLOT, 0, 0));
	RANK_CODE(r, smem_get_last_err_code(), SMEM_DUPLICATED_OBJECT);
	RANK_OK(r, smem_bm_join(b, 0, &own));
	rank_barrier(r);
	bm_touch(r, a);
	bm_touch(r, b);
	char *begin[3] = {smem_bm_ptr_by_mem_type(a, SMEM_MEM_TYPE_HOST, 0),
			  smem_bm_ptr_by_mem_type(a, SMEM_MEM_TYPE_DEVICE, 0), slot(b, 0)};
	uint64_t len[3] = {SLOT * r->size, 2 * SLOT * r->size, 2 * SLOT * r->size};
	for (int i = 0; i < 3; i++) {
		for (int k = 0; k < i; k++)
			RANK_ASSERT(r,
				    begin[i] + len[i] <= begin[k] || begin[k] + len[k] <= begin[i]);
	}
	uint32_t next = (r->rank + 1) % r->size;
	RANK_OK(r, bm_write(a, slot(a, next), "of a", 5));
	RANK_OK(r, bm_write(b, slot(b, next), "of b", 5));
	/* an address of one object is not a global address of the other */
	RANK_CODE(r, bm_write(b, slot(a, next), "x", 1), SMEM_INVALID_PARAM);
	/* but may be its local side */
	RANK_OK(r, bm_write(b, slot(b, next) + 64, slot(a, next), 5));
	rank_barrier(r);
	RANK_ASSERT(r, strcmp(slot(a, r->rank), "of a") == 0);
	RANK_ASSERT(r, strcmp(slot(b, r->rank) + 64, "of a") == 0);
	rank_barrier(r);
	smem_bm_destroy(a);
	RANK_ASSERT(r, strcmp(slot(b, r->rank), "of b") == 0);
	RANK_OK(r, bm_write(b, slot(b, next) + 128, "still", 6));
	rank_barrier(r);
	RANK_ASSERT(r, strcmp(slot(b, r->rank) + 128, "still") == 0);
	rank_barrier(r);
	smem_bm_uninit(0);
}

/* ---- threads ---- */

struct worker {
	struct rank *r;
	smem_bm_t bm;
	unsigned number;
	_Atomic bool *stop;
	_Atomic uint64_t *copies;
};

/* Every thread of every rank has a lane of its own in every slot. */
static void *lane_worker(void *arg)
{
	struct worker *w = arg;
	struct rank *r = w->r;
	size_t lane = SLOT / (4 * r->size), n = lane - 100;
	uint64_t rng = r->seed + r->rank * 4 + w->number;
	char *out = malloc(n), *in = malloc(n);

	for (int i = 0; i < 12; i++) {
		uint32_t to = (uint32_t)rank_random(&rng) % r->size;
		size_t len = rank_random(&rng) % n + 1;
		char *at =
		    slot(w->bm, to) + lane * (r->rank * 4 + w->number) + rank_random(&rng) % 100;
		pattern_fill(out, len, rng);
		RANK_OK(r, bm_write(w->bm, at, out, len));
		RANK_OK(r, bm_read(w->bm, in, at, len));
		RANK_ASSERT(r, memcmp(in, out, len) == 0);
	}
	free(out);
	free(in);
	return NULL;
}

static void threads(struct rank *r)
{
	smem_bm_t bm = bm_up(r, 1, SLOT, 0);
	smem_bm_t second = create(r, 2);
	pthread_t t[4];
	struct worker w[4];
	void *own;

	rank_barrier(r);
	for (unsigned i = 0; i < 4; i++) {
		w[i] = (struct worker){.r = r, .bm = bm, .number = i};
		RANK_ASSERT(r, pthread_create(&t[i], NULL, lane_worker, &w[i]) == 0);
	}
	for (int i = 0; i < 3; i++) {
		RANK_OK(r, smem_bm_join(second, 0, &own));
		RANK_OK(r, smem_bm_leave(second, 0));
	}
	for (unsigned i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	rank_barrier(r);
	smem_bm_uninit(0);
}

static void *copy_until_gone(void *arg)
{
	struct worker *w = arg;
	char *buf = malloc(MIB);
	int32_t code = SMEM_OK;

	memset(buf, 1, MIB);
	for (unsigned i = w->number; code == SMEM_OK; i++) {
		char *at = smem_bm_ptr(w->bm, (uint16_t)(i % w->r->size));
		if (!at)
			break;
		code = bm_write(w->bm, at, buf, MIB);
		atomic_fetch_add(w->copies, 1);
	}
	if (code != SMEM_OK && code != SMEM_INVALID_PARAM && code != SMEM_NOT_INITIALIZED &&
	    code != SMEM_NOT_STARTED)
		rank_fail(w->r, __FILE__, __LINE__, "copy: %d", code);
	free(buf);
	return NULL;
}

static void destroy_under(struct rank *r, bool uninit)
{
	for (int round = 0; round < 8; round++) {
		smem_bm_t bm = bm_up(r, 1, SLOT, 0);
		_Atomic uint64_t copies = 0;
		struct worker w[3];
		pthread_t t[3];

		rank_barrier(r);
		for (unsigned i = 0; i < 3; i++) {
			w[i] = (struct worker){.r = r, .bm = bm, .number = i, .copies = &copies};
			RANK_ASSERT(r, pthread_create(&t[i], NULL, copy_until_gone, &w[i]) == 0);
		}
		while (atomic_load(&copies) < 3) /* one each */
			sched_yield();
		if (uninit)
			smem_bm_uninit(0);
		else
			smem_bm_destroy(bm);
		for (unsigned i = 0; i < 3; i++)
			pthread_join(t[i], NULL);
		rank_barrier(r);
		smem_bm_uninit(0);
		rank_barrier(r);
	}
}

static void destroy_during_copy(struct rank *r)
{
	destroy_under(r, false);
}

static void uninit_during_copy(struct rank *r)
{
	destroy_under(r, true);
}

/* ---- a member that does not answer ---- */

static void *leave_thread(void *arg)
{
	struct worker *w = arg;

	RANK_CODE(w->r, smem_bm_leave(w->bm, 0), SMEM_OBJECT_NOT_EXISTS);
	return NULL;
}

static void init_with_timeout(struct rank *r, uint32_t seconds)
{
	smem_bm_config_t c = bm_config(r);

	c.controlOperationTimeout = seconds;
	RANK_OK(r, smem_bm_init(r->url, r->size, 0, &c));
}

/* Rank 1 is stopped: leaving ends at its time-out, or when another thread destroys. */
static void leave_unanswered(struct rank *r)
{
	void *own;

	init_with_timeout(r, r->rank == 0 ? 3 : 30);
	smem_bm_t bm = create(r, 1), other = create(r, 2);
	RANK_OK(r, smem_bm_join(bm, 0, &own));
	RANK_OK(r, smem_bm_join(other, 0, &own));
	rank_barrier(r);
	if (r->rank == 1) {
		rank_meet(r, "stopped", 2);
	} else {
		rank_stop(r, 1);
		uint64_t begin = rank_ms();
		RANK_CODE(r, smem_bm_leave(bm, 0), SMEM_TIMEOUT);
		RANK_ASSERT(r, rank_ms() - begin < 4000 + SLACK_MS);
		RANK_CODE(r, smem_bm_leave(bm, 0), SMEM_NOT_STARTED);
		begin = rank_ms();
		RANK_CODE(r, smem_bm_join(bm, 0, &own), SMEM_TIMEOUT);
		RANK_ASSERT(r, rank_ms() - begin < 4000 + SLACK_MS && rank_ms() - begin >= 2900);
		rank_cont(r, 1);
		rank_meet(r, "stopped", 2);
		RANK_OK(r, smem_bm_join(bm, 0, &own));
		RANK_OK(r, bm_write(bm, slot(bm, 1), "x", 1));
	}
	rank_barrier(r);
	smem_bm_uninit(0);
}

static void destroy_during_leave(struct rank *r)
{
	smem_bm_t bm = bm_up(r, 1, SLOT, 0);
	struct worker w = {.r = r, .bm = bm};
	pthread_t t;

	rank_barrier(r);
	if (r->rank == 0) {
		rank_stop(r, 1);
		uint64_t begin = rank_ms();
		RANK_ASSERT(r, pthread_create(&t, NULL, leave_thread, &w) == 0);
		/* the leaver is inside when copies to others are refused */
		EVENTUALLY(r, bm_write(bm, slot(bm, 1), "x", 1), SMEM_NOT_STARTED, 5000);
		smem_bm_destroy(bm);
		pthread_join(t, NULL);
		RANK_ASSERT(r, rank_ms() - begin < 7000 + SLACK_MS);
		rank_cont(r, 1);
	}
	rank_barrier(r);
	smem_bm_uninit(0);
}

static const struct ranks_case cases[] = {
    {.name = "join_all", .fn = join_all, .sizes = {1, 2, 4, 8, 64}},
    {.name = "codes", .fn = codes, .sizes = {2}},
    {.name = "churn", .fn = churn, .sizes = {4, 8}},
    {.name = "join_leave_all", .fn = join_leave_all, .sizes = {1, 2, 4, 8}},
    {.name = "member_limit", .fn = member_limit, .sizes = {3}},
    {.name = "mismatch", .fn = mismatch, .sizes = {2}},
    {.name = "two_objects", .fn = two_objects, .sizes = {1, 2, 4}},
    {.name = "threads", .fn = threads, .sizes = {1, 2, 4, 8}},
    {.name = "destroy_during_copy", .fn = destroy_during_copy, .sizes = {1, 2, 4}},
    {.name = "uninit_during_copy", .fn = uninit_during_copy, .sizes = {1, 2, 4}},
    {.name = "leave_unanswered", .fn = leave_unanswered, .sizes = {2}},
    {.name = "destroy_during_leave", .fn = destroy_during_leave, .sizes = {2}},
};

int main(int argc, char **argv)
{
	return ranks_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
