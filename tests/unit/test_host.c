/* SPDX-License-Identifier: Apache-2.0 */
/* What is special about host memory: kinds of pages, seals, limits, fork. What every device does is
 * in tests/conformance/test_device.c. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "device/cgroup.h"
#include "device/device.h"
#include "smem.h"
#include "util/err.h"
#include "util/limits.h"

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
#define SIZE  ((size_t)(8 * SLOT_ALIGN))

static char *reserve(void)
{
	char *p =
	    mmap(NULL, 2 * SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	assert_true(p != MAP_FAILED);
	return p;
}

static char *aligned(char *p)
{
	return p + (SLOT_ALIGN - (uintptr_t)p % SLOT_ALIGN);
}

static void test_sealed(void **state)
{
	struct device_mem mem;
	struct stat st;
	int fd;

	(void)state;
	assert_int_equal(device_host.alloc(SIZE, &mem), SMEM_OK);
	assert_true(mem.fd >= 0 && mem.size == SIZE);
	assert_true(fcntl(mem.fd, F_GETFD) & FD_CLOEXEC);
	assert_int_equal(fcntl(mem.fd, F_GET_SEALS) & SEALS, SEALS);
	assert_int_equal(ftruncate(mem.fd, (off_t)SIZE - 4096), -1);
	assert_int_equal(errno, EPERM);
	assert_int_equal(ftruncate(mem.fd, (off_t)SIZE + 4096), -1);
	assert_int_equal(fstat(mem.fd, &st), 0);
	assert_int_equal(st.st_blocks * 512, SIZE); /* every page is there */
	fd = mem.fd;
	device_host.free(&mem);
	assert_int_equal(mem.fd, -1);
	device_host.free(&mem);
	assert_int_equal(fcntl(fd, F_GETFD), -1);
}

/* The kernel's word for how a mapping is backed, in KiB; -1 when it does not say. */
static long smaps_field(const char *addr, const char *field)
{
	FILE *f = fopen("/proc/self/smaps", "re");
	char line[512];
	unsigned long begin, end;
	long kib = -1;
	bool inside = false;

	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &begin, &end) == 2)
			inside = (uintptr_t)addr >= begin && (uintptr_t)addr < end;
		else if (inside && strncmp(line, field, strlen(field)) == 0)
			sscanf(line + strlen(field), "%ld", &kib);
	}
	if (f)
		fclose(f);
	return kib;
}

static void check_pages(enum mem_pages pages, const char *addr)
{
	long page = smaps_field(addr, "KernelPageSize:");
	long pmd = smaps_field(addr, "ShmemPmdMapped:");

	print_message("# %s: page %ld KiB, huge mapped %ld KiB\n", mem_pages_name(pages), page,
		      pmd);
	if (pages == MEM_PAGES_HUGETLB)
		assert_int_equal(page, 2048);
	if (pages == MEM_PAGES_BASE && pmd >= 0)
		assert_int_equal(pmd, 0);
}

static void test_pages(void **state)
{
	char *whole = reserve(), *at = aligned(whole);

	(void)state;
	for (int huge = 0; huge <= 1; huge++) {
		struct device_mem mem;
		setenv("SMEM_HUGE_PAGES", huge ? "1" : "0", 1);
		assert_int_equal(device_host.alloc(SIZE, &mem), SMEM_OK);
		if (!huge)
			assert_int_equal(mem.pages, MEM_PAGES_BASE);
		assert_int_equal(device_host.map(&mem, at, true), SMEM_OK);
		check_pages(mem.pages, at);
		device_host.unmap(at, SIZE);
		device_host.free(&mem);
	}
	unsetenv("SMEM_HUGE_PAGES");
	munmap(whole, 2 * SIZE);
}

/* Only on request, because it changes the machine: SMEM_TEST_HUGETLB=1 as root. Sets pages aside
 * and sees that they are preferred. */
#define NR_HUGE "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"

static unsigned huge_count(void)
{
	unsigned n = 0;
	FILE *f = fopen(NR_HUGE, "r");

	assert_non_null(f);
	assert_int_equal(fscanf(f, "%u", &n), 1);
	fclose(f);
	return n;
}

static void huge_set(unsigned n)
{
	FILE *f = fopen(NR_HUGE, "w");

	assert_non_null(f);
	fprintf(f, "%u\n", n);
	assert_int_equal(fclose(f), 0);
}

static void test_hugetlb(void **state)
{
	struct device_mem mem;

	(void)state;
	if (!getenv("SMEM_TEST_HUGETLB")) {
		print_message(
		    "# skipped: changes the machine, wants SMEM_TEST_HUGETLB=1 and root\n");
		skip();
	}
	unsigned before = huge_count();
	char *whole = reserve(), *at = aligned(whole);
	huge_set(before + SIZE / SLOT_ALIGN);
	int32_t r = device_host.alloc(SIZE, &mem);
	huge_set(before);
	assert_int_equal(r, SMEM_OK);
	assert_int_equal(mem.pages, MEM_PAGES_HUGETLB);
	assert_int_equal(fcntl(mem.fd, F_GET_SEALS) & SEALS, SEALS);
	assert_int_equal(device_host.map(&mem, at, true), SMEM_OK);
	check_pages(mem.pages, at);
	memset(at, 1, SIZE);
	device_host.unmap(at, SIZE);
	device_host.free(&mem);
	munmap(whole, 2 * SIZE);
}

/* What no machine has is refused with figures, and nothing is left. */
static void test_full_machine(void **state)
{
	struct device_mem mem = {.fd = -1};
	size_t size = (size_t)1 << 44;

	(void)state;
	assert_int_equal(device_host.alloc(size, &mem), SMEM_MALLOC_FAILED);
	assert_non_null(strstr(err_detail(), "16777216 MiB wanted"));
	assert_non_null(strstr(err_detail(), "to be had"));
	assert_int_equal(mem.fd, -1);
}

static int in_child(int (*fn)(void))
{
	int status;
	pid_t pid = fork();

	if (pid == 0)
		_exit(fn());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static int with_file_limit(void)
{
	struct rlimit lim = {.rlim_cur = SLOT_ALIGN, .rlim_max = SLOT_ALIGN};
	struct device_mem mem;

	setrlimit(RLIMIT_FSIZE, &lim);
	return device_host.alloc(SIZE, &mem) == SMEM_MALLOC_FAILED &&
		       strstr(err_detail(), "RLIMIT_FSIZE")
		   ? 0
		   : 1;
}

static int with_few_descriptors(void)
{
	struct rlimit lim = {.rlim_cur = 3, .rlim_max = 3};
	struct device_mem mem;

	setrlimit(RLIMIT_NOFILE, &lim);
	return device_host.alloc(SIZE, &mem) == SMEM_NEW_OBJECT_FAILED ? 0 : 1;
}

static void test_limits(void **state)
{
	(void)state;
	assert_int_equal(in_child(with_file_limit), 0);
	assert_int_equal(in_child(with_few_descriptors), 0);
}

/* ---- a control group of little memory: several processes at once, none of them is killed */

#define GROUP_LIMIT (64u << 20)

static bool write_text(const char *dir, const char *file, const char *text)
{
	char path[512];
	snprintf(path, sizeof(path), "%s/%s", dir, file);
	FILE *f = fopen(path, "w");

	if (!f)
		return false;
	bool ok = fputs(text, f) >= 0;
	return fclose(f) == 0 && ok;
}

/* A group below the own one, with a limit; false where that is not allowed. */
static bool group_make(char *dir, size_t cap)
{
	struct cgroup own;
	char limit[32];
	bool made = false;

	snprintf(limit, sizeof(limit), "%u", GROUP_LIMIT);
	cgroup_find("", "memory", &own);
	for (size_t i = 0; i < own.count && !made; i++) {
		snprintf(dir, cap, "%s/smem-test-%d", own.level[i].dir, (int)getpid());
		if (mkdir(dir, 0755) != 0)
			continue;
		made = write_text(dir, own.level[i].v2 ? "memory.max" : "memory.limit_in_bytes",
				  limit);
		if (!made)
			rmdir(dir);
	}
	cgroup_clear(&own);
	return made;
}

/* 0: had it; 1: was refused it; else wrong. */
static int alloc_in_group(const char *dir, size_t size)
{
	struct device_mem mem;

	setenv("SMEM_HUGE_PAGES", "0", 1);
	if (!write_text(dir, "cgroup.procs", "0"))
		return 2;
	int32_t r = device_host.alloc(size, &mem);
	if (r == SMEM_OK)
		return 0;
	return r == SMEM_MALLOC_FAILED && strstr(err_detail(), dir) ? 1 : 3;
}

static void test_full_group(void **state)
{
	char dir[400];
	pid_t pid[6];
	int status;

	(void)state;
	if (!group_make(dir, sizeof(dir))) {
		print_message("# skipped: no control group with a memory limit can be made here\n");
		skip();
	}
	pid[0] = fork();
	if (pid[0] == 0)
		_exit(alloc_in_group(dir, 12 * SLOT_ALIGN));
	assert_int_equal(waitpid(pid[0], &status, 0), pid[0]);
	assert_int_equal(status, 0);
	/* All at once: each may be refused, the last one must be, and nobody is killed. */
	for (int i = 0; i < 6; i++) {
		pid[i] = fork();
		if (pid[i] == 0)
			_exit(alloc_in_group(dir, (i < 5 ? 12 : 60) * SLOT_ALIGN));
	}
	for (int i = 0; i < 6; i++) {
		assert_int_equal(waitpid(pid[i], &status, 0), pid[i]);
		assert_true(WIFEXITED(status) && WEXITSTATUS(status) <= 1);
		if (i == 5)
			assert_int_equal(WEXITSTATUS(status), 1);
	}
	assert_int_equal(rmdir(dir), 0);
}

static void on_alarm(int sig)
{
	(void)sig;
}

/* A timer that fires all the time must not stop an allocation. */
static void test_signals(void **state)
{
	struct sigaction old, sa = {.sa_handler = on_alarm};
	struct itimerval fast = {{0, 200}, {0, 200}}, off = {{0, 0}, {0, 0}};
	struct device_mem mem;

	(void)state;
	sigaction(SIGALRM, &sa, &old);
	setitimer(ITIMER_REAL, &fast, NULL);
	int32_t r = device_host.alloc(16 * SIZE, &mem);
	setitimer(ITIMER_REAL, &off, NULL);
	sigaction(SIGALRM, &old, NULL);
	assert_int_equal(r, SMEM_OK);
	device_host.free(&mem);
}

static char *forked_at;

static int touch_in_child(void)
{
	return msync(forked_at, 4096, MS_ASYNC) == 0 ? 1 : 0;
}

static void test_not_inherited(void **state)
{
	char *whole = reserve();
	struct device_mem mem;

	(void)state;
	forked_at = aligned(whole);
	assert_int_equal(device_host.alloc(SIZE, &mem), SMEM_OK);
	assert_int_equal(device_host.map(&mem, forked_at, true), SMEM_OK);
	assert_int_equal(in_child(touch_in_child), 0);
	device_host.unmap(forked_at, SIZE);
	assert_int_equal(in_child(touch_in_child), 0); /* nor is the reservation */
	assert_int_equal(msync(forked_at, 4096, MS_ASYNC), 0);
	device_host.free(&mem);
	munmap(whole, 2 * SIZE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_sealed),     cmocka_unit_test(test_pages),
	    cmocka_unit_test(test_hugetlb),    cmocka_unit_test(test_full_machine),
	    cmocka_unit_test(test_full_group), cmocka_unit_test(test_limits),
	    cmocka_unit_test(test_signals),    cmocka_unit_test(test_not_inherited),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
