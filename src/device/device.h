/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What memory is. A device allocates memory that other processes can map, maps it at a given
 * address, and moves bytes. The host device serves both kinds: DRAM, and HBM emulated in host
 * memory.
 *
 * Calls may come from any thread. alloc/map may take long (pages are reserved and zeroed); never on
 * a loop's thread.
 */
#ifndef DEVICE_DEVICE_H
#define DEVICE_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One piece of a copy: `height` rows of `width` bytes. Pitches count only when height > 1. */
struct smem_xfer {
	void *dst;
	const void *src;
	size_t dpitch;
	size_t spitch;
	size_t width;
	size_t height;
};

enum mem_pages { MEM_PAGES_BASE, MEM_PAGES_THP, MEM_PAGES_HUGETLB };

/* Memory that can be handed to other processes: an open sealed memfd. */
struct device_mem {
	int fd;
	size_t size;
	enum mem_pages pages;
};

struct device_ops {
	const char *name; /* "host" */

	/*
	 * `size` bytes, zero-filled, really there: later touches never fault for want of memory.
	 * size is a multiple of SLOT_ALIGN. SMEM_MALLOC_FAILED naming what is wanted and what is
	 * there; SMEM_NEW_OBJECT_FAILED.
	 */
	int32_t (*alloc)(size_t size, struct device_mem *ret);
	void (*free)(struct device_mem *mem); /* twice is fine; mappings stay */

	/*
	 * Map at exactly `addr` (inside a range that space.h reserved), readable and writable, not
	 * inherited by fork. populate: also make the page tables, so that the first touch is cheap.
	 */
	int32_t (*map)(const struct device_mem *mem, void *addr, bool populate);
	/* Give the range back to the reservation: nothing is mapped there, and nothing else comes
	 * there. */
	void (*unmap)(void *addr, size_t size);

	/*
	 * Copy all pieces; both sides are load/store-able here. Any alignment. Overlap inside a
	 * piece: contents unspecified. May use idle CPUs. All bytes are visible to everybody
	 * ordered after the return (streaming stores are fenced).
	 */
	void (*copy)(const struct smem_xfer *x, size_t n);
};

extern const struct device_ops device_host;

/* "4 KiB", "transparent 2 MiB", "hugetlb 2 MiB". */
const char *mem_pages_name(enum mem_pages pages);

#endif
