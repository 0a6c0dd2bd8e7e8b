/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Extra contexts: bytes that a rank lays out in the control page for the others to read. Setting
 * replaces; a reader gets one whole context, old or new, and the new one at the latest after a
 * barrier that followed the setting.
 */
#ifndef CORE_CONTEXT_H
#define CORE_CONTEXT_H

#include "core/control.h"

/* One at a time per rank (the caller's lock). len 1..EXTRA_CONTEXT_MAX. SMEM_MALLOC_FAILED. */
int32_t context_set(const struct control *page, uint32_t rank, const void *buf, uint32_t len);

/* *len in: capacity, out: the length (0: none set). SMEM_INVALID_PARAM: too small, *len is what is
 * needed and buf is untouched; buf NULL with *len 0 asks for the length. SMEM_MALLOC_FAILED. */
int32_t context_get(const struct control *page, uint32_t rank, void *buf, uint32_t *len);

/* The last part of context_get() for bytes that came another way. */
int32_t context_give(uint32_t rank, const void *context, uint32_t size, void *buf, uint32_t *len);

#endif
