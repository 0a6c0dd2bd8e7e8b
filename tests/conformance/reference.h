/* SPDX-License-Identifier: Apache-2.0 */
/* Pieces at random, and what moving them should do, in the plainest way. */
#ifndef CONFORMANCE_REFERENCE_H
#define CONFORMANCE_REFERENCE_H

#include "device/device.h"
#include "harness.h"

#define BATCH 64

void fill(char *p, size_t len, uint64_t seed);
void apply(const struct smem_xfer *x, size_t n);
void rebase(struct smem_xfer *x, size_t n, bool dst, const char *from, char *to);
size_t random_batch(uint64_t *seed, struct smem_xfer x[BATCH], char *dst, const char *src,
		    size_t len);
void check_equal(struct rank *r, const char *got, const char *want, size_t len, const char *what);
char *buffer(struct rank *r, size_t len);
uint64_t digest(const char *p, size_t len);

#endif
