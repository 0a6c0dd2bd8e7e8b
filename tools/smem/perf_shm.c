/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `smem perf shm`: barrier and allgather of ranks on this host, over the shared page and, for
 * comparison, through the store, beside what two processes can do bare: two flags that each side
 * sets and spins on, and a futex that wakes the other. Rank 0 takes the time of every call.
 */
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "perf.h"
#include "proc.h"
#include "smem.h"
#include "smem_shm.h"
#include "tool.h"

#define KINDS	   PERF_SHM_KINDS
#define LOG_ERRORS 3
#define SLOT	   (2ull << 20)
#define PATIENCE   120000
#define CALLS_MAX  20000u
#define CALLS_MIN  20u
#define BARE_CALLS 20000u
#define PAGE_KNOB  "SMEM_SHM_PAGE"

static const uint32_t kind_bytes[KINDS] = {0, 64, 65536};
const char *const perf_shm_kind[KINDS] = {"barrier", "allgather 64 B", "allgather 64 KiB"};

/* ---- a rank ---- */

struct shm_rank {
	struct child *c;
	smem_shm_t h;
	char *send;
	char *recv;
	double *samples;
};

static int call(struct shm_rank *r, uint32_t bytes)
{
	if (bytes == 0)
		return smem_shm_control_barrier(r->h);
	return smem_shm_control_allgather(r->h, r->send, bytes, r->recv, bytes * (uint32_t)r->c->n);
}

static int calls(struct shm_rank *r, uint32_t bytes, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		double start = now_s();
		if (call(r, bytes) != SMEM_OK)
			return child_fail(r->c, "collective");
		r->samples[i] = now_s() - start;
	}
	return 0;
}

/* Rank 0 says how many calls fit into the time; all do as many. */
static int measure_kind(struct shm_rank *r, uint32_t bytes, double budget)
{
	struct perf_stat stat;
	uint32_t n = CALLS_MIN, all[1024];

	double start = now_s();
	if (calls(r, bytes, CALLS_MIN) != 0)
		return 1;
	double each = (now_s() - start) / CALLS_MIN;
	if (budget / each > n)
		n = budget / each < CALLS_MAX ? (uint32_t)(budget / each) : CALLS_MAX;
	if (smem_shm_control_allgather(r->h, (char *)&n, sizeof(n), (char *)all,
				       (uint32_t)(sizeof(n) * r->c->n)) != SMEM_OK)
		return child_fail(r->c, "allgather");
	if (calls(r, bytes, all[0]) != 0)
		return 1;
	if (r->c->rank != 0)
		return 0;
	memset(&stat, 0, sizeof(stat));
	perf_stats(r->samples, all[0], &stat);
	return child_send(r->c, MSG_USER, &stat, sizeof(stat));
}

static int measure(struct shm_rank *r, const char *url, double budget)
{
	smem_shm_config_t config;
	void *gva;
	uint32_t n = (uint32_t)r->c->n, rank = (uint32_t)r->c->rank;

	smem_set_log_level(LOG_ERRORS);
	smem_shm_config_init(&config);
	config.startConfigStore = false;
	if (smem_shm_init(url, n, rank, 0, &config) != SMEM_OK)
		return child_fail(r->c, "smem_shm_init");
	r->h = smem_shm_create(0, n, rank, SLOT, SMEMS_DATA_OP_MTE, 0, &gva);
	if (!r->h)
		return child_fail(r->c, "smem_shm_create");
	for (uint32_t k = 0; k < KINDS; k++) {
		if (measure_kind(r, kind_bytes[k], budget) != 0)
			return 1;
	}
	smem_shm_uninit(0);
	return child_send(r->c, MSG_DONE, NULL, 0);
}

/* args: URL, seconds for each collective, first rank of this host, ranks of all hosts */
int perf_shm_rank(struct child *c)
{
	struct shm_rank r = {.c = c};
	struct msg m;

	c->rank += strtoul(c->argv[2], NULL, 10);
	c->n = strtoul(c->argv[3], NULL, 10);
	r.send = calloc(1, 65536);
	r.recv = calloc(c->n, 65536);
	r.samples = calloc(CALLS_MAX, sizeof(double));
	int status = 1;
	if (!r.send || !r.recv || !r.samples)
		status = child_fail(c, "memory");
	else
		status = measure(&r, c->argv[0], strtod(c->argv[1], NULL));
	free(r.send);
	free(r.recv);
	free(r.samples);
	if (status == 0)
		child_expect(c, MSG_QUIT, &m);
	return status;
}

/* ---- the bare means ---- */

struct bare { /* in memory that both sides share */
	_Alignas(64) _Atomic uint32_t here;
	_Alignas(64) _Atomic uint32_t there;
	_Alignas(64) _Atomic uint32_t turn;
};

static void spin_flags(_Atomic uint32_t *mine, _Atomic uint32_t *theirs, uint32_t i)
{
	atomic_store(mine, i);
	while (atomic_load(theirs) < i) {
#if defined(__x86_64__)
		__builtin_ia32_pause();
#endif
	}
}

/* Wait for the own parity, hand over the other one. */
static void futex_turn(_Atomic uint32_t *turn, uint32_t i)
{
	for (uint32_t now = atomic_load(turn); now != i; now = atomic_load(turn))
		syscall(SYS_futex, turn, FUTEX_WAIT, now, NULL, NULL, 0);
	atomic_store(turn, i + 1);
	syscall(SYS_futex, turn, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static pid_t bare_peer(struct bare *b, bool spin)
{
	pid_t pid = fork();

	if (pid != 0)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (uint32_t i = 1; i <= BARE_CALLS; i++) {
		if (spin)
			spin_flags(&b->there, &b->here, i);
		else
			futex_turn(&b->turn, 2 * i - 1);
	}
	_exit(0);
}

static int bare(struct perf *p, bool spin, struct perf_stat *ret)
{
	struct bare *b =
	    mmap(NULL, sizeof(*b), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	double *samples = calloc(BARE_CALLS, sizeof(double));
	pid_t pid = -1;

	if (b != MAP_FAILED && samples)
		pid = bare_peer(b, spin);
	if (pid < 0) {
		free(samples);
		return perf_fail(p, "bare measurement");
	}
	for (uint32_t i = 1; i <= BARE_CALLS; i++) {
		double start = now_s();
		if (spin)
			spin_flags(&b->here, &b->there, i);
		else
			futex_turn(&b->turn, 2 * i - 2);
		samples[i - 1] = now_s() - start;
	}
	waitpid(pid, NULL, 0);
	munmap(b, sizeof(*b));
	memset(ret, 0, sizeof(*ret));
	perf_stats(samples, BARE_CALLS, ret);
	free(samples);
	if (!spin) { /* a turn here and one there: two wakes */
		ret->median /= 2;
		ret->p99 /= 2;
		ret->min /= 2;
	}
	return 0;
}

/* ---- all together ---- */

int perf_shm_start(struct procs *g, const char *url, const struct perf_shm_host *h)
{
	char budget[32], first[16], world[16];

	snprintf(budget, sizeof(budget), "%g", h->budget);
	snprintf(first, sizeof(first), "%u", h->first);
	snprintf(world, sizeof(world), "%u", h->world);
	return procs_start(g, "perf-shm", h->ranks,
			   (const char *[]){url, budget, first, world, NULL});
}

int perf_shm_collect(struct procs *g, struct perf_stat ret[KINDS])
{
	struct msg m;
	size_t i, done = 0;
	unsigned got = 0;
	int r = 1;

	while (done < g->n) {
		r = procs_recv(g, &i, &m, PATIENCE);
		if (r == 1 && m.type == MSG_USER && m.len == sizeof(*ret) && got < KINDS)
			memcpy(&ret[got++], m.data, sizeof(*ret));
		else if (r == 1 && m.type == MSG_DONE)
			done++;
		else
			break;
	}
	if (done < g->n && r == 1)
		procs_complain(g, i, &m);
	else if (done < g->n)
		complain("%zu of %zu ranks did not answer", g->n - done, g->n);
	r = done == g->n ? 0 : -1;
	procs_stop(g, 5000);
	return r;
}

static int run_ranks(struct perf *p, const char *url, unsigned ranks, bool page,
		     struct perf_stat ret[KINDS])
{
	const struct perf_shm_host all = {
	    .ranks = ranks, .world = ranks, .budget = p->quick ? 0.05 : 0.5};
	struct procs g;

	setenv(PAGE_KNOB, page ? "1" : "0", 1);
	int r = perf_shm_start(&g, url, &all);
	unsetenv(PAGE_KNOB);
	if (r != 0)
		return perf_fail(p, "starting ranks");
	return perf_shm_collect(&g, ret) == 0 ? 0 : perf_fail(p, "ranks");
}

static int cpus(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
}

static int measure_size(struct perf *p, const char *url, unsigned ranks,
			const struct perf_stat *flags, const struct perf_stat *wake)
{
	const char *names[] = {"smem, shared page", "futex wake, one way", "two spinning flags"};
	struct perf_stat page[KINDS], store[KINDS], row[4];
	char shape[64];

	if (run_ranks(p, url, ranks, true, page) != 0 ||
	    run_ranks(p, url, ranks, false, store) != 0)
		return -1;
	perf_section(p, "%u ranks on %d CPUs", ranks, cpus());
	for (unsigned k = 0; k < KINDS; k++) {
		row[0] = page[k];
		row[1] = *wake;
		row[2] = *flags;
		snprintf(shape, sizeof(shape), "%s", perf_shm_kind[k]);
		perf_row(p, shape, (uint64_t)kind_bytes[k] * ranks, names, row,
			 k > 0 || ranks > 2 ? 1
			 : flags->ops	    ? 3
					    : 2);
		perf_row(p, "", (uint64_t)kind_bytes[k] * ranks,
			 (const char *[]){"smem, through the store"}, &store[k], 1);
	}
	return 0;
}

int perf_shm(struct perf *p)
{
	static const unsigned sizes[] = {2, 4, 8, 32};
	struct perf_stat flags = {0}, wake;
	char url[64];

	/* Flags need a CPU each, or every step takes a time slice. */
	if ((cpus() >= 2 && bare(p, true, &flags) != 0) || bare(p, false, &wake) != 0)
		return -1;
	perf_value(p, "futex wake, one way, median", wake.median * 1e6, "us");
	if (flags.ops)
		perf_value(p, "barrier of two spinning flags, median", flags.median * 1e6, "us");
	if (!p->store && store_host_any(url, sizeof(url)) != SMEM_OK)
		return perf_fail(p, "store");
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		if (p->ranks && i > 0)
			break;
		if (measure_size(p, p->store ? p->store : url, p->ranks ? p->ranks : sizes[i],
				 &flags, &wake) != 0)
			break;
	}
	smem_uninit();
	return p->failed ? -1 : 0;
}
