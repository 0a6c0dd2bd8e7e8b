/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What else moves bytes between hosts: iperf3 and ucx_perftest, where they are installed. The
 * target serves one test at a time on a fresh port, and a test does not begin before its server has
 * said that it listens. A pseudo-terminal is what it says that to, because programs hold back what
 * they write to a pipe. Every run has a time limit.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "perf_hosts.h"

#define READY_MS 5000
#define RUN_MS	 20000
#define OUT	 65536

const struct rival_ucx rival_ucx[RIVAL_UCX_TESTS] = {
    {"UCX put 1 MiB, 256 KiB segments", "ucp_put_bw", 1 << 20, 200, false, true},
    {"UCX AM rendezvous 1 MiB, the same", "ucp_am_bw", 1 << 20, 200, false, true},
    {"UCX put 16 MiB, the same", "ucp_put_bw", 16 << 20, 20, false, true},
    {"UCX AM rendezvous 16 MiB, the same", "ucp_am_bw", 16 << 20, 20, false, true},
    {"UCX put 1 MiB, UCX's defaults", "ucp_put_bw", 1 << 20, 10, false, false},
    {"UCX put 4 KiB, UCX's defaults", "ucp_put_lat", 4 << 10, 1000, true, false},
    {"UCX AM rendezvous 4 KiB, the same", "ucp_am_lat", 4 << 10, 1000, true, false},
};

bool rival_installed(const char *program)
{
	char dirs[4096], file[4400], *save = NULL;
	const char *path = getenv("PATH");

	snprintf(dirs, sizeof(dirs), "%s", path ? path : "/usr/bin:/bin");
	for (char *d = strtok_r(dirs, ":", &save); d; d = strtok_r(NULL, ":", &save)) {
		snprintf(file, sizeof(file), "%s/%s", d, program);
		if (access(file, X_OK) == 0)
			return true;
	}
	return false;
}

/* fork, with the child's output going to `out`; it runs argv and dies with this process. */
static pid_t start(char *const argv[], const struct route *r, bool tuned, int out)
{
	pid_t parent = getpid(), pid = fork();

	if (pid != 0)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (getppid() != parent || null < 0 || dup2(null, STDIN_FILENO) < 0 ||
	    dup2(out, STDOUT_FILENO) < 0 || dup2(out, STDERR_FILENO) < 0)
		_exit(127);
	signal(SIGPIPE, SIG_DFL);
	setenv("UCX_TLS", "tcp", 1);
	setenv("UCX_RNDV_THRESH", "0", 1); /* active messages of any size by rendezvous */
	setenv("UCX_WARN_UNUSED_ENV_VARS", "n", 1);
	if (tuned) {
		setenv("UCX_TCP_TX_SEG_SIZE", "256K", 1);
		setenv("UCX_TCP_RX_SEG_SIZE", "256K", 1);
	}
	if (r->interface[0])
		setenv("UCX_NET_DEVICES", r->interface, 1);
	execvp(argv[0], argv);
	_exit(127);
}

/* Appends what comes, until `word` (NULL: never) is in it, the end of file, or the time is up: 1,
 * 0, -1. */
static int listen_to(int fd, char *text, size_t cap, const char *word, int ms)
{
	double end = now_s() + ms / 1000.0;
	size_t len = 0;

	text[0] = '\0';
	for (;;) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		double left = end - now_s();
		int got = left > 0 ? poll(&p, 1, (int)(left * 1000) + 1) : 0;
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return -1;
		char more[4096];
		ssize_t n = read(fd, more, sizeof(more));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) /* a terminal nobody has open any more gives EIO */
			return 0;
		size_t fits = (size_t)n < cap - 1 - len ? (size_t)n : cap - 1 - len;
		memcpy(text + len, more, fits);
		len += fits;
		text[len] = '\0';
		if (word && strstr(text, word))
			return 1;
	}
}

static void put_down(pid_t pid)
{
	kill(pid, SIGKILL);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}

/* ---- servers ---- */

void rival_end(struct server *s)
{
	if (s->pid > 0) {
		put_down(s->pid);
		close(s->out);
	}
	*s = (struct server){0};
}

static int serve(struct server *s, const struct route *r, bool tuned, char *const argv[],
		 const char *ready)
{
	int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC), slave = -1;
	char text[4096], name[128];

	rival_end(s);
	if (master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0 &&
	    ptsname_r(master, name, sizeof(name)) == 0)
		slave = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
	pid_t pid = slave >= 0 ? start(argv, r, tuned, slave) : -1;
	if (slave >= 0)
		close(slave);
	if (pid < 0) {
		if (master >= 0)
			close(master);
		return -1;
	}
	*s = (struct server){.pid = pid, .out = master};
	/* One that speaks differently may be ready all the same; the client will tell. */
	return listen_to(master, text, sizeof(text), ready, READY_MS) == 0 ? -1 : 0;
}

int rival_iperf_serve(struct server *s, const struct route *r, uint16_t *ret_port)
{
	char port[8], own[64];

	*ret_port = free_port(r->own);
	snprintf(port, sizeof(port), "%u", *ret_port);
	snprintf(own, sizeof(own), "%s", r->own);
	return serve(s, r, false,
		     (char *[]){(char[]){"iperf3"}, (char[]){"-s"}, (char[]){"-1"}, (char[]){"-B"},
				own, (char[]){"-p"}, port, NULL},
		     "Server listening");
}

static bool is_v6(const char *address)
{
	return strchr(address, ':') != NULL;
}

int rival_ucx_serve(struct server *s, const struct route *r, bool tuned, uint16_t *ret_port)
{
	char port[8];

	*ret_port = free_port(r->own);
	snprintf(port, sizeof(port), "%u", *ret_port);
	return serve(s, r, tuned,
		     (char *[]){(char[]){"ucx_perftest"}, (char[]){"-p"}, port,
				is_v6(r->own) ? (char[]){"-6"} : NULL, NULL},
		     "Waiting for connection");
}

/* ---- clients ---- */

/* All it says, to free; NULL: it failed or took too long. */
static char *run(const struct route *r, bool tuned, char *const argv[])
{
	char *text = malloc(OUT);
	int out[2], status = -1;

	if (!text || pipe2(out, O_CLOEXEC) != 0) {
		free(text);
		return NULL;
	}
	pid_t pid = start(argv, r, tuned, out[1]);
	close(out[1]);
	int end = pid > 0 ? listen_to(out[0], text, OUT, NULL, RUN_MS) : -1;
	close(out[0]);
	if (pid > 0 && end == 0)
		while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
			;
	else if (pid > 0)
		put_down(pid);
	if (end == 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return text;
	free(text);
	return NULL;
}

/* The number behind "key": from `at` on; 0: there is none. */
static double number(const char *at, const char *key)
{
	at = at ? strstr(at, key) : NULL;
	return at ? strtod(at + strlen(key) + strspn(at + strlen(key), "\": \t"), NULL) : 0;
}

int rival_iperf(const struct route *r, uint16_t port, unsigned streams, struct rival_figure *ret)
{
	char peer[64], port_text[8], n[8];
	char *argv[] = {(char[]){"iperf3"},
			(char[]){"-c"},
			peer,
			(char[]){"-p"},
			port_text,
			(char[]){"-P"},
			n,
			(char[]){"-t"},
			(char[]){"1"},
			(char[]){"-l"},
			(char[]){"1M"},
			(char[]){"-J"},
			(char[]){"--connect-timeout"},
			(char[]){"3000"},
			NULL};

	snprintf(peer, sizeof(peer), "%s", r->peer);
	snprintf(port_text, sizeof(port_text), "%u", port);
	snprintf(n, sizeof(n), "%u", streams);
	char *text = run(r, false, argv);
	const char *sum = text ? strstr(text, "\"sum_received\"") : NULL;
	double rate = number(sum, "\"bits_per_second\"") / 8e9;
	if (rate > 0)
		*ret = (struct rival_figure){
		    .gb_per_s = rate,
		    .cpu_writer = number(sum, "\"host_total\"") / 100 / rate,
		    .cpu_target = number(sum, "\"remote_total\"") / 100 / rate};
	free(text);
	return rate > 0 ? 0 : -1;
}

int rival_ucx_run(const struct route *r, uint16_t port, const struct rival_ucx *t,
		  struct rival_figure *ret)
{
	char peer[64], port_text[8], test[32], size[24], n[16], warm[16];
	char *argv[] = {(char[]){"ucx_perftest"},
			peer,
			(char[]){"-p"},
			port_text,
			(char[]){"-t"},
			test,
			(char[]){"-s"},
			size,
			(char[]){"-n"},
			n,
			(char[]){"-w"},
			warm,
			(char[]){"-f"},
			is_v6(r->peer) ? (char[]){"-6"} : NULL,
			NULL};
	double f[6];
	int got = 0;

	snprintf(peer, sizeof(peer), "%s", r->peer);
	snprintf(port_text, sizeof(port_text), "%u", port);
	snprintf(test, sizeof(test), "%s", t->test);
	snprintf(size, sizeof(size), "%zu", t->bytes);
	snprintf(n, sizeof(n), "%u", t->iterations);
	snprintf(warm, sizeof(warm), "%u", t->iterations / 10 + 1);
	char *text = run(r, t->tuned, argv), *save = NULL;
	for (char *line = text ? strtok_r(text, "\n", &save) : NULL; line && got != 6;
	     line = strtok_r(NULL, "\n", &save))
		got = sscanf(line, "%lf %lf %lf %lf %lf %lf", &f[0], &f[1], &f[2], &f[3], &f[4],
			     &f[5]);
	free(text);
	if (got != 6)
		return -1;
	*ret = (struct rival_figure){.gb_per_s = f[5] * 1048576 / 1e9,
				     .latency_s = t->latency ? f[1] * 1e-6 : 0};
	return 0;
}
