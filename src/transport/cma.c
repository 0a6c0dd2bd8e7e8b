/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private memory of a process on the same host: process_vm_writev() and process_vm_readv(), 1024
 * pieces on each side a call; neighbours are merged on each side by itself.
 *
 * The right process. The kernel takes a number, and a number can come to mean another process: it
 * died and the number was given again, or it became another program by exec(). Looking before the
 * call is no help, for we may be stopped between the look and the call. So every call carries the
 * look with it: its first piece is a few bytes on the peer's *guard*, a page at a random address
 * that no child inherits and no exec keeps. The kernel takes the pieces in order and stops at the
 * first that faults, all with one and the same address space in hand; so in a wrong process the
 * call ends with nothing done. A put writes on the guard (nobody reads that), a get reads the
 * cookie there and compares it.
 *
 * Is it forbidden? Yama, seccomp, namespaces, a process that is not dumpable: connect() tries it on
 * the guard and says what the kernel said.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "device/crew.h"
#include "device/pieces.h"
#include "transport/guard.h"
#include "transport/transport.h"
#include "util/err.h"

#define CMA_VERSION 1
#define IOVS	    1024 /* the kernel's limit a side; the first is the guard's */
/* Bytes a call: long enough to be efficient, short enough for abandon() and for who waits for the
 * end of what is in flight. */
#define CALL_BYTES (32ull << 20)

struct cma_addr {
	uint32_t version;
	uint32_t pid; /* in its own pid namespace */
	uint64_t pidns;
	struct guard_addr guard;
};
_Static_assert(sizeof(struct cma_addr) == 40, "wire layout");

struct cma {
	struct endpoint base;
	pid_t pid;
	struct guard_addr guard;
	_Atomic bool abandoned;
	uint64_t since;
	char name[64];
};

/* From here on helpers are asked, for parts of that size: the kernel's copy is slower than ours, so
 * sooner than in device/copy.c. */
#define CREW_MIN  (256u << 10)
#define CREW_PART (128u << 10)

enum direction { PUT, GET };

/* One system call's worth. */
struct call {
	struct iovec local[IOVS];
	struct iovec remote[IOVS];
	size_t locals, remotes;
	size_t bytes; /* without the guard */
	uint8_t scratch[GUARD_COOKIE];
};

static uint64_t own_pidns(void)
{
	struct stat st;

	return stat("/proc/self/ns/pid", &st) == 0 ? (uint64_t)st.st_ino : 0;
}

static int32_t cma_start(const void *route, size_t route_len)
{
	(void)route;
	(void)route_len;
	int32_t r = guard_get();

	if (r == SMEM_OK)
		crew_get();
	return r;
}

static void cma_stop(void)
{
	crew_put();
	guard_put();
}

static int32_t cma_address(void *buf, size_t *len)
{
	struct cma_addr addr = {
	    .version = CMA_VERSION, .pid = (uint32_t)getpid(), .pidns = own_pidns()};

	if (*len < sizeof(addr))
		return smem_err(SMEM_INVALID_PARAM, "%zu bytes for an address, %zu are needed",
				*len, sizeof(addr));
	guard_own(&addr.guard);
	memcpy(buf, &addr, sizeof(addr));
	*len = sizeof(addr);
	return SMEM_OK;
}

static ssize_t vm_rw(enum direction dir, pid_t pid, const struct call *c)
{
	return dir == PUT ? process_vm_writev(pid, c->local, c->locals, c->remote, c->remotes, 0)
			  : process_vm_readv(pid, c->local, c->locals, c->remote, c->remotes, 0);
}

/* Start a call with the guard. */
static void call_begin(struct call *c, enum direction dir, const struct guard_addr *guard)
{
	uint64_t at = dir == PUT ? guard->addr + GUARD_SCRATCH : guard->addr;
	size_t len = dir == PUT ? 1 : GUARD_COOKIE;

	c->scratch[0] = 0;
	c->local[0] = (struct iovec){.iov_base = c->scratch, .iov_len = len};
	c->remote[0] = (struct iovec){.iov_base = (void *)(uintptr_t)at, .iov_len = len};
	c->locals = c->remotes = 1;
	c->bytes = 0;
}

static void side_add(struct iovec *iov, size_t *n, void *base, size_t len)
{
	struct iovec *last = &iov[*n - 1];

	if (*n > 1 && (char *)last->iov_base + last->iov_len == base)
		last->iov_len += len;
	else
		iov[(*n)++] = (struct iovec){.iov_base = base, .iov_len = len};
}

/* Take runs from the cursor, at most `max` bytes, until one side is full. */
static void call_fill(struct call *c, enum direction dir, struct cursor *at, size_t max)
{
	struct run run;

	while (c->locals < IOVS && c->remotes < IOVS && c->bytes < max &&
	       cursor_next(at, max - c->bytes, &run)) {
		void *local = dir == PUT ? (void *)run.src : run.dst;
		void *remote = dir == PUT ? run.dst : (void *)run.src;
		side_add(c->local, &c->locals, local, run.len);
		side_add(c->remote, &c->remotes, remote, run.len);
		c->bytes += run.len;
	}
}

static int32_t lost(const struct cma *e, const char *how)
{
	return smem_err(SMEM_PEER_LOST, "%s %s (process %d, after %" PRIu64 " ms)", e->name, how,
			(int)e->pid, (uint64_t)((clock_ns() - e->since) / NS_PER_MS));
}

/* A call moved nothing but the guard, or not even that. */
static int32_t failed(const struct cma *e, enum direction dir, ssize_t r, int err,
		      const struct call *c)
{
	const char *verb = dir == PUT ? "write to" : "read from";
	const struct iovec *first = &c->remote[1];

	if (r >= 0)
		return smem_err(
		    SMEM_IO,
		    "%s [%p, +%zu) of %s: not mapped there, or not so, or memory here is not", verb,
		    first->iov_base, first->iov_len, e->name);
	if (err == ESRCH)
		return lost(e, "has died");
	if (err == EFAULT)
		return lost(e, "has shut down or is another process now");
	if (err == EPERM)
		return smem_errno(SMEM_UNREACHABLE, err, "%s %s (process %d)", verb, e->name,
				  (int)e->pid);
	return smem_errno(err == ENOMEM ? SMEM_MALLOC_FAILED : SMEM_IO, err, "%s [%p, +%zu) of %s",
			  verb, first->iov_base, first->iov_len, e->name);
}

/* `bytes` of the batch from `at` on. */
static int32_t move(struct cma *e, enum direction dir, struct cursor at, size_t bytes)
{
	struct call c;

	while (bytes > 0) {
		struct cursor from = at;
		if (atomic_load_explicit(&e->abandoned, memory_order_relaxed))
			return lost(e, "is lost");
		call_begin(&c, dir, &e->guard);
		size_t head = c.local[0].iov_len;
		call_fill(&c, dir, &at, bytes < CALL_BYTES ? bytes : CALL_BYTES);
		ssize_t r = vm_rw(dir, e->pid, &c);
		if (r <= (ssize_t)head)
			return failed(e, dir, r, errno, &c);
		if (dir == GET && memcmp(c.scratch, e->guard.cookie, GUARD_COOKIE) != 0)
			return lost(e, "has shut down or is another process now");
		size_t done = (size_t)r - head;
		bytes -= done;
		if (done < c.bytes) {
			at = from; /* part of it only: the next call finds out why */
			cursor_skip(&at, done);
		}
	}
	return SMEM_OK;
}

/* A large batch in parts, for helpers. */
struct share {
	struct cma *e;
	enum direction dir;
	struct parts parts;
	_Atomic bool failed;
};

static void move_part(void *arg, size_t i)
{
	struct share *s = arg;

	if (!atomic_load_explicit(&s->failed, memory_order_relaxed) &&
	    move(s->e, s->dir, s->parts.start[i], part_bytes(&s->parts, i)) != SMEM_OK)
		atomic_store(&s->failed, true);
}

/* False when a part failed: the whole must be done once more, where the error belongs. */
static bool move_shared(struct cma *e, enum direction dir, const struct smem_xfer *x, size_t n,
			size_t total, unsigned helpers)
{
	struct share s;

	s.e = e;
	s.dir = dir;
	atomic_init(&s.failed, false);
	parts_cut(&s.parts, x, n, total, CREW_PART);
	crew_run(move_part, &s, s.parts.count, helpers);
	return !atomic_load(&s.failed);
}

static int32_t move_all(struct endpoint *ep, enum direction dir, const struct smem_xfer *x,
			size_t n)
{
	struct cma *e = (struct cma *)ep;
	size_t total = pieces_bytes(x, n);
	unsigned helpers = total >= CREW_MIN ? crew_spare() : 0;

	if (helpers > 0 && move_shared(e, dir, x, n, total, helpers))
		return SMEM_OK;
	return move(e, dir, (struct cursor){.x = x, .n = n}, total);
}

static int32_t cma_put(struct endpoint *ep, const struct smem_xfer *x, size_t n)
{
	return move_all(ep, PUT, x, n);
}

static int32_t cma_get(struct endpoint *ep, const struct smem_xfer *x, size_t n)
{
	return move_all(ep, GET, x, n);
}

/* Its number as it is seen from here; 0: not to be had. */
static pid_t visible_pid(const struct transport_peer *peer, const struct cma_addr *addr)
{
	if (peer->agent_conn)
		return agent_peer_pid(peer->agent_conn);
	return addr->pidns != 0 && addr->pidns == own_pidns() ? (pid_t)addr->pid : 0;
}

static int32_t probe(const struct cma *e)
{
	struct call c;

	call_begin(&c, GET, &e->guard);
	ssize_t r = vm_rw(GET, e->pid, &c);
	if (r < 0)
		return smem_errno(SMEM_UNREACHABLE, errno, "process_vm_readv of process %d",
				  (int)e->pid);
	if (memcmp(c.scratch, e->guard.cookie, GUARD_COOKIE) != 0)
		return smem_err(SMEM_UNREACHABLE, "process %d is another one", (int)e->pid);
	call_begin(&c, PUT, &e->guard);
	if (vm_rw(PUT, e->pid, &c) < 0)
		return smem_errno(SMEM_UNREACHABLE, errno, "process_vm_writev to process %d",
				  (int)e->pid);
	return SMEM_OK;
}

static int32_t cma_connect(const struct transport_peer *peer, struct deadline deadline,
			   struct endpoint **ret)
{
	struct cma_addr addr;

	(void)deadline;
	if (!peer->agent_conn && !agent_same_host(peer->agent))
		return smem_err(SMEM_UNREACHABLE, "it is on another host");
	if (!peer->addr || peer->addr_len != sizeof(addr))
		return smem_err(SMEM_UNREACHABLE, "it has no address for process_vm_readv");
	memcpy(&addr, peer->addr, sizeof(addr));
	if (addr.version != CMA_VERSION)
		return smem_err(SMEM_UNREACHABLE, "its address has version %u", addr.version);
	struct cma *e = calloc(1, sizeof(*e));
	if (!e)
		return smem_err(SMEM_MALLOC_FAILED, "path to %s", peer->name);
	*e = (struct cma){.base.ops = &transport_cma,
			  .pid = visible_pid(peer, &addr),
			  .guard = addr.guard,
			  .since = clock_ns()};
	snprintf(e->name, sizeof(e->name), "%s", peer->name);
	int32_t r = e->pid != 0
			? probe(e)
			: smem_err(SMEM_UNREACHABLE, "its pid namespace is not seen from here");
	if (r != SMEM_OK) {
		free(e);
		return r;
	}
	*ret = &e->base;
	return SMEM_OK;
}

static void cma_close(struct endpoint *ep)
{
	free(ep);
}

static void cma_abandon(struct endpoint *ep)
{
	atomic_store(&((struct cma *)ep)->abandoned, true);
}

const struct transport_ops transport_cma = {
    .name = "cma",
    .start = cma_start,
    .stop = cma_stop,
    .address = cma_address,
    .connect = cma_connect,
    .close = cma_close,
    .put = cma_put,
    .get = cma_get,
    .abandon = cma_abandon,
};
