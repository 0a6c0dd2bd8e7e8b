/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reasons name processes and ports, so a thousand pairs may have a thousand texts that say the
 * same: two are one reason when they differ in numbers only.
 */
#include "fabric_why.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tool.h"

#define GROUPS_SHOWN 6

static struct fabric_why *why_of(struct fabric_whys *w, uint32_t taken, uint32_t path, uint32_t why,
				 uint32_t text)
{
	for (uint32_t i = 0; i < w->n; i++) {
		struct fabric_why *y = &w->why[i];
		if (y->taken != taken || y->path != path || y->why != why)
			continue;
		if (y->first != text)
			y->first = why; /* they differ */
		return y;
	}
	w->why = fabric_more(w->why, w->n, &w->cap, sizeof(*w->why));
	w->why[w->n] = (struct fabric_why){.taken = taken, .path = path, .why = why, .first = text};
	return &w->why[w->n++];
}

void fabric_whys(const struct fabric_object *o, struct fabric_whys *ret)
{
	*ret = (struct fabric_whys){.n = 0};
	for (uint32_t i = 0; i < o->n; i++) {
		for (uint32_t k = 0; k < o->member[i].n; k++) {
			const struct fabric_cell *c = &o->member[i].cell[k];
			for (uint32_t x = 0; x < c->refused_n; x++) {
				struct fabric_why *y =
				    why_of(ret, c->path, c->refused[x].path, c->refused[x].kind,
					   c->refused[x].why);
				y->pair = fabric_more(y->pair, y->n, &y->cap, sizeof(*y->pair));
				y->pair[y->n++] = (struct fabric_pair){i, c->to};
			}
		}
	}
}

void fabric_whys_free(struct fabric_whys *w)
{
	for (uint32_t i = 0; i < w->n; i++)
		free(w->why[i].pair);
	free(w->why);
	*w = (struct fabric_whys){.n = 0};
}

/* ---- pairs as text ---- */

static uint32_t number_of(const struct fabric_object *o, uint32_t member)
{
	return o->kind == FABRIC_TRANS ? member : o->member[member].rank;
}

static int by_number(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

void fabric_ranks_text(const struct fabric_object *o, const uint32_t *member, uint32_t n, char *buf,
		       size_t cap)
{
	uint32_t *number = calloc(n + 1, sizeof(*number));
	size_t used = 0;

	buf[0] = '\0';
	for (uint32_t i = 0; number && i < n; i++)
		number[i] = number_of(o, member[i]);
	if (number)
		qsort(number, n, sizeof(*number), by_number);
	for (uint32_t i = 0; number && i < n && used < cap;) {
		uint32_t last = i;
		while (last + 1 < n && number[last + 1] == number[last] + 1)
			last++;
		const char *sep = i ? ", " : "";
		if (last > i + 1)
			used += (size_t)snprintf(buf + used, cap - used, "%s%u-%u", sep, number[i],
						 number[last]);
		else
			used += (size_t)snprintf(buf + used, cap - used, "%s%u", sep, number[i]);
		i = last > i + 1 ? last + 1 : i + 1;
	}
	free(number);
}

static bool same_host(const struct fabric_object *o, uint32_t a, uint32_t b)
{
	return o->member[a].host == o->member[b].host && o->member[a].host != FABRIC_NOWHERE;
}

/* Is it true of every pair that has a path, or of all of one sort? */
static const char *whole(const struct fabric_object *o, const struct fabric_why *w)
{
	uint32_t all[2] = {0, 0}, these[2] = {0, 0};

	for (uint32_t i = 0; i < o->n; i++) {
		for (uint32_t k = 0; k < o->member[i].n; k++)
			all[same_host(o, i, o->member[i].cell[k].to)]++;
	}
	for (uint32_t i = 0; i < w->n; i++)
		these[same_host(o, w->pair[i].from, w->pair[i].to)]++;
	if (w->n < 3)
		return NULL; /* said as briefly by their numbers */
	if (these[0] == all[0] && these[1] == all[1])
		return "every pair";
	if (these[0] == all[0] && these[1] == 0)
		return "every pair on different hosts";
	if (these[1] == all[1] && these[0] == 0)
		return "every pair on one host";
	return NULL;
}

struct group { /* sources with the same targets */
	char *targets;
	uint32_t *from, n, cap, pairs;
};

static void add_source(struct group **group, uint32_t *n, uint32_t *cap, const char *targets,
		       uint32_t from, uint32_t pairs)
{
	struct group *g = NULL;

	for (uint32_t i = 0; i < *n && !g; i++) {
		if (strcmp((*group)[i].targets, targets) == 0)
			g = &(*group)[i];
	}
	if (!g) {
		*group = fabric_more(*group, *n, cap, sizeof(**group));
		g = &(*group)[(*n)++];
		*g = (struct group){.targets = strdup(targets)};
	}
	g->from = fabric_more(g->from, g->n, &g->cap, sizeof(*g->from));
	g->from[g->n++] = from;
	g->pairs += pairs;
}

void fabric_pairs_text(const struct fabric_object *o, const struct fabric_why *w, char *buf,
		       size_t cap)
{
	const char *all = whole(o, w);
	struct group *group = NULL;
	uint32_t n = 0, group_cap = 0, left = 0;
	uint32_t *to = calloc(w->n + 1, sizeof(*to));
	char text[300], from[300];
	size_t used = 0;

	if (all)
		snprintf(buf, cap, "%s", all);
	for (uint32_t i = 0; !all && to && i < w->n;) {
		uint32_t count = 0, source = w->pair[i].from;
		for (; i < w->n && w->pair[i].from == source; i++)
			to[count++] = w->pair[i].to;
		fabric_ranks_text(o, to, count, text, sizeof(text));
		add_source(&group, &n, &group_cap, text, source, count);
	}
	for (uint32_t i = 0; i < n; i++) {
		struct group *g = &group[i];
		fabric_ranks_text(o, g->from, g->n, from, sizeof(from));
		if (i < GROUPS_SHOWN && used < cap)
			used += (size_t)snprintf(buf + used, cap - used, "%s%s to %s",
						 i ? "; " : "", from, g->targets);
		else
			left += g->pairs;
		free(g->targets);
		free(g->from);
	}
	if (left && used < cap)
		snprintf(buf + used, cap - used, "; and %u more pairs", left);
	free(group);
	free(to);
}
