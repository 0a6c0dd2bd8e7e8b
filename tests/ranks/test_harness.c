/* SPDX-License-Identifier: Apache-2.0 */
/* The harness itself: what ranks tell each other, kills and respawns, and that it sees what is left
 * behind. */
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "harness.h"

static void exchange(struct rank *r)
{
	uint32_t mine = r->rank * 10 + 1, all[RANK_MAX];
	char buf[8];

	for (int round = 0; round < 20; round++) {
		rank_barrier(r);
		rank_gather(r, &mine, sizeof(mine), all);
		for (uint32_t i = 0; i < r->size; i++)
			RANK_ASSERT(r, all[i] == i * 10 + 1);
	}
	if (r->rank == 0)
		rank_put(r, "key", "value", 6);
	RANK_ASSERT(r, rank_get(r, "key", buf, sizeof(buf)) == 6 && strcmp(buf, "value") == 0);
	for (uint32_t i = 0; i < RANK_PORTS; i++)
		RANK_ASSERT(r, r->port[i] != 0);
}

static void kill_and_respawn(struct rank *r)
{
	if (r->rank == 1 && r->life == 0) {
		rank_meet(r, "up", 2);
		rank_meet(r, "never", 3);
	}
	if (r->rank == 1) {
		RANK_ASSERT(r, r->life == 1);
		rank_put(r, "again", "", 0);
		return;
	}
	rank_meet(r, "up", 2);
	rank_stop(r, 1);
	rank_cont(r, 1);
	rank_kill(r, 1);
	rank_spawn(r, 1);
	rank_get(r, "again", NULL, 0);
}

static void spawned_later(struct rank *r)
{
	if (r->rank == 0) {
		for (uint32_t i = 1; i < r->size; i++)
			rank_spawn(r, i);
	}
	rank_barrier(r);
}

static void dies_freely(struct rank *r)
{
	if (r->rank == 1) {
		rank_may_die(r);
		raise(SIGKILL);
	}
}

static void leaks_fd(struct rank *r)
{
	RANK_ASSERT(r, open("/dev/null", O_RDONLY | O_CLOEXEC) >= 0);
}

static void leaks_mapping(struct rank *r)
{
	int fd = memfd_create("left", MFD_CLOEXEC);

	RANK_ASSERT(r, fd >= 0 && ftruncate(fd, 4096) == 0);
	RANK_ASSERT(r, mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0) != MAP_FAILED);
	close(fd);
}

static void leaks_process(struct rank *r)
{
	int gate[2];

	RANK_ASSERT(r, pipe(gate) == 0);
	pid_t pid = fork();
	RANK_ASSERT(r, pid >= 0);
	if (pid == 0) {
		close(gate[1]);
		setsid();
		sigset_t none;
		sigemptyset(&none);
		sigsuspend(&none);
		_exit(0);
	}
	close(gate[0]);
	close(gate[1]);
}

static void fails(struct rank *r)
{
	if (r->rank == 1)
		RANK_ASSERT(r, r->rank == 0);
	rank_barrier(r);
}

static void dies(struct rank *r)
{
	if (r->rank == 1)
		raise(SIGKILL);
	rank_barrier(r);
}

static void hangs(struct rank *r)
{
	if (r->rank == 0)
		rank_meet(r, "nowhere", r->size);
}

static const struct ranks_case cases[] = {
    {.name = "exchange", .fn = exchange, .sizes = {1, 2, 8}},
    {.name = "kill_and_respawn", .fn = kill_and_respawn, .sizes = {2}},
    {.name = "spawned_later", .fn = spawned_later, .sizes = {1, 4}, .initial = 1},
    {.name = "dies_freely", .fn = dies_freely, .sizes = {2}},
    {.name = "leaks_fd", .fn = leaks_fd, .sizes = {1}, .must_fail = "leaked descriptor"},
    {.name = "leaks_mapping", .fn = leaks_mapping, .sizes = {1}, .must_fail = "leaked mapping"},
    {.name = "leaks_process", .fn = leaks_process, .sizes = {1}, .must_fail = "leaked process"},
    {.name = "fails", .fn = fails, .sizes = {2}, .must_fail = "r->rank == 0"},
    {.name = "dies", .fn = dies, .sizes = {2}, .must_fail = "killed by signal 9"},
    {.name = "hangs", .fn = hangs, .sizes = {2}, .seconds = 1, .must_fail = "waits at nowhere"},
};

int main(int argc, char **argv)
{
	return ranks_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
