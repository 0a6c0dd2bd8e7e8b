/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernel has mapped at an address of this process. */
#ifndef CORE_VMA_H
#define CORE_VMA_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct vma {
	uint64_t begin;
	uint64_t end;
	uint64_t offset; /* of begin in the file */
	dev_t dev;
	ino_t inode; /* 0: no file */
	bool readable;
	bool writable;
	bool shared;
};

/* maps: /proc/self/maps, open. False: nothing is mapped at addr, or it cannot be told. One system
 * call where the kernel has it (6.11), else the file is read. */
bool vma_find(int maps, uint64_t addr, struct vma *ret);

/* Open the file behind it anew, with `flags` (O_RDWR, O_RDONLY); -1. Owned through util/fd. */
int vma_open(const struct vma *vma, int flags);

#endif
