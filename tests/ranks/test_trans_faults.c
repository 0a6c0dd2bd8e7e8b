/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TRANS when things end at the wrong moment: receivers and senders killed in the middle of writes,
 * receivers that come back under their name, memory withdrawn under writers, stopped writers, a
 * forbidden process_vm_writev, a lost store.
 *
 * SMEM_TEST_SECONDS: how long the race of deregister against writers runs (default 8).
 * SMEM_TEST_ROUNDS: how often a process is killed (default 200 senders, 50 receivers).
 */
#include <errno.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "trans_util.h"

#define SENDER_ROUNDS 200u
#define RECEIVER_ROUNDS                                                                            \
	50u /* half a second each: the store waits whether the dead one comes back */
#define AREA (1u << 20)

static void quiet(int level, const char *msg)
{
	(void)level;
	(void)msg;
}

static uint64_t setting(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text ? strtoull(text, NULL, 10) : otherwise;
}

/* ---- writers in the background ---- */

struct writer {
	struct rank *r;
	smem_trans_t h;
	const char *peer;
	_Atomic uint64_t at; /* where it writes */
	uint64_t len;
	_Atomic bool stop;
	_Atomic uint64_t calls, done;
	_Atomic int32_t failed; /* the last code */
	int32_t allowed[4];	/* 0 ends it */
};

/* Batches of unequal pieces over [at, at + len), all of one byte, until told to stop. */
static void *keep_writing(void *arg)
{
	struct writer *w = arg;
	uint64_t seed = (uintptr_t)w ^ w->r->seed;
	char *out = malloc(w->len);
	const void *src[16];
	void *dst[16];
	size_t len[16];

	memset(out, 0x5a, w->len);
	while (!atomic_load(&w->stop)) {
		uint64_t at = atomic_load(&w->at);
		uint32_t n = 1 + (uint32_t)(rank_random(&seed) % 16);
		for (uint32_t i = 0; i < n; i++) {
			uint64_t from = rank_random(&seed) % w->len;
			len[i] = 1 + rank_random(&seed) % (w->len - from);
			if (i % 2 && len[i] > 100)
				len[i] = 100;
			src[i] = out + from;
			dst[i] = (void *)(at + from);
		}
		int32_t e = smem_trans_batch_write(w->h, src, w->peer, dst, len, n);
		atomic_fetch_add(&w->calls, 1);
		if (e == 0) {
			atomic_fetch_add(&w->done, 1);
			continue;
		}
		atomic_store(&w->failed, e);
		bool known = false;
		for (int i = 0; w->allowed[i]; i++)
			known = known || w->allowed[i] == e;
		if (!known)
			rank_fail(w->r, __FILE__, __LINE__, "write: %d", e);
	}
	free(out);
	return NULL;
}

static void await_calls(struct rank *r, struct writer *w, uint64_t more)
{
	uint64_t until = rank_ms() + 30000;
	uint64_t from = atomic_load(&w->calls);

	while (atomic_load(&w->calls) < from + more) {
		RANK_ASSERT(r, rank_ms() < until);
		sched_yield();
	}
}

/* ---- a receiver that dies and comes back ---- */

static void receiver(struct rank *r)
{
	struct mem m = mem_new(r, r->life % 2 ? MEM_SEALED : MEM_ANON, 3 * AREA);
	uint64_t at = (uintptr_t)m.at + AREA;

	rank_may_die(r);
	smem_trans_t h = trans_open(r, trans_name(1), SMEM_TRANS_RECEIVER);
	/* next to it lies memory that was registered in another life, maybe */
	memset(m.at, 0xa5, AREA);
	RANK_OK(r, smem_trans_register_mem(h, (void *)at, AREA, 0));
	rank_put(r, "at", &at, sizeof(at));
	rank_meet(r, "up", 2);
	rank_meet(r, "never", 2);
}

static void receiver_killed(struct rank *r)
{
	if (r->rank == 1) {
		receiver(r);
		return;
	}
	uint64_t seed = r->seed;
	uint64_t at = 0, before = 0;
	char byte = 1;
	RANK_OK(r, smem_set_extern_logger(quiet));
	RANK_OK(r, smem_create_config_store(r->url));
	smem_trans_t h = trans_open(r, trans_name(0), SMEM_TRANS_SENDER);
	struct writer w = {.r = r,
			   .h = h,
			   .peer = trans_name(1),
			   .len = AREA,
			   .allowed = {SMEM_PEER_LOST, SMEM_STALE, SMEM_INVALID_PARAM}};
	pthread_t t;

	uint64_t rounds = setting("SMEM_TEST_ROUNDS", RECEIVER_ROUNDS);

	for (uint64_t round = 0; round < rounds; round++) {
		rank_spawn(r, 1);
		rank_meet(r, "up", 2);
		rank_get(r, "at", &at, sizeof(at));
		/* what only the earlier life had is refused, wherever it lies now */
		if (before && (before + AREA <= at || before >= at + AREA))
			RANK_CODE(r, smem_trans_write(h, &byte, w.peer, (void *)before, 1),
				  SMEM_STALE);
		atomic_store(&w.at, at);
		atomic_store(&w.stop, false);
		RANK_OK(r, smem_trans_write(h, &byte, w.peer, (void *)at, 1));
		uint64_t was = atomic_load(&w.done);
		RANK_OK(r, pthread_create(&t, NULL, keep_writing, &w));
		await_calls(r, &w, 1 + rank_random(&seed) % 20);
		rank_kill(r, 1);
		uint64_t dead = rank_ms();
		await_calls(r, &w, 2);
		RANK_CODE(r, smem_trans_write(h, &byte, w.peer, (void *)at, 1), SMEM_PEER_LOST);
		RANK_ASSERT(r, rank_ms() - dead < 20000);
		atomic_store(&w.stop, true);
		pthread_join(t, NULL);
		RANK_ASSERT(r, atomic_load(&w.done) > was);
		RANK_CODE(r, atomic_load(&w.failed), SMEM_PEER_LOST);
		before = at;
	}
	smem_trans_destroy(h, 0);
	smem_uninit();
}

/* ---- a sender that dies ---- */

static void sender(struct rank *r)
{
	struct writer w = {.r = r,
			   .peer = trans_name(0),
			   .len = AREA,
			   .allowed = {SMEM_STALE, SMEM_INVALID_PARAM}};
	uint64_t at = 0;

	rank_may_die(r);
	RANK_OK(r, smem_set_extern_logger(quiet));
	w.h = trans_open(r, trans_name(1 + r->life), SMEM_TRANS_SENDER);
	rank_get(r, "at", &at, sizeof(at));
	atomic_store(&w.at, at);
	char byte = 0x5a;
	RANK_OK(r, smem_trans_write(w.h, &byte, w.peer, (void *)at, 1));
	rank_meet(r, "up", 2);
	keep_writing(&w);
}

static void sender_killed(struct rank *r)
{
	if (r->rank == 1) {
		sender(r);
		return;
	}
	RANK_OK(r, smem_set_extern_logger(quiet));
	RANK_OK(r, smem_create_config_store(r->url));
	smem_trans_t h = trans_open(r, trans_name(0), SMEM_TRANS_RECEIVER);
	struct mem m[2] = {mem_new(r, MEM_ANON, 3 * AREA), mem_new(r, MEM_SEALED, 3 * AREA)};
	uint64_t rounds = setting("SMEM_TEST_ROUNDS", SENDER_ROUNDS);
	for (uint64_t round = 0; round < rounds; round++) {
		char *at = m[round % 2].at + AREA;
		uint64_t told = (uintptr_t)at;
		memset(m[round % 2].at, 0xa5, 3 * AREA);
		RANK_OK(r, smem_trans_register_mem(h, at, AREA, 0));
		rank_put(r, "at", &told, sizeof(told));
		rank_spawn(r, 1);
		rank_meet(r, "up", 2);
		/* it writes on this memory now; wait until some of it has come */
		uint64_t until = rank_ms() + 30000;
		while (*(volatile char *)at != 0x5a && rank_ms() < until)
			;
		RANK_ASSERT(r, *(volatile char *)at == 0x5a);
		if (round % 4 < 2)
			rank_kill(r, 1);
		uint64_t start = rank_ms();
		RANK_OK(r, smem_trans_deregister_mem(h, at));
		RANK_ASSERT(r, rank_ms() - start < 4000);
		/* whatever it does now, nothing lands */
		memset(at, 0x11, AREA);
		if (round % 4 >= 2)
			rank_kill(r, 1);
		for (size_t i = 0; i < 3 * AREA; i++)
			RANK_ASSERT(r, (uint8_t)m[round % 2].at[i] ==
					   (i >= AREA && i < 2 * AREA ? 0x11 : 0xa5));
	}
	smem_trans_destroy(h, 0);
	mem_free(&m[0]);
	mem_free(&m[1]);
	smem_uninit();
}

/* ---- deregister against writers ---- */

#define SPOT 4096u

/* Two writers, each on its half of one small range that comes and goes. */
static void withdrawn(struct rank *r)
{
	RANK_OK(r, smem_set_extern_logger(quiet));
	smem_trans_t h = trans_up(r);
	struct mem m = {.fd = -1};
	uint64_t at[2];

	if (r->rank == 0)
		m = mem_new(r, r->seed % 2 ? MEM_SEALED : MEM_ANON, 3 * SPOT);
	uint64_t mine = (uintptr_t)m.at + SPOT;
	rank_gather(r, &mine, sizeof(mine), at);
	if (r->rank == 0) {
		uint64_t until = rank_ms() + setting("SMEM_TEST_SECONDS", 8) * 1000;
		uint64_t rounds = 0, hit = 0;
		volatile char *spot = m.at + SPOT;
		memset(m.at, 0xa5, 3 * SPOT);
		while (rank_ms() < until || hit < 100) {
			RANK_OK(r, smem_trans_register_mem(h, (void *)mine, SPOT, 0));
			for (int i = 0; i < 2000 && rounds % 16 == 0 && spot[7] == 0x11; i++)
				sched_yield();
			RANK_OK(r, smem_trans_deregister_mem(h, (void *)mine));
			for (size_t i = 0; i < SPOT; i += 7)
				hit += spot[i] == 0x5a;
			memset((void *)mine, 0x11, SPOT);
			if (rounds % 8 == 0)
				sched_yield();
			for (size_t i = 0; i < SPOT; i++)
				RANK_ASSERT(r, spot[i] == 0x11);
			rounds++;
		}
		for (size_t i = 0; i < SPOT; i++)
			RANK_ASSERT(r, (uint8_t)m.at[i] == 0xa5 &&
					   (uint8_t)m.at[2 * SPOT + i] == 0xa5);
		rank_note(r, "%llu rounds, %llu hits, %s memory", (unsigned long long)rounds,
			  (unsigned long long)hit, mem_name(m.kind));
		rank_put(r, "end", "x", 1);
	} else {
		struct writer w[2];
		pthread_t t[2];
		char end;
		for (uint64_t i = 0; i < 2; i++) {
			w[i] = (struct writer){.r = r,
					       .h = h,
					       .peer = trans_name(0),
					       .at = at[0] + i * (SPOT / 2),
					       .len = SPOT / 2,
					       .allowed = {SMEM_STALE, SMEM_INVALID_PARAM}};
			RANK_OK(r, pthread_create(&t[i], NULL, keep_writing, &w[i]));
		}
		rank_get(r, "end", &end, 1);
		for (int i = 0; i < 2; i++) {
			atomic_store(&w[i].stop, true);
			pthread_join(t[i], NULL);
		}
	}
	rank_barrier(r);
	smem_trans_destroy(h, 0);
	mem_free(&m);
	smem_uninit();
}

/* ---- a writer that is stopped in the middle ---- */

#define LARGE (256u << 20)

static void stopped(struct rank *r)
{
	RANK_OK(r, smem_set_extern_logger(quiet));
	smem_trans_t h = trans_up(r);
	struct mem m = mem_new(r, MEM_SEALED, LARGE);
	uint64_t mine = (uintptr_t)m.at;
	uint64_t at[2];

	rank_gather(r, &mine, sizeof(mine), at);
	if (r->rank == 0) {
		int32_t e = 0;
		for (int i = 0; i < 40 && e == 0; i++) {
			RANK_OK(r, smem_trans_register_mem(h, m.at, LARGE, 0));
			rank_meet(r, "go", 2);
			while (*(volatile char *)m.at == 0)
				;
			rank_stop(r, 1);
			uint64_t start = rank_ms();
			e = smem_trans_deregister_mem(h, m.at);
			uint64_t took = rank_ms() - start;
			if (e) {
				RANK_CODE(r, e, SMEM_RESOURCE_IN_USE);
				trans_message(r, "smem_trans_deregister_mem", SMEM_RESOURCE_IN_USE,
					      "still in flight");
				RANK_ASSERT(r, took >= 5000 && took < 6000);
				/* closed: to be registered only when it is over */
				RANK_CODE(r, smem_trans_register_mem(h, m.at, LARGE, 0),
					  SMEM_DUPLICATED_OBJECT);
			} else {
				RANK_ASSERT(r, took < 1000);
			}
			m.at[0] = 0;
			rank_put(r, "more", e ? "n" : "y", 1);
			rank_cont(r, 1);
			if (e) /* it ends now, and the call can be repeated */
				RANK_OK(r, smem_trans_deregister_mem(h, m.at));
			rank_meet(r, "next", 2);
		}
		RANK_CODE(r, e, SMEM_RESOURCE_IN_USE);
	} else {
		char more = 'y';
		memset(m.at, 0x5a, LARGE);
		while (more == 'y') {
			rank_meet(r, "go", 2);
			int32_t e = 0;
			while (e == 0)
				e = smem_trans_write(h, m.at, trans_name(0), (void *)at[0], LARGE);
			RANK_ASSERT(r, e == SMEM_STALE || e == SMEM_INVALID_PARAM);
			rank_get(r, "more", &more, 1);
			rank_meet(r, "next", 2);
		}
	}
	rank_barrier(r);
	smem_trans_destroy(h, 0);
	mem_free(&m);
	smem_uninit();
}

/* ---- no process_vm_writev ---- */

static void forbid_cma(struct rank *r)
{
	struct sock_filter code[] = {
	    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
	    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_process_vm_writev, 1, 0),
	    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_process_vm_readv, 0, 1),
	    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
	    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {.len = sizeof(code) / sizeof(code[0]), .filter = code};

	RANK_OK(r, prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	RANK_OK(r, prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog));
}

/* What a writer may do to any process, whoever it belongs to; root has it. */
static void drop_ptrace(struct rank *r)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2];

	RANK_OK(r, (int)syscall(SYS_capget, &head, data));
	data[0].effective &= ~(1u << CAP_SYS_PTRACE);
	data[0].permitted &= ~(1u << CAP_SYS_PTRACE);
	RANK_OK(r, (int)syscall(SYS_capset, &head, data));
}

/* No network either: shared memory is still reached, private memory says why not. */
static void without_cma(struct rank *r)
{
	RANK_OK(r, setenv("SMEM_FABRIC_PROVIDER", "none-such", 1));
	smem_trans_t h = trans_up(r);
	struct mem m[2] = {mem_new(r, MEM_SEALED, 8192), mem_new(r, MEM_HEAP, 8192)};
	uint64_t mine[2] = {(uintptr_t)m[0].at, (uintptr_t)m[1].at};
	uint64_t at[2][2];
	char out[8192], back[8192];

	trans_fill(out, sizeof(out), 9, 0);
	RANK_OK(r, smem_trans_register_mem(h, m[0].at, 8192, 0));
	RANK_OK(r, smem_trans_register_mem(h, m[1].at, 8192, 0));
	rank_gather(r, mine, sizeof(mine), at);
	if (r->rank == 1) {
		RANK_OK(r, smem_trans_write(h, out, trans_name(0), (void *)at[0][0], 8192));
		RANK_OK(r, smem_trans_read(h, back, trans_name(0), (void *)at[0][0], 8192, 0));
		RANK_ASSERT(r, memcmp(out, back, 8192) == 0);
		RANK_CODE(r, smem_trans_write(h, out, trans_name(0), (void *)at[0][1], 8192),
			  SMEM_UNREACHABLE);
		trans_message(r, "smem_trans_write", SMEM_UNREACHABLE, "process_vm");
		/* a batch of both: nothing is written */
		const void *src[2] = {back, back};
		void *dst[2] = {(void *)at[0][0], (void *)at[0][1]};
		size_t len[2] = {8192, 8192};
		memset(back, 0, sizeof(back));
		RANK_CODE(r, smem_trans_batch_write(h, src, trans_name(0), dst, len, 2),
			  SMEM_UNREACHABLE);
		/* the own process needs no system call */
		RANK_OK(r, smem_trans_write(h, out, trans_name(1), m[1].at, 8192));
		RANK_ASSERT(r, memcmp(out, m[1].at, 8192) == 0);
	}
	rank_barrier(r);
	if (r->rank == 0) {
		RANK_ASSERT(r, trans_is(m[0].at, 8192, 9, 0));
		for (int i = 0; i < 8192; i++)
			RANK_ASSERT(r, m[1].at[i] == 0);
	}
	smem_trans_destroy(h, 0);
	mem_free(&m[0]);
	mem_free(&m[1]);
	smem_uninit();
}

static void forbidden(struct rank *r)
{
	if (r->rank == 1) /* the one who writes */
		forbid_cma(r);
	without_cma(r);
}

static void undumpable(struct rank *r)
{
	if (r->rank == 1)
		drop_ptrace(r);
	else
		RANK_OK(r, prctl(PR_SET_DUMPABLE, 0, 0, 0, 0));
	without_cma(r);
}

static const struct ranks_case cases[] = {
    {.name = "receiver_killed", .fn = receiver_killed, .sizes = {2}, .initial = 1, .seconds = 180},
    {.name = "sender_killed", .fn = sender_killed, .sizes = {2}, .initial = 1, .seconds = 180},
    {.name = "withdrawn", .fn = withdrawn, .sizes = {2}, .seconds = 120},
    {.name = "stopped", .fn = stopped, .sizes = {2}, .seconds = 120},
    {.name = "forbidden", .fn = forbidden, .sizes = {2}},
    {.name = "undumpable", .fn = undumpable, .sizes = {2}},
};

int main(int argc, char **argv)
{
	return ranks_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
