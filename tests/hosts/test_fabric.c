/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a survey finds where some ranks are on one host and some on others. Ranks 0 to n - 2 live on
 * hosts 0 and 1 in turn; the last one asks, from host 2, and has nothing itself.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bm_util.h"
#include "fabric_util.h"
#include "hosts.h"
#include "shm_util.h"
#include "trans_util.h"

/* Namespaces are hosts for everything but the kernel's number, so the refusals are real ones. */
#define NO_CMA "cma: process_vm_readv of process #: Operation not permitted (errno #)"
#define APART                                                                                      \
	"direct: process # of this host: it is in another network namespace and offers no socket " \
	"file: set SMEM_RUNTIME_DIR to a directory both see (Connection refused) (after # "        \
	"ms); " NO_CMA
#define TOGETHER "direct: private memory is not mapped here; " NO_CMA

/* "ofi PROVIDER; why": whatever provider libfabric has here, the same for all. */
static const char *by_network(struct rank *r, const struct fabric *f, const char *why)
{
	static char text[1024], via[32];

	for (uint32_t i = 0; i < f->object_n; i++) {
		const struct fabric_object *o = &f->object[i];
		for (uint32_t k = 0; k < o->n && !via[0]; k++) {
			for (uint32_t x = 0; x < o->member[k].n && !via[0]; x++)
				snprintf(via, sizeof(via), "%s", f->text[o->member[k].cell[x].via]);
		}
	}
	RANK_ASSERT(r, via[0]);
	snprintf(text, sizeof(text), "ofi %s; %s", via, why);
	return text;
}

static void move_in(struct rank *r)
{
	host_enter(r, asks(r) ? 2 : r->rank % 2);
}

static const char *host_of(const struct fabric *f, const struct fabric_member *m)
{
	return m->host < f->host_n ? f->host[m->host].address : "";
}

/* Every pair of ranks of a pool, and where they are. */
static void check_mixed(struct rank *r, const struct fabric *f, const struct fabric_object *o,
			const uint32_t *pid)
{
	RANK_CODE(r, o->n, r->size - 1);
	for (uint32_t i = 0; i + 1 < r->size; i++) {
		const struct fabric_member *from = member_is(r, f, o, i, NULL);
		char want[32];
		RANK_ASSERT(r, from->state == FABRIC_SAID && from->joined && from->pid == pid[i]);
		snprintf(want, sizeof(want), "10.77.0.%u", i % 2 + 1);
		RANK_ASSERT(r, strcmp(host_of(f, from), want) == 0);
		for (uint32_t k = 0; k + 1 < r->size; k++) {
			const struct fabric_member *to = member_is(r, f, o, k, NULL);
			if (i == k)
				PAIR_IS(r, f, o, from, to, "");
			else if (i % 2 == k % 2)
				PAIR_IS(r, f, o, from, to, "direct");
			else
				PAIR_LIKE(r, f, o, from, to, by_network(r, f, APART));
			RANK_ASSERT(r, (from->host == to->host) == (i % 2 == k % 2));
		}
	}
}

static void pools(struct rank *r)
{
	uint32_t pid[RANK_MAX], own = (uint32_t)getpid();
	struct fabric f;
	void *slot;

	move_in(r);
	rank_gather(r, &own, sizeof(own), pid);
	if (!asks(r)) {
		pool_up(r, 7);
		smem_shm_config_t shm = shm_config(30, 30);
		RANK_OK(r, smem_shm_init(r->url, r->size - 1, r->rank, 0, &shm));
		RANK_ASSERT(
		    r, smem_shm_create(2, r->size - 1, r->rank, MIB2, SMEMS_DATA_OP_MTE, 0, &slot));
	}
	rank_barrier(r);
	if (asks(r)) {
		survey(r, 60, &f);
		RANK_CODE(r, f.processes, r->size - 1);
		RANK_CODE(r, f.host_n, 2);
		RANK_CODE(r, f.object_n, 2);
		check_mixed(r, &f, object_is(r, &f, FABRIC_BM, "bm/7"), pid);
		check_mixed(r, &f, object_is(r, &f, FABRIC_SHM, "shm/2"), pid);
		fabric_free(&f);
	}
	rank_barrier(r);
	smem_uninit();
}

/* CMA is forbidden to all: so on one host too, private memory goes over the network. */
static void sessions(struct rank *r)
{
	static char memory[4096];
	void *remote[RANK_MAX], *mine = memory;
	smem_trans_t h = NULL;
	struct fabric f;
	char byte = 1;

	move_in(r);
	if (r->rank == 0)
		RANK_OK(r, smem_create_config_store(r->url));
	if (!asks(r)) {
		h = trans_open(r, trans_name(r->rank), SMEM_TRANS_BOTH);
		RANK_OK(r, smem_trans_register_mem(h, memory, sizeof(memory), 0));
	}
	rank_gather(r, &mine, sizeof(mine), remote);
	if (r->rank == 0) {
		for (uint32_t i = 1; i + 1 < r->size; i++)
			RANK_OK(r, smem_trans_write(h, &byte, trans_name(i), remote[i], 1));
	}
	rank_barrier(r);
	if (asks(r)) {
		survey(r, 60, &f);
		const struct fabric_object *o = object_is(r, &f, FABRIC_TRANS, "");
		RANK_CODE(r, o->n, r->size - 1);
		const struct fabric_member *zero = member_is(r, &f, o, 0, trans_name(0));
		for (uint32_t i = 1; i + 1 < r->size; i++) {
			const struct fabric_member *m = member_is(r, &f, o, 0, trans_name(i));
			PAIR_LIKE(r, &f, o, zero, m, by_network(r, &f, i % 2 ? APART : TOGETHER));
			RANK_CODE(r, m->host == zero->host, i % 2 == 0);
			PAIR_IS(r, &f, o, m, zero, "");
		}
		fabric_free(&f);
	}
	rank_barrier(r);
	if (h)
		smem_trans_destroy(h, 0);
	smem_uninit();
}

/* A stopped process of another host is named; the others know where it is. */
static void stopped(struct rank *r)
{
	uint32_t pid[RANK_MAX], own = (uint32_t)getpid();
	struct fabric f;

	move_in(r);
	rank_gather(r, &own, sizeof(own), pid);
	if (!asks(r))
		pool_up(r, 7);
	rank_barrier(r);
	if (asks(r)) {
		rank_stop(r, 1); /* alive for the store: its kernel acknowledges */
		survey(r, 1, &f);
		RANK_CODE(r, f.silent, 1);
		const struct fabric_object *o = object_is(r, &f, FABRIC_BM, "bm/7");
		const struct fabric_member *m = member_is(r, &f, o, 1, NULL);
		RANK_CODE(r, m->state, FABRIC_SILENT);
		RANK_CODE(r, m->pid, pid[1]);
		RANK_ASSERT(r, strcmp(host_of(&f, m), "10.77.0.2") == 0);
		PAIR_LIKE(r, &f, o, member_is(r, &f, o, 0, NULL), m, by_network(r, &f, APART));
		fabric_free(&f);
		rank_cont(r, 1);
	}
	rank_barrier(r);
	smem_uninit();
}

static const struct ranks_case cases[] = {
    {.name = "pools", .fn = pools, .sizes = {3, 5, 7}},
    {.name = "sessions", .fn = sessions, .sizes = {5}},
    {.name = "stopped", .fn = stopped, .sizes = {3, 5}},
};

int main(int argc, char **argv)
{
	return hosts_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
