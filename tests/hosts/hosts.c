/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The process that main() starts in keeps the namespaces: for each host and for the bridge one
 * child that does nothing but live in it, and dies with its parent. The controller of the harness
 * is another child, since it takes children it does not know for leaked ones.
 */
#include "hosts.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define HOSTS_ENV "SMEM_TEST_HOSTS"
#define SWITCH	  HOSTS /* index of the bridge's namespace */

extern char **environ;

static pid_t keeper[HOSTS + 1];

/* Run a command line; its exit status. */
static int run(const char *line)
{
	char sh[] = "sh", c[] = "-c", command[320];
	char *argv[] = {sh, c, command, NULL};
	posix_spawn_file_actions_t quiet;
	int status = -1;
	pid_t pid;

	snprintf(command, sizeof(command), "%s", line);
	posix_spawn_file_actions_init(&quiet);
	posix_spawn_file_actions_addopen(&quiet, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_addopen(&quiet, 1, "/dev/null", O_WRONLY, 0);
	posix_spawn_file_actions_addopen(&quiet, 2, "/dev/null", O_WRONLY, 0);
	int err = posix_spawn(&pid, "/bin/sh", &quiet, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&quiet);
	if (err != 0)
		return -1;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* In the namespace of `where`. */
static int run_in(unsigned where, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static int run_in(unsigned where, const char *fmt, ...)
{
	char command[256], line[320];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(command, sizeof(command), fmt, ap);
	va_end(ap);
	snprintf(line, sizeof(line), "nsenter -t %d -n %s", (int)keeper[where], command);
	return run(line);
}

static bool keep(unsigned i, pid_t parent)
{
	int ready[2];
	char ok = 0;

	if (pipe2(ready, O_CLOEXEC) != 0)
		return false;
	pid_t pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		ok = getppid() == parent && unshare(CLONE_NEWNET) == 0;
		if (write(ready[1], &ok, 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(ready[1]);
	if (pid < 0 || read(ready[0], &ok, 1) != 1)
		ok = 0;
	close(ready[0]);
	keeper[i] = pid;
	return ok != 0;
}

/* NULL, or why not. */
static const char *make(void)
{
	const char *mtu = getenv("SMEM_TEST_MTU");
	int bad = 0;

	if (geteuid() != 0)
		return "network namespaces need root";
	for (unsigned i = 0; i <= HOSTS; i++) {
		if (!keep(i, getpid()))
			return "no network namespace can be made here";
	}
	if (run_in(SWITCH, "ip link add sw0 type bridge") != 0)
		return "no bridge can be made here (or iproute2 is missing)";
	bad |= run_in(SWITCH, "ip link set sw0 up");
	for (unsigned h = 0; h < HOSTS; h++) {
		bad |= run_in(SWITCH, "ip link add p%u type veth peer name eth0 netns %d", h,
			      (int)keeper[h]);
		bad |= run_in(SWITCH, "ip link set p%u master sw0 up", h);
		bad |= run_in(h, "ip link set lo up");
		bad |= run_in(h, "ip addr add 10.77.0.%u/24 dev eth0", h + 1);
		bad |= run_in(h, "ip -6 addr add fd77::%u/64 dev eth0 nodad", h + 1);
		bad |= run_in(h, "ip link set eth0 up");
		if (mtu) {
			bad |= run_in(SWITCH, "ip link set p%u mtu %s", h, mtu);
			bad |= run_in(h, "ip link set eth0 mtu %s", mtu);
		}
	}
	return bad ? "no veth pair can be made here" : NULL;
}

static void end_keepers(void)
{
	for (unsigned i = 0; i <= HOSTS; i++) {
		if (keeper[i] > 0) {
			kill(keeper[i], SIGKILL);
			waitpid(keeper[i], NULL, 0);
		}
	}
}

static bool from_env(void)
{
	const char *env = getenv(HOSTS_ENV);
	char *end;

	for (unsigned i = 0; env && i <= HOSTS; i++) {
		keeper[i] = (pid_t)strtol(env, &end, 10);
		env = *end == ',' ? end + 1 : end;
	}
	return env != NULL;
}

/* The cases without the rank counts that are above SMEM_TEST_RANKS. */
static const struct ranks_case *fewer(const struct ranks_case *cases, size_t n)
{
	const char *text = getenv("SMEM_TEST_RANKS");
	unsigned most = text ? (unsigned)strtoul(text, NULL, 10) : RANK_MAX;
	static struct ranks_case *copy; /* as long as the process, and reachable */

	copy = calloc(n, sizeof(*copy));
	for (size_t i = 0; copy && i < n; i++) {
		size_t kept = 0;
		copy[i] = cases[i];
		memset(copy[i].sizes, 0, sizeof(copy[i].sizes));
		for (size_t k = 0; k < RANK_SIZES_MAX && cases[i].sizes[k]; k++) {
			if (cases[i].sizes[k] <= most)
				copy[i].sizes[kept++] = cases[i].sizes[k];
		}
	}
	return copy ? copy : cases;
}

int hosts_main(int argc, char **argv, const struct ranks_case *all, size_t n)
{
	const struct ranks_case *cases = fewer(all, n);
	char env[16 * (HOSTS + 1)] = "";
	int status = 0;

	if (from_env() || (argc > 1 && strcmp(argv[1], "--list") == 0))
		return ranks_main(argc, argv, cases, n);
	const char *why = make();
	if (why) {
		printf("1..0 # SKIP %s\n", why);
		end_keepers();
		return 0;
	}
	for (unsigned i = 0; i <= HOSTS; i++)
		snprintf(env + strlen(env), sizeof(env) - strlen(env), "%d,", (int)keeper[i]);
	setenv(HOSTS_ENV, env, 1);
	pid_t parent = getpid(), pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		_exit(getppid() == parent ? ranks_main(argc, argv, cases, n) : 1);
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	end_keepers();
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

/* The two calls fail with EPERM, as under a strict container's filter. */
static void forbid_cma(struct rank *r)
{
	struct sock_filter f[] = {
	    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
	    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_process_vm_readv, 2, 0),
	    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_process_vm_writev, 1, 0),
	    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
	};
	struct sock_fprog prog = {.len = sizeof(f) / sizeof(f[0]), .filter = f};

	RANK_ASSERT(r, prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) == 0);
}

static void enter(struct rank *r, unsigned host)
{
	char path[64];

	RANK_ASSERT(r, from_env() && host < HOSTS);
	snprintf(path, sizeof(path), "/proc/%d/ns/net", (int)keeper[host]);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	RANK_ASSERT(r, fd >= 0 && setns(fd, CLONE_NEWNET) == 0);
	close(fd);
	forbid_cma(r);
}

void host_enter(struct rank *r, unsigned host)
{
	if (getenv("SMEM_TEST_IPV6")) {
		host_enter_v6(r, host);
		return;
	}
	enter(r, host);
	snprintf(r->url, sizeof(r->url), "tcp://10.77.0.1:%u", r->port[0]);
}

void host_enter_v6(struct rank *r, unsigned host)
{
	enter(r, host);
	snprintf(r->url, sizeof(r->url), "tcp://[fd77::1]:%u", r->port[0]);
}

size_t host_route(unsigned host, bool v6, void *ret)
{
	struct sockaddr_in in = {.sin_family = AF_INET,
				 .sin_addr.s_addr = htonl(0x0a4d0001u + host)};
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6,
				   .sin6_addr.s6_addr = {0xfd, 0x77, [15] = (uint8_t)(host + 1)}};

	memcpy(ret, v6 ? (void *)&in6 : (void *)&in, v6 ? sizeof(in6) : sizeof(in));
	return v6 ? sizeof(in6) : sizeof(in);
}

void host_silence(struct rank *r, unsigned host, bool on)
{
	RANK_OK(r, run_in(SWITCH, on ? "ip link set p%u nomaster" : "ip link set p%u master sw0",
			  host));
}

void host_link(struct rank *r, unsigned host, bool up)
{
	RANK_OK(r, run_in(SWITCH, "ip link set p%u %s", host, up ? "up" : "down"));
}

/* Policy routing can tell ports apart, and needs no module. The order is that of the preferences.
 */
static int rule(unsigned host, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static int rule(unsigned host, const char *fmt, ...)
{
	char text[128];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return run_in(host, "ip rule %s", text) | run_in(host, "ip -6 rule %s", text);
}

void host_wall(struct rank *r, unsigned host, enum host_wall wall, const uint16_t *ports,
	       unsigned n)
{
	const char *then = wall == HOST_LOSE_THESE ? "blackhole" : "goto 9";
	const char *others = wall == HOST_LOSE_OTHERS ? "blackhole" : "prohibit";
	int bad = 0;

	while (rule(host, "del pref 5") == 0)
		;
	rule(host, "del pref 7");
	rule(host, "del pref 9");
	if (wall == HOST_OPEN)
		return;
	bad |= rule(host, "add pref 9 lookup local"); /* where to go on; it changes nothing */
	for (unsigned i = 0; i < n; i++) {
		bad |= rule(host, "add pref 5 iif lo ipproto tcp sport %u %s", ports[i], then);
		bad |= rule(host, "add pref 5 iif lo ipproto tcp dport %u %s", ports[i], then);
	}
	if (wall != HOST_LOSE_THESE)
		bad |= rule(host, "add pref 7 iif lo ipproto tcp %s", others);
	RANK_OK(r, bad);
}

void host_mtu(struct rank *r, unsigned mtu)
{
	for (unsigned h = 0; h < HOSTS; h++) {
		RANK_OK(r, run_in(SWITCH, "ip link set p%u mtu %u", h, mtu));
		RANK_OK(r, run_in(h, "ip link set eth0 mtu %u", mtu));
	}
}

bool host_rate(struct rank *r, unsigned host, unsigned mbit)
{
	(void)r;
	run_in(host, "tc qdisc del dev eth0 root");
	return mbit == 0 ||
	       run_in(host, "tc qdisc add dev eth0 root tbf rate %umbit burst %uk latency 50ms",
		      mbit, mbit < 8 ? 8 : mbit) == 0;
}

bool host_loss(struct rank *r, unsigned host, unsigned percent)
{
	(void)r;
	run_in(host, "nft delete table inet loss");
	return percent == 0 ||
	       run_in(host,
		      "nft add table inet loss ';' add chain inet loss in '{ type filter hook "
		      "input priority 0; }' ';' add rule inet loss in numgen random mod 100 "
		      "'<' %u drop",
		      percent) == 0;
}

bool host_netem(struct rank *r, unsigned host, const char *args)
{
	(void)r;
	run_in(host, "tc qdisc del dev eth0 root");
	return !args || run_in(host, "tc qdisc add dev eth0 root netem %s", args) == 0;
}
