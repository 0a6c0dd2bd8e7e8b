/* SPDX-License-Identifier: Apache-2.0 */
/* The service: ranks given and assigned, worlds that differ, several processes of one fork, and
 * address spaces that are not alike. */
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bm_util.h"

#define SLOT (2 * MIB)

static smem_bm_t create(struct rank *r, uint32_t id)
{
	smem_bm_t bm = smem_bm_create(id, 0, SMEMB_DATA_OP_SDMA, SLOT, 0, 0);

	RANK_ASSERT(r, bm != NULL);
	return bm;
}

static void join_and_talk(struct rank *r)
{
	uint32_t me = smem_bm_get_rank_id();
	void *own;

	smem_bm_t bm = create(r, 1);
	RANK_OK(r, smem_bm_join(bm, 0, &own));
	rank_barrier(r);
	for (uint32_t i = 0; i < r->size; i++)
		RANK_OK(r, bm_write(bm, (char *)smem_bm_ptr(bm, (uint16_t)i) + me, "y", 1));
	rank_barrier(r);
	for (uint32_t i = 0; i < r->size; i++)
		RANK_ASSERT(r, ((char *)smem_bm_ptr(bm, (uint16_t)me))[i] == 'y');
	rank_barrier(r);
}

static void check_distinct(struct rank *r, uint32_t *ret_all)
{
	uint32_t me = smem_bm_get_rank_id(), seen = 0;

	rank_gather(r, &me, sizeof(me), ret_all);
	for (uint32_t i = 0; i < r->size; i++) {
		RANK_ASSERT(r, ret_all[i] < r->size);
		for (uint32_t k = 0; k < i; k++)
			RANK_ASSERT(r, ret_all[i] != ret_all[k]);
		seen++;
	}
	RANK_ASSERT(r, seen == r->size);
}

/* All together: ordered by device, the address being the same. */
static void auto_static(struct rank *r)
{
	smem_bm_config_t c = bm_config(r);
	uint32_t all[RANK_MAX];

	c.autoRanking = true;
	c.rankId = UINT16_MAX;
	/* rank 0 hosts, so that the one who goes below does not */
	if (r->rank == 0)
		RANK_OK(r, smem_create_config_store(r->url));
	rank_barrier(r);
	RANK_OK(r, smem_bm_init(r->url, r->size, (uint16_t)(r->size - r->rank), &c));
	check_distinct(r, all);
	RANK_ASSERT(r, smem_bm_get_rank_id() == r->size - 1 - r->rank);
	join_and_talk(r);
	/* one goes; who comes gets its number, and does not wait for a full lobby */
	if (r->rank == 1)
		smem_bm_uninit(0);
	rank_barrier(r);
	if (r->rank == 1) {
		RANK_OK(r, smem_bm_init(r->url, r->size, 77, &c));
		RANK_ASSERT(r, smem_bm_get_rank_id() == r->size - 2);
	}
	rank_barrier(r);
	smem_bm_uninit(0);
}

/* Equal devices: numbers are distinct all the same. */
static void auto_equal(struct rank *r)
{
	smem_bm_config_t c = bm_config(r);
	uint32_t all[RANK_MAX];

	c.autoRanking = true;
	RANK_OK(r, smem_bm_init(r->url, r->size, 3, &c));
	check_distinct(r, all);
	join_and_talk(r);
	smem_bm_uninit(0);
}

static void auto_missing(struct rank *r)
{
	smem_bm_config_t c = bm_config(r);

	c.autoRanking = true;
	c.initTimeout = 1;
	RANK_CODE(r, smem_bm_init(r->url, r->size + 1, 0, &c), SMEM_TIMEOUT);
	RANK_ASSERT(r, smem_bm_get_rank_id() == UINT32_MAX);
	rank_barrier(r);
}

static void auto_dynamic(struct rank *r)
{
	smem_bm_config_t c = bm_config(r);

	c.autoRanking = true;
	c.dynamicWorldSize = true;
	for (uint32_t i = 0; i < r->size; i++) {
		if (i == r->rank) {
			/* alone or not: no waiting, the lowest free number */
			RANK_OK(r, smem_bm_init(r->url, r->size, 0, &c));
			RANK_ASSERT(r, smem_bm_get_rank_id() == i);
		}
		rank_barrier(r);
	}
	if (r->rank > 0 && r->rank == r->size - 1) {
		smem_bm_config_t other = c;
		smem_bm_uninit(0);
		RANK_CODE(r, smem_bm_init(r->url, r->size + 1, 0, &other), SMEM_INVALID_PARAM);
		RANK_ASSERT(r, strstr(smem_get_last_err_msg(), "worldSize"));
		RANK_OK(r, smem_bm_init(r->url, r->size, 0, &c));
		RANK_ASSERT(r, smem_bm_get_rank_id() == r->size - 1);
	}
	rank_barrier(r);
	join_and_talk(r);
	smem_bm_uninit(0);
}

static void auto_full(struct rank *r)
{
	smem_bm_config_t c = bm_config(r);

	c.autoRanking = true;
	c.dynamicWorldSize = true;
	if (r->rank < 2)
		RANK_OK(r, smem_bm_init(r->url, 2, 0, &c));
	rank_barrier(r);
	if (r->rank == 2)
		RANK_CODE(r, smem_bm_init(r->url, 2, 0, &c), SMEM_RESOURCE_IN_USE);
	rank_barrier(r);
	smem_bm_uninit(0);
}

static void same_rank_twice(struct rank *r)
{
	smem_bm_config_t c = bm_config(r);

	c.rankId = 0;
	if (r->rank == 0)
		bm_init(r);
	rank_barrier(r);
	if (r->rank == 1) {
		c.startConfigStore = false;
		RANK_CODE(r, smem_bm_init(r->url, r->size, 0, &c), SMEM_DUPLICATED_OBJECT);
		RANK_CODE(r, smem_bm_init(r->url, 5, 0, &c), SMEM_INVALID_PARAM);
		RANK_ASSERT(r, strstr(smem_get_last_err_msg(), "worldSize 5"));
		RANK_ASSERT(r, strstr(smem_get_last_err_msg(), "2"));
		RANK_ASSERT(r, smem_bm_get_rank_id() == UINT32_MAX);
		bm_init(r);
		bm_init(r); /* again: nothing changes */
	}
	rank_barrier(r);
	smem_bm_uninit(0);
	smem_bm_uninit(0);
}

/* Rank 2 hosts the store and takes no rank. */
static void store_only(struct rank *r)
{
	smem_bm_config_t c = bm_config(r);

	c.startConfigStore = false;
	if (r->rank == 2) {
		c.startConfigStoreOnly = true;
		c.rankId = UINT16_MAX;
	}
	RANK_OK(r, smem_bm_init(r->url, 2, 0, &c));
	if (r->rank == 2) {
		RANK_ASSERT(r, smem_bm_get_rank_id() == UINT32_MAX);
		RANK_ASSERT(r, !smem_bm_create(1, 0, SMEMB_DATA_OP_SDMA, SLOT, 0, 0));
		RANK_CODE(r, smem_get_last_err_code(), SMEM_NOT_SUPPORTED);
	} else {
		void *own;
		RANK_ASSERT(r, smem_bm_get_rank_id() == r->rank);
		smem_bm_t bm = create(r, 1);
		RANK_OK(r, smem_bm_join(bm, 0, &own));
		rank_meet(r, "two", 2);
		RANK_OK(r, bm_write(bm, smem_bm_ptr(bm, (uint16_t)(1 - r->rank)), "x", 1));
		rank_meet(r, "two", 2);
	}
	/* all at once: the host lingers for the others, and does not wait longer than they need */
	rank_barrier(r);
	uint64_t begin = rank_ms();
	smem_bm_uninit(0);
	RANK_ASSERT(r, rank_ms() - begin < 5000);
}

/* A store made by hand, in a process that is no rank, shared by all. */
static void store_by_hand(struct rank *r)
{
	smem_bm_config_t c = bm_config(r);

	c.startConfigStore = false;
	if (r->rank == 0) {
		RANK_OK(r, smem_create_config_store(r->url));
		RANK_OK(r, smem_create_config_store(r->url));
	}
	RANK_OK(r, smem_bm_init(r->url, r->size, 0, &c));
	join_and_talk(r);
	smem_bm_uninit(0);
	RANK_OK(r, smem_bm_init(r->url, r->size, 0, &c));
	join_and_talk(r);
	smem_uninit();
	RANK_ASSERT(r, smem_bm_get_rank_id() == UINT32_MAX);
}

static void nobody_listens(struct rank *r)
{
	smem_bm_config_t c = bm_config(r);

	c.startConfigStore = false;
	c.initTimeout = 1;
	uint64_t begin = rank_ms();
	RANK_CODE(r, smem_bm_init(r->url, 4, 0, &c), SMEM_TIMEOUT);
	RANK_ASSERT(r, strstr(smem_get_last_err_msg(), r->url) != NULL);
	RANK_ASSERT(r, rank_ms() - begin >= 900 && rank_ms() - begin < 2000 + SLACK_MS);
	/* and at once again, with other arguments */
	c.startConfigStore = true;
	RANK_OK(r, smem_bm_init(r->url, 1, 0, &c));
	smem_bm_uninit(0);
}

static void init_uninit_often(struct rank *r)
{
	for (int i = 0; i < 10; i++) {
		bm_init(r);
		join_and_talk(r);
		smem_bm_uninit(0);
		rank_barrier(r);
	}
}

/* ---- fork ---- */

static int child_status(struct rank *r, pid_t pid)
{
	int status = 0;

	RANK_ASSERT(r, waitpid(pid, &status, 0) == pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

/* go: rank 0 has joined when a byte comes; -1: it has already. */
static int be_rank_one(struct rank *r, int go)
{
	smem_bm_config_t c = bm_config(r);
	void *own;
	char byte;

	c.rankId = 1;
	if (smem_bm_init(r->url, 2, 0, &c) != SMEM_OK)
		return 10;
	smem_bm_t bm = smem_bm_create(1, 0, SMEMB_DATA_OP_SDMA, SLOT, 0, 0);
	if (!bm || smem_bm_join(bm, 0, &own) != SMEM_OK)
		return 11;
	if (go >= 0 && read(go, &byte, 1) != 1)
		return 13;
	if (bm_write(bm, smem_bm_ptr(bm, 0), "child", 6) != SMEM_OK)
		return 12;
	smem_uninit();
	return 0;
}

/* The child of an uninitialised process is a process like any other. */
static void fork_before(struct rank *r)
{
	void *own;
	int go[2];

	RANK_OK(r, smem_set_log_level(3));
	RANK_ASSERT(r, pipe2(go, O_CLOEXEC) == 0);
	pid_t pid = fork();
	RANK_ASSERT(r, pid >= 0);
	if (pid == 0)
		_exit(be_rank_one(r, go[0]));
	smem_bm_config_t c = bm_config(r);
	RANK_OK(r, smem_bm_init(r->url, 2, 0, &c));
	smem_bm_t bm = create(r, 1);
	RANK_OK(r, smem_bm_join(bm, 0, &own));
	RANK_ASSERT(r, write(go[1], "", 1) == 1);
	RANK_ASSERT(r, child_status(r, pid) == 0);
	close(go[0]);
	close(go[1]);
	RANK_ASSERT(r, strcmp(own, "child") == 0);
	smem_bm_uninit(0);
}

static int be_forked(struct rank *r, smem_bm_t bm)
{
	void *own;
	char byte;

	if (smem_bm_get_rank_id() != UINT32_MAX || smem_get_last_err_code() != SMEM_NOT_INITIALIZED)
		return 1;
	if (smem_bm_join(bm, 0, &own) != SMEM_NOT_INITIALIZED)
		return 2;
	if (bm_read(bm, &byte, &byte, 1) != SMEM_NOT_INITIALIZED)
		return 3;
	smem_bm_uninit(0);
#if !defined(__SANITIZE_THREAD__) /* no threads in a child of a process with threads there */
	int code = be_rank_one(r, -1);
	if (code != 0)
		return code;
	if (smem_bm_join(bm, 0, &own) != SMEM_NOT_INITIALIZED)
		return 4;
#else
	(void)r;
#endif
	return 0;
}

/* The child of a joined process has nothing of it, and the parent is not disturbed. */
static void fork_after(struct rank *r)
{
	void *own;

	smem_bm_config_t c = bm_config(r);
	RANK_OK(r, smem_bm_init(r->url, 2, 0, &c));
	smem_bm_t bm = create(r, 1);
	RANK_OK(r, smem_bm_join(bm, 0, &own));
	for (int i = 0; i < 3; i++) {
		memset(own, 0, 6);
		pid_t pid = fork();
		RANK_ASSERT(r, pid >= 0);
		if (pid == 0)
			_exit(be_forked(r, bm));
		RANK_OK(r, bm_write(bm, own, "mother", 6));
		int status = child_status(r, pid);
		if (status != 0)
			rank_fail(r, __FILE__, __LINE__, "child: %d", status);
		RANK_OK(r, smem_bm_leave(bm, 0));
		RANK_OK(r, smem_bm_join(bm, 0, &own));
	}
	smem_bm_uninit(0);
}

/* ---- address space ---- */

static void *where_objects_lie(struct rank *r)
{
	void *at = NULL;

	if (r->rank == 0) {
		smem_bm_config_t c = bm_config(r);
		RANK_OK(r, smem_bm_init(r->url, 1, 0, &c));
		at = smem_bm_ptr(create(r, 1), 0);
		smem_bm_uninit(0);
		rank_put(r, "where", &at, sizeof(at));
	}
	rank_get(r, "where", &at, sizeof(at));
	rank_barrier(r);
	return at;
}

static void *occupy(struct rank *r, void *at)
{
	void *got =
	    mmap(at, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	RANK_ASSERT(r, got == at);
	return got;
}

/* One process has something where the others would put the object: all go elsewhere together. */
static void occupied_before(struct rank *r)
{
	void *at = where_objects_lie(r), *bases[RANK_MAX];

	if (r->rank + 1 == r->size)
		occupy(r, at);
	bm_init(r);
	rank_barrier(r);
	smem_bm_t bm = create(r, 1);
	void *base = smem_bm_ptr(bm, 0), *own;
	rank_gather(r, &base, sizeof(base), bases);
	for (uint32_t i = 0; i < r->size; i++)
		RANK_ASSERT(r, bases[i] == base);
	RANK_ASSERT(r, (char *)at + 4096 <= (char *)base ||
			   (char *)base + r->size * SLOT <= (char *)at);
	RANK_OK(r, smem_bm_join(bm, 0, &own));
	rank_barrier(r);
	RANK_OK(r, bm_write(bm, smem_bm_ptr(bm, (uint16_t)((r->rank + 1) % r->size)), "x", 1));
	rank_barrier(r);
	smem_bm_uninit(0);
	if (r->rank + 1 == r->size)
		munmap(at, 4096);
}

/* Somebody holds the object already: who cannot follow gets an error that names the range. */
static void occupied_late(struct rank *r)
{
	void *at = where_objects_lie(r), *base = NULL;

	if (r->rank == 0) {
		bm_init(r);
		base = smem_bm_ptr(create(r, 1), 0);
		RANK_ASSERT(r, base == at);
	}
	rank_barrier(r);
	if (r->rank == 1) {
		char range[32];
		occupy(r, at);
		bm_init(r);
		RANK_ASSERT(r, !smem_bm_create(1, 0, SMEMB_DATA_OP_SDMA, SLOT, 0, 0));
		RANK_CODE(r, smem_get_last_err_code(), SMEM_RESOURCE_IN_USE);
		snprintf(range, sizeof(range), "%llx", (unsigned long long)(uintptr_t)at);
		RANK_ASSERT(r, strstr(smem_get_last_err_msg(), range) != NULL);
		/* another object goes where both can have it */
		RANK_ASSERT(r, smem_bm_create(2, 0, SMEMB_DATA_OP_SDMA, SLOT, 0, 0) != NULL);
	}
	rank_barrier(r);
	if (r->rank == 0)
		RANK_ASSERT(r, smem_bm_create(2, 0, SMEMB_DATA_OP_SDMA, SLOT, 0, 0) != NULL);
	rank_barrier(r);
	smem_bm_uninit(0);
	if (r->rank == 1)
		munmap(at, 4096);
}

static const struct ranks_case cases[] = {
    {.name = "auto_static", .fn = auto_static, .sizes = {2, 4, 8}},
    {.name = "auto_equal", .fn = auto_equal, .sizes = {1, 2, 8}},
    {.name = "auto_missing", .fn = auto_missing, .sizes = {1, 3}},
    {.name = "auto_dynamic", .fn = auto_dynamic, .sizes = {1, 2, 8}},
    {.name = "auto_full", .fn = auto_full, .sizes = {3}},
    {.name = "same_rank_twice", .fn = same_rank_twice, .sizes = {2}},
    {.name = "store_only", .fn = store_only, .sizes = {3}},
    {.name = "store_by_hand", .fn = store_by_hand, .sizes = {1, 4}},
    {.name = "nobody_listens", .fn = nobody_listens, .sizes = {1}},
    {.name = "init_uninit_often", .fn = init_uninit_often, .sizes = {1, 4}},
    {.name = "fork_before", .fn = fork_before, .sizes = {1}},
    {.name = "fork_after", .fn = fork_after, .sizes = {1}},
    {.name = "occupied_before", .fn = occupied_before, .sizes = {2, 4}},
    {.name = "occupied_late", .fn = occupied_late, .sizes = {2}},
};

int main(int argc, char **argv)
{
	return ranks_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
