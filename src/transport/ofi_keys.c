/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Regions may overlap, so the last one that begins at or below an address need not be one that
 * holds it: walk back as long as an earlier one reaches that far.
 */
#include "transport/ofi_keys.h"

#include <stdlib.h>
#include <string.h>

#include "util/err.h"

static void reach_from(struct ofi_keys *keys, size_t i)
{
	for (; i < keys->n; i++) {
		uint64_t before = i > 0 ? keys->reach[i - 1] : 0;
		keys->reach[i] = keys->at[i]->end > before ? keys->at[i]->end : before;
	}
}

/* How many begin at or below addr. */
static size_t below(const struct ofi_keys *keys, uint64_t addr)
{
	size_t lo = 0, hi = keys->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (keys->at[mid]->begin <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static int32_t grow(struct ofi_keys *keys)
{
	size_t cap = keys->cap ? 2 * keys->cap : 8;

	struct ofi_key **at = realloc(keys->at, cap * sizeof(*at));
	if (!at)
		return smem_err(SMEM_MALLOC_FAILED, "key table");
	keys->at = at;
	uint64_t *reach = realloc(keys->reach, cap * sizeof(*reach));
	if (!reach)
		return smem_err(SMEM_MALLOC_FAILED, "key table");
	keys->reach = reach;
	keys->cap = cap;
	return SMEM_OK;
}

int32_t ofi_keys_add(struct ofi_keys *keys, const struct ofi_key *key)
{
	struct ofi_key *k = ofi_keys_by_id(keys, key->id);

	if (k) { /* two threads asked */
		if (!k->revoked)
			k->key = key->key;
		return SMEM_OK;
	}
	k = malloc(sizeof(*k));
	if (!k || (keys->n == keys->cap && grow(keys) != SMEM_OK)) {
		free(k);
		return smem_err(SMEM_MALLOC_FAILED, "key table");
	}
	*k = *key;
	size_t i = below(keys, k->begin);
	memmove(keys->at + i + 1, keys->at + i, (keys->n - i) * sizeof(*keys->at));
	keys->at[i] = k;
	keys->n++;
	reach_from(keys, i);
	return SMEM_OK;
}

struct ofi_key *ofi_keys_find(const struct ofi_keys *keys, uint64_t addr, bool writable)
{
	for (size_t i = below(keys, addr); i > 0 && keys->reach[i - 1] > addr; i--) {
		struct ofi_key *k = keys->at[i - 1];
		if (k->end > addr && !k->revoked && (k->writable || !writable))
			return k;
	}
	return NULL;
}

struct ofi_key *ofi_keys_by_id(const struct ofi_keys *keys, uint64_t id)
{
	for (size_t i = 0; i < keys->n; i++) {
		if (keys->at[i]->id == id)
			return keys->at[i];
	}
	return NULL;
}

void ofi_keys_remove(struct ofi_keys *keys, struct ofi_key *key)
{
	for (size_t i = 0; i < keys->n; i++) {
		if (keys->at[i] != key)
			continue;
		keys->n--;
		memmove(keys->at + i, keys->at + i + 1, (keys->n - i) * sizeof(*keys->at));
		reach_from(keys, i);
		free(key);
		return;
	}
}

void ofi_keys_clear(struct ofi_keys *keys)
{
	for (size_t i = 0; i < keys->n; i++)
		free(keys->at[i]);
	free(keys->at);
	free(keys->reach);
	*keys = (struct ofi_keys){0};
}
