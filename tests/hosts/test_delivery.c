/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What 0 means: all bytes are visible at the target, for everybody who learned of the return. The
 * word of it goes through a page of shared memory, past the fabric, to a thread of the target that
 * looks at once, and first of all at the bytes that come last. Who completes when the bytes have
 * left, as providers do that are not asked for more, does not pass.
 *
 * Both sides draw the same shapes from the same seed: a piece, a batch, rows. Lanes are pairs of
 * threads, each with a part of the memory, all on one endpoint.
 */
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "ends.h"

#define BATCH 64u

enum shape { PIECE, PIECES, ROWS };

struct lane {
	struct rank *r;
	struct endpoint *ep;
	enum shape shape;
	unsigned number, rounds;
	char *at;	 /* in the target's memory, as the target sees it */
	const char *src; /* of the initiator */
	size_t len;	 /* of both */
	uint64_t rng;
	int32_t code;
	unsigned wrong;
	pthread_t tid;
};

static size_t length(uint64_t *rng, size_t most)
{
	static const size_t limit[] = {1, 8, 4096, 64 << 10, MIB, 16 * MIB};
	size_t n = 1 + rank_random(rng) % limit[rank_random(rng) % 6];

	return n < most ? n : most;
}

/* The pieces of a round. */
static size_t draw(struct lane *l, struct smem_xfer x[BATCH])
{
	size_t n = l->shape == PIECES ? 1 + rank_random(&l->rng) % BATCH : 1, share = l->len / n;

	for (size_t i = 0; i < n; i++) {
		size_t width = length(&l->rng, share), rows = 1, pitch = 0;
		if (l->shape == ROWS) {
			width = 1 + rank_random(&l->rng) % 5000;
			pitch = width + rank_random(&l->rng) % 100;
			rows = 1 +
			       rank_random(&l->rng) % (share / pitch < 1000 ? share / pitch : 1000);
		}
		size_t span = rows > 1 ? pitch * (rows - 1) + width : width;
		size_t off = i * share + rank_random(&l->rng) % (share - span + 1);
		x[i] = (struct smem_xfer){.dst = l->at + off,
					  .src = l->src,
					  .dpitch = pitch,
					  .spitch = width,
					  .width = width,
					  .height = rows};
	}
	return n;
}

static bool there(const struct smem_xfer *x, char byte)
{
	for (size_t row = x->height; row-- > 0;) {
		const volatile char *at = (char *)x->dst + row * x->dpitch;
		for (size_t i = x->width; i-- > 0;) {
			if (at[i] != byte)
				return false;
		}
	}
	return true;
}

/* The target's side of a lane. */
static void *look(void *arg)
{
	struct lane *l = arg;
	struct smem_xfer x[BATCH];

	for (uint64_t i = 1; i <= l->rounds; i++) {
		size_t n = draw(l, x);
		while (atomic_load(&page->lane[l->number].asked) != i)
			sched_yield();
		bool ok = true;
		for (size_t k = n; k-- > 0 && ok;)
			ok = there(&x[k], (char)i);
		l->wrong += !ok;
		atomic_store(&page->lane[l->number].answered, i);
	}
	return NULL;
}

/* The initiator's. */
static void *write_and_say(void *arg)
{
	struct lane *l = arg;
	struct smem_xfer x[BATCH];

	for (uint64_t i = 1; i <= l->rounds; i++) {
		size_t n = draw(l, x);
		memset((char *)(uintptr_t)l->src, (int)i, l->len);
		if (l->code == SMEM_OK)
			l->code = ofi->put(l->ep, x, n);
		atomic_store(&page->lane[l->number].asked, i);
		while (atomic_load(&page->lane[l->number].answered) != i)
			sched_yield();
	}
	return NULL;
}

static void lanes_run(struct rank *r, struct endpoint *ep, enum shape shape, unsigned n)
{
	const char *seconds = getenv("SMEM_TEST_SECONDS");
	struct lane lane[LANES];
	char *src = filled(r, MEM, 0);

	for (unsigned i = 0; i < n; i++) {
		struct lane *l = &lane[i];
		*l = (struct lane){.r = r, .ep = ep, .shape = shape, .number = i};
		l->len = MEM / n;
		l->at = (char *)(uintptr_t)card.mem + i * l->len;
		l->src = src + i * l->len;
		l->rng = r->seed + i;
		l->rounds = 300 / n * (seconds ? (unsigned)strtoul(seconds, NULL, 10) + 1 : 1);
		RANK_ASSERT(r, pthread_create(&l->tid, NULL, ep ? write_and_say : look, l) == 0);
	}
	unsigned wrong = 0;
	for (unsigned i = 0; i < n; i++) {
		pthread_join(lane[i].tid, NULL);
		RANK_CODE(r, lane[i].code, 0);
		wrong += lane[i].wrong;
	}
	free(src);
	RANK_CODE(r, wrong, 0);
}

static void delivery(struct rank *r, const char *provider, enum shape shape, unsigned lanes)
{
	setenv("SMEM_FABRIC_PROVIDER", provider, 1);
	if (r->rank == 0) {
		target_up(r);
		lanes_run(r, NULL, shape, lanes);
		rank_barrier(r);
		target_down(r);
		return;
	}
	struct endpoint *ep = initiator_up(r);
	lanes_run(r, ep, shape, lanes);
	rank_barrier(r);
	initiator_down(ep);
}

#define SHAPE(p, provider, what, shape, lanes)                                                     \
	static void p##_##what(struct rank *r)                                                     \
	{                                                                                          \
		delivery(r, provider, shape, lanes);                                               \
	}
#define PROVIDER(p, provider)                                                                      \
	SHAPE(p, provider, piece, PIECE, 1)                                                        \
	SHAPE(p, provider, batch, PIECES, 1)                                                       \
	SHAPE(p, provider, rows, ROWS, 1)                                                          \
	SHAPE(p, provider, threads, PIECE, LANES)                                                  \
	SHAPE(p, provider, batch_threads, PIECES, LANES)

PROVIDER(net, "net")
PROVIDER(tcp, "tcp")
PROVIDER(rxm, "tcp;ofi_rxm")

#define CASE(p, what)                                                                              \
	{                                                                                          \
		.name = #p "_" #what, .fn = p##_##what, .sizes = { 2 }                             \
	}
#define CASES(p)                                                                                   \
	CASE(p, piece), CASE(p, batch), CASE(p, rows), CASE(p, threads), CASE(p, batch_threads)

static const struct ranks_case cases[] = {CASES(net), CASES(tcp), CASES(rxm)};

int main(int argc, char **argv)
{
	return hosts_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
