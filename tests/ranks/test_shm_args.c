/* SPDX-License-Identifier: Apache-2.0 */
/* What bad input gets from every SHM function, before init, after it, and after destroy. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shm_util.h"

static void nothing(int status)
{
	(void)status;
}

/* Every function that takes a handle, with good arguments. */
static void all_give(struct rank *r, smem_shm_t h, int32_t code, int32_t destroy_code)
{
	char buf[8] = "", all[8];
	uint32_t u = 8;

	RANK_CODE(r, smem_shm_set_extra_context(h, buf, 8), code);
	RANK_CODE(r, smem_shm_get_extra_context(h, 0, buf, &u), code);
	RANK_CODE(r, smem_shm_get_global_rank(h), UINT32_MAX);
	RANK_CODE(r, smem_get_last_err_code(), code);
	RANK_CODE(r, smem_shm_get_global_rank_size(h), UINT32_MAX);
	RANK_CODE(r, smem_get_last_err_code(), code);
	RANK_CODE(r, smem_shm_control_barrier(h), code);
	RANK_CODE(r, smem_shm_control_allgather(h, buf, 8, all, 8), code);
	RANK_CODE(r, smem_shm_topology_can_reach(h, 0, &u), code);
	RANK_CODE(r, smem_shm_register_exit(h, nothing), code);
	smem_get_and_clear_last_err_msg();
	smem_shm_global_exit(h, 1);
	RANK_CODE(r, smem_get_last_err_code(), code);
	RANK_CODE(r, smem_shm_destroy(h, 0), destroy_code);
}

/* Plain arguments are looked at before anything else but a NULL handle. */
static void plain_arguments(struct rank *r, smem_shm_t h)
{
	const int32_t bad = SMEM_INVALID_PARAM;
	char buf[8];
	uint32_t u = 8;

	RANK_CODE(r, smem_shm_set_extra_context(h, NULL, 8), bad);
	RANK_CODE(r, smem_shm_set_extra_context(h, buf, 0), bad);
	RANK_CODE(r, smem_shm_set_extra_context(h, buf, 65537), bad);
	RANK_SAYS(r, "65537");
	RANK_CODE(r, smem_shm_get_extra_context(h, 0, buf, NULL), bad);
	RANK_CODE(r, smem_shm_get_extra_context(h, 0, NULL, &u), bad);
	RANK_CODE(r, smem_shm_control_allgather(h, NULL, 8, buf, 8), bad);
	RANK_CODE(r, smem_shm_control_allgather(h, buf, 8, NULL, 8), bad);
	RANK_CODE(r, smem_shm_control_allgather(h, buf, 0, buf, 0), bad);
	RANK_CODE(r, smem_shm_control_allgather(h, buf, 65537, buf, 65537), bad);
	RANK_CODE(r, smem_shm_topology_can_reach(h, 0, NULL), bad);
	RANK_CODE(r, smem_shm_register_exit(h, NULL), bad);
}

static void bad_creates(struct rank *r)
{
	const smem_shm_data_op_type mte = SMEMS_DATA_OP_MTE;
	const int32_t bad = SMEM_INVALID_PARAM;

	SHM_CREATE_FAILS(r, bad, 64, 1, 0, MIB2, mte, 0);
	RANK_SAYS(r, "id 64");
	SHM_CREATE_FAILS(r, bad, UINT32_MAX, 1, 0, MIB2, mte, 0);
	SHM_CREATE_FAILS(r, bad, 1, 0, 0, MIB2, mte, 0);
	SHM_CREATE_FAILS(r, bad, 1, 1025, 0, MIB2, mte, 0);
	SHM_CREATE_FAILS(r, bad, 1, 1, 1, MIB2, mte, 0);
	SHM_CREATE_FAILS(r, bad, 1, 1, 0, 0, mte, 0);
	SHM_CREATE_FAILS(r, bad, 1, 1, 0, 1024, mte, 0);
	SHM_CREATE_FAILS(r, bad, 1, 1, 0, 3ull << 20, mte, 0);
	SHM_CREATE_FAILS(r, bad, 1, 1, 0, (4ull << 30) + MIB2, mte, 0);
	SHM_CREATE_FAILS(r, bad, 1, 1, 0, UINT64_MAX, mte, 0);
	SHM_CREATE_FAILS(r, bad, 1, 1, 0, MIB2, (smem_shm_data_op_type)0, 0);
	SHM_CREATE_FAILS(r, bad, 1, 1, 0, MIB2, (smem_shm_data_op_type)8, 0);
	SHM_CREATE_FAILS(r, bad, 1, 1, 0, MIB2, (smem_shm_data_op_type)(1 | 16), 0);
	RANK_ASSERT(r, smem_shm_create(1, 1, 0, MIB2, mte, 0, NULL) == NULL);
	RANK_CODE(r, smem_get_last_err_code(), bad);
}

static void bad_inits(struct rank *r)
{
	static const char *const urls[] = {
	    "",
	    "tcp://1.2.3.4",
	    "http://1.2.3.4:9",
	    "tcp://1.2.3.4:0",
	    "tcp://1.2.3.4:65536",
	    "tcp://1.2.3.4:05",
	    "tcp://01.2.3.4:9",
	    "tcp://::1:9",
	    "tcp://1.2.3.4:9/x",
	    "tcp://0.0.0.0:9",
	    "tcp://[::]:9",
	};
	const int32_t bad = SMEM_INVALID_PARAM;
	smem_shm_config_t c = shm_config(1, 1), zero;

	for (size_t i = 0; i < sizeof(urls) / sizeof(urls[0]); i++)
		RANK_CODE(r, smem_shm_init(urls[i], 1, 0, 0, &c), bad);
	RANK_CODE(r, smem_shm_init(NULL, 1, 0, 0, &c), bad);
	RANK_CODE(r, smem_shm_init(r->url, 1, 0, 0, NULL), bad);
	RANK_CODE(r, smem_shm_init(r->url, 0, 0, 0, &c), bad);
	RANK_CODE(r, smem_shm_init(r->url, 1025, 0, 0, &c), bad);
	RANK_CODE(r, smem_shm_init(r->url, 65536, 0, 0, &c), bad);
	RANK_CODE(r, smem_shm_init(r->url, 1, 1, 0, &c), bad);
	for (int i = 0; i < 3; i++) {
		zero = c;
		uint32_t *fields[] = {&zero.shmInitTimeout, &zero.shmCreateTimeout,
				      &zero.controlOperationTimeout};
		*fields[i] = 0;
		RANK_CODE(r, smem_shm_init(r->url, 1, 0, 0, &zero), bad);
		RANK_SAYS(r, "imeout");
	}
	RANK_CODE(r, smem_shm_config_init(NULL), bad);
}

static void bad_input(struct rank *r)
{
	char buf[16], local;
	uint32_t u = 8, reach = 9;
	void *base;

	RANK_CODE(r, smem_shm_query_support_data_operation(), SMEMS_DATA_OP_MTE);
	bad_inits(r);
	bad_creates(r);
	SHM_CREATE_FAILS(r, SMEM_NOT_INITIALIZED, 1, 1, 0, MIB2, SMEMS_DATA_OP_MTE, 0);
	all_give(r, NULL, SMEM_INVALID_PARAM, SMEM_INVALID_PARAM);
	all_give(r, (void *)1, SMEM_NOT_INITIALIZED, SMEM_NOT_INITIALIZED);
	plain_arguments(r, (void *)1);
	smem_shm_uninit(0);

	shm_up(r, 60, 60);
	shm_up(r, 60, 60); /* again */
	bad_creates(r);
	plain_arguments(r, (void *)1);
	all_give(r, NULL, SMEM_INVALID_PARAM, SMEM_INVALID_PARAM);
	all_give(r, (void *)1, SMEM_INVALID_PARAM, SMEM_OBJECT_NOT_EXISTS);
	all_give(r, &local, SMEM_INVALID_PARAM, SMEM_OBJECT_NOT_EXISTS);
	SHM_CREATE_FAILS(r, SMEM_NOT_SUPPORTED, 1, 1, 0, MIB2,
			 (smem_shm_data_op_type)(SMEMS_DATA_OP_MTE | SMEMS_DATA_OP_SDMA), 0);
	smem_shm_t h = smem_shm_create(1, 1, 0, MIB2, SMEMS_DATA_OP_MTE, 0, &base);
	RANK_ASSERT(r, h != NULL);
	SHM_CREATE_FAILS(r, SMEM_DUPLICATED_OBJECT, 1, 1, 0, MIB2, SMEMS_DATA_OP_ROCE, 0);
	plain_arguments(r, h);
	RANK_CODE(r, smem_shm_control_allgather(h, buf, 8, buf, 7), SMEM_INVALID_PARAM);
	RANK_CODE(r, smem_shm_topology_can_reach(h, 1, &reach), SMEM_INVALID_PARAM);
	RANK_ASSERT(r, reach == 9);
	RANK_CODE(r, smem_shm_get_extra_context(h, 1, buf, &u), SMEM_INVALID_PARAM);
	RANK_OK(r, smem_shm_set_extra_context(h, "123456789", 9));
	RANK_CODE(r, smem_shm_get_extra_context(h, 0, buf, &u), SMEM_INVALID_PARAM);
	RANK_ASSERT(r, u == 9);
	RANK_OK(r, smem_shm_register_exit(h, nothing));
	RANK_CODE(r, smem_shm_register_exit(h, nothing), SMEM_REPEAT_CALL);
	RANK_OK(r, smem_shm_destroy(h, 0));
	all_give(r, h, SMEM_INVALID_PARAM, SMEM_OBJECT_NOT_EXISTS);
	smem_shm_uninit(0);
	all_give(r, h, SMEM_NOT_INITIALIZED, SMEM_NOT_INITIALIZED);
	smem_shm_uninit(0);
}

/* ---- threads against destroy and uninit ---- */

struct waiter {
	struct flag in;
	struct rank *r;
	smem_shm_t h;
	int32_t code;
	pthread_t thread;
};

static void *wait_in_barrier(void *arg)
{
	struct waiter *w = arg;

	flag_raise(&w->in);
	w->code = smem_shm_control_barrier(w->h);
	return NULL;
}

/* Let the other thread go on to where it waits: a while, not an event that could be waited for. */
static void let_it_wait(struct rank *r)
{
	for (uint32_t i = 0; i < 50; i++)
		rank_put(r, "tick", &i, sizeof(i));
}

/* Rank 1 never comes; destroy and uninit wake the barrier. */
static void destroy_wakes(struct rank *r)
{
	char *base;

	shm_up(r, 60, 60);
	for (uint32_t i = 0; i < 20; i++) {
		struct waiter w = {.in = FLAG_INIT, .r = r, .h = shm_make(r, 1, MIB2, &base)};
		if (r->rank == 0) {
			RANK_OK(r, pthread_create(&w.thread, NULL, wait_in_barrier, &w));
			flag_wait(r, &w.in, 1);
			let_it_wait(r);
		}
		if (i % 2)
			smem_shm_uninit(0);
		else if (r->rank == 0)
			RANK_OK(r, smem_shm_destroy(w.h, 0));
		if (r->rank == 0) {
			RANK_OK(r, pthread_join(w.thread, NULL));
			/* It may have come too late to wait. */
			RANK_ASSERT(
			    r, w.code == SMEM_OBJECT_NOT_EXISTS || w.code == SMEM_INVALID_PARAM ||
				   w.code == SMEM_NOT_INITIALIZED || w.code == SMEM_PEER_LOST);
		}
		rank_barrier(r);
		if (i % 2)
			shm_up(r, 60, 60);
		else if (r->rank == 1)
			RANK_OK(r, smem_shm_destroy(w.h, 0));
	}
	rank_barrier(r); /* rank 1 has found the store before it goes */
	smem_shm_uninit(0);
}

static void *wait_in_create(void *arg)
{
	struct waiter *w = arg;
	void *base;

	flag_raise(&w->in);
	w->h = smem_shm_create(1, 2, 0, MIB2, SMEMS_DATA_OP_MTE, 0, &base);
	w->code = smem_get_last_err_code();
	return NULL;
}

static void uninit_wakes_create(struct rank *r)
{
	uint64_t start = rank_ms();

	for (int i = 0; i < 5; i++) {
		struct waiter w = {.in = FLAG_INIT, .r = r};
		shm_up(r, 50, 50);
		RANK_OK(r, pthread_create(&w.thread, NULL, wait_in_create, &w));
		flag_wait(r, &w.in, 1);
		let_it_wait(r);
		smem_shm_uninit(0);
		RANK_OK(r, pthread_join(w.thread, NULL));
		RANK_ASSERT(r, w.h == NULL);
		RANK_ASSERT(r, w.code == SMEM_OBJECT_NOT_EXISTS || w.code == SMEM_NOT_INITIALIZED);
	}
	RANK_ASSERT(r, rank_ms() - start < 40000);
}

/* A child has nothing of its parent, and its end is not felt. */
static void forks(struct rank *r)
{
	char *base;
	int status;

	shm_up(r, 60, 60);
	smem_shm_t h = shm_make(r, 1, MIB2, &base);
	RANK_OK(r, smem_shm_control_barrier(h));
	pid_t pid = fork();
	if (pid == 0) {
		void *gva;
		int ok = smem_shm_control_barrier(h) == SMEM_NOT_INITIALIZED &&
			 smem_shm_get_global_rank(h) == UINT32_MAX &&
			 smem_shm_create(2, 1, 0, MIB2, SMEMS_DATA_OP_MTE, 0, &gva) == NULL &&
			 smem_get_last_err_code() == SMEM_NOT_INITIALIZED;
		smem_shm_uninit(0);
		_exit(ok ? 0 : 1);
	}
	RANK_ASSERT(r, waitpid(pid, &status, 0) == pid && status == 0);
	RANK_OK(r, smem_shm_control_barrier(h));
	RANK_OK(r, smem_shm_destroy(h, 0));
	smem_shm_uninit(0);
}

static const struct ranks_case cases[] = {
    {.name = "bad_input", .fn = bad_input, .sizes = {1}},
    {.name = "destroy_wakes", .fn = destroy_wakes, .sizes = {2}},
    {.name = "uninit_wakes_create", .fn = uninit_wakes_create, .sizes = {1}},
    {.name = "forks", .fn = forks, .sizes = {1, 2, 4}},
};

int main(int argc, char **argv)
{
	return ranks_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
