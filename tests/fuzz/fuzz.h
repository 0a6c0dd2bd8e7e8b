/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A fuzz target is LLVMFuzzerTestOneInput() and fuzz_seed(). With clang it links against libFuzzer;
 * with any compiler against driver.c, which mutates the seeds by itself for FUZZ_SECONDS (default
 * 3).
 */
#ifndef TEST_FUZZ_H
#define TEST_FUZZ_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Seed number n of the corpus into buf; its length; 0 when there is no such seed. */
size_t fuzz_seed(unsigned n, uint8_t *buf, size_t cap);

#endif
