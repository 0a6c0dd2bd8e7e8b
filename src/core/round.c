/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A collective is one gather at the store, a barrier a gather of nothing. Its kind is the number of
 * bytes each rank contributes, so that unlike calls meet and are told apart there. Stores made
 * before a call are ordered before its request, and those after it behind the reply.
 */
#include "core/round.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "util/err.h"

void round_init(struct round *round, uint32_t rank, uint32_t size)
{
	*round = (struct round){.rank = rank, .size = size};
}

static const char *kind_text(const struct store_bytes *kind, char buf[32])
{
	uint32_t len = 0;

	if (kind->len == sizeof(len))
		memcpy(&len, kind->data, sizeof(len));
	if (len == 0)
		return "barrier";
	snprintf(buf, 32, "allgather of %u bytes", len);
	return buf;
}

static int32_t err_unlike(const struct store_conflict *c)
{
	char a[32], b[32];

	return smem_err(SMEM_INVALID_PARAM, "the ranks made unlike calls: %s: rank %u; %s: rank %u",
			kind_text(&c->spec, a), c->member, kind_text(&c->own_spec, b), c->own);
}

static int32_t run(struct round *round, struct store_group *group, const void *send, uint32_t len,
		   void *recv, struct deadline deadline)
{
	struct store_conflict conflict = {0};
	struct store_gathered got = {0};

	if (!turn_take(&round->turn, deadline))
		return smem_err(SMEM_TIMEOUT,
				"another thread of rank %u was inside for all of %" PRIu64 " ms",
				round->rank, deadline_elapsed_ms(deadline));
	auto_turn turn = &round->turn;
	int32_t r =
	    store_group_gather(group, &len, sizeof(len), send, len, deadline, &conflict, &got);
	if (r == SMEM_INVALID_PARAM)
		r = err_unlike(&conflict);
	for (uint32_t i = 0; r == SMEM_OK && len > 0 && i < round->size; i++) {
		if (i >= got.size || got.part[i].len != len)
			r = smem_err(SMEM_IO, "rank %u contributed other than %u bytes", i, len);
		else
			memcpy((char *)recv + (size_t)i * len, got.part[i].data, len);
	}
	store_gathered_free(&got);
	store_bytes_free(&conflict.spec);
	store_bytes_free(&conflict.own_spec);
	return r;
}

int32_t round_barrier(struct round *round, struct store_group *group, struct deadline deadline)
{
	return run(round, group, NULL, 0, NULL, deadline);
}

int32_t round_allgather(struct round *round, struct store_group *group, const void *send,
			uint32_t len, void *recv, struct deadline deadline)
{
	return run(round, group, send, len, recv, deadline);
}
