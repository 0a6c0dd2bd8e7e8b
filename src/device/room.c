/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that does not exist is not refused by Linux but paid for with a life: fallocate() of
 * shared memory on a full machine, or in a full cgroup, wakes the OOM killer. So the limits are
 * read before each piece is taken. That leaves a race between processes that allocate at the same
 * time; they take small pieces and read anew for each, and the margin covers one piece of several
 * of them.
 *
 * Both cgroup versions count, the one of the memory controller (v1) and the unified one (v2), and
 * every level from the process's own group to the mount point, because a limit may sit on any of
 * them. Page cache inside a group gives way, so it counts as free; shared memory does not. Swap
 * counts for nothing: a pool in swap is of no use.
 */
#include "device/room.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/cleanup.h"
#include "util/err.h"

#define DIR_MAX	  1024
#define LEVEL_MAX 64 /* nested groups; systemd and container runtimes use fewer than ten */

#define MARGIN_MIN (4ull << 20)
#define MARGIN_MAX (512ull << 20)

#define NO_LIMIT (1ull << 62) /* v1 writes "none" as a number near 2^63 */

struct level {
	char *dir;
	bool v2;
};

struct room {
	char *root;
	size_t count;
	struct level level[LEVEL_MAX];
};

static void close_file(FILE **f)
{
	if (*f)
		fclose(*f);
}
#define auto_file CLEANUP(close_file)

static FILE *open_under(const char *dir, const char *name)
{
	char path[2 * DIR_MAX];
	int n = snprintf(path, sizeof(path), "%s/%s", dir, name);

	return n > 0 && (size_t)n < sizeof(path) ? fopen(path, "re") : NULL;
}

/* A file that is one number; "max" and what cannot be read are no limit. */
static bool read_number(const char *dir, const char *name, uint64_t *ret)
{
	auto_file FILE *f = open_under(dir, name);

	return f && fscanf(f, "%" SCNu64, ret) == 1;
}

/* Sum of the named lines of a "name value" file; `colon` as in /proc/meminfo. */
static uint64_t read_fields(const char *dir, const char *file, const char *const *names, size_t n)
{
	auto_file FILE *f = open_under(dir, file);
	char name[64];
	uint64_t value, sum = 0;

	while (f && fscanf(f, "%63s %" SCNu64 "%*[^\n]", name, &value) == 2) {
		for (size_t i = 0; i < n; i++) {
			if (strcmp(name, names[i]) == 0)
				sum += value;
		}
	}
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

static void consider_level(const struct level *l, struct room_left *left)
{
	static const char *const cache_v2[] = {"active_file", "inactive_file"};
	static const char *const cache_v1[] = {"total_active_file", "total_inactive_file"};
	uint64_t limit, used;
	char whose[DIR_MAX];

	if (!read_number(l->dir, l->v2 ? "memory.max" : "memory.limit_in_bytes", &limit) ||
	    limit >= NO_LIMIT ||
	    !read_number(l->dir, l->v2 ? "memory.current" : "memory.usage_in_bytes", &used))
		return;
	uint64_t cache = read_fields(l->dir, "memory.stat", l->v2 ? cache_v2 : cache_v1, 2);
	snprintf(whose, sizeof(whose), "limit of cgroup %s", l->dir);
	consider(left, limit, used > cache ? used - cache : 0, whose);
}

void room_read(const struct room *room, struct room_left *ret)
{
	*ret = (struct room_left){.bytes = UINT64_MAX};
	consider_machine(room, ret);
	for (size_t i = 0; i < room->count; i++)
		consider_level(&room->level[i], ret);
}

static void add_level(struct room *room, const char *dir, bool v2)
{
	if (room->count == LEVEL_MAX)
		return;
	char *copy = strdup(dir);
	if (copy)
		room->level[room->count++] = (struct level){.dir = copy, .v2 = v2};
}

/* All levels from mount + inner (inner is "" or "/a/b") up to mount itself. */
static void add_levels(struct room *room, const char *mount, const char *inner, bool v2)
{
	char dir[2 * DIR_MAX];
	int stem = snprintf(dir, sizeof(dir), "%s%s", room->root, mount);

	size_t tail = strlen(inner) + 1;

	if (stem < 0 || tail > sizeof(dir) - (size_t)stem)
		return;
	memcpy(dir + stem, inner, tail);
	for (;;) {
		add_level(room, dir, v2);
		char *slash = strrchr(dir + stem, '/');
		if (!slash)
			return;
		*slash = '\0';
	}
}

/* The process's group in the hierarchy that controls memory (v1) or in the unified one (v2). */
static bool own_group(const struct room *room, bool v2, char group[DIR_MAX])
{
	char dir[DIR_MAX], line[DIR_MAX + 256], controllers[256];

	snprintf(dir, sizeof(dir), "%s/proc/self", room->root);
	auto_file FILE *f = open_under(dir, "cgroup");
	while (f && fgets(line, sizeof(line), f)) {
		char *first = strchr(line, ':');
		char *second = first ? strchr(first + 1, ':') : NULL;
		if (!second)
			continue;
		snprintf(controllers, sizeof(controllers), ",%.*s,", (int)(second - first - 1),
			 first + 1);
		bool match =
		    v2 ? strcmp(controllers, ",,") == 0 : strstr(controllers, ",memory,") != NULL;
		if (!match)
			continue;
		snprintf(group, DIR_MAX, "%s", second + 1);
		group[strcspn(group, "\n")] = '\0';
		return true;
	}
	return false;
}

/* What of `group` lies below the mounted part of the hierarchy; "" when the mount shows less. */
static const char *inner_part(const char *group, const char *mount_root)
{
	size_t n = strcmp(mount_root, "/") == 0 ? 0 : strlen(mount_root);

	if (strncmp(group, mount_root, n) != 0 || (group[n] != '/' && group[n] != '\0'))
		return "";
	group += n;
	if (strcmp(group, "/") == 0 || strstr(group, "/.."))
		return "";
	return group;
}

static void scan_mounts(struct room *room)
{
	char dir[DIR_MAX], line[4096], root[DIR_MAX], mount[DIR_MAX], group[DIR_MAX];

	snprintf(dir, sizeof(dir), "%s/proc/self", room->root);
	auto_file FILE *f = open_under(dir, "mountinfo");
	while (f && fgets(line, sizeof(line), f)) {
		const char *type = strstr(line, " - ");
		if (!type || sscanf(line, "%*s %*s %*s %1023s %1023s", root, mount) != 2)
			continue;
		bool v2 = strncmp(type, " - cgroup2 ", 11) == 0;
		bool v1 = strncmp(type, " - cgroup ", 10) == 0 && strstr(type, "memory");
		if ((v1 || v2) && own_group(room, v2, group))
			add_levels(room, mount, inner_part(group, root), v2);
	}
}

int32_t room_open(const char *root, struct room **ret)
{
	struct room *room = calloc(1, sizeof(*room));

	if (!room || !(room->root = strdup(root))) {
		free(room);
		return smem_err(SMEM_MALLOC_FAILED, "limits of memory");
	}
	scan_mounts(room);
	*ret = room;
	return SMEM_OK;
}

void room_close(struct room *room)
{
	if (!room)
		return;
	for (size_t i = 0; i < room->count; i++)
		free(room->level[i].dir);
	free(room->root);
	free(room);
}
