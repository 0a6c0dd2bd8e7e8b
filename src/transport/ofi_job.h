/* SPDX-License-Identifier: Apache-2.0 */
/* A call that moves bytes over a link, as a walk over its pieces. */
#ifndef TRANSPORT_OFI_JOB_H
#define TRANSPORT_OFI_JOB_H

#include "transport/ofi_link.h"

struct cursor {
	size_t i, row, off; /* piece, row, byte in the row */
};

struct link_job {
	struct link_job *prev, *next;
	const struct smem_xfer *x;
	size_t n;
	bool put;
	struct cursor at;
	unsigned outstanding;
	bool wants; /* the region of `address`; its thread asks */
	uint64_t address;
	int32_t status; /* its own failure: nothing more is posted */
	bool cut;	/* the link broke */
	bool stuck;	/* because nothing moved */
	bool done;
};

struct piece { /* what is left of the row at a cursor */
	uint64_t remote;
	char *local;
	size_t len;
};

static inline bool is_plain(const struct smem_xfer *x)
{
	return x->height == 1 || (x->dpitch == x->width && x->spitch == x->width);
}

static inline struct piece piece_at(const struct link_job *job, struct cursor at)
{
	const struct smem_xfer *x = &job->x[at.i];
	const char *src = (const char *)x->src + at.off;
	char *dst = (char *)x->dst + at.off;
	size_t width = is_plain(x) ? x->width * x->height : x->width;

	if (at.row > 0) {
		src += at.row * x->spitch;
		dst += at.row * x->dpitch;
	}
	return (struct piece){
	    .remote = (uint64_t)(uintptr_t)(job->put ? dst : src),
	    .local = job->put ? (char *)(uintptr_t)src : dst,
	    .len = width - at.off,
	};
}

static inline struct cursor step(const struct link_job *job, struct cursor at, size_t len)
{
	const struct smem_xfer *x = &job->x[at.i];
	bool plain = is_plain(x);
	size_t width = plain ? x->width * x->height : x->width;

	at.off += len;
	if (at.off < width)
		return at;
	at.off = 0;
	if (plain || ++at.row == x->height) {
		at.row = 0;
		at.i++;
	}
	return at;
}

/*
 * Fill an operation with many small pieces that lie side by side at the peer, through a buffer of
 * the operation's; *at goes behind them. False: they are better moved in place. The lock is held.
 */
bool ofi_stage_fill(struct ofi_link *l, struct link_op *op, const struct link_job *job,
		    struct ofi_key *key, struct cursor *at);
/* Such an operation of a read is complete: its bytes go where they belong. */
void ofi_stage_scatter(const struct link_op *op);

#endif
