/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The demo's parent: it hosts the store, starts the ranks, leads them through the rounds and tells
 * what came of it. It moves no data itself and joins no pool. Whatever goes wrong in a rank - an
 * error, a death, silence - ends the demo with what is known about it and exit status 1.
 */
#include <argp.h>
#include <inttypes.h>
#include <langinfo.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "demo.h"
#include "json.h"
#include "smem.h"
#include "tool.h"

#define RANKS_DEFAULT 4u
#define RANKS_MAX     64u
#define DATA_DEFAULT  (64ull << 20)
#define SILENCE_MS    120000
#define BAR_WIDTH     32
#define BAR_STEP_S    0.05

struct tally { /* of a rank */
	struct demo_joined joined;
	struct demo_written written; /* of the round; the sums are below */
	uint64_t bytes;
	double put_s;
	double memcpy_s;
	uint64_t get_bytes;
	double get_s;
	unsigned copies;
	unsigned loads;
	unsigned bad;
	pid_t pid;
};

struct demo {
	/* options */
	unsigned ranks;
	const char *file;
	const char *store;
	bool json;
	/* what runs */
	struct data data;
	struct procs procs;
	struct tally *tally;
	char url[300];
	uint64_t share;
	/* progress */
	bool bar;
	bool utf8;
	uint64_t moved;
	uint64_t to_move;
	double bar_at;
	double start;
};

static void bar_draw(struct demo *d, const char *what)
{
	double part = d->to_move ? (double)d->moved / (double)d->to_move : 1;
	double now = now_s();
	int full;

	if (!d->bar || (now - d->bar_at < BAR_STEP_S && d->moved < d->to_move))
		return;
	d->bar_at = now;
	full = (int)((part > 1 ? 1 : part) * BAR_WIDTH);
	fprintf(stderr, "\r  %-9s ", what);
	for (int i = 0; i < BAR_WIDTH; i++)
		fputs(d->utf8 ? (i < full ? "█" : "░") : (i < full ? "#" : "."), stderr);
	fprintf(stderr, " %3.0f %%  %5.1f s", 100 * (part > 1 ? 1 : part), now - d->start);
	fputs("\x1b[K", stderr);
	fflush(stderr);
}

static void bar_clear(struct demo *d)
{
	if (d->bar)
		fputs("\r\x1b[K", stderr);
	fflush(stderr);
}

/* One answer of `type` from rank `only`, or from all (SIZE_MAX). */
static int answers(struct demo *d, uint32_t type, size_t only, const char *what,
		   void (*take)(struct tally *t, const struct msg *m))
{
	size_t want = only == SIZE_MAX ? d->procs.n : 1, i;
	struct msg m;

	while (want > 0) {
		int r = procs_recv(&d->procs, &i, &m, SILENCE_MS);
		if (r == 1 && m.type == MSG_PROGRESS) {
			uint64_t more;
			memcpy(&more, m.data, sizeof(more));
			d->moved += more;
			bar_draw(d, what);
			continue;
		}
		if (r == 1 && m.type == type) {
			take(&d->tally[i], &m);
			want--;
			continue;
		}
		bar_clear(d);
		if (r == 1)
			procs_complain(&d->procs, i, &m);
		else
			complain("no word from the ranks for %d s while %s", SILENCE_MS / 1000,
				 what);
		return -1;
	}
	return 0;
}

static void take_joined(struct tally *t, const struct msg *m)
{
	memcpy(&t->joined, m->data, sizeof(t->joined));
}

static void take_written(struct tally *t, const struct msg *m)
{
	memcpy(&t->written, m->data, sizeof(t->written));
	t->bytes += t->written.bytes;
	if (t->written.bytes > 0) {
		t->put_s += t->written.put_s;
		t->memcpy_s += t->written.memcpy_s;
	}
}

static struct demo_checked take_checked(struct tally *t, const struct msg *m)
{
	struct demo_checked c;

	memcpy(&c, m->data, sizeof(c));
	t->bad += c.bad;
	if (c.bad > 0)
		complain("%u of %u shares read back have another SHA-256, the first is rank %u's",
			 c.bad, c.shares, c.first_bad);
	return c;
}

static void take_copied(struct tally *t, const struct msg *m)
{
	struct demo_checked c = take_checked(t, m);

	t->copies += c.shares;
	t->get_bytes += c.bytes;
	t->get_s += c.get_s;
}

static void take_loaded(struct tally *t, const struct msg *m)
{
	t->loads += take_checked(t, m).shares;
}

/* One rank at a time where the clock matters. */
static int in_turn(struct demo *d, uint32_t order, const void *data, size_t len, uint32_t answer,
		   const char *what, void (*take)(struct tally *t, const struct msg *m))
{
	for (size_t i = 0; i < d->procs.n; i++) {
		/* a rank that is gone is told of by answers() */
		procs_send(&d->procs, i, order, data, len);
		if (answers(d, answer, i, what, take) != 0)
			return -1;
	}
	return 0;
}

static int one_round(struct demo *d, uint64_t offset, uint64_t len)
{
	struct demo_round round = {
	    .offset = offset, .len = len, .share = demo_share_bytes(len, d->ranks)};

	if (in_turn(d, MSG_ROUND, &round, sizeof(round), MSG_WRITTEN, "writing", take_written) != 0)
		return -1;
	for (size_t i = 0; i < d->procs.n; i++) {
		struct demo_digest digest = {.rank = (uint32_t)i};
		memcpy(digest.digest, d->tally[i].written.digest, DEMO_DIGEST);
		procs_send_all(&d->procs, MSG_DIGEST, &digest, sizeof(digest));
	}
	if (in_turn(d, MSG_COPY, NULL, 0, MSG_CHECKED, "reading", take_copied) != 0)
		return -1;
	procs_send_all(&d->procs, MSG_LOAD, NULL, 0);
	return answers(d, MSG_CHECKED, SIZE_MAX, "checking", take_loaded);
}

static int start_ranks(struct demo *d)
{
	char id[16], share[24], list[64];
	int fd = data_save(&d->data), r;

	if (fd < 0) {
		complain("the list of files: %m");
		return -1;
	}
	snprintf(id, sizeof(id), "%u", (unsigned)getpid());
	snprintf(share, sizeof(share), "%" PRIu64, d->share);
	snprintf(list, sizeof(list), "/proc/%d/fd/%d", (int)getpid(), fd);
	r = procs_start(&d->procs, "demo", d->ranks,
			(const char *const[]){d->url, id, share, list, NULL});
	if (r != 0) {
		complain("starting %u processes: %m", d->ranks);
	} else {
		for (size_t i = 0; i < d->ranks; i++)
			d->tally[i].pid = d->procs.proc[i].pid;
		procs_send_all(&d->procs, MSG_JOIN, NULL, 0);
		r = answers(d, MSG_JOINED, SIZE_MAX, "joining", take_joined);
	}
	close(fd);
	if (r == 0) {
		procs_send_all(&d->procs, MSG_GO, NULL, 0);
		r = answers(d, MSG_JOINED, SIZE_MAX, "joining", take_joined);
	}
	return r;
}

static int run(struct demo *d)
{
	uint64_t round_max = d->data.size < DEMO_ROUND_MAX ? d->data.size : DEMO_ROUND_MAX;

	d->share = demo_share_bytes(round_max, d->ranks);
	round_max = d->share * d->ranks;
	d->to_move = d->data.size * (1 + 2 * demo_holders(d->ranks));
	d->start = now_s();
	bar_draw(d, "joining");
	if (start_ranks(d) != 0)
		return -1;
	for (uint64_t at = 0; at < d->data.size; at += round_max) {
		uint64_t left = d->data.size - at;
		if (one_round(d, at, left < round_max ? left : round_max) != 0)
			return -1;
	}
	bar_clear(d);
	return 0;
}

static double rate(uint64_t bytes, double s)
{
	return s > 0 ? (double)bytes / s / 1e9 : 0;
}

static void print_head(const struct demo *d)
{
	char a[32], b[32], c[32], e[32];

	printf("smem demo: %u process%s, a pool of %u x %s, %s of real data\n", d->ranks,
	       d->ranks > 1 ? "es" : "", d->ranks,
	       size_text(a, sizeof(a), demo_slot(d->share, d->ranks)),
	       size_text(b, sizeof(b), d->data.size));
	printf("  data   %s", d->data.part[0].path);
	if (d->data.n > 1)
		printf(" and %zu more file%s", d->data.n - 1, d->data.n > 2 ? "s" : "");
	printf("\n  store  %s%s\n", d->url, d->store ? "" : " (in this process)");
	printf("  shape  pages of %u x %s by smem_bm_copy_2d, blocks of %s by smem_bm_copy\n\n",
	       DEMO_ROWS, size_text(c, sizeof(c), DEMO_PIECE), size_text(e, sizeof(e), DEMO_CHUNK));
}

static void print_table(const struct demo *d, double total_s, bool ok)
{
	bool colour = isatty(STDOUT_FILENO) && !getenv("NO_COLOR");
	char text[32];
	uint64_t checked = 0;

	print_head(d);
	printf("  rank     pid  slot                 bytes  path         put    get  memcpy"
	       "   read back  digest\n");
	printf("                                                        GB/s   GB/s    GB/s"
	       "  copy  load\n");
	for (size_t i = 0; i < d->ranks; i++) {
		const struct tally *t = &d->tally[i];
		printf("  %4zu %7d  0x%-12" PRIx64
		       " %11s  %-9s %6.2f %6.2f  %6.2f  %4u  %4u  %s%s%s\n",
		       i, (int)t->pid, t->joined.slot, size_text(text, sizeof(text), t->bytes),
		       t->joined.path, rate(t->bytes, t->put_s), rate(t->get_bytes, t->get_s),
		       rate(t->bytes, t->memcpy_s), t->copies, t->loads,
		       colour ? (t->bad ? "\x1b[1;31m" : "\x1b[1;32m") : "",
		       t->bad ? "DIFFERS" : "ok", colour ? "\x1b[0m" : "");
		checked += t->copies + t->loads;
	}
	printf("\n  %s in %.1f s: %" PRIu64 " times a share was read back, %s.\n",
	       size_text(text, sizeof(text), d->data.size), total_s, checked,
	       ok ? "and every SHA-256 matched" : "and not every SHA-256 matched");
}

static void print_json(const struct demo *d, double total_s, bool ok)
{
	struct json j = {.out = stdout};

	json_begin(&j, NULL, '{');
	json_str(&j, "version", SMEM_VERSION);
	json_int(&j, "ranks", d->ranks);
	json_int(&j, "bytes", (int64_t)d->data.size);
	json_int(&j, "slot_bytes", (int64_t)demo_slot(d->share, d->ranks));
	json_str(&j, "store", d->url);
	json_num(&j, "seconds", total_s);
	json_begin(&j, "files", '[');
	for (size_t i = 0; i < d->data.n; i++)
		json_str(&j, NULL, d->data.part[i].path);
	json_end(&j, ']');
	json_begin(&j, "rank", '[');
	for (size_t i = 0; i < d->ranks; i++) {
		const struct tally *t = &d->tally[i];
		char slot[32];
		snprintf(slot, sizeof(slot), "0x%" PRIx64, t->joined.slot);
		json_begin(&j, NULL, '{');
		json_int(&j, "rank", (int64_t)i);
		json_int(&j, "pid", t->pid);
		json_str(&j, "slot", slot);
		json_int(&j, "bytes", (int64_t)t->bytes);
		json_str(&j, "path", t->joined.path);
		json_num(&j, "put_gb_per_s", rate(t->bytes, t->put_s));
		json_num(&j, "get_gb_per_s", rate(t->get_bytes, t->get_s));
		json_num(&j, "memcpy_gb_per_s", rate(t->bytes, t->memcpy_s));
		json_int(&j, "shares_copied_back", t->copies);
		json_int(&j, "shares_loaded_back", t->loads);
		json_int(&j, "digests_wrong", t->bad);
		json_end(&j, '}');
	}
	json_end(&j, ']');
	json_bool(&j, "ok", ok);
	json_end(&j, '}');
}

/* Everything was written, and every other rank read everything twice, and it was the same. */
static bool all_well(const struct demo *d)
{
	uint64_t bytes = 0, back = 0;
	bool ok = true;

	for (size_t i = 0; i < d->ranks; i++) {
		const struct tally *t = &d->tally[i];
		ok = ok && t->bad == 0 && t->copies == t->loads;
		bytes += t->bytes;
		back += t->get_bytes;
	}
	return ok && bytes == d->data.size && back == d->data.size * demo_holders(d->ranks);
}

enum { OPT_JSON = 256 };

static const struct argp_option options[] = {
    {"ranks", 'n', "N", 0, "as many processes, 1 to 64 (default 4)", 0},
    {"file", 'f', "PATH", 0, "move this file (default: libraries of the system, 64 MiB)", 0},
    {"store", 's', "URL", 0, "meet at this config store (default: one in this process)", 0},
    {"json", OPT_JSON, NULL, 0, "for programs", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct demo *d = state->input;
	char *end;

	switch (key) {
	case 'n':
		d->ranks = (unsigned)strtoul(arg, &end, 10);
		if (*end || d->ranks < 1 || d->ranks > RANKS_MAX)
			argp_error(state, "--ranks wants 1 to %u, not '%s'", RANKS_MAX, arg);
		break;
	case 'f':
		d->file = arg;
		break;
	case 's':
		d->store = arg;
		if (strlen(arg) >= sizeof(d->url))
			argp_error(state, "--store: the URL is too long");
		break;
	case OPT_JSON:
		d->json = true;
		break;
	case ARGP_KEY_ARG:
		argp_error(state, "'%s' is one word too many", arg);
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
	"Start some processes, pool their memory, move real data through it and check it.\v"
	"Each rank writes its share of the data into the slots of the others, as scattered pages "
	"and as plain blocks; each other rank reads it back through the global address space, once "
	"by copies and once by plain loads, and compares the SHA-256. put and get are the best of "
	"some passes, one rank at a time, and memcpy is the same shapes in private memory, "
	"measured in the same run. Exit status 0 only if everything matched.",
};

int cmd_demo(int argc, char **argv)
{
	struct demo d = {.ranks = RANKS_DEFAULT};
	bool ok = false;
	double s;

	argv[0] = (char[]){"smem demo"};
	if (argp_parse(&argp, argc, argv, 0, NULL, &d) != 0)
		return EXIT_USAGE;
	setlocale(LC_CTYPE, "");
	d.utf8 = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
	d.bar = isatty(STDERR_FILENO) && !d.json;
	d.tally = calloc(d.ranks, sizeof(*d.tally));
	if (!d.tally || data_find(&d.data, d.file, DATA_DEFAULT) != 0) {
		free(d.tally);
		return EXIT_FAILURE;
	}
	if (d.store)
		snprintf(d.url, sizeof(d.url), "%s", d.store);
	if (!d.store && store_host_any(d.url, sizeof(d.url)) != SMEM_OK) {
		complain_smem("hosting the store");
	} else {
		int r = run(&d);
		s = now_s() - d.start;
		bar_clear(&d);
		ok = r == 0 && all_well(&d);
		if (r == 0 && d.json)
			print_json(&d, s, ok);
		else if (r == 0)
			print_table(&d, s, ok);
		procs_stop(&d.procs, r == 0 ? 10000 : 0);
	}
	smem_uninit();
	data_free(&d.data);
	free(d.tally);
	if (!ok)
		complain("the demo failed");
	return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
