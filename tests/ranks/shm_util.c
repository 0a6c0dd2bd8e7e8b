/* SPDX-License-Identifier: Apache-2.0 */
#include "shm_util.h"

#include <time.h>

smem_shm_config_t shm_config(uint32_t create_s, uint32_t control_s)
{
	smem_shm_config_t config;

	smem_shm_config_init(&config);
	config.shmInitTimeout = 60;
	config.shmCreateTimeout = create_s;
	config.controlOperationTimeout = control_s;
	return config;
}

void shm_up(struct rank *r, uint32_t create_s, uint32_t control_s)
{
	smem_shm_config_t config = shm_config(create_s, control_s);

	RANK_OK(r, smem_shm_init(r->url, r->size, r->rank, 0, &config));
}

smem_shm_t shm_make(struct rank *r, uint32_t id, uint64_t bytes, char **base)
{
	void *gva = NULL;
	smem_shm_t h = smem_shm_create(id, r->size, r->rank, bytes, SMEMS_DATA_OP_MTE, 0, &gva);

	if (!h)
		rank_fail(r, __FILE__, __LINE__, "smem_shm_create(%u)", id);
	*base = gva;
	return h;
}

static void *killer_run(void *arg)
{
	struct killer *k = arg;

	for (uint32_t i = 0; i < k->delay; i++)
		rank_put(k->r, "tick", &i, sizeof(i));
	if (k->how == KILLER_STOPS)
		rank_stop(k->r, k->victim);
	else
		rank_kill(k->r, k->victim);
	if (k->how == KILLER_STARTS_ANEW)
		rank_spawn(k->r, k->victim);
	return NULL;
}

void killer_start(struct killer *k)
{
	RANK_OK(k->r, pthread_create(&k->thread, NULL, killer_run, k));
}

void flag_raise(struct flag *f)
{
	pthread_mutex_lock(&f->lock);
	f->raised++;
	pthread_cond_broadcast(&f->cond);
	pthread_mutex_unlock(&f->lock);
}

int flag_count(struct flag *f)
{
	pthread_mutex_lock(&f->lock);
	int n = f->raised;
	pthread_mutex_unlock(&f->lock);
	return n;
}

void flag_wait(struct rank *r, struct flag *f, int n)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += 60;
	pthread_mutex_lock(&f->lock);
	while (f->raised < n &&
	       pthread_cond_clockwait(&f->cond, &f->lock, CLOCK_MONOTONIC, &until) == 0)
		;
	RANK_ASSERT(r, f->raised >= n);
	pthread_mutex_unlock(&f->lock);
}
