/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a measurement is made: each case is run for a while to warm it and to learn how long an
 * operation takes; from that follows how many operations make one round (20 us at least, so that
 * reading the clock costs nothing) and how many rounds there are. Rounds of the cases take turns,
 * all of equally many operations, so that they keep their distances in the rotation. A round is one
 * sample: its time by its operations. Medians are compared, never means.
 */
#include "perf.h"

#include <argp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "perf_hosts.h"
#include "smem.h"

#define ROUND_S	   20e-6
#define CASE_S	   1.0 /* of each case in all */
#define ROUNDS_MIN 11u
#define ROUNDS_MAX 4000u
#define CASES_MAX  6u
#define ROTATE_MIN (256ull << 20)
#define RANKS_MAX  1024u
#define MTU_MIN	   576u
#define MTU_MAX	   65535u
#define MTU_USUAL  1500u

struct lane { /* a case while it is measured */
	const struct perf_case *c;
	size_t next; /* running number of the next operation */
	size_t ops;  /* of a round */
	double *samples;
	double cpu;
};

double perf_cpu_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int round_of(struct lane *l, size_t ops, double *ret_s)
{
	double start = now_s();

	for (size_t i = 0; i < ops; i++) {
		if (l->c->op(l->c->ctx, l->next++) != 0)
			return -1;
	}
	*ret_s = now_s() - start;
	return 0;
}

/* Warms the case up and finds how many operations are one round. */
static int calibrate(struct lane *l, double budget, double *ret_op_s)
{
	double spent = 0, s = 0;
	size_t ops = 1;

	for (;;) {
		if (round_of(l, ops, &s) != 0)
			return -1;
		spent += s;
		if ((s >= ROUND_S && spent >= budget / 10) || spent >= budget)
			break;
		if (s < ROUND_S)
			ops *= 2;
	}
	l->ops = ops;
	*ret_op_s = s / (double)ops;
	return 0;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

void perf_stats(double *samples, size_t n, struct perf_stat *ret)
{
	qsort(samples, n, sizeof(*samples), by_value);
	ret->median = n % 2 ? samples[n / 2] : (samples[n / 2 - 1] + samples[n / 2]) / 2;
	ret->p99 = samples[(n * 99 + 99) / 100 - 1];
	ret->min = samples[0];
	ret->ops = n;
}

static int measure(struct lane *lanes, size_t n, size_t places, double budget,
		   struct perf_stat *ret)
{
	double slowest = 0, s = 0;
	size_t rounds, ops = 1;

	for (size_t c = 0; c < n; c++) {
		double op_s;
		if (calibrate(&lanes[c], budget, &op_s) != 0)
			return (int)c + 1;
		slowest = op_s > slowest ? op_s : slowest;
		ops = lanes[c].ops > ops ? lanes[c].ops : ops;
	}
	s = budget / (slowest * (double)ops);
	rounds = s > ROUNDS_MAX ? ROUNDS_MAX : s < ROUNDS_MIN ? ROUNDS_MIN : (size_t)s;
	for (size_t c = 0; c < n; c++) {
		lanes[c].ops = ops;
		lanes[c].next = c * places / n;
		lanes[c].samples = calloc(rounds, sizeof(double));
		if (!lanes[c].samples)
			return (int)c + 1;
	}
	for (size_t r = 0; r < rounds; r++) {
		for (size_t c = 0; c < n; c++) {
			double cpu = perf_cpu_s();
			if (round_of(&lanes[c], lanes[c].ops, &s) != 0)
				return (int)c + 1;
			lanes[c].cpu += perf_cpu_s() - cpu;
			lanes[c].samples[r] = s / (double)lanes[c].ops;
		}
	}
	for (size_t c = 0; c < n; c++) {
		perf_stats(lanes[c].samples, rounds, &ret[c]);
		ret[c].ops = rounds * lanes[c].ops;
		ret[c].cpu = lanes[c].cpu / (double)ret[c].ops;
	}
	return 0;
}

int perf_compare(struct perf *p, const char *shape, uint64_t bytes, const struct perf_case *cases,
		 size_t n, struct perf_stat *ret)
{
	struct lane lanes[CASES_MAX] = {0};
	struct perf_stat stats[CASES_MAX];
	const char *names[CASES_MAX];
	int bad;

	if (n > CASES_MAX)
		n = CASES_MAX;
	for (size_t i = 0; i < n; i++) {
		lanes[i].c = &cases[i];
		names[i] = cases[i].name;
	}
	bad = measure(lanes, n, p->places, p->quick ? CASE_S / 10 : CASE_S, stats);
	for (size_t i = 0; i < n; i++)
		free(lanes[i].samples);
	if (bad) {
		char what[128];
		snprintf(what, sizeof(what), "%s, %s", shape, names[bad - 1]);
		return perf_fail(p, what);
	}
	perf_row(p, shape, bytes, names, stats, n);
	if (ret)
		memcpy(ret, stats, n * sizeof(*stats));
	return 0;
}

static char *time_text(char *buf, size_t cap, double s)
{
	if (s < 1e-6)
		snprintf(buf, cap, "%.1f ns", s * 1e9);
	else if (s < 1e-3)
		snprintf(buf, cap, "%.2f us", s * 1e6);
	else if (s < 1)
		snprintf(buf, cap, "%.2f ms", s * 1e3);
	else
		snprintf(buf, cap, "%.2f s", s);
	return buf;
}

static void row_json(struct perf *p, const char *shape, uint64_t bytes, const char *const names[],
		     const struct perf_stat *stats, size_t n, double ratio)
{
	json_begin(p->json, NULL, '{');
	json_str(p->json, "shape", shape);
	json_int(p->json, "bytes", (int64_t)bytes);
	json_num(p->json, "ratio", ratio);
	json_begin(p->json, "cases", '[');
	for (size_t i = 0; i < n; i++) {
		json_begin(p->json, NULL, '{');
		json_str(p->json, "name", names[i]);
		json_num(p->json, "median_s", stats[i].median);
		json_num(p->json, "p99_s", stats[i].p99);
		json_num(p->json, "min_s", stats[i].min);
		json_num(p->json, "cpu_s", stats[i].cpu);
		if (bytes)
			json_num(p->json, "gb_per_s", (double)bytes / stats[i].median / 1e9);
		json_end(p->json, '}');
	}
	json_end(p->json, ']');
	json_end(p->json, '}');
}

void perf_row(struct perf *p, const char *shape, uint64_t bytes, const char *const names[],
	      const struct perf_stat *stats, size_t n)
{
	char median[32], p99[32], rate[32] = "";
	double best = 0;

	for (size_t i = 1; i < n; i++) {
		if (best == 0 || stats[i].median < best)
			best = stats[i].median;
	}
	if (p->json) {
		row_json(p, shape, bytes, names, stats, n, best / stats[0].median);
		return;
	}
	for (size_t i = 0; i < n; i++) {
		if (bytes >= 1024)
			snprintf(rate, sizeof(rate), "%.2f", (double)bytes / stats[i].median / 1e9);
		printf("  %-24s %-26s %10s %10s %8s", i ? "" : shape, names[i],
		       time_text(median, sizeof(median), stats[i].median),
		       time_text(p99, sizeof(p99), stats[i].p99), rate);
		if (i == 0 && n > 1)
			printf("  %5.2f", best / stats[0].median);
		putchar('\n');
	}
	fflush(stdout);
}

void perf_value(struct perf *p, const char *what, double value, const char *unit)
{
	if (p->json) {
		json_begin(p->json, NULL, '{');
		json_str(p->json, "what", what);
		json_num(p->json, "value", value);
		json_str(p->json, "unit", unit);
		json_end(p->json, '}');
		return;
	}
	printf("  %-51s %10.*f %s\n", what, value < 100 ? 2 : 0, value, unit);
	fflush(stdout);
}

void perf_note(struct perf *p, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (p->json) {
		json_begin(p->json, NULL, '{');
		json_str(p->json, "note", text);
		json_end(p->json, '}');
	} else {
		printf("  %s\n", text);
		fflush(stdout);
	}
}

void perf_section(struct perf *p, const char *fmt, ...)
{
	char text[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (p->json) {
		json_begin(p->json, NULL, '{');
		json_str(p->json, "section", text);
		json_end(p->json, '}');
		return;
	}
	printf("\n%s\n  %-24s %-26s %10s %10s %8s  %s\n", text, "", "", "median", "p99", "GB/s",
	       "ratio");
	fflush(stdout);
}

int perf_fail(struct perf *p, const char *what)
{
	complain_smem(what);
	p->failed = true;
	return -1;
}

void *perf_memory(size_t bytes, bool huge)
{
	void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (at == MAP_FAILED)
		return NULL;
	madvise(at, bytes, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	memset(at, 1, bytes);
	return at;
}

static int perf_python(struct perf *p);

static const struct topic {
	const char *name;
	int (*run)(struct perf *p);
} topics[] = {
    {"bm", perf_bm},   {"hosts", perf_hosts}, {"python", perf_python},
    {"shm", perf_shm}, {"store", perf_store}, {"trans", perf_trans},
};

#define TOPICS (sizeof(topics) / sizeof(topics[0]))

/* The Python package measures itself. */
static int perf_python(struct perf *p)
{
	const char *python = getenv("PYTHON");
	char *argv[] = {(char[]){"python3"}, (char[]){"-m"}, (char[]){"mf_smem.perf"},
			p->json ? (char[]){"--json"} : NULL, NULL};

	fflush(stdout);
	execvp(python ? python : "python3", argv);
	complain("python3 -m mf_smem.perf: %m");
	p->failed = true;
	return -1;
}

enum { OPT_QUICK = 256, OPT_ROTATE, OPT_STORE, OPT_JSON, OPT_HOSTS, OPT_MTU, OPT_RANK };

static const struct argp_option options[] = {
    {"ranks", 'n', "N", 0, "as many processes (each topic has its own default)", 0},
    {"rotate", OPT_ROTATE, "SIZE", 0, "walk over so many bytes (default 256M)", 0},
    {"quick", OPT_QUICK, NULL, 0, "a tenth of the time: a look, not a measurement", 0},
    {"store", OPT_STORE, "URL", 0, "use this config store instead of one of its own", 0},
    {"json", OPT_JSON, NULL, 0, "for programs", 0},
    {"hosts", OPT_HOSTS, NULL, 0,
     "writes between two hosts: network namespaces made here (as root), or with --store and --rank "
     "this machine and another",
     1},
    {"mtu", OPT_MTU, "N", 0, "of the link between the namespaces (default 1500)", 1},
    {"rank", OPT_RANK, "0|1", 0, "this side: 0 is written to, 1 writes and tells", 1},
    {0},
};

struct arguments {
	struct perf perf;
	const struct topic *topic;
	bool json;
	bool rank; /* was given */
	unsigned mtu;
};

static void parse_topic(struct argp_state *state, struct arguments *a, const char *arg)
{
	for (size_t i = 0; i < TOPICS; i++) {
		if (strcmp(topics[i].name, arg) == 0)
			a->topic = &topics[i];
	}
	if (!a->topic)
		argp_error(state, "nothing to measure is called '%s'", arg);
}

static void parse_rank(struct argp_state *state, struct arguments *a, const char *arg)
{
	if (strcmp(arg, "0") != 0 && strcmp(arg, "1") != 0)
		argp_error(state, "--rank wants 0 or 1, not '%s'", arg);
	a->rank = true;
	a->perf.rank = *arg == '1';
}

static void parse_mtu(struct argp_state *state, struct arguments *a, const char *arg)
{
	char *end;
	unsigned long mtu = strtoul(arg, &end, 10);

	if (*end || mtu < MTU_MIN || mtu > MTU_MAX)
		argp_error(state, "--mtu wants %u to %u, not '%s'", MTU_MIN, MTU_MAX, arg);
	a->mtu = (unsigned)mtu;
}

static void parse_end(struct argp_state *state, const struct arguments *a)
{
	bool hosts = a->topic && a->topic->run == perf_hosts;

	if (!a->topic)
		argp_error(state, "what is to be measured?");
	if (!hosts && (a->mtu || a->rank))
		argp_error(state, "--mtu and --rank go with --hosts");
	if (hosts && a->rank != (a->perf.store != NULL))
		argp_error(state, "between two machines --hosts wants --store and --rank");
	if (hosts && a->mtu && a->rank)
		argp_error(state, "--mtu is for namespaces; that of a machine is set by its owner");
	if (hosts && a->perf.ranks > RANKS_MAX / 2)
		argp_error(state, "--ranks wants at most %u a host", RANKS_MAX / 2);
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct arguments *a = state->input;
	uint64_t bytes;

	switch (key) {
	case 'n':
		a->perf.ranks = (unsigned)strtoul(arg, NULL, 10);
		if (a->perf.ranks < 1 || a->perf.ranks > RANKS_MAX)
			argp_error(state, "--ranks wants 1 to %u, not '%s'", RANKS_MAX, arg);
		break;
	case OPT_ROTATE:
		bytes = parse_size(arg);
		if (bytes == UINT64_MAX || bytes < 1 << 20)
			argp_error(state, "--rotate wants a size of at least 1M, not '%s'", arg);
		a->perf.rotate = bytes;
		break;
	case OPT_QUICK:
		a->perf.quick = true;
		break;
	case OPT_STORE:
		a->perf.store = arg;
		break;
	case OPT_JSON:
		a->json = true;
		break;
	case OPT_HOSTS:
		if (a->topic)
			argp_error(state, "one topic at a time");
		parse_topic(state, a, "hosts");
		break;
	case OPT_MTU:
		parse_mtu(state, a, arg);
		break;
	case OPT_RANK:
		parse_rank(state, a, arg);
		break;
	case ARGP_KEY_ARG:
		if (a->topic)
			argp_error(state, "one topic at a time");
		parse_topic(state, a, arg);
		break;
	case ARGP_KEY_END:
		parse_end(state, a);
		break;
	default:
		return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

static const struct argp argp = {
    .options = options,
    .parser = parse,
    .args_doc = "bm|shm|trans|store|python\n--hosts",
    .doc =
	"Measure the library beside the limits of this machine, in the same run.\v"
	"GB/s are 1e9 bytes a second. The ratio is the time of the best limit by the time of the "
	"product: 1 is as fast as the limit, more is faster. Medians; p99 is the round that 99 of "
	"100 rounds were faster than.",
};

/* The same options for both ranks. */
static int in_namespaces(const struct arguments *a)
{
	char rotate[48], ranks[32], quick[] = "--quick", json[] = "--json", *words[5];
	size_t n = 0;

	snprintf(rotate, sizeof(rotate), "--rotate=%zu", a->perf.rotate);
	words[n++] = rotate;
	snprintf(ranks, sizeof(ranks), "--ranks=%u", a->perf.ranks);
	if (a->perf.ranks)
		words[n++] = ranks;
	if (a->perf.quick)
		words[n++] = quick;
	if (a->json)
		words[n++] = json;
	words[n] = NULL;
	return perf_netns(words, a->mtu ? a->mtu : MTU_USUAL);
}

int cmd_perf(int argc, char **argv)
{
	struct arguments a = {.perf = {.rotate = ROTATE_MIN}};
	struct json json = {.out = stdout};

	argv[0] = (char[]){"smem perf"};
	if (argp_parse(&argp, argc, argv, 0, NULL, &a) != 0)
		return EXIT_USAGE;
	a.perf.topic = a.topic->name;
	if (a.topic->run == perf_hosts && !a.perf.store)
		return in_namespaces(&a);
	if (a.json && a.topic->run != perf_python) {
		a.perf.json = &json;
		json_begin(&json, NULL, '{');
		json_str(&json, "topic", a.topic->name);
		json_str(&json, "version", SMEM_VERSION);
		json_int(&json, "cpus", sysconf(_SC_NPROCESSORS_ONLN));
		json_int(&json, "rotate", (int64_t)a.perf.rotate);
		json_begin(&json, "rows", '[');
	}
	a.topic->run(&a.perf);
	if (a.perf.json) {
		json_end(&json, ']');
		json_bool(&json, "ok", !a.perf.failed);
		json_end(&json, '}');
	}
	smem_uninit();
	return a.perf.failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
