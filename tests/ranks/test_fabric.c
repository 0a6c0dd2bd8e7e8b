/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a survey of the running fabric finds. The last rank asks and has nothing itself, but for the
 * cases that say otherwise; the others are up and wait. tests/hosts has more than one host.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bm_util.h"
#include "fabric_util.h"
#include "shm_util.h"
#include "store/survey.h"
#include "trans_util.h"

static void pids_are(struct rank *r, const struct fabric *f, const struct fabric_object *o,
		     const uint32_t *pid)
{
	for (uint32_t i = 0; i + 1 < r->size; i++)
		RANK_ASSERT(r, member_is(r, f, o, i, NULL)->pid == pid[i]);
}

static void all_direct(struct rank *r, const struct fabric *f, const struct fabric_object *o)
{
	for (uint32_t i = 0; i < o->n; i++) {
		RANK_ASSERT(r, o->member[i].state == FABRIC_SAID && o->member[i].joined);
		for (uint32_t k = 0; k < o->n; k++)
			PAIR_IS(r, f, o, &o->member[i], &o->member[k], i == k ? "" : "direct");
	}
}

/* Two pools and a symmetric object of the same processes. */
static void one_host(struct rank *r)
{
	uint32_t pid[RANK_MAX], own = (uint32_t)getpid();
	struct fabric f;

	rank_gather(r, &own, sizeof(own), pid);
	if (!asks(r)) {
		pool_up(r, 1);
		if (r->rank != 0)
			pool_up(r, 20);
		smem_shm_config_t c = shm_config(30, 30);
		RANK_OK(r, smem_shm_init(r->url, r->size - 1, r->rank, 0, &c));
		void *gva = NULL;
		RANK_ASSERT(
		    r, smem_shm_create(3, r->size - 1, r->rank, MIB2, SMEMS_DATA_OP_MTE, 0, &gva));
	}
	rank_barrier(r);
	if (asks(r)) {
		survey(r, 60, &f);
		RANK_CODE(r, f.processes, r->size - 1);
		RANK_CODE(r, f.silent + f.unable + f.idle + f.stranger_n, 0);
		RANK_CODE(r, f.host_n, 1);
		RANK_CODE(r, f.object_n, r->size > 2 ? 3 : 2);
		const struct fabric_object *o = object_is(r, &f, FABRIC_BM, "bm/1");
		RANK_CODE(r, o->n, r->size - 1);
		RANK_CODE(r, o->world, r->size - 1);
		all_direct(r, &f, o);
		pids_are(r, &f, o, pid);
		o = object_is(r, &f, FABRIC_SHM, "shm/3");
		RANK_CODE(r, o->n, r->size - 1);
		all_direct(r, &f, o);
		pids_are(r, &f, o, pid);
		if (r->size > 2) {
			o = object_is(r, &f, FABRIC_BM, "bm/20");
			RANK_CODE(r, o->n, r->size - 2);
			all_direct(r, &f, o);
		}
		fabric_free(&f);
	}
	rank_barrier(r);
	smem_uninit();
}

/* Sessions show whom they have written to, by what, and whom they could not reach. */
static void sessions(struct rank *r)
{
	static char memory[4096];
	static const char why[] = "private memory is not mapped here";
	char text[100], nobody[] = "10.9.9.9:9", byte = 1;
	smem_trans_t h = NULL;
	void *remote = memory;
	struct fabric f;

	if (r->rank == 0)
		RANK_OK(r, smem_create_config_store(r->url));
	if (!asks(r)) {
		h = trans_open(r, trans_name(r->rank), SMEM_TRANS_BOTH);
		RANK_OK(r, smem_trans_register_mem(h, memory, sizeof(memory), 0));
		if (r->rank == 1)
			rank_put(r, "remote", &remote, sizeof(remote));
	}
	rank_barrier(r);
	if (r->rank == 0) {
		rank_get(r, "remote", &remote, sizeof(remote));
		RANK_OK(r, smem_trans_write(h, &byte, trans_name(1), remote, 1));
		RANK_CODE(r, smem_trans_write(h, &byte, nobody, remote, 1), SMEM_OBJECT_NOT_EXISTS);
	}
	rank_barrier(r);
	if (asks(r)) {
		survey(r, 60, &f);
		RANK_CODE(r, f.object_n, 1);
		const struct fabric_object *o = object_is(r, &f, FABRIC_TRANS, "");
		RANK_CODE(r, o->n, r->size); /* and the one that is not there */
		const struct fabric_member *m[3];
		for (uint32_t i = 0; i < 3 && i + 1 < r->size; i++) {
			m[i] = member_is(r, &f, o, 0, trans_name(i));
			RANK_ASSERT(r, m[i]->state == FABRIC_SAID && m[i]->pid != 0);
		}
		snprintf(text, sizeof(text), "cma; direct: %s", why);
		PAIR_IS(r, &f, o, m[0], m[1], text);
		PAIR_IS(r, &f, o, m[1], m[0], "");
		if (r->size > 3)
			PAIR_IS(r, &f, o, m[0], m[2], "");
		const struct fabric_member *none = member_is(r, &f, o, 0, nobody);
		RANK_ASSERT(r, none->state == FABRIC_ABSENT && none->pid == 0);
		snprintf(text, sizeof(text), "failed; : session %s is not known at %s", nobody,
			 r->url);
		PAIR_IS(r, &f, o, m[0], none, text);
		fabric_free(&f);
	}
	rank_barrier(r);
	if (h)
		smem_trans_destroy(h, 0);
	smem_uninit();
}

/* A stopped process is named when the time is up; the others have answered. */
static void stopped(struct rank *r)
{
	uint32_t pid[RANK_MAX], own = (uint32_t)getpid();
	struct fabric f;

	rank_gather(r, &own, sizeof(own), pid);
	if (!asks(r))
		pool_up(r, 1);
	rank_barrier(r);
	if (asks(r)) {
		rank_stop(r, 1);
		uint64_t begin = rank_ms();
		survey(r, 1, &f);
		uint64_t took = rank_ms() - begin;
		RANK_ASSERT(r, took >= 990 && took < 1000 + 5000 + SLACK_MS);
		RANK_CODE(r, f.silent, 1);
		const struct fabric_object *o = object_is(r, &f, FABRIC_BM, "bm/1");
		RANK_CODE(r, o->n, r->size - 1);
		pids_are(r, &f, o, pid);
		const struct fabric_member *quiet = member_is(r, &f, o, 1, NULL);
		RANK_CODE(r, quiet->state, FABRIC_SILENT);
		RANK_CODE(r, quiet->host, member_is(r, &f, o, 0, NULL)->host);
		PAIR_IS(r, &f, o, member_is(r, &f, o, 0, NULL), quiet, "direct");
		PAIR_IS(r, &f, o, quiet, member_is(r, &f, o, 0, NULL), "");
		fabric_free(&f);
		rank_cont(r, 1);
		survey(r, 60, &f);
		all_direct(r, &f, object_is(r, &f, FABRIC_BM, "bm/1"));
		fabric_free(&f);
	}
	rank_barrier(r);
	smem_uninit();
}

/* Who died is known as lost by the others, and nobody waits for it. */
static void died(struct rank *r)
{
	struct fabric f;

	if (r->rank == 1)
		rank_may_die(r);
	if (!asks(r))
		pool_up(r, 1);
	rank_barrier(r);
	if (asks(r)) {
		rank_kill(r, 1);
		for (uint64_t until = rank_ms() + 10000;;) {
			survey(r, 60, &f);
			const struct fabric_object *o = object_is(r, &f, FABRIC_BM, "bm/1");
			const struct fabric_member *dead = member_is(r, &f, o, 1, NULL);
			if (dead->state == FABRIC_ABSENT) {
				PAIR_IS(r, &f, o, member_is(r, &f, o, 0, NULL), dead, "lost");
				break;
			}
			RANK_ASSERT(r, rank_ms() < until);
			fabric_free(&f);
		}
		fabric_free(&f);
	}
	rank_meet(r, r->rank == 1 ? "never" : "seen", r->rank == 1 ? r->size : r->size - 1);
	smem_uninit();
}

/* All but rank 0 ask, over and over, while it joins and leaves. */
static void at_once(struct rank *r)
{
	struct fabric f;

	if (r->rank == 0)
		RANK_OK(r, smem_create_config_store(r->url));
	rank_barrier(r);
	for (int i = 0; i < 20; i++) {
		if (r->rank == 0) {
			smem_bm_config_t c = bm_config(r);
			c.startConfigStore = false;
			RANK_OK(r, smem_bm_init(r->url, 1, 0, &c));
			bm_make(r, 1, 2 * MIB, 0);
			smem_bm_uninit(0);
			continue;
		}
		survey(r, 60, &f);
		RANK_CODE(r, f.silent + f.unable, 0);
		RANK_ASSERT(r, f.object_n <= 1 && f.processes < r->size);
		fabric_free(&f);
	}
	rank_barrier(r);
	smem_uninit();
}

/* ---- an asker that dies leaves nothing: more of them than surveys may be under way ---- */

static _Atomic unsigned asked;

static void count(uint64_t client, size_t most, struct store_bytes *ret)
{
	(void)client;
	(void)most;
	(void)ret;
	atomic_fetch_add(&asked, 1);
}

#define ASKERS 12u

static void asker_dies(struct rank *r)
{
	struct fabric f;

	if (asks(r)) { /* once a life; only killing ends it */
		rank_may_die(r);
		rank_meet(r, "stopped", 2);
		/* the dead are dead for the store when they have not come back for a moment */
		char error[800] = "under way";
		for (uint64_t until = rank_ms() + 10000; strstr(error, "under way");) {
			RANK_ASSERT(r, rank_ms() < until);
			if (fabric_survey(r->url, 600, &f, error, sizeof(error)) == 0)
				break;
		}
		rank_fail(r, __FILE__, __LINE__, "a survey that could not end has ended: %s",
			  error);
	}
	pool_up(r, 1);
	rank_meet(r, "up", r->size - 1);
	if (r->rank == 0) {
		store_answer_with(count);
		rank_stop(r, 1);
		for (unsigned i = 0; i < ASKERS; i++) {
			atomic_store(&asked, 0);
			rank_meet(r, "stopped", 2);
			EVENTUALLY(r, atomic_load(&asked) > 0, true, 30000);
			rank_kill(r, r->size - 1);
			if (i + 1 < ASKERS)
				rank_spawn(r, r->size - 1);
		}
		rank_cont(r, 1);
	}
	rank_meet(r, "down", r->size - 1);
	if (r->rank == 1) { /* there is room for surveys; of the own process nothing is told */
		survey(r, 60, &f);
		RANK_CODE(r, f.processes, 1);
		RANK_CODE(r, f.idle, 1);
		fabric_free(&f);
	}
	rank_meet(r, "end", r->size - 1);
	smem_uninit();
}

static const struct ranks_case cases[] = {
    {.name = "one_host", .fn = one_host, .sizes = {2, 4, 9}},
    {.name = "sessions", .fn = sessions, .sizes = {3, 4}},
    {.name = "stopped", .fn = stopped, .sizes = {3, 5}},
    {.name = "died", .fn = died, .sizes = {3, 4}},
    {.name = "at_once", .fn = at_once, .sizes = {2, 4}},
    {.name = "asker_dies", .fn = asker_dies, .sizes = {3}},
};

int main(int argc, char **argv)
{
	return ranks_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
