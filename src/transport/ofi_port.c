/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The thread polls while something comes in and a little longer, because who sleeps pays a wake-up
 * on the next message; then it blocks on the queues' descriptors, at most a second at a time. Data
 * that lands makes no completion here and poll(2) would double the cost of a turn, so "something
 * came" is a turn that took much longer than the shortest one does. When that is wrong, which a
 * preemption makes it, some more turns are all that comes of it.
 *
 * Providers layered over ofi_rxm get a port for each initiator: in libfabric 1.17 a queue whose
 * endpoints are closed one by one keeps what it waited for, and fi_trywait() then reads freed
 * memory.
 */
#include "transport/ofi_port.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <utlist.h>

#include "util/cleanup.h"
#include "util/clock.h"
#include "util/err.h"
#include "util/fd.h"
#include "util/log.h"
#include "util/thread.h"

#define PORTS_MAX 16u
#define SPIN_NS	  50000u /* about what a wake-up costs */
#define BLOCK_MS  1000
#define DRAIN_MAX 16 /* completions in a row; a target has none but errors */
#define YIELD	  32 /* turns between two offers of the CPU to others */

static struct {
	pthread_mutex_t lock; /* list, count, stop */
	struct ofi_port *list;
	struct ofi_port *dead; /* closed; freed when the thread looks at them no more */
	unsigned count;
	_Atomic bool poked; /* the list changed, or stop */
	_Atomic uint64_t turns;
	uint64_t told; /* of them, at the last question */
	bool stop, running;
	pthread_t thread;
	int wake;
} ports = {.lock = PTHREAD_MUTEX_INITIALIZER, .wake = -1};

static void wake_thread(void)
{
	uint64_t one = 1;

	atomic_store(&ports.poked, true);
	if (ports.wake >= 0 && write(ports.wake, &one, sizeof(one)) < 0 && errno != EAGAIN)
		LOG_WARN("ofi", "cannot wake the progress thread: errno %d", errno);
}

static void port_progress(struct ofi_port *p)
{
	struct fi_cq_err_entry e;
	struct fi_cq_entry done;

	LOCKED(&p->lock);
	for (int i = 0; i < DRAIN_MAX && !p->closed; i++) {
		ssize_t n = fi_cq_read(p->dom.cq, &done, 1);
		if (n == -FI_EAVAIL) {
			e = (struct fi_cq_err_entry){0};
			if (fi_cq_readerr(p->dom.cq, &e, 0) > 0)
				LOG_DEBUG("ofi", "target: %s", fi_strerror(e.err));
		} else if (n <= 0) {
			return;
		}
	}
}

static bool port_may_sleep(struct ofi_port *p)
{
	LOCKED(&p->lock);
	return p->closed || ofi_domain_may_sleep(&p->dom);
}

static void free_dead(void)
{
	while (ports.dead) {
		struct ofi_port *p = ports.dead;
		ports.dead = p->next;
		pthread_mutex_destroy(&p->lock);
		free(p);
	}
}

/* All ports' descriptors, and the wake-up's as the first. */
static unsigned snapshot(struct ofi_port *at[PORTS_MAX], struct pollfd fds[PORTS_MAX + 1])
{
	unsigned n = 0;

	fds[0] = (struct pollfd){.fd = ports.wake, .events = POLLIN};
	LOCKED(&ports.lock);
	free_dead();
	for (struct ofi_port *p = ports.list; p && n < PORTS_MAX; p = p->next) {
		at[n++] = p;
		fds[n] = (struct pollfd){.fd = p->dom.wait_fd, .events = POLLIN};
	}
	return n;
}

static bool stopping(void)
{
	LOCKED(&ports.lock);
	return ports.stop;
}

/* Sleep until something comes, if nothing has by now. */
static void doze(struct ofi_port *const at[], struct pollfd fds[], unsigned n)
{
	uint64_t word;

	for (unsigned i = 0; i < n; i++) {
		if (!port_may_sleep(at[i]))
			return;
	}
	if (poll(fds, n + 1, BLOCK_MS) > 0 && (fds[0].revents & POLLIN) &&
	    read(ports.wake, &word, sizeof(word)) < 0 && errno != EAGAIN)
		LOG_WARN("ofi", "progress thread: errno %d", errno);
}

static void *serve(void *arg)
{
	static struct pollfd fds[PORTS_MAX + 1]; /* there is one such thread */
	static struct ofi_port *at[PORTS_MAX];
	uint64_t active = clock_ns(), before = active, shortest = UINT64_MAX;
	uint64_t turns = atomic_load(&ports.turns);
	unsigned n = snapshot(at, fds);

	(void)arg;
	for (unsigned turn = 1;; turn++) {
		if (atomic_exchange(&ports.poked, false)) {
			if (stopping())
				return NULL;
			n = snapshot(at, fds);
			shortest = UINT64_MAX;
		}
		for (unsigned i = 0; i < n; i++)
			port_progress(at[i]);
		atomic_store_explicit(&ports.turns, turns++, memory_order_relaxed);
		uint64_t now = clock_ns();
		uint64_t took = now - before;
		before = now;
		if (took < shortest)
			shortest = took;
		if (took > 3 * shortest)
			active = now;
		if (now - active > SPIN_NS)
			doze(at, fds, n);
		else if (turn % YIELD == 0)
			sched_yield();
		else
			continue;
		before = clock_ns();
		if (now - active > SPIN_NS)
			active = before;
	}
}

static int32_t start_thread(void)
{
	if (ports.running)
		return SMEM_OK;
	ports.wake = fd_own(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
	if (ports.wake < 0)
		return smem_errno(SMEM_NEW_OBJECT_FAILED, errno, "eventfd");
	ports.stop = false;
	int32_t r = thread_start(&ports.thread, "smem-rma", serve, NULL);
	if (r != SMEM_OK)
		fd_close(&ports.wake);
	ports.running = r == SMEM_OK;
	return r;
}

static int32_t port_new(const struct ofi_offer *offer, struct ofi_port **ret)
{
	if (ports.count == PORTS_MAX)
		return smem_err(SMEM_NEW_OBJECT_FAILED, "more than %u ports in use", PORTS_MAX);
	struct ofi_port *p = calloc(1, sizeof(*p));
	if (!p)
		return smem_err(SMEM_MALLOC_FAILED, "port");
	pthread_mutex_init(&p->lock, NULL);
	int32_t r = ofi_domain_open(offer, &p->dom);
	if (r == SMEM_OK)
		r = start_thread();
	if (r != SMEM_OK) {
		ofi_domain_close(&p->dom);
		free(p);
		return r;
	}
	p->single = strstr(offer->provider, "ofi_rxm") != NULL;
	pthread_mutex_lock(&ports.lock);
	p->next = ports.list;
	ports.list = p;
	ports.count++;
	pthread_mutex_unlock(&ports.lock);
	wake_thread();
	*ret = p;
	return SMEM_OK;
}

int32_t ofi_port_get(const struct ofi_offer *offer, struct ofi_port **ret)
{
	for (struct ofi_port *p = ports.list; p; p = p->next) {
		if (p->dom.offer == offer && !p->single) {
			*ret = p;
			return SMEM_OK;
		}
	}
	return port_new(offer, ret);
}

void ofi_port_put(struct ofi_port *p, struct ofi_ep *ep, struct fid_mr *mr)
{
	pthread_mutex_lock(&p->lock);
	if (mr)
		fi_close(&mr->fid);
	ofi_ep_close(ep);
	if (p->single)
		ofi_domain_close(&p->dom);
	p->closed = p->single;
	pthread_mutex_unlock(&p->lock);
	if (!p->single)
		return;
	pthread_mutex_lock(&ports.lock);
	LL_DELETE(ports.list, p);
	LL_PREPEND(ports.dead, p);
	ports.count--;
	pthread_mutex_unlock(&ports.lock);
	wake_thread();
}

uint64_t ofi_ports_turns(void)
{
	uint64_t turns = atomic_load(&ports.turns);

	if (turns == ports.told && ports.running)
		wake_thread();
	ports.told = turns;
	return turns;
}

void ofi_ports_stop(void)
{
	if (ports.running) {
		pthread_mutex_lock(&ports.lock);
		ports.stop = true;
		pthread_mutex_unlock(&ports.lock);
		wake_thread();
		pthread_join(ports.thread, NULL);
		fd_close(&ports.wake);
		ports.running = false;
	}
	while (ports.list) {
		struct ofi_port *p = ports.list;
		ofi_domain_close(&p->dom);
		LL_DELETE(ports.list, p);
		LL_PREPEND(ports.dead, p);
	}
	free_dead();
	ports.count = 0;
}

void ofi_ports_forget(void)
{
	pthread_mutex_init(&ports.lock, NULL);
	ports.list = ports.dead = NULL;
	ports.count = 0;
	ports.running = false;
	ports.wake = -1;
}
