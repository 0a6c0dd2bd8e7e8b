/* SPDX-License-Identifier: Apache-2.0 */
/* Real data to move: one file, or several that every system has, read as if they were one. */
#ifndef SMEM_TOOL_DEMO_DATA_H
#define SMEM_TOOL_DEMO_DATA_H

#include <stddef.h>
#include <stdint.h>

struct data_part {
	char *path;
	uint64_t size;
};

struct data {
	struct data_part *part;
	size_t n;
	uint64_t size;
};

/* path NULL: files of the system, `want` bytes or a little more. 0, or -1, told. */
int data_find(struct data *d, const char *path, uint64_t want);
void data_free(struct data *d);
/* A descriptor from which data_load() makes the same list in another process; -1: errno. */
int data_save(const struct data *d);
int data_load(struct data *d, const char *list);
/* Exactly len bytes at offset; NULL, or the path of the file that could not be read so (errno; 0
 * when it has become shorter). */
const char *data_read(const struct data *d, uint64_t offset, void *buf, uint64_t len);

#endif
