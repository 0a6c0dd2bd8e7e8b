/* SPDX-License-Identifier: Apache-2.0 */
/* Processes as ranks: the page alone holds them together, and one of them dies anywhere. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/collective.h"
#include "util/err.h"

#define RANKS_MAX 32

struct shared {
	_Atomic int32_t code[RANKS_MAX];
	_Atomic uint32_t done[RANKS_MAX];
	uint64_t plain[RANKS_MAX];
};
static struct shared *shared;

typedef int32_t (*body)(struct collective *c, uint32_t rounds);

static int32_t barriers(struct collective *c, uint32_t rounds)
{
	for (uint32_t round = 1; round <= rounds; round++) {
		shared->plain[c->rank] = (uint64_t)round * 64 + c->rank;
		int32_t r = collective_barrier(c, deadline_in_s(60));
		if (r != SMEM_OK)
			return r;
		shared->done[c->rank]++;
		for (uint32_t i = 0; i < c->size; i++) {
			uint64_t seen = ((volatile uint64_t *)shared->plain)[i] - i;
			if (seen != (uint64_t)round * 64 && seen != (uint64_t)(round + 1) * 64)
				return 1;
		}
	}
	return SMEM_OK;
}

static int32_t gathers(struct collective *c, uint32_t rounds)
{
	static char mine[4096], all[RANKS_MAX * 4096];

	for (uint32_t round = 1; round <= rounds; round++) {
		uint32_t len = round * 977 % sizeof(mine) + 1;
		memset(mine, (int)(round + c->rank), len);
		int32_t r = collective_allgather(c, mine, len, all, deadline_in_s(60));
		if (r != SMEM_OK)
			return r;
		shared->done[c->rank]++;
		for (uint32_t i = 0; i < c->size; i++) {
			if (all[(size_t)i * len] != (char)(round + i) ||
			    all[(size_t)i * len + len - 1] != (char)(round + i))
				return 1;
		}
	}
	return SMEM_OK;
}

/* A rank process: maps the page anew, runs the body, says how it went. */
static pid_t spawn(int page_fd, uint32_t size, uint32_t rank, body fn, uint32_t rounds)
{
	pid_t parent = getpid();
	pid_t pid = fork();

	if (pid != 0)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(3);
	struct control page = {.fd = -1};
	struct collective c;
	int32_t r = control_open(&page_fd, size, &page);
	if (r == SMEM_OK) {
		collective_init(&c, &page, rank);
		r = fn(&c, rounds);
	}
	shared->code[rank] = r;
	_exit(r == SMEM_OK ? 0 : 2);
}

static int page_make(uint32_t size, struct control *page)
{
	page->fd = -1;
	assert_int_equal(control_create(size, page), SMEM_OK);
	memset(shared, 0, sizeof(*shared));
	return dup(page->fd); /* the library's own is closed in a child */
}

/* The round, which wraps. */
static uint32_t total(const struct control *page)
{
	return (uint32_t)(atomic_load(&page->head->state) >> 32) & CONTROL_ROUNDS;
}

static void run_all(uint32_t size, body fn, uint32_t rounds)
{
	struct control page;
	pid_t pid[RANKS_MAX];
	int fd = page_make(size, &page);
	int status;

	for (uint32_t i = 0; i < size; i++)
		pid[i] = spawn(fd, size, i, fn, rounds);
	for (uint32_t i = 0; i < size; i++) {
		assert_int_equal(waitpid(pid[i], &status, 0), pid[i]);
		assert_int_equal(shared->code[i], SMEM_OK);
		assert_int_equal(status, 0);
		assert_int_equal(shared->done[i], rounds);
	}
	assert_int_equal(total(&page), rounds);
	close(fd);
	control_close(&page);
}

static void test_ten_thousand_barriers(void **state)
{
	(void)state;
	run_all(1, barriers, 10000);
	run_all(2, barriers, 10000);
	run_all(4, barriers, 10000);
	run_all(8, barriers, 2000);
	run_all(32, barriers, 500);
}

static void test_allgathers(void **state)
{
	(void)state;
	run_all(2, gathers, 2000);
	run_all(8, gathers, 500);
	run_all(32, gathers, 100);
}

/* Kill a rank in the middle of traffic; the survivors fail alike, having completed the same rounds.
 */
static void kill_one(uint32_t size, uint32_t victim, uint32_t after, body fn)
{
	struct control page;
	pid_t pid[RANKS_MAX];
	int fd = page_make(size, &page);
	struct deadline d = deadline_in_s(60);

	for (uint32_t i = 0; i < size; i++)
		pid[i] = spawn(fd, size, i, fn, UINT32_MAX);
	while (total(&page) < after && !deadline_passed(d))
		sched_yield();
	assert_true(total(&page) >= after);
	kill(pid[victim], SIGKILL);
	assert_int_equal(waitpid(pid[victim], NULL, 0), pid[victim]);
	collective_lost(&page, victim, false);
	uint32_t first = victim == 0 ? 1 : 0;
	for (uint32_t i = 0; i < size; i++) {
		if (i == victim)
			continue;
		assert_int_equal(waitpid(pid[i], NULL, 0), pid[i]);
		assert_int_equal(shared->code[i], SMEM_PEER_LOST);
	}
	for (uint32_t i = 0; i < size; i++) {
		if (i != victim)
			assert_int_equal(shared->done[i], shared->done[first]);
	}
	assert_int_equal(shared->done[first] & CONTROL_ROUNDS, total(&page));
	close(fd);
	control_close(&page);
}

static void test_kill_in_traffic(void **state)
{
	uint32_t x = 12345;

	(void)state;
	for (int i = 0; i < 40; i++) {
		x = x * 1664525u + 1013904223u;
		uint32_t size = 2 + x / 7 % 5;
		kill_one(size, x / 3 % size, x / 11 % 50, i % 2 ? gathers : barriers);
	}
}

/* ---- death at any instruction ---- */

static int32_t traced(struct collective *c, uint32_t rounds)
{
	if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
		return 1;
	raise(SIGSTOP);
	return barriers(c, rounds);
}

static void *barrier_thread(void *arg)
{
	struct collective *c = arg;

	shared->code[c->rank] = collective_barrier(c, deadline_in_s(60));
	return NULL;
}

/*
 * Rank 1 enters a barrier instruction by instruction and dies after `steps` of them; rank 0 waits
 * already. True while the child was still on its way.
 */
static bool die_after(uint32_t steps, int32_t *code, uint32_t *completed)
{
	struct control page;
	struct collective c;
	pthread_t thread;
	int fd = page_make(2, &page);
	int status = 0;
	pid_t pid = spawn(fd, 2, 1, traced, 1);

	collective_init(&c, &page, 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSTOPPED(status));
	assert_int_equal(pthread_create(&thread, NULL, barrier_thread, &c), 0);
	for (uint32_t i = 0; i < steps && WIFSTOPPED(status); i++) {
		if (ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) != 0)
			break;
		assert_int_equal(waitpid(pid, &status, 0), pid);
	}
	bool alive = WIFSTOPPED(status);
	kill(pid, SIGKILL);
	if (alive)
		assert_int_equal(waitpid(pid, &status, 0), pid);
	collective_lost(&page, 1, false);
	pthread_join(thread, NULL);
	*code = shared->code[0];
	*completed = total(&page);
	close(fd);
	control_close(&page);
	return alive;
}

static bool can_trace(void)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
			_exit(1);
		raise(SIGSTOP);
		_exit(0);
	}
	if (waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status))
		return false;
	bool can = ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) == 0 &&
		   waitpid(pid, &status, 0) == pid && WIFSTOPPED(status);
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	return can;
}

static void test_death_at_any_instruction(void **state)
{
	uint32_t lost = 0, won = 0, rounds;
	int32_t code;

	(void)state;
	if (!can_trace()) {
		print_message("skipped: ptrace is not permitted here\n");
		skip();
	}
	for (uint32_t steps = 0; steps < 20000; steps += 1 + steps / 61) {
		bool alive = die_after(steps, &code, &rounds);
		assert_int_equal(code, rounds == 1 ? SMEM_OK : SMEM_PEER_LOST);
		lost += rounds == 0;
		won += rounds == 1;
		if (!alive || won > 40) /* beyond the barrier */
			break;
	}
	assert_true(lost > 0 && won > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_ten_thousand_barriers),
	    cmocka_unit_test(test_allgathers),
	    cmocka_unit_test(test_kill_in_traffic),
	    cmocka_unit_test(test_death_at_any_instruction),
	};

	shared =
	    mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return shared == MAP_FAILED
		   ? 1
		   : cmocka_run_group_tests_name("collective_death", tests, NULL, NULL);
}
