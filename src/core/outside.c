/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What travels for a set of ranks: the kind of each, 4 bytes, and then what each contributes, in
 * the order of their numbers. Kinds are compared here and not at the store, so that a message can
 * name every rank. The areas of the other ranks are reserved before anything is sent: once the
 * store has let a round complete nothing may fail any more.
 *
 * The store knows a round by its number, which every host counts by itself. They differ only when
 * an answer of the store was lost for good: then the store says that this round is over, its ranks
 * here have been told of a time-out, and the count here is behind by one: `skew`.
 */
#include "core/outside.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "util/cleanup.h"
#include "util/err.h"

static uint32_t store_round(const struct control *page, uint32_t round)
{
	return htole32((round + atomic_load(&page->head->skew)) & CONTROL_ROUNDS);
}

static uint32_t kind_of(const struct control *page, uint32_t rank, uint32_t round)
{
	return atomic_load_explicit(&control_rank(page, rank)->kind[round & 1],
				    memory_order_relaxed);
}

/* ---- to the store ---- */

static int32_t reserve(struct outside *o, const struct control *page)
{
	if (o->reserved)
		return SMEM_OK;
	int32_t r = control_reserve(page, control_data(page, 0), 2ull * page->size * CONTROL_AREA);
	o->reserved = r == SMEM_OK;
	return r;
}

/* *ret: malloc'ed. */
static int32_t collect(struct outside *o, const struct control *page, uint32_t round, char **ret,
		       size_t *ret_len)
{
	uint32_t i, head = 4 * set_count(&o->set), largest = 0;
	size_t len = head;

	SET_FOREACH(i, &o->set)
	{
		uint32_t kind = kind_of(page, i, round);
		if (kind > ALLGATHER_MAX)
			return smem_err(SMEM_IO, "rank %u contributes %u bytes", i, kind);
		largest = kind > largest ? kind : largest;
		len += kind;
	}
	int32_t r = largest > CONTROL_SMALL ? reserve(o, page) : SMEM_OK;
	if (r != SMEM_OK)
		return r;
	char *val = malloc(len);
	if (!val)
		return smem_err(SMEM_MALLOC_FAILED, "%zu bytes for the store", len);
	char *kinds = val, *data = val + head;
	SET_FOREACH(i, &o->set)
	{
		uint32_t kind = kind_of(page, i, round), wire = htole32(kind);
		if (kind > (size_t)(val + len - data)) {
			free(val);
			return smem_err(SMEM_IO, "rank %u changed its contribution", i);
		}
		memcpy(kinds, &wire, 4);
		memcpy(data, control_contribution(page, i, round, kind), kind);
		kinds += 4;
		data += kind;
	}
	*ret = val;
	*ret_len = len;
	return SMEM_OK;
}

/* ---- and back ---- */

static uint32_t part_kind(const struct store_part *p, uint32_t n)
{
	uint32_t wire;

	memcpy(&wire, p->data + 4 * (size_t)n, 4);
	return le32toh(wire);
}

/* Are the kinds and the lengths of a part what they must be? */
static bool part_fits(const struct store_part *p)
{
	uint32_t count = set_count(&p->set);
	size_t len = 4 * (size_t)count;

	if (p->len < len)
		return false;
	for (uint32_t n = 0; n < count; n++) {
		if (part_kind(p, n) > ALLGATHER_MAX)
			return false;
		len += part_kind(p, n);
	}
	return p->len == len;
}

/* Each rank of the object once. */
static bool parts_fit(const struct control *page, const struct store_parts *parts)
{
	struct set all = {.word = {0}};
	uint32_t count = 0, i;

	for (uint32_t k = 0; k < parts->count; k++) {
		SET_FOREACH(i, &parts->part[k].set)
		{
			if (i >= page->size)
				return false;
			set_add(&all, i);
			count++;
		}
		if (!part_fits(&parts->part[k]))
			return false;
	}
	return count == page->size && set_count(&all) == count;
}

static void lay_out_kinds(const struct control *page, const struct store_part *p, uint32_t round)
{
	uint32_t n = 0, i;

	SET_FOREACH(i, &p->set)
	{
		atomic_store_explicit(&control_rank(page, i)->kind[round & 1], part_kind(p, n++),
				      memory_order_relaxed);
	}
}

/* All kinds are equal and `kind`. */
static void lay_out_data(const struct control *page, const struct store_part *p, uint32_t round,
			 uint32_t kind)
{
	const uint8_t *data = p->data + 4 * (size_t)set_count(&p->set);
	uint32_t i;

	SET_FOREACH(i, &p->set)
	{
		memcpy(control_contribution(page, i, round, kind), data, kind);
		data += kind;
	}
}

static int32_t lay_out(const struct outside *o, const struct control *page, uint32_t round,
		       const struct store_parts *parts, bool *differ)
{
	uint32_t own = set_next(&o->set, 0), kind = kind_of(page, own, round);

	if (!parts_fit(page, parts))
		return smem_err(SMEM_IO, "what the store sent are not %u ranks' contributions",
				page->size);
	*differ = false;
	for (uint32_t k = 0; k < parts->count; k++) {
		const struct store_part *p = &parts->part[k];
		uint32_t count = set_count(&p->set);
		for (uint32_t n = 0; n < count; n++)
			*differ = *differ || part_kind(p, n) != kind;
		if (!set_has(&p->set, own))
			lay_out_kinds(page, p, round);
	}
	for (uint32_t k = 0; k < parts->count && !*differ && kind > 0; k++) {
		if (!set_has(&parts->part[k].set, own))
			lay_out_data(page, &parts->part[k], round, kind);
	}
	return SMEM_OK;
}

static int32_t outcome(const struct outside *o, const struct control *page,
		       const struct outside_round *at, int32_t r, const struct set *missing,
		       struct store_parts *parts, bool *differ)
{
	if (!at->counts(at->arg))
		r = SMEM_STALE;
	else if (r == SMEM_OK)
		r = lay_out(o, page, at->round, parts, differ);
	else if (r == SMEM_TIMEOUT)
		for (uint32_t w = 0; w < CONTROL_WORDS; w++)
			atomic_store_explicit(&page->head->missing[w],
					      missing->word[w] & ~o->set.word[w],
					      memory_order_relaxed);
	store_parts_free(parts);
	return r;
}

int32_t outside_meet(struct outside *o, const struct control *page, struct outside_round at,
		     bool *differ)
{
	uint32_t skew = atomic_load(&page->head->skew), kind = store_round(page, at.round);
	struct store_parts parts = {.count = 0};
	struct set missing = {.word = {0}};
	auto_free char *val = NULL;
	size_t len = 0;

	int32_t r = collect(o, page, at.round, &val, &len);
	if (r != SMEM_OK)
		return r;
	struct store_sets sets = {.set = &o->set,
				  .turn = at.turn,
				  .kind = &kind,
				  .kind_len = sizeof(kind),
				  .val = val,
				  .len = len};
	r = store_group_sets(o->group, &sets, at.deadline, &missing, &parts);
	if (r == SMEM_INVALID_PARAM)
		r = smem_err(SMEM_IO, "hosts do not agree about the round: %s", err_detail());
	else if (r == SMEM_REPEAT_CALL)
		atomic_compare_exchange_strong(&page->head->skew, &skew, skew + 1);
	return outcome(o, page, &at, r, &missing, &parts, differ);
}

int32_t outside_settle(struct outside *o, const struct control *page, struct outside_round at,
		       bool *differ)
{
	uint32_t kind = store_round(page, at.round);
	struct store_parts parts = {.count = 0};
	struct set missing = {.word = {0}};

	int32_t r = store_group_settle(o->group, at.turn, &kind, sizeof(kind), at.deadline,
				       &missing, &parts);
	return outcome(o, page, &at, r, &missing, &parts, differ);
}

void outside_present(const struct outside *o, const struct control *page, uint32_t round)
{
	uint32_t kind = store_round(page, round);

	store_group_present(o->group, &kind, sizeof(kind));
}

struct set outside_missing(const struct outside *o, const struct control *page, uint32_t round)
{
	uint32_t kind = store_round(page, round);
	struct set missing = {.word = {0}};

	store_group_absent(o->group, &kind, sizeof(kind), deadline_in_ms(0), &missing);
	for (uint32_t w = 0; w < SET_WORDS; w++)
		missing.word[w] &= ~o->set.word[w];
	return missing;
}
