/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random batches against a reference: pieces of 1 B to 8 MiB, unaligned, touching, across adjoining
 * and overlapping registrations of private and of mapped memory.
 */
#include <stdlib.h>
#include <string.h>

#include "trans_util.h"

#define LEN    (24u << 20)
#define PIECES 200u
#define BATCH  24u

/* [0, LEN) of m in registrations that adjoin or overlap, with different starts. */
static void register_pieces(struct rank *r, smem_trans_t h, const struct mem *m, uint64_t *seed)
{
	size_t at = 0;

	while (at < LEN) {
		size_t len = 1 + rank_random(seed) % (2u << 20);
		size_t back = at ? rank_random(seed) % (at < 5000 ? at : 5000) : 0;
		size_t begin = rank_random(seed) % 2 ? at : at - back;
		if (len > LEN - at)
			len = LEN - at;
		int32_t e = smem_trans_register_mem(h, m->at + begin, at + len - begin, 0);
		/* the same start by chance */
		RANK_ASSERT(r, e == 0 || e == SMEM_DUPLICATED_OBJECT);
		at += e == 0 ? len : 0;
	}
}

/* Mostly small, up to 8 MiB. */
static size_t random_len(uint64_t *seed)
{
	uint64_t most = 1ull << (rank_random(seed) % 24);

	return 1 + rank_random(seed) % most;
}

struct pieces {
	const void *src[PIECES];
	void *dst[PIECES];
	size_t len[PIECES];
	uint32_t n;
};

/* Pieces that do not overlap, spread over both memories, in a mixed order. */
static void make_pieces(struct pieces *p, uint64_t *seed, const uint64_t to[2], char *ref[2],
			const char *from)
{
	p->n = 0;
	for (int k = 0; k < 2; k++) {
		size_t at = rank_random(seed) % 5000;
		while (p->n < PIECES * (size_t)(k + 1) / 2) {
			size_t len = random_len(seed);
			if (at >= LEN || len > LEN - at)
				break;
			size_t src = rank_random(seed) % (LEN - len + 1);
			uint32_t i = p->n ? (uint32_t)(rank_random(seed) % p->n) : 0;
			p->src[p->n] = p->src[i];
			p->dst[p->n] = p->dst[i];
			p->len[p->n++] = p->len[i];
			p->src[i] = from + src;
			p->dst[i] = (void *)(to[k] + at);
			p->len[i] = len;
			memcpy(ref[k] + at, from + src, len);
			at += len + (rank_random(seed) % 2 ? 0 : rank_random(seed) % 5000);
		}
	}
}

static void writer(struct rank *r, smem_trans_t h, const uint64_t to[2], uint64_t seed)
{
	char *ref[2] = {calloc(1, LEN), calloc(1, LEN)};
	char *from = malloc(LEN);
	char *back = malloc(LEN);
	static struct pieces p;

	trans_fill(from, LEN, seed, 0);
	for (uint32_t batch = 1; batch <= BATCH; batch++) {
		make_pieces(&p, &seed, to, ref, from);
		RANK_OK(r, smem_trans_batch_write(h, p.src, trans_name(1), p.dst, p.len, p.n));
		for (uint32_t i = 0; i < p.n; i++) {
			RANK_OK(r, smem_trans_read(h, back, trans_name(1), p.dst[i], p.len[i], 0));
			RANK_ASSERT(r, memcmp(back, p.src[i], p.len[i]) == 0);
		}
		for (int k = 0; k < 2 && batch % 6 == 0; k++) {
			RANK_OK(r, smem_trans_read(h, back, trans_name(1), (void *)to[k], LEN, 0));
			RANK_ASSERT(r, memcmp(back, ref[k], LEN) == 0);
		}
	}
	free(back);
	free(from);
	free(ref[0]);
	free(ref[1]);
}

static void batches(struct rank *r)
{
	smem_trans_t h = trans_up(r);
	struct mem m[2];
	uint64_t at[2][2], mine[2] = {0}, seed = r->seed;

	for (int k = 0; r->rank == 1 && k < 2; k++) {
		m[k] = mem_new(r, k ? MEM_SEALED : MEM_ANON, LEN);
		register_pieces(r, h, &m[k], &seed);
		mine[k] = (uintptr_t)m[k].at;
	}
	rank_gather(r, mine, sizeof(mine), at);
	if (r->rank == 0)
		writer(r, h, at[1], seed);
	rank_barrier(r);
	smem_trans_destroy(h, 0);
	for (int k = 0; r->rank == 1 && k < 2; k++)
		mem_free(&m[k]);
	smem_uninit();
}

static const struct ranks_case cases[] = {
    {.name = "batches", .fn = batches, .sizes = {2}},
};

int main(int argc, char **argv)
{
	return ranks_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
