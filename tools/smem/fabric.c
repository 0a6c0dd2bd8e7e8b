/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A thousand ranks have a million cells and a handful of different texts: texts are numbers, cells
 * are lists at their row's member. Hosts, objects and members come in any order, from answers and
 * from rows of others, and are sorted once, at the end.
 */
#include "fabric.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tool.h"

void *fabric_more(void *array, uint32_t n, uint32_t *cap, size_t size)
{
	if (n < *cap)
		return array;
	*cap = *cap ? *cap * 2 : 8;
	array = realloc(array, *cap * size);
	if (!array) {
		complain("out of memory");
		exit(EXIT_FAILURE);
	}
	return array;
}

static char *copy_of(const char *text)
{
	char *copy = strdup(text);

	if (!copy) {
		complain("out of memory");
		exit(EXIT_FAILURE);
	}
	return copy;
}

/* ---- texts ---- */

static uint32_t hash_of(const char *s)
{
	uint32_t h = 2166136261u;

	for (; *s; s++)
		h = (h ^ (uint8_t)*s) * 16777619u;
	return h;
}

static uint32_t *slot_of(const struct fabric *f, const char *text)
{
	uint32_t i = hash_of(text) & (f->slot_cap - 1);

	while (f->slot[i] && strcmp(f->text[f->slot[i] - 1], text) != 0)
		i = (i + 1) & (f->slot_cap - 1);
	return &f->slot[i];
}

static void rehash(struct fabric *f)
{
	f->slot_cap = f->slot_cap ? f->slot_cap * 2 : 256;
	free(f->slot);
	f->slot = calloc(f->slot_cap, sizeof(*f->slot));
	if (!f->slot) {
		complain("out of memory");
		exit(EXIT_FAILURE);
	}
	for (uint32_t i = 0; i < f->text_n; i++)
		*slot_of(f, f->text[i]) = i + 1;
}

uint32_t fabric_text(struct fabric *f, const char *text)
{
	if (f->text_n == 0 && *text)
		fabric_text(f, "");
	if (2 * f->text_n >= f->slot_cap)
		rehash(f);
	uint32_t *slot = slot_of(f, text);
	if (*slot)
		return *slot - 1;
	f->text = fabric_more(f->text, f->text_n, &f->text_cap, sizeof(*f->text));
	f->text[f->text_n++] = copy_of(text);
	*slot = f->text_n;
	return f->text_n - 1;
}

/* ---- hosts, objects, members, cells ---- */

uint32_t fabric_host(struct fabric *f, uint64_t id, const char *name, const char *address)
{
	struct fabric_host *h;

	for (uint32_t i = 0; i < f->host_n; i++) {
		h = &f->host[i];
		if (h->id != id || (id == 0 && strcmp(h->address, address) != 0))
			continue;
		if (!*h->name && *name) {
			free(h->name);
			h->name = copy_of(name);
		}
		/* loopback says little: any other address is better */
		if (*address && (!*h->address || strncmp(h->address, "127.", 4) == 0))
			snprintf(h->address, sizeof(h->address), "%s", address);
		return i;
	}
	f->host = fabric_more(f->host, f->host_n, &f->host_cap, sizeof(*f->host));
	h = &f->host[f->host_n];
	*h = (struct fabric_host){.id = id, .name = copy_of(name)};
	snprintf(h->address, sizeof(h->address), "%s", address);
	return f->host_n++;
}

struct fabric_object *fabric_object(struct fabric *f, enum fabric_kind kind, const char *name,
				    uint32_t world)
{
	uint32_t text = fabric_text(f, name);

	for (uint32_t i = 0; i < f->object_n; i++) {
		struct fabric_object *o = &f->object[i];
		if (o->kind == kind && o->name == text) {
			o->world = world > o->world ? world : o->world;
			return o;
		}
	}
	f->object = fabric_more(f->object, f->object_n, &f->object_cap, sizeof(*f->object));
	f->object[f->object_n] = (struct fabric_object){.kind = kind, .name = text, .world = world};
	return &f->object[f->object_n++];
}

uint32_t fabric_member(struct fabric *f, struct fabric_object *o, uint32_t rank, const char *name)
{
	uint32_t text = fabric_text(f, name), key = o->kind == FABRIC_TRANS ? text : rank;

	while (key >= o->find_cap) {
		uint32_t before = o->find_cap;
		o->find = fabric_more(o->find, before, &o->find_cap, sizeof(*o->find));
		memset(o->find + before, 0, (o->find_cap - before) * sizeof(*o->find));
	}
	if (o->find[key])
		return o->find[key] - 1;
	o->member = fabric_more(o->member, o->n, &o->cap, sizeof(*o->member));
	o->member[o->n] = (struct fabric_member){
	    .rank = rank, .name = text, .host = FABRIC_NOWHERE, .state = FABRIC_ABSENT};
	o->find[key] = ++o->n;
	return o->n - 1;
}

struct fabric_cell *fabric_cell(struct fabric_object *o, uint32_t from, uint32_t to)
{
	struct fabric_member *m = &o->member[from];

	m->cell = fabric_more(m->cell, m->n, &m->cap, sizeof(*m->cell));
	m->cell[m->n] = (struct fabric_cell){.to = to};
	return &m->cell[m->n++];
}

void fabric_stranger(struct fabric *f, const char *address)
{
	f->stranger =
	    fabric_more(f->stranger, f->stranger_n, &f->stranger_cap, sizeof(*f->stranger));
	f->stranger[f->stranger_n++] = copy_of(address);
}

/* ---- order ---- */

struct place { /* of a member, for sorting */
	uint32_t index, host, rank;
	const char *name;
};

static int by_place(const void *a, const void *b)
{
	const struct place *x = a, *y = b;

	if (x->host != y->host)
		return x->host < y->host ? -1 : 1;
	if (x->rank != y->rank)
		return x->rank < y->rank ? -1 : 1;
	return strcmp(x->name, y->name);
}

static int by_to(const void *a, const void *b)
{
	const struct fabric_cell *x = a, *y = b;

	return x->to < y->to ? -1 : x->to > y->to;
}

static void arrange_members(const struct fabric *f, struct fabric_object *o, const uint32_t *order)
{
	struct place *place = calloc(o->n + 1, sizeof(*place));
	struct fabric_member *sorted = calloc(o->n + 1, sizeof(*sorted));
	uint32_t *now = calloc(o->n + 1, sizeof(*now));

	if (!place || !sorted || !now) {
		complain("out of memory");
		exit(EXIT_FAILURE);
	}
	for (uint32_t i = 0; i < o->n; i++) {
		const struct fabric_member *m = &o->member[i];
		uint32_t host = m->host == FABRIC_NOWHERE ? m->host : order[m->host];
		place[i] = (struct place){i, host, m->rank, f->text[m->name]};
	}
	qsort(place, o->n, sizeof(*place), by_place);
	for (uint32_t i = 0; i < o->n; i++) {
		sorted[i] = o->member[place[i].index];
		sorted[i].host = place[i].host;
		now[place[i].index] = i;
	}
	for (uint32_t i = 0; i < o->n; i++) {
		struct fabric_member *m = &sorted[i];
		for (uint32_t k = 0; k < m->n; k++)
			m->cell[k].to = now[m->cell[k].to];
		if (m->n)
			qsort(m->cell, m->n, sizeof(*m->cell), by_to);
	}
	free(o->member);
	o->member = sorted;
	o->cap = o->n + 1;
	free(place);
	free(now);
	free(o->find);
	o->find = NULL;
	o->find_cap = 0;
}

struct rank_of_host {
	uint32_t index, rank;
	const char *name, *address;
};

static int by_rank(const void *a, const void *b)
{
	const struct rank_of_host *x = a, *y = b;

	if (x->rank != y->rank)
		return x->rank < y->rank ? -1 : 1;
	int by_name = strcmp(x->name, y->name);
	return by_name ? by_name : strcmp(x->address, y->address);
}

/* Hosts by their lowest rank: rank 0's is the first. */
static void arrange_hosts(struct fabric *f, uint32_t *order)
{
	struct rank_of_host *r = calloc(f->host_n + 1, sizeof(*r));
	struct fabric_host *sorted = calloc(f->host_n + 1, sizeof(*sorted));

	if (!r || !sorted) {
		complain("out of memory");
		exit(EXIT_FAILURE);
	}
	for (uint32_t i = 0; i < f->host_n; i++)
		r[i] = (struct rank_of_host){i, UINT32_MAX, f->host[i].name, f->host[i].address};
	for (uint32_t i = 0; i < f->object_n; i++) {
		const struct fabric_object *o = &f->object[i];
		for (uint32_t k = 0; k < o->n && o->kind != FABRIC_TRANS; k++) {
			uint32_t h = o->member[k].host;
			if (h != FABRIC_NOWHERE && o->member[k].rank < r[h].rank)
				r[h].rank = o->member[k].rank;
		}
	}
	qsort(r, f->host_n, sizeof(*r), by_rank);
	for (uint32_t i = 0; i < f->host_n; i++) {
		sorted[i] = f->host[r[i].index];
		order[r[i].index] = i;
	}
	free(f->host);
	f->host = sorted;
	f->host_cap = f->host_n + 1;
	free(r);
}

static const struct fabric *sorting; /* qsort() has no argument */

static int by_kind_and_name(const void *a, const void *b)
{
	const struct fabric_object *x = a, *y = b;

	if (x->kind != y->kind)
		return x->kind < y->kind ? -1 : 1;
	const char *p = sorting->text[x->name], *q = sorting->text[y->name];
	size_t m = strlen(p), n = strlen(q);
	return m != n ? (m < n ? -1 : 1) : strcmp(p, q);
}

void fabric_arrange(struct fabric *f)
{
	uint32_t *order = calloc(f->host_n + 1, sizeof(*order));

	if (!order) {
		complain("out of memory");
		exit(EXIT_FAILURE);
	}
	arrange_hosts(f, order);
	for (uint32_t i = 0; i < f->object_n; i++)
		arrange_members(f, &f->object[i], order);
	sorting = f;
	if (f->object_n)
		qsort(f->object, f->object_n, sizeof(*f->object), by_kind_and_name);
	free(order);
}

const struct fabric_cell *fabric_find(const struct fabric_object *o, uint32_t from, uint32_t to)
{
	const struct fabric_member *m = &o->member[from];
	struct fabric_cell key = {.to = to};

	return m->n ? bsearch(&key, m->cell, m->n, sizeof(key), by_to) : NULL;
}

void fabric_free(struct fabric *f)
{
	for (uint32_t i = 0; i < f->object_n; i++) {
		struct fabric_object *o = &f->object[i];
		for (uint32_t k = 0; k < o->n; k++)
			free(o->member[k].cell);
		free(o->member);
		free(o->find);
	}
	for (uint32_t i = 0; i < f->host_n; i++)
		free(f->host[i].name);
	for (uint32_t i = 0; i < f->text_n; i++)
		free(f->text[i]);
	for (uint32_t i = 0; i < f->stranger_n; i++)
		free(f->stranger[i]);
	free(f->object);
	free(f->host);
	free(f->text);
	free(f->slot);
	free(f->stranger);
	*f = (struct fabric){.host_n = 0};
}
