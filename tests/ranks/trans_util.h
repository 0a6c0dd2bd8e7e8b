/* SPDX-License-Identifier: Apache-2.0 */
/* What the TRANS tests share: sessions of ranks, and memory of every kind. */
#ifndef RANKS_TRANS_UTIL_H
#define RANKS_TRANS_UTIL_H

#include "harness.h"
#include "smem.h"
#include "smem_trans.h"

/* The session of a rank: one name for all its lives. */
const char *trans_name(uint32_t rank);

/* An instance of that name; 30 s. trans_open() must succeed. */
smem_trans_t trans_try(struct rank *r, const char *name, smem_trans_role_t role);
smem_trans_t trans_open(struct rank *r, const char *name, smem_trans_role_t role);

/* Rank 0 hosts the store; all have a session of their own (BOTH); then a barrier. */
smem_trans_t trans_up(struct rank *r);

/* Memory as a user may have it. */
enum mem_kind {
	MEM_HEAP,
	MEM_ANON,      /* private pages */
	MEM_ANON_HUGE, /* transparent huge pages, where there are any */
	MEM_SEALED,    /* shared memfd that cannot shrink: is mapped by peers */
	MEM_SHARED,    /* shared memfd that can */
	MEM_FILE,      /* a shared mapping of a file */
	MEM_KINDS
};
const char *mem_name(enum mem_kind kind);

struct mem {
	enum mem_kind kind;
	char *at;
	size_t len;
	int fd;
};
struct mem mem_new(struct rank *r, enum mem_kind kind, size_t len); /* zeroes */
void mem_free(struct mem *m);

/* Byte i of pattern p; equal bytes of different patterns are rare. */
static inline uint8_t trans_byte(uint64_t p, uint64_t i)
{
	uint64_t x = (p * 0x9e3779b97f4a7c15ull) ^ (i * 0xbf58476d1ce4e5b9ull);

	return (uint8_t)(x >> 29);
}
void trans_fill(void *at, size_t len, uint64_t p, uint64_t first);
bool trans_is(const void *at, size_t len, uint64_t p, uint64_t first);

/* The last error has the form of 2.5 in the specification, that code, and speaks of `what`. */
void trans_message(struct rank *r, const char *function, int32_t code, const char *what);

#endif
