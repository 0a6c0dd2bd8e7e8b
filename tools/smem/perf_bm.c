/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `smem perf bm`: copies to and from the slot of a process beside this one, against memcpy and
 * streaming stores of the same shape to the same memory; then how long it takes until many
 * processes have joined a pool, and what memory that costs each.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "perf.h"
#include "smem.h"
#include "smem_bm.h"
#include "stream.h"

#define POOL_ID	  1u
#define JOIN_SLOT (2ull << 20)
#define ANSWER_MS 120000

#define LAYERS	    61u
#define BLOCK_LARGE (128u << 10)
#define BLOCK_SMALL (16u << 10)
/* blocks lie apart by their own size, so that they are scattered on both sides */
#define BATCH_SPAN  (2ull * LAYERS * (BLOCK_LARGE + BLOCK_SMALL))
#define BATCH_BYTES ((uint64_t)LAYERS * (BLOCK_LARGE + BLOCK_SMALL))

struct rig {
	smem_bm_t bm;
	char *near; /* private memory */
	char *far;  /* the other's slot */
	size_t region;
	size_t bytes; /* of an operation */
	size_t walk;  /* bytes that operations walk over */
};

static int join(const char *url, uint32_t world, uint32_t rank, uint64_t slot, smem_bm_t *ret)
{
	smem_bm_config_t config;
	void *at;

	smem_bm_config_init(&config);
	config.rankId = (uint16_t)rank;
	config.startConfigStore = false;
	if (smem_bm_init(url, world, 0, &config) != SMEM_OK)
		return -1;
	*ret = smem_bm_create(POOL_ID, 0, SMEMB_DATA_OP_SDMA, slot, 0, 0);
	if (!*ret)
		return -1;
	return smem_bm_join(*ret, 0, &at) == SMEM_OK ? 0 : -1;
}

static int op_put(void *ctx, size_t i)
{
	struct rig *g = ctx;
	size_t at = perf_rotate(i, g->bytes, g->walk);
	smem_copy_params p = {.src = g->near + at, .dest = g->far + at, .count = g->bytes};

	return smem_bm_copy(g->bm, &p, SMEMB_COPY_H2G, 0);
}

static int op_get(void *ctx, size_t i)
{
	struct rig *g = ctx;
	size_t at = perf_rotate(i, g->bytes, g->walk);
	smem_copy_params p = {.src = g->far + at, .dest = g->near + at, .count = g->bytes};

	return smem_bm_copy(g->bm, &p, SMEMB_COPY_G2H, 0);
}

static void plain(void *dst, const void *src, size_t n)
{
	memcpy(dst, src, n);
	__asm__ volatile("" : : "r"(dst) : "memory");
}

static int op_put_memcpy(void *ctx, size_t i)
{
	struct rig *g = ctx;
	size_t at = perf_rotate(i, g->bytes, g->walk);

	plain(g->far + at, g->near + at, g->bytes);
	return 0;
}

static int op_get_memcpy(void *ctx, size_t i)
{
	struct rig *g = ctx;
	size_t at = perf_rotate(i, g->bytes, g->walk);

	plain(g->near + at, g->far + at, g->bytes);
	return 0;
}

static int op_put_stream(void *ctx, size_t i)
{
	struct rig *g = ctx;
	size_t at = perf_rotate(i, g->bytes, g->walk);

	stream_copy(g->far + at, g->near + at, g->bytes);
	return 0;
}

static int op_get_stream(void *ctx, size_t i)
{
	struct rig *g = ctx;
	size_t at = perf_rotate(i, g->bytes, g->walk);

	stream_copy(g->near + at, g->far + at, g->bytes);
	return 0;
}

/* The j-th block of a batch: its place and size. */
static size_t block(size_t base, unsigned j, size_t *ret_bytes)
{
	size_t pair = j / 2;

	*ret_bytes = j % 2 ? BLOCK_SMALL : BLOCK_LARGE;
	return base + 2 * pair * (BLOCK_LARGE + BLOCK_SMALL) + (j % 2 ? 2 * BLOCK_LARGE : 0);
}

static int op_batch(void *ctx, size_t i)
{
	struct rig *g = ctx;
	size_t base = perf_rotate(i, BATCH_SPAN, g->walk), bytes;

	for (unsigned j = 0; j < 2 * LAYERS; j++) {
		size_t at = block(base, j, &bytes);
		smem_copy_params p = {.src = g->near + at, .dest = g->far + at, .count = bytes};
		int32_t r = smem_bm_copy(g->bm, &p, SMEMB_COPY_H2G, 0);
		if (r != SMEM_OK)
			return r;
	}
	return 0;
}

static int op_batch_memcpy(void *ctx, size_t i)
{
	struct rig *g = ctx;
	size_t base = perf_rotate(i, BATCH_SPAN, g->walk), bytes;

	for (unsigned j = 0; j < 2 * LAYERS; j++) {
		size_t at = block(base, j, &bytes);
		plain(g->far + at, g->near + at, bytes);
	}
	return 0;
}

static int op_batch_stream(void *ctx, size_t i)
{
	struct rig *g = ctx;
	size_t base = perf_rotate(i, BATCH_SPAN, g->walk), bytes;

	for (unsigned j = 0; j < 2 * LAYERS; j++) {
		size_t at = block(base, j, &bytes);
		stream_copy(g->far + at, g->near + at, bytes);
	}
	return 0;
}

/* 64 rows of 4 KiB, every other one on the far side: a page of a cache. */
static int op_2d(void *ctx, size_t i)
{
	struct rig *g = ctx;
	size_t at = perf_rotate(i, g->bytes * 2, g->walk);
	smem_copy_2d_params p = {.src = g->near + at,
				 .spitch = 4096,
				 .dest = g->far + at,
				 .dpitch = 8192,
				 .width = 4096,
				 .height = g->bytes / 4096};

	return smem_bm_copy_2d(g->bm, &p, SMEMB_COPY_H2G, 0);
}

static int op_2d_memcpy(void *ctx, size_t i)
{
	struct rig *g = ctx;
	size_t at = perf_rotate(i, g->bytes * 2, g->walk);

	for (size_t row = 0; row < g->bytes / 4096; row++)
		plain(g->far + at + row * 8192, g->near + at + row * 4096, 4096);
	return 0;
}

static int compare(struct perf *p, struct rig *g, const char *shape, size_t bytes, bool put)
{
	struct perf_case cases[3] = {
	    {.name = put ? "copy H2G" : "copy G2H", .op = put ? op_put : op_get, .ctx = g},
	    {.name = "memcpy", .op = put ? op_put_memcpy : op_get_memcpy, .ctx = g},
	    {.name = stream_name(), .op = put ? op_put_stream : op_get_stream, .ctx = g}};
	struct perf_stat s[3];
	size_t n = stream_name() && bytes >= 4096 ? 3 : 2;

	g->bytes = bytes;
	p->places = perf_places(bytes, g->walk);
	if (perf_compare(p, shape, bytes, cases, n, s) != 0)
		return -1;
	if (bytes <= 64)
		perf_value(p, put ? "  the call itself, over memcpy" : "  the same, reading",
			   (s[0].median - s[1].median) * 1e9, "ns");
	return 0;
}

static int sizes(struct perf *p, struct rig *g, bool put)
{
	static const size_t bytes[] = {64, 4096, 65536, 1 << 20, 16 << 20, 256 << 20};
	char text[32];

	g->walk = 16384;
	if (compare(p, g, "64 B, in cache", 64, put) != 0)
		return -1;
	g->walk = g->region;
	for (size_t i = 0; i < sizeof(bytes) / sizeof(bytes[0]) && bytes[i] <= g->region; i++) {
		if (compare(p, g, size_text(text, sizeof(text), bytes[i]), bytes[i], put) != 0)
			return -1;
	}
	return 0;
}

static int shapes(struct perf *p, struct rig *g)
{
	struct perf_case batch[] = {{.name = "122 copies H2G", .op = op_batch, .ctx = g},
				    {.name = "memcpy", .op = op_batch_memcpy, .ctx = g},
				    {.name = stream_name(), .op = op_batch_stream, .ctx = g}};
	struct perf_case page[] = {{.name = "copy_2d H2G", .op = op_2d, .ctx = g},
				   {.name = "memcpy a row", .op = op_2d_memcpy, .ctx = g}};

	g->walk = g->region;
	p->places = perf_places(BATCH_SPAN, g->walk);
	if (g->region >= BATCH_SPAN && perf_compare(p, "61 x 128 KiB + 61 x 16 KiB", BATCH_BYTES,
						    batch, stream_name() ? 3 : 2, NULL) != 0)
		return -1;
	g->bytes = 64 * 4096;
	p->places = perf_places(2 * g->bytes, g->walk);
	return perf_compare(p, "2-D, 64 rows of 4 KiB", g->bytes, page, 2, NULL);
}

/* args: URL, world, slot bytes */
int perf_bm_peer(struct child *c)
{
	smem_bm_t bm;
	struct msg m;

	if (join(c->argv[0], 2, 1, strtoull(c->argv[1], NULL, 10), &bm) != 0)
		return child_fail(c, "the other rank");
	child_send(c, MSG_DONE, NULL, 0);
	child_recv(c, &m);
	smem_uninit();
	return 0;
}

static int copies(struct perf *p, const char *url)
{
	struct rig g = {.region = p->rotate};
	struct procs others;
	char slot[24];
	int r = -1;

	g.region = (g.region + JOIN_SLOT - 1) / JOIN_SLOT * JOIN_SLOT;
	snprintf(slot, sizeof(slot), "%zu", g.region);
	if (procs_start(&others, "perf-bm", 1, (const char *const[]){url, slot, NULL}) != 0)
		return perf_fail(p, "starting a process");
	g.near = perf_memory(g.region, true);
	if (!g.near || join(url, 2, 0, g.region, &g.bm) != 0)
		perf_fail(p, "joining");
	else if (procs_gather(&others, MSG_DONE, ANSWER_MS, NULL, NULL) != 0)
		p->failed = true;
	else {
		g.far = smem_bm_ptr(g.bm, 1);
		perf_section(p, "Pool copies, private memory to the slot of another process");
		r = sizes(p, &g, true);
		if (r == 0)
			r = shapes(p, &g);
		if (r == 0) {
			perf_section(p, "The other way");
			r = sizes(p, &g, false);
		}
	}
	smem_bm_uninit(0);
	procs_stop(&others, 10000);
	if (g.near)
		munmap(g.near, g.region);
	return r;
}

/* What a rank of the join measurement tells. */
struct joined {
	double started; /* monotonic clock, as in all processes */
	double joined;
	uint64_t private_kib; /* more than before */
	uint64_t tables_kib;
};

static uint64_t status_kib(const char *file, const char *key)
{
	FILE *in = fopen(file, "re");
	uint64_t sum = 0;
	char line[256];

	while (in && fgets(line, sizeof(line), in)) {
		if (strncmp(line, key, strlen(key)) == 0)
			sum += strtoull(line + strcspn(line, "0123456789"), NULL, 10);
	}
	if (in)
		fclose(in);
	return sum;
}

static uint64_t private_kib(void)
{
	return status_kib("/proc/self/smaps_rollup", "Private_");
}

/* args: URL */
int perf_bm_join(struct child *c)
{
	struct joined j = {.started = now_s()};
	uint64_t before = private_kib(), tables = status_kib("/proc/self/status", "VmPTE");
	smem_bm_t bm;
	struct msg m;

	if (join(c->argv[0], (uint32_t)c->n, (uint32_t)c->rank, JOIN_SLOT, &bm) != 0)
		return child_fail(c, "joining");
	j.joined = now_s();
	child_send(c, MSG_DONE, &j, sizeof(j));
	if (child_expect(c, MSG_GO, &m) != 0)
		return 1;
	j.private_kib = private_kib() - before;
	j.tables_kib = status_kib("/proc/self/status", "VmPTE") - tables;
	child_send(c, MSG_DONE, &j, sizeof(j));
	child_recv(c, &m);
	smem_uninit();
	return 0;
}

struct join_sum {
	double last_started;
	double last_joined;
	uint64_t private_kib;
	uint64_t tables_kib;
};

static void sum_joined(void *ctx, size_t i, const struct msg *m)
{
	struct join_sum *s = ctx;
	struct joined j;

	(void)i;
	memcpy(&j, m->data, sizeof(j));
	s->last_started = j.started > s->last_started ? j.started : s->last_started;
	s->last_joined = j.joined > s->last_joined ? j.joined : s->last_joined;
	s->private_kib += j.private_kib;
	s->tables_kib += j.tables_kib;
}

static int joins(struct perf *p, const char *url, size_t n)
{
	struct join_sum sum = {0}, memory = {0};
	double start = now_s();
	struct procs g;
	char what[64];

	if (procs_start(&g, "perf-bm-join", n, (const char *const[]){url, NULL}) != 0)
		return perf_fail(p, "starting processes");
	int r = procs_gather(&g, MSG_DONE, ANSWER_MS, sum_joined, &sum);
	if (r == 0) {
		procs_send_all(&g, MSG_GO, NULL, 0);
		r = procs_gather(&g, MSG_DONE, ANSWER_MS, sum_joined, &memory);
	}
	double stop = now_s();
	procs_stop(&g, 20000);
	if (r != 0) {
		p->failed = true;
		return -1;
	}
	snprintf(what, sizeof(what), "%zu ranks: from the first exec to all joined", n);
	perf_value(p, what, (sum.last_joined - start) * 1e3, "ms");
	perf_value(p, "  from the last process's start to all joined",
		   (sum.last_joined - sum.last_started) * 1e3, "ms");
	perf_value(p, "  all gone again", (now_s() - stop) * 1e3, "ms");
	perf_value(p, "  private memory a rank, beside its slot",
		   (double)memory.private_kib / (double)n, "KiB");
	perf_value(p, "  page tables a rank", (double)memory.tables_kib / (double)n, "KiB");
	return 0;
}

int perf_bm(struct perf *p)
{
	static const size_t counts[] = {2, 8, 64};
	const char *threads = getenv("SMEM_COPY_THREADS");
	char url[300];

	if (p->store)
		snprintf(url, sizeof(url), "%s", p->store);
	else if (store_host_any(url, sizeof(url)) != SMEM_OK)
		return perf_fail(p, "hosting the store");
	perf_note(p, "%ld CPUs, SMEM_COPY_THREADS %s; the limits are one thread",
		  sysconf(_SC_NPROCESSORS_ONLN), threads ? threads : "at its default");
	if (copies(p, url) != 0)
		return -1;
	perf_section(p, "Joining, slots of 2 MiB");
	if (p->ranks)
		return joins(p, url, p->ranks);
	for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
		if (joins(p, url, counts[i]) != 0)
			return -1;
	}
	return 0;
}
