/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Work comes in through a list and an eventfd that is an event like any other. Parking for a fork
 * is posted work too: it says "parked" and waits for the parent to go on, so that the thread stands
 * between two callbacks and nothing it owns is half changed when the child forgets it.
 *
 * In the child the base is rebuilt (event_reinit: the epoll instance is shared with the parent and
 * must not be changed through the child's copy of the descriptor) and freed; sockets are closed by
 * util/fd. Bufferevents stay behind as unreachable memory on purpose: freeing a TLS one would speak
 * to the peer.
 */
#include "util/loop.h"

#include <errno.h>
#include <event2/event.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "util/cleanup.h"
#include "util/clock.h"
#include "util/err.h"
#include "util/fork.h"
#include "util/log.h"
#include "util/thread.h"

struct work {
	void (*fn)(void *arg);
	void *arg;
	struct work *next;
};

struct loop {
	pthread_t thread;
	struct event_base *base;
	struct event *wake;
	int wake_fd;
	struct loop *next; /* in `loops` */
	pthread_mutex_t lock;
	struct work *head;
	struct work **tail;
	bool stop;
	bool parked; /* under park_lock */
};

static pthread_mutex_t loops_lock = PTHREAD_MUTEX_INITIALIZER; /* `loops` and the shared loop */
static struct loop *loops;
static struct loop *io_loop;
static unsigned io_refs;

static __thread struct loop *my_loop __attribute__((tls_model("initial-exec")));

struct event_base *loop_base(struct loop *loop)
{
	return loop->base;
}

bool loop_inside(const struct loop *loop)
{
	return my_loop == loop;
}

static void run_posted(evutil_socket_t fd, short what, void *arg)
{
	struct loop *loop = arg;
	uint64_t count;

	(void)what;
	if (read(fd, &count, sizeof(count)) < 0 && errno != EAGAIN && errno != EINTR)
		LOG_WARN("loop", "eventfd read: errno %d", errno);
	pthread_mutex_lock(&loop->lock);
	struct work *w = loop->head;
	loop->head = NULL;
	loop->tail = &loop->head;
	bool stop = loop->stop;
	pthread_mutex_unlock(&loop->lock);
	while (w) {
		struct work *next = w->next;
		w->fn(w->arg);
		free(w);
		w = next;
	}
	if (stop)
		event_base_loopbreak(loop->base);
}

static void *run(void *arg)
{
	struct loop *loop = arg;

	my_loop = loop;
	event_base_loop(loop->base, EVLOOP_NO_EXIT_ON_EMPTY);
	run_posted(loop->wake_fd, 0, loop);
	return NULL;
}

static void wake(struct loop *loop)
{
	uint64_t one = 1;

	/* EAGAIN means the counter is full, so the loop is awake already. */
	while (write(loop->wake_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

static void loop_free(struct loop *loop)
{
	if (!loop)
		return;
	if (loop->wake)
		event_free(loop->wake);
	if (loop->base)
		event_base_free(loop->base);
	fd_close(&loop->wake_fd);
	pthread_mutex_destroy(&loop->lock);
	free(loop);
}

static int32_t loop_build(struct loop *loop)
{
	loop->wake_fd = fd_own(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
	if (loop->wake_fd < 0)
		return smem_errno(SMEM_NEW_OBJECT_FAILED, errno, "eventfd");
	struct event_config *config = event_config_new();
	if (!config)
		return smem_err(SMEM_MALLOC_FAILED, "event loop");
	event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK);
	loop->base = event_base_new_with_config(config);
	event_config_free(config);
	if (!loop->base)
		return smem_errno(SMEM_NEW_OBJECT_FAILED, errno, "event loop");
	loop->wake = event_new(loop->base, loop->wake_fd, EV_READ | EV_PERSIST, run_posted, loop);
	if (!loop->wake || event_add(loop->wake, NULL) != 0)
		return smem_err(SMEM_MALLOC_FAILED, "event loop");
	return SMEM_OK;
}

static void loops_link(struct loop *loop)
{
	loop->next = loops;
	loops = loop;
}

static int32_t loop_create_locked(const char *name, struct loop **ret)
{
	struct loop *loop = calloc(1, sizeof(*loop));

	if (!loop)
		return smem_err(SMEM_MALLOC_FAILED, "event loop %s", name);
	loop->wake_fd = -1;
	loop->tail = &loop->head;
	pthread_mutex_init(&loop->lock, NULL);
	int32_t r = loop_build(loop);
	if (r == SMEM_OK)
		r = thread_start(&loop->thread, name, run, loop);
	if (r != SMEM_OK) {
		loop_free(loop);
		return r;
	}
	loops_link(loop);
	*ret = loop;
	return SMEM_OK;
}

int32_t loop_create(const char *name, struct loop **ret)
{
	LOCKED(&loops_lock);
	return loop_create_locked(name, ret);
}

/* False when the loop is not of this process any more (a child after fork). */
static bool loops_unlink(struct loop *loop)
{
	for (struct loop **p = &loops; *p; p = &(*p)->next) {
		if (*p == loop) {
			*p = loop->next;
			return true;
		}
	}
	return false;
}

static void loop_stop(struct loop *loop)
{
	pthread_mutex_lock(&loop->lock);
	loop->stop = true;
	pthread_mutex_unlock(&loop->lock);
	wake(loop);
	pthread_join(loop->thread, NULL);
	loop_free(loop);
}

void loop_destroy(struct loop *loop)
{
	if (!loop)
		return;
	pthread_mutex_lock(&loops_lock);
	bool ours = loops_unlink(loop);
	pthread_mutex_unlock(&loops_lock);
	if (ours)
		loop_stop(loop);
}

int32_t loop_post(struct loop *loop, void (*fn)(void *arg), void *arg)
{
	struct work *w = malloc(sizeof(*w));

	if (!w)
		return smem_err(SMEM_MALLOC_FAILED, "event loop work");
	*w = (struct work){.fn = fn, .arg = arg};
	pthread_mutex_lock(&loop->lock);
	*loop->tail = w;
	loop->tail = &w->next;
	pthread_mutex_unlock(&loop->lock);
	wake(loop);
	return SMEM_OK;
}

struct call {
	void (*fn)(void *arg);
	void *arg;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool done;
};

static void call_run(void *arg)
{
	struct call *c = arg;

	c->fn(c->arg);
	pthread_mutex_lock(&c->lock);
	c->done = true;
	pthread_cond_signal(&c->cond);
	pthread_mutex_unlock(&c->lock);
}

void loop_call(struct loop *loop, void (*fn)(void *arg), void *arg)
{
	if (loop_inside(loop)) {
		fn(arg);
		return;
	}
	struct call c = {.fn = fn,
			 .arg = arg,
			 .lock = PTHREAD_MUTEX_INITIALIZER,
			 .cond = PTHREAD_COND_INITIALIZER};
	while (loop_post(loop, call_run, &c) != SMEM_OK)
		sched_yield(); /* a few bytes of heap; a destructor cannot give up */
	pthread_mutex_lock(&c.lock);
	while (!c.done)
		pthread_cond_wait(&c.cond, &c.lock);
	pthread_mutex_unlock(&c.lock);
}

int32_t loop_io_get(struct loop **ret)
{
	LOCKED(&loops_lock);
	if (!io_loop) {
		int32_t r = loop_create_locked("smem-io", &io_loop);
		if (r != SMEM_OK)
			return r;
	}
	io_refs++;
	*ret = io_loop;
	return SMEM_OK;
}

void loop_io_put(struct loop *loop)
{
	struct loop *last = NULL;

	if (!loop)
		return;
	pthread_mutex_lock(&loops_lock);
	if (loop == io_loop && --io_refs == 0) {
		last = io_loop;
		io_loop = NULL;
		loops_unlink(last);
	}
	pthread_mutex_unlock(&loops_lock);
	if (last)
		loop_stop(last);
}

/* Fork: the parking place. Under loops_lock from prepare to parent/child. */
static pthread_mutex_t park_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t park_cond = PTHREAD_COND_INITIALIZER;
static unsigned parked;
static bool forking;

#define PARK_MS                                                                                    \
	1000 /* a callback that takes longer is stuck in the user's logger; then the base is only  \
		leaked */

static void park(void *arg)
{
	struct loop *loop = arg;

	pthread_mutex_lock(&park_lock);
	loop->parked = forking;
	parked++;
	pthread_cond_broadcast(&park_cond);
	while (forking)
		pthread_cond_wait(&park_cond, &park_lock);
	loop->parked = false;
	parked--;
	pthread_cond_broadcast(&park_cond);
	pthread_mutex_unlock(&park_lock);
}

static void park_wait(unsigned want)
{
	struct deadline deadline = deadline_in_ms(PARK_MS);
	struct timespec until = deadline_timespec(deadline);

	while (parked < want && !deadline_passed(deadline))
		pthread_cond_clockwait(&park_cond, &park_lock, CLOCK_MONOTONIC, &until);
}

static void fork_prepare(void)
{
	unsigned want = 0;

	pthread_mutex_lock(&loops_lock);
	pthread_mutex_lock(&park_lock);
	forking = true;
	for (struct loop *l = loops; l; l = l->next) {
		if (!loop_inside(l) && loop_post(l, park, l) == SMEM_OK)
			want++;
	}
	park_wait(want);
}

static void fork_parent(void)
{
	forking = false;
	pthread_cond_broadcast(&park_cond);
	pthread_mutex_unlock(&park_lock);
	pthread_mutex_unlock(&loops_lock);
}

static void fork_child(void)
{
	for (struct loop *l = loops; l; l = l->next) {
		if (!l->parked)
			continue;
		event_reinit(l->base);
		event_base_free(l->base);
		l->base = NULL;
	}
	loops = NULL;
	io_loop = NULL;
	io_refs = 0;
	parked = 0;
	forking = false;
	my_loop = NULL;
	pthread_cond_init(&park_cond, NULL);
	/* This thread took them in fork_prepare(). */
	pthread_mutex_unlock(&park_lock);
	pthread_mutex_unlock(&loops_lock);
}

static const struct fork_hooks hooks = {
    .order = FORK_ORDER_LOOP,
    .prepare = fork_prepare,
    .parent = fork_parent,
    .child = fork_child,
};
FORK_HOOKS(hooks)
