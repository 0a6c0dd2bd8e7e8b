/* SPDX-License-Identifier: Apache-2.0 */
/* For programs: everything, pair by pair, with the reasons as they were said. */
#include <string.h>

#include "fabric.h"

static void host(struct json *j, const struct fabric *f, uint32_t i)
{
	json_begin(j, NULL, '{');
	json_str(j, "name", f->host[i].name);
	json_str(j, "address", f->host[i].address);
	json_end(j, '}');
}

/* What a path leads to and from: a rank, or the name of a session. */
static void end_of(struct json *j, const char *key, const struct fabric *f,
		   const struct fabric_object *o, uint32_t i)
{
	if (o->kind == FABRIC_TRANS)
		json_str(j, key, f->text[o->member[i].name]);
	else
		json_int(j, key, o->member[i].rank);
}

static void member(struct json *j, const struct fabric *f, const struct fabric_object *o,
		   uint32_t i)
{
	static const char *const state[] = {"answered", "silent", "not connected", "absent"};
	const struct fabric_member *m = &o->member[i];

	json_begin(j, NULL, '{');
	end_of(j, o->kind == FABRIC_TRANS ? "session" : "rank", f, o, i);
	if (m->host < f->host_n)
		json_int(j, "host", m->host);
	if (m->pid)
		json_int(j, "pid", m->pid);
	json_str(j, "state", state[m->state]);
	if (m->state == FABRIC_SAID && o->kind != FABRIC_TRANS)
		json_bool(j, "joined", m->joined);
	json_end(j, '}');
}

static void path(struct json *j, const struct fabric *f, const struct fabric_object *o,
		 uint32_t from, const struct fabric_cell *c)
{
	static const char *const state[] = {"up", "joining", "lost", "failed"};

	json_begin(j, NULL, '{');
	end_of(j, "from", f, o, from);
	end_of(j, "to", f, o, c->to);
	json_str(j, "state", state[c->state]);
	json_str(j, "path", f->text[c->path]);
	if (c->via)
		json_str(j, "provider", f->text[c->via]);
	json_bool(j, "mapped", c->shared);
	json_begin(j, "why_no_better", '[');
	for (uint32_t i = 0; i < c->refused_n; i++) {
		json_begin(j, NULL, '{');
		json_str(j, "path", f->text[c->refused[i].path]);
		json_str(j, "why", f->text[c->refused[i].why]);
		json_end(j, '}');
	}
	json_end(j, ']');
	json_end(j, '}');
}

static void object(struct json *j, const struct fabric *f, const struct fabric_object *o)
{
	static const char *const kind[] = {"bm", "shm", "trans"};
	const char *id = strchr(f->text[o->name], '/');

	json_begin(j, NULL, '{');
	json_str(j, "kind", kind[o->kind]);
	if (o->kind != FABRIC_TRANS) {
		json_str(j, "id", id ? id + 1 : "");
		json_int(j, "ranks", o->world);
	}
	json_begin(j, "members", '[');
	for (uint32_t i = 0; i < o->n; i++)
		member(j, f, o, i);
	json_end(j, ']');
	json_begin(j, "paths", '[');
	for (uint32_t i = 0; i < o->n; i++) {
		for (uint32_t k = 0; k < o->member[i].n; k++)
			path(j, f, o, i, &o->member[i].cell[k]);
	}
	json_end(j, ']');
	json_end(j, '}');
}

void fabric_json(struct json *j, struct fabric *f, const char *url)
{
	json_begin(j, "fabric", '{');
	json_str(j, "store", url);
	json_int(j, "processes", f->processes);
	json_int(j, "without_objects", f->idle);
	json_int(j, "silent", f->silent);
	json_int(j, "cannot_say", f->unable);
	json_bool(j, "cut", f->cut);
	json_begin(j, "strangers", '[');
	for (uint32_t i = 0; i < f->stranger_n; i++)
		json_str(j, NULL, f->stranger[i]);
	json_end(j, ']');
	json_begin(j, "hosts", '[');
	for (uint32_t i = 0; i < f->host_n; i++)
		host(j, f, i);
	json_end(j, ']');
	json_begin(j, "objects", '[');
	for (uint32_t i = 0; i < f->object_n; i++)
		object(j, f, &f->object[i]);
	json_end(j, ']');
	json_end(j, '}');
}
