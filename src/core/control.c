/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sealed memfd, sparse. The head and the records are reserved at once, the areas by their ranks
 * when they first need them: a world of 1024 ranks that only has barriers costs half a megabyte.
 * Reserving is fallocate(2), which fails where a first touch would kill.
 */
#include "core/control.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "util/cleanup.h"
#include "util/clock.h"
#include "util/err.h"

static uint64_t bytes_for(uint32_t size)
{
	return control_areas(size) + 4ull * size * CONTROL_AREA;
}

static int32_t map(struct control *c)
{
	void *p =
	    mmap(NULL, c->bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, c->fd, 0);

	if (p == MAP_FAILED)
		return smem_errno(SMEM_NEW_OBJECT_FAILED, errno,
				  "cannot map the control page, %" PRIu64 " bytes", c->bytes);
	madvise(p, c->bytes, MADV_DONTFORK);
	c->head = p;
	return SMEM_OK;
}

int32_t control_reserve(const struct control *c, uint64_t offset, uint64_t len)
{
	int r;

	do
		r = fallocate(c->fd, 0, (off_t)offset, (off_t)len);
	while (r != 0 && errno == EINTR);
	if (r != 0)
		return smem_errno(SMEM_MALLOC_FAILED, errno,
				  "%" PRIu64 " bytes of the control page cannot be had", len);
	return SMEM_OK;
}

int32_t control_create(uint32_t size, struct control *ret)
{
	struct control c = {.fd = -1, .size = size, .bytes = bytes_for(size)};

	c.fd = fd_memfd("smem-control", 0);
	if (c.fd < 0)
		return smem_errno(SMEM_NEW_OBJECT_FAILED, errno, "memfd for the control page");
	int32_t r = SMEM_OK;
	if (ftruncate(c.fd, (off_t)c.bytes) != 0 ||
	    fcntl(c.fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
		r = smem_errno(SMEM_MALLOC_FAILED, errno, "control page of %" PRIu64 " bytes",
			       c.bytes);
	if (r == SMEM_OK)
		r = control_reserve(&c, 0, control_areas(size));
	if (r == SMEM_OK)
		r = map(&c);
	if (r != SMEM_OK) {
		control_close(&c);
		return r;
	}
	c.head->version = CONTROL_VERSION;
	c.head->size = size;
	c.head->bytes = c.bytes;
	*ret = c;
	return SMEM_OK;
}

int32_t control_open(int *fd, uint32_t size, struct control *ret)
{
	struct control c = {.fd = take_fd(fd), .size = size, .bytes = bytes_for(size)};
	struct stat st;
	int32_t r;

	if (fstat(c.fd, &st) != 0 || (uint64_t)st.st_size != c.bytes ||
	    !(fcntl(c.fd, F_GET_SEALS) & F_SEAL_SHRINK))
		r = smem_err(SMEM_IO,
			     "not the control page of %u ranks, a sealed %" PRIu64 " bytes", size,
			     c.bytes);
	else
		r = map(&c);
	if (r == SMEM_OK && c.head->version != CONTROL_VERSION)
		r = smem_err(SMEM_NOT_SUPPORTED, "control page of version %u, this library has %u",
			     c.head->version, CONTROL_VERSION);
	else if (r == SMEM_OK && (c.head->size != size || c.head->bytes != c.bytes))
		r = smem_err(SMEM_IO, "control page for %u ranks, expected %u", c.head->size, size);
	if (r != SMEM_OK) {
		control_close(&c);
		return r;
	}
	*ret = c;
	return SMEM_OK;
}

void control_close(struct control *c)
{
	if (c->head)
		munmap(c->head, c->bytes);
	c->head = NULL;
	fd_close(&c->fd);
}

void control_sleep(_Atomic uint32_t *word, uint32_t seen, uint64_t until_ns)
{
	struct timespec until = deadline_timespec((struct deadline){.end = until_ns});

	syscall(SYS_futex, word, FUTEX_WAIT_BITSET, seen, &until, NULL, FUTEX_BITSET_MATCH_ANY);
}

void control_wake(_Atomic uint32_t *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}
