/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a tool that surveys reads from strangers: the store's reply, and in it the processes'
 * answers. Whatever the bytes, what is read is consistent and printable.
 */
#include <stdlib.h>
#include <string.h>

#include "core/survey_rows.h"
#include "fuzz.h"
#include "store/reply.h"
#include "util/limits.h"

#define CHECK(x)                                                                                   \
	do {                                                                                       \
		if (!(x))                                                                          \
			__builtin_trap();                                                          \
	} while (0)

static void check_text(const char *s)
{
	CHECK(s && strlen(s) <= STORE_VALUE_MAX);
	for (; *s; s++)
		CHECK(*s >= ' ' && *s <= '~');
}

static void check_row(const struct survey_object *o, const struct survey_row *row)
{
	CHECK(row->state < SURVEY_STATES && row->refused_n <= SURVEY_REFUSED_MAX);
	CHECK(o->kind == SURVEY_TRANS || row->rank < o->world);
	check_text(row->name);
	check_text(row->path);
	check_text(row->via);
	for (uint32_t i = 0; i < row->refused_n; i++) {
		check_text(row->refused[i].path);
		check_text(row->refused[i].why);
	}
}

static void check_answer(const void *data, size_t len)
{
	struct survey_answer a;

	if (!survey_decode(data, len, &a))
		return;
	check_text(a.host_name);
	for (uint32_t i = 0; i < a.n; i++) {
		const struct survey_object *o = &a.object[i];
		CHECK(o->kind < SURVEY_KINDS && o->world <= WORLD_MAX);
		check_text(o->name);
		for (uint32_t k = 0; k < o->n; k++)
			check_row(o, &o->row[k]);
	}
	survey_answer_free(&a);
}

static void check_reply(const uint8_t *data, size_t len)
{
	struct store_survey s;

	if (survey_read(data, len, &s) != 0)
		return;
	for (uint32_t i = 0; i < s.n; i++) {
		const struct store_surveyed *c = &s.client[i];
		CHECK(c->state < STORE_SURVEY_STATES && c->held_n <= STORE_SURVEY_HELD_MAX);
		CHECK(memchr(c->address, 0, sizeof(c->address)));
		for (uint32_t k = 0; k < c->held_n; k++)
			CHECK(c->held[k].name && c->held[k].kind < STORE_HELD_KINDS);
		check_answer(c->answer.data, c->answer.len);
	}
	store_survey_free(&s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *exact = malloc(size ? size : 1);

	CHECK(exact);
	if (size)
		memcpy(exact, data, size);
	check_answer(exact, size);
	check_reply(exact, size);
	free(exact);
	return 0;
}

static struct blob *seed_answer(unsigned n)
{
	struct survey_writer w;

	survey_begin(&w, 4096, n % 3 == 0);
	survey_process(&w, "host", n, 1);
	for (unsigned o = 0; o < n % 4; o++) {
		survey_object(&w, &(struct survey_object){.kind = (enum survey_kind)(o % 3),
							  .name = o == 2 ? "1.2.3.4:5" : "bm/1",
							  .world = 8,
							  .joined = true});
		for (unsigned i = 1; i < 2 + n / 4; i++) {
			struct survey_row row = {.rank = i % 8,
						 .name = o == 2 ? "1.2.3.4:6" : "",
						 .path = i % 2 ? "direct" : "ofi",
						 .via = i % 2 ? "" : "tcp",
						 .refused_n = i % SURVEY_REFUSED_MAX};
			for (unsigned k = 0; k < row.refused_n; k++)
				row.refused[k] = (struct survey_refusal){"cma", "it is elsewhere"};
			survey_row(&w, &row);
		}
	}
	return survey_end(&w);
}

/* Even numbers an answer, odd ones a reply with one that answered and one that did not. */
static struct blob *seed(unsigned n)
{
	struct blob *answer = seed_answer(n / 2);
	struct writer w = {.blob = NULL};
	static const uint8_t text[] = "bm/1 at 10.0.0.1:99";

	if (n % 2 == 0 || !answer)
		return answer;
	write_u32(&w, 2);
	write_u8(&w, STORE_SURVEY_ANSWERED);
	write_span(&w, (struct span){text + 8, 11});
	write_span(&w, blob_span(answer));
	write_u32(&w, 0);
	write_u8(&w, STORE_SURVEY_SILENT);
	write_span(&w, (struct span){text + 8, 11});
	write_span(&w, (struct span){NULL, 0});
	write_u32(&w, 1);
	write_u8(&w, STORE_HELD_MEMBER);
	write_u32(&w, 3);
	write_span(&w, (struct span){text, 4});
	blob_put(answer);
	return writer_done(&w);
}

size_t fuzz_seed(unsigned n, uint8_t *buf, size_t cap)
{
	struct blob *b = n < 16 ? seed(n) : NULL;
	size_t len = b && b->len <= cap ? b->len : 0;

	if (len)
		memcpy(buf, b->data, len);
	blob_put(b);
	return len;
}
