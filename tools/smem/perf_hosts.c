/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `smem perf --hosts`, rank 1: writes into the registered memory of rank 0, beside bare libfabric
 * with the same provider, the same memory and the same pieces, and beside iperf3 and UCX.
 *
 * All of them are measured in rounds, a block of each in every round, so that what else the
 * machines do hits all alike; figures are medians of the rounds, ratios medians of the ratios
 * within a round. A block is as many operations as fit into its time, each timed alone; the CPU
 * time of both processes is taken before and after it. What asking the target for its CPU time
 * costs there is measured too and taken off. While one lane is measured the others are idle: the
 * library's threads block, and bare libfabric's target thread, which spins, spins only during its
 * own blocks.
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "perf_hosts.h"
#include "perf_raw.h"
#include "smem.h"
#include "smem_trans.h"

#define LARGEST	  (64ull << 20)
#define OPS_MIN	  3u
#define OPS_MAX	  10000u
#define ASK_TRIES 15u
#define TRIES	  3u /* of a rival's run */

const char *const lane_name[LANES] = {"smem", "raw libfabric", "raw, 3 x 512 KiB"};

#define BLOCKS 122, 128 << 10, 16 << 10, true
static const struct hosts_shape shapes[HOSTS_SHAPES] = {
    [SHAPE_4K] = {.shape = {"4 KiB", 1, 4 << 10, 0, false}},
    [SHAPE_64K] = {.shape = {"64 KiB", 1, 64 << 10, 0, false}},
    [SHAPE_1M] = {.shape = {"1 MiB", 1, 1 << 20, 0, false}},
    [SHAPE_16M] = {.shape = {"16 MiB", 1, 16 << 20, 0, false}},
    [SHAPE_64M] = {.shape = {"64 MiB", 1, LARGEST, 0, false}},
    [SHAPE_ONE] = {.shape = {"8.99 MB, one write", 1, 61 * (144u << 10), 0, false}},
    [SHAPE_BATCH] = {.shape = {"61 x 128 + 61 x 16 KiB", BLOCKS}},
    [SHAPE_READS] = {.read = true, .shape = {"read 4 KiB", 1, 4 << 10, 0, false}},
    {.read = true, .shape = {"read 1 MiB", 1, 1 << 20, 0, false}},
    {.read = true, .shape = {"read 16 MiB", 1, 16 << 20, 0, false}},
    {.read = true, .shape = {"read 61x128 + 61x16 KiB", BLOCKS}},
};

struct rig {
	struct perf *p;
	struct hosts_result *r;
	struct channel channel;
	struct hello peer;
	smem_trans_t trans;
	struct raw *raw;
	char *near, *far;
	size_t region;
	struct perf_plan plan[HOSTS_SHAPES];
	size_t ops[HOSTS_SHAPES];	  /* of a block */
	size_t next[HOSTS_SHAPES][LANES]; /* running number */
	double ask_cpu_s;		  /* what one question costs the target */
	double block_s;
	size_t ops_min;	 /* in it, however long they take */
	double *scratch; /* OPS_MAX */
};

static int fail(struct rig *g, const char *what, const struct talk *a)
{
	if (a && a->failed)
		complain("%s: %s", what, a->data);
	else
		complain_smem(what);
	g->p->failed = true;
	return -1;
}

static int ask(struct rig *g, enum talk_what what, const struct talk *q, struct talk *ret)
{
	struct talk a;

	if (channel_ask(&g->channel, what, q, ret ? ret : &a) != 0)
		return fail(g, "the target", ret ? ret : &a);
	return 0;
}

/* ---- operations ---- */

static int move_smem(struct rig *g, size_t s, size_t k)
{
	const struct perf_plan *l = &g->plan[s];

	if (g->r->shape[s].read)
		return smem_trans_batch_read(g->trans, (void **)&l->src[k], HOSTS_TARGET_NAME,
					     (const void **)&l->dst[k], &l->len[k], (uint32_t)l->n,
					     0);
	if (l->n == 1)
		return smem_trans_write(g->trans, l->src[k], HOSTS_TARGET_NAME, l->dst[k],
					l->len[k]);
	return smem_trans_batch_write(g->trans, &l->src[k], HOSTS_TARGET_NAME, &l->dst[k],
				      &l->len[k], (uint32_t)l->n);
}

static int operation(struct rig *g, size_t s, int lane)
{
	const struct perf_plan *l = &g->plan[s];
	size_t k = perf_plan_first(l, g->next[s][lane]++);

	if (lane == LANE_SMEM)
		return move_smem(g, s, k) == SMEM_OK ? 0 : fail(g, shapes[s].shape.name, NULL);
	const struct raw_move move = {.read = g->r->shape[s].read,
				      .n = l->n,
				      .near = &l->src[k],
				      .far = &l->dst[k],
				      .len = &l->len[k],
				      .cut = lane == LANE_CUT ? HOSTS_CUT : 0,
				      .flight = lane == LANE_CUT ? HOSTS_FLIGHT : 0};
	if (raw_move(g->raw, &move) == 0)
		return 0;
	complain("%s, raw libfabric: %s", shapes[s].shape.name, raw_why());
	g->p->failed = true;
	return -1;
}

/* n operations of a lane, their times in g->scratch. */
static int operations(struct rig *g, size_t s, int lane, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		double start = now_s();
		if (operation(g, s, lane) != 0)
			return -1;
		g->scratch[i] = now_s() - start;
	}
	return 0;
}

/* ---- blocks and rounds ---- */

/* n operations between two looks at the target's CPU time. ret may be NULL. */
static int block(struct rig *g, size_t s, int lane, size_t n, struct hosts_round *ret)
{
	double gb = (double)g->plan[s].bytes * (double)n / 1e9, cpu;
	struct talk before, after;
	struct perf_stat stat;

	if (ask(g, lane != LANE_SMEM ? TALK_RAW_SPIN : TALK_CPU, NULL, &before) != 0)
		return -1;
	cpu = perf_cpu_s();
	int r = operations(g, s, lane, n);
	cpu = perf_cpu_s() - cpu;
	if (ask(g, lane != LANE_SMEM ? TALK_RAW_REST : TALK_CPU, NULL, &after) != 0 || r != 0)
		return -1;
	if (!ret)
		return 0;
	perf_stats(g->scratch, n, &stat);
	double target = after.cpu - before.cpu - g->ask_cpu_s;
	*ret = (struct hosts_round){.median_s = stat.median,
				    .cpu_writer = cpu / gb,
				    .cpu_target = target > 0 ? target / gb : 0};
	return 0;
}

static int keep(struct rig *g, struct hosts_lane *l, size_t n)
{
	double *more = realloc(l->samples, (l->n + n) * sizeof(double));

	if (!more)
		return perf_fail(g->p, "memory");
	memcpy(more + l->n, g->scratch, n * sizeof(double));
	l->samples = more;
	l->n += n;
	return 0;
}

int hosts_lanes(const struct hosts_result *r, unsigned shape)
{
	const struct perf_shape *s = &shapes[shape].shape;

	if (!r->have_raw)
		return LANE_RAW;
	return s->n == 1 && s->large > HOSTS_CUT ? LANES : LANE_CUT;
}

/* Connects, warms up, and finds how many operations are a block: as many for one lane as for the
 * other, so that they stay half a rotation apart and neither finds the other's data in a cache. */
static int calibrate(struct rig *g, size_t s)
{
	double slowest = 0;
	struct hosts_round r;

	for (int lane = 0; lane < hosts_lanes(g->r, (unsigned)s); lane++) {
		if (block(g, s, lane, g->ops_min, NULL) != 0 ||
		    block(g, s, lane, g->ops_min, &r) != 0)
			return -1;
		slowest = r.median_s > slowest ? r.median_s : slowest;
		g->next[s][lane] = (size_t)lane * g->plan[s].places / LANES;
	}
	double fit = g->block_s / slowest;
	g->ops[s] = fit > OPS_MAX ? OPS_MAX : fit < (double)g->ops_min ? g->ops_min : (size_t)fit;
	return 0;
}

static int measure_round(struct rig *g, unsigned round)
{
	for (size_t s = 0; s < HOSTS_SHAPES; s++) {
		int n = hosts_lanes(g->r, (unsigned)s);
		for (int i = 0; i < n; i++) { /* now this one first, now that one */
			int lane = round % 2 ? n - 1 - i : i;
			struct hosts_lane *l = &g->r->shape[s].lane[lane];
			if (block(g, s, lane, g->ops[s], &l->round[round]) != 0 ||
			    keep(g, l, g->ops[s]) != 0)
				return -1;
		}
	}
	return 0;
}

/* ---- rivals ---- */

static int iperf(struct rig *g, unsigned streams, struct rival_figure *ret)
{
	struct talk a;

	for (unsigned i = 0; i < TRIES; i++) {
		if (channel_ask(&g->channel, TALK_IPERF, NULL, &a) == 0 &&
		    rival_iperf(&g->r->route, (uint16_t)a.number[0], streams, ret) == 0)
			return 0;
	}
	return -1;
}

static void iperf_round(struct rig *g)
{
	struct hosts_result *r = g->r;
	unsigned n = r->iperf_rounds;

	if (r->iperf_text[0])
		return;
	if (iperf(g, 1, &r->iperf[0][n]) != 0 || iperf(g, 4, &r->iperf[1][n]) != 0)
		snprintf(r->iperf_text, sizeof(r->iperf_text), "iperf3 did not run to its end");
	else
		r->iperf_rounds++;
}

static void ucx_round(struct rig *g)
{
	struct hosts_result *r = g->r;
	unsigned n = g->p->quick ? 2 : RIVAL_UCX_TESTS;
	struct talk a;

	for (unsigned t = 0; t < n && !r->ucx_text[0]; t++) {
		const struct talk q = {.number = {rival_ucx[t].tuned}};
		bool done = false;
		for (unsigned i = 0; i < TRIES && !done; i++)
			done = channel_ask(&g->channel, TALK_UCX, &q, &a) == 0 &&
			       rival_ucx_run(&r->route, (uint16_t)a.number[0], &rival_ucx[t],
					     &r->ucx[t][r->ucx_rounds[t]]) == 0;
		if (done)
			r->ucx_rounds[t]++;
		else
			snprintf(r->ucx_text, sizeof(r->ucx_text), "%s did not run to its end",
				 rival_ucx[t].name);
	}
}

static void find_rivals(struct rig *g)
{
	struct hosts_result *r = g->r;

	if (!g->peer.iperf || !rival_installed("iperf3"))
		snprintf(r->iperf_text, sizeof(r->iperf_text),
			 "iperf3 is not installed (Debian: apt-get install iperf3)");
	if (!g->peer.ucx || !rival_installed("ucx_perftest"))
		snprintf(r->ucx_text, sizeof(r->ucx_text),
			 "ucx_perftest is not installed (Debian: apt-get install ucx-utils)");
}

/* ---- the parts ---- */

static int first_write(struct rig *g)
{
	double start = now_s();

	if (smem_trans_write(g->trans, g->near, HOSTS_TARGET_NAME, g->far, 4096) != SMEM_OK)
		return fail(g, "the first write", NULL);
	g->r->connect_s = now_s() - start;
	return 0;
}

static int idle(struct rig *g)
{
	struct hosts_result *r = g->r;
	struct talk before, after;

	if (ask(g, TALK_CPU, NULL, &before) != 0)
		return -1;
	double cpu = perf_cpu_s(), start = now_s();
	poll(NULL, 0, g->p->quick ? 300 : 3000);
	r->idle_writer_s = perf_cpu_s() - cpu;
	r->idle_s = now_s() - start;
	if (ask(g, TALK_CPU, NULL, &after) != 0)
		return -1;
	double target = after.cpu - before.cpu - g->ask_cpu_s;
	r->idle_target_s = target > 0 ? target : 0;
	return 0;
}

static int question_cost(struct rig *g)
{
	double cost[ASK_TRIES];
	struct talk before, after;
	struct perf_stat stat;

	for (unsigned i = 0; i < ASK_TRIES; i++) {
		if (ask(g, TALK_CPU, NULL, &before) != 0 || ask(g, TALK_CPU, NULL, &after) != 0)
			return -1;
		cost[i] = after.cpu - before.cpu;
	}
	perf_stats(cost, ASK_TRIES, &stat);
	g->ask_cpu_s = stat.median;
	return 0;
}

/* No libfabric to compare with is told, and not an error. */
static void open_raw(struct rig *g)
{
	struct hosts_result *r = g->r;
	struct raw_card card;
	struct talk a;

	if (channel_ask(&g->channel, TALK_RAW_OPEN, NULL, &a) != 0) {
		snprintf(r->raw_text, sizeof(r->raw_text), "%.250s", a.data);
		return;
	}
	memcpy(&card, a.data, sizeof(card));
	card.provider[sizeof(card.provider) - 1] = '\0';
	if (card.addr_len <= sizeof(card.addr))
		g->raw = raw_open(r->route.own, card.provider);
	r->have_raw = g->raw && raw_connect(g->raw, &card, g->near, g->region) == 0;
	snprintf(r->raw_text, sizeof(r->raw_text), "%s", r->have_raw ? card.provider : raw_why());
}

static int collectives(struct rig *g)
{
	struct hosts_result *r = g->r;
	unsigned n = g->p->ranks ? g->p->ranks : g->p->quick ? 2 : 4;
	struct perf_shm_host here = {.ranks = n, .world = 2 * n, .budget = g->p->quick ? 0.05 : 1};
	struct perf_shm_host there = here;
	struct talk url, q = {0}, a;
	struct procs procs;

	if (ask(g, TALK_RANKS_URL, NULL, &url) != 0)
		return -1;
	if (perf_shm_start(&procs, url.data, &here) != 0)
		return perf_fail(g->p, "starting ranks");
	there.first = n;
	memcpy(q.data, &there, sizeof(there));
	if (ask(g, TALK_RANKS, &q, &a) != 0) {
		procs_stop(&procs, 0);
		return -1;
	}
	if (perf_shm_collect(&procs, r->collective) != 0)
		return perf_fail(g->p, "ranks");
	r->ranks = n;
	return 0;
}

static int rounds(struct rig *g)
{
	bool people = isatty(STDERR_FILENO) && !g->p->json;
	unsigned n = g->p->quick ? 2 : 7;

	for (size_t s = 0; s < HOSTS_SHAPES; s++) {
		if (calibrate(g, s) != 0)
			return -1;
	}
	for (unsigned i = 0; i < n; i++) {
		if (people)
			fprintf(stderr, "\rround %u of %u ", i + 1, n);
		if (measure_round(g, i) != 0)
			return -1;
		g->r->rounds++;
		if (g->p->quick && i > 0)
			continue;
		iperf_round(g);
		ucx_round(g);
	}
	if (people)
		fputs("\r                \r", stderr);
	return 0;
}

static int plans(struct rig *g)
{
	g->scratch = calloc(OPS_MAX, sizeof(double));
	if (!g->scratch)
		return perf_fail(g->p, "memory");
	for (size_t s = 0; s < HOSTS_SHAPES; s++) {
		if (perf_plan_make(&g->plan[s], &g->r->shape[s].shape, g->near, g->far,
				   g->region) != 0)
			return perf_fail(g->p, "memory");
		g->r->shape[s].bytes = g->plan[s].bytes;
	}
	return 0;
}

/* Finds out who and where the other is; afterwards everything is ready to be measured. */
static int meet(struct rig *g)
{
	struct talk q = {.number = {g->region}}, a;
	smem_trans_config_t config;

	if (channel_open(&g->channel, g->p->store, HOSTS_WRITER) != 0) {
		g->p->failed = true;
		return -1;
	}
	if (g->channel.near)
		perf_note(g->p, "both ranks are on one host: these are no writes between hosts");
	if (ask(g, TALK_HELLO, &q, &a) != 0)
		return -1;
	memcpy(&g->peer, a.data, sizeof(g->peer));
	g->peer.address[sizeof(g->peer.address) - 1] = '\0';
	g->far = (char *)(uintptr_t)a.number[0];
	route_peer(&g->r->route, g->peer.address);
	g->near = perf_memory(g->region, false);
	if (!g->near)
		return perf_fail(g->p, "memory");
	smem_trans_config_init(&config);
	g->trans = smem_trans_create(g->p->store, HOSTS_WRITER_NAME, &config);
	if (!g->trans)
		return perf_fail(g->p, "the session");
	return plans(g);
}

static int measure_all(struct rig *g)
{
	if (meet(g) != 0 || question_cost(g) != 0 || first_write(g) != 0 || idle(g) != 0)
		return -1;
	open_raw(g);
	find_rivals(g);
	if (rounds(g) != 0 || collectives(g) != 0)
		return -1;
	return 0;
}

/* Lets the target go, too. */
static void part(struct rig *g)
{
	raw_close(g->raw);
	if (g->trans)
		smem_trans_destroy(g->trans, 0);
	if (g->channel.shm)
		channel_ask(&g->channel, TALK_QUIT, NULL, NULL);
	channel_close(&g->channel);
}

static void release(struct rig *g)
{
	for (size_t s = 0; s < HOSTS_SHAPES; s++) {
		perf_plan_free(&g->plan[s]);
		for (int lane = 0; lane < LANES; lane++)
			free(g->r->shape[s].lane[lane].samples);
	}
	free(g->scratch);
	if (g->near)
		munmap(g->near, g->region);
}

static int perf_hosts_writer(struct perf *p)
{
	struct hosts_result *result = calloc(1, sizeof(*result));
	struct rig *g = calloc(1, sizeof(*g));
	int r = -1;

	if (g && result) {
		*g = (struct rig){.p = p, .r = result, .block_s = p->quick ? 0.01 : 0.15};
		g->ops_min = p->quick ? 1 : OPS_MIN;
		g->region = p->rotate > LARGEST ? p->rotate : LARGEST;
		memcpy(result->shape, shapes, sizeof(shapes));
		if (route_own(&result->route, p->store) != 0) {
			complain("no route to %s", p->store);
			p->failed = true;
		} else {
			r = measure_all(g);
			part(g);
			if (r == 0)
				verdict_tell(p, result);
			release(g);
		}
	} else {
		perf_fail(p, "memory");
	}
	free(g);
	free(result);
	return r;
}

int perf_hosts(struct perf *p)
{
	return p->rank == HOSTS_TARGET ? perf_hosts_target(p) : perf_hosts_writer(p);
}
