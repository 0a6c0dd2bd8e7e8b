/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Three ways to ask, none of them sure: the query of Linux 6.11 answers about one address in a
 * microsecond; before it the whole text has to be read. The file behind a mapping can be opened
 * through map_files by who has CAP_CHECKPOINT_RESTORE; others look for a descriptor of the process
 * that has the same inode.
 */
#include "core/vma.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "util/fd.h"

/* As in linux/fs.h since 6.11, which not every system has the headers of. */
struct vma_query {
	uint64_t size;
	uint64_t query_flags;
	uint64_t query_addr;
	uint64_t vma_start;
	uint64_t vma_end;
	uint64_t vma_flags;
	uint64_t vma_page_size;
	uint64_t vma_offset;
	uint64_t inode;
	uint32_t dev_major;
	uint32_t dev_minor;
	uint32_t vma_name_size;
	uint32_t build_id_size;
	uint64_t vma_name_addr;
	uint64_t build_id_addr;
};
#define VMA_QUERY	   _IOWR('f', 17, struct vma_query)
#define VMA_QUERY_READABLE 1u
#define VMA_QUERY_WRITABLE 2u
#define VMA_QUERY_SHARED   8u

static bool read_maps(int maps, uint64_t addr, struct vma *ret)
{
	char path[32];
	char line[4400];
	bool found = false;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", maps);
	FILE *f = fopen(path, "re");
	while (f && !found && fgets(line, sizeof(line), f)) {
		uint64_t begin, end, offset, inode;
		unsigned int major, minor;
		char mode[5];
		if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %" SCNx64 " %x:%x %" SCNu64, &begin,
			   &end, mode, &offset, &major, &minor, &inode) != 7)
			continue;
		if (begin > addr)
			break;
		found = addr < end;
		*ret = (struct vma){.begin = begin,
				    .end = end,
				    .offset = offset,
				    .dev = makedev(major, minor),
				    .inode = inode,
				    .readable = mode[0] == 'r',
				    .writable = mode[1] == 'w',
				    .shared = mode[3] == 's'};
	}
	if (f)
		fclose(f);
	return found;
}

bool vma_find(int maps, uint64_t addr, struct vma *ret)
{
	struct vma_query q = {.size = sizeof(q), .query_addr = addr};

	if (maps < 0)
		return false;
	if (ioctl(maps, VMA_QUERY, &q) < 0)
		return errno != ENOENT && read_maps(maps, addr, ret);
	*ret = (struct vma){.begin = q.vma_start,
			    .end = q.vma_end,
			    .offset = q.vma_offset,
			    .dev = makedev(q.dev_major, q.dev_minor),
			    .inode = q.inode,
			    .readable = q.vma_flags & VMA_QUERY_READABLE,
			    .writable = q.vma_flags & VMA_QUERY_WRITABLE,
			    .shared = q.vma_flags & VMA_QUERY_SHARED};
	return true;
}

static bool same_file(int fd, const struct vma *vma)
{
	struct stat st;

	return fstat(fd, &st) == 0 && st.st_ino == vma->inode && st.st_dev == vma->dev;
}

static int open_descriptor(const struct vma *vma, int flags)
{
	int found = -1;
	DIR *dir = opendir("/proc/self/fd");

	for (struct dirent *d; dir && found < 0 && (d = readdir(dir));) {
		char path[32];
		int fd = atoi(d->d_name);
		if (d->d_name[0] == '.' || !same_file(fd, vma))
			continue;
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		found = open(path, flags | O_CLOEXEC);
	}
	if (dir)
		closedir(dir);
	return found;
}

int vma_open(const struct vma *vma, int flags)
{
	char path[80];

	snprintf(path, sizeof(path), "/proc/self/map_files/%" PRIx64 "-%" PRIx64, vma->begin,
		 vma->end);
	int fd = open(path, flags | O_CLOEXEC);
	if (fd < 0)
		fd = open_descriptor(vma, flags);
	if (fd >= 0 && !same_file(fd, vma)) {
		close(fd);
		return -1;
	}
	return fd_own(fd);
}
