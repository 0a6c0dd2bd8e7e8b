/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that does not exist is not refused by Linux but paid for with a life: fallocate() of
 * shared memory on a full machine, or in a full cgroup, wakes the OOM killer. So the limits are
 * read before each piece is taken. That leaves a race between processes that allocate at the same
 * time: pieces are small beside what is left, and a margin stays for the last ones, page tables and
 * the like.
 *
 * Both cgroup versions count, the one of the memory controller (v1) and the unified one (v2), and
 * every level from the process's own group to the mount point, because a limit may sit on any of
 * them. Page cache inside a group gives way, so it counts as free; shared memory does not. Swap
 * counts for nothing: a pool in swap is of no use.
 */
#include "device/room.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/cgroup.h"
#include "util/err.h"

#define DIR_MAX 1024

#define MARGIN_MIN (4ull << 20)
#define MARGIN_MAX (512ull << 20)

#define NO_LIMIT (1ull << 62) /* v1 writes "none" as a number near 2^63 */

struct room {
	char *root;
	struct cgroup groups;
};

/* Sum of the named lines of a "name value" file; `colon` as in /proc/meminfo. */
static uint64_t read_fields(const char *dir, const char *file, const char *const *names, size_t n)
{
	char path[2 * DIR_MAX], name[64];
	uint64_t value, sum = 0;

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	FILE *f = fopen(path, "re");
	while (f && fscanf(f, "%63s %" SCNu64 "%*[^\n]", name, &value) == 2) {
		for (size_t i = 0; i < n; i++) {
			if (strcmp(name, names[i]) == 0)
				sum += value;
		}
	}
	if (f)
		fclose(f);
	return sum;
}

static uint64_t margin_of(uint64_t limit)
{
	uint64_t m = limit / 64;

	return m < MARGIN_MIN ? MARGIN_MIN : m > MARGIN_MAX ? MARGIN_MAX : m;
}

static void consider(struct room_left *left, uint64_t limit, uint64_t used, const char *whose)
{
	uint64_t taken = used + margin_of(limit);
	uint64_t free = limit > taken ? limit - taken : 0;

	if (free >= left->bytes)
		return;
	left->bytes = free;
	snprintf(left->limit, sizeof(left->limit),
		 "%.150s: %" PRIu64 " MiB, in use %" PRIu64 " MiB", whose, limit >> 20, used >> 20);
}

static void consider_machine(const struct room *room, struct room_left *left)
{
	static const char *const total_name[] = {"MemTotal:"};
	static const char *const avail_name[] = {"MemAvailable:"};
	char dir[DIR_MAX];

	snprintf(dir, sizeof(dir), "%s/proc", room->root);
	uint64_t total = read_fields(dir, "meminfo", total_name, 1) << 10;
	uint64_t avail = read_fields(dir, "meminfo", avail_name, 1) << 10;
	if (total != 0)
		consider(left, total, total > avail ? total - avail : 0, "memory of the machine");
}

static void consider_level(const struct cgroup_level *l, struct room_left *left)
{
	static const char *const cache_v2[] = {"active_file", "inactive_file"};
	static const char *const cache_v1[] = {"total_active_file", "total_inactive_file"};
	uint64_t limit, used;
	char whose[DIR_MAX];

	if (cgroup_numbers(l->dir, l->v2 ? "memory.max" : "memory.limit_in_bytes", &limit, 1) !=
		1 ||
	    limit >= NO_LIMIT ||
	    cgroup_numbers(l->dir, l->v2 ? "memory.current" : "memory.usage_in_bytes", &used, 1) !=
		1)
		return;
	uint64_t cache = read_fields(l->dir, "memory.stat", l->v2 ? cache_v2 : cache_v1, 2);
	snprintf(whose, sizeof(whose), "limit of cgroup %s", l->dir);
	consider(left, limit, used > cache ? used - cache : 0, whose);
}

void room_read(const struct room *room, struct room_left *ret)
{
	*ret = (struct room_left){.bytes = UINT64_MAX};
	consider_machine(room, ret);
	for (size_t i = 0; i < room->groups.count; i++)
		consider_level(&room->groups.level[i], ret);
}

int32_t room_open(const char *root, struct room **ret)
{
	struct room *room = calloc(1, sizeof(*room));

	if (!room || !(room->root = strdup(root))) {
		free(room);
		return smem_err(SMEM_MALLOC_FAILED, "limits of memory");
	}
	cgroup_find(root, "memory", &room->groups);
	*ret = room;
	return SMEM_OK;
}

void room_close(struct room *room)
{
	if (!room)
		return;
	cgroup_clear(&room->groups);
	free(room->root);
	free(room);
}
