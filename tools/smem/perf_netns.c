/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two hosts on one machine: two processes, each alone in a network namespace and in a process
 * namespace of its own, so that neither agents nor CMA lead from one to the other, and joined by a
 * veth pair. Each then becomes `smem perf --hosts --rank R` and knows nothing of all this.
 *
 * Nothing has a name, so nothing can be left behind: the namespaces and the veth pair live as long
 * as these two processes, which are the first of their process namespace, whose end ends all others
 * in it; and they die with this one, however it ends. So no signal is handled here.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "perf_hosts.h"
#include "tool.h"

#define STACK	   (64u << 10)
#define ADDRESS	   "10.78.0."
#define STORE_PORT 7900u /* nobody else is there */
#define LINGER_MS  10000
#define SBIN	   ":/usr/sbin:/sbin"

struct host {
	pid_t pid;
	int life;      /* a byte into it: go; end of file: the host is gone */
	int life_near; /* the host's end of it */
	bool gone;     /* it ends by itself */
	unsigned rank;
	char **argv;
};

static const char elsewhere[] =
    "or measure between two machines, which needs no root: `smem perf --hosts --store "
    "tcp://ADDRESS:PORT --rank 0` on the one with that address, the same with `--rank 1` on the "
    "other";

/* The first process of a host. Anything of the tool's state is of no use to it. */
static int host_main(void *arg)
{
	struct host *h = arg;
	sigset_t none;
	char go;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	close(h->life);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	/* If the parent was gone before the first line, this reads an end of file. */
	if (read(h->life_near, &go, 1) != 1)
		_exit(EXIT_FAILURE);
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null < 0 || dup2(null, STDIN_FILENO) < 0 ||
	    (h->rank == HOSTS_TARGET && dup2(null, STDOUT_FILENO) < 0))
		_exit(EXIT_FAILURE);
	execv("/proc/self/exe", h->argv);
	_exit(127);
}

static int host_start(struct host *h)
{
	char *stack = malloc(STACK);
	int pair[2];

	if (!stack || socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0) {
		free(stack);
		return -1;
	}
	h->life = pair[0];
	h->life_near = pair[1];
	fcntl(h->life, F_SETFD, FD_CLOEXEC);
	h->pid = clone(host_main, stack + STACK, CLONE_NEWNET | CLONE_NEWPID | SIGCHLD, h);
	int saved = errno;
	free(stack); /* the host has its own copy */
	close(h->life_near);
	if (h->pid < 0)
		close(h->life);
	errno = saved;
	return h->pid < 0 ? -1 : 0;
}

/* Ends it if it has not ended; its exit status. */
static int host_end(struct host *h)
{
	int status = 0;

	if (h->pid <= 0)
		return EXIT_FAILURE;
	if (!h->gone)
		kill(h->pid, SIGKILL);
	while (waitpid(h->pid, &status, 0) < 0 && errno == EINTR)
		;
	if (h->gone && WIFSIGNALED(status))
		complain("rank %u was killed by signal %d (%s)", h->rank, WTERMSIG(status),
			 strsignal(WTERMSIG(status)));
	close(h->life);
	h->pid = 0;
	return WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_FAILURE;
}

/* Waits for the end of a host, ms (-1: long). Which one; -1: none. */
static int host_wait(struct host hosts[2], int ms)
{
	struct pollfd fds[2];
	int r;

	for (int i = 0; i < 2; i++)
		fds[i] =
		    (struct pollfd){.fd = hosts[i].pid > 0 ? hosts[i].life : -1, .events = POLLIN};
	do
		r = poll(fds, 2, ms);
	while (r < 0 && errno == EINTR);
	for (int i = 0; i < 2; i++)
		hosts[i].gone = fds[i].revents != 0;
	return r <= 0 ? -1 : hosts[HOSTS_WRITER].gone ? HOSTS_WRITER : HOSTS_TARGET;
}

/* ---- the network ---- */

static void ip_child(const struct host *h, char *const argv[])
{
	const char *old = getenv("PATH");
	char path[1024], ns[64];
	int fd, null;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	snprintf(ns, sizeof(ns), "/proc/%d/ns/net", (int)h->pid);
	snprintf(path, sizeof(path), "%s%s", old ? old : "/usr/bin:/bin", SBIN);
	setenv("PATH", path, 1);
	fd = open(ns, O_RDONLY | O_CLOEXEC);
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (fd < 0 || setns(fd, CLONE_NEWNET) != 0 || null < 0 || dup2(null, STDIN_FILENO) < 0)
		_exit(126);
	execvp("ip", argv);
	_exit(127);
}

/* `ip` with these words in the namespace of a host. */
static int ip(const struct host *h, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static int ip(const struct host *h, const char *fmt, ...)
{
	char line[256], *argv[24] = {(char[]){"ip"}}, *save = NULL;
	int status = -1;
	size_t n = 1;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	for (char *word = strtok_r(line, " ", &save); word && n < 23;
	     word = strtok_r(NULL, " ", &save))
		argv[n++] = word;
	pid_t pid = fork();
	if (pid == 0)
		ip_child(h, argv);
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 127)
		complain("`ip` is not installed (Debian: apt-get install iproute2)");
	return pid > 0 && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int network(struct host hosts[2], unsigned mtu)
{
	if (ip(&hosts[0], "link add eth0 type veth peer name eth0 netns %d", (int)hosts[1].pid) !=
	    0) {
		complain("no veth pair can be made here; %s", elsewhere);
		return -1;
	}
	for (unsigned i = 0; i < 2; i++) {
		if (ip(&hosts[i], "link set lo up") != 0 ||
		    ip(&hosts[i], "addr add " ADDRESS "%u/24 dev eth0", i + 1) != 0 ||
		    ip(&hosts[i], "link set eth0 mtu %u up", mtu) != 0) {
			complain("the network of the namespaces cannot be set up");
			return -1;
		}
	}
	return 0;
}

/* ---- all together ---- */

static int run(struct host hosts[2], unsigned mtu)
{
	for (int i = 0; i < 2; i++) {
		if (host_start(&hosts[i]) != 0) {
			complain("namespaces cannot be made here (%m): in a container it needs "
				 "CAP_SYS_ADMIN; %s",
				 elsewhere);
			return EXIT_FAILURE;
		}
	}
	if (network(hosts, mtu) != 0)
		return EXIT_FAILURE;
	for (int i = 0; i < 2; i++) {
		if (send(hosts[i].life, "g", 1, MSG_NOSIGNAL) != 1) {
			complain("rank %d is gone before it began", i);
			return EXIT_FAILURE;
		}
	}
	/* The writer lets the target go and then tells; or it notices a death, and says what it was
	 * at. */
	if (host_wait(hosts, -1) == HOSTS_TARGET) {
		if (host_end(&hosts[HOSTS_TARGET]) != EXIT_SUCCESS)
			complain("rank 0 ended before its time");
		host_wait(hosts, LINGER_MS);
	}
	int status = host_end(&hosts[HOSTS_WRITER]);
	if (status == EXIT_SUCCESS)
		host_wait(hosts, LINGER_MS);
	return status;
}

int perf_netns(char *const options[], unsigned mtu)
{
	char url[64], *argv[2][PERF_NETNS_WORDS], ranks[2][2] = {"0", "1"};
	char smem[] = "smem", perf[] = "perf", option[] = "--hosts", store[] = "--store";
	char rank[] = "--rank";
	struct host hosts[2] = {0};

	if (geteuid() != 0) {
		complain("two hosts on one machine are network namespaces, which need root: run it "
			 "with sudo; %s",
			 elsewhere);
		return EXIT_FAILURE;
	}
	snprintf(url, sizeof(url), "tcp://" ADDRESS "1:%u", STORE_PORT);
	for (unsigned i = 0; i < 2; i++) {
		char *const fixed[] = {smem, perf, option, store, url, rank, ranks[i]};
		size_t n = sizeof(fixed) / sizeof(fixed[0]);
		memcpy(argv[i], fixed, sizeof(fixed));
		for (size_t k = 0; options[k] && n + 1 < PERF_NETNS_WORDS; k++)
			argv[i][n++] = options[k];
		argv[i][n] = NULL;
		hosts[i].rank = i;
		hosts[i].argv = argv[i];
	}
	fflush(stdout);
	int status = run(hosts, mtu);
	host_end(&hosts[HOSTS_WRITER]); /* in case it came to nothing */
	host_end(&hosts[HOSTS_TARGET]);
	return status;
}
