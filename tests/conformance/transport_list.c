/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/arena.h"
#include "core/segment.h"
#include "reference.h"
#include "transport/ofi_link.h"
#include "transport_list.h"
#include "util/err.h"
#include "util/limits.h"

#define PATIENCE_MS 30000
#define MEM	    ((size_t)(8 * SLOT_ALIGN))
#define PAGE	    4096ul

/* What the target publishes. */
struct card {
	struct agent_addr agent;
	struct segment_export seg;
	uint64_t mem;
	uint64_t len;
	uint64_t incarnation;
	uint8_t secret[16];
	uint8_t addr[TRANSPORT_ADDR_MAX];
};

struct end {
	const struct row *row;
	struct card card;
	char *mem; /* as the target sees it */
	struct segment seg;
	struct agent_peer *agent;
	struct endpoint *_Atomic ep;
};

static void on_lost(void *arg)
{
	struct end *e = arg;
	struct endpoint *ep = atomic_load(&e->ep);

	if (ep)
		ep->ops->abandon(ep);
}

/* No provider here wants it, but all do it: what is offered says that it is wanted. */
static void want_registrations(struct rank *r)
{
	struct sockaddr_in lo = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	const struct ofi_offer *offer = NULL;

	RANK_OK(r, ofi_offer_get((struct sockaddr *)&lo, NULL, 0, &offer));
	offer->info->domain_attr->mr_mode |= FI_MR_LOCAL;
}

static void local_up(struct rank *r, struct end *e, const struct row *row)
{
	uint8_t route[32] = {0};
	size_t len = row->enter ? row->enter(r, route) : 0;

	*e = (struct end){.row = row, .seg.mem.fd = -1};
	RANK_OK(r, agent_get());
	if (row->mapped)
		RANK_OK(r, arena_get());
	RANK_OK(r, row->ops->start(len ? route : NULL, len));
	if (row->registers && r->rank > 0)
		want_registrations(r);
}

static void local_down(struct end *e)
{
	e->row->ops->stop();
	segment_destroy(&e->seg);
	if (e->row->mapped)
		arena_put();
	agent_put();
}

static void target_memory(struct rank *r, struct end *e)
{
	struct arena_range range;

	if (e->row->mapped) {
		RANK_ASSERT(r, arena_usable(1, &range, 1) == 1);
		RANK_OK(r, segment_create(MEM, (char *)(uintptr_t)range.begin, &e->seg));
		RANK_OK(r, segment_offer(&e->seg));
		e->mem = e->seg.addr;
		return;
	}
	/* A hole behind it, for accesses outside. */
	e->mem = mmap(NULL, MEM + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	RANK_ASSERT(r, e->mem != MAP_FAILED);
	RANK_ASSERT(r, mprotect(e->mem, MEM, PROT_READ | PROT_WRITE) == 0);
}

static void target_up(struct rank *r, struct end *e, const struct row *row)
{
	local_up(r, e, row);
	target_memory(r, e);
	e->card = (struct card){.agent = *agent_own(),
				.seg = e->seg.exported,
				.mem = (uint64_t)(uintptr_t)e->mem,
				.len = TRANSPORT_ADDR_MAX,
				.incarnation = 4711,
				.secret = "a shared secret"};
	size_t len = sizeof(e->card.addr);
	RANK_OK(r, row->ops->address(e->card.addr, &len));
	e->card.len = len;
	if (row->ops->expose)
		RANK_OK(r, row->ops->expose(1, e->mem, MEM, 1, e->card.secret));
	rank_put(r, "card", &e->card, sizeof(e->card));
}

static void target_down(struct rank *r, struct end *e)
{
	if (e->row->ops->withdraw)
		RANK_OK(r, e->row->ops->withdraw(1, deadline_in_ms(PATIENCE_MS)));
	if (!e->row->mapped)
		munmap(e->mem, MEM + 2 * PAGE);
	local_down(e);
}

static struct transport_peer peer_of(struct end *e)
{
	return (struct transport_peer){.agent = &e->card.agent,
				       .agent_conn = e->agent,
				       .addr = e->card.len ? e->card.addr : NULL,
				       .addr_len = e->card.len,
				       .incarnation = e->card.incarnation,
				       .secret = e->card.secret,
				       .name = "rank 0"};
}

static void initiator_up(struct rank *r, struct end *e, const struct row *row)
{
	struct endpoint *ep = NULL;
	struct deadline d = deadline_in_ms(PATIENCE_MS);

	local_up(r, e, row);
	RANK_ASSERT(r, rank_get(r, "card", &e->card, sizeof(e->card)) == sizeof(e->card));
	e->mem = (char *)(uintptr_t)e->card.mem;
	if (!row->enter) /* agents end at the host */
		RANK_OK(r, agent_peer_open(&e->card.agent, d, on_lost, e, &e->agent));
	if (row->mapped)
		RANK_OK(r, segment_import(e->agent, &e->card.seg, e->mem, d, &e->seg));
	struct transport_peer peer = peer_of(e);
	RANK_OK(r, row->ops->connect(&peer, d, &ep));
	if (row->registers && r->rank > 0)
		RANK_ASSERT(r, ((struct ofi_link *)ep)->memory.on);
	atomic_store(&e->ep, ep);
}

static void initiator_down(struct end *e)
{
	agent_peer_close(e->agent);
	e->row->ops->close(e->ep);
	local_down(e);
}

/* ---- cases; the target's part of most of them is to be there */

static void be_target(struct rank *r, const struct row *row, bool compare)
{
	struct end e;

	target_up(r, &e, row);
	rank_barrier(r); /* all is done */
	if (compare) {
		uint64_t mine = digest(e.mem, MEM), all[2];
		rank_gather(r, &mine, sizeof(mine), all);
		RANK_ASSERT(r, all[0] == all[1]);
	}
	target_down(r, &e);
}

/* Random batches both ways against a reference; the target compares its memory too. */
void list_random_pieces(struct rank *r, const struct row *row)
{
	struct end e;
	struct smem_xfer x[BATCH];
	uint64_t seed = r->seed;

	if (r->rank == 0) {
		be_target(r, row, true);
		return;
	}
	initiator_up(r, &e, row);
	char *ref = buffer(r, MEM), *local = buffer(r, MEM), *want = buffer(r, MEM);
	memset(ref, 0, MEM);
	fill(local, MEM, seed);
	for (int round = 0; round < 60; round++) {
		size_t n = random_batch(&seed, x, e.mem, local, MEM);
		RANK_OK(r, row->ops->put(e.ep, x, n));
		rebase(x, n, true, e.mem, ref);
		apply(x, n);
		n = random_batch(&seed, x, local, e.mem, MEM);
		memcpy(want, local, MEM);
		RANK_OK(r, row->ops->get(e.ep, x, n));
		rebase(x, n, false, e.mem, ref);
		rebase(x, n, true, local, want);
		apply(x, n);
		RANK_ASSERT(r, memcmp(local, want, MEM) == 0);
	}
	rank_barrier(r);
	uint64_t mine = digest(ref, MEM), all[2];
	rank_gather(r, &mine, sizeof(mine), all);
	initiator_down(&e);
	free(ref);
	free(local);
	free(want);
}

/* Every small size and those around powers of two, at many alignments; not a byte beside. */
void list_sizes(struct rank *r, const struct row *row)
{
	struct end e;

	if (r->rank == 0) {
		be_target(r, row, false);
		return;
	}
	initiator_up(r, &e, row);
	char *src = buffer(r, MEM), *back = buffer(r, MEM);
	fill(src, MEM, r->seed);
	for (size_t step = 0; step < 300 + 3 * 22; step++) {
		size_t len = step < 300 ? step + 1 : (2ul << (step - 300) / 3) + (step % 3) - 1;
		size_t a = len % 67, b = len % 61;
		if (b + len + 64 > MEM)
			continue;
		struct smem_xfer clear = {
		    .dst = e.mem, .src = src, .width = b + len + 64, .height = 1};
		struct smem_xfer put = {
		    .dst = e.mem + b, .src = src + a, .width = len, .height = 1};
		struct smem_xfer get = {
		    .dst = back, .src = e.mem, .width = b + len + 64, .height = 1};
		RANK_OK(r, row->ops->put(e.ep, &clear, 1));
		RANK_OK(r, row->ops->put(e.ep, &put, 1));
		RANK_OK(r, row->ops->get(e.ep, &get, 1));
		check_equal(r, back, src, b, "before");
		check_equal(r, back + b, src + a, len, "inside");
		check_equal(r, back + b + len, src + b + len, 64, "behind");
	}
	rank_barrier(r);
	initiator_down(&e);
	free(src);
	free(back);
}

#define MANY 100000ul

/* A batch of very many pieces, apart and touching each other. */
void list_many_pieces(struct rank *r, const struct row *row)
{
	struct end e;

	if (r->rank == 0) {
		be_target(r, row, false);
		return;
	}
	initiator_up(r, &e, row);
	struct smem_xfer *x = calloc(MANY, sizeof(*x));
	char *src = buffer(r, MEM), *back = buffer(r, MEM);
	fill(src, MEM, r->seed);
	for (size_t gap = 0; gap <= 64; gap += 64) {
		for (size_t i = 0; i < MANY; i++)
			x[i] = (struct smem_xfer){.dst = e.mem + i * (64 + gap),
						  .src = src + (MANY - 1 - i) * 64,
						  .width = 64,
						  .height = 1};
		RANK_OK(r, row->ops->put(e.ep, x, MANY));
		struct smem_xfer get = {.dst = back,
					.src = e.mem,
					.dpitch = 64,
					.spitch = 64 + gap,
					.width = 64,
					.height = MANY};
		RANK_OK(r, row->ops->get(e.ep, &get, 1));
		for (size_t i = 0; i < MANY; i++)
			RANK_ASSERT(r, memcmp(back + i * 64, src + (MANY - 1 - i) * 64, 64) == 0);
	}
	rank_barrier(r);
	initiator_down(&e);
	free(x);
	free(src);
	free(back);
}

#define THREADS 4

struct worker {
	struct rank *r;
	struct end *e;
	size_t part;
	int32_t code;
};

static void *work(void *arg)
{
	struct worker *w = arg;
	size_t len = MEM / THREADS / w->r->size;
	char *at = w->e->mem + (w->r->rank * THREADS + w->part) * len;
	char *src = malloc(len), *back = malloc(len);
	uint64_t seed = w->r->seed + w->part;

	for (int i = 0; i < 30 && w->code == 0; i++) {
		size_t n = 1 + rank_random(&seed) % len;
		struct smem_xfer put = {.dst = at, .src = src, .width = n, .height = 1};
		struct smem_xfer get = {.dst = back, .src = at, .width = n, .height = 1};
		fill(src, n < 4096 ? n : 4096, seed);
		memset(back, 0, n);
		w->code = w->e->row->ops->put(w->e->ep, &put, 1);
		if (w->code == 0)
			w->code = w->e->row->ops->get(w->e->ep, &get, 1);
		if (w->code == 0 && memcmp(src, back, n) != 0)
			w->code = 1;
	}
	free(src);
	free(back);
	return NULL;
}

/* Several threads of several processes through one endpoint each. */
void list_threads(struct rank *r, const struct row *row)
{
	struct end e;
	struct worker w[THREADS];
	pthread_t tid[THREADS];

	if (r->rank == 0) {
		be_target(r, row, false);
		return;
	}
	initiator_up(r, &e, row);
	for (size_t i = 0; i < THREADS; i++) {
		w[i] = (struct worker){.r = r, .e = &e, .part = i};
		RANK_ASSERT(r, pthread_create(&tid[i], NULL, work, &w[i]) == 0);
	}
	for (size_t i = 0; i < THREADS; i++) {
		pthread_join(tid[i], NULL);
		RANK_CODE(r, w[i].code, 0);
	}
	rank_barrier(r);
	initiator_down(&e);
}

/* The target is killed under traffic: calls end with SMEM_PEER_LOST, and go on doing so. */
void list_killed(struct rank *r, const struct row *row)
{
	struct end e;
	int32_t code = SMEM_OK;

	if (r->rank == 0) {
		rank_may_die(r);
		target_up(r, &e, row);
		rank_meet(r, "never", 3);
	}
	initiator_up(r, &e, row);
	char *src = buffer(r, MEM);
	fill(src, MEM, r->seed);
	struct smem_xfer x = {.dst = e.mem, .src = src, .width = MEM, .height = 1};
	for (int i = 0; i < 20; i++)
		RANK_OK(r, row->ops->put(e.ep, &x, 1));
	rank_kill(r, 0);
	uint64_t until = rank_ms() + PATIENCE_MS;
	while (code == SMEM_OK && rank_ms() < until)
		code = row->ops->put(e.ep, &x, 1);
	RANK_CODE(r, code, SMEM_PEER_LOST);
	RANK_ASSERT(r, strstr(err_detail(), "rank 0"));
	x = (struct smem_xfer){.dst = src, .src = e.mem, .width = 1, .height = 1};
	RANK_CODE(r, row->ops->get(e.ep, &x, 1), SMEM_PEER_LOST);
	initiator_down(&e);
	free(src);
}

/* A stopped process is not a lost one. */
void list_paused(struct rank *r, const struct row *row)
{
	struct end e;
	char src[100], back[100];

	if (r->rank == 0) {
		be_target(r, row, false);
		return;
	}
	initiator_up(r, &e, row);
	fill(src, sizeof(src), r->seed);
	struct smem_xfer put = {.dst = e.mem, .src = src, .width = sizeof(src), .height = 1};
	struct smem_xfer get = {.dst = back, .src = e.mem, .width = sizeof(src), .height = 1};
	rank_stop(r, 0);
	if (row->one_sided) {
		RANK_OK(r, row->ops->put(e.ep, &put, 1));
		RANK_OK(r, row->ops->get(e.ep, &get, 1));
		RANK_ASSERT(r, memcmp(src, back, sizeof(src)) == 0);
	}
	rank_cont(r, 0);
	RANK_OK(r, row->ops->put(e.ep, &put, 1));
	rank_barrier(r);
	initiator_down(&e);
}

/* One byte too many: an error that names the range, and the path stays good. */
void list_outside(struct rank *r, const struct row *row)
{
	struct end e;
	char buf[2 * PAGE], where[32];

	if (r->rank == 0) {
		be_target(r, row, false);
		return;
	}
	initiator_up(r, &e, row);
	memset(buf, 7, sizeof(buf));
	struct smem_xfer x[2] = {
	    {.dst = e.mem, .src = buf, .width = 10, .height = 1},
	    {.dst = e.mem + MEM - PAGE, .src = buf, .width = PAGE + 1, .height = 1},
	};
	if (row->faults) {
		RANK_CODE(r, row->ops->put(e.ep, x, 2), SMEM_IO);
		snprintf(where, sizeof(where), "%p", (void *)(e.mem + MEM));
		RANK_ASSERT(r, strstr(err_detail(), "rank 0"));
		RANK_ASSERT(r, strstr(err_detail(), where));
		x[0] = (struct smem_xfer){.dst = buf, .src = e.mem + MEM, .width = 1, .height = 1};
		RANK_CODE(r, row->ops->get(e.ep, x, 1), SMEM_IO);
	}
	x[0] = (struct smem_xfer){.dst = e.mem, .src = buf, .width = PAGE, .height = 1};
	RANK_OK(r, row->ops->put(e.ep, x, 1));
	rank_barrier(r);
	initiator_down(&e);
}

/* Peers that are not there, or not what they say, are refused with a reason and in time. */
void list_nobody(struct rank *r, const struct row *row)
{
	struct end e;
	struct endpoint *ep = NULL;

	local_up(r, &e, row);
	e.card.agent = *agent_own();
	size_t len = sizeof(e.card.addr);
	RANK_OK(r, row->ops->address(e.card.addr, &len));
	e.card.len = len;
	struct transport_peer peer = peer_of(&e);
	peer.addr = NULL;
	peer.addr_len = 0;
	peer.agent_conn = NULL;
	RANK_CODE(r, row->ops->connect(&peer, deadline_in_ms(1000), &ep), SMEM_UNREACHABLE);
	RANK_ASSERT(r, strlen(err_detail()) > 5);
	if (len > 0) { /* garbage for an address */
		memset(e.card.addr, 0xa5, len);
		peer = peer_of(&e);
		RANK_CODE(r, row->ops->connect(&peer, deadline_in_ms(1000), &ep), SMEM_UNREACHABLE);
		peer.addr_len = len - 1;
		RANK_CODE(r, row->ops->connect(&peer, deadline_in_ms(1000), &ep), SMEM_UNREACHABLE);
	}
	RANK_ASSERT(r, !ep);
	row->ops->close(NULL);
	local_down(&e);
}

struct stream {
	struct end *e;
	_Atomic bool stop;
	int32_t code;
};

static void *write_elsewhere(void *arg)
{
	struct stream *s = arg;
	char *src = calloc(1, MEM / 2);
	struct smem_xfer put = {
	    .dst = s->e->mem + MEM / 2, .src = src, .width = MEM / 2, .height = 1};

	while (src && s->code == SMEM_OK && !atomic_load(&s->stop))
		s->code = s->e->row->ops->put(s->e->ep, &put, 1);
	free(src);
	return NULL;
}

/* Registrations in an exposed region stay until it is withdrawn, whoever else uses the link. */
void list_kept(struct rank *r, const struct row *row)
{
	struct end e;
	pthread_t tid;

	if (r->rank == 0) {
		be_target(r, row, false);
		return;
	}
	initiator_up(r, &e, row);
	struct ofi_local *memory = &((struct ofi_link *)e.ep)->memory;
	char *src = buffer(r, MEM / 2), *back = buffer(r, MEM / 2);
	struct stream s = {.e = &e};
	RANK_ASSERT(r, pthread_create(&tid, NULL, write_elsewhere, &s) == 0);
	for (uint64_t id = 10; id < 40; id++) {
		fill(src, PAGE, id);
		struct smem_xfer put = {.dst = e.mem, .src = src, .width = MEM / 2, .height = 1};
		struct smem_xfer get = {.dst = back, .src = e.mem, .width = MEM / 2, .height = 1};
		RANK_OK(r, row->ops->expose(id, src, MEM / 2, 1, e.card.secret));
		RANK_OK(r, row->ops->put(e.ep, &put, 1));
		RANK_OK(r, row->ops->get(e.ep, &get, 1));
		RANK_ASSERT(r, memcmp(src, back, MEM / 2) == 0);
		ofi_local_enter(memory);
		RANK_ASSERT(r, memory->n == 1 && memory->bytes == MEM / 2);
		ofi_local_leave(memory);
		RANK_OK(r, row->ops->withdraw(id, deadline_in_ms(PATIENCE_MS)));
		ofi_local_enter(memory);
		RANK_ASSERT(r, memory->n == 0 && memory->bytes == 0);
		ofi_local_leave(memory);
	}
	atomic_store(&s.stop, true);
	pthread_join(tid, NULL);
	RANK_CODE(r, s.code, SMEM_OK);
	rank_barrier(r);
	initiator_down(&e);
	free(src);
	free(back);
}
