/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copies by non-temporal stores: the destination is not read into the cache first and pushes
 * nothing out of it. They win for blocks that are large or many, and lose badly for small ones.
 */
#ifndef DEVICE_STREAM_H
#define DEVICE_STREAM_H

#include <stddef.h>

/* Copy len bytes, any alignment, any length. stream_fence() must follow before others may look. */
typedef void (*stream_fn)(char *dst, const char *src, size_t len);

/* The best of this CPU; NULL when memcpy() is. */
extern stream_fn stream_copy;

void stream_fence(void);

/* Its name, for measurements: "avx512", "avx2", "sse2", "neon", "none". */
const char *stream_name(void);

/* The i-th kind, or the next one that this CPU has; NULL at the end. For tests of each. */
stream_fn stream_kind(size_t i, const char **ret_name);

#endif
