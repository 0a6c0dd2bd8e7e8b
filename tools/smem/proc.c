/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Children are made by fork and exec of /proc/self/exe, so each is a fresh process as the library's
 * users are, with the one socket as descriptor 3. A packet is the type and the data.
 *
 * The parent learns of a death from the end of file of the socket, reaps the process then, and
 * reports it once.
 */
#include "proc.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "smem.h"
#include "tool.h"

#define CHILD_SOCK  3
#define CHILD_WORD  "__child"
#define CHILD_FIXED 5 /* words before the arguments: program, CHILD_WORD, entry, rank, n */
#define CHILD_ARGS  64u

static int packet_send(int sock, uint32_t type, const void *data, size_t len)
{
	struct iovec iov[2] = {{.iov_base = &type, .iov_len = sizeof(type)},
			       {.iov_base = (void *)(uintptr_t)data, .iov_len = len}};
	struct msghdr m = {.msg_iov = iov, .msg_iovlen = len ? 2 : 1};
	ssize_t n;

	if (len > MSG_BYTES) {
		errno = EMSGSIZE;
		return -1;
	}
	do
		n = sendmsg(sock, &m, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -1 : 0;
}

/* 1: a message; 0: end of file. */
static int packet_recv(int sock, struct msg *ret)
{
	struct iovec iov[2] = {{.iov_base = &ret->type, .iov_len = sizeof(ret->type)},
			       {.iov_base = ret->data, .iov_len = MSG_BYTES}};
	struct msghdr m = {.msg_iov = iov, .msg_iovlen = 2};
	ssize_t n;

	do
		n = recvmsg(sock, &m, 0);
	while (n < 0 && errno == EINTR);
	if (n < (ssize_t)sizeof(ret->type))
		return 0;
	ret->len = (uint32_t)((size_t)n - sizeof(ret->type));
	ret->data[ret->len] = '\0';
	ret->status = 0;
	return 1;
}

static void child_exec(const char *entry, size_t rank, size_t n, int sock, const char *const args[])
{
	char rank_text[24], n_text[24];
	const char *argv[CHILD_FIXED + CHILD_ARGS + 1] = {"smem", CHILD_WORD, entry, rank_text,
							  n_text};
	size_t argc = CHILD_FIXED;
	sigset_t none;

	snprintf(rank_text, sizeof(rank_text), "%zu", rank);
	snprintf(n_text, sizeof(n_text), "%zu", n);
	for (size_t i = 0; args && args[i] && i < CHILD_ARGS; i++)
		argv[argc++] = args[i];
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0)
		_exit(127);
	/* dup2 onto itself would leave close-on-exec set */
	if (sock == CHILD_SOCK ? fcntl(sock, F_SETFD, 0) : dup2(sock, CHILD_SOCK) < 0)
		_exit(127);
	execv("/proc/self/exe", (char *const *)(uintptr_t)argv);
	_exit(127);
}

static int start_one(struct proc *p, const char *entry, size_t rank, size_t n,
		     const char *const args[])
{
	pid_t parent = getpid();
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
		return -1;
	p->pid = fork();
	if (p->pid == 0) {
		if (getppid() == parent)
			child_exec(entry, rank, n, pair[1], args);
		_exit(127);
	}
	close(pair[1]);
	p->sock = p->pid < 0 ? -1 : pair[0];
	if (p->pid < 0)
		close(pair[0]);
	return p->pid < 0 ? -1 : 0;
}

int procs_start(struct procs *g, const char *entry, size_t n, const char *const args[])
{
	*g = (struct procs){.proc = calloc(n ? n : 1, sizeof(*g->proc))};
	if (!g->proc)
		return -1;
	for (; g->n < n; g->n++) {
		if (start_one(&g->proc[g->n], entry, g->n, n, args) != 0) {
			int saved = errno;
			procs_stop(g, 0);
			errno = saved;
			return -1;
		}
	}
	return 0;
}

int procs_send(struct procs *g, size_t i, uint32_t type, const void *data, size_t len)
{
	return g->proc[i].sock < 0 ? -1 : packet_send(g->proc[i].sock, type, data, len);
}

int procs_send_all(struct procs *g, uint32_t type, const void *data, size_t len)
{
	int r = 0;

	for (size_t i = 0; i < g->n; i++)
		r |= procs_send(g, i, type, data, len);
	return r;
}

static void reap(struct proc *p, int *ret_status)
{
	if (p->sock >= 0)
		close(p->sock);
	p->sock = -1;
	while (p->pid > 0 && waitpid(p->pid, ret_status, 0) < 0 && errno == EINTR)
		;
	p->pid = 0;
}

int procs_recv(struct procs *g, size_t *ret_i, struct msg *ret, int timeout_ms)
{
	struct pollfd *fds = calloc(g->n ? g->n : 1, sizeof(*fds));
	double end = now_s() + timeout_ms / 1000.0;
	size_t open = 0;
	int r = -1;

	for (size_t i = 0; fds && i < g->n; i++) {
		fds[i] = (struct pollfd){.fd = g->proc[i].sock, .events = POLLIN};
		open += g->proc[i].sock >= 0;
	}
	while (open > 0) {
		double left = timeout_ms < 0 ? -0.001 : end - now_s();
		if (timeout_ms >= 0 && left < 0)
			left = 0;
		r = poll(fds, g->n, timeout_ms < 0 ? -1 : (int)(left * 1000 + 0.999));
		if (r >= 0 || errno != EINTR)
			break;
	}
	for (size_t i = 0; r > 0 && i < g->n; i++) {
		if (!fds[i].revents)
			continue;
		*ret_i = i;
		if (!packet_recv(g->proc[i].sock, ret)) {
			*ret = (struct msg){.type = MSG_DIED};
			reap(&g->proc[i], &ret->status);
		}
		r = 1;
		break;
	}
	free(fds);
	return r;
}

void procs_complain(const struct procs *g, size_t i, const struct msg *m)
{
	(void)g;
	if (m->type == MSG_FAILED)
		complain("rank %zu: %s", i, m->data);
	else if (m->type == MSG_DIED && WIFSIGNALED(m->status))
		complain("rank %zu was killed by signal %d (%s)", i, WTERMSIG(m->status),
			 strsignal(WTERMSIG(m->status)));
	else if (m->type == MSG_DIED)
		complain("rank %zu ended early with status %d", i, WEXITSTATUS(m->status));
	else
		complain("rank %zu sent an unexpected message (%u)", i, m->type);
}

int procs_gather(struct procs *g, uint32_t type, int timeout_ms,
		 void (*fn)(void *ctx, size_t i, const struct msg *m), void *ctx)
{
	double end = now_s() + timeout_ms / 1000.0;
	size_t i, got = 0;
	struct msg m;

	while (got < g->n) {
		double left = end - now_s();
		int r = procs_recv(g, &i, &m, left > 0 ? (int)(left * 1000) : 0);
		if (r == 0)
			complain("%zu of %zu ranks did not answer within %d ms", g->n - got, g->n,
				 timeout_ms);
		if (r <= 0)
			return -1;
		if (m.type != type) {
			procs_complain(g, i, &m);
			return -1;
		}
		if (fn)
			fn(ctx, i, &m);
		got++;
	}
	return 0;
}

void procs_stop(struct procs *g, int patience_ms)
{
	double end = now_s() + patience_ms / 1000.0;
	struct msg m;
	size_t i;

	procs_send_all(g, MSG_QUIT, NULL, 0);
	while (patience_ms > 0) {
		double left = end - now_s();
		if (left <= 0 || procs_recv(g, &i, &m, (int)(left * 1000)) <= 0)
			break;
	}
	for (i = 0; i < g->n; i++) {
		if (g->proc[i].pid > 0)
			kill(g->proc[i].pid, SIGKILL);
		reap(&g->proc[i], &m.status);
	}
	free(g->proc);
	*g = (struct procs){0};
}

int child_send(struct child *c, uint32_t type, const void *data, size_t len)
{
	return packet_send(c->sock, type, data, len);
}

int child_recv(struct child *c, struct msg *ret)
{
	return packet_recv(c->sock, ret) ? 0 : -1;
}

int child_expect(struct child *c, uint32_t type, struct msg *ret)
{
	return child_recv(c, ret) == 0 && ret->type == type ? 0 : -1;
}

int child_fail(struct child *c, const char *what)
{
	char text[MSG_BYTES];
	const char *last = smem_get_last_err_msg();
	int n = snprintf(text, sizeof(text), "%s%s%s", what, *last ? ": " : "", last);

	if (n >= (int)sizeof(text))
		n = sizeof(text) - 1;
	child_send(c, MSG_FAILED, text, (size_t)n);
	return 1;
}

bool is_child(int argc, char **argv)
{
	return argc >= CHILD_FIXED && strcmp(argv[1], CHILD_WORD) == 0;
}

int child_main(int argc, char **argv)
{
	struct child c = {.rank = strtoul(argv[3], NULL, 10),
			  .n = strtoul(argv[4], NULL, 10),
			  .sock = CHILD_SOCK,
			  .argc = argc - CHILD_FIXED,
			  .argv = argv + CHILD_FIXED};

	fcntl(CHILD_SOCK, F_SETFD, FD_CLOEXEC);
	for (const struct child_entry *e = child_entries; e->name; e++) {
		if (strcmp(e->name, argv[2]) == 0)
			return e->run(&c);
	}
	return EXIT_USAGE;
}
