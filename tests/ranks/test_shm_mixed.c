/* SPDX-License-Identifier: Apache-2.0 */
/* BM and SHM in one process over one store, in any order of init and uninit. */
#include <string.h>

#include "shm_util.h"
#include "smem_bm.h"

struct both {
	smem_bm_t bm;
	smem_shm_t shm;
	char *bm_slot;
	char *shm_base;
};

static void bm_start(struct rank *r, struct both *b)
{
	smem_bm_config_t config;
	void *slot;

	smem_bm_config_init(&config);
	config.rankId = (uint16_t)r->rank;
	RANK_OK(r, smem_bm_init(r->url, r->size, 0, &config));
	b->bm = smem_bm_create(3, 0, SMEMB_DATA_OP_SDMA, MIB2, 0, 0);
	RANK_ASSERT(r, b->bm != NULL);
	RANK_OK(r, smem_bm_join(b->bm, 0, &slot));
	b->bm_slot = slot;
}

static void shm_start(struct rank *r, struct both *b)
{
	shm_up(r, 60, 60);
	b->shm = shm_make(r, 3, MIB2, &b->shm_base);
}

/* Rotate a pattern through BM copies and check it through SHM, and the other way round. */
static void use_both(struct rank *r, struct both *b)
{
	uint32_t next = (r->rank + 1) % r->size, prev = (r->rank + r->size - 1) % r->size;
	char *own = b->shm_base + r->rank * MIB2;
	char *peer = smem_bm_ptr(b->bm, (uint16_t)next);

	RANK_ASSERT(r, peer != NULL);
	RANK_ASSERT(r, b->bm_slot + MIB2 <= b->shm_base || b->shm_base + r->size * MIB2 <= peer ||
			   peer + MIB2 <= b->shm_base);
	memset(own, (int)r->rank + 1, MIB2);
	smem_copy_params copy = {.src = own, .dest = peer, .count = MIB2};
	RANK_OK(r, smem_shm_control_barrier(b->shm));
	RANK_OK(r, smem_bm_copy(b->bm, &copy, SMEMB_COPY_H2G, 0));
	RANK_OK(r, smem_shm_control_barrier(b->shm));
	for (size_t i = 0; i < MIB2; i++)
		RANK_ASSERT(r, b->bm_slot[i] == (char)(prev + 1));
	RANK_ASSERT(r, b->shm_base[next * MIB2] == (char)(next + 1));
	RANK_OK(r, smem_shm_control_barrier(b->shm));
}

static void shm_only(struct rank *r, struct both *b)
{
	char x = (char)r->rank, all[RANK_MAX];

	RANK_OK(r, smem_shm_control_allgather(b->shm, &x, 1, all, r->size));
	RANK_ASSERT(r, all[r->size - 1] == (char)(r->size - 1));
}

static void bm_only(struct rank *r, struct both *b)
{
	char buf[64];
	smem_copy_params copy = {.src = b->bm_slot, .dest = buf, .count = sizeof(buf)};

	RANK_OK(r, smem_bm_copy(b->bm, &copy, SMEMB_COPY_G2H, 0));
	copy.src = smem_bm_ptr(b->bm, (uint16_t)((r->rank + 1) % r->size));
	RANK_OK(r, smem_bm_copy(b->bm, &copy, SMEMB_COPY_G2H, 0));
}

/* bit 0: SHM first up; bit 1: SHM first down; bit 2: the other comes up again meanwhile. */
static void order(struct rank *r, uint32_t how)
{
	struct both b = {0};

	if (how & 1)
		shm_start(r, &b);
	bm_start(r, &b);
	if (!(how & 1))
		shm_start(r, &b);
	rank_barrier(r); /* BM joins do not wait for each other */
	use_both(r, &b);
	rank_barrier(r);
	if (how & 2) {
		smem_shm_uninit(0);
		bm_only(r, &b);
		rank_barrier(r);
		if (how & 4) {
			shm_start(r, &b);
			use_both(r, &b);
			rank_barrier(r);
			smem_shm_uninit(0);
		}
		smem_bm_uninit(0);
	} else {
		smem_bm_uninit(0);
		shm_only(r, &b);
		rank_barrier(r);
		if (how & 4) {
			bm_start(r, &b);
			rank_barrier(r);
			use_both(r, &b);
			rank_barrier(r);
			smem_bm_uninit(0);
		}
		smem_shm_uninit(0);
	}
	rank_barrier(r);
}

static void mixed(struct rank *r)
{
	for (uint32_t how = 0; how < 8; how++)
		order(r, how);
}

/* The store of its own process ends with the last service that uses it, all at once. */
static void all_at_once(struct rank *r)
{
	struct both b = {0};

	for (int i = 0; i < 5; i++) {
		if ((r->rank + (uint32_t)i) % 2) {
			bm_start(r, &b);
			shm_start(r, &b);
		} else {
			shm_up(r, 60, 60);
			bm_start(r, &b);
			b.shm = shm_make(r, 3, MIB2, &b.shm_base);
		}
		RANK_OK(r, smem_shm_control_barrier(b.shm));
		use_both(r, &b);
		smem_uninit();
		rank_barrier(r);
	}
}

static const struct ranks_case cases[] = {
    {.name = "mixed", .fn = mixed, .sizes = {1, 2, 4}},
    {.name = "all_at_once", .fn = all_at_once, .sizes = {1, 2, 4}},
};

int main(int argc, char **argv)
{
	return ranks_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
