/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A thousand peers have few reasons between them, so texts are written once. Whoever reads is a
 * tool that shows what strangers said: numbers are checked against what was read before, texts lose
 * everything a terminal would obey.
 */
#include "core/survey_rows.h"

#include <stdlib.h>
#include <string.h>

#include "util/limits.h"

enum tag { TAG_END, TAG_TEXT, TAG_WAY, TAG_OBJECT, TAG_ROW, TAG_CUT };

#define SLOTS	     (2 * SURVEY_TEXTS_MAX)
#define RECORD_ROOM  256u /* more than a way and any record but a text need */
#define ROW_TEXTS    (3 + 2 * SURVEY_REFUSED_MAX)
#define TEXT_ROOM(n) (5 + (n))

/* ---- writing ---- */

struct survey_entry {
	size_t at, len; /* in what is written */
	uint32_t hash;
};

static bool table_init(struct survey_table *t)
{
	*t = (struct survey_table){.entry = calloc(SURVEY_TEXTS_MAX, sizeof(*t->entry)),
				   .slot = calloc(SLOTS, sizeof(*t->slot))};
	return t->entry && t->slot;
}

static void table_deinit(struct survey_table *t)
{
	free(t->entry);
	free(t->slot);
}

void survey_begin(struct survey_writer *w, size_t most, bool brief)
{
	*w = (struct survey_writer){.most = most, .brief = brief};
	w->out.failed = !table_init(&w->text);
	w->out.failed |= !table_init(&w->way);
}

void survey_process(struct survey_writer *w, const char *host_name, uint64_t host, uint32_t pid)
{
	write_u32(&w->out, SURVEY_ROWS_VERSION);
	write_u32(&w->out, pid);
	write_u64(&w->out, host);
	write_span(&w->out, (struct span){(const uint8_t *)host_name, strlen(host_name)});
}

static size_t used(const struct survey_writer *w)
{
	return w->out.blob ? w->out.blob->len : 0;
}

static size_t text_len(const char *s)
{
	return s ? strnlen(s, SURVEY_TEXT_MAX) : 0;
}

/* Is there room for a record with these texts, should all of them be new? If not it is the end. */
static bool fits(struct survey_writer *w, const char *const *text, size_t n)
{
	size_t need = 2 * (size_t)RECORD_ROOM;

	for (size_t i = 0; i < n; i++)
		need += TEXT_ROOM(text_len(text[i]));
	if (w->cut || w->out.failed || w->text.n + n > SURVEY_TEXTS_MAX ||
	    w->way.n >= SURVEY_TEXTS_MAX || used(w) + need > w->most)
		w->cut = true;
	return !w->cut;
}

static uint32_t hash_of(const uint8_t *s, size_t len)
{
	uint32_t h = 2166136261u;

	for (size_t i = 0; i < len; i++)
		h = (h ^ s[i]) * 16777619u;
	return h;
}

/* The number of these bytes in a table, 0 none; *ret_slot is where it is, or would be. */
static uint32_t find(const struct survey_writer *w, const struct survey_table *t,
		     const uint8_t *data, size_t len, uint32_t *ret_slot)
{
	uint32_t hash = hash_of(data, len), i = hash % SLOTS;

	for (; t->slot[i]; i = (i + 1) % SLOTS) {
		const struct survey_entry *e = &t->entry[t->slot[i] - 1];
		if (e->hash == hash && e->len == len &&
		    memcmp(w->out.blob->data + e->at, data, len) == 0)
			break;
	}
	*ret_slot = i;
	return t->slot[i];
}

/* It was written just now, at the end. */
static uint32_t note(const struct survey_writer *w, struct survey_table *t, size_t len,
		     uint32_t slot)
{
	if (w->out.failed)
		return 0;
	size_t at = used(w) - len;
	t->entry[t->n] = (struct survey_entry){
	    .at = at, .len = len, .hash = hash_of(w->out.blob->data + at, len)};
	t->slot[slot] = ++t->n;
	return t->n;
}

static uint32_t text_number(struct survey_writer *w, const char *s)
{
	size_t len = text_len(s);
	uint32_t slot;

	if (len == 0 || w->out.failed)
		return 0;
	uint32_t number = find(w, &w->text, (const uint8_t *)s, len, &slot);
	if (number)
		return number;
	write_u8(&w->out, TAG_TEXT);
	write_span(&w->out, (struct span){(const uint8_t *)s, len});
	return note(w, &w->text, len, slot);
}

static uint32_t way_number(struct survey_writer *w, const struct survey_row *row,
			   const uint32_t *text, uint32_t n)
{
	struct writer way = {.blob = NULL};
	uint32_t slot, number = 0;

	write_u8(&way, (uint8_t)row->state);
	write_u8(&way, row->shared);
	write_u64(&way, row->host);
	write_u8(&way, (uint8_t)((n - 2) / 2));
	for (uint32_t i = 0; i < n; i++)
		write_u32(&way, text[i]);
	struct blob *b = writer_done(&way);
	w->out.failed |= !b;
	if (w->out.failed) {
		blob_put(b);
		return 0;
	}
	number = find(w, &w->way, b->data, b->len, &slot);
	if (!number) {
		write_u8(&w->out, TAG_WAY);
		write_bytes(&w->out, b->data, b->len);
		number = note(w, &w->way, b->len, slot);
	}
	blob_put(b);
	return number;
}

void survey_object(struct survey_writer *w, const struct survey_object *o)
{
	if (!fits(w, &o->name, 1))
		return;
	uint32_t name = text_number(w, o->name);
	write_u8(&w->out, TAG_OBJECT);
	write_u8(&w->out, (uint8_t)o->kind);
	write_u8(&w->out, o->joined);
	write_u32(&w->out, name);
	write_u32(&w->out, o->rank);
	write_u32(&w->out, o->world);
}

void survey_general(const char *why, char *buf, size_t cap)
{
	size_t n = 0;

	while (*why && n + 1 < cap) {
		size_t digits = strspn(why, "0123456789");
		bool code = n > 0 && buf[n - 1] == '(';
		if (digits && !code) {
			buf[n++] = 'N';
			why += digits;
			continue;
		}
		for (size_t len = digits ? digits : 1; len > 0 && n + 1 < cap; len--)
			buf[n++] = *why++;
	}
	buf[n] = '\0';
}

void survey_row(struct survey_writer *w, const struct survey_row *row)
{
	char general[SURVEY_REFUSED_MAX][SURVEY_TEXT_MAX];
	const char *text[ROW_TEXTS] = {row->name, row->path, row->via};
	uint32_t number[ROW_TEXTS], n = 3;

	for (uint32_t i = 0; i < row->refused_n && i < SURVEY_REFUSED_MAX; i++) {
		const char *why = row->refused[i].why ? row->refused[i].why : "";
		if (w->brief)
			survey_general(why, general[i], sizeof(general[i]));
		text[n++] = row->refused[i].path;
		text[n++] = w->brief ? general[i] : why;
	}
	if (!fits(w, text, n))
		return;
	for (uint32_t i = 0; i < n; i++)
		number[i] = text_number(w, text[i]);
	uint32_t way = way_number(w, row, number + 1, n - 1);
	write_u8(&w->out, TAG_ROW);
	write_u32(&w->out, row->rank);
	write_u32(&w->out, row->pid);
	write_u32(&w->out, number[0]);
	write_u32(&w->out, way);
}

struct blob *survey_end(struct survey_writer *w)
{
	if (w->cut)
		write_u8(&w->out, TAG_CUT);
	write_u8(&w->out, TAG_END);
	table_deinit(&w->text);
	table_deinit(&w->way);
	return writer_done(&w->out);
}

/* ---- reading ---- */

struct decoder {
	struct reader in;
	struct survey_answer a;
	struct survey_row *way; /* what rows of this way have alike */
	uint32_t way_n;
	uint32_t text_cap, way_cap, object_cap, row_cap; /* row: of the last object */
};

/* One more entry of an array that doubles. */
static bool grow(void **array, uint32_t n, uint32_t *cap, size_t size)
{
	if (n < *cap)
		return true;
	uint32_t want = *cap ? *cap * 2 : 8;
	void *more = realloc(*array, want * size);
	if (!more)
		return false;
	*array = more;
	*cap = want;
	return true;
}

static bool add_text(struct decoder *d, struct span s)
{
	void *array = d->a.text;

	if (d->in.failed || s.len > SURVEY_TEXT_MAX || d->a.text_n > SURVEY_TEXTS_MAX ||
	    !grow(&array, d->a.text_n, &d->text_cap, sizeof(*d->a.text)))
		return false;
	d->a.text = array;
	char *copy = malloc(s.len + 1);
	if (!copy)
		return false;
	for (size_t i = 0; i < s.len; i++)
		copy[i] = s.data[i] >= ' ' && s.data[i] <= '~' ? (char)s.data[i] : '?';
	copy[s.len] = '\0';
	d->a.text[d->a.text_n++] = copy;
	return true;
}

/* Texts are heap blocks of their own, so pointers to them stay while the table grows. */
static const char *text_of(struct decoder *d)
{
	uint32_t number = read_u32(&d->in);

	if (d->in.failed || number >= d->a.text_n) {
		d->in.failed = true;
		return "";
	}
	return d->a.text[number];
}

static bool read_object(struct decoder *d)
{
	struct survey_object o = {.kind = (enum survey_kind)read_u8(&d->in)};
	void *array = d->a.object;

	o.joined = read_u8(&d->in) != 0;
	o.name = text_of(d);
	o.rank = read_u32(&d->in);
	o.world = read_u32(&d->in);
	if (d->in.failed || o.kind >= SURVEY_KINDS || o.world > WORLD_MAX ||
	    (o.kind != SURVEY_TRANS && o.rank >= o.world) ||
	    !grow(&array, d->a.n, &d->object_cap, sizeof(o)))
		return false;
	d->a.object = array;
	d->a.object[d->a.n++] = o;
	d->row_cap = 0;
	return true;
}

static bool read_way(struct decoder *d)
{
	struct survey_row way = {.state = (enum survey_state)read_u8(&d->in)};
	void *array = d->way;

	way.shared = read_u8(&d->in) != 0;
	way.host = read_u64(&d->in);
	way.refused_n = read_u8(&d->in);
	way.path = text_of(d);
	way.via = text_of(d);
	if (d->in.failed || way.state >= SURVEY_STATES || way.refused_n > SURVEY_REFUSED_MAX)
		return false;
	for (uint32_t i = 0; i < way.refused_n; i++) {
		way.refused[i].path = text_of(d);
		way.refused[i].why = text_of(d);
	}
	if (d->in.failed || !grow(&array, d->way_n, &d->way_cap, sizeof(way)))
		return false;
	d->way = array;
	d->way[d->way_n++] = way;
	return true;
}

static bool read_row(struct decoder *d)
{
	uint32_t rank = read_u32(&d->in), pid = read_u32(&d->in);
	const char *name = text_of(d);
	uint32_t way = read_u32(&d->in);

	if (d->in.failed || way == 0 || way > d->way_n || d->a.n == 0)
		return false;
	struct survey_row row = d->way[way - 1];
	row.rank = rank;
	row.pid = pid;
	row.name = name;
	struct survey_object *o = &d->a.object[d->a.n - 1];
	void *array = o->row;
	if ((o->kind != SURVEY_TRANS && (rank >= o->world || o->n >= o->world)) ||
	    !grow(&array, o->n, &d->row_cap, sizeof(row)))
		return false;
	o->row = array;
	o->row[o->n++] = row;
	return true;
}

static bool read_records(struct decoder *d)
{
	for (;;) {
		bool ok = false;
		switch ((enum tag)read_u8(&d->in)) {
		case TAG_END:
			return reader_done(&d->in);
		case TAG_TEXT:
			ok = add_text(d, read_span(&d->in));
			break;
		case TAG_WAY:
			ok = read_way(d);
			break;
		case TAG_OBJECT:
			ok = read_object(d);
			break;
		case TAG_ROW:
			ok = read_row(d);
			break;
		case TAG_CUT:
			ok = d->a.cut = true;
			break;
		}
		if (!ok || d->in.failed)
			return false;
	}
}

bool survey_decode(const void *data, size_t len, struct survey_answer *ret)
{
	struct decoder d = {.in = reader_of(data, len)};
	static const uint8_t none[1];

	bool ok = read_u32(&d.in) == SURVEY_ROWS_VERSION;
	d.a.pid = read_u32(&d.in);
	d.a.host = read_u64(&d.in);
	struct span name = read_span(&d.in);
	/* number 0 is no text; the host's name is kept behind all others */
	ok = ok && !d.in.failed && add_text(&d, (struct span){none, 0}) && read_records(&d) &&
	     add_text(&d, name);
	free(d.way);
	if (!ok) {
		survey_answer_free(&d.a);
		return false;
	}
	d.a.host_name = d.a.text[d.a.text_n - 1];
	*ret = d.a;
	return true;
}

void survey_answer_free(struct survey_answer *a)
{
	for (uint32_t i = 0; i < a->n; i++)
		free(a->object[i].row);
	for (uint32_t i = 0; i < a->text_n; i++)
		free(a->text[i]);
	free(a->object);
	free(a->text);
	*a = (struct survey_answer){.n = 0};
}
