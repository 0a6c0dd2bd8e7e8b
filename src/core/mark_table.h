/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file of marks, as it lies in its memfd: one header page, then the slots. Peers write into it.
 * A slot is one cache line. seq is odd while a mark is set; it is also the futex that the owner
 * waits on. Byte i of the file stands for slot i in the locks that say whose it is.
 */
#ifndef CORE_MARK_TABLE_H
#define CORE_MARK_TABLE_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "util/limits.h"

#define MARK_TABLE_VERSION 1u

struct mark_slot {
	_Alignas(64) _Atomic uint32_t seq;
	_Atomic uint32_t pid; /* for messages only */
	_Atomic uint64_t begin;
	_Atomic uint64_t end;
	uint8_t reserved[40];
};
_Static_assert(sizeof(struct mark_slot) == 64, "shared layout");

struct mark_table {
	uint32_t version;
	uint32_t slots;
	_Alignas(64) _Atomic uint32_t waiting; /* owner's threads inside a wait */
	_Alignas(64) _Atomic uint32_t high;    /* slots below it have been used */
};
_Static_assert(offsetof(struct mark_table, waiting) == 64, "shared layout");
_Static_assert(offsetof(struct mark_table, high) == 128, "shared layout");

#define MARK_TABLE_HEAD 4096u
#define MARK_TABLE_SIZE (MARK_TABLE_HEAD + (uint64_t)MARK_SLOTS_MAX * sizeof(struct mark_slot))

static inline struct mark_slot *mark_table_slot(const struct mark_table *t, uint32_t i)
{
	return (struct mark_slot *)((uintptr_t)t + MARK_TABLE_HEAD) + i;
}

#endif
