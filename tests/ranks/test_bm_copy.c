/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copies against a reference. Every rank draws the same random operations from the run's seed; one
 * rank performs each, all apply it to a plain array, and in the end every rank sees the array in
 * the windows, by copy and by load.
 */
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "bm_util.h"

#define DRAM (2 * MIB)
#define HBM  (4 * MIB)
#define OPS  200

struct op {
	smem_bm_copy_type type;
	bool two_d;
	bool hbm; /* which window */
	uint64_t offset;
	uint64_t gpitch, lpitch, width, height;
	uint64_t pattern;
	uint32_t misalign;
};

struct pool_view {
	smem_bm_t bm;
	char *base[2]; /* DRAM, HBM */
	uint64_t len[2];
	uint8_t *ref[2];
};

static bool writes(const struct op *o)
{
	return o->type == SMEMB_COPY_L2G || o->type == SMEMB_COPY_H2G;
}

static uint64_t draw_size(uint64_t *rng)
{
	static const uint64_t limit[] = {1, 64, 300, 4096, 70000, 300000};
	uint64_t max = limit[rank_random(rng) % 6];

	return 1 + rank_random(rng) % max;
}

static struct op draw(uint64_t *rng, const struct pool_view *v)
{
	struct op o = {.type = (smem_bm_copy_type)(rank_random(rng) % 4),
		       .two_d = rank_random(rng) % 2,
		       .hbm = rank_random(rng) % 2,
		       .pattern = rank_random(rng),
		       .misalign = rank_random(rng) % 2 ? (uint32_t)(rank_random(rng) % 64) : 0,
		       .height = 1};

	o.width = draw_size(rng);
	if (o.two_d)
		o.height = 1 + rank_random(rng) % 12;
	o.gpitch = o.width + (rank_random(rng) % 3 ? rank_random(rng) % 5000 : 0);
	o.lpitch = o.width + (rank_random(rng) % 3 ? rank_random(rng) % 5000 : 0);
	uint64_t len = v->len[o.hbm];
	while (o.height > 1 && o.gpitch * (o.height - 1) + o.width > len / 2)
		o.height--;
	uint64_t span = o.gpitch * (o.height - 1) + o.width;
	uint64_t slot = o.hbm ? HBM : DRAM;
	switch (rank_random(rng) % 4) {
	case 0: /* the window's end */
		o.offset = len - span;
		break;
	case 1: { /* over a border, if there is one */
		uint64_t border = (1 + rank_random(rng) % (len / slot)) * slot;
		uint64_t before = rank_random(rng) % span;
		o.offset = border - before + span <= len ? border - before : len - span;
		break;
	}
	default:
		o.offset = rank_random(rng) % (len - span + 1);
	}
	return o;
}

static int32_t perform(const struct pool_view *v, const struct op *o, uint8_t *local)
{
	char *g = v->base[o->hbm] + o->offset;
	const void *src = writes(o) ? (void *)local : (void *)g;
	void *dest = writes(o) ? (void *)g : (void *)local;

	if (o->two_d) {
		smem_copy_2d_params p = {.src = src,
					 .dest = dest,
					 .spitch = writes(o) ? o->lpitch : o->gpitch,
					 .dpitch = writes(o) ? o->gpitch : o->lpitch,
					 .width = o->width,
					 .height = o->height};
		return smem_bm_copy_2d(v->bm, &p, o->type, 0);
	}
	smem_copy_params p = {.src = src, .dest = dest, .count = o->width};
	return smem_bm_copy(v->bm, &p, o->type, 0);
}

static void check_read(struct rank *r, const struct pool_view *v, const struct op *o,
		       const uint8_t *local, uint64_t local_len)
{
	for (uint64_t i = 0; i < o->height; i++) {
		const uint8_t *row = local + i * o->lpitch;
		RANK_ASSERT(r,
			    memcmp(row, v->ref[o->hbm] + o->offset + i * o->gpitch, o->width) == 0);
		uint64_t end = i + 1 < o->height ? (i + 1) * o->lpitch : local_len;
		for (uint64_t k = i * o->lpitch + o->width; k < end; k++)
			RANK_ASSERT(r, local[k] == pattern_byte(o->pattern, k));
	}
}

static void apply(struct rank *r, struct pool_view *v, const struct op *o, bool mine)
{
	uint64_t len = o->lpitch * (o->height - 1) + o->width + 64;
	uint8_t *block = malloc(len + 64);

	RANK_ASSERT(r, block != NULL);
	uint8_t *local = block + o->misalign;
	pattern_fill(local, len, o->pattern);
	if (mine)
		RANK_OK(r, perform(v, o, local));
	if (mine && !writes(o))
		check_read(r, v, o, local, len);
	for (uint64_t i = 0; i < o->height && writes(o); i++)
		memcpy(v->ref[o->hbm] + o->offset + i * o->gpitch, local + i * o->lpitch, o->width);
	free(block);
}

static struct pool_view view_up(struct rank *r, uint32_t id)
{
	struct pool_view v = {.bm = bm_up(r, id, DRAM, HBM)};

	v.base[0] = smem_bm_ptr_by_mem_type(v.bm, SMEM_MEM_TYPE_HOST, 0);
	v.base[1] = smem_bm_ptr_by_mem_type(v.bm, SMEM_MEM_TYPE_DEVICE, 0);
	v.len[0] = r->size * DRAM;
	v.len[1] = r->size * HBM;
	for (int k = 0; k < 2; k++) {
		v.ref[k] = calloc(1, v.len[k]);
		RANK_ASSERT(r, v.ref[k] && v.base[k]);
	}
	return v;
}

static void view_down(struct pool_view *v)
{
	free(v->ref[0]);
	free(v->ref[1]);
	smem_bm_uninit(0);
}

static void check_all(struct rank *r, const struct pool_view *v)
{
	for (int k = 0; k < 2; k++) {
		uint8_t *seen = malloc(v->len[k]);
		RANK_ASSERT(r, seen != NULL);
		RANK_OK(r, bm_read(v->bm, seen, v->base[k], v->len[k]));
		RANK_ASSERT(r, memcmp(seen, v->ref[k], v->len[k]) == 0);
		RANK_ASSERT(r, memcmp(v->base[k], v->ref[k], v->len[k]) == 0);
		free(seen);
	}
}

/* One rank at a time. */
static void in_turn(struct rank *r)
{
	struct pool_view v = view_up(r, 1);
	uint64_t rng = r->seed;

	rank_barrier(r);
	for (uint32_t turn = 0; turn < r->size; turn++) {
		for (int i = 0; i < OPS / (int)r->size; i++) {
			struct op o = draw(&rng, &v);
			apply(r, &v, &o, turn == r->rank);
		}
		rank_barrier(r);
	}
	check_all(r, &v);
	rank_barrier(r);
	view_down(&v);
}

/* All at the same time, each in a stripe of its own that lies across slots. */
static void at_once(struct rank *r)
{
	struct pool_view v = view_up(r, 2);
	uint64_t rng = r->seed;

	rank_barrier(r);
	for (int i = 0; i < OPS; i++) {
		struct op o = draw(&rng, &v);
		uint32_t owner = (uint32_t)rank_random(&rng) % r->size;
		uint64_t stripe = v.len[o.hbm] / r->size;
		uint64_t span = o.gpitch * (o.height - 1) + o.width;
		/* stripes are shifted by a third of a slot; the last one ends early */
		uint64_t begin = owner * stripe + (o.hbm ? HBM : DRAM) / 3;
		uint64_t end = owner + 1 == r->size ? v.len[o.hbm] : begin + stripe;
		if (span > end - begin)
			continue;
		o.offset = begin + o.offset % (end - begin - span + 1);
		apply(r, &v, &o, owner == r->rank);
	}
	rank_barrier(r);
	check_all(r, &v);
	rank_barrier(r);
	view_down(&v);
}

/* Rows with gaps wider than a slot, and one copy over all slots. */
static void wide(struct rank *r)
{
	struct pool_view v = view_up(r, 3);
	uint8_t *all = malloc(v.len[0]);

	RANK_ASSERT(r, all != NULL);
	rank_barrier(r);
	bm_touch(r, v.bm);
	if (r->rank == 0) {
		pattern_fill(all, v.len[0], r->seed);
		RANK_OK(r, bm_write(v.bm, v.base[0], all, v.len[0]));
	}
	rank_barrier(r);
	RANK_ASSERT(r, pattern_is(v.base[0], v.len[0], r->seed));
	rank_barrier(r);
	if (r->rank + 1 == r->size && r->size > 1) {
		/* one byte at the end of every slot, and one at the beginning of the next */
		smem_copy_2d_params p = {.src = all,
					 .spitch = 2,
					 .dest = v.base[1] + HBM - 1,
					 .dpitch = HBM,
					 .width = 2,
					 .height = r->size - 1};
		memset(all, 0x5a, 2 * r->size);
		RANK_OK(r, smem_bm_copy_2d(v.bm, &p, SMEMB_COPY_H2G, 0));
		p = (smem_copy_2d_params){.src = v.base[1] + HBM - 1,
					  .spitch = HBM,
					  .dest = all,
					  .dpitch = 3,
					  .width = 2,
					  .height = r->size - 1};
		memset(all, 0, 3 * r->size);
		RANK_OK(r, smem_bm_copy_2d(v.bm, &p, SMEMB_COPY_G2L, 0));
		RANK_ASSERT(r, all[0] == 0x5a && all[1] == 0x5a && all[2] == 0);
	}
	rank_barrier(r);
	for (uint32_t i = 0; i < r->size; i++) {
		const uint8_t *slot = (uint8_t *)v.base[1] + i * HBM;
		RANK_ASSERT(r, slot[0] == (i > 0 ? 0x5a : 0));
		RANK_ASSERT(r, slot[HBM - 1] == (i + 1 < r->size ? 0x5a : 0));
		RANK_ASSERT(r, slot[1] == 0 && slot[HBM - 2] == 0);
	}
	rank_barrier(r);
	free(all);
	view_down(&v);
}

/* Other ranks' slots as the local side: slot to slot. */
static void slot_to_slot(struct rank *r)
{
	struct pool_view v = view_up(r, 4);
	uint32_t next = (r->rank + 1) % r->size, after = (r->rank + 2) % r->size;
	char *own = v.base[0] + r->rank * DRAM;

	pattern_fill(own, 5000, r->rank + 100);
	rank_barrier(r);
	bm_touch(r, v.bm);
	/* from next's DRAM slot into after's HBM slot, at a place of my own */
	smem_copy_params p = {.src = v.base[0] + next * DRAM,
			      .dest = v.base[1] + after * HBM + (r->rank + 1) * 8192,
			      .count = 5000};
	RANK_OK(r, smem_bm_copy(v.bm, &p, SMEMB_COPY_L2G, 0));
	rank_barrier(r);
	for (uint32_t i = 0; i < r->size; i++) {
		uint32_t target = (i + 2) % r->size, source = (i + 1) % r->size;
		RANK_ASSERT(
		    r, pattern_is(v.base[1] + target * HBM + (i + 1) * 8192, 5000, source + 100));
	}
	rank_barrier(r);
	view_down(&v);
}

/* Plain atomics on the global addresses, coherent between processes. */
static void load_store(struct rank *r)
{
	smem_bm_t bm = bm_up(r, 5, DRAM, 0);
	_Atomic uint64_t *counter = smem_bm_ptr(bm, 0);
	_Atomic uint64_t *turn = counter + 8;

	rank_barrier(r);
	bm_touch(r, bm);
	for (int i = 0; i < 10000; i++)
		atomic_fetch_add(counter, 1);
	/* round the ring: each waits for its turn and passes it on, with data behind it */
	for (uint64_t lap = 0; lap < 3; lap++) {
		uint64_t want = lap * r->size + r->rank;
		while (atomic_load(turn) != want)
			sched_yield();
		uint64_t seen = 0, now = want + 1;
		uint64_t *data =
		    (uint64_t *)smem_bm_ptr(bm, (uint16_t)((r->rank + 1) % r->size)) + 64;
		if (want > 0) {
			RANK_OK(r, bm_read(bm, &seen,
					   (uint64_t *)smem_bm_ptr(bm, (uint16_t)r->rank) + 64, 8));
			RANK_ASSERT(r, seen == want);
		}
		RANK_OK(r, bm_write(bm, data, &now, sizeof(now)));
		atomic_store(turn, now);
	}
	rank_barrier(r);
	RANK_ASSERT(r, atomic_load(counter) == 10000ull * r->size);
	rank_barrier(r);
	smem_bm_uninit(0);
}

static const struct ranks_case cases[] = {
    {.name = "in_turn", .fn = in_turn, .sizes = {1, 2, 4, 8}},
    {.name = "at_once", .fn = at_once, .sizes = {1, 2, 4, 8}},
    {.name = "wide", .fn = wide, .sizes = {1, 2, 4, 8}},
    {.name = "slot_to_slot", .fn = slot_to_slot, .sizes = {1, 2, 4, 8}},
    {.name = "load_store", .fn = load_store, .sizes = {1, 2, 4}},
};

int main(int argc, char **argv)
{
	return ranks_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
