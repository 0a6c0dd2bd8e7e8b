/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Asking the processes at a store. This file alone is no user of the public interface, which has no
 * such question: it is linked with a copy of the library's store client of its own, which has
 * nothing to do with the library that the rest of the command uses.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/survey_rows.h"
#include "fabric.h"
#include "store/survey.h"
#include "util/err.h"
#include "util/log.h"

/* What comes from the store and is shown. */
static void printable(char *text)
{
	for (; *text; text++)
		if (*text < ' ' || *text > '~')
			*text = '?';
}

/* "10.0.0.1:123" or "[fd77::1]:123" without the port. */
static void without_port(const char *address, char *ret, size_t cap)
{
	const char *end = strrchr(address, ':');

	if (*address == '[') {
		address++;
		end = strchr(address, ']');
	}
	snprintf(ret, cap, "%.*s", end ? (int)(end - address) : (int)strlen(address), address);
	printable(ret);
}

static enum fabric_kind kind_of(const struct survey_object *o)
{
	return o->kind == SURVEY_BM ? FABRIC_BM : o->kind == SURVEY_SHM ? FABRIC_SHM : FABRIC_TRANS;
}

/* Sessions are one object: each may write to any other. */
static struct fabric_object *object_of(struct fabric *f, const struct survey_object *o)
{
	return fabric_object(f, kind_of(o), o->kind == SURVEY_TRANS ? "" : o->name, o->world);
}

static void add_row(struct fabric *f, struct fabric_object *o, uint32_t from,
		    const struct survey_row *row)
{
	static const uint8_t state[] = {[SURVEY_MEMBER] = FABRIC_UP,
					[SURVEY_JOINING] = FABRIC_JOINING,
					[SURVEY_LOST] = FABRIC_LOST,
					[SURVEY_FAILED] = FABRIC_FAILED};
	uint32_t to = fabric_member(f, o, row->rank, row->name);
	struct fabric_member *m = &o->member[to];
	bool there = row->state == SURVEY_MEMBER;
	char kind[600];

	if (m->state == FABRIC_ABSENT && there)
		m->state = FABRIC_UNSEEN;
	if (there && m->host == FABRIC_NOWHERE && row->host != 0)
		m->host = fabric_host(f, row->host, "", "");
	if (there && m->pid == 0)
		m->pid = row->pid;
	struct fabric_cell *c = fabric_cell(o, from, to);
	c->state = state[row->state];
	c->shared = row->shared;
	c->path = fabric_text(f, row->path);
	c->via = fabric_text(f, row->via);
	c->refused_n = (uint8_t)row->refused_n;
	for (uint32_t i = 0; i < row->refused_n; i++) {
		c->refused[i].path = fabric_text(f, row->refused[i].path);
		c->refused[i].why = fabric_text(f, row->refused[i].why);
		survey_general(row->refused[i].why, kind, sizeof(kind));
		c->refused[i].kind = fabric_text(f, kind);
	}
}

static void add_object(struct fabric *f, const struct survey_answer *a, uint32_t host,
		       const struct survey_object *said)
{
	struct fabric_object *o = object_of(f, said);
	uint32_t own =
	    fabric_member(f, o, said->rank, said->kind == SURVEY_TRANS ? said->name : "");
	struct fabric_member *m = &o->member[own];

	if (m->state == FABRIC_SAID)
		return; /* a rank twice: it is about to be refused */
	m->state = FABRIC_SAID;
	m->host = host;
	m->pid = a->pid;
	m->joined = said->joined;
	for (uint32_t i = 0; i < said->n; i++)
		add_row(f, o, own, &said->row[i]);
}

static void add_answer(struct fabric *f, const struct store_surveyed *c)
{
	struct survey_answer a;
	char address[64];

	if (c->answer.len == 0) {
		f->idle++;
		return;
	}
	if (!survey_decode(c->answer.data, c->answer.len, &a)) {
		f->unable++;
		return;
	}
	without_port(c->address, address, sizeof(address));
	uint32_t host = fabric_host(f, a.host, a.host_name, address);
	for (uint32_t i = 0; i < a.n; i++)
		add_object(f, &a, host, &a.object[i]);
	f->cut |= a.cut;
	survey_answer_free(&a);
}

/* "bm/7" and "shm/7" are groups of objects; "bm/world" is not. */
static bool is_object(const char *name, const char *prefix)
{
	size_t len = strlen(prefix);

	return strncmp(name, prefix, len) == 0 && name[len] != '\0' &&
	       strspn(name + len, "0123456789") == strlen(name + len);
}

/* One that did not answer is on the host that others say, else on that of its address. */
static void place(struct fabric *f, struct fabric_member *m, const char *address)
{
	if (m->host != FABRIC_NOWHERE) {
		struct fabric_host *h = &f->host[m->host];
		if (!*h->address)
			snprintf(h->address, sizeof(h->address), "%s", address);
		return;
	}
	for (uint32_t i = 0; i < f->host_n && m->host == FABRIC_NOWHERE; i++) {
		if (strcmp(f->host[i].address, address) == 0)
			m->host = i;
	}
	if (m->host == FABRIC_NOWHERE)
		m->host = fabric_host(f, 0, "", address);
}

/* What the store says of one that did not answer: the groups it is in, the names it holds. */
static bool add_held(struct fabric *f, const struct store_held *h, const char *address)
{
	static const char session[] = "trans/";
	struct fabric_object *o;
	uint32_t i;

	if (h->kind == STORE_HELD_MEMBER && is_object(h->name, "bm/"))
		o = fabric_object(f, FABRIC_BM, h->name, 0);
	else if (h->kind == STORE_HELD_MEMBER && is_object(h->name, "shm/"))
		o = fabric_object(f, FABRIC_SHM, h->name, 0);
	else if (h->kind == STORE_HELD_KEY && strncmp(h->name, session, strlen(session)) == 0)
		o = fabric_object(f, FABRIC_TRANS, "", 0);
	else
		return false;
	if (o->kind == FABRIC_TRANS)
		i = fabric_member(f, o, 0, h->name + strlen(session));
	else if (h->member < 1024)
		i = fabric_member(f, o, h->member, "");
	else
		return false;
	struct fabric_member *m = &o->member[i];
	if (m->state != FABRIC_SAID)
		m->state = FABRIC_SILENT;
	place(f, m, address);
	return true;
}

static void add_silent(struct fabric *f, struct store_surveyed *c)
{
	char address[64];
	bool known = false;

	without_port(c->address, address, sizeof(address));
	printable(c->address);
	for (uint32_t i = 0; i < c->held_n; i++) {
		printable(c->held[i].name);
		known |= add_held(f, &c->held[i], address);
	}
	if (!known)
		fabric_stranger(f, c->address);
}

static void build(struct fabric *f, struct store_survey *s)
{
	fabric_text(f, "");
	for (uint32_t i = 0; i < s->n; i++) {
		f->processes += s->client[i].state != STORE_SURVEY_GONE;
		f->silent += s->client[i].state == STORE_SURVEY_SILENT;
		f->unable += s->client[i].state == STORE_SURVEY_UNABLE;
		if (s->client[i].state == STORE_SURVEY_ANSWERED)
			add_answer(f, &s->client[i]);
	}
	for (uint32_t i = 0; i < s->n; i++) {
		if (s->client[i].state == STORE_SURVEY_SILENT ||
		    s->client[i].state == STORE_SURVEY_UNABLE)
			add_silent(f, &s->client[i]);
	}
	fabric_arrange(f);
}

int fabric_survey(const char *url, unsigned timeout_s, struct fabric *ret, char *error, size_t cap)
{
	struct store_survey s = {.n = 0};
	struct store *store = NULL;
	struct store_url parsed;

	log_set_level(LOG_LEVEL_ERROR);
	*ret = (struct fabric){.processes = 0};
	int32_t r = store_url_parse(url, false, &parsed);
	if (r == SMEM_OK)
		r = store_open(&parsed, STORE_CONNECT, deadline_in_s(timeout_s), &store);
	if (r == SMEM_OK)
		r = store_survey(store, deadline_in_s(timeout_s), &s);
	if (r == SMEM_OK)
		build(ret, &s);
	else
		snprintf(error, cap, "%s: %s", err_name(r), err_detail());
	store_survey_free(&s);
	store_close(store, 0);
	return r == SMEM_OK ? 0 : -1;
}
