/* SPDX-License-Identifier: Apache-2.0 */
/* A bare copy with streaming (non-temporal) stores: the other limit, beside memcpy. */
#ifndef SMEM_TOOL_STREAM_H
#define SMEM_TOOL_STREAM_H

#include <stddef.h>

/* The widest this CPU has; NULL: it has none that this program knows. */
const char *stream_name(void);
/* dst, src and n are multiples of 64. */
void stream_copy(void *dst, const void *src, size_t n);

#endif
