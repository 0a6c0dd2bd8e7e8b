/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much memory can still be had before the kernel starts to kill: the least of the machine's
 * MemAvailable and what each memory cgroup above this process has left, less a margin.
 */
#ifndef DEVICE_ROOM_H
#define DEVICE_ROOM_H

#include <stdint.h>

struct room;

struct room_left {
	uint64_t bytes;	 /* may still be taken */
	char limit[256]; /* whose limit is nearest, with its figures, for messages */
};

/* Find the limits that hold for this process. `root` is put before every path ("" in life, a made
 * up tree in tests). SMEM_MALLOC_FAILED. */
int32_t room_open(const char *root, struct room **ret);
void room_close(struct room *room); /* NULL is fine */

/* Read them now. Limits that cannot be read do not count. */
void room_read(const struct room *room, struct room_left *ret);

#endif
