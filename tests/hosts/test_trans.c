/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sessions over several hosts. Rank r lives on host r % 2. CMA is forbidden to all, so that
 * sessions of one host whose memory cannot be mapped meet over the network transport, too.
 */
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hosts.h"
#include "trans_util.h"

#define KIB   1024ul
#define MIB   (KIB * KIB)
#define BATCH 122u

static void tell(struct rank *r, const char *what, uint32_t rank, const void *at)
{
	char key[32];
	uint64_t v = (uint64_t)(uintptr_t)at;

	snprintf(key, sizeof(key), "%s-%u", what, rank);
	rank_put(r, key, &v, sizeof(v));
}

static char *told(struct rank *r, const char *what, uint32_t rank)
{
	char key[32];
	uint64_t v = 0;

	snprintf(key, sizeof(key), "%s-%u", what, rank);
	RANK_ASSERT(r, rank_get(r, key, &v, sizeof(v)) == sizeof(v));
	return (char *)(uintptr_t)v;
}

/* Every rank writes to its own part of every rank's memory of every kind, and reads it back. */
static void everybody(struct rank *r)
{
	const size_t part = 64 * KIB + 13;
	struct mem m[MEM_KINDS];
	char key[16];

	host_enter(r, r->rank % 2);
	smem_trans_t h = trans_up(r);
	for (int k = 0; k < MEM_KINDS; k++) {
		m[k] = mem_new(r, (enum mem_kind)k, part * r->size);
		RANK_OK(r, smem_trans_register_mem(h, m[k].at, m[k].len, 0));
		snprintf(key, sizeof(key), "mem%d", k);
		tell(r, key, r->rank, m[k].at);
	}
	char *src = malloc(part), *back = malloc(part);
	for (uint32_t to = 0; to < r->size; to++) {
		for (int k = 0; k < MEM_KINDS; k++) {
			snprintf(key, sizeof(key), "mem%d", k);
			char *at = told(r, key, to) + r->rank * part;
			trans_fill(src, part, r->rank * 7 + to, 0);
			RANK_OK(r, smem_trans_write(h, src, trans_name(to), at, part));
			memset(back, 0, part);
			RANK_OK(r, smem_trans_read(h, back, trans_name(to), at, part, 0));
			RANK_ASSERT(r, memcmp(src, back, part) == 0);
		}
	}
	rank_barrier(r);
	for (int k = 0; k < MEM_KINDS; k++) {
		for (uint32_t from = 0; from < r->size; from++)
			RANK_ASSERT(r,
				    trans_is(m[k].at + from * part, part, from * 7 + r->rank, 0));
	}
	rank_barrier(r);
	smem_trans_destroy(h, 0);
	for (int k = 0; k < MEM_KINDS; k++)
		mem_free(&m[k]);
	free(src);
	free(back);
}

/* Batches over adjoining and overlapping registrations, and what they must refuse. */
static void batches(struct rank *r)
{
	struct mem m = mem_new(r, MEM_ANON, 16 * MIB);
	const void *src[BATCH];
	void *dst[BATCH], *back[BATCH];
	const void *rsrc[BATCH];
	size_t len[BATCH];

	host_enter(r, r->rank % 2);
	smem_trans_t h = trans_up(r);
	for (size_t i = 0; i < 16; i++) /* sixteen adjoining ones */
		RANK_OK(r, smem_trans_register_mem(h, m.at + i * MIB, MIB, 0));
	RANK_OK(r, smem_trans_register_mem(h, m.at + MIB / 2, MIB, 0));
	tell(r, "mem", r->rank, m.at);
	uint32_t to = (r->rank + 1) % r->size;
	char *far = told(r, "mem", to), *buf = malloc(16 * MIB), *got = malloc(16 * MIB);
	trans_fill(buf, 16 * MIB, r->rank, 0);
	size_t at = 0;
	for (unsigned i = 0; i < BATCH; i++) {
		len[i] = i % 2 ? 16 * KIB : 128 * KIB;
		src[i] = buf + at;
		dst[i] = far + at;
		rsrc[i] = far + at;
		back[i] = got + at;
		at += len[i] + (i % 5 ? 0 : 4096);
	}
	for (int round = 0; round < 5; round++) {
		RANK_OK(r, smem_trans_batch_write(h, src, trans_name(to), dst, len, BATCH));
		memset(got, 0, 16 * MIB);
		RANK_OK(r, smem_trans_batch_read(h, back, trans_name(to), rsrc, len, BATCH, 0));
		for (unsigned i = 0; i < BATCH; i++)
			RANK_ASSERT(r, memcmp(src[i], back[i], len[i]) == 0);
	}
	RANK_CODE(r, smem_trans_write(h, buf, trans_name(to), far + 16 * MIB - 10, 11),
		  SMEM_INVALID_PARAM);
	RANK_CODE(r, smem_trans_write(h, buf, trans_name(to), far - 1, 2), SMEM_INVALID_PARAM);
	RANK_OK(r, smem_trans_write(h, buf, trans_name(to), far + 16 * MIB - 10, 10));
	rank_barrier(r);
	smem_trans_destroy(h, 0);
	mem_free(&m);
	free(buf);
	free(got);
}

/* What is deregistered is withdrawn, under fire. */
static void deregistered(struct rank *r)
{
	host_enter(r, r->rank % 2);
	smem_trans_t h = trans_up(r);
	struct mem m = mem_new(r, MEM_ANON, 4 * MIB);
	char *far = NULL, *buf = malloc(4 * MIB);

	for (int i = 1; i <= 20; i++) {
		if (r->rank == 0) {
			RANK_OK(r, smem_trans_register_mem(h, m.at, m.len, 0));
			tell(r, "mem", 0, m.at);
		}
		rank_barrier(r);
		if (r->rank == 0) {
			while (((volatile char *)m.at)[m.len - 1] != (char)i)
				sched_yield();
			RANK_OK(r, smem_trans_deregister_mem(h, m.at));
			memset(m.at, 0, m.len);
		} else {
			far = told(r, "mem", 0);
			memset(buf, i, 4 * MIB);
			int32_t code;
			do
				code = smem_trans_write(h, buf, trans_name(0), far, 4 * MIB);
			while (code == SMEM_OK);
			RANK_ASSERT(r, code == SMEM_STALE || code == SMEM_INVALID_PARAM);
		}
		rank_barrier(r);
		for (size_t k = 0; r->rank == 0 && k < m.len; k += 97)
			RANK_ASSERT(r, m.at[k] == 0);
	}
	rank_barrier(r);
	smem_trans_destroy(h, 0);
	mem_free(&m);
	free(buf);
}

/* Killed and started anew, SMEM_TEST_LIVES times: the writer's session stays. */
static void restarts(struct rank *r)
{
	const char *more = getenv("SMEM_TEST_LIVES");
	int lives = more ? (int)strtol(more, NULL, 10) : 10;
	char buf[256];

	host_enter(r, r->rank % 2);
	if (r->rank == 1) {
		rank_may_die(r);
		struct mem m = mem_new(r, MEM_ANON, MIB);
		smem_trans_t h = trans_open(r, trans_name(1), SMEM_TRANS_BOTH);
		RANK_OK(r, smem_trans_register_mem(h, m.at, m.len, 0));
		tell(r, "mem", 1, m.at);
		rank_meet(r, "up", 2);
		rank_meet(r, "used", 2);
		if ((int)r->life < lives)
			rank_meet(r, "never", 3);
		smem_trans_destroy(h, 0);
		mem_free(&m);
		return;
	}
	RANK_OK(r, smem_create_config_store(r->url));
	smem_trans_t h = trans_open(r, trans_name(0), SMEM_TRANS_BOTH);
	for (int life = 0; life <= lives; life++) {
		rank_meet(r, "up", 2);
		char *far = told(r, "mem", 1);
		memset(buf, life, sizeof(buf));
		RANK_OK(r, smem_trans_write(h, buf, trans_name(1), far, sizeof(buf)));
		memset(buf, 0x55, sizeof(buf));
		RANK_OK(r, smem_trans_read(h, buf, trans_name(1), far, sizeof(buf), 0));
		RANK_ASSERT(r, buf[0] == life && buf[255] == life);
		rank_meet(r, "used", 2);
		if (life == lives)
			break;
		rank_kill(r, 1);
		uint64_t until = rank_ms() + 10000;
		int32_t code;
		do
			code = smem_trans_write(h, buf, trans_name(1), far, sizeof(buf));
		while (code == SMEM_OK && rank_ms() < until);
		RANK_CODE(r, code, SMEM_PEER_LOST);
		rank_spawn(r, 1);
	}
	smem_trans_destroy(h, 0);
}

static const struct ranks_case cases[] = {
    {.name = "everybody", .fn = everybody, .sizes = {2, 4, 8}},
    {.name = "batches", .fn = batches, .sizes = {2, 4}},
    {.name = "deregistered", .fn = deregistered, .sizes = {2}},
    {.name = "restarts", .fn = restarts, .sizes = {2}, .seconds = 300},
};

int main(int argc, char **argv)
{
	return hosts_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
