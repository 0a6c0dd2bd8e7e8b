/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Big memory over several hosts. Rank r lives on host r % 2 (or 3), so every pool mixes slots that
 * are mapped with slots that are reached over the network.
 */
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bm_util.h"
#include "certs.h"
#include "hosts.h"

#define DRAM (2 * MIB)
#define HBM  (4 * MIB)

static unsigned host_of(uint32_t rank)
{
	return rank % 2;
}

static char *slot(smem_bm_t bm, smem_bm_mem_type type, uint32_t rank)
{
	return smem_bm_ptr_by_mem_type(bm, type, (uint16_t)rank);
}

static char *memory(struct rank *r, size_t len)
{
	char *p = malloc(len);

	RANK_ASSERT(r, p != NULL);
	return p;
}

static int32_t copy(smem_bm_t bm, void *dest, const void *src, size_t n, smem_bm_copy_type t)
{
	smem_copy_params p = {.src = src, .dest = dest, .count = n};

	return smem_bm_copy(bm, &p, t, 0);
}

/* ---- the four directions, to every slot, from every rank ---- */

static void directions_at(struct rank *r, smem_bm_t bm, smem_bm_mem_type type, uint32_t to)
{
	uint64_t mark = r->rank * 100 + to;
	size_t part = MIB / r->size / 2, at = r->rank * 2 * part;
	char *buf = memory(r, part), *back = memory(r, part);

	for (int dir = 0; dir < 2; dir++) {
		char *g = slot(bm, type, to) + at + (size_t)dir * part + 7;
		pattern_fill(buf, part - 7, mark + (uint64_t)dir);
		RANK_OK(r, copy(bm, g, buf, part - 7, dir ? SMEMB_COPY_L2G : SMEMB_COPY_H2G));
		memset(back, 0, part);
		RANK_OK(r, copy(bm, back, g, part - 7, dir ? SMEMB_COPY_G2H : SMEMB_COPY_G2L));
		RANK_ASSERT(r, pattern_is(back, part - 7, mark + (uint64_t)dir));
	}
	free(buf);
	free(back);
}

static void check_own(struct rank *r, smem_bm_t bm, smem_bm_mem_type type)
{
	size_t part = MIB / r->size / 2;

	for (uint32_t from = 0; from < r->size; from++) {
		for (uint64_t dir = 0; dir < 2; dir++)
			RANK_ASSERT(
			    r, pattern_is(slot(bm, type, r->rank) + (from * 2 + dir) * part + 7,
					  part - 7, from * 100 + r->rank + dir));
	}
}

static void directions(struct rank *r)
{
	host_enter(r, host_of(r->rank));
	smem_bm_t bm = bm_up(r, 1, DRAM, HBM);
	rank_barrier(r);
	for (uint32_t to = 0; to < r->size; to++) {
		directions_at(r, bm, SMEM_MEM_TYPE_HOST, to);
		directions_at(r, bm, SMEM_MEM_TYPE_DEVICE, to);
	}
	rank_barrier(r); /* returned means applied: the own slots are looked at by load */
	check_own(r, bm, SMEM_MEM_TYPE_HOST);
	check_own(r, bm, SMEM_MEM_TYPE_DEVICE);
	rank_barrier(r);
	smem_bm_uninit(0);
}

/* ---- borders, strides, global to global ---- */

/* A range over the border of a local and a remote slot, and over all slots of the window. */
static void borders(struct rank *r)
{
	host_enter(r, host_of(r->rank));
	smem_bm_t bm = bm_up(r, 1, DRAM, 0);
	rank_barrier(r);
	if (r->rank == 0) {
		size_t len = DRAM * r->size;
		char *all = memory(r, len), *back = memory(r, len);
		char *base = slot(bm, SMEM_MEM_TYPE_HOST, 0);
		pattern_fill(all, len, 5);
		RANK_OK(r, bm_write(bm, base, all, len));
		RANK_OK(r, bm_read(bm, back, base, len));
		RANK_ASSERT(r, memcmp(all, back, len) == 0);
		pattern_fill(all, 1000, 6);
		for (uint32_t i = 1; i < r->size; i++) {
			RANK_OK(r, bm_write(bm, base + i * DRAM - 500, all, 1000));
			RANK_OK(r, bm_read(bm, back, base + i * DRAM - 500, 1000));
			RANK_ASSERT(r, memcmp(all, back, 1000) == 0);
		}
		free(all);
		free(back);
	}
	rank_barrier(r);
	smem_bm_uninit(0);
}

static void strides(struct rank *r)
{
	enum { WIDTH = 1000, ROWS = 50, GPITCH = 3001, LPITCH = 1500 };
	static char local[LPITCH * ROWS], back[LPITCH * ROWS];

	host_enter(r, host_of(r->rank));
	smem_bm_t bm = bm_up(r, 1, DRAM, HBM);
	rank_barrier(r);
	uint32_t to = (r->rank + 1) % r->size;
	char *g = slot(bm, SMEM_MEM_TYPE_DEVICE, to) + 11;
	for (int i = 0; i < 4; i += 2) {
		smem_bm_copy_type put = i ? SMEMB_COPY_H2G : SMEMB_COPY_L2G;
		smem_bm_copy_type get = i ? SMEMB_COPY_G2H : SMEMB_COPY_G2L;
		pattern_fill(local, sizeof(local), r->rank + 10u * (unsigned)i);
		memset(back, 0, sizeof(back));
		smem_copy_2d_params p = {local, LPITCH, g, GPITCH, WIDTH, ROWS};
		RANK_OK(r, smem_bm_copy_2d(bm, &p, put, 0));
		p = (smem_copy_2d_params){g, GPITCH, back, LPITCH, WIDTH, ROWS};
		RANK_OK(r, smem_bm_copy_2d(bm, &p, get, 0));
		for (size_t row = 0; row < ROWS; row++)
			RANK_ASSERT(r,
				    memcmp(local + row * LPITCH, back + row * LPITCH, WIDTH) == 0);
		RANK_ASSERT(r, back[WIDTH] == 0); /* gaps stay */
	}
	rank_barrier(r);
	RANK_ASSERT(r, slot(bm, SMEM_MEM_TYPE_DEVICE, r->rank)[11 + WIDTH] == 0);
	rank_barrier(r);
	smem_bm_uninit(0);
}

/* The own slot as L or H; a slot that is mapped here too; one of another host is refused. */
static void global_to_global(struct rank *r)
{
	host_enter(r, host_of(r->rank));
	smem_bm_t bm = bm_up(r, 1, DRAM, 0);
	rank_barrier(r);
	if (r->rank == 0) {
		char *own = slot(bm, SMEM_MEM_TYPE_HOST, 0), *far = slot(bm, SMEM_MEM_TYPE_HOST, 1);
		pattern_fill(own, MIB, 3);
		RANK_OK(r, copy(bm, far, own, MIB, SMEMB_COPY_L2G));
		RANK_OK(r, copy(bm, own + MIB, far, MIB, SMEMB_COPY_G2H));
		RANK_ASSERT(r, pattern_is(own + MIB, MIB, 3));
		if (r->size > 2) {
			char *near = slot(bm, SMEM_MEM_TYPE_HOST, 2);
			RANK_OK(r, copy(bm, near, far, MIB, SMEMB_COPY_G2L) == 0
				       ? 0
				       : smem_get_last_err_code());
			RANK_ASSERT(r, pattern_is(near, MIB, 3));
		}
		RANK_CODE(r, copy(bm, own, far + 1, 10, SMEMB_COPY_L2G), SMEM_INVALID_PARAM);
	}
	rank_barrier(r);
	smem_bm_uninit(0);
}

/* ---- coming and going ---- */

static void rejoin(struct rank *r)
{
	void *own;
	char buf[100];

	host_enter(r, host_of(r->rank));
	smem_bm_t bm = bm_up(r, 1, DRAM, 0);
	char *other = slot(bm, SMEM_MEM_TYPE_HOST, !r->rank);
	for (int i = 0; i < 10; i++) {
		rank_barrier(r);
		memset(buf, i, sizeof(buf));
		RANK_OK(r, bm_write(bm, other, buf, sizeof(buf)));
		rank_barrier(r);
		RANK_ASSERT(r, slot(bm, SMEM_MEM_TYPE_HOST, r->rank)[99] == i);
		rank_barrier(r);
		if (r->rank == 1) {
			RANK_OK(r, smem_bm_leave(bm, 0));
			RANK_CODE(r, bm_write(bm, other, buf, 1), SMEM_NOT_STARTED);
		}
		rank_barrier(r);
		if (r->rank == 0)
			RANK_CODE(r, bm_write(bm, other, buf, 1), SMEM_NOT_STARTED);
		rank_barrier(r);
		if (r->rank == 1)
			RANK_OK(r, smem_bm_join(bm, 0, &own));
	}
	rank_barrier(r);
	smem_bm_uninit(0);
}

/* Killed, and back: nobody else restarts. */
static void restart(struct rank *r)
{
	char buf[100];

	host_enter(r, host_of(r->rank));
	if (r->rank == 1) {
		rank_may_die(r);
		smem_bm_t bm = bm_up(r, 1, DRAM, 0);
		rank_meet(r, "up", 2);
		rank_meet(r, "used", 2);
		if (r->life < 5)
			rank_meet(r, "never", 3);
		(void)bm;
		smem_bm_uninit(0);
		return;
	}
	smem_bm_t bm = bm_up(r, 1, DRAM, 0);
	char *other = slot(bm, SMEM_MEM_TYPE_HOST, 1);
	for (int life = 0; life <= 5; life++) {
		rank_meet(r, "up", 2);
		memset(buf, life, sizeof(buf));
		RANK_OK(r, bm_write(bm, other, buf, sizeof(buf)));
		RANK_OK(r, bm_read(bm, buf, other + 50, 10));
		RANK_ASSERT(r, buf[0] == life && buf[9] == life);
		rank_meet(r, "used", 2);
		if (life == 5)
			break;
		rank_kill(r, 1);
		uint64_t begin = rank_ms();
		EVENTUALLY(r, bm_write(bm, other, buf, sizeof(buf)), SMEM_PEER_LOST, 10000);
		RANK_ASSERT(r, rank_ms() - begin < 5000);
		rank_spawn(r, 1);
	}
	smem_bm_uninit(0);
}

/* A host goes silent under traffic: bounded, no hang, and the others go on. */
static void silence(struct rank *r)
{
	host_enter(r, r->rank == 2 ? 2 : r->rank);
	if (r->rank == 2)
		rank_may_die(r);
	smem_bm_t bm = bm_up(r, 1, DRAM, 0);
	char *buf = memory(r, DRAM);
	memset(buf, 1, DRAM);
	rank_barrier(r);
	if (r->rank == 2)
		rank_meet(r, "never", 4);
	char *lost = slot(bm, SMEM_MEM_TYPE_HOST, 2);
	char *live = slot(bm, SMEM_MEM_TYPE_HOST, !r->rank);
	RANK_OK(r, bm_write(bm, lost, buf, DRAM));
	rank_meet(r, "written", 2);
	if (r->rank == 0)
		host_silence(r, 2, true);
	rank_meet(r, "silent", 2);
	uint64_t begin = rank_ms();
	EVENTUALLY(r, bm_write(bm, lost, buf, DRAM), SMEM_PEER_LOST, 20000);
	uint64_t took = rank_ms() - begin;
	rank_note(r, "lost after %llu ms", (unsigned long long)took);
	RANK_ASSERT(r, took < 6000);
	RANK_OK(r, bm_write(bm, live, buf, DRAM));
	rank_meet(r, "done", 2);
	if (r->rank == 0) {
		host_silence(r, 2, false);
		rank_kill(r, 2);
	}
	rank_meet(r, "end", 2);
	free(buf);
	smem_bm_uninit(0);
}

/* ---- other networks ---- */

static void v6(struct rank *r)
{
	char buf[5000], back[5000];

	host_enter_v6(r, host_of(r->rank));
	smem_bm_t bm = bm_up(r, 1, DRAM, 0);
	rank_barrier(r);
	pattern_fill(buf, sizeof(buf), r->rank);
	char *g = slot(bm, SMEM_MEM_TYPE_HOST, (r->rank + 1) % r->size);
	RANK_OK(r, bm_write(bm, g, buf, sizeof(buf)));
	RANK_OK(r, bm_read(bm, back, g, sizeof(buf)));
	RANK_ASSERT(r, memcmp(buf, back, sizeof(buf)) == 0);
	rank_barrier(r);
	smem_bm_uninit(0);
}

static _Atomic unsigned warnings;

static void count_warnings(int level, const char *msg)
{
	if (level == 2 && strstr(msg, "not encrypted"))
		atomic_fetch_add(&warnings, 1);
}

/* The store speaks TLS; the data does not, which is said once. */
static void tls(struct rank *r)
{
	char info[2048] = "", buf[5000];
	size_t len = 0;

	host_enter(r, host_of(r->rank));
	if (r->rank == 0) {
		if (certs_make()) {
			certs_use("ca", "node", "node.key", NULL);
			snprintf(info, sizeof(info), "%s", getenv("SMEM_CONF_STORE_TLS_INFO"));
		}
		rank_put(r, "tls", info, strlen(info) + 1);
	} else {
		len = rank_get(r, "tls", info, sizeof(info));
		RANK_ASSERT(r, len > 0);
		setenv("SMEM_CONF_STORE_TLS_INFO", info, 1);
	}
	if (!info[0])
		rank_skip(r, "no certificates can be made here");
	smem_set_extern_logger(count_warnings);
	smem_bm_t bm = bm_up(r, 1, DRAM, 0);
	rank_barrier(r);
	pattern_fill(buf, sizeof(buf), r->rank);
	RANK_OK(r, bm_write(bm, slot(bm, SMEM_MEM_TYPE_HOST, (r->rank + 1) % r->size), buf,
			    sizeof(buf)));
	rank_barrier(r);
	RANK_ASSERT(r, pattern_is(slot(bm, SMEM_MEM_TYPE_HOST, r->rank), sizeof(buf),
				  (r->rank + r->size - 1) % r->size));
	RANK_CODE(r, atomic_load(&warnings), 1);
	rank_barrier(r);
	smem_bm_uninit(0);
	rank_barrier(r);
}

static void traffic(struct rank *r, unsigned rounds)
{
	smem_bm_t bm = bm_up(r, 1, DRAM, 0);
	char *buf = memory(r, DRAM), *back = memory(r, DRAM);
	char *g = slot(bm, SMEM_MEM_TYPE_HOST, (r->rank + 1) % r->size);

	rank_barrier(r);
	for (unsigned i = 0; i < rounds; i++) {
		pattern_fill(buf, DRAM, r->rank + i);
		RANK_OK(r, bm_write(bm, g, buf, DRAM));
		RANK_OK(r, bm_read(bm, back, g, DRAM));
		RANK_ASSERT(r, memcmp(buf, back, DRAM) == 0);
	}
	rank_barrier(r);
	free(buf);
	free(back);
	smem_bm_uninit(0);
}

static void jumbo(struct rank *r)
{
	host_enter(r, host_of(r->rank));
	if (r->rank == 0)
		host_mtu(r, 9000);
	rank_barrier(r);
	traffic(r, 5);
	rank_barrier(r);
	if (r->rank == 0)
		host_mtu(r, 1500);
}

static void limited_rate(struct rank *r)
{
	host_enter(r, host_of(r->rank));
	bool can = r->rank != 0 || host_rate(r, 0, 200);
	uint8_t mine = can, all[RANK_MAX];
	rank_gather(r, &mine, 1, all);
	if (!all[0])
		rank_skip(r, "the kernel has no tbf queue");
	traffic(r, 2);
	rank_barrier(r);
	if (r->rank == 0)
		host_rate(r, 0, 0);
}

/* Whatever gets lost is sent again: by the kernels, on the store's connections as well. */
static void lossy(struct rank *r)
{
	host_enter(r, host_of(r->rank));
	bool can = r->rank >= 2 || host_loss(r, host_of(r->rank), 2);
	uint8_t mine = can, all[RANK_MAX];
	rank_gather(r, &mine, 1, all);
	if (!all[0])
		rank_skip(r, "there is no nft here, or no nf_tables in the kernel");
	traffic(r, 20);
	rank_barrier(r);
	if (r->rank < 2)
		host_loss(r, host_of(r->rank), 0);
}

static void delayed(struct rank *r)
{
	host_enter(r, host_of(r->rank));
	bool can = r->rank != 0 || host_netem(r, 0, "loss 1% delay 2ms 1ms");
	uint8_t mine = can, all[RANK_MAX];
	rank_gather(r, &mine, 1, all);
	if (!all[0])
		rank_skip(r, "the kernel has no netem queue");
	traffic(r, 3);
	rank_barrier(r);
	if (r->rank == 0)
		host_netem(r, 0, NULL);
}

static const struct ranks_case cases[] = {
    {.name = "directions", .fn = directions, .sizes = {2, 4, 8}},
    {.name = "borders", .fn = borders, .sizes = {2, 4}},
    {.name = "strides", .fn = strides, .sizes = {2, 3}},
    {.name = "global_to_global", .fn = global_to_global, .sizes = {2, 3}},
    {.name = "rejoin", .fn = rejoin, .sizes = {2}},
    {.name = "restart", .fn = restart, .sizes = {2}},
    {.name = "silence", .fn = silence, .sizes = {3}},
    {.name = "v6", .fn = v6, .sizes = {2, 4}},
    {.name = "tls", .fn = tls, .sizes = {2, 4}},
    {.name = "jumbo", .fn = jumbo, .sizes = {2}},
    {.name = "limited_rate", .fn = limited_rate, .sizes = {2}},
    {.name = "lossy", .fn = lossy, .sizes = {2, 4}},
    {.name = "delayed", .fn = delayed, .sizes = {2}},
};

int main(int argc, char **argv)
{
	return hosts_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
