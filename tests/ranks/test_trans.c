/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TRANS as 12 of the specification has it: every kind of memory is written and read exactly, wrong
 * ranges move nothing, batches are checked whole, registrations count from their return to that of
 * deregister, roles, sessions of one process, many peers.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "trans_util.h"

#define WRITE "smem_trans_write"
#define BATCH "smem_trans_batch_write"

struct where {
	uint64_t at;
	uint64_t len;
};

static void tell(struct rank *r, const char *key, const void *at, size_t len)
{
	struct where w = {.at = (uintptr_t)at, .len = len};

	rank_put(r, key, &w, sizeof(w));
}

static char *ask(struct rank *r, const char *key)
{
	struct where w = {0};

	RANK_ASSERT(r, rank_get(r, key, &w, sizeof(w)) == sizeof(w));
	return (char *)(uintptr_t)w.at;
}

/* ---- every kind of memory ---- */

#define LEN (3u << 20)
#define LO  1037u /* registered: [LO, LEN - HI) */
#define HI  511u

static void write_kind(struct rank *r, smem_trans_t h, uint64_t kind)
{
	char key[32];
	const char *peer = trans_name(1);
	static uint8_t out[LEN], back[LEN];

	snprintf(key, sizeof(key), "kind %u", (unsigned int)kind);
	char *remote = ask(r, key);
	const size_t len = LEN - LO - HI;
	trans_fill(out, LEN, kind, 0);
	/* one byte too far, on either side and by wrapping: nothing moves */
	RANK_CODE(r, smem_trans_write(h, out, peer, remote + LO - 1, 2), SMEM_INVALID_PARAM);
	trans_message(r, WRITE, SMEM_INVALID_PARAM, "is not registered");
	RANK_CODE(r, smem_trans_write(h, out, peer, remote + LO, len + 1), SMEM_INVALID_PARAM);
	RANK_CODE(r, smem_trans_write(h, out, peer, remote + LO, SIZE_MAX), SMEM_INVALID_PARAM);
	trans_message(r, WRITE, SMEM_INVALID_PARAM, "wraps");
	RANK_CODE(r, smem_trans_read(h, back, peer, remote + LO, len + 1, 0), SMEM_INVALID_PARAM);
	rank_meet(r, "untouched", 2);
	rank_meet(r, "checked", 2);
	/* single bytes at both ends, then the whole, then read it back */
	RANK_OK(r, smem_trans_write(h, out + LO, peer, remote + LO, 1));
	RANK_OK(r, smem_trans_write(h, out + LEN - HI - 1, peer, remote + LEN - HI - 1, 1));
	RANK_OK(r, smem_trans_write(h, out + LO + 1, peer, remote + LO + 1, len - 2));
	RANK_OK(r, smem_trans_read(h, back + LO, peer, remote + LO, len, 0));
	RANK_ASSERT(r, memcmp(back + LO, out + LO, len) == 0);
	rank_meet(r, "written", 2);
	rank_meet(r, "seen", 2);
}

static void serve_kind(struct rank *r, smem_trans_t h, uint64_t kind)
{
	char key[32];
	struct mem m = mem_new(r, (enum mem_kind)kind, LEN);

	memset(m.at, 0xa5, LEN);
	snprintf(key, sizeof(key), "kind %u", (unsigned int)kind);
	RANK_OK(r, smem_trans_register_mem(h, m.at + LO, LEN - LO - HI, 0));
	tell(r, key, m.at, LEN);
	rank_meet(r, "untouched", 2);
	for (size_t i = 0; i < LEN; i++)
		RANK_ASSERT(r, (uint8_t)m.at[i] == 0xa5);
	rank_meet(r, "checked", 2);
	rank_meet(r, "written", 2);
	for (size_t i = 0; i < LO; i++)
		RANK_ASSERT(r, (uint8_t)m.at[i] == 0xa5);
	for (size_t i = LEN - HI; i < LEN; i++)
		RANK_ASSERT(r, (uint8_t)m.at[i] == 0xa5);
	if (!trans_is(m.at + LO, LEN - LO - HI, kind, LO))
		rank_fail(r, __FILE__, __LINE__, "wrong bytes in %s memory",
			  mem_name((enum mem_kind)kind));
	RANK_OK(r, smem_trans_deregister_mem(h, m.at + LO));
	rank_meet(r, "seen", 2);
	mem_free(&m);
}

static void kinds(struct rank *r)
{
	smem_trans_t h = trans_up(r);

	for (uint64_t kind = 0; kind < MEM_KINDS; kind++) {
		if (r->rank == 0)
			write_kind(r, h, kind);
		else
			serve_kind(r, h, kind);
	}
	smem_trans_destroy(h, 0);
	smem_uninit();
}

/* ---- many at once ---- */

#define MANY 100000u

/* 100,000 pieces of 64 bytes, scattered over private and mapped memory in turn. */
static void many(struct rank *r)
{
	smem_trans_t h = trans_up(r);
	struct mem m[2];

	if (r->rank == 1) {
		for (int i = 0; i < 2; i++) {
			m[i] = mem_new(r, i ? MEM_SEALED : MEM_ANON, MANY * 64);
			RANK_OK(r, smem_trans_register_mem(h, m[i].at, m[i].len, 0));
			tell(r, i ? "m1" : "m0", m[i].at, m[i].len);
		}
		rank_barrier(r);
		for (size_t i = 0; i < MANY; i++)
			RANK_ASSERT(r, trans_is(m[i & 1].at + i * 64, 64, i, 0));
		mem_free(&m[0]);
		mem_free(&m[1]);
	} else {
		char *to[2] = {ask(r, "m0"), ask(r, "m1")};
		char *from = malloc(MANY * 64);
		const void **src = malloc(MANY * sizeof(*src));
		void **dst = malloc(MANY * sizeof(*dst));
		size_t *len = malloc(MANY * sizeof(*len));
		for (size_t k = 0; k < MANY; k++) {
			size_t i = k * 7919 % MANY;
			trans_fill(from + i * 64, 64, i, 0);
			src[k] = from + i * 64;
			dst[k] = to[i & 1] + i * 64;
			len[k] = 64;
		}
		/* the last one is wrong: nothing moves */
		dst[MANY - 1] = to[1] + MANY * 64 - 63;
		RANK_CODE(r, smem_trans_batch_write(h, src, trans_name(1), dst, len, MANY),
			  SMEM_INVALID_PARAM);
		trans_message(r, BATCH, SMEM_INVALID_PARAM, "element 99999");
		char *back = malloc(MANY * 64);
		for (int s = 0; s < 2; s++) {
			RANK_OK(r, smem_trans_read(h, back, trans_name(1), to[s], MANY * 64, 0));
			for (size_t b = 0; b < MANY * 64; b++)
				RANK_ASSERT(r, back[b] == 0);
		}
		size_t last = (size_t)(MANY - 1) * 7919 % MANY;
		dst[MANY - 1] = to[last & 1] + last * 64;
		RANK_OK(r, smem_trans_batch_write(h, src, trans_name(1), dst, len, MANY));
		/* and back, into the places they came from */
		memset(from, 0, MANY * 64);
		RANK_OK(r, smem_trans_batch_read(h, (void **)src, trans_name(1), (const void **)dst,
						 len, MANY, 0));
		for (size_t i = 0; i < MANY; i++)
			RANK_ASSERT(r, trans_is(from + i * 64, 64, i, 0));
		rank_barrier(r);
		free(back);
		free(len);
		free(dst);
		free(src);
		free(from);
	}
	rank_barrier(r);
	smem_trans_destroy(h, 0);
	smem_uninit();
}

/* ---- registrations ---- */

static void adjoining(struct rank *r, smem_trans_t h, char *at)
{
	char out[300];

	trans_fill(out, sizeof(out), 5, 0);
	/* rank 1 has [0,100), [100,200), [150,250), [260,300) */
	RANK_OK(r, smem_trans_write(h, out, trans_name(1), at, 250));
	RANK_CODE(r, smem_trans_write(h, out, trans_name(1), at, 251), SMEM_INVALID_PARAM);
	RANK_CODE(r, smem_trans_write(h, out, trans_name(1), at + 249, 12), SMEM_INVALID_PARAM);
	rank_meet(r, "a", 2); /* it withdraws [100,200) */
	rank_meet(r, "b", 2);
	RANK_OK(r, smem_trans_write(h, out, trans_name(1), at, 100));
	RANK_CODE(r, smem_trans_write(h, out, trans_name(1), at + 99, 2), SMEM_INVALID_PARAM);
	RANK_CODE(r, smem_trans_write(h, out, trans_name(1), at + 149, 2), SMEM_INVALID_PARAM);
	RANK_OK(r, smem_trans_write(h, out + 150, trans_name(1), at + 150, 100));
}

static void registrations(struct rank *r)
{
	smem_trans_t h = trans_up(r);
	static char mem[1000];

	if (r->rank == 1) {
		void *addr[4] = {mem, mem + 100, mem + 150, mem + 260};
		size_t len[4] = {100, 100, 100, 40};
		RANK_OK(r, smem_trans_batch_register_mem(h, addr, len, 4, 0));
		RANK_OK(r, smem_trans_register_mem(h, mem, 100, 0)); /* again: not counted */
		RANK_CODE(r, smem_trans_register_mem(h, mem, 101, 0), SMEM_DUPLICATED_OBJECT);
		trans_message(r, "smem_trans_register_mem", SMEM_DUPLICATED_OBJECT, "capacity 101");
		/* all or nothing */
		void *more[2] = {mem + 500, mem + 100};
		size_t cap[2] = {10, 99};
		RANK_CODE(r, smem_trans_batch_register_mem(h, more, cap, 2, 0),
			  SMEM_DUPLICATED_OBJECT);
		RANK_CODE(r, smem_trans_deregister_mem(h, mem + 500), SMEM_OBJECT_NOT_EXISTS);
		RANK_CODE(r, smem_trans_deregister_mem(h, mem + 1), SMEM_OBJECT_NOT_EXISTS);
		trans_message(r, "smem_trans_deregister_mem", SMEM_OBJECT_NOT_EXISTS,
			      "is not registered");
		tell(r, "mem", mem, sizeof(mem));
		rank_meet(r, "a", 2);
		RANK_OK(r, smem_trans_deregister_mem(h, mem + 100));
		RANK_CODE(r, smem_trans_deregister_mem(h, mem + 100), SMEM_OBJECT_NOT_EXISTS);
		rank_meet(r, "b", 2);
		rank_barrier(r);
		RANK_ASSERT(r, trans_is(mem, 250, 5, 0));
		RANK_OK(r, smem_trans_deregister_mem(h, mem));
		RANK_CODE(r, smem_trans_deregister_mem(h, mem), SMEM_OBJECT_NOT_EXISTS);
	} else {
		adjoining(r, h, ask(r, "mem"));
		rank_barrier(r);
	}
	rank_barrier(r);
	smem_trans_destroy(h, 0);
	smem_uninit();
}

#define ROUNDS 300u

/* A write right after the peer's register returned, without retry. */
static void at_once(struct rank *r)
{
	smem_trans_t h = trans_up(r);
	struct mem m = {.fd = -1};
	uint64_t to[2];

	for (uint64_t i = 0; i < ROUNDS; i++) {
		uint64_t mine = 0;
		char out[5000];
		if (r->rank == 1) {
			m = mem_new(r, i % 2 ? MEM_SEALED : MEM_HEAP, 8192);
			mine = (uintptr_t)m.at + i % 100;
			RANK_OK(r, smem_trans_register_mem(h, (void *)mine, sizeof(out), 0));
		}
		rank_gather(r, &mine, sizeof(mine), to);
		trans_fill(out, sizeof(out), i, 0);
		if (r->rank == 0)
			RANK_OK(
			    r, smem_trans_write(h, out, trans_name(1), (void *)to[1], sizeof(out)));
		rank_barrier(r);
		if (r->rank == 1) {
			RANK_ASSERT(r, trans_is((void *)mine, sizeof(out), i, 0));
			RANK_OK(r, smem_trans_deregister_mem(h, (void *)mine));
			mem_free(&m);
		}
		rank_barrier(r);
		if (r->rank == 0)
			RANK_CODE(r, smem_trans_write(h, out, trans_name(1), (void *)to[1], 1),
				  SMEM_INVALID_PARAM);
	}
	rank_barrier(r);
	smem_trans_destroy(h, 0);
	smem_uninit();
}

/* Memory that is gone without having been deregistered: an error at the writer, nothing worse. */
static void unmapped(struct rank *r)
{
	smem_trans_t h = trans_up(r);

	for (int round = 0; round < 2; round++) {
		const char *key = round ? "second" : "first";
		if (r->rank == 1) {
			struct mem m = mem_new(r, round ? MEM_SHARED : MEM_ANON, 65536);
			RANK_OK(r, smem_trans_register_mem(h, m.at, m.len, 0));
			/* the second one: the file is cut under the mapping */
			if (round)
				RANK_OK(r, ftruncate(m.fd, 0));
			else
				munmap(m.at, m.len);
			tell(r, key, m.at, m.len);
			rank_meet(r, "tried", 2);
			RANK_OK(r, smem_trans_deregister_mem(h, m.at));
			if (!round)
				m.at = NULL;
			mem_free(&m);
		} else {
			char out[100] = {0};
			char *to = ask(r, key);
			RANK_CODE(r, smem_trans_write(h, out, trans_name(1), to, 100), SMEM_IO);
			trans_message(r, WRITE, SMEM_IO, trans_name(1));
			RANK_CODE(r, smem_trans_read(h, out, trans_name(1), to, 100, 0), SMEM_IO);
			rank_meet(r, "tried", 2);
		}
	}
	rank_barrier(r);
	smem_trans_destroy(h, 0);
	smem_uninit();
}

/* ---- roles, own process ---- */

static void roles(struct rank *r)
{
	smem_trans_t h = trans_up(r);
	static char mem[SMEM_TRANS_BUTT][64];
	char out[64];

	trans_fill(out, 64, 1, 0);
	for (int role = 0; role < SMEM_TRANS_BUTT; role++) {
		char name[32];
		snprintf(name, sizeof(name), "[fe80::%x]:%d", 0xabc0 + role, 100 + role);
		if (r->rank == 1) {
			smem_trans_t s = trans_open(r, name, (smem_trans_role_t)role);
			RANK_OK(r, smem_trans_register_mem(s, mem[role], 64, 0));
			trans_fill(mem[role], 64, 2, 0);
			tell(r, name, mem[role], 64);
			rank_meet(r, "role", 2);
			RANK_ASSERT(r, trans_is(mem[role], 64, role == 1 ? 2 : 1, 0));
			smem_trans_destroy(s, 0);
		} else {
			char back[64];
			char *to = ask(r, name);
			RANK_OK(r, smem_trans_read(h, back, name, to, 64, 0));
			RANK_ASSERT(r, trans_is(back, 64, 2, 0));
			RANK_CODE(r, smem_trans_write(h, out, name, to, 64),
				  role == SMEM_TRANS_SENDER ? SMEM_INVALID_PARAM : 0);
			if (role == SMEM_TRANS_SENDER)
				trans_message(r, WRITE, SMEM_INVALID_PARAM, "SENDER");
			rank_meet(r, "role", 2);
		}
		rank_barrier(r);
	}
	smem_trans_destroy(h, 0);
	smem_uninit();
}

static void own_process(struct rank *r)
{
	smem_trans_t h = trans_up(r);
	smem_trans_t other = trans_open(r, "Host-A.example:9", SMEM_TRANS_NONE);
	struct mem m[2] = {mem_new(r, MEM_HEAP, 10000), mem_new(r, MEM_SEALED, 10000)};
	char out[10000];

	for (int i = 0; i < 2; i++) {
		RANK_OK(r, smem_trans_register_mem(h, m[i].at, 10000, 0));
		RANK_OK(r, smem_trans_register_mem(other, m[i].at, 5000, 0));
		trans_fill(out, 10000, 3, 0);
		RANK_OK(r, smem_trans_write(h, out, trans_name(0), m[i].at, 10000));
		RANK_ASSERT(r, trans_is(m[i].at, 10000, 3, 0));
		trans_fill(out, 10000, 4, 0);
		/* the same session by another spelling */
		RANK_OK(r, smem_trans_write(h, out, "host-a.EXAMPLE:9", m[i].at, 5000));
		RANK_CODE(r, smem_trans_write(h, out, "host-a.example:9", m[i].at, 5001),
			  SMEM_INVALID_PARAM);
		RANK_OK(r, smem_trans_write(other, out, "host-a.example:9", m[i].at, 5000));
		RANK_ASSERT(r, trans_is(m[i].at, 5000, 4, 0));
		RANK_ASSERT(r, trans_is(m[i].at + 5000, 5000, 3, 5000));
	}
	RANK_ASSERT(r, trans_try(r, "HOST-a.example:9", SMEM_TRANS_NONE) == NULL);
	trans_message(r, "smem_trans_create", SMEM_DUPLICATED_OBJECT, "host-a.example:9");
	smem_trans_destroy(other, 0);
	RANK_CODE(r, smem_trans_write(h, out, "host-a.example:9", m[0].at, 1),
		  SMEM_OBJECT_NOT_EXISTS);
	trans_message(r, WRITE, SMEM_OBJECT_NOT_EXISTS, "host-a.example:9");
	/* the name is free at once; what the old one had is stale */
	other = trans_open(r, "host-a.example:9", SMEM_TRANS_NONE);
	RANK_CODE(r, smem_trans_write(h, out, "host-a.example:9", m[0].at, 1), SMEM_STALE);
	trans_message(r, WRITE, SMEM_STALE, "earlier incarnation");
	RANK_CODE(r, smem_trans_write(h, out, "host-a.example:9", out, 1), SMEM_INVALID_PARAM);
	RANK_OK(r, smem_trans_register_mem(other, m[0].at, 10, 0));
	RANK_OK(r, smem_trans_write(h, out, "host-a.example:9", m[0].at, 10));
	RANK_CODE(r, smem_trans_write(h, out, "host-a.example:9", m[0].at, 11), SMEM_STALE);
	smem_trans_uninit(0);
	RANK_CODE(r, smem_trans_register_mem(h, out, 1, 0), SMEM_OBJECT_NOT_EXISTS);
	mem_free(&m[0]);
	mem_free(&m[1]);
	smem_uninit();
}

/* ---- many threads, many peers ---- */

#define THREADS 4
#define AREA	(256u << 10)

struct worker {
	struct rank *r;
	smem_trans_t h;
	uint64_t id;
	uint64_t *to; /* by rank */
};

static void *work(void *arg)
{
	struct worker *w = arg;
	uint64_t seed = w->r->seed + w->r->rank * 100 + w->id;
	char *out = malloc(AREA);
	char *back = malloc(AREA);

	for (uint64_t i = 0; i < 150; i++) {
		uint32_t peer = (uint32_t)(rank_random(&seed) % w->r->size);
		uint64_t at = w->to[peer] + (w->r->rank * THREADS + w->id) * AREA;
		uint64_t first = rank_random(&seed) % AREA;
		uint64_t len = 1 + rank_random(&seed) % (AREA - first);
		trans_fill(out, len, i, first);
		RANK_OK(w->r,
			smem_trans_write(w->h, out, trans_name(peer), (void *)(at + first), len));
		RANK_OK(w->r, smem_trans_read(w->h, back, trans_name(peer), (void *)(at + first),
					      len, COPY_EXTEND_FLAG));
		RANK_ASSERT(w->r, memcmp(out, back, len) == 0);
	}
	free(out);
	free(back);
	return NULL;
}

static void threads(struct rank *r)
{
	smem_trans_t h = trans_up(r);
	struct mem m =
	    mem_new(r, r->rank % 2 ? MEM_SEALED : MEM_ANON, (size_t)r->size * THREADS * AREA);
	uint64_t at = (uintptr_t)m.at;
	uint64_t to[8];
	struct worker w[THREADS];
	pthread_t t[THREADS];

	RANK_OK(r, smem_trans_register_mem(h, m.at, m.len, 0));
	rank_gather(r, &at, sizeof(at), to);
	for (uint64_t i = 0; i < THREADS; i++) {
		w[i] = (struct worker){.r = r, .h = h, .id = i, .to = to};
		RANK_OK(r, pthread_create(&t[i], NULL, work, &w[i]));
	}
	for (int i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	rank_barrier(r);
	RANK_OK(r, smem_trans_deregister_mem(h, m.at));
	smem_trans_destroy(h, 0);
	mem_free(&m);
	smem_uninit();
}

static const struct ranks_case cases[] = {
    {.name = "kinds", .fn = kinds, .sizes = {2}},
    {.name = "many", .fn = many, .sizes = {2}},
    {.name = "registrations", .fn = registrations, .sizes = {2}},
    {.name = "at_once", .fn = at_once, .sizes = {2}},
    {.name = "unmapped", .fn = unmapped, .sizes = {2}},
    {.name = "roles", .fn = roles, .sizes = {2}},
    {.name = "own_process", .fn = own_process, .sizes = {1}},
    {.name = "threads", .fn = threads, .sizes = {1, 3}},
};

int main(int argc, char **argv)
{
	return ranks_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
