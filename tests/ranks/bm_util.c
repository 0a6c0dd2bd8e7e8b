/* SPDX-License-Identifier: Apache-2.0 */
#include "bm_util.h"

smem_bm_config_t bm_config(const struct rank *r)
{
	smem_bm_config_t c;

	smem_bm_config_init(&c);
	c.rankId = (uint16_t)r->rank;
	c.initTimeout = c.createTimeout = c.controlOperationTimeout = 30;
	return c;
}

void bm_init(struct rank *r)
{
	smem_bm_config_t c = bm_config(r);

	RANK_OK(r, smem_bm_init(r->url, r->size, 0, &c));
	RANK_ASSERT(r, smem_bm_get_rank_id() == r->rank);
}

smem_bm_t bm_make(struct rank *r, uint32_t id, uint64_t dram, uint64_t hbm)
{
	void *own = NULL;

	smem_bm_t bm = smem_bm_create(id, 0, SMEMB_DATA_OP_SDMA, dram, hbm, 0);
	RANK_ASSERT(r, bm != NULL);
	RANK_OK(r, smem_bm_join(bm, 0, &own));
	RANK_ASSERT(r, own == smem_bm_ptr(bm, (uint16_t)r->rank));
	return bm;
}

smem_bm_t bm_up(struct rank *r, uint32_t id, uint64_t dram, uint64_t hbm)
{
	bm_init(r);
	return bm_make(r, id, dram, hbm);
}

int32_t bm_write(smem_bm_t bm, void *gva, const void *local, size_t n)
{
	smem_copy_params p = {.src = local, .dest = gva, .count = n};

	return smem_bm_copy(bm, &p, SMEMB_COPY_H2G, 0);
}

int32_t bm_read(smem_bm_t bm, void *local, const void *gva, size_t n)
{
	smem_copy_params p = {.src = gva, .dest = local, .count = n};

	return smem_bm_copy(bm, &p, SMEMB_COPY_G2H, 0);
}

void bm_touch(struct rank *r, smem_bm_t bm)
{
	char byte;

	for (uint32_t i = 0; i < r->size; i++)
		RANK_OK(r, bm_read(bm, &byte, smem_bm_ptr(bm, (uint16_t)i), 1));
}

uint8_t pattern_byte(uint64_t pattern, uint64_t i)
{
	uint64_t z = (i / 8 + 1) * 0x9e3779b97f4a7c15u ^ pattern * 0xd1342543de82ef95u;

	z ^= z >> 29;
	return (uint8_t)(z >> (i % 8 * 8));
}

void pattern_fill(void *buf, size_t n, uint64_t pattern)
{
	uint8_t *b = buf;

	for (size_t i = 0; i < n; i++)
		b[i] = pattern_byte(pattern, i);
}

bool pattern_is(const void *buf, size_t n, uint64_t pattern)
{
	const uint8_t *b = buf;

	for (size_t i = 0; i < n; i++) {
		if (b[i] != pattern_byte(pattern, i))
			return false;
	}
	return true;
}
