/* SPDX-License-Identifier: Apache-2.0 */
/* What the SHM tests have in common. */
#ifndef RANKS_SHM_UTIL_H
#define RANKS_SHM_UTIL_H

#include <pthread.h>

#include "harness.h"
#include "smem.h"
#include "smem_shm.h"

#define MIB2 (2ull << 20)

/* The defaults with short time-outs: a test that waits in vain ends soon. */
smem_shm_config_t shm_config(uint32_t create_s, uint32_t control_s);

/* smem_shm_init() as this rank; rank 0 hosts. */
void shm_up(struct rank *r, uint32_t create_s, uint32_t control_s);

/* Create with all ranks of the run as they are numbered; must succeed. */
smem_shm_t shm_make(struct rank *r, uint32_t id, uint64_t bytes, char **base);

/* A thread that kills (or stops) a rank a little later, while this one goes on. */
struct killer {
	struct rank *r;
	uint32_t victim;
	uint32_t delay; /* in round trips to the harness */
	enum { KILLER_KILLS, KILLER_STARTS_ANEW, KILLER_STOPS } how;
	pthread_t thread; /* for pthread_join() */
};
void killer_start(struct killer *k);

/* Between threads of one rank: the harness lets one of them wait at a time. */
struct flag {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	int raised;
};
#define FLAG_INIT                                                                                  \
	{                                                                                          \
		PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0                             \
	}
void flag_raise(struct flag *f); /* once more */
int flag_count(struct flag *f);
void flag_wait(struct rank *r, struct flag *f, int n); /* until raised n times; a minute at most */

/* The failing call's last error must contain this. */
#define RANK_SAYS(r, text)                                                                         \
	do {                                                                                       \
		if (!strstr(smem_get_last_err_msg(), text))                                        \
			rank_fail(r, __FILE__, __LINE__, "last error lacks \"%s\"", text);         \
	} while (0)

/* Create must fail with `code`. */
#define SHM_CREATE_FAILS(r, code, ...)                                                             \
	do {                                                                                       \
		void *base_ = (void *)1;                                                           \
		RANK_ASSERT(r, smem_shm_create(__VA_ARGS__, &base_) == NULL);                      \
		RANK_CODE(r, smem_get_last_err_code(), code);                                      \
		RANK_ASSERT(r, base_ == (void *)1);                                                \
	} while (0)

#endif
