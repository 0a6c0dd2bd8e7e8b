/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `smem perf trans`: writes into the registered memory of a process beside this one. Memory of the
 * library (a slot of a pool) is measured against memcpy and streaming stores of the same shape into
 * a mapping; private memory, in base and in huge pages, against process_vm_writev, bare: one call
 * for a whole batch, by one thread and by two. UCX, where ucx_perftest is installed, puts into its
 * own allocation, the same buffer over and over.
 */
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "perf.h"
#include "proc.h"
#include "smem.h"
#include "smem_bm.h"
#include "smem_trans.h"
#include "stream.h"

#define ANSWER_MS 120000
#define PEER	  "127.0.0.1:2"
#define SELF	  "127.0.0.1:1"
#define SLOT	  (2ull << 20)
#define IOVS	  1024u

enum { LIBRARY, BASE, HUGE, KINDS };

/* What the other process tells. */
struct told {
	pid_t pid;
	char *at[KINDS];
};

struct rig {
	smem_trans_t trans;
	pid_t pid;
	char *far;    /* the peer's memory, at its addresses */
	char *near;   /* source */
	char *mirror; /* a shared mapping of this process, as large: what memcpy writes to */
	size_t region;
	struct perf_plan plan;
	/* the second thread of the bare calls */
	pthread_t helper;
	sem_t go, done;
	size_t first, last; /* its part of the batch; empty: it ends */
	size_t place;
	int failed;
};

/* ---- operations ---- */

static int op_write(void *ctx, size_t i)
{
	struct rig *g = ctx;
	struct perf_plan *l = &g->plan;
	size_t k = perf_plan_first(&g->plan, i);

	if (l->n == 1)
		return smem_trans_write(g->trans, l->src[k], PEER, l->dst[k], l->len[k]);
	return smem_trans_batch_write(g->trans, &l->src[k], PEER, &l->dst[k], &l->len[k],
				      (uint32_t)l->n);
}

static int op_read(void *ctx, size_t i)
{
	struct rig *g = ctx;
	struct perf_plan *l = &g->plan;
	size_t k = perf_plan_first(&g->plan, i);

	return smem_trans_batch_read(g->trans, (void **)&l->src[k], PEER, (const void **)&l->dst[k],
				     &l->len[k], (uint32_t)l->n, 0);
}

static char *mirror_of(const struct rig *g, const void *far)
{
	return g->mirror + ((const char *)far - g->far);
}

static int op_memcpy(void *ctx, size_t i)
{
	struct rig *g = ctx;
	struct perf_plan *l = &g->plan;
	size_t k = perf_plan_first(&g->plan, i);

	for (size_t j = k; j < k + l->n; j++) {
		char *dst = mirror_of(g, l->dst[j]);
		memcpy(dst, l->src[j], l->len[j]);
		__asm__ volatile("" : : "r"(dst) : "memory");
	}
	return 0;
}

static int op_stream(void *ctx, size_t i)
{
	struct rig *g = ctx;
	struct perf_plan *l = &g->plan;
	size_t k = perf_plan_first(&g->plan, i);

	for (size_t j = k; j < k + l->n; j++)
		stream_copy(mirror_of(g, l->dst[j]), l->src[j], l->len[j]);
	return 0;
}

/* process_vm_writev of elements [k, end), as many a call as it takes. */
static int bare_write(const struct rig *g, size_t k, size_t end)
{
	struct iovec local[IOVS], remote[IOVS];
	const struct perf_plan *l = &g->plan;

	while (k < end) {
		size_t n = 0;
		ssize_t bytes = 0;
		for (; n < IOVS && k < end; n++, k++) {
			local[n] = (struct iovec){(void *)l->src[k], l->len[k]};
			remote[n] = (struct iovec){l->dst[k], l->len[k]};
			bytes += (ssize_t)l->len[k];
		}
		if (process_vm_writev(g->pid, local, n, remote, n, 0) != bytes)
			return -1;
	}
	return 0;
}

static int op_bare(void *ctx, size_t i)
{
	struct rig *g = ctx;
	size_t k = perf_plan_first(&g->plan, i);

	return bare_write(g, k, k + g->plan.n);
}

static void *help(void *arg)
{
	struct rig *g = arg;

	for (;;) {
		while (sem_wait(&g->go) != 0)
			;
		if (g->first == g->last)
			return NULL;
		g->failed = bare_write(g, g->first, g->last);
		sem_post(&g->done);
	}
}

/* Two threads, half of the elements each. */
static int op_bare2(void *ctx, size_t i)
{
	struct rig *g = ctx;
	size_t k = perf_plan_first(&g->plan, i);
	size_t half = g->plan.n / 2;

	g->first = k + half;
	g->last = k + g->plan.n;
	sem_post(&g->go);
	int r = bare_write(g, k, k + half);
	while (sem_wait(&g->done) != 0)
		;
	return r | g->failed;
}

/* ---- rows ---- */

static int row_library(struct perf *p, struct rig *g, const char *shape)
{
	size_t least = g->plan.len[0];
	struct perf_case cases[] = {{.name = "write", .op = op_write, .ctx = g},
				    {.name = "memcpy", .op = op_memcpy, .ctx = g},
				    {.name = stream_name(), .op = op_stream, .ctx = g}};

	return perf_compare(p, shape, g->plan.bytes, cases, stream_name() && least >= 4096 ? 3 : 2,
			    NULL);
}

static int row_private(struct perf *p, struct rig *g, const char *shape)
{
	struct perf_case cases[] = {{.name = "write", .op = op_write, .ctx = g},
				    {.name = "process_vm_writev", .op = op_bare, .ctx = g},
				    {.name = "the same, two threads", .op = op_bare2, .ctx = g}};

	return perf_compare(p, shape, g->plan.bytes, cases, g->plan.n > 1 ? 3 : 2, NULL);
}

static int row_read(struct perf *p, struct rig *g, const char *shape)
{
	struct perf_case cases[] = {{.name = "read", .op = op_read, .ctx = g}};

	return perf_compare(p, shape, g->plan.bytes, cases, 1, NULL);
}

static int all_shapes(struct perf *p, struct rig *g,
		      int (*row)(struct perf *p, struct rig *g, const char *shape))
{
	static const struct perf_shape shapes[] = {
	    {"8 B", 1, 8, 0, false},
	    {"64 B", 1, 64, 0, false},
	    {"4 KiB", 1, 4096, 0, false},
	    {"64 KiB", 1, 65536, 0, false},
	    {"1 MiB", 1, 1 << 20, 0, false},
	    {"16 MiB", 1, 16 << 20, 0, false},
	    {"64 MiB", 1, 64 << 20, 0, false},
	    {"61 x 128 KiB + 61 x 16 KiB", 122, 128 << 10, 16 << 10, false},
	    {"1024 x 4 KiB", 1024, 4096, 4096, true},
	    {"100,000 x 64 B", 100000, 64, 64, true}};

	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
		if (perf_plan_make(&g->plan, &shapes[i], g->near, g->far, g->region) != 0)
			return perf_fail(p, "memory");
		p->places = g->plan.places;
		if (row(p, g, shapes[i].name) != 0)
			return -1;
	}
	return 0;
}

/* ---- registration ---- */

#define REGISTRATIONS 1000

static void registrations(struct perf *p, struct rig *g, size_t bytes, const char *what)
{
	double in = 0, out = 0;
	char text[80];

	for (size_t i = 0; i < REGISTRATIONS && !p->failed; i++) {
		char *at = g->near + i * 64;
		double start = now_s();
		if (smem_trans_register_mem(g->trans, at, bytes, 0) != 0)
			perf_fail(p, "registration");
		in += now_s() - start;
		start = now_s();
		if (smem_trans_deregister_mem(g->trans, at) != 0)
			perf_fail(p, "deregistration");
		out += now_s() - start;
	}
	snprintf(text, sizeof(text), "register %s", what);
	perf_value(p, text, in / REGISTRATIONS * 1e6, "us");
	perf_value(p, "  deregister", out / REGISTRATIONS * 1e6, "us");
}

/* ---- UCX ---- */

/* GB/s of ucx_perftest, 0: it did not run. */
static double ucx_put(size_t bytes, uint16_t port)
{
	char command[400], line[400];
	double overall = 0;

	snprintf(command, sizeof(command),
		 "command -v ucx_perftest >/dev/null || exit 0; export UCX_TLS=posix,cma; "
		 "timeout 20 ucx_perftest -p %u >/dev/null 2>&1 & "
		 "for i in 1 2 3 4 5 6 7 8; do timeout 20 ucx_perftest 127.0.0.1 -p %u "
		 "-t ucp_put_bw -s %zu -n %zu -w 5 -f 2>/dev/null && break; done; wait",
		 port, port, bytes, bytes < (1 << 20) ? (size_t)20000 : (size_t)200);
	FILE *in = popen(command, "re");
	while (in && fgets(line, sizeof(line), in)) {
		double f[7];
		if (sscanf(line, "%lf %lf %lf %lf %lf %lf", &f[0], &f[1], &f[2], &f[3], &f[4],
			   &f[5]) == 6)
			overall = f[5] * 1048576 / 1e9;
	}
	if (in)
		pclose(in);
	return overall;
}

static void ucx(struct perf *p)
{
	static const size_t sizes[] = {4096, 65536, 1 << 20, 16 << 20};
	char text[80], size[32];

	if (p->quick)
		return;
	perf_section(p, "UCX put by posix and cma: its own allocation, one buffer over and over");
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		double rate = ucx_put(sizes[i], free_port("127.0.0.1"));
		if (rate == 0) {
			perf_note(p, "ucx_perftest is not installed, or did not run");
			return;
		}
		snprintf(text, sizeof(text), "ucp_put_bw %s",
			 size_text(size, sizeof(size), sizes[i]));
		perf_value(p, text, rate, "GB/s");
	}
}

/* ---- both sides ---- */

static smem_trans_t open_session(const char *url, const char *name)
{
	smem_trans_config_t config;

	smem_trans_config_init(&config);
	return smem_trans_create(url, name, &config);
}

/* Memory of the library: the own slot of a pool nobody else is in. */
static char *pool_slot(const char *url, size_t bytes)
{
	smem_bm_config_t config;

	smem_bm_config_init(&config);
	config.rankId = 0;
	config.startConfigStore = false;
	if (smem_bm_init(url, 1, 0, &config) != SMEM_OK)
		return NULL;
	smem_bm_t bm = smem_bm_create(1, 0, SMEMB_DATA_OP_SDMA, bytes, 0, 0);
	return bm ? smem_bm_ptr(bm, 0) : NULL;
}

/* args: URL, bytes */
int perf_trans_peer(struct child *c)
{
	size_t bytes = strtoull(c->argv[1], NULL, 10);
	struct told t = {.pid = getpid()};
	struct msg m;

	smem_trans_t h = open_session(c->argv[0], PEER);
	if (!h)
		return child_fail(c, "the other session");
	t.at[LIBRARY] = pool_slot(c->argv[0], bytes);
	t.at[BASE] = perf_memory(bytes, false);
	t.at[HUGE] = perf_memory(bytes, true);
	for (int k = 0; k < KINDS; k++) {
		if (!t.at[k] || smem_trans_register_mem(h, t.at[k], bytes, 0) != SMEM_OK)
			return child_fail(c, "the other session's memory");
	}
	child_send(c, MSG_DONE, &t, sizeof(t));
	child_recv(c, &m);
	smem_uninit();
	return 0;
}

static void listen_to(void *ctx, size_t i, const struct msg *m)
{
	(void)i;
	memcpy(ctx, m->data, sizeof(struct told));
}

static int measure(struct perf *p, struct rig *g, const struct told *t)
{
	g->pid = t->pid;
	g->far = t->at[LIBRARY];
	perf_section(p, "Writes to memory of the library in another process");
	if (all_shapes(p, g, row_library) != 0)
		return -1;
	g->far = t->at[BASE];
	perf_section(p, "Writes to its private memory, 4 KiB pages");
	if (all_shapes(p, g, row_private) != 0)
		return -1;
	munmap(g->near, g->region);
	g->near = perf_memory(g->region, true);
	if (!g->near)
		return perf_fail(p, "memory");
	g->far = t->at[HUGE];
	perf_section(p, "Writes to its private memory, transparent huge pages on both sides");
	if (all_shapes(p, g, row_private) != 0)
		return -1;
	perf_section(p, "Reads from it");
	if (all_shapes(p, g, row_read) != 0)
		return -1;
	perf_section(p, "Registration");
	registrations(p, g, 4096, "4 KiB");
	registrations(p, g, g->region - (1 << 20), "all of it");
	return 0;
}

static int with_peer(struct perf *p, const char *url, struct rig *g, struct procs *others)
{
	struct told t = {0};
	int fd = memfd_create("perf", MFD_CLOEXEC);

	if (fd >= 0 && ftruncate(fd, (off_t)g->region) == 0)
		g->mirror =
		    mmap(NULL, g->region, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
	if (fd >= 0)
		close(fd);
	g->near = perf_memory(g->region, false);
	if (!g->near || !g->mirror || g->mirror == MAP_FAILED)
		return perf_fail(p, "memory");
	g->trans = open_session(url, SELF);
	if (!g->trans)
		return perf_fail(p, "the session");
	if (procs_gather(others, MSG_DONE, ANSWER_MS, listen_to, &t) != 0) {
		p->failed = true;
		return -1;
	}
	return measure(p, g, &t);
}

int perf_trans(struct perf *p)
{
	struct rig g = {.region = (p->rotate + SLOT - 1) / SLOT * SLOT};
	struct procs others;
	char url[300], bytes[24];

	if (p->store)
		snprintf(url, sizeof(url), "%s", p->store);
	else if (store_host_any(url, sizeof(url)) != SMEM_OK)
		return perf_fail(p, "hosting the store");
	snprintf(bytes, sizeof(bytes), "%zu", g.region);
	if (procs_start(&others, "perf-trans", 1, (const char *const[]){url, bytes, NULL}) != 0)
		return perf_fail(p, "starting a process");
	sem_init(&g.go, 0, 0);
	sem_init(&g.done, 0, 0);
	if (pthread_create(&g.helper, NULL, help, &g) != 0)
		return perf_fail(p, "a thread");
	perf_note(p, "%ld CPUs; limits are one thread unless said otherwise",
		  sysconf(_SC_NPROCESSORS_ONLN));
	int r = with_peer(p, url, &g, &others);
	g.first = g.last = 0;
	sem_post(&g.go);
	pthread_join(g.helper, NULL);
	if (g.trans)
		smem_trans_destroy(g.trans, 0);
	procs_stop(&others, 10000);
	if (r == 0)
		ucx(p);
	perf_plan_free(&g.plan);
	if (g.near)
		munmap(g.near, g.region);
	if (g.mirror && g.mirror != MAP_FAILED)
		munmap(g.mirror, g.region);
	sem_destroy(&g.go);
	sem_destroy(&g.done);
	return r;
}
