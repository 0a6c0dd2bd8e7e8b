/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counted bytes, and writing and reading fields of them, little-endian. A blob belongs to one
 * thread at a time: its count is not atomic. Readers and writers remember a failure, so a caller
 * checks once, at the end.
 */
#ifndef STORE_BLOB_H
#define STORE_BLOB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct blob {
	uint32_t refs;
	uint32_t len;
	uint8_t data[];
};

struct span {
	const uint8_t *data;
	size_t len;
};

struct blob *blob_new(const void *data, size_t len); /* NULL: no memory */
struct blob *blob_get(struct blob *b);
void blob_put(struct blob *b); /* NULL is fine */

static inline struct span blob_span(const struct blob *b)
{
	return b ? (struct span){b->data, b->len} : (struct span){NULL, 0};
}

bool span_equal(struct span a, struct span b);

struct writer {
	struct blob *blob;
	size_t cap;
	bool failed;
};

void write_u8(struct writer *w, uint8_t v);
void write_u32(struct writer *w, uint32_t v);
void write_u64(struct writer *w, uint64_t v);
void write_bytes(struct writer *w, const void *data, size_t len);
void write_span(struct writer *w, struct span s); /* u32 length, bytes */
/* The bytes written, the caller's now; NULL when memory ran out or it became too long. */
struct blob *writer_done(struct writer *w);

struct reader {
	const uint8_t *at;
	const uint8_t *end;
	bool failed;
};

static inline struct reader reader_of(const void *data, size_t len)
{
	const uint8_t *p = data;

	return (struct reader){.at = p, .end = len ? p + len : p};
}

uint8_t read_u8(struct reader *r);
uint32_t read_u32(struct reader *r);
uint64_t read_u64(struct reader *r);
struct span read_span(struct reader *r);  /* points into what is read */
bool reader_done(const struct reader *r); /* nothing failed, nothing left */

#endif
