/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control groups that hold for this process under one controller: every level from its own
 * group to the mount point, in version 1 (a hierarchy with that controller) and version 2 (the
 * unified one).
 */
#ifndef DEVICE_CGROUP_H
#define DEVICE_CGROUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CGROUP_LEVEL_MAX                                                                           \
	64u /* nested groups; systemd and container runtimes use fewer than ten                    \
	     */

struct cgroup_level {
	char *dir;
	bool v2;
};

struct cgroup {
	size_t count;
	struct cgroup_level level[CGROUP_LEVEL_MAX];
};

/* controller: "memory", "cpu". `root` is put before every path: "" in life, a made-up tree in
 * tests. What cannot be read is not there. */
void cgroup_find(const char *root, const char *controller, struct cgroup *ret);
void cgroup_clear(struct cgroup *g); /* twice is fine */

/* Up to `max` numbers of a file of one line, such as "max 100000"; "max" reads as UINT64_MAX.
 * Returns how many. */
size_t cgroup_numbers(const char *dir, const char *file, uint64_t *ret, size_t max);

#endif
