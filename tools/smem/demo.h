/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The demo: what parent (demo.c) and ranks (demo_rank.c) agree on.
 *
 * The data is cut into rounds, a round into one share a rank. A rank reads its share from the
 * files, writes it into the slots of the other ranks, and every other rank reads it back. A share
 * is laid out as the keys and values of a paged attention cache are:
 *
 *   local:  rows of 64 KiB (a token), each 16 pieces of 4 KiB (layers, keys and values by turns)
 *   pool:   cells of 128 KiB: 16 rows, each a piece of keys and one of values; a cell is what one
 *           layer keeps of 16 tokens. Cells go to the other ranks in turn and lie there shuffled.
 *
 * So a cell is two smem_bm_copy_2d() of 4 KiB x 16 rows, pitches 64 KiB here and 8 KiB there. The
 * second half of a share, and what is left of the first, goes as plain copies of 256 KiB.
 */
#ifndef SMEM_TOOL_DEMO_H
#define SMEM_TOOL_DEMO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "demo_data.h"
#include "proc.h"

#define DEMO_PIECE	 4096u
#define DEMO_ROWS	 16u
#define DEMO_ROW_BYTES	 65536u
#define DEMO_CELL_BYTES	 (2u * DEMO_PIECE * DEMO_ROWS)
#define DEMO_GROUP_BYTES ((uint64_t)DEMO_ROW_BYTES * DEMO_ROWS) /* 16 tokens of all layers */
#define DEMO_GROUP_CELLS (DEMO_GROUP_BYTES / DEMO_CELL_BYTES)
#define DEMO_CHUNK	 262144u
#define DEMO_ROUND_MAX	 (256ull << 20)
#define DEMO_DIGEST	 32u
#define DEMO_PATH_MAX	 32u

enum {
	MSG_JOIN = MSG_USER,
	MSG_JOINED,  /* struct demo_joined */
	MSG_ROUND,   /* struct demo_round: read your share and write it to the others */
	MSG_WRITTEN, /* struct demo_written */
	MSG_COPY,    /* DEMO_DIGEST bytes a rank, in packets: read back by copy */
	MSG_LOAD,    /* read back by load */
	MSG_DIGEST,  /* struct demo_digest, one a rank, before MSG_COPY */
	MSG_CHECKED, /* struct demo_checked */
	MSG_PROGRESS /* uint64_t bytes */
};

struct demo_round {
	uint64_t offset; /* in the data */
	uint64_t len;
	uint64_t share; /* bytes of a rank but the last ones */
};

struct demo_joined {
	uint64_t slot;
	char path[DEMO_PATH_MAX];
};

struct demo_written {
	uint64_t bytes;
	double put_s;
	double memcpy_s; /* the same shapes */
	uint8_t digest[DEMO_DIGEST];
};

struct demo_digest {
	uint32_t rank;
	uint8_t digest[DEMO_DIGEST];
};

struct demo_checked {
	uint64_t bytes;
	double get_s; /* MSG_COPY only */
	uint32_t shares;
	uint32_t bad;	    /* shares whose digest differed */
	uint32_t first_bad; /* a rank, if bad */
};

/* Where the parts of a share are. */
struct demo_share {
	uint64_t offset; /* in the data */
	uint64_t len;
	uint64_t cells; /* of 2-D pages */
	uint64_t plain; /* first byte of the share that goes by plain copies */
	uint64_t chunks;
};

static inline uint64_t demo_share_bytes(uint64_t round_len, size_t ranks)
{
	uint64_t even = (round_len + ranks - 1) / ranks;

	return (even + DEMO_GROUP_BYTES - 1) / DEMO_GROUP_BYTES * DEMO_GROUP_BYTES;
}

static inline struct demo_share demo_share_of(const struct demo_round *r, size_t rank)
{
	struct demo_share s = {.offset = r->offset + rank * r->share};
	uint64_t end = r->offset + r->len;

	if (s.offset < end)
		s.len = end - s.offset < r->share ? end - s.offset : r->share;
	uint64_t groups = s.len / DEMO_GROUP_BYTES;
	groups -= groups / 2;
	s.cells = groups * DEMO_GROUP_CELLS;
	s.plain = groups * DEMO_GROUP_BYTES;
	s.chunks = (s.len - s.plain + DEMO_CHUNK - 1) / DEMO_CHUNK;
	return s;
}

/* The ranks that hold a share: all others, or the only one. */
static inline uint64_t demo_holders(size_t ranks)
{
	return ranks > 1 ? ranks - 1 : 1;
}

static inline size_t demo_holder(size_t owner, uint64_t unit, size_t ranks)
{
	return ranks > 1 ? (owner + 1 + unit % (ranks - 1)) % ranks : owner;
}

/* Bytes of one share in one holder's slot; the same for all of them. */
static inline uint64_t demo_region(uint64_t share, size_t ranks)
{
	uint64_t h = demo_holders(ranks), groups = share / DEMO_GROUP_BYTES;
	uint64_t cells = (groups - groups / 2) * DEMO_GROUP_CELLS;
	/* a shorter share has at most so many plain bytes, too */
	uint64_t chunks = (groups / 2 + 1) * DEMO_GROUP_BYTES / DEMO_CHUNK;

	return ((cells + h - 1) / h + 1) * DEMO_CELL_BYTES +
	       ((chunks + h - 1) / h + 1) * DEMO_CHUNK;
}

static inline uint64_t demo_slot(uint64_t share, size_t ranks)
{
	uint64_t bytes = demo_region(share, ranks) * ranks, page = 2ull << 20;

	return (bytes + page - 1) / page * page;
}

int demo_rank(struct child *c);

#endif
