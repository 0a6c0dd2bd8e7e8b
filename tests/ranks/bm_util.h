/* SPDX-License-Identifier: Apache-2.0 */
/* What the BM tests share: bringing a rank up, and memory with known contents. */
#ifndef RANKS_BM_UTIL_H
#define RANKS_BM_UTIL_H

#include "harness.h"
#include "smem.h"
#include "smem_bm.h"

#define MIB (1ull << 20)

/* What a promise about time may be late by: other tests run beside this one. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SLACK_MS 10000
#else
#define SLACK_MS 2000
#endif

/* Defaults, this rank's number, 30 s for everything. */
smem_bm_config_t bm_config(const struct rank *r);

/* smem_bm_init as rank r->rank of r->size. */
void bm_init(struct rank *r);

/* Init if need be, create, join. */
smem_bm_t bm_up(struct rank *r, uint32_t id, uint64_t dram, uint64_t hbm);
/* The last two of these. */
smem_bm_t bm_make(struct rank *r, uint32_t id, uint64_t dram, uint64_t hbm);

/* One plain copy; the code. */
int32_t bm_write(smem_bm_t bm, void *gva, const void *local, size_t n);
int32_t bm_read(smem_bm_t bm, void *local, const void *gva, size_t n);

/*
 * Read a byte of every slot through the API. What another thread of this process mapped is loaded
 * from directly afterwards; that the peer's join came before is known through the controller, which
 * a thread sanitizer does not see.
 */
void bm_touch(struct rank *r, smem_bm_t bm);

/* Byte i of a pattern, and memory full of it. */
uint8_t pattern_byte(uint64_t pattern, uint64_t i);
void pattern_fill(void *buf, size_t n, uint64_t pattern);
bool pattern_is(const void *buf, size_t n, uint64_t pattern);

/* Call until it gives `code`, at most `ms`: for what another process brings about. */
#define EVENTUALLY(r, call, code, ms)                                                              \
	do {                                                                                       \
		uint64_t until_ = rank_ms() + (ms);                                                \
		long got_;                                                                         \
		while ((got_ = (long)(call)) != (long)(code)) {                                    \
			if (rank_ms() > until_)                                                    \
				rank_fail(r, __FILE__, __LINE__, "%s = %ld, not %ld within %d ms", \
					  #call, got_, (long)(code), (int)(ms));                   \
			sched_yield();                                                             \
		}                                                                                  \
	} while (0)

#endif
