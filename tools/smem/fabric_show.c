/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For people: for each object its members by host, the matrix, and why paths are not better. Larger
 * objects are told by host: which ranks are there, and what leads from host to host.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabric.h"
#include "fabric_why.h"

#define MATRIX_MAX 32 /* members that get a row and a column each */
#define HOSTS_MAX  12 /* hosts that do */

static const char *title(const struct fabric *f, const struct fabric_object *o, char *buf,
			 size_t cap)
{
	const char *id = strchr(f->text[o->name], '/');

	uint32_t n = 0;

	for (uint32_t i = 0; i < o->n; i++)
		n += o->member[i].state != FABRIC_ABSENT;
	if (o->kind == FABRIC_TRANS)
		snprintf(buf, cap, "TRANS: %u session%s", n, n == 1 ? "" : "s");
	else
		snprintf(buf, cap, "%s %s: %u of %u ranks",
			 o->kind == FABRIC_BM ? "BM pool" : "SHM object", id ? id + 1 : "", n,
			 o->world > n ? o->world : n);
	return buf;
}

static const char *host_label(const struct fabric *f, uint32_t host, char *buf, size_t cap)
{
	const struct fabric_host *h = host < f->host_n ? &f->host[host] : NULL;

	if (!h || (!*h->name && !*h->address))
		snprintf(buf, cap, "host not known");
	else if (!*h->name)
		snprintf(buf, cap, "host at %s", h->address);
	else if (f->host_n < 2 || !*h->address)
		snprintf(buf, cap, "host %s", h->name);
	else
		snprintf(buf, cap, "host %s (%s)", h->name, h->address);
	return buf;
}

static uint32_t number_of(const struct fabric_object *o, uint32_t member)
{
	return o->kind == FABRIC_TRANS ? member : o->member[member].rank;
}

static const char *trouble(const struct fabric_member *m, unsigned timeout_s, char *buf, size_t cap)
{
	switch (m->state) {
	case FABRIC_SILENT:
		snprintf(buf, cap, "did not answer within %u s (stopped, or very busy?)",
			 timeout_s);
		break;
	case FABRIC_UNSEEN:
		snprintf(buf, cap, "others have it, but it is not connected to the store");
		break;
	case FABRIC_ABSENT:
		snprintf(buf, cap, "is not there");
		break;
	default:
		snprintf(buf, cap, "%s", m->joined ? "" : "has not joined");
		break;
	}
	return buf;
}

static void show_member(const struct fabric *f, const struct fabric_object *o, uint32_t i,
			unsigned timeout_s)
{
	const struct fabric_member *m = &o->member[i];
	char pid[32] = "", text[100];

	if (m->pid)
		snprintf(pid, sizeof(pid), "process %u", m->pid);
	trouble(m, timeout_s, text, sizeof(text));
	printf("    %4u  %s%s%s%s%s\n", number_of(o, i), f->text[m->name], m->name ? "  " : "", pid,
	       *pid && *text ? ", " : "", text);
}

/* From `i` on, those of one host. */
static uint32_t host_end(const struct fabric_object *o, uint32_t i)
{
	uint32_t host = o->member[i].host;

	while (i < o->n && o->member[i].host == host)
		i++;
	return i;
}

static void show_members(const struct fabric *f, const struct fabric_object *o, unsigned timeout_s)
{
	char label[200], ranks[300];

	for (uint32_t i = 0; i < o->n;) {
		uint32_t end = host_end(o, i), n = 0;
		printf("  %s", host_label(f, o->member[i].host, label, sizeof(label)));
		if (o->n > MATRIX_MAX) {
			uint32_t *all = calloc(end - i, sizeof(*all));
			for (uint32_t k = i; all && k < end; k++)
				all[n++] = k;
			fabric_ranks_text(o, all, n, ranks, sizeof(ranks));
			printf(": %u %s: %s", n, o->kind == FABRIC_TRANS ? "sessions" : "ranks",
			       ranks);
			free(all);
		}
		putchar('\n');
		for (; i < end; i++) {
			const struct fabric_member *m = &o->member[i];
			if (o->n <= MATRIX_MAX || m->state != FABRIC_SAID || !m->joined)
				show_member(f, o, i, timeout_s);
		}
	}
}

/* ---- the matrix ---- */

struct legend { /* what of it appeared */
	bool unknown, unused, shared, lost, failed, joining, none;
	uint32_t via[8]; /* texts */
	uint32_t via_n;
};

static void note_via(struct legend *l, uint32_t via)
{
	for (uint32_t i = 0; i < l->via_n; i++) {
		if (l->via[i] == via)
			return;
	}
	if (via && l->via_n < 8)
		l->via[l->via_n++] = via;
}

static const char *way_text(const struct fabric *f, const struct fabric_cell *c, struct legend *l,
			    bool name_via, char *buf, size_t cap)
{
	static const char *const other[] = {"", "joining", "lost", "failed"};
	const char *path = f->text[c->path];

	l->joining |= c->state == FABRIC_JOINING;
	l->lost |= c->state == FABRIC_LOST;
	l->failed |= c->state == FABRIC_FAILED;
	if (c->state != FABRIC_UP)
		return other[c->state];
	bool more = c->shared && strcmp(path, "direct") != 0;
	l->none |= !*path && !c->shared;
	l->shared |= more;
	note_via(l, c->via);
	if (!*path)
		snprintf(buf, cap, "%s", c->shared ? "files" : "none");
	else if (c->via && name_via)
		snprintf(buf, cap, "%s:%s%s", path, f->text[c->via], more ? "+" : "");
	else
		snprintf(buf, cap, "%s%s", path, more ? "+" : "");
	return buf;
}

static const char *cell_text(const struct fabric *f, const struct fabric_object *o, uint32_t from,
			     uint32_t to, struct legend *l, bool name_via, char *buf, size_t cap)
{
	const struct fabric_cell *c = fabric_find(o, from, to);

	if (c)
		return way_text(f, c, l, name_via, buf, cap);
	if (from == to)
		return ".";
	bool said = o->member[from].state == FABRIC_SAID;
	l->unknown |= !said;
	l->unused |= said;
	return said ? "-" : "?";
}

static void show_legend(const struct fabric *f, const struct fabric_object *o,
			const struct legend *l)
{
	for (uint32_t i = 0; i < l->via_n; i++)
		printf("  ofi%s%s: libfabric's provider %s\n", l->via_n > 1 ? ":" : "",
		       l->via_n > 1 ? f->text[l->via[i]] : "", f->text[l->via[i]]);
	if (l->shared)
		printf("  +: what lies in files that are shared is mapped, and needs no path\n");
	if (l->unused)
		printf("  -: %s\n", o->kind == FABRIC_TRANS ? "not used so far" : "no path");
	if (l->unknown)
		printf("  ?: it did not say\n");
}

static size_t width_of(const struct fabric *f, const struct fabric_object *o, struct legend *l,
		       bool name_via)
{
	char buf[80];
	size_t width = 4;

	for (uint32_t i = 0; i < o->n; i++) {
		for (uint32_t k = 0; k < o->n; k++) {
			size_t len = strlen(cell_text(f, o, i, k, l, name_via, buf, sizeof(buf)));
			width = len > width ? len : width;
		}
	}
	return width + 1;
}

static void show_matrix(const struct fabric *f, const struct fabric_object *o)
{
	struct legend l = {.via_n = 0};
	char buf[80];

	size_t width = width_of(f, o, &l, false);
	bool name_via = l.via_n > 1;
	if (name_via)
		width = width_of(f, o, &l, true);
	printf("\n    from\\to ");
	for (uint32_t k = 0; k < o->n; k++)
		printf("%*u", (int)width, number_of(o, k));
	putchar('\n');
	for (uint32_t i = 0; i < o->n; i++) {
		if (i && o->member[i].host != o->member[i - 1].host)
			putchar('\n');
		printf("    %7u ", number_of(o, i));
		for (uint32_t k = 0; k < o->n; k++)
			printf("%*s", (int)width,
			       cell_text(f, o, i, k, &l, name_via, buf, sizeof(buf)));
		putchar('\n');
	}
	show_legend(f, o, &l);
}

/* ---- larger ones: from host to host ---- */

struct tally {
	char text[40];
	uint32_t n;
};

#define TALLIES 8

static void count(struct tally *t, const char *text)
{
	for (unsigned i = 0; i < TALLIES; i++) {
		if (t[i].n == 0)
			snprintf(t[i].text, sizeof(t[i].text), "%s", text);
		if (strcmp(t[i].text, text) == 0) {
			t[i].n++;
			return;
		}
	}
}

static void show_tally(const struct tally *t)
{
	for (unsigned i = 0; i < TALLIES && t[i].n; i++)
		printf("%s%s %u", i ? ", " : "", t[i].text, t[i].n);
	putchar('\n');
}

static void tally_hosts(const struct fabric *f, const struct fabric_object *o, uint32_t from,
			uint32_t to, struct legend *l, struct tally *t)
{
	char buf[80];

	for (uint32_t i = 0; i < o->n; i++) {
		if (from != UINT32_MAX && o->member[i].host != from)
			continue;
		for (uint32_t k = 0; k < o->n; k++) {
			if (i != k && (to == UINT32_MAX || o->member[k].host == to))
				count(t, cell_text(f, o, i, k, l, true, buf, sizeof(buf)));
		}
	}
}

static void show_hosts(const struct fabric *f, const struct fabric_object *o)
{
	struct legend l = {.via_n = 0};
	char from[200], to[200];

	printf("\n");
	if (f->host_n > HOSTS_MAX) {
		struct tally t[TALLIES] = {{.n = 0}};
		tally_hosts(f, o, UINT32_MAX, UINT32_MAX, &l, t);
		printf("    pairs: ");
		show_tally(t);
	}
	for (uint32_t i = 0; i < o->n && f->host_n <= HOSTS_MAX; i = host_end(o, i)) {
		for (uint32_t k = 0; k < o->n; k = host_end(o, k)) {
			struct tally t[TALLIES] = {{.n = 0}};
			tally_hosts(f, o, o->member[i].host, o->member[k].host, &l, t);
			host_label(f, o->member[i].host, from, sizeof(from));
			host_label(f, o->member[k].host, to, sizeof(to));
			if (o->member[i].host == o->member[k].host)
				printf("    within %s: ", from);
			else
				printf("    %s to %s: ", from, to);
			show_tally(t);
		}
	}
	l.via_n = 0; /* named already */
	show_legend(f, o, &l);
}

static void show_whys(const struct fabric *f, const struct fabric_object *o)
{
	struct fabric_whys whys;
	char pairs[1000];

	fabric_whys(o, &whys);
	if (whys.n)
		printf("\n  why no better path\n");
	for (uint32_t i = 0; i < whys.n; i++) {
		const struct fabric_why *w = &whys.why[i];
		const char *taken = f->text[w->taken];
		fabric_pairs_text(o, w, pairs, sizeof(pairs));
		printf("    ");
		if (*taken)
			printf("%s, not %s: ", taken, w->path ? f->text[w->path] : "a better one");
		else
			printf("%s%s: ", "no path", w->path ? f->text[w->path] : "");
		printf("%s\n      %s\n", f->text[w->first], pairs);
	}
	fabric_whys_free(&whys);
}

static const char *plural(uint32_t n)
{
	return n == 1 ? "" : "es";
}

void fabric_show(struct fabric *f, const char *url, unsigned timeout_s)
{
	char text[100];

	printf("Fabric at %s: ", url);
	if (f->processes == 0)
		printf("nothing runs there\n");
	else if (f->object_n == 0 && f->idle == f->processes)
		printf(
		    "nothing runs there but %u process%s without a pool, an object or a session\n",
		    f->processes, plural(f->processes));
	else
		printf("%u process%s on %u host%s\n", f->processes, plural(f->processes), f->host_n,
		       f->host_n == 1 ? "" : "s");
	if (f->idle && f->object_n)
		printf("  %u of them without a pool, an object or a session\n", f->idle);
	for (uint32_t i = 0; i < f->stranger_n; i++)
		printf("  the process at %s did not answer within %u s\n", f->stranger[i],
		       timeout_s);
	if (f->unable)
		printf("  %u of them cannot say: another version, or too much\n", f->unable);
	if (f->cut)
		printf("  some have more than one answer holds; what is missing is not shown\n");
	for (uint32_t i = 0; i < f->object_n; i++) {
		const struct fabric_object *o = &f->object[i];
		printf("\n%s\n", title(f, o, text, sizeof(text)));
		show_members(f, o, timeout_s);
		if (o->n > MATRIX_MAX)
			show_hosts(f, o);
		else
			show_matrix(f, o);
		show_whys(f, o);
	}
}
