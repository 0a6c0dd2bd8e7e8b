/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric_util.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "bm_util.h"
#include "tool.h"

void complain(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
}

bool asks(const struct rank *r)
{
	return r->rank == r->size - 1;
}

smem_bm_t pool_up(struct rank *r, uint32_t id)
{
	smem_bm_config_t c = bm_config(r);

	RANK_OK(r, smem_bm_init(r->url, r->size - 1, 0, &c));
	return bm_make(r, id, 2 * MIB, 0);
}

void survey(struct rank *r, unsigned timeout_s, struct fabric *ret)
{
	char error[800];

	if (fabric_survey(r->url, timeout_s, ret, error, sizeof(error)) != 0)
		rank_fail(r, __FILE__, __LINE__, "%s", error);
}

const struct fabric_object *object_is(struct rank *r, const struct fabric *f, enum fabric_kind kind,
				      const char *name)
{
	for (uint32_t i = 0; i < f->object_n; i++) {
		const struct fabric_object *o = &f->object[i];
		if (o->kind == kind && strcmp(f->text[o->name], name) == 0)
			return o;
	}
	rank_fail(r, __FILE__, __LINE__, "no object %s among %u", name, f->object_n);
}

const struct fabric_member *member_is(struct rank *r, const struct fabric *f,
				      const struct fabric_object *o, uint32_t rank,
				      const char *name)
{
	for (uint32_t i = 0; i < o->n; i++) {
		const struct fabric_member *m = &o->member[i];
		if (name ? strcmp(f->text[m->name], name) == 0 : m->rank == rank)
			return m;
	}
	rank_fail(r, __FILE__, __LINE__, "no member %u %s", rank, name ? name : "");
}

const char *pair_text(const struct fabric *f, const struct fabric_object *o,
		      const struct fabric_member *from, const struct fabric_member *to)
{
	static const char *const other[] = {"", "joining", "lost", "failed"};
	static char text[2048];
	const struct fabric_cell *c =
	    fabric_find(o, (uint32_t)(from - o->member), (uint32_t)(to - o->member));
	size_t n = 0;

	text[0] = '\0';
	if (!c)
		return text;
	n += (size_t)snprintf(text, sizeof(text), "%s%s%s%s", other[c->state], f->text[c->path],
			      c->via ? " " : "", f->text[c->via]);
	for (uint32_t i = 0; i < c->refused_n && n < sizeof(text); i++)
		n += (size_t)snprintf(text + n, sizeof(text) - n, "; %s: %s",
				      f->text[c->refused[i].path], f->text[c->refused[i].why]);
	return text;
}

const char *pair_kind(const struct fabric *f, const struct fabric_object *o,
		      const struct fabric_member *from, const struct fabric_member *to)
{
	static char kind[2048];
	size_t n = 0;

	for (const char *at = pair_text(f, o, from, to); *at;) {
		size_t digits = strspn(at, "0123456789");
		kind[n++] = digits ? '#' : *at;
		at += digits ? digits : 1;
	}
	kind[n] = '\0';
	return kind;
}
