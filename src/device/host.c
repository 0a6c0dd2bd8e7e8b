/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Host memory: sealed memfds. The size of one can never change, so a mapping of it can never fault,
 * whatever its owner does; it has no name, so nothing is left behind however its users end.
 *
 * Three kinds of pages, best first; what decides is told in docs/memory.md:
 *   hugetlb      2 MiB pages that the administrator set aside, if enough are free now;
 *   transparent  2 MiB pages of ordinary shared memory, where the kernel allows them for memfds
 *                (shmem_enabled). Most kernels that do want to be asked through a mapping, so pages
 *                are made by populating one instead of by fallocate();
 *   base         everywhere.
 *
 * alloc() takes the memory in pieces and looks at the room left before each, see room.c. The pieces
 * shrink with what is left, so that processes that allocate at the same time do not overrun the
 * limit between a look and a piece. Signals wait while one piece is taken: fallocate() gives up at
 * a signal and throws away what it did, and a profiler's timer could keep that up forever.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/memfd.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "device/copy.h"
#include "device/device.h"
#include "device/room.h"
#include "util/cleanup.h"
#include "util/env.h"
#include "util/err.h"
#include "util/limits.h"
#include "util/log.h"

#define HUGE_PAGE (2ull << 20)
/* The most taken between two looks at the limits, which is long beside a look; and the least. */
#define PIECE_MAX (32ull << 20)
#define PIECE_MIN (256ull << 10)
/* No more than that part of what is left: as many processes may do so at a time. */
#define PIECE_PART 64

#define SYS_HUGETLB "/sys/kernel/mm/hugepages/hugepages-2048kB/"
#define SYS_THP	    "/sys/kernel/mm/transparent_hugepage/"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ  22
#define MADV_POPULATE_WRITE 23
#endif

const char *mem_pages_name(enum mem_pages pages)
{
	switch (pages) {
	case MEM_PAGES_HUGETLB:
		return "hugetlb 2 MiB";
	case MEM_PAGES_THP:
		return "transparent 2 MiB";
	default:
		return "4 KiB";
	}
}

static bool read_small(const char *path, char *buf, size_t cap)
{
	auto_fd int fd = fd_own(open(path, O_RDONLY | O_CLOEXEC));
	ssize_t n = fd < 0 ? -1 : read(fd, buf, cap - 1);

	if (n < 0)
		return false;
	buf[n] = '\0';
	return true;
}

static uint64_t read_count(const char *path)
{
	char buf[32];
	uint64_t n = 0;

	return read_small(path, buf, sizeof(buf)) && sscanf(buf, "%" SCNu64, &n) == 1 ? n : 0;
}

static uint64_t hugetlb_free(void)
{
	uint64_t free = read_count(SYS_HUGETLB "free_hugepages");
	uint64_t promised = read_count(SYS_HUGETLB "resv_hugepages");

	return free > promised ? (free - promised) * HUGE_PAGE : 0;
}

/* "always within_size [advise] never": is what stands in brackets anything but a refusal? */
static bool thp_allowed(void)
{
	char buf[128];

	if (read_small(SYS_THP "hugepages-2048kB/shmem_enabled", buf, sizeof(buf)) &&
	    !strstr(buf, "[inherit]"))
		return !strstr(buf, "[never]");
	return read_small(SYS_THP "shmem_enabled", buf, sizeof(buf)) && strchr(buf, '[') &&
	       !strstr(buf, "[never]") && !strstr(buf, "[deny]");
}

/* The kernel kills who exceeds RLIMIT_FSIZE, shared memory included. */
static int32_t check_file_limit(size_t size)
{
	struct rlimit lim;

	if (getrlimit(RLIMIT_FSIZE, &lim) == 0 && lim.rlim_cur != RLIM_INFINITY &&
	    lim.rlim_cur < size)
		return smem_err(
		    SMEM_MALLOC_FAILED,
		    "host memory: %zu bytes wanted, RLIMIT_FSIZE (ulimit -f) is %" PRIu64, size,
		    (uint64_t)lim.rlim_cur);
	return SMEM_OK;
}

static int32_t memfd_open(size_t size, unsigned extra, int *ret)
{
	auto_fd int fd = fd_memfd("smem", extra);

	if (fd < 0)
		return smem_errno(errno == ENOMEM ? SMEM_MALLOC_FAILED : SMEM_NEW_OBJECT_FAILED,
				  errno, "memfd_create of %zu bytes", size);
	if (ftruncate(fd, (off_t)size) != 0)
		return smem_errno(SMEM_MALLOC_FAILED, errno, "host memory: %zu bytes", size);
	*ret = take_fd(&fd);
	return SMEM_OK;
}

static int32_t seal(int fd)
{
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
		return smem_errno(SMEM_NEW_OBJECT_FAILED, errno, "sealing of shared memory");
	return SMEM_OK;
}

/* Make one piece real: by populating the mapping when there is one, else by fallocate(). */
static int take_piece(int fd, char *map, size_t off, size_t len)
{
	sigset_t all, old;
	int err;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	do {
		err = 0;
		if (map && madvise(map + off, len, MADV_POPULATE_WRITE) == 0)
			break;
		if (fallocate(fd, 0, (off_t)off, (off_t)len) != 0)
			err = errno;
	} while (err == EINTR);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return err;
}

static size_t piece_size(uint64_t left, bool huge)
{
	uint64_t least = huge ? HUGE_PAGE : PIECE_MIN, n = left / PIECE_PART & -least;

	return n < least ? least : n > PIECE_MAX ? PIECE_MAX : n;
}

static int32_t take_pieces(int fd, char *map, size_t size)
{
	struct room *room = NULL;
	struct room_left left;
	int32_t r = room_open("", &room);

	for (size_t off = 0, len; r == SMEM_OK && off < size; off += len) {
		room_read(room, &left);
		len = piece_size(left.bytes, map != NULL);
		len = size - off < len ? size - off : len;
		/* The first look is at the whole, so that what cannot fit fails at once. */
		if (left.bytes < (off == 0 ? size : len)) {
			r = smem_err(SMEM_MALLOC_FAILED,
				     "host memory: %zu MiB wanted, %" PRIu64 " MiB to be had (%s)",
				     size >> 20, (left.bytes + off) >> 20, left.limit);
			break;
		}
		int err = take_piece(fd, map, off, len);
		if (err != 0)
			r = smem_errno(SMEM_MALLOC_FAILED, err,
				       "host memory: %zu MiB wanted, %zu MiB had (%s)", size >> 20,
				       off >> 20, left.limit);
	}
	room_close(room);
	return r;
}

static bool alloc_hugetlb(size_t size, struct device_mem *mem)
{
	auto_fd int fd = -1;

	if (size % HUGE_PAGE != 0 || hugetlb_free() < size ||
	    memfd_open(size, MFD_HUGETLB | MFD_HUGE_2MB, &fd) != SMEM_OK)
		return false;
	/* The pool may have shrunk since, or a hugetlb cgroup may forbid it. */
	if (take_piece(fd, NULL, 0, size) != 0 || seal(fd) != SMEM_OK)
		return false;
	*mem = (struct device_mem){.fd = take_fd(&fd), .size = size, .pages = MEM_PAGES_HUGETLB};
	return true;
}

/* A mapping for populating only, aligned so that huge pages fit, which it asks for or refuses.
 * *whole is what to unmap. */
static char *map_aligned(int fd, size_t size, bool huge, char **whole)
{
	*whole = mmap(NULL, size + HUGE_PAGE, PROT_NONE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (*whole == MAP_FAILED)
		return NULL;
	madvise(*whole, size + HUGE_PAGE, MADV_DONTFORK);
	char *at = *whole + (HUGE_PAGE - (uintptr_t)*whole % HUGE_PAGE);
	if (mmap(at, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) != at ||
	    madvise(at, size, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE) != 0) {
		munmap(*whole, size + HUGE_PAGE);
		return NULL;
	}
	madvise(at, size, MADV_DONTFORK);
	return at;
}

static int32_t alloc_shmem(size_t size, bool huge, struct device_mem *mem)
{
	auto_fd int fd = -1;
	char *whole = NULL;
	int32_t r = memfd_open(size, 0, &fd);

	if (r != SMEM_OK)
		return r;
	char *map = thp_allowed() ? map_aligned(fd, size, huge, &whole) : NULL;
	r = take_pieces(fd, map, size);
	if (map)
		munmap(whole, size + HUGE_PAGE);
	if (r == SMEM_OK)
		r = seal(fd);
	if (r != SMEM_OK)
		return r;
	*mem = (struct device_mem){.fd = take_fd(&fd),
				   .size = size,
				   .pages = map && huge ? MEM_PAGES_THP : MEM_PAGES_BASE};
	return SMEM_OK;
}

static int32_t host_alloc(size_t size, struct device_mem *ret)
{
	bool huge = env_int(ENV_HUGE_PAGES) != 0;
	int32_t r = check_file_limit(size);

	if (r != SMEM_OK)
		return r;
	if (huge && alloc_hugetlb(size, ret))
		return SMEM_OK;
	return alloc_shmem(size, huge, ret);
}

static void host_free(struct device_mem *mem)
{
	fd_close(&mem->fd);
}

static void host_unmap(void *addr, size_t size)
{
	void *at = mmap(addr, size, PROT_NONE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);

	if (at != addr) {
		LOG_WARN("host", "[%p, +%zu) is not in reserve any more: errno %d", addr, size,
			 errno);
		munmap(addr, size);
		return;
	}
	madvise(addr, size, MADV_DONTFORK);
	madvise(addr, size, MADV_DONTDUMP);
}

static int32_t host_map(const struct device_mem *mem, void *addr, bool populate)
{
	void *at =
	    mmap(addr, mem->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, mem->fd, 0);

	if (at != addr) {
		int err = errno;
		host_unmap(addr, mem->size);
		return smem_errno(SMEM_NEW_OBJECT_FAILED, err, "mapping of [%p, +%zu)", addr,
				  mem->size);
	}
	if (madvise(addr, mem->size, MADV_DONTFORK) != 0) {
		int err = errno;
		host_unmap(addr, mem->size);
		return smem_errno(SMEM_NEW_OBJECT_FAILED, err, "MADV_DONTFORK of [%p, +%zu)", addr,
				  mem->size);
	}
	madvise(addr, mem->size, MADV_DONTDUMP);
	if (mem->pages == MEM_PAGES_THP)
		madvise(addr, mem->size, MADV_HUGEPAGE);
	/* A read fault maps shared memory writable as well, and several pages at a time. A kernel
	 * that cannot (before 5.14) leaves it to the first touch. */
	if (populate)
		madvise(addr, mem->size, MADV_POPULATE_READ);
	return SMEM_OK;
}

const struct device_ops device_host = {
    .name = "host",
    .alloc = host_alloc,
    .free = host_free,
    .map = host_map,
    .unmap = host_unmap,
    .copy = copy_pieces,
};
