/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bodies of requests are described by a table of letters, one per field, which drives encoder
 * and decoder alike: they cannot disagree. Decoders take any bytes and never read outside of them.
 */
#include "store/proto.h"

#include <string.h>

#include "util/limits.h"

/* f flags, i index, n size, m numbers, c code, t timeout, g gid, q seq, v value, a align,
 * k key, d val, x extra, s sort */
static const struct {
	const char *name;
	const char *fields; /* NULL: no request */
} ops[OP_END] = {
    [OP_ACK] = {"ack", ""},
    [OP_BYE] = {"bye", ""},
    [OP_CANCEL] = {"cancel", "qg"},
    [OP_SET] = {"set", "fkd"},
    [OP_GET] = {"get", "ftk"},
    [OP_DEL] = {"del", "k"},
    [OP_ADD] = {"add", "kv"},
    [OP_CAS] = {"cas", "fkxd"},
    [OP_APPEND] = {"append", "kd"},
    [OP_GATHER] = {"gather", "tkind"},
    [OP_WATCH] = {"watch", "qk"},
    [OP_UNWATCH] = {"unwatch", "q"},
    [OP_USABLE] = {"usable", "d"},
    [OP_HOLD] = {"hold", "kva"},
    [OP_RELEASE] = {"release", "k"},
    [OP_ENTER] = {"enter", "tgfinmkxds"},
    [OP_GROUP_ACK] = {"group ack", "gqcx"},
    [OP_FENCE] = {"fence", "tgq"},
    [OP_ROUND] = {"round", "tgxd"},
    [OP_BLOB] = {"blob", "gd"},
    [OP_NOTE] = {"note", "gfd"},
    [OP_LEAVE] = {"leave", "tgf"},
    [OP_SET_ROUND] = {"set round", "tgqsxd"},
    [OP_SETTLE] = {"settle", "gqx"},
    [OP_PRESENT] = {"present", "gfx"},
    [OP_SURVEY] = {"survey", "t"},
    [OP_ANSWER] = {"answer", "qd"},
};

const char *proto_op_name(uint16_t op)
{
	return op < OP_END && ops[op].name ? ops[op].name : "unknown";
}

static uint32_t get_u32(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void put_u32(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)v;
	p[1] = (uint8_t)(v >> 8);
	p[2] = (uint8_t)(v >> 16);
	p[3] = (uint8_t)(v >> 24);
}

void frame_head_put(uint8_t out[FRAME_HEAD], const struct frame_head *head)
{
	put_u32(out, head->len);
	put_u32(out + 4, (uint32_t)head->op | (uint32_t)PROTO_MAGIC << 16);
	put_u32(out + 8, (uint32_t)head->id);
	put_u32(out + 12, (uint32_t)(head->id >> 32));
	put_u32(out + 16, head->number);
	put_u32(out + 20, head->received);
}

bool frame_head_get(const uint8_t in[FRAME_HEAD], uint32_t max, struct frame_head *ret)
{
	struct frame_head head = {
	    .len = get_u32(in),
	    .op = (uint16_t)get_u32(in + 4),
	    .id = (uint64_t)get_u32(in + 8) | (uint64_t)get_u32(in + 12) << 32,
	    .number = get_u32(in + 16),
	    .received = get_u32(in + 20),
	};

	if (get_u32(in + 4) >> 16 != PROTO_MAGIC || head.len > max)
		return false;
	*ret = head;
	return true;
}

static void write_token(struct writer *w, const uint8_t token[TOKEN_LEN])
{
	write_span(w, (struct span){token, TOKEN_LEN});
}

static void read_token(struct reader *r, uint8_t token[TOKEN_LEN])
{
	struct span s = read_span(r);

	if (s.len != TOKEN_LEN)
		r->failed = true;
	else
		memcpy(token, s.data, TOKEN_LEN);
}

struct blob *hello_encode(const struct hello *h)
{
	struct writer w = {.blob = NULL};

	write_u64(&w, HELLO_MAGIC);
	write_u32(&w, h->version_min);
	write_u32(&w, h->version_max);
	write_u64(&w, h->client_id);
	write_u8(&w, h->resume);
	write_token(&w, h->token);
	write_u32(&w, h->received);
	return writer_done(&w);
}

bool hello_decode(const uint8_t *data, size_t len, struct hello *ret)
{
	struct reader r = reader_of(data, len);
	struct hello h = {.resume = false};

	if (read_u64(&r) != HELLO_MAGIC)
		return false;
	h.version_min = read_u32(&r);
	h.version_max = read_u32(&r);
	h.client_id = read_u64(&r);
	h.resume = read_u8(&r) != 0;
	read_token(&r, h.token);
	h.received = read_u32(&r);
	if (r.failed) /* a later version may say more */
		return false;
	*ret = h;
	return true;
}

struct blob *welcome_encode(const struct welcome *w)
{
	struct writer out = {.blob = NULL};

	write_u64(&out, HELLO_MAGIC);
	write_u32(&out, (uint32_t)w->code);
	write_u32(&out, w->version);
	write_u8(&out, w->resumed);
	write_token(&out, w->token);
	write_u32(&out, w->received);
	write_span(&out, w->text);
	return writer_done(&out);
}

bool welcome_decode(const uint8_t *data, size_t len, struct welcome *ret)
{
	struct reader r = reader_of(data, len);
	struct welcome w = {.code = 0};

	if (read_u64(&r) != HELLO_MAGIC)
		return false;
	w.code = (int32_t)read_u32(&r);
	w.version = read_u32(&r);
	w.resumed = read_u8(&r) != 0;
	read_token(&r, w.token);
	w.received = read_u32(&r);
	w.text = read_span(&r);
	if (r.failed)
		return false;
	*ret = w;
	return true;
}

static uint32_t *field_u32(struct request *req, char field)
{
	switch (field) {
	case 'f':
		return &req->flags;
	case 'i':
		return &req->index;
	case 'n':
		return &req->size;
	case 'm':
		return &req->numbers;
	default:
		return NULL;
	}
}

static uint64_t *field_u64(struct request *req, char field)
{
	switch (field) {
	case 't':
		return &req->timeout_ms;
	case 'g':
		return &req->gid;
	case 'q':
		return &req->seq;
	case 'v':
		return &req->value;
	case 'a':
		return &req->align;
	default:
		return NULL;
	}
}

static struct span *field_span(struct request *req, char field)
{
	switch (field) {
	case 'k':
		return &req->key;
	case 'd':
		return &req->val;
	case 'x':
		return &req->extra;
	default:
		return &req->sort;
	}
}

struct blob *request_encode(const struct request *req)
{
	struct request copy = *req;
	struct writer w = {.blob = NULL};
	const char *fields = req->op < OP_END ? ops[req->op].fields : NULL;

	for (const char *f = fields; f && *f; f++) {
		if (*f == 'c')
			write_u32(&w, (uint32_t)copy.code);
		else if (field_u32(&copy, *f))
			write_u32(&w, *field_u32(&copy, *f));
		else if (field_u64(&copy, *f))
			write_u64(&w, *field_u64(&copy, *f));
		else
			write_span(&w, *field_span(&copy, *f));
	}
	return writer_done(&w);
}

bool request_decode(uint16_t op, const uint8_t *data, size_t len, struct request *ret)
{
	struct reader r = reader_of(data, len);
	struct request req = {.op = op, .id = ret->id};
	const char *fields = op < OP_END ? ops[op].fields : NULL;

	if (!fields)
		return false;
	for (const char *f = fields; *f; f++) {
		if (*f == 'c')
			req.code = (int32_t)read_u32(&r);
		else if (field_u32(&req, *f))
			*field_u32(&req, *f) = read_u32(&r);
		else if (field_u64(&req, *f))
			*field_u64(&req, *f) = read_u64(&r);
		else
			*field_span(&req, *f) = read_span(&r);
	}
	if (!reader_done(&r))
		return false;
	*ret = req;
	return true;
}

static bool names_a_key(uint16_t op)
{
	return (op >= OP_SET && op <= OP_WATCH) || op == OP_HOLD || op == OP_RELEASE ||
	       op == OP_ENTER;
}

const char *request_wrong(const struct request *req)
{
	if (names_a_key(req->op) && (req->key.len == 0 || req->key.len > STORE_KEY_MAX))
		return "a key that is empty or too long";
	size_t max = req->op == OP_SET_ROUND ? STORE_SET_VALUE_MAX : STORE_VALUE_MAX;
	if (req->val.len > max || req->extra.len > STORE_VALUE_MAX || req->sort.len > STORE_KEY_MAX)
		return "a value that is too long";
	return NULL;
}

uint32_t request_max(uint16_t op)
{
	return op == OP_SET_ROUND ? STORE_SET_REQUEST_MAX : STORE_REQUEST_MAX;
}

void write_set(struct writer *w, const struct set *s)
{
	uint8_t bytes[SET_WORDS * 8];
	size_t len = 0;
	uint32_t i;

	memset(bytes, 0, sizeof(bytes));
	SET_FOREACH(i, s)
	{
		bytes[i / 8] |= (uint8_t)(1u << (i % 8));
		len = i / 8 + 1;
	}
	write_span(w, (struct span){bytes, len});
}

bool set_decode(struct span in, struct set *ret)
{
	struct set s = {.word = {0}};

	if (in.len > SET_WORDS * 8)
		return false;
	for (size_t i = 0; i < in.len; i++)
		s.word[i / 8] |= (uint64_t)in.data[i] << (i % 8 * 8);
	*ret = s;
	return true;
}

void event_encode(struct writer *w, const struct proto_event *e)
{
	write_u8(w, e->kind);
	write_u32(w, e->member);
	write_u64(w, e->seq);
	write_u64(w, e->incarnation);
	write_span(w, e->data);
}

bool event_decode(struct reader *r, struct proto_event *ret)
{
	struct proto_event e = {.kind = read_u8(r)};

	e.member = read_u32(r);
	e.seq = read_u64(r);
	e.incarnation = read_u64(r);
	e.data = read_span(r);
	if (r->failed)
		return false;
	*ret = e;
	return true;
}
