/* SPDX-License-Identifier: Apache-2.0 */
/* The agent between processes: hand-over, death, pause, orderly end, namespaces. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "device/fdpass.h"
#include "harness.h"
#include "util/err.h"
#include "util/fd.h"

#define PATIENCE_MS 20000

static const uint8_t cookie[AGENT_COOKIE] = "fifteen letters";

struct notice {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	int count;
};
#define NOTICE_INIT                                                                                \
	{                                                                                          \
		PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0                             \
	}

static void on_lost(void *arg)
{
	struct notice *n = arg;

	pthread_mutex_lock(&n->lock);
	n->count++;
	pthread_cond_broadcast(&n->cond);
	pthread_mutex_unlock(&n->lock);
}

static int notice_wait(struct notice *n, uint64_t ms)
{
	struct timespec until = deadline_timespec(deadline_in_ms(ms));
	int err = 0;

	pthread_mutex_lock(&n->lock);
	while (n->count == 0 && err == 0)
		err = pthread_cond_clockwait(&n->cond, &n->lock, CLOCK_MONOTONIC, &until);
	int count = n->count;
	pthread_mutex_unlock(&n->lock);
	return count;
}

/* Rank 0 offers its memory as object 7 and says where. */
static int offer(struct rank *r)
{
	int fd = memfd_create("test", MFD_CLOEXEC);

	RANK_ASSERT(r, fd >= 0 && pwrite(fd, "content", 8, 0) == 8);
	RANK_OK(r, agent_get());
	RANK_OK(r, agent_offer(7, cookie, fd, "info", 4));
	rank_put(r, "addr", agent_own(), sizeof(struct agent_addr));
	return fd;
}

static struct agent_peer *open_peer(struct rank *r, struct notice *n)
{
	struct agent_addr addr;
	struct agent_peer *peer = NULL;

	RANK_ASSERT(r, rank_get(r, "addr", &addr, sizeof(addr)) == sizeof(addr));
	RANK_OK(r, agent_peer_open(&addr, deadline_in_ms(PATIENCE_MS), on_lost, n, &peer));
	return peer;
}

static void fetch(struct rank *r, struct agent_peer *peer)
{
	char buf[8] = "";
	int fd = -1;

	RANK_OK(r, agent_fetch(peer, 7, cookie, deadline_in_ms(PATIENCE_MS), &fd, NULL, NULL));
	RANK_ASSERT(r, pread(fd, buf, sizeof(buf), 0) == 8 && strcmp(buf, "content") == 0);
	fd_close(&fd);
}

static void hand_over(struct rank *r)
{
	struct notice n = NOTICE_INIT;

	if (r->rank == 0) {
		int fd = offer(r);
		rank_barrier(r);
		agent_withdraw(7);
		agent_put();
		close(fd);
		return;
	}
	struct agent_peer *peer = open_peer(r, &n);
	for (int i = 0; i < 100; i++)
		fetch(r, peer);
	rank_barrier(r);
	agent_peer_close(peer);
	RANK_ASSERT(r, n.count == 0);
}

static void killed(struct rank *r)
{
	struct notice n = NOTICE_INIT, m = NOTICE_INIT;
	struct agent_addr addr;
	struct agent_peer *again = NULL;
	int fd = -1;

	if (r->rank == 0) {
		rank_may_die(r);
		offer(r);
		rank_meet(r, "never", r->size + 1);
	}
	struct agent_peer *peer = open_peer(r, &n), *second = open_peer(r, &m);
	fetch(r, peer);
	rank_meet(r, "fetched", r->size - 1);
	if (r->rank == 1)
		rank_kill(r, 0);
	RANK_ASSERT(r, notice_wait(&n, PATIENCE_MS) == 1);
	RANK_ASSERT(r, notice_wait(&m, PATIENCE_MS) == 1);
	struct deadline d = deadline_in_ms(PATIENCE_MS);
	RANK_CODE(r, agent_fetch(peer, 7, cookie, d, &fd, NULL, NULL), SMEM_PEER_LOST);
	RANK_ASSERT(r, strstr(err_detail(), "has died"));
	rank_get(r, "addr", &addr, sizeof(addr));
	RANK_CODE(r, agent_peer_open(&addr, d, on_lost, &n, &again), SMEM_PEER_LOST);
	agent_peer_close(peer);
	agent_peer_close(second);
	RANK_ASSERT(r, n.count == 1 && m.count == 1);
}

static void paused(struct rank *r)
{
	struct notice n = NOTICE_INIT;
	int fd = -1;

	if (r->rank == 0) {
		fd = offer(r);
		rank_barrier(r);
		agent_withdraw(7);
		agent_put();
		close(fd);
		return;
	}
	struct agent_peer *peer = open_peer(r, &n);
	rank_stop(r, 0);
	RANK_CODE(r, agent_fetch(peer, 7, cookie, deadline_in_ms(50), &fd, NULL, NULL),
		  SMEM_TIMEOUT);
	RANK_ASSERT(r, n.count == 0);
	rank_cont(r, 0);
	fetch(r, peer);
	rank_barrier(r);
	agent_peer_close(peer);
	RANK_ASSERT(r, n.count == 0);
}

static void shut_down(struct rank *r)
{
	struct notice n = NOTICE_INIT;
	int fd = -1;

	if (r->rank == 0) {
		fd = offer(r);
		rank_meet(r, "fetched", r->size);
		agent_withdraw(7);
		agent_put();
		close(fd);
		rank_barrier(r);
		return;
	}
	struct agent_peer *peer = open_peer(r, &n);
	fetch(r, peer);
	rank_meet(r, "fetched", r->size);
	rank_barrier(r);
	RANK_CODE(r, agent_fetch(peer, 7, cookie, deadline_in_ms(PATIENCE_MS), &fd, NULL, NULL),
		  SMEM_PEER_LOST);
	RANK_ASSERT(r, n.count == 0);
	agent_peer_close(peer);
}

/* The exit of a forked child is not a death. */
static void child_ends(struct rank *r)
{
	struct notice n = NOTICE_INIT;

	if (r->rank == 0) {
		int fd = offer(r), status;
		rank_meet(r, "open", r->size);
		pid_t pid = fork();
		if (pid == 0)
			_exit(0);
		RANK_ASSERT(r, waitpid(pid, &status, 0) == pid && status == 0);
		rank_barrier(r);
		rank_barrier(r);
		agent_withdraw(7);
		agent_put();
		close(fd);
		return;
	}
	struct agent_peer *peer = open_peer(r, &n);
	rank_meet(r, "open", r->size);
	rank_barrier(r);
	fetch(r, peer);
	RANK_ASSERT(r, n.count == 0);
	rank_barrier(r);
	agent_peer_close(peer);
}

/* In network namespaces of their own, two processes meet through a directory. */
static void namespaces(struct rank *r)
{
	struct notice n = NOTICE_INIT;
	char dir[64] = "/tmp/smem-test-XXXXXX";
	struct agent_addr addr;
	struct agent_peer *peer = NULL;

	if (r->rank == 0) {
		RANK_ASSERT(r, mkdtemp(dir));
		setenv("SMEM_RUNTIME_DIR", dir, 1);
		int fd = offer(r);
		rank_put(r, "dir", dir, sizeof(dir));
		rank_barrier(r);
		agent_withdraw(7);
		agent_put();
		close(fd);
		RANK_ASSERT(r, rmdir(dir) == 0);
		return;
	}
	RANK_ASSERT(r, rank_get(r, "addr", &addr, sizeof(addr)) == sizeof(addr));
	rank_get(r, "dir", dir, sizeof(dir));
	if (unshare(CLONE_NEWNET) == 0) {
		RANK_CODE(r,
			  agent_peer_open(&addr, deadline_in_ms(PATIENCE_MS), on_lost, &n, &peer),
			  SMEM_UNREACHABLE);
		RANK_ASSERT(r, strstr(err_detail(), "SMEM_RUNTIME_DIR"));
		setenv("SMEM_RUNTIME_DIR", dir, 1);
		peer = open_peer(r, &n);
		fetch(r, peer);
		agent_peer_close(peer);
	} else {
		rank_note(r, "no network namespace may be made here: not tested");
	}
	rank_barrier(r);
}

static const struct ranks_case cases[] = {
    {.name = "hand_over", .fn = hand_over, .sizes = {2, 8}},
    {.name = "killed", .fn = killed, .sizes = {2, 4}},
    {.name = "paused", .fn = paused, .sizes = {2}},
    {.name = "shut_down", .fn = shut_down, .sizes = {2, 4}},
    {.name = "child_ends", .fn = child_ends, .sizes = {2}},
    {.name = "namespaces", .fn = namespaces, .sizes = {2}},
};

int main(int argc, char **argv)
{
	return ranks_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
