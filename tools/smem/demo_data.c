/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The default data are the larger files of the folder the C library lives in: shared libraries, on
 * any system tens of MiB of code, tables and text that look like nothing else. When that is not
 * enough, this program's folder and /usr/bin follow.
 */
#include "demo_data.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tool.h"

#define PART_MIN 65536u /* smaller files are not worth the open */
#define PATH_CAP 4096u

static int add(struct data *d, const char *path, uint64_t size)
{
	struct data_part *more = realloc(d->part, (d->n + 1) * sizeof(*more));

	if (!more)
		return -1;
	d->part = more;
	d->part[d->n] = (struct data_part){.path = strdup(path), .size = size};
	if (!d->part[d->n].path)
		return -1;
	d->n++;
	d->size += size;
	return 0;
}

static int libc_folder(struct dl_phdr_info *info, size_t size, void *ret)
{
	const char *slash = strrchr(info->dlpi_name, '/');

	(void)size;
	if (!slash || !strstr(slash, "/libc."))
		return 0;
	snprintf(ret, PATH_CAP, "%.*s", (int)(slash - info->dlpi_name), info->dlpi_name);
	return 1;
}

static int add_folder(struct data *d, const char *folder, uint64_t want)
{
	char path[PATH_CAP];
	struct dirent **names;
	struct stat st;
	int n = scandir(folder, &names, NULL, alphasort), r = 0;

	for (int i = 0; i < n; i++) {
		int len = snprintf(path, sizeof(path), "%s/%s", folder, names[i]->d_name);
		free(names[i]);
		if (r != 0 || d->size >= want || len >= (int)sizeof(path))
			continue;
		/* links would bring the same file again */
		if (lstat(path, &st) == 0 && S_ISREG(st.st_mode) && st.st_size >= PART_MIN &&
		    access(path, R_OK) == 0)
			r = add(d, path, (uint64_t)st.st_size);
	}
	if (n >= 0)
		free(names);
	return r;
}

static int find_default(struct data *d, uint64_t want)
{
	char folder[PATH_CAP] = "/usr/lib";
	int r;

	dl_iterate_phdr(libc_folder, folder);
	r = add_folder(d, folder, want);
	if (r == 0 && d->size < want)
		r = add_folder(d, "/usr/bin", want);
	if (r != 0)
		complain("out of memory");
	else if (d->size == 0)
		complain("found no file to move in %s and /usr/bin; name one with --file", folder);
	return r == 0 && d->size > 0 ? 0 : -1;
}

int data_find(struct data *d, const char *path, uint64_t want)
{
	struct stat st;
	char *real;
	int fd, r;

	*d = (struct data){0};
	if (!path)
		return find_default(d, want);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &st) != 0) {
		complain("%s: %s", path, strerror(errno));
		if (fd >= 0)
			close(fd);
		return -1;
	}
	close(fd);
	if (!S_ISREG(st.st_mode) || st.st_size == 0) {
		complain("%s: %s", path,
			 S_ISREG(st.st_mode) ? "empty, nothing to move" : "not a regular file");
		return -1;
	}
	real = realpath(path, NULL);
	r = real ? add(d, real, (uint64_t)st.st_size) : -1;
	free(real);
	if (r != 0)
		complain("%s: %s", path, strerror(errno));
	return r;
}

void data_free(struct data *d)
{
	for (size_t i = 0; i < d->n; i++)
		free(d->part[i].path);
	free(d->part);
	*d = (struct data){0};
}

int data_save(const struct data *d)
{
	int fd = memfd_create("smem-demo-files", MFD_CLOEXEC);

	for (size_t i = 0; fd >= 0 && i < d->n; i++) {
		/* the path's NUL is its end: a line end may be part of a name */
		if (dprintf(fd, "%" PRIu64 " %s%c", d->part[i].size, d->part[i].path, 0) < 0) {
			close(fd);
			return -1;
		}
	}
	return fd;
}

int data_load(struct data *d, const char *list)
{
	FILE *in = fopen(list, "re");
	char *line = NULL, *path;
	size_t cap = 0;
	int r = 0;

	*d = (struct data){0};
	if (!in)
		return -1;
	while (r == 0 && getdelim(&line, &cap, '\0', in) > 0) {
		uint64_t size = strtoull(line, &path, 10);
		r = *path == ' ' ? add(d, path + 1, size) : -1;
	}
	free(line);
	fclose(in);
	return d->n > 0 ? r : -1;
}

static int read_part(const struct data_part *p, uint64_t offset, char *buf, uint64_t len)
{
	int fd = open(p->path, O_RDONLY | O_CLOEXEC);

	while (fd >= 0 && len > 0) {
		ssize_t n = pread(fd, buf, len, (off_t)offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			errno = n < 0 ? errno : 0;
			close(fd);
			return -1;
		}
		buf += n;
		offset += (uint64_t)n;
		len -= (uint64_t)n;
	}
	if (fd >= 0)
		close(fd);
	return fd < 0 ? -1 : 0;
}

const char *data_read(const struct data *d, uint64_t offset, void *buf, uint64_t len)
{
	char *at = buf;

	for (size_t i = 0; i < d->n && len > 0; i++) {
		const struct data_part *p = &d->part[i];
		if (offset >= p->size) {
			offset -= p->size;
			continue;
		}
		uint64_t n = p->size - offset < len ? p->size - offset : len;
		if (read_part(p, offset, at, n) != 0)
			return p->path;
		at += n;
		len -= n;
		offset = 0;
	}
	return NULL;
}
