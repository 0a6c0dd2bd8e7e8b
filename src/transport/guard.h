/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guard: a page of this process by which others make sure, inside the very system call that
 * reads or writes its memory, that the process is the one they mean. See cma.c.
 */
#ifndef TRANSPORT_GUARD_H
#define TRANSPORT_GUARD_H

#include <stdint.h>

#define GUARD_COOKIE  16
#define GUARD_SCRATCH 64 /* offset of a byte that anybody may write */

/* Goes to peers. Fixed widths, little-endian. */
struct guard_addr {
	uint64_t addr;
	uint8_t cookie[GUARD_COOKIE];
};
_Static_assert(sizeof(struct guard_addr) == 24, "wire layout");

/* Take and drop a reference. SMEM_MALLOC_FAILED, SMEM_IO. */
int32_t guard_get(void);
void guard_put(void);

/* Valid while a reference is held. */
void guard_own(struct guard_addr *ret);

#endif
