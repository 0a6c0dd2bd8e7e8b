/* SPDX-License-Identifier: Apache-2.0 */
/* Group exit: it reaches everybody who registered, once, also when the announcer is gone at once.
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

#include "shm_util.h"

static struct rank *me;
static smem_shm_t handle;
static struct flag calls = FLAG_INIT;
static _Atomic int status_seen;

static void told(int status)
{
	atomic_store(&status_seen, status);
	flag_raise(&calls);
}

static void destroys(int status)
{
	RANK_OK(me, smem_shm_destroy(handle, 0));
	smem_shm_uninit(0);
	told(status);
}

static void up(struct rank *r)
{
	char *base;

	me = r;
	shm_up(r, 60, 60);
	handle = shm_make(r, 2, MIB2, &base);
}

static void until_told(struct rank *r, int want_status)
{
	flag_wait(r, &calls, 1);
	RANK_CODE(r, flag_count(&calls), 1);
	RANK_CODE(r, atomic_load(&status_seen), want_status);
}

/* The first one counts; the caller is told too; ranks that did not register are not. */
static void announced(struct rank *r)
{
	up(r);
	bool registers = r->rank != 1 || r->size == 1;
	if (registers)
		RANK_OK(r, smem_shm_register_exit(handle, told));
	RANK_OK(r, smem_shm_control_barrier(handle));
	if (r->rank == 0) {
		smem_shm_global_exit(handle, -3);
		smem_shm_global_exit(handle, 4);
	}
	RANK_OK(r, smem_shm_control_barrier(handle));
	smem_shm_global_exit(handle, 5);
	if (registers)
		until_told(r, -3);
	rank_barrier(r);
	RANK_OK(r, smem_shm_control_barrier(handle));
	RANK_OK(r, smem_shm_destroy(handle, 0));
	RANK_CODE(r, flag_count(&calls), registers);
	smem_shm_uninit(0);
}

/* Registered after the announcement: called at once. */
static void late_registration(struct rank *r)
{
	up(r);
	if (r->rank == 0)
		smem_shm_global_exit(handle, 0);
	RANK_OK(r, smem_shm_control_barrier(handle));
	RANK_OK(r, smem_shm_register_exit(handle, told));
	until_told(r, 0);
	rank_barrier(r);
	smem_shm_uninit(0);
}

/* The last rank announces and is gone at once, by _exit or by SIGKILL. */
static void announcer_gone(struct rank *r, bool kill_self)
{
	up(r);
	bool last = r->rank == r->size - 1;
	if (!last)
		RANK_OK(r, smem_shm_register_exit(handle, told));
	RANK_OK(r, smem_shm_control_barrier(handle));
	if (last) {
		rank_may_die(r);
		smem_shm_global_exit(handle, 42);
		if (kill_self)
			raise(SIGKILL);
		_exit(9);
	}
	until_told(r, 42);
	RANK_OK(r, smem_shm_destroy(handle, 0));
	smem_shm_uninit(0);
}

static void announcer_exits(struct rank *r)
{
	announcer_gone(r, false);
}

static void announcer_killed(struct rank *r)
{
	announcer_gone(r, true);
}

/* So does rank 0, who hosts the store. */
static void host_gone(struct rank *r)
{
	up(r);
	if (r->rank != 0)
		RANK_OK(r, smem_shm_register_exit(handle, told));
	RANK_OK(r, smem_shm_control_barrier(handle));
	if (r->rank == 0) {
		rank_may_die(r);
		smem_shm_global_exit(handle, 6);
		_exit(0);
	}
	until_told(r, 6);
	smem_shm_uninit(0);
}

/* The callback destroys its own object and ends the service. */
static void callback_destroys(struct rank *r)
{
	up(r);
	RANK_OK(r, smem_shm_register_exit(handle, destroys));
	RANK_OK(r, smem_shm_control_barrier(handle));
	if (r->rank == 0)
		smem_shm_global_exit(handle, 1);
	until_told(r, 1);
	RANK_CODE(r, smem_shm_control_barrier(handle), SMEM_NOT_INITIALIZED);
	rank_barrier(r);
}

/* After destroy returned nothing starts any more. */
static void destroyed_before(struct rank *r)
{
	up(r);
	RANK_OK(r, smem_shm_register_exit(handle, told));
	RANK_OK(r, smem_shm_control_barrier(handle));
	if (r->rank == 0)
		RANK_OK(r, smem_shm_destroy(handle, 0));
	rank_barrier(r);
	if (r->rank != 0) {
		smem_shm_global_exit(handle, 1);
		until_told(r, 1);
	}
	rank_barrier(r);
	RANK_CODE(r, flag_count(&calls), r->rank != 0);
	smem_shm_uninit(0);
}

static const struct ranks_case cases[] = {
    {.name = "announced", .fn = announced, .sizes = {1, 2, 4, 8}},
    {.name = "late_registration", .fn = late_registration, .sizes = {1, 4}},
    {.name = "announcer_exits", .fn = announcer_exits, .sizes = {2, 4}},
    {.name = "announcer_killed", .fn = announcer_killed, .sizes = {2, 4}},
    {.name = "host_gone", .fn = host_gone, .sizes = {2, 4}},
    {.name = "callback_destroys", .fn = callback_destroys, .sizes = {1, 2, 4}},
    {.name = "destroyed_before", .fn = destroyed_before, .sizes = {2, 4}},
};

int main(int argc, char **argv)
{
	return ranks_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
