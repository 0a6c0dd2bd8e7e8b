/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One entry a file, shared by all registrations that lie in it, found again by device and inode.
 * The number of an object carries its place in the low bits, so that a peer can keep its mappings
 * in an array; the rest is random, so that a place used anew is not taken for the old file.
 */
#include "core/backing.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/vma.h"
#include "util/err.h"
#include "util/fd.h"
#include "util/limits.h"
#include "util/rng.h"

struct backing {
	uint64_t object;
	dev_t dev;
	ino_t inode;
	int fd;
	uint64_t refs; /* 0: the place is free */
};

struct backings {
	uint8_t cookie[AGENT_COOKIE];
	bool writable;
	int maps; /* /proc/self/maps; -1: it cannot be had, all is private */
	struct backing *place;
	uint32_t count;
};

int32_t backings_create(const uint8_t cookie[AGENT_COOKIE], bool writable, struct backings **ret)
{
	struct backings *b = calloc(1, sizeof(*b));

	if (!b)
		return smem_err(SMEM_MALLOC_FAILED, "table of mapped files");
	memcpy(b->cookie, cookie, sizeof(b->cookie));
	b->writable = writable;
	b->maps = fd_own(open("/proc/self/maps", O_RDONLY | O_CLOEXEC));
	*ret = b;
	return 0;
}

static void release(struct backing *p)
{
	agent_withdraw(p->object);
	fd_close(&p->fd);
	*p = (struct backing){.fd = -1};
}

void backings_destroy(struct backings *b)
{
	if (!b)
		return;
	for (uint32_t i = 0; i < b->count; i++)
		if (b->place[i].refs)
			release(&b->place[i]);
	fd_close(&b->maps);
	free(b->place);
	free(b);
}

static struct backing *find_known(struct backings *b, const struct vma *vma)
{
	for (uint32_t i = 0; i < b->count; i++) {
		struct backing *p = &b->place[i];
		if (p->refs && p->inode == vma->inode && p->dev == vma->dev)
			return p;
	}
	return NULL;
}

static struct backing *free_place(struct backings *b)
{
	for (uint32_t i = 0; i < b->count; i++)
		if (!b->place[i].refs)
			return &b->place[i];
	if (b->count == BACKINGS_MAX)
		return NULL;
	uint32_t grown = b->count ? b->count * 2 : 16;
	struct backing *place = realloc(b->place, grown * sizeof(*place));
	if (!place)
		return NULL;
	for (uint32_t i = b->count; i < grown; i++)
		place[i] = (struct backing){.fd = -1};
	uint32_t first = b->count;
	b->place = place;
	b->count = grown;
	return &b->place[first];
}

static struct backing *find_new(struct backings *b, const struct vma *vma)
{
	int fd = vma_open(vma, b->writable ? O_RDWR : O_RDONLY);
	int seals = fd < 0 ? -1 : fcntl(fd, F_GET_SEALS);
	struct backing *p = seals >= 0 && (seals & F_SEAL_SHRINK) ? free_place(b) : NULL;

	if (!p) {
		fd_close(&fd);
		return NULL;
	}
	uint32_t index = (uint32_t)(p - b->place);
	*p = (struct backing){.object = (rng_u64() & ~(uint64_t)(BACKINGS_MAX - 1)) | index,
			      .dev = vma->dev,
			      .inode = vma->inode,
			      .fd = fd};
	if (p->object >> 16 == 0 || agent_offer(p->object, b->cookie, fd, NULL, 0) != 0) {
		fd_close(&p->fd);
		*p = (struct backing){.fd = -1};
		return NULL;
	}
	return p;
}

uint32_t backings_take(struct backings *b, uint64_t begin, uint64_t end, struct region_piece *ret)
{
	uint32_t n = 0;

	while (begin < end && n < BACKING_PIECES) {
		struct vma vma;
		struct region_piece piece = {.begin = begin, .end = end};
		if (!vma_find(b->maps, begin, &vma) || vma.end <= begin)
			break;
		if (vma.end < end)
			piece.end = vma.end;
		if (vma.inode && vma.shared && vma.readable && vma.writable) {
			struct backing *p = find_known(b, &vma);
			if (!p)
				p = find_new(b, &vma);
			if (p) {
				p->refs++;
				piece.object = p->object;
				piece.offset = vma.offset + (begin - vma.begin);
			}
		}
		/* private memory in several mappings is one piece */
		if (n && !piece.object && !ret[n - 1].object)
			ret[n - 1].end = piece.end;
		else
			ret[n++] = piece;
		begin = piece.end;
	}
	if (begin < end)
		ret[n++] = (struct region_piece){.begin = begin, .end = end};
	return n;
}

void backings_drop(struct backings *b, const struct region_piece *piece, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		struct backing *p = &b->place[piece[i].object & (BACKINGS_MAX - 1)];
		if (piece[i].object && --p->refs == 0)
			release(p);
	}
}
