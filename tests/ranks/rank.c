/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rank's side. One request and, for those that wait, one reply at a time. What a rank leaves
 * behind is found by comparing descriptors, threads and mappings from before the case's function
 * with those after it and smem_uninit().
 */
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "smem.h"
#include "wire.h"

#define SETTLE_MS 3000 /* a joined thread may be in /proc/self/task for a moment longer */

static int channel = -1;
static pthread_mutex_t channel_lock = PTHREAD_MUTEX_INITIALIZER;
static struct wire_msg out, in; /* under channel_lock */

uint64_t rank_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

uint64_t rank_random(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15u);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static void send_msg(enum wire_op op, uint32_t arg, const char *tag, const void *data, size_t len)
{
	out.op = op;
	out.arg = arg;
	out.len = (uint32_t)len;
	snprintf(out.tag, sizeof(out.tag), "%s", tag);
	if (len > 0)
		memcpy(out.data, data, len);
	while (send(channel, &out, WIRE_HEAD + len, MSG_NOSIGNAL) < 0) {
		if (errno != EINTR)
			_exit(3); /* the controller is gone */
	}
}

static void tell(enum wire_op op, const char *text)
{
	pthread_mutex_lock(&channel_lock);
	send_msg(op, 0, "", text, strlen(text));
	pthread_mutex_unlock(&channel_lock);
}

/* Ask and wait. The reply's data, at most cap bytes of it, in buf. */
static size_t ask(enum wire_op op, uint32_t arg, const char *tag, const void *data, size_t len,
		  void *buf, size_t cap)
{
	pthread_mutex_lock(&channel_lock);
	send_msg(op, arg, tag, data, len);
	ssize_t n;
	do {
		n = recv(channel, &in, sizeof(in), 0);
	} while (n < 0 && errno == EINTR);
	if (n < (ssize_t)WIRE_HEAD)
		_exit(3);
	size_t got = in.len;
	if (buf)
		memcpy(buf, in.data, got < cap ? got : cap);
	pthread_mutex_unlock(&channel_lock);
	return got;
}

void rank_meet(struct rank *r, const char *tag, uint32_t n)
{
	(void)r;
	ask(WIRE_MEET, n, tag, NULL, 0, NULL, 0);
}

void rank_barrier(struct rank *r)
{
	rank_meet(r, "barrier", r->size);
}

void rank_gather(struct rank *r, const void *mine, size_t len, void *all)
{
	RANK_ASSERT(r, len * r->size <= RANK_DATA_MAX);
	ask(WIRE_GATHER, 0, "gather", mine, len, all, len * r->size);
}

void rank_put(struct rank *r, const char *key, const void *val, size_t len)
{
	RANK_ASSERT(r, len <= RANK_DATA_MAX);
	ask(WIRE_PUT, 0, key, val, len, NULL, 0);
}

size_t rank_get(struct rank *r, const char *key, void *buf, size_t cap)
{
	(void)r;
	return ask(WIRE_GET, 0, key, NULL, 0, buf, cap);
}

void rank_kill(struct rank *r, uint32_t other)
{
	(void)r;
	ask(WIRE_KILL, other, "kill", NULL, 0, NULL, 0);
}

void rank_stop(struct rank *r, uint32_t other)
{
	(void)r;
	ask(WIRE_STOP, other, "stop", NULL, 0, NULL, 0);
}

void rank_cont(struct rank *r, uint32_t other)
{
	(void)r;
	ask(WIRE_CONT, other, "cont", NULL, 0, NULL, 0);
}

void rank_spawn(struct rank *r, uint32_t other)
{
	(void)r;
	ask(WIRE_SPAWN, other, "spawn", NULL, 0, NULL, 0);
}

void rank_may_die(struct rank *r)
{
	(void)r;
	ask(WIRE_MAY_DIE, 0, "may die", NULL, 0, NULL, 0);
}

static void vtell(enum wire_op op, struct rank *r, const char *at, const char *fmt, va_list ap)
{
	char text[2048];
	int n = snprintf(text, sizeof(text), "rank %u: %s", r->rank, at);

	vsnprintf(text + n, sizeof(text) - (size_t)n, fmt, ap);
	size_t used = strlen(text);
	if (op == WIRE_FAIL && smem_get_last_err_msg()[0])
		snprintf(text + used, sizeof(text) - used, " (last error: %s)",
			 smem_get_last_err_msg());
	tell(op, text);
}

void rank_fail(struct rank *r, const char *file, int line, const char *fmt, ...)
{
	char at[256];
	va_list ap;

	const char *slash = strrchr(file, '/');
	snprintf(at, sizeof(at), "%s:%d: ", slash ? slash + 1 : file, line);
	va_start(ap, fmt);
	vtell(WIRE_FAIL, r, at, fmt, ap);
	va_end(ap);
	_exit(2);
}

void rank_skip(struct rank *r, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vtell(WIRE_SKIP, r, "", fmt, ap);
	va_end(ap);
	_exit(0);
}

void rank_note(struct rank *r, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vtell(WIRE_NOTE, r, "", fmt, ap);
	va_end(ap);
}

/* ---- what is left behind ---- */

struct left {
	uint8_t fds[20000 / 8 + 1];
	unsigned threads;
	unsigned maps; /* of memfds, and reservations of a GiB and more */
};

static void count_maps(struct left *l, bool print)
{
	FILE *f = fopen("/proc/self/maps", "re");
	char line[512];

	l->maps = 0;
	while (f && fgets(line, sizeof(line), f)) {
		unsigned long long begin = 0, end = 0;
		bool big = false;
		sscanf(line, "%llx-%llx", &begin, &end);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
		big = end - begin >= 1ull << 30; /* sanitizers keep such of their own */
#endif
		if (!big && !strstr(line, "memfd:") && !strstr(line, "/dev/shm/"))
			continue;
		l->maps++;
		if (print)
			fprintf(stderr, "# mapped: %s", line);
	}
	if (f)
		fclose(f);
}

static void *nothing(void *arg)
{
	return arg;
}

static void look(struct left *l)
{
	struct dirent *e;

	memset(l, 0, sizeof(*l));
	DIR *d = opendir("/proc/self/fd");
	while (d && (e = readdir(d))) {
		int fd = atoi(e->d_name);
		if (e->d_name[0] != '.' && fd != dirfd(d) && fd < 20000)
			l->fds[fd / 8] |= (uint8_t)(1u << (fd % 8));
	}
	if (d)
		closedir(d);
	d = opendir("/proc/self/task");
	while (d && (e = readdir(d)))
		l->threads += e->d_name[0] != '.';
	if (d)
		closedir(d);
	count_maps(l, false);
}

static void check_fds(struct rank *r, const struct left *before, const struct left *after)
{
	for (int fd = 0; fd < 20000; fd++) {
		char path[64], target[256] = "?";
		if (!(after->fds[fd / 8] & ~before->fds[fd / 8] & (1u << (fd % 8))))
			continue;
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		ssize_t n = readlink(path, target, sizeof(target) - 1);
		target[n > 0 ? n : 0] = '\0';
		rank_fail(r, __FILE__, __LINE__, "leaked descriptor %d -> %s", fd, target);
	}
}

static void check_left(struct rank *r, const struct left *before)
{
	struct left after;
	uint64_t until = rank_ms() + SETTLE_MS;

	look(&after);
	while (after.threads > before->threads && rank_ms() < until) {
		sched_yield();
		look(&after);
	}
	check_fds(r, before, &after);
	if (after.threads > before->threads)
		rank_fail(r, __FILE__, __LINE__, "leaked threads: %u before, %u after",
			  before->threads, after.threads);
	if (after.maps > before->maps) {
		count_maps(&after, true);
		rank_fail(r, __FILE__, __LINE__, "leaked mappings: %u before, %u after",
			  before->maps, after.maps);
	}
}

static void parse_ports(struct rank *r, const char *s)
{
	for (uint32_t i = 0; i < RANK_PORTS && s; i++) {
		r->port[i] = (uint16_t)atoi(s);
		s = strchr(s, ',');
		s = s ? s + 1 : NULL;
	}
	snprintf(r->url, sizeof(r->url), "tcp://127.0.0.1:%u", r->port[0]);
}

int rank_run(const char *env, const struct ranks_case *cases, size_t n)
{
	struct rank r = {0};
	struct left before;
	unsigned which = 0;
	unsigned long long seed = 0, start = 0;
	int ports = 0;

	if (sscanf(env, "%u:%u:%u:%u:%llu:%llu:%d:%n", &which, &r.rank, &r.size, &r.life, &seed,
		   &start, &channel, &ports) != 7 ||
	    which >= n)
		return 3;
	r.seed = seed;
	r.start_ms = start;
	parse_ports(&r, env + ports);
	unsetenv(WIRE_ENV);
	/* What the C library and the thread sanitizer make once and keep must not look like a leak.
	 */
	tzset();
	pthread_t tid;
	if (pthread_create(&tid, NULL, nothing, NULL) == 0)
		pthread_join(tid, NULL);
	look(&before);
	cases[which].fn(&r);
	smem_uninit();
	check_left(&r, &before);
	tell(WIRE_DONE, "");
	return 0;
}

#ifdef __SANITIZE_ADDRESS__
/* libfabric 1.17 keeps a copy of a provider's description for every endpoint that was open. */
__attribute__((visibility("default"))) const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
	return "leak:libfabric.so\n";
}
#endif

#ifdef __SANITIZE_THREAD__
/*
 * Libraries that the sanitizer does not see into, and what they do before main and after it. And
 * ofi_fds.c looks on purpose at every descriptor number, whoever opens and closes it meanwhile: it
 * asks only what it is.
 */
__attribute__((visibility("default"))) const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
	return "called_from_lib:libfabric.so\n"
	       "race:libcrypto.so\n"
	       "race:ofi_fds.c\n"
	       "race:libnl-3.so\n"
	       "race:libnl-route-3.so\n"
	       "race:libnuma.so\n"
	       "mutex:_dl_call_fini\n";
}
#endif
