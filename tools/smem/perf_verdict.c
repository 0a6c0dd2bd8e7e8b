/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What `smem perf --hosts` found, as tables or JSON. A ratio is the median over the rounds of the
 * ratio within each round, so that a round in which the machine was slow for all says as much as
 * the others. The closing table sets each aim beside what was measured; missing one fails nothing.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "perf_hosts.h"

#define IDLE_NOISE 0.001 /* CPU seconds a second that count as none */

static double median(double *v, size_t n)
{
	struct perf_stat s;

	if (n == 0)
		return NAN;
	perf_stats(v, n, &s);
	return s.median;
}

enum field { TIME, CPU_WRITER, CPU_TARGET, CPU_BOTH };

static double field_of(const struct hosts_round *r, enum field f)
{
	switch (f) {
	case TIME:
		return r->median_s;
	case CPU_WRITER:
		return r->cpu_writer;
	case CPU_TARGET:
		return r->cpu_target;
	default:
		return r->cpu_writer + r->cpu_target;
	}
}

static double lane_median(const struct hosts_result *r, unsigned shape, int lane, enum field f)
{
	double v[HOSTS_ROUNDS];

	for (unsigned i = 0; i < r->rounds; i++)
		v[i] = field_of(&r->shape[shape].lane[lane].round[i], f);
	return median(v, r->rounds);
}

/* Of the best rounds. */
static double lane_best(const struct hosts_result *r, unsigned shape, int lane)
{
	double best = INFINITY;

	for (unsigned i = 0; i < r->rounds; i++)
		if (r->shape[shape].lane[lane].round[i].median_s < best)
			best = r->shape[shape].lane[lane].round[i].median_s;
	return best;
}

static double ratio_best(const struct hosts_result *r, unsigned shape)
{
	return r->have_raw ? lane_best(r, shape, LANE_RAW) / lane_best(r, shape, LANE_SMEM) : NAN;
}

/* Of smem's field by the raw one's, the other way round for times. */
static double ratio_raw(const struct hosts_result *r, unsigned shape, enum field f)
{
	double v[HOSTS_ROUNDS];

	for (unsigned i = 0; i < r->rounds && r->have_raw; i++) {
		const struct hosts_lane *l = r->shape[shape].lane;
		double own = field_of(&l[LANE_SMEM].round[i], f);
		double raw = field_of(&l[LANE_RAW].round[i], f);
		v[i] = f == TIME ? raw / own : own / raw;
	}
	return median(v, r->have_raw ? r->rounds : 0);
}

static double ratio_iperf(const struct hosts_result *r, unsigned shape)
{
	double v[HOSTS_ROUNDS];

	for (unsigned i = 0; i < r->iperf_rounds; i++)
		v[i] = (double)r->shape[shape].bytes / 1e9 /
		       r->shape[shape].lane[LANE_SMEM].round[i].median_s / r->iperf[0][i].gb_per_s;
	return median(v, r->iperf_rounds);
}

/* ---- the lanes ---- */

static void time_text(char *buf, size_t cap, double s)
{
	if (s < 1e-3)
		snprintf(buf, cap, "%.1f us", s * 1e6);
	else
		snprintf(buf, cap, "%.2f ms", s * 1e3);
}

static void lane_json(struct json *j, const struct hosts_result *r, unsigned shape, int lane)
{
	double s = lane_median(r, shape, lane, TIME);

	json_begin(j, NULL, '{');
	json_str(j, "name", lane_name[lane]);
	json_num(j, "median_s", s);
	json_num(j, "best_s", lane_best(r, shape, lane));
	json_num(j, "p99_s", r->shape[shape].lane[lane].p99_s);
	json_num(j, "gb_per_s", (double)r->shape[shape].bytes / s / 1e9);
	json_num(j, "cpu_writer_s_per_gb", lane_median(r, shape, lane, CPU_WRITER));
	json_num(j, "cpu_target_s_per_gb", lane_median(r, shape, lane, CPU_TARGET));
	json_end(j, '}');
}

static void shape_json(struct json *j, const struct hosts_result *r, unsigned shape)
{
	int lanes = hosts_lanes(r, shape);

	json_begin(j, NULL, '{');
	json_str(j, "shape", r->shape[shape].shape.name);
	json_int(j, "bytes", (int64_t)r->shape[shape].bytes);
	json_num(j, "ratio", ratio_raw(r, shape, TIME));
	json_num(j, "best_ratio", ratio_best(r, shape));
	json_num(j, "cpu_ratio", ratio_raw(r, shape, CPU_BOTH));
	json_begin(j, "cases", '[');
	for (int lane = 0; lane < lanes; lane++)
		lane_json(j, r, shape, lane);
	json_end(j, ']');
	json_end(j, '}');
}

static void shape_text(const struct hosts_result *r, unsigned shape)
{
	int lanes = hosts_lanes(r, shape);
	char med[32], p99[32];

	for (int lane = 0; lane < lanes; lane++) {
		double s = lane_median(r, shape, lane, TIME);
		time_text(med, sizeof(med), s);
		time_text(p99, sizeof(p99), r->shape[shape].lane[lane].p99_s);
		printf("  %-24s %-16s %10s %10s %7.2f  %7.3f %7.3f",
		       lane ? "" : r->shape[shape].shape.name, lane_name[lane], med, p99,
		       (double)r->shape[shape].bytes / s / 1e9,
		       lane_median(r, shape, lane, CPU_WRITER),
		       lane_median(r, shape, lane, CPU_TARGET));
		if (lane == LANE_SMEM && lanes > 1)
			printf("  %6.2f %6.2f %6.2f", ratio_raw(r, shape, TIME),
			       ratio_best(r, shape), ratio_raw(r, shape, CPU_BOTH));
		putchar('\n');
	}
}

static void tell_shapes(struct perf *p, const struct hosts_result *r, unsigned from, unsigned to,
			const char *title)
{
	if (p->json)
		perf_section(p, "%s", title);
	else
		printf("\n%s\n  %-24s %-16s %10s %10s %7s  %7s %7s  %6s %6s %6s\n", title, "", "",
		       "median", "p99", "GB/s", "CPU wr.", "target", "speed", "best", "CPU");
	for (unsigned s = from; s < to; s++) {
		if (p->json)
			shape_json(p->json, r, s);
		else
			shape_text(r, s);
	}
}

/* ---- the rivals ---- */

static void tell_rival(struct perf *p, const char *name, struct rival_figure *f, unsigned n)
{
	double rate[HOSTS_ROUNDS], late[HOSTS_ROUNDS], w[HOSTS_ROUNDS], t[HOSTS_ROUNDS];
	char text[32] = "";

	for (unsigned i = 0; i < n; i++) {
		rate[i] = f[i].gb_per_s;
		late[i] = f[i].latency_s;
		w[i] = f[i].cpu_writer;
		t[i] = f[i].cpu_target;
	}
	double gb = median(rate, n), s = median(late, n), cw = median(w, n), ct = median(t, n);
	if (p->json) {
		json_begin(p->json, NULL, '{');
		json_str(p->json, "rival", name);
		json_num(p->json, "gb_per_s", gb);
		json_num(p->json, "latency_s", s > 0 ? s : NAN);
		json_num(p->json, "cpu_writer_s_per_gb", cw > 0 ? cw : NAN);
		json_num(p->json, "cpu_target_s_per_gb", ct > 0 ? ct : NAN);
		json_end(p->json, '}');
		return;
	}
	if (s > 0)
		time_text(text, sizeof(text), s);
	printf("  %-41s %10s %10s %7.2f", name, text, "", gb);
	if (cw > 0)
		printf("  %7.3f %7.3f", cw, ct);
	putchar('\n');
}

static void tell_rivals(struct perf *p, struct hosts_result *r)
{
	if (p->json)
		perf_section(p, "Others");
	else
		printf("\nOthers, in the same rounds\n");
	if (r->iperf_rounds > 0) {
		tell_rival(p, "iperf3, 1 stream", r->iperf[0], r->iperf_rounds);
		tell_rival(p, "iperf3, 4 streams", r->iperf[1], r->iperf_rounds);
	}
	if (r->iperf_text[0])
		perf_note(p, "%s", r->iperf_text);
	for (unsigned t = 0; t < RIVAL_UCX_TESTS; t++) {
		if (r->ucx_rounds[t] > 0)
			tell_rival(p, rival_ucx[t].name, r->ucx[t], r->ucx_rounds[t]);
	}
	if (r->ucx_text[0])
		perf_note(p, "%s", r->ucx_text);
}

/* ---- aims ---- */

/* value NaN: it could not be measured. `most`: the limit is an upper one. */
static void aim(struct perf *p, const char *what, double value, bool most, double limit,
		const char *unit)
{
	bool known = !isnan(value), met = known && (most ? value <= limit : value >= limit);

	if (p->json) {
		json_begin(p->json, NULL, '{');
		json_str(p->json, "aim", what);
		json_str(p->json, "limit_is", most ? "most" : "least");
		json_num(p->json, "limit", limit);
		json_num(p->json, "value", value);
		json_str(p->json, "unit", unit);
		json_str(p->json, "verdict", !known ? "not measured" : met ? "met" : "missed");
		json_end(p->json, '}');
		return;
	}
	printf("  %-52s %s %5.*f  ", what, most ? "<=" : ">=", limit > 0 && limit < 0.01 ? 3 : 2,
	       limit);
	if (known)
		printf("%8.*f %-4s %s\n", limit > 0 && limit < 0.01 ? 4 : 3, value, unit,
		       met ? "met" : "missed");
	else
		printf("%8s %-4s not measured\n", "-", unit);
}

static double batch_by_one(const struct hosts_result *r)
{
	double v[HOSTS_ROUNDS];

	for (unsigned i = 0; i < r->rounds; i++)
		v[i] = r->shape[SHAPE_BATCH].lane[LANE_SMEM].round[i].median_s /
		       r->shape[SHAPE_ONE].lane[LANE_SMEM].round[i].median_s;
	return median(v, r->rounds);
}

static double beyond_raw_us(const struct hosts_result *r)
{
	double v[HOSTS_ROUNDS];

	for (unsigned i = 0; i < r->rounds && r->have_raw; i++)
		v[i] = (r->shape[SHAPE_4K].lane[LANE_SMEM].round[i].median_s -
			r->shape[SHAPE_4K].lane[LANE_RAW].round[i].median_s) *
		       1e6;
	return median(v, r->have_raw ? r->rounds : 0);
}

static void tell_aims(struct perf *p, const struct hosts_result *r)
{
	static const struct {
		unsigned shape;
		const char *name;
	} large[] = {{SHAPE_1M, "1 MiB"},
		     {SHAPE_16M, "16 MiB"},
		     {SHAPE_64M, "64 MiB"},
		     {SHAPE_BATCH, "batch"}};
	char text[96];

	if (p->json)
		perf_section(p, "Aims");
	else
		printf("\nAims\n");
	for (unsigned i = 0; i < 4; i++) {
		snprintf(text, sizeof(text), "%s, speed of raw libfabric", large[i].name);
		aim(p, text, ratio_raw(r, large[i].shape, TIME), false, 0.95, "x");
	}
	aim(p, "16 MiB, speed of one iperf3 stream", ratio_iperf(r, SHAPE_16M), false, 1, "x");
	aim(p, "64 MiB, speed of one iperf3 stream", ratio_iperf(r, SHAPE_64M), false, 1, "x");
	aim(p, "batch, time of one write of as many bytes", batch_by_one(r), true, 1.2, "x");
	aim(p, "4 KiB, time beyond raw libfabric", beyond_raw_us(r), true, 2, "us");
	for (unsigned i = 0; i < 4; i++) {
		snprintf(text, sizeof(text), "%s, CPU per GB of raw libfabric, both ends",
			 large[i].name);
		aim(p, text, ratio_raw(r, large[i].shape, CPU_BOTH), true, 1.1, "x");
	}
	aim(p, "idle CPU seconds a second, writer", r->idle_writer_s / r->idle_s, true, IDLE_NOISE,
	    "");
	aim(p, "idle CPU seconds a second, target", r->idle_target_s / r->idle_s, true, IDLE_NOISE,
	    "");
}

/* ---- all ---- */

static void tell_link(struct perf *p, const struct hosts_result *r)
{
	if (p->json) {
		json_begin(p->json, NULL, '{');
		json_begin(p->json, "link", '{');
		json_str(p->json, "writer", r->route.own);
		json_str(p->json, "target", r->route.peer);
		json_str(p->json, "interface", r->route.interface);
		json_int(p->json, "mtu", r->route.mtu);
		json_str(p->json, "provider", r->have_raw ? r->raw_text : "");
		json_int(p->json, "rounds", r->rounds);
		json_end(p->json, '}');
		json_end(p->json, '}');
	} else {
		printf("  %s to %s, MTU %d, libfabric's provider %s, %u rounds\n", r->route.own,
		       r->route.peer, r->route.mtu, r->have_raw ? r->raw_text : "not known",
		       r->rounds);
	}
	if (!r->have_raw)
		perf_note(p, "no raw libfabric to compare with: %s", r->raw_text);
}

void verdict_tell(struct perf *p, struct hosts_result *r)
{
	for (unsigned s = 0; s < HOSTS_SHAPES; s++) {
		for (int lane = 0; lane < LANES; lane++) {
			struct hosts_lane *l = &r->shape[s].lane[lane];
			struct perf_stat stat = {0};
			if (l->n > 0)
				perf_stats(l->samples, l->n, &stat);
			l->p99_s = stat.p99;
		}
	}
	tell_link(p, r);
	tell_shapes(p, r, 0, SHAPE_READS, "Writes");
	tell_shapes(p, r, SHAPE_READS, HOSTS_SHAPES, "Reads");
	tell_rivals(p, r);
	if (!p->json)
		printf("\nOther figures\n");
	else
		perf_section(p, "Other figures");
	perf_value(p, "first write, with finding and connecting", r->connect_s * 1e3, "ms");
	for (unsigned k = 0; k < PERF_SHM_KINDS && r->ranks; k++) {
		char what[96];
		snprintf(what, sizeof(what), "2 hosts x %u ranks: %s, median", r->ranks,
			 perf_shm_kind[k]);
		perf_value(p, what, r->collective[k].median * 1e6, "us");
		snprintf(what, sizeof(what), "  p99");
		perf_value(p, what, r->collective[k].p99 * 1e6, "us");
	}
	tell_aims(p, r);
	fflush(stdout);
}
