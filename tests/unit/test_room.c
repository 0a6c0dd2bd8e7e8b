/* SPDX-License-Identifier: Apache-2.0 */
/* The limits of memory, read from made-up trees of /proc and /sys. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "device/room.h"

#define MIB 1048576ull

static char root[64];
static char made[64][256]; /* files and folders to remove, in the order they were made */
static size_t made_count;

static int setup(void **state)
{
	(void)state;
	strcpy(root, "/tmp/smem-room-XXXXXX");
	made_count = 0;
	return mkdtemp(root) ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	while (made_count > 0)
		remove(made[--made_count]);
	return remove(root);
}

static void put(const char *path, const char *text)
{
	char full[256];

	snprintf(full, sizeof(full), "%s%s", root, path);
	for (char *p = full + strlen(root) + 1; (p = strchr(p, '/')); p++) {
		*p = '\0';
		if (mkdir(full, 0700) == 0)
			strcpy(made[made_count++], full);
		*p = '/';
	}
	FILE *f = fopen(full, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
	strcpy(made[made_count++], full);
}

static struct room_left look(void)
{
	struct room *room = NULL;
	struct room_left left;

	assert_int_equal(room_open(root, &room), 0);
	room_read(room, &left);
	room_close(room);
	return left;
}

static void put_machine(void)
{
	put("/proc/meminfo", "MemTotal:       8388608 kB\nMemFree:          100 kB\n"
			     "MemAvailable:   4194304 kB\nSwapFree:   99999999 kB\n");
}

static void test_machine_only(void **state)
{
	(void)state;
	put_machine();
	struct room_left left = look();
	assert_int_equal(left.bytes, 4096 * MIB - 128 * MIB); /* one in 64 stays */
	assert_non_null(strstr(left.limit, "machine: 8192 MiB, in use 4096 MiB"));
}

static void test_nothing_to_read(void **state)
{
	(void)state;
	assert_true(look().bytes == UINT64_MAX);
}

static void test_v2_nested(void **state)
{
	(void)state;
	put_machine();
	put("/proc/self/cgroup", "0::/outer/inner\n");
	put("/proc/self/mountinfo", "30 20 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n");
	put("/sys/fs/cgroup/outer/memory.max", "1073741824\n");
	put("/sys/fs/cgroup/outer/memory.current", "943718400\n");
	put("/sys/fs/cgroup/outer/memory.stat",
	    "anon 1\nfile 700000000\ninactive_file 209715200\nactive_file 104857600\nshmem 9\n");
	put("/sys/fs/cgroup/outer/inner/memory.max", "max\n");
	put("/sys/fs/cgroup/outer/inner/memory.current", "943718400\n");
	struct room_left left = look();
	assert_int_equal(left.bytes, (1024 - 900 + 300 - 16) * MIB);
	assert_non_null(strstr(left.limit, "/sys/fs/cgroup/outer: 1024 MiB, in use 600 MiB"));
}

static void test_v2_full(void **state)
{
	(void)state;
	put_machine();
	put("/proc/self/cgroup", "0::/\n"); /* a cgroup namespace: own group is the mount */
	put("/proc/self/mountinfo",
	    "30 20 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup rw,nsdelegate\n");
	put("/sys/fs/cgroup/memory.max", "104857600\n");
	put("/sys/fs/cgroup/memory.current", "104857599\n");
	assert_int_equal(look().bytes, 0);
}

static void test_v1_container(void **state)
{
	(void)state;
	put_machine();
	put("/proc/self/cgroup", "9:name=systemd:/docker/abc\n5:cpu,memory:/docker/abc/x\n0::/\n");
	put("/proc/self/mountinfo",
	    "29 20 0:25 /docker/abc /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n"
	    "30 20 0:26 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,cpu,memory\n");
	put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
	put("/sys/fs/cgroup/memory/memory.usage_in_bytes", "52428800\n");
	put("/sys/fs/cgroup/memory/x/memory.limit_in_bytes", "209715200\n");
	put("/sys/fs/cgroup/memory/x/memory.usage_in_bytes", "52428800\n");
	put("/sys/fs/cgroup/memory/x/memory.stat",
	    "inactive_file 999999999\ntotal_inactive_file 10485760\ntotal_active_file 0\n");
	struct room_left left = look();
	assert_int_equal(left.bytes, (200 - 50 + 10 - 4) * MIB);
	assert_non_null(strstr(left.limit, "/sys/fs/cgroup/memory/x"));
}

/* A group that is not below what is mounted here: only the mount's own level counts. */
static void test_outside_of_mount(void **state)
{
	(void)state;
	put_machine();
	put("/proc/self/cgroup", "0::/../../elsewhere\n");
	put("/proc/self/mountinfo", "30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
	put("/sys/fs/cgroup/memory.max", "524288000\n");
	put("/sys/fs/cgroup/memory.current", "0\n");
	assert_true(look().bytes < 500 * MIB);
}

static void test_this_machine(void **state)
{
	struct room *room = NULL;
	struct room_left left;

	(void)state;
	assert_int_equal(room_open("", &room), 0);
	room_read(room, &left);
	room_close(room);
	assert_true(left.bytes < UINT64_MAX);
	print_message("# %llu MiB, limit %s\n", (unsigned long long)(left.bytes >> 20), left.limit);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_machine_only, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_nothing_to_read, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_v2_nested, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_v2_full, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_v1_container, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_outside_of_mount, setup, teardown),
	    cmocka_unit_test(test_this_machine),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
