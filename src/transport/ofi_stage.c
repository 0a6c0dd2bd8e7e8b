/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An operation has a few segments (four with libfabric's TCP providers) and costs microseconds, so
 * rows of some bytes are slow one operation for four. Where they lie side by side at the peer, one
 * segment there can serve hundreds of them here, through a buffer: a write gathers them, a read
 * scatters what came. A read may take gaps along that are no larger than the pieces between them,
 * or cost no more than an operation would; a write never touches them, so small rows that lie apart
 * at the peer stay slow.
 *
 * Not with providers that want local memory registered: they have longer lists, and the buffers
 * would have to be registered too.
 */
#include <stdlib.h>
#include <string.h>

#include "transport/ofi_job.h"

void ofi_stage_scatter(const struct link_op *op)
{
	const struct link_job *job = op->job;
	struct cursor at = {op->at[0], op->at[1], op->at[2]};

	for (unsigned k = 0; !job->put && k < op->pieces; k++) {
		struct piece p = piece_at(job, at);
		memcpy(p.local, op->stage + (p.remote - op->begin), p.len);
		at = step(job, at, p.len);
	}
}

static void gather(const struct link_op *op, const struct link_job *job, struct cursor at)
{
	for (unsigned k = 0; job->put && k < op->pieces; k++) {
		struct piece p = piece_at(job, at);
		memcpy(op->stage + (p.remote - op->begin), p.local, p.len);
		at = step(job, at, p.len);
	}
}

/* What may lie between two pieces at the peer. */
static size_t gap_of(const struct link_job *job, size_t len)
{
	if (job->put)
		return 0;
	return len > OFI_STAGE_GAP ? len : OFI_STAGE_GAP;
}

/* How many pieces from *at on fit: behind the last of them is *at then, and *ret_end at the peer.
 */
static unsigned run(const struct link_job *job, const struct ofi_key *key, struct cursor *at,
		    uint64_t *ret_end, unsigned *ret_segments)
{
	uint64_t begin = piece_at(job, *at).remote, end = begin;
	const char *local_end = NULL;
	unsigned pieces = 0, segments = 0;

	while (at->i < job->n) {
		struct piece p = piece_at(job, *at);
		if (p.remote < end || p.len > OFI_STAGE_PIECE ||
		    p.remote - end > gap_of(job, p.len) || p.len > key->end - p.remote ||
		    p.remote + p.len - begin > OFI_STAGE)
			break;
		segments += p.remote != end || p.local != local_end;
		end = p.remote + p.len;
		local_end = p.local + p.len;
		*at = step(job, *at, p.len);
		pieces++;
	}
	*ret_end = end;
	*ret_segments = segments;
	return pieces;
}

bool ofi_stage_fill(struct ofi_link *l, struct link_op *op, const struct link_job *job,
		    struct ofi_key *key, struct cursor *at)
{
	struct cursor from = *at, behind = *at;
	uint64_t begin = piece_at(job, from).remote, end;
	unsigned segments;

	if (l->memory.on)
		return false;
	unsigned pieces = run(job, key, &behind, &end, &segments);
	if (segments <= l->segments)
		return false;
	if (!op->stage && !(op->stage = malloc(OFI_STAGE)))
		return false;
	op->pieces = pieces;
	op->at[0] = from.i;
	op->at[1] = from.row;
	op->at[2] = from.off;
	op->begin = begin;
	gather(op, job, from);
	op->n = 1;
	op->bytes = end - begin;
	op->local[0] = (struct iovec){.iov_base = op->stage, .iov_len = op->bytes};
	op->remote[0] = (struct fi_rma_iov){
	    .addr = key->rma + (begin - key->begin), .len = op->bytes, .key = key->key};
	op->key[0] = key;
	op->reg[0] = NULL;
	op->desc[0] = NULL;
	key->inflight++;
	*at = behind;
	return true;
}
