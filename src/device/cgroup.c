/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /proc/self/cgroup names the process's group in each hierarchy, /proc/self/mountinfo where the
 * hierarchies are mounted. A container may see a part only: the group's name then begins with the
 * mount's root, or lies outside of it, and what is mounted is all there is to read.
 */
#include "device/cgroup.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/cleanup.h"

#define DIR_MAX 1024

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

static void add_level(struct cgroup *g, const char *dir, bool v2)
{
	if (g->count == CGROUP_LEVEL_MAX)
		return;
	char *copy = strdup(dir);
	if (copy)
		g->level[g->count++] = (struct cgroup_level){.dir = copy, .v2 = v2};
}

/* All levels from mount + inner (inner is "" or "/a/b") up to mount itself. */
static void add_levels(struct cgroup *g, const char *mount, const char *inner, bool v2)
{
	char dir[3 * DIR_MAX];
	size_t stem = strlen(mount);

	if ((size_t)snprintf(dir, sizeof(dir), "%s%s", mount, inner) >= sizeof(dir))
		return;
	for (;;) {
		add_level(g, dir, v2);
		char *slash = strrchr(dir + stem, '/');
		if (!slash)
			return;
		*slash = '\0';
	}
}

/* Is `word` one of the comma-separated words of list[0..len)? */
static bool has_word(const char *list, size_t len, const char *word)
{
	size_t n = strlen(word);

	for (const char *p = list, *end = list + len; p <= end;) {
		const char *comma = memchr(p, ',', (size_t)(end - p));
		const char *stop = comma ? comma : end;
		if ((size_t)(stop - p) == n && strncmp(p, word, n) == 0)
			return true;
		p = stop + 1;
	}
	return false;
}

/* The process's group in the hierarchy with that controller (v1), or in the unified one (v2), whose
 * list of controllers is empty. */
static bool own_group(const char *proc, const char *controller, bool v2, char group[DIR_MAX])
{
	char line[DIR_MAX + 256];

	auto_file FILE *f = open_under(proc, "cgroup");
	while (f && fgets(line, sizeof(line), f)) {
		char *first = strchr(line, ':');
		char *second = first ? strchr(first + 1, ':') : NULL;
		if (!second ||
		    !has_word(first + 1, (size_t)(second - first - 1), v2 ? "" : controller))
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

/* "... - cgroup cgroup rw,memory": the last field has the controllers of a v1 hierarchy. */
static bool mounts_controller(const char *line, const char *controller)
{
	const char *options = strrchr(line, ' ');

	return options && has_word(options + 1, strcspn(options + 1, "\n"), controller);
}

void cgroup_find(const char *root, const char *controller, struct cgroup *ret)
{
	char proc[DIR_MAX], line[4096], top[DIR_MAX], mount[DIR_MAX], group[DIR_MAX],
	    dir[2 * DIR_MAX];

	ret->count = 0;
	snprintf(proc, sizeof(proc), "%s/proc/self", root);
	auto_file FILE *f = open_under(proc, "mountinfo");
	while (f && fgets(line, sizeof(line), f)) {
		const char *type = strstr(line, " - ");
		if (!type || sscanf(line, "%*s %*s %*s %1023s %1023s", top, mount) != 2)
			continue;
		bool v2 = strncmp(type, " - cgroup2 ", 11) == 0;
		bool v1 =
		    strncmp(type, " - cgroup ", 10) == 0 && mounts_controller(type, controller);
		if ((!v1 && !v2) || !own_group(proc, controller, v2, group))
			continue;
		snprintf(dir, sizeof(dir), "%s%s", root, mount);
		add_levels(ret, dir, inner_part(group, top), v2);
	}
}

void cgroup_clear(struct cgroup *g)
{
	while (g->count > 0)
		free(g->level[--g->count].dir);
}

size_t cgroup_numbers(const char *dir, const char *file, uint64_t *ret, size_t max)
{
	auto_file FILE *f = open_under(dir, file);
	char word[32];
	size_t n = 0;

	while (f && n < max && fscanf(f, "%31s", word) == 1) {
		if (strcmp(word, "max") == 0)
			ret[n++] = UINT64_MAX;
		else if (sscanf(word, "%" SCNu64, &ret[n]) == 1)
			n++;
		else
			break;
	}
	return n;
}
