/* SPDX-License-Identifier: Apache-2.0 */
/* Unpredictable bytes from the kernel: incarnations, cookies, keys. */
#ifndef UTIL_RNG_H
#define UTIL_RNG_H

#include <stddef.h>
#include <stdint.h>

/* Fill buf; 0, or SMEM_IO recorded. Does not block once the system has booted. */
int32_t rng_bytes(void *buf, size_t len);

/* A random non-zero number; 0 only when the kernel gives none. */
uint64_t rng_u64(void);

#endif
