/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The owner offers the descriptor to its agent under a random number and a random cookie; both
 * travel through the store, so who cannot read the store cannot map the memory. The importer trusts
 * nothing it is handed: size and seals are looked at, because memory that could shrink would be a
 * SIGBUS later.
 */
#include "core/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>

#include "util/cleanup.h"
#include "util/err.h"
#include "util/fork.h"
#include "util/limits.h"
#include "util/rng.h"

/*
 * Page tables made at the import spare the first copies their faults, one a page. For 4 KiB pages
 * they take 73 ms and 2 MiB a GiB, so with many large peers they are left to the first touch.
 */
#define TABLES_MAX (1ull << 30) /* bytes of peers' memory in 4 KiB pages */

static _Atomic uint64_t tables_bytes;

static bool tables_take(uint64_t size)
{
	if (atomic_fetch_add(&tables_bytes, size) + size <= TABLES_MAX)
		return true;
	atomic_fetch_sub(&tables_bytes, size);
	return false;
}

int32_t segment_create(uint64_t size, char *addr, struct segment *ret)
{
	struct segment seg = {.mem.fd = -1, .own = true};
	int32_t r = device_host.alloc(size, &seg.mem);

	if (r != SMEM_OK)
		return r;
	r = device_host.map(&seg.mem, addr, true);
	if (r != SMEM_OK) {
		device_host.free(&seg.mem);
		return r;
	}
	seg.addr = addr;
	*ret = seg;
	return SMEM_OK;
}

int32_t segment_offer(struct segment *seg)
{
	struct segment_export ex = {
	    .object = rng_u64(), .size = seg->mem.size, .pages = (uint8_t)seg->mem.pages};

	if (ex.object == 0)
		return SMEM_IO;
	int32_t r = rng_bytes(ex.cookie, sizeof(ex.cookie));
	if (r == SMEM_OK)
		r = agent_offer(ex.object, ex.cookie, seg->mem.fd, NULL, 0);
	if (r == SMEM_OK)
		seg->exported = ex;
	return r;
}

void segment_withdraw(struct segment *seg)
{
	if (seg->own && seg->exported.object != 0)
		agent_withdraw(seg->exported.object);
	memset(&seg->exported, 0, sizeof(seg->exported));
}

static int32_t check_handed_over(int fd, const struct segment_export *ex)
{
	struct stat st;

	if (fstat(fd, &st) != 0)
		return smem_errno(SMEM_IO, errno, "fstat of a peer's memory");
	if ((uint64_t)st.st_size != ex->size)
		return smem_err(SMEM_IO,
				"a peer's memory has %" PRIu64 " bytes, announced were %" PRIu64,
				(uint64_t)st.st_size, ex->size);
	int seals = fcntl(fd, F_GET_SEALS);
	if (seals < 0 || !(seals & F_SEAL_SHRINK))
		return smem_err(SMEM_IO, "a peer's memory is not sealed against shrinking");
	return SMEM_OK;
}

int32_t segment_import(struct agent_peer *peer, const struct segment_export *ex, char *addr,
		       struct deadline deadline, struct segment *ret)
{
	auto_fd int fd = -1;

	if (ex->object == 0 || ex->size == 0 || ex->size % SLOT_ALIGN != 0 ||
	    ex->pages > MEM_PAGES_HUGETLB)
		return smem_err(SMEM_IO,
				"malformed announcement of memory: object %" PRIx64 ", %" PRIu64
				" bytes",
				ex->object, ex->size);
	int32_t r = agent_fetch(peer, ex->object, ex->cookie, deadline, &fd, NULL, NULL);
	if (r == SMEM_OK)
		r = check_handed_over(fd, ex);
	if (r != SMEM_OK)
		return r;
	struct device_mem mem = {.fd = fd, .size = ex->size, .pages = (enum mem_pages)ex->pages};
	bool tables = mem.pages == MEM_PAGES_BASE && tables_take(mem.size);
	r = device_host.map(&mem, addr, tables || mem.pages != MEM_PAGES_BASE);
	if (r != SMEM_OK) {
		if (tables)
			atomic_fetch_sub(&tables_bytes, mem.size);
		return r;
	}
	mem.fd = -1;
	*ret = (struct segment){.mem = mem, .addr = addr, .exported = *ex, .tables = tables};
	return SMEM_OK;
}

void segment_destroy(struct segment *seg)
{
	segment_withdraw(seg);
	if (seg->addr)
		device_host.unmap(seg->addr, seg->mem.size);
	seg->addr = NULL;
	if (seg->tables)
		atomic_fetch_sub(&tables_bytes, seg->mem.size);
	seg->tables = false;
	if (seg->mem.size != 0)
		device_host.free(&seg->mem);
	seg->mem = (struct device_mem){.fd = -1};
}

static void fork_child(void)
{
	atomic_store(&tables_bytes, 0);
}

static const struct fork_hooks hooks = {
    .order = FORK_ORDER_DEVICE,
    .child = fork_child,
};
FORK_HOOKS(hooks)
