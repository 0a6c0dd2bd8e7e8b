/* SPDX-License-Identifier: Apache-2.0 */
/* What a process answers to a survey: written, read, cut, and garbled. tests/fuzz does the rest. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/survey_rows.h"
#include "util/limits.h"

static struct blob *two_objects(void)
{
	struct survey_writer w;
	struct survey_row row = {.state = SURVEY_MEMBER,
				 .rank = 1,
				 .shared = true,
				 .pid = 77,
				 .host = 5,
				 .path = "cma",
				 .via = "",
				 .refused_n = 1,
				 .refused = {{"direct", "not mapped\x1b[31m here\xff"}}};

	survey_begin(&w, STORE_VALUE_MAX, false);
	survey_process(&w, "node-1", 5, 42);
	survey_object(
	    &w, &(struct survey_object){.name = "bm/1", .rank = 0, .world = 3, .joined = true});
	survey_row(&w, &row);
	row.rank = 2;
	row.path = "ofi";
	row.via = "tcp";
	row.state = SURVEY_LOST;
	survey_row(&w, &row);
	survey_object(&w, &(struct survey_object){.kind = SURVEY_TRANS, .name = "10.0.0.1:9"});
	row = (struct survey_row){.state = SURVEY_FAILED,
				  .name = "10.0.0.1:8",
				  .refused_n = 1,
				  .refused = {{NULL, "is not known"}}};
	survey_row(&w, &row);
	return survey_end(&w);
}

static void round_trip(void **state)
{
	struct blob *b = two_objects();
	struct survey_answer a;

	(void)state;
	assert_non_null(b);
	assert_true(survey_decode(b->data, b->len, &a));
	assert_string_equal(a.host_name, "node-1");
	assert_true(a.pid == 42 && a.host == 5 && !a.cut && a.n == 2);
	const struct survey_object *o = &a.object[0];
	assert_true(o->kind == SURVEY_BM && o->rank == 0 && o->world == 3 && o->joined);
	assert_string_equal(o->name, "bm/1");
	assert_int_equal(o->n, 2);
	assert_string_equal(o->row[0].path, "cma");
	assert_string_equal(o->row[0].refused[0].path, "direct");
	assert_string_equal(o->row[0].refused[0].why, "not mapped?[31m here?");
	assert_true(o->row[0].pid == 77 && o->row[0].host == 5 && o->row[0].shared);
	assert_true(o->row[1].rank == 2 && o->row[1].state == SURVEY_LOST);
	assert_string_equal(o->row[1].via, "tcp");
	/* a text is there once */
	assert_ptr_equal(o->row[0].refused[0].why, o->row[1].refused[0].why);
	o = &a.object[1];
	assert_true(o->kind == SURVEY_TRANS && !o->joined && o->n == 1);
	assert_string_equal(o->row[0].name, "10.0.0.1:8");
	assert_string_equal(o->row[0].path, "");
	assert_string_equal(o->row[0].refused[0].why, "is not known");
	survey_answer_free(&a);
	survey_answer_free(&a);
	blob_put(b);
}

/* A pool of the largest world; its reasons are all alike, or all different. */
static void report(struct survey_writer *w, unsigned object, bool different)
{
	char name[32], why[2][200];

	snprintf(name, sizeof(name), "bm/%u", object);
	survey_object(w, &(struct survey_object){.name = name, .rank = 0, .world = WORLD_MAX});
	for (unsigned i = 1; i < WORLD_MAX; i++) {
		struct survey_row row = {.rank = i, .pid = i, .path = "ofi", .refused_n = 2};
		for (unsigned x = 0; x < 2; x++) {
			snprintf(why[x], sizeof(why[x]),
				 "process_vm_readv of process %u: not permitted (errno 1)",
				 different ? 100000 * x + 5000 * object + i : 7);
			row.refused[x].path = x ? "cma" : "direct";
			row.refused[x].why = why[x];
		}
		survey_row(w, &row);
	}
}

struct size_case {
	unsigned objects;
	size_t most;
	bool different, brief, cut;
};

/*
 * The largest pool fits, whatever its reasons; and when 1024 processes answer, three of them fit
 * each one's part of the reply, if need be in brief. What is more is cut, not broken.
 */
static void sizes(void **state)
{
	static const size_t part = STORE_SURVEY_BYTES_MAX / WORLD_MAX;
	static const struct size_case cases[] = {
	    {1, STORE_VALUE_MAX, true, false, false},
	    {3, STORE_VALUE_MAX, true, false, false},
	    {9, STORE_VALUE_MAX, true, false, true},
	    {3, part, false, false, false},
	    {1, part, true, false, true},
	    {3, part, true, true, false},
	    {9, part, true, true, true},
	};

	(void)state;
	for (unsigned k = 0; k < sizeof(cases) / sizeof(cases[0]); k++) {
		const struct size_case *c = &cases[k];
		struct survey_writer w;
		struct survey_answer a;
		uint32_t rows = 0;
		survey_begin(&w, c->most, c->brief);
		survey_process(&w, "", 0, 1);
		for (unsigned o = 0; o < c->objects; o++)
			report(&w, o, c->different);
		struct blob *b = survey_end(&w);
		assert_non_null(b);
		assert_true(b->len <= c->most);
		assert_true(survey_decode(b->data, b->len, &a));
		for (uint32_t i = 0; i < a.n; i++)
			rows += a.object[i].n;
		assert_int_equal(a.cut, c->cut);
		if (!c->cut)
			assert_int_equal(rows, c->objects * (WORLD_MAX - 1));
		else
			assert_true(rows > 100);
		if (c->brief)
			assert_string_equal(
			    a.object[0].row[8].refused[1].why,
			    "process_vm_readv of process N: not permitted (errno N)");
		survey_answer_free(&a);
		blob_put(b);
	}
}

static void general(void **state)
{
	char buf[16];

	(void)state;
	survey_general("rank 12: (111) x9", buf, sizeof(buf));
	assert_string_equal(buf, "rank N: (111) x");
	survey_general("", buf, sizeof(buf));
	assert_string_equal(buf, "");
	survey_general("(123456789012345678", buf, sizeof(buf));
	assert_string_equal(buf, "(12345678901234");
}

/* Every prefix, and every byte changed: refused or read, never more than that. */
static void garbled(void **state)
{
	struct blob *b = two_objects();
	struct survey_answer a;

	(void)state;
	for (size_t len = 0; len < b->len; len++) {
		uint8_t *exact = malloc(len ? len : 1);
		assert_non_null(exact);
		memcpy(exact, b->data, len);
		assert_false(survey_decode(exact, len, &a));
		free(exact);
	}
	for (size_t at = 0; at < b->len; at++) {
		for (unsigned v = 0; v < 256; v += 5) {
			uint8_t before = b->data[at];
			b->data[at] = (uint8_t)v;
			if (survey_decode(b->data, b->len, &a))
				survey_answer_free(&a);
			b->data[at] = before;
		}
	}
	blob_put(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(round_trip),
	    cmocka_unit_test(sizes),
	    cmocka_unit_test(general),
	    cmocka_unit_test(garbled),
	};

	return cmocka_run_group_tests_name("survey_rows", tests, NULL, NULL);
}
