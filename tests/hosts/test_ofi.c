/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The network transport between hosts: what its calls promise, who may do what, and what it leaves
 * alone.
 */
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ends.h"
#include "transport/ofi_link.h"

#define SILENCE 3000 /* the default of SMEM_SILENCE_MS */

/* ---- withdrawing ---- */

#define WITHDRAWALS 50u

struct writer {
	struct endpoint *ep;
	uint64_t at;
	_Atomic bool stop;
	int32_t code;
	char *src;
	size_t len;
};

static void *writing(void *arg)
{
	struct writer *w = arg;

	while (w->code == SMEM_OK && !atomic_load(&w->stop)) {
		struct smem_xfer x = to(w->at, w->src, w->len);
		w->code = ofi->put(w->ep, &x, 1);
	}
	return NULL;
}

/* After withdraw nothing lands, the writer gets SMEM_STALE, and another region's traffic goes on.
 */
static void withdrawn(struct rank *r)
{
	if (r->rank == 0) {
		target_up(r);
		for (uint64_t i = 1; i <= WITHDRAWALS; i++) {
			WANT(r, ofi->expose(100 + i, second, MEM, 1, card.secret), 0);
			atomic_store(&page->asked, i);
			while (((volatile char *)second)[MEM - 1] != (char)i)
				sched_yield(); /* one round has arrived: it is writing */
			WANT(r, ofi->withdraw(100 + i, deadline_in_ms(5000)), 0);
			memset(second, 0, MEM);
			await(r, &page->answered, i);
			RANK_ASSERT(r, all(second, MEM, 0));
		}
		rank_barrier(r);
		target_down(r);
		return;
	}
	struct endpoint *ep = initiator_up(r);
	struct writer other = {.ep = ep, .at = card.mem, .src = filled(r, MIB, 1), .len = MIB};
	pthread_t tid;
	RANK_ASSERT(r, pthread_create(&tid, NULL, writing, &other) == 0);
	struct writer w = {.ep = ep, .at = card.second, .len = MEM};
	w.src = filled(r, MEM, 0);
	for (uint64_t i = 1; i <= WITHDRAWALS; i++) {
		await(r, &page->asked, i);
		memset(w.src, (int)i, MEM);
		w.code = SMEM_OK;
		writing(&w);
		RANK_ASSERT(r, w.code == SMEM_STALE || w.code == SMEM_INVALID_PARAM);
		memset(w.src, 0xee, MEM);
		atomic_store(&page->answered, i);
	}
	atomic_store(&other.stop, true);
	pthread_join(tid, NULL);
	RANK_CODE(r, other.code, SMEM_OK);
	rank_barrier(r);
	free(w.src);
	free(other.src);
	initiator_down(ep);
}

/* A writer that is stopped does not hold a withdrawal up, and nothing of it lands afterwards. */
static void withdrawn_from_stopped(struct rank *r)
{
	if (r->rank == 0) {
		target_up(r);
		WANT(r, ofi->expose(7, second, MEM, 1, card.secret), 0);
		atomic_store(&page->asked, 1);
		while (((volatile char *)second)[MEM - 1] != 3)
			sched_yield();
		rank_stop(r, 1);
		uint64_t begin = rank_ms();
		WANT(r, ofi->withdraw(7, deadline_in_ms(5000)), 0);
		RANK_ASSERT(r, rank_ms() - begin < 5000);
		memset(second, 0, MEM);
		rank_cont(r, 1);
		await(r, &page->answered, 1);
		RANK_ASSERT(r, all(second, MEM, 0));
		rank_barrier(r);
		target_down(r);
		return;
	}
	struct endpoint *ep = initiator_up(r);
	struct writer w = {.ep = ep, .at = card.second, .src = filled(r, MEM, 3), .len = MEM};
	await(r, &page->asked, 1);
	writing(&w);
	RANK_CODE(r, w.code, SMEM_STALE);
	struct smem_xfer x = to(card.mem, w.src, MIB);
	WANT(r, ofi->put(ep, &x, 1), 0); /* the rest of the target is still there */
	atomic_store(&page->answered, 1);
	rank_barrier(r);
	free(w.src);
	initiator_down(ep);
}

/* ---- a silent host ---- */

static void lose_and_regain(struct rank *r, void (*lose)(struct rank *r, bool on))
{
	if (r->rank == 0) {
		target_up(r);
		rank_meet(r, "lost", 2);
		rank_meet(r, "back", 2);
		/* What was on its way has no place to go to; then a new connection writes. */
		rank_meet(r, "written", 2);
		RANK_ASSERT(r, all(mem, MEM, 9));
		RANK_ASSERT(r, !memchr(second, 0xee, MEM));
		rank_barrier(r);
		target_down(r);
		return;
	}
	struct endpoint *ep = initiator_up(r);
	char *src = filled(r, MEM, 1), *back = filled(r, MEM, 0x77);
	struct smem_xfer x = to(card.mem, src, MEM), get = from(card.mem, back, MEM);
	WANT(r, ofi->put(ep, &x, 1), 0);
	lose(r, true);
	uint64_t begin = rank_ms();
	WANT(r, ofi->put(ep, &x, 1), SMEM_PEER_LOST);
	RANK_ASSERT(r, strstr(err_detail(), "rank 0") && strstr(err_detail(), " ms"));
	uint64_t took = rank_ms() - begin;
	rank_note(r, "put: %llu ms", (unsigned long long)took);
	RANK_ASSERT(r, took < 2 * SILENCE);
	memset(src, 0xee, MEM);
	begin = rank_ms();
	int32_t code = ofi->get(ep, &get, 1);
	RANK_ASSERT(r, code == SMEM_PEER_LOST || code == SMEM_UNREACHABLE);
	RANK_ASSERT(r, rank_ms() - begin < 2 * SILENCE);
	RANK_ASSERT(r, all(back, MEM, 0x77));
	rank_meet(r, "lost", 2);
	lose(r, false);
	rank_meet(r, "back", 2);
	memset(src, 9, MEM);
	/* The way there may need a moment: addresses are looked up anew. */
	uint64_t until = rank_ms() + PATIENCE;
	do
		code = ofi->put(ep, &x, 1);
	while (code != SMEM_OK && rank_ms() < until);
	RANK_CODE(r, code, SMEM_OK);
	rank_meet(r, "written", 2);
	rank_barrier(r);
	free(src);
	free(back);
	initiator_down(ep);
}

static void silence(struct rank *r, bool on)
{
	host_silence(r, 0, on);
}

static void link_down(struct rank *r, bool on)
{
	host_link(r, 0, !on);
}

static void silent(struct rank *r)
{
	lose_and_regain(r, silence);
}

static void unplugged(struct rank *r)
{
	lose_and_regain(r, link_down);
}

/* ---- who may ---- */

/* Without the process's key no connection; without the secret no region; read-only stays so. */
static void strangers(struct rank *r)
{
	struct endpoint *ep = NULL;
	char buf[64] = "x";

	if (r->rank == 0) {
		target_up(r);
		WANT(r, ofi->expose(2, second, MEM, 0, card.secret), 0);
		rank_barrier(r);
		rank_barrier(r);
		RANK_ASSERT(r, all(mem, MEM, 0) && all(second, MEM, 0));
		WANT(r, ofi->withdraw(2, deadline_in_ms(5000)), 0);
		target_down(r);
		return;
	}
	initiator_start(r);
	rank_barrier(r);
	struct transport_peer p = peer();
	struct card forged = card;
	memset(forged.addr + 16, 0, 32); /* ofi_card.key */
	p.addr = forged.addr;
	WANT(r, ofi->connect(&p, deadline_in_ms(PATIENCE), &ep), SMEM_UNREACHABLE);
	RANK_ASSERT(r, !ep);
	p = peer();
	uint8_t wrong[16] = {1};
	p.secret = wrong;
	WANT(r, ofi->connect(&p, deadline_in_ms(PATIENCE), &ep), 0);
	struct smem_xfer x = to(card.mem, buf, sizeof(buf));
	WANT(r, ofi->put(ep, &x, 1), SMEM_INVALID_PARAM);
	ofi->close(ep);
	p = peer();
	WANT(r, ofi->connect(&p, deadline_in_ms(PATIENCE), &ep), 0);
	x = to(card.second, buf, sizeof(buf));
	WANT(r, ofi->put(ep, &x, 1), SMEM_INVALID_PARAM);
	x = from(card.second, buf, sizeof(buf));
	WANT(r, ofi->get(ep, &x, 1), 0);
	x = to(card.mem + MEM - 10, buf, 11); /* one byte too many */
	WANT(r, ofi->put(ep, &x, 1), SMEM_INVALID_PARAM);
	x = to(card.mem - 1, buf, 1);
	WANT(r, ofi->put(ep, &x, 1), SMEM_INVALID_PARAM);
	x = to(card.mem, "\0\0\0\0", 4);
	WANT(r, ofi->put(ep, &x, 1), 0);
	memset(buf, 0, sizeof(buf));
	x = to(card.mem + MEM - 10, buf, 10);
	WANT(r, ofi->put(ep, &x, 1), 0);
	rank_barrier(r);
	initiator_down(ep);
}

/*
 * A peer that does not keep to the rules: whatever it puts into its requests, the target's provider
 * refuses what is not exposed. Past everything on this side, on the link's own endpoint.
 */
static bool raw_write(struct rank *r, struct ofi_link *l, uint64_t rma, uint64_t key)
{
	static char junk[64] = "never to be seen";
	struct iovec io = {.iov_base = junk, .iov_len = sizeof(junk)};
	struct fi_rma_iov at = {.addr = rma, .len = sizeof(junk), .key = key};
	static struct fi_context2 context;
	struct fi_msg_rma m = {.msg_iov = &io,
			       .iov_count = 1,
			       .addr = l->peer,
			       .rma_iov = &at,
			       .rma_iov_count = 1,
			       .context = &context};
	uint64_t until = rank_ms() + PATIENCE;
	struct fi_cq_err_entry e = {0};
	struct fi_cq_entry done;
	ssize_t n;

	do
		n = fi_writemsg(l->ep.ep, &m, FI_COMPLETION | FI_DELIVERY_COMPLETE);
	while (n == -FI_EAGAIN && fi_cq_read(l->dom.cq, NULL, 0) <= 0 && rank_ms() < until);
	RANK_ASSERT(r, n == 0);
	do
		n = fi_cq_read(l->dom.cq, &done, 1);
	while (n == -FI_EAGAIN && rank_ms() < until);
	RANK_ASSERT(r, n == 1 || n == -FI_EAVAIL);
	return n == 1 || fi_cq_readerr(l->dom.cq, &e, 0) < 0;
}

enum forgery { HONEST, BEHIND, BEFORE, RANDOM_KEY, OLD_KEY, FORGERIES };

static void forge(struct rank *r, enum forgery how)
{
	struct endpoint *ep = NULL;
	struct transport_peer p = peer();
	char ok[8] = "fine";

	WANT(r, ofi->connect(&p, deadline_in_ms(PATIENCE), &ep), 0);
	struct ofi_link *l = (struct ofi_link *)ep;
	struct smem_xfer x = to(card.second + 100, ok, sizeof(ok));
	WANT(r, ofi->put(ep, &x, 1), 0);
	pthread_mutex_lock(&l->lock);
	struct ofi_key key = *ofi_keys_find(&l->keys, card.second, true);
	pthread_mutex_unlock(&l->lock);
	if (how == OLD_KEY) {
		rank_meet(r, "withdraw", 2);
		rank_meet(r, "exposed again", 2);
	}
	uint64_t rma = how == BEHIND ? key.rma + MEM - 63 : how == BEFORE ? key.rma - 1 : key.rma;
	bool done = raw_write(r, l, rma, how == RANDOM_KEY ? key.key ^ 1u << 17 : key.key);
	RANK_CODE(r, done, how == HONEST);
	/* Nobody else's loss, and the link is set up anew. */
	WANT(r, ofi->put(ep, &x, 1), 0);
	ofi->close(ep);
}

static void forged(struct rank *r)
{
	if (r->rank == 0) {
		target_up(r);
		WANT(r, ofi->expose(50, second, MEM, 1, card.secret), 0);
		rank_barrier(r);
		rank_meet(r, "withdraw", 2);
		WANT(r, ofi->withdraw(50, deadline_in_ms(5000)), 0);
		memset(second, 0, MEM);
		WANT(r, ofi->expose(51, second, MEM, 1, card.secret), 0);
		rank_meet(r, "exposed again", 2);
		rank_barrier(r);
		/* HONEST's is gone by now; nobody else's came. */
		RANK_ASSERT(r, all(second, 100, 0) && all(second + 108, MEM + 4096 - 108, 0));
		RANK_ASSERT(r, all(mem, MEM + 4096, 0));
		WANT(r, ofi->withdraw(51, deadline_in_ms(5000)), 0);
		target_down(r);
		return;
	}
	initiator_start(r);
	rank_barrier(r);
	for (int how = HONEST; how < FORGERIES; how++)
		forge(r, (enum forgery)how);
	rank_barrier(r);
	initiator_down(NULL);
}

static void forged_rxm(struct rank *r)
{
	setenv("SMEM_FABRIC_PROVIDER", "tcp;ofi_rxm", 1);
	forged(r);
}

/* ---- rest ---- */

static double cpu_ms(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e3 +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e3;
}

/* With a connection up and nothing to do, neither side uses its CPU. */
static void idle(struct rank *r)
{
	struct endpoint *ep = NULL;
	char buf[8] = "idle";

	if (r->rank == 0)
		target_up(r);
	else
		ep = initiator_up(r);
	if (ep) {
		struct smem_xfer x = to(card.mem, buf, sizeof(buf));
		WANT(r, ofi->put(ep, &x, 1), 0);
	}
	rank_barrier(r);
	double before = cpu_ms();
	poll(NULL, 0, 2000); /* the time that is measured */
	double used = cpu_ms() - before;
	rank_note(r, "%.2f ms of CPU in 2 s", used);
	RANK_ASSERT(r, used < 40);
	rank_barrier(r);
	if (r->rank == 0)
		target_down(r);
	else
		initiator_down(ep);
}

/* What an exec would leave open, and what a child holds of the parent's connections. */
static unsigned not_cloexec(void)
{
	unsigned n = 0;

	for (int fd = 3; fd < 1000; fd++) {
		int flags = fcntl(fd, F_GETFD);
		n += flags >= 0 && !(flags & FD_CLOEXEC);
	}
	return n;
}

static unsigned ip_sockets(void)
{
	struct sockaddr_storage sa;
	unsigned n = 0;

	for (int fd = 3; fd < 1000; fd++) {
		socklen_t len = sizeof(sa);
		n += getsockname(fd, (struct sockaddr *)&sa, &len) == 0 &&
		     (sa.ss_family == AF_INET || sa.ss_family == AF_INET6);
	}
	return n;
}

/* The child starts anew; what the parent had is none of its business. */
static int child(struct rank *r)
{
	struct transport_peer p = peer();
	struct endpoint *ep = NULL;
	char buf[64] = "child";
	uint8_t route[16] = {2, 0, 0, 0, 10, 77, 0, 2};

	if (ip_sockets() != 0)
		return 1;
#ifdef __SANITIZE_THREAD__
	return 0; /* which cannot follow a thread that starts in a forked child */
#endif
	if (r->rank == 0)
		return 0;
	if (ofi->start(route, sizeof(route)) != 0 ||
	    ofi->connect(&p, deadline_in_ms(PATIENCE), &ep) != 0)
		return 2;
	struct smem_xfer x = to(card.mem + 100, buf, sizeof(buf));
	if (ofi->put(ep, &x, 1) != 0)
		return 3;
	ofi->close(ep);
	ofi->stop();
	return 0;
}

/* A fork in the middle of traffic: the child holds nothing and the parent goes on. */
static void forked(struct rank *r)
{
	unsigned before = not_cloexec();
	struct endpoint *ep = NULL;
	char buf[64] = "parent";
	int status = 0;

	if (r->rank == 0)
		target_up(r);
	else
		ep = initiator_up(r);
	struct smem_xfer x = to(card.mem, buf, sizeof(buf));
	if (ep)
		WANT(r, ofi->put(ep, &x, 1), 0);
	rank_barrier(r);
	RANK_CODE(r, not_cloexec(), before);
	RANK_ASSERT(r, ip_sockets() > 0);
	pid_t pid = fork();
	if (pid == 0)
		_exit(child(r));
	RANK_ASSERT(r, waitpid(pid, &status, 0) == pid);
	RANK_CODE(r, status, 0);
	rank_barrier(r);
	for (int i = 0; ep && i < 100; i++)
		WANT(r, ofi->put(ep, &x, 1), 0);
	rank_barrier(r);
	if (ep)
		initiator_down(ep);
	else
		target_down(r);
}

static const struct ranks_case cases[] = {
    {.name = "withdrawn", .fn = withdrawn, .sizes = {2}},
    {.name = "withdrawn_from_stopped", .fn = withdrawn_from_stopped, .sizes = {2}},
    {.name = "silent", .fn = silent, .sizes = {2}},
    {.name = "unplugged", .fn = unplugged, .sizes = {2}},
    {.name = "strangers", .fn = strangers, .sizes = {2}},
    {.name = "forged", .fn = forged, .sizes = {2}},
    {.name = "forged_rxm", .fn = forged_rxm, .sizes = {2}},
    {.name = "forked", .fn = forked, .sizes = {2}},
    {.name = "idle", .fn = idle, .sizes = {2}},
};

int main(int argc, char **argv)
{
	return hosts_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
