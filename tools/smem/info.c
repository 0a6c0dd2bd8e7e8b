/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What this machine offers the library, what of it is switched off and how to switch it on, and the
 * settings in force. The machine is asked (/proc, /sys); what the library makes of it is tried: two
 * processes join a pool, and their log tells which path they took and why not another; the page
 * size of the pool's memory is the kernel's word (smaps).
 *
 * With --store it is about the fabric there: every process is asked once, and the answers make the
 * matrix of paths. With --rank too it is itself one of several, on several hosts, that meet for
 * this.
 */
#include <argp.h>
#include <inttypes.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "fabric.h"
#include "gen_tables.h"
#include "info.h"
#include "json.h"
#include "smem.h"
#include "stream.h"
#include "tool.h"

#define LABEL_WIDTH 22

/* Both ways of output; a NULL json is for people. */
struct out {
	struct json *json;
};

static void section(struct out *o, const char *key, const char *title, char bracket)
{
	if (o->json)
		json_begin(o->json, key, bracket);
	else
		printf("\n%s\n", title);
}

static void section_end(struct out *o, char bracket)
{
	if (o->json)
		json_end(o->json, bracket);
}

static void line(struct out *o, const char *key, const char *label, const char *value)
{
	if (o->json)
		json_str(o->json, key, value);
	else
		printf("  %-*s %s\n", LABEL_WIDTH, label, value);
}

/* What somebody may want to switch on; people only see it when there is something. */
static void advice(struct out *o, const char *key, const char *text)
{
	if (o->json)
		json_str(o->json, key, text);
	else
		printf("  %-*s   -> %s\n", LABEL_WIDTH, "", text);
}

static bool read_line(const char *path, char *buf, size_t cap)
{
	FILE *in = fopen(path, "re");
	bool ok = in && fgets(buf, (int)cap, in);

	if (in)
		fclose(in);
	if (ok)
		buf[strcspn(buf, "\n")] = '\0';
	return ok;
}

static uint64_t read_number(const char *path)
{
	char buf[64];

	return read_line(path, buf, sizeof(buf)) ? strtoull(buf, NULL, 10) : 0;
}

static void keyed(const char *path, const char *key, char *buf, size_t cap)
{
	FILE *in = fopen(path, "re");
	char text[512];

	snprintf(buf, cap, "unknown");
	while (in && fgets(text, sizeof(text), in)) {
		if (strncmp(text, key, strlen(key)) != 0)
			continue;
		const char *at = text + strcspn(text, ":") + 1;
		at += strspn(at, " \t");
		snprintf(buf, cap, "%.*s", (int)strcspn(at, "\n"), at);
		break;
	}
	if (in)
		fclose(in);
}

static int library_path(struct dl_phdr_info *info, size_t size, void *ret)
{
	(void)size;
	if (!strstr(info->dlpi_name, "libmf_smem.so"))
		return 0;
	snprintf(ret, 512, "%s", info->dlpi_name);
	return 1;
}

static void show_machine(struct out *o)
{
	char text[600], number[32], path[512] = "linked into the command";
	struct utsname u;

	section(o, "machine", "Machine", '{');
	dl_iterate_phdr(library_path, path);
	line(o, "library", "library", path);
	if (uname(&u) == 0) {
		snprintf(text, sizeof(text), "%s %s, %s", u.sysname, u.release, u.machine);
		line(o, "system", "system", text);
	}
	keyed("/proc/cpuinfo", "model name", path, sizeof(path));
	snprintf(text, sizeof(text), "%ld x %s", sysconf(_SC_NPROCESSORS_ONLN), path);
	line(o, "cpu", "CPU", text);
	line(o, "copies", "large copies", stream_name() ? stream_name() : "plain stores");
	keyed("/proc/meminfo", "MemAvailable", path, sizeof(path));
	size_text(number, sizeof(number), strtoull(path, NULL, 10) << 10);
	keyed("/proc/meminfo", "MemTotal", path, sizeof(path));
	snprintf(text, sizeof(text), "%s available of ", number);
	size_text(number, sizeof(number), strtoull(path, NULL, 10) << 10);
	strcat(text, number);
	line(o, "memory", "memory", text);
	section_end(o, '}');
}

static const char *chosen(const char *path, char *buf, size_t cap)
{
	char text[256], *from, *to;

	snprintf(buf, cap, "not in this kernel");
	if (read_line(path, text, sizeof(text)) && (from = strchr(text, '[')) &&
	    (to = strchr(from, ']')))
		snprintf(buf, cap, "%.*s", (int)(to - from - 1), from + 1);
	return buf;
}

static void show_pages(struct out *o, const struct probe *probe)
{
	static const char *const huge = "/sys/kernel/mm/hugepages/hugepages-2048kB/";
	char path[128], text[128];
	uint64_t total, left;

	section(o, "pages", "Pages of pool memory", '{');
	line(o, "pool", "a pool made now gets", probe->pages);
	snprintf(path, sizeof(path), "%snr_hugepages", huge);
	total = read_number(path);
	snprintf(path, sizeof(path), "%sfree_hugepages", huge);
	left = read_number(path);
	snprintf(text, sizeof(text), "%" PRIu64 " free of %" PRIu64, left, total);
	line(o, "hugetlb_2m", "hugetlb 2 MiB", text);
	if (left == 0)
		advice(o, "hugetlb_advice",
		       "to set 4 GiB aside, as root: sysctl vm.nr_hugepages=2048");
	chosen("/sys/kernel/mm/transparent_hugepage/shmem_enabled", text, sizeof(text));
	line(o, "shmem_thp", "transparent 2 MiB", text);
	if (strcmp(text, "never") == 0)
		advice(o, "shmem_thp_advice",
		       "as root: echo advise > /sys/kernel/mm/transparent_hugepage/shmem_enabled");
	section_end(o, '}');
}

static void show_private(struct out *o)
{
	char text[128], scope[16];
	bool known = read_line("/proc/sys/kernel/yama/ptrace_scope", scope, sizeof(scope));

	if (!known || scope[0] == '0') {
		line(o, "private_memory", "private memory",
		     "processes of one user may reach each other's (cma)");
		return;
	}
	snprintf(text, sizeof(text), "restricted: kernel.yama.ptrace_scope is %s", scope);
	line(o, "private_memory", "private memory", text);
	advice(o, "private_memory_advice",
	       "for transfers without a copy through the network, as root: sysctl "
	       "kernel.yama.ptrace_scope=0");
}

static void show_paths(struct out *o, const struct probe *probe)
{
	section(o, "paths", "Paths", '{');
	if (probe->error[0])
		line(o, "error", "could not be tried", probe->error);
	if (o->json)
		json_begin(o->json, "peers", '[');
	for (size_t i = 0; i < probe->n; i++) {
		const struct probe_peer *peer = &probe->peer[i];
		if (o->json) {
			json_begin(o->json, NULL, '{');
			json_int(o->json, "rank", peer->rank);
			json_str(o->json, "path", peer->path);
			json_str(o->json, "why_no_better", peer->why);
			json_end(o->json, '}');
			continue;
		}
		printf("  %-*s %s%s%s\n", LABEL_WIDTH, "two processes here", peer->path,
		       peer->why[0] ? "; not " : "", peer->why);
	}
	if (o->json)
		json_end(o->json, ']');
	if (o->json)
		json_begin(o->json, "not_available", '[');
	for (size_t i = 0; i < probe->missing_n; i++) {
		if (o->json)
			json_str(o->json, NULL, probe->missing[i]);
		else
			printf("  %-*s %s\n", LABEL_WIDTH, i ? "" : "not available",
			       probe->missing[i]);
	}
	if (o->json)
		json_end(o->json, ']');
	show_private(o);
	section_end(o, '}');
}

static const struct knob {
	const char *name;
	const char *def;
	int is_int;
	const char *help;
} knobs[] = {
#define KNOB(name, def, is_int, help) {name, def, is_int, help},
    KNOBS(KNOB)
#undef KNOB
};

static const struct limit {
	const char *name;
	int64_t value;
	const char *reason;
} limits[] = {
#define LIMIT(name, value, reason) {name, value, reason},
    LIMITS(LIMIT)
#undef LIMIT
};

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* Those of the interface itself; files and keys are named in docs/environment.md. */
static const char *const api_variables[] = {
    "SMEM_CONF_STORE_TLS_ENABLE", "SMEM_CONF_STORE_TLS_INFO", "ACCLINK_CHECK_PERIOD_HOURS",
    "ACCLINK_CERT_CHECK_AHEAD_DAYS", "ASCEND_HOME_PATH"};

static void show_knobs(struct out *o)
{
	section(o, "settings", "Settings (environment)", '[');
	for (size_t i = 0; i < COUNT(knobs); i++) {
		const struct knob *k = &knobs[i];
		const char *value = getenv(k->name);
		if (o->json) {
			json_begin(o->json, NULL, '{');
			json_str(o->json, "name", k->name);
			json_str(o->json, "value", value ? value : k->def);
			json_bool(o->json, "set", value != NULL);
			json_str(o->json, "default", k->def);
			json_str(o->json, "help", k->help);
			json_end(o->json, '}');
			continue;
		}
		printf("  %-*s %-8s %s%s\n", LABEL_WIDTH + 2, k->name,
		       value	 ? value
		       : *k->def ? k->def
				 : "-",
		       value ? "(set) " : "", k->help);
	}
	for (size_t i = 0; i < COUNT(api_variables); i++) {
		/* TLS parameters name files of keys: only whether they are set is told */
		bool set = getenv(api_variables[i]) != NULL;
		if (!o->json && set)
			printf("  %-*s (set)\n", LABEL_WIDTH + 2, api_variables[i]);
	}
	section_end(o, ']');
}

static void show_limits(struct out *o)
{
	section(o, "limits", "Limits", '[');
	for (size_t i = 0; i < COUNT(limits); i++) {
		const struct limit *l = &limits[i];
		if (o->json) {
			json_begin(o->json, NULL, '{');
			json_str(o->json, "name", l->name);
			json_int(o->json, "value", l->value);
			json_str(o->json, "reason", l->reason);
			json_end(o->json, '}');
			continue;
		}
		printf("  %-*s %-12" PRId64 " %s\n", LABEL_WIDTH + 2, l->name, l->value, l->reason);
	}
	section_end(o, ']');
}

enum { OPT_JSON = 256, OPT_RANK };

#define TIMEOUT_S     5
#define TIMEOUT_S_MAX 3600
#define RANKS_MAX     1024

static const struct argp_option options[] = {
    {"store", 's', "URL", 0, "show the fabric that runs at this config store", 0},
    {"timeout", 't', "SECONDS", 0,
     "with --store: how long to wait for the store, and then for answers (5)", 0},
    {"ranks", 'n', "N", 0, "with --store and --rank: meet N of these, and show the paths of those",
     0},
    {"rank", OPT_RANK, "R", 0, "which of the N this is", 0},
    {"json", OPT_JSON, NULL, 0, "for programs", 0},
    {0},
};

struct arguments {
	const char *store;
	unsigned ranks;
	int rank;
	unsigned timeout_s;
	bool json;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct arguments *a = state->input;
	char *end;

	switch (key) {
	case 's':
		a->store = arg;
		break;
	case 'n':
		a->ranks = (unsigned)strtoul(arg, &end, 10);
		if (*end || a->ranks < 1 || a->ranks > RANKS_MAX)
			argp_error(state, "--ranks wants 1 to %d, not '%s'", RANKS_MAX, arg);
		break;
	case OPT_RANK:
		a->rank = (int)strtol(arg, &end, 10);
		if (*end || a->rank < 0)
			argp_error(state, "--rank wants a number, not '%s'", arg);
		break;
	case 't':
		a->timeout_s = (unsigned)strtoul(arg, &end, 10);
		if (*end || a->timeout_s < 1 || a->timeout_s > TIMEOUT_S_MAX)
			argp_error(state, "--timeout wants 1 to %d seconds, not '%s'",
				   TIMEOUT_S_MAX, arg);
		break;
	case OPT_JSON:
		a->json = true;
		break;
	case ARGP_KEY_ARG:
		argp_error(state, "'%s' is one word too many", arg);
		break;
	case ARGP_KEY_END:
		if ((a->rank >= 0 || a->ranks) && (!a->store || a->rank < 0 || !a->ranks))
			argp_error(state, "--rank and --ranks go together, and with --store");
		if (a->rank >= 0 && (unsigned)a->rank >= a->ranks)
			argp_error(state, "--rank is below --ranks");
		if (a->timeout_s && !a->store)
			argp_error(state, "--timeout goes with --store");
		if (!a->timeout_s)
			a->timeout_s = TIMEOUT_S;
		break;
	default:
		return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

static const struct argp argp = {
    .options = options,
    .parser = parse,
    .doc =
	"Show what this machine offers, what a user may want to switch on, the path between two "
	"processes here (they are started to try it), and the settings and limits.\v"
	"With --store: the fabric that runs at a config store, from any machine that reaches it. "
	"Who is in which pool, object or session, the path from each to each, and why no better "
	"one was taken. Stores with TLS need the same environment as every process there.\n"
	"With --ranks and --rank the same before anything runs: start it on each host, smem info "
	"--store URL --ranks 3 --rank 0, and so on; each shows the paths between all of them.",
};

/* One after the other, so that nobody's asking is part of what another one finds. */
static void survey_in_turn(const struct arguments *a, struct fabric *f, char *error, size_t cap)
{
	smem_shm_t met = probe_meet(a->store, a->ranks, (unsigned)a->rank, error, cap);

	for (unsigned turn = 0; met && turn < a->ranks; turn++) {
		if (turn == (unsigned)a->rank)
			fabric_survey(a->store, a->timeout_s, f, error, cap);
		if (!probe_turn(met, error, cap))
			break;
	}
	probe_part(met);
}

/* The fabric at a store; with --rank as one that is there itself. */
static int show_fabric(const struct arguments *a)
{
	struct json json = {.out = stdout};
	struct fabric f = {.processes = 0};
	char error[800] = "";

	if (a->rank >= 0)
		survey_in_turn(a, &f, error, sizeof(error));
	else
		fabric_survey(a->store, a->timeout_s, &f, error, sizeof(error));
	if (a->json) {
		json_begin(&json, NULL, '{');
		json_str(&json, "version", SMEM_VERSION);
		if (error[0])
			json_str(&json, "error", error);
		else
			fabric_json(&json, &f, a->store);
		json_end(&json, '}');
	} else if (!error[0]) {
		fabric_show(&f, a->store, a->timeout_s);
	}
	if (error[0])
		complain("%s", error);
	bool all = !error[0] && f.silent == 0 && f.unable == 0;
	fabric_free(&f);
	return all ? EXIT_SUCCESS : EXIT_FAILURE;
}

int cmd_info(int argc, char **argv)
{
	struct arguments a = {.rank = -1};
	struct json json = {.out = stdout};
	struct probe probe;
	struct out o = {0};

	argv[0] = (char[]){"smem info"};
	if (argp_parse(&argp, argc, argv, 0, NULL, &a) != 0)
		return EXIT_USAGE;
	if (a.store)
		return show_fabric(&a);
	probe_here(&probe);
	if (a.json) {
		o.json = &json;
		json_begin(&json, NULL, '{');
		json_str(&json, "version", SMEM_VERSION);
	} else {
		printf("smem %s\n", SMEM_VERSION);
	}
	show_machine(&o);
	show_pages(&o, &probe);
	show_paths(&o, &probe);
	show_knobs(&o);
	show_limits(&o);
	if (a.json)
		json_end(&json, '}');
	smem_uninit();
	return probe.error[0] ? EXIT_FAILURE : EXIT_SUCCESS;
}
