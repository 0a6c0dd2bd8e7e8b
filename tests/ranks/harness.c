/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The controller: one poll loop over the ranks' channels and a signalfd for SIGCHLD. A rank that
 * waits has one open request; it is answered when the others have come, or never: then the time
 * limit ends the run and the diagnosis says what each rank was waiting for. The controller is a
 * child subreaper, so processes that ranks leave behind become its children and are seen.
 */
#include "harness.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "wire.h"

#define BOARD_MAX 64u
#define NOBODY	  UINT32_MAX

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SLOWNESS 3u
#else
#define SLOWNESS 1u
#endif

struct child {
	pid_t pid; /* 0: not running */
	int fd;	   /* -1: closed */
	uint32_t life;
	bool done;
	bool may_die;
	bool waiting; /* for the answer to `ask` */
	struct wire_msg ask;
	uint32_t killer; /* who waits for its death, stop or continuation; NOBODY */
	enum wire_op killer_op;
};

struct board {
	char key[WIRE_TAG];
	uint8_t *val;
	size_t len;
};

static struct child child[RANK_MAX];
static struct board board[BOARD_MAX];
static struct run {
	const struct ranks_case *c;
	unsigned which;
	uint32_t size;
	uint64_t seed;
	uint16_t port[RANK_PORTS];
	int port_lock[RANK_PORTS];
	bool failed;
	bool skipped;
	char why[4096];
} run;
static int sig_fd = -1;
static sigset_t old_mask;

static void fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void fail(const char *fmt, ...)
{
	size_t used = strlen(run.why);
	va_list ap;

	run.failed = true;
	va_start(ap, fmt);
	vsnprintf(run.why + used, sizeof(run.why) - used, fmt, ap);
	va_end(ap);
	used = strlen(run.why);
	if (used + 1 < sizeof(run.why))
		memcpy(run.why + used, "\n", 2);
}

/* ---- processes ---- */

static void become_rank(uint32_t rank, int fd, pid_t parent)
{
	char env[256], arg[64];

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(3);
	sigprocmask(SIG_SETMASK, &old_mask, NULL);
	snprintf(env, sizeof(env), "%u:%u:%u:%u:%llu:%llu:%d:%u,%u,%u,%u", run.which, rank,
		 run.size, child[rank].life, (unsigned long long)run.seed,
		 (unsigned long long)rank_ms(), fd, run.port[0], run.port[1], run.port[2],
		 run.port[3]);
	setenv(WIRE_ENV, env, 1);
	snprintf(arg, sizeof(arg), "rank-%u-of-%u", rank, run.size);
	execl("/proc/self/exe", run.c->name, arg, (char *)NULL);
	_exit(3);
}

static void start(uint32_t rank)
{
	struct child *c = &child[rank];
	int pair[2];
	pid_t self = getpid();

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) {
		fail("socketpair: %s", strerror(errno));
		return;
	}
	c->done = c->may_die = c->waiting = false;
	c->killer = NOBODY;
	fflush(stdout);
	c->pid = fork();
	if (c->pid == 0) {
		int own = dup(pair[1]); /* without close-on-exec */
		become_rank(rank, own, self);
	}
	close(pair[1]);
	c->fd = pair[0];
	if (c->pid < 0) {
		c->pid = 0;
		fail("fork: %s", strerror(errno));
	}
}

static void reply(uint32_t rank, const void *data, size_t len)
{
	struct child *c = &child[rank];
	struct wire_msg *m = &c->ask;

	if (c->fd < 0 || !c->waiting)
		return;
	c->waiting = false;
	m->len = (uint32_t)len;
	if (len > 0)
		memcpy(m->data, data, len);
	if (send(c->fd, m, WIRE_HEAD + len, MSG_NOSIGNAL) < 0 && errno != EPIPE &&
	    errno != ECONNRESET)
		fail("rank %u: reply: %s", rank, strerror(errno));
}

/* ---- requests ---- */

static bool same_ask(uint32_t rank, enum wire_op op, const char *tag)
{
	const struct child *c = &child[rank];

	return c->waiting && c->ask.op == (uint32_t)op && strcmp(c->ask.tag, tag) == 0;
}

static void on_meet(const char *tag, uint32_t want)
{
	uint32_t here = 0;
	char own[WIRE_TAG];

	snprintf(own, sizeof(own), "%s", tag);
	for (uint32_t i = 0; i < run.size; i++)
		here += same_ask(i, WIRE_MEET, own);
	if (here < want)
		return;
	for (uint32_t i = 0; i < run.size; i++) {
		if (same_ask(i, WIRE_MEET, own))
			reply(i, NULL, 0);
	}
}

static void on_gather(void)
{
	static uint8_t all[RANK_DATA_MAX];
	size_t len = child[0].ask.len;

	for (uint32_t i = 0; i < run.size; i++) {
		if (!same_ask(i, WIRE_GATHER, "gather"))
			return;
		if (child[i].ask.len != len) {
			fail("gather: rank 0 gives %zu bytes, rank %u %u", len, i,
			     child[i].ask.len);
			return;
		}
		memcpy(all + i * len, child[i].ask.data, len);
	}
	for (uint32_t i = 0; i < run.size; i++)
		reply(i, all, len * run.size);
}

static struct board *board_find(const char *key)
{
	for (uint32_t i = 0; i < BOARD_MAX; i++) {
		if (board[i].val && strcmp(board[i].key, key) == 0)
			return &board[i];
	}
	return NULL;
}

static void on_put(const struct wire_msg *m)
{
	struct board *b = board_find(m->tag);

	for (uint32_t i = 0; i < BOARD_MAX && !b; i++) {
		if (!board[i].val)
			b = &board[i];
	}
	if (!b) {
		fail("blackboard full at %s", m->tag);
		return;
	}
	free(b->val);
	b->val = malloc(m->len + 1);
	if (!b->val)
		abort();
	memcpy(b->val, m->data, m->len);
	b->len = m->len;
	memcpy(b->key, m->tag, sizeof(b->key));
	for (uint32_t i = 0; i < run.size; i++) {
		if (same_ask(i, WIRE_GET, b->key))
			reply(i, b->val, b->len);
	}
}

static void on_signal_op(uint32_t rank, const struct wire_msg *m)
{
	static const int signals[] = {
	    [WIRE_KILL] = SIGKILL, [WIRE_STOP] = SIGSTOP, [WIRE_CONT] = SIGCONT};
	uint32_t other = m->arg;

	if (other >= run.size || child[other].pid == 0) {
		fail("rank %u: %s of rank %u, which does not run", rank, m->tag, other);
		return;
	}
	child[other].killer = rank;
	child[other].killer_op = (enum wire_op)m->op;
	child[other].may_die |= m->op == WIRE_KILL;
	kill(child[other].pid, signals[m->op]);
}

static void on_spawn(uint32_t rank, uint32_t other)
{
	if (other >= run.size || child[other].pid != 0) {
		fail("rank %u: spawn of rank %u, which runs or does not exist", rank, other);
		return;
	}
	start(other);
	reply(rank, NULL, 0);
}

static void on_text(uint32_t rank, struct wire_msg *m)
{
	m->data[m->len < RANK_DATA_MAX ? m->len : RANK_DATA_MAX - 1] = '\0';
	if (m->op == WIRE_NOTE) {
		printf("# %s\n", (char *)m->data);
		return;
	}
	child[rank].may_die = true; /* it has said what there is to say */
	if (m->op == WIRE_SKIP) {
		run.skipped = true;
		snprintf(run.why, sizeof(run.why), "%s", (char *)m->data);
		return;
	}
	fail("%s", (char *)m->data);
}

static void on_message(uint32_t rank)
{
	struct child *c = &child[rank];
	struct wire_msg *m = &c->ask;

	c->waiting = m->op < WIRE_NOTE;
	switch ((enum wire_op)m->op) {
	case WIRE_MEET:
		on_meet(m->tag, m->arg);
		break;
	case WIRE_GATHER:
		on_gather();
		break;
	case WIRE_PUT:
		on_put(m);
		reply(rank, NULL, 0);
		break;
	case WIRE_GET:
		if (board_find(m->tag))
			reply(rank, board_find(m->tag)->val, board_find(m->tag)->len);
		break;
	case WIRE_KILL:
	case WIRE_STOP:
	case WIRE_CONT:
		on_signal_op(rank, m);
		break;
	case WIRE_SPAWN:
		on_spawn(rank, m->arg);
		break;
	case WIRE_MAY_DIE:
		c->may_die = true;
		reply(rank, NULL, 0);
		break;
	case WIRE_DONE:
		c->done = true;
		break;
	default:
		on_text(rank, m);
	}
}

static void read_rank(uint32_t rank)
{
	struct child *c = &child[rank];

	while (c->fd >= 0) {
		ssize_t n = recv(c->fd, &c->ask, sizeof(c->ask), MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n < (ssize_t)WIRE_HEAD) {
			close(c->fd);
			c->fd = -1;
			return;
		}
		on_message(rank);
	}
}

static void answer_killer(uint32_t rank, enum wire_op op)
{
	uint32_t killer = child[rank].killer;

	if (killer == NOBODY || child[rank].killer_op != op)
		return;
	child[rank].killer = NOBODY;
	if (killer != rank)
		reply(killer, NULL, 0);
}

static void on_exit_of(uint32_t rank, int status)
{
	struct child *c = &child[rank];

	read_rank(rank);
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
	c->pid = 0;
	c->waiting = false;
	c->life++;
	if (!c->may_die && WIFSIGNALED(status))
		fail("rank %u: killed by signal %d (%s)", rank, WTERMSIG(status),
		     strsignal(WTERMSIG(status)));
	else if (!c->may_die && (!c->done || WEXITSTATUS(status) != 0))
		fail("rank %u: exit status %d%s", rank, WEXITSTATUS(status),
		     c->done ? " after its end" : "");
	answer_killer(rank, WIRE_KILL);
}

static void reap(void)
{
	for (uint32_t i = 0; i < run.size; i++) {
		int status;
		while (child[i].pid != 0 &&
		       waitpid(child[i].pid, &status, WNOHANG | WUNTRACED | WCONTINUED) > 0) {
			if (WIFSTOPPED(status))
				answer_killer(i, WIRE_STOP);
			else if (WIFCONTINUED(status))
				answer_killer(i, WIRE_CONT);
			else
				on_exit_of(i, status);
		}
	}
}

/* ---- a run ---- */

static uint32_t running(void)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < run.size; i++)
		n += child[i].pid != 0;
	return n;
}

static void kill_all(void)
{
	for (uint32_t i = 0; i < run.size; i++) {
		child[i].may_die = true;
		if (child[i].pid != 0)
			kill(child[i].pid, SIGKILL);
	}
}

static void one_turn(uint64_t until)
{
	struct pollfd p[RANK_MAX + 1] = {{.fd = sig_fd, .events = POLLIN}};
	struct signalfd_siginfo info[8];
	uint64_t now = rank_ms();

	for (uint32_t i = 0; i < run.size; i++)
		p[i + 1] = (struct pollfd){.fd = child[i].fd, .events = POLLIN};
	if (poll(p, run.size + 1, now < until ? (int)(until - now) : 0) < 0)
		return;
	for (uint32_t i = 0; i < run.size; i++) {
		if (p[i + 1].revents)
			read_rank(i);
	}
	if (p[0].revents && read(sig_fd, info, sizeof(info)) > 0)
		reap();
}

static void say_late(void)
{
	for (uint32_t i = 0; i < run.size; i++) {
		const struct child *c = &child[i];
		if (c->pid != 0)
			fail("rank %u: time limit; %s %s", i, c->waiting ? "waits at" : "busy",
			     c->waiting ? c->ask.tag : "");
	}
}

static void wait_ranks(void)
{
	uint32_t seconds = (run.c->seconds ? run.c->seconds : 60) * SLOWNESS;
	uint64_t until = rank_ms() + seconds * 1000ull;
	bool ended = false;

	while (running() > 0) {
		one_turn(until);
		if (ended)
			continue;
		if (rank_ms() >= until)
			say_late();
		if (run.failed || run.skipped) {
			kill_all();
			ended = true;
			until = rank_ms() + 10000;
		}
	}
}

/* Processes that ranks left behind are ours now. */
static void check_strays(void)
{
	DIR *d = opendir("/proc");
	struct dirent *e;
	int status;

	while (waitpid(-1, &status, WNOHANG) > 0)
		;
	while (d && (e = readdir(d))) {
		char path[300], text[64] = "";
		int parent = 0;
		snprintf(path, sizeof(path), "/proc/%s/stat", e->d_name);
		FILE *f = e->d_name[0] >= '1' && e->d_name[0] <= '9' ? fopen(path, "re") : NULL;
		if (!f)
			continue;
		if (fscanf(f, "%*d (%63[^)]) %*c %d", text, &parent) == 2 && parent == getpid()) {
			if (!run.failed)
				fail("leaked process %s (%s)", e->d_name, text);
			kill(atoi(e->d_name), SIGKILL);
			waitpid(atoi(e->d_name), &status, 0);
		}
		fclose(f);
	}
	if (d)
		closedir(d);
}

static unsigned shm_entries(void)
{
	DIR *d = opendir("/dev/shm");
	struct dirent *e;
	unsigned n = 0;

	while (d && (e = readdir(d)))
		n += strstr(e->d_name, "smem") != NULL || strstr(e->d_name, "mf_") != NULL;
	if (d)
		closedir(d);
	return n;
}

static void run_once(void)
{
	unsigned shm = shm_entries();
	uint32_t first = run.c->initial ? run.c->initial : run.size;

	for (uint32_t i = 0; i < RANK_PORTS; i++)
		run.port_lock[i] = port_take(&run.port[i]);
	for (uint32_t i = 0; i < RANK_MAX; i++)
		child[i] = (struct child){.fd = -1, .killer = NOBODY};
	for (uint32_t i = 0; i < first && i < run.size && !run.failed; i++)
		start(i);
	wait_ranks();
	check_strays();
	if (shm_entries() > shm)
		fail("leaked entry in /dev/shm");
	for (uint32_t i = 0; i < RANK_PORTS; i++)
		close(run.port_lock[i]);
	for (uint32_t i = 0; i < BOARD_MAX; i++) {
		free(board[i].val);
		board[i].val = NULL;
	}
}

static bool report(unsigned number, double seconds)
{
	bool ok = run.c->must_fail ? run.failed && strstr(run.why, run.c->must_fail) : !run.failed;

	printf("%s %u - %s/%u%s%s\n", ok ? "ok" : "not ok", number, run.c->name, run.size,
	       run.skipped ? " # SKIP " : "", run.skipped ? run.why : "");
	printf("# %.2f s\n", seconds);
	if (!ok) {
		char *save = NULL;
		for (char *l = strtok_r(run.why, "\n", &save); l; l = strtok_r(NULL, "\n", &save))
			printf("# %s\n", l);
		printf("# again with: --case %s --ranks %u --seed %llu\n", run.c->name, run.size,
		       (unsigned long long)run.seed);
	}
	fflush(stdout);
	return ok;
}

struct options {
	const char *name;
	uint32_t ranks;
	unsigned repeat;
	unsigned long long seed;
	bool list;
};

static bool wanted(const struct options *o, const struct ranks_case *c, uint32_t size)
{
	return size > 0 && size <= RANK_MAX && (!o->name || strcmp(o->name, c->name) == 0) &&
	       (o->ranks == 0 || o->ranks == size);
}

static unsigned walk(const struct options *o, const struct ranks_case *cases, size_t n, bool dry)
{
	unsigned count = 0, bad = 0;

	for (size_t k = 0; k < n * o->repeat; k++) {
		const struct ranks_case *c = &cases[k % n];
		for (size_t s = 0; s < RANK_SIZES_MAX && c->sizes[s]; s++) {
			if (!wanted(o, c, c->sizes[s]))
				continue;
			count++;
			if (dry)
				continue;
			uint64_t begin = rank_ms();
			run = (struct run){.c = c, .which = (unsigned)(k % n), .size = c->sizes[s]};
			run.seed = o->seed ? o->seed + k / n : begin * 1000003u + count;
			run_once();
			bad += !report(count, (double)(rank_ms() - begin) / 1000);
		}
	}
	return dry ? count : bad;
}

int ranks_main(int argc, char **argv, const struct ranks_case *cases, size_t n)
{
	struct options o = {.repeat = 1};
	const char *env = getenv(WIRE_ENV);

	if (env)
		return rank_run(env, cases, n);
	for (int i = 1; i < argc; i++) {
		const char *v = i + 1 < argc ? argv[i + 1] : "";
		if (strcmp(argv[i], "--list") == 0)
			o.list = true;
		else if (strcmp(argv[i], "--case") == 0)
			o.name = argv[++i] ? v : NULL;
		else if (strcmp(argv[i], "--ranks") == 0)
			o.ranks = (uint32_t)atoi(v), i++;
		else if (strcmp(argv[i], "--repeat") == 0)
			o.repeat = (unsigned)atoi(v), i++;
		else if (strcmp(argv[i], "--seed") == 0)
			o.seed = strtoull(v, NULL, 10), i++;
	}
	for (size_t k = 0; o.list && k < n; k++)
		printf("%s\n", cases[k].name);
	if (o.list)
		return 0;
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, &old_mask);
	sig_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	printf("1..%u\n", walk(&o, cases, n, true));
	fflush(stdout);
	return walk(&o, cases, n, false) == 0 ? 0 : 1;
}
