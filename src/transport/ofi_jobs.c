/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Moving bytes. A call is a job: a walk over its pieces that is cut into operations of at most
 * a chunk of bytes and a few segments each. Neighbours on both sides are one segment. Every
 * operation asks for a completion of its own and for delivery at the target: with four segments an
 * operation that costs nothing measurable, and it leans on no provider's ordering.
 *
 * A chunk is a few MiB, so that a small copy does not wait behind a large one; that is all there is
 * to it with hardware, and with TCP that is controlled by loss (cubic). With BBR operations of
 * 512 KiB are twice as fast: 16 MiB took 3.2 ms instead of 6.6, and never longer, while with cubic
 * they took up to a quarter longer than 4 MiB ones. What was seen is that BBR keeps some hundred
 * KiB in flight on a short way, with megabytes waiting at the receiver; the likely cause, not
 * proven, is that the peer's kernel acknowledges nothing while the provider copies one operation
 * out of a socket, so that the sender stalls within large operations and not between small ones.
 *
 * Of the threads that have jobs on a link one leads: it posts operations of all jobs in turn and
 * takes completions until its own job is done, then the next leads. It spins for about as long as a
 * wake-up costs and then sleeps on the queue's descriptor; the others sleep on the condition.
 *
 * A job ends by its last completion, by a failure of its own (a region withdrawn), or cut with the
 * link: then the call sets the link up again and starts over, which is sound because the cut is
 * final on both sides and writing the same bytes again changes nothing. It gives up when the peer
 * is gone or silent, when the link does not come back within the silence time, when nothing moves
 * on a new connection as on the one before, or when operations fail again and again on a link that
 * is otherwise well.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <utlist.h>

#include "transport/ofi_job.h"
#include "transport/ofi_link.h"
#include "util/cleanup.h"
#include "util/err.h"
#include "util/log.h"

#define SPIN_NS	 50000u
#define REAP_MAX 16
#define YIELD	 32 /* turns between two offers of the CPU to others */
#define ATTEMPTS 3  /* of operations that fail on a link that is well */

static bool has_work(const struct link_job *job)
{
	return job->at.i < job->n && !job->wants && job->status == SMEM_OK;
}

static void job_check(struct ofi_link *l, struct link_job *job)
{
	if (job->done || job->outstanding > 0)
		return;
	if (job->status == SMEM_OK && job->at.i < job->n)
		return;
	job->done = true;
	DL_DELETE(l->jobs, job);
	pthread_cond_broadcast(&l->cond);
}

/* Add a stretch to the operation; how much of it was taken. */
static size_t op_add(struct ofi_link *l, struct link_op *op, struct piece p, struct ofi_key *key)
{
	uint64_t rma = key->rma + (p.remote - key->begin);
	size_t len = p.len;

	if (len > l->chunk - op->bytes)
		len = l->chunk - op->bytes;
	if (len > key->end - p.remote)
		len = key->end - p.remote;
	if (op->n > 0) {
		struct iovec *io = &op->local[op->n - 1];
		struct fi_rma_iov *at = &op->remote[op->n - 1];
		if (op->key[op->n - 1] == key && at->addr + at->len == rma &&
		    (char *)io->iov_base + io->iov_len == p.local) {
			io->iov_len += len;
			at->len += len;
			op->bytes += len;
			return len;
		}
	}
	if (op->n == l->segments)
		return 0;
	op->local[op->n] = (struct iovec){.iov_base = p.local, .iov_len = len};
	op->remote[op->n] = (struct fi_rma_iov){.addr = rma, .len = len, .key = key->key};
	op->key[op->n] = key;
	op->reg[op->n] = NULL;
	op->desc[op->n] = NULL;
	op->n++;
	op->bytes += len;
	key->inflight++;
	return len;
}

/* Fill an operation from the job's cursor on; false: nothing to post. The lock is held. */
static bool op_fill(struct ofi_link *l, struct link_op *op, struct link_job *job)
{
	struct cursor at = job->at;

	op->n = 0;
	op->bytes = 0;
	op->pieces = 0;
	while (at.i < job->n && op->bytes < l->chunk) {
		struct piece p = piece_at(job, at);
		struct ofi_key *key = ofi_keys_find(&l->keys, p.remote, job->put);
		if (!key && op->n == 0) {
			job->wants = true;
			job->address = p.remote;
			pthread_cond_broadcast(&l->cond);
		}
		if (key && op->n == 0 && ofi_stage_fill(l, op, job, key, &at))
			break;
		size_t took = key ? op_add(l, op, p, key) : 0;
		if (took == 0)
			break;
		at = step(job, at, took);
	}
	if (op->n == 0)
		return false;
	op->job = job;
	job->at = at;
	job->outstanding++;
	l->inflight += op->bytes;
	return true;
}

/* The operation is over, or was never posted. The lock is held. */
static void op_release(struct ofi_link *l, struct link_op *op)
{
	for (unsigned i = 0; i < op->n; i++) {
		if (op->reg[i]) {
			ofi_local_enter(&l->memory);
			ofi_local_put(&l->memory, op->reg[i]);
			ofi_local_leave(&l->memory);
		}
		ofi_link_key_done(l, op->key[i]);
	}
	l->inflight -= op->bytes;
	op->job->outstanding--;
	op->job = NULL;
	LL_PREPEND2(l->free_ops, op, next_free);
}

static int32_t op_register(struct ofi_link *l, struct link_op *op)
{
	uint64_t access = op->job->put ? FI_WRITE : FI_READ;

	for (unsigned i = 0; i < op->n; i++) {
		int32_t r = ofi_local_get(&l->memory, op->local[i].iov_base, op->local[i].iov_len,
					  access, &op->reg[i]);
		if (r != SMEM_OK)
			return r;
		op->desc[i] = op->reg[i]->desc;
	}
	return SMEM_OK;
}

static ssize_t op_post(struct ofi_link *l, struct link_op *op)
{
	bool put = op->job->put;
	struct fi_msg_rma m = {
	    .msg_iov = op->local,
	    .desc = op->desc,
	    .iov_count = op->n,
	    .addr = l->peer,
	    .rma_iov = op->remote,
	    .rma_iov_count = op->n,
	    .context = &op->context,
	};

	ssize_t r = 0;
	ofi_local_enter(&l->memory);
	if (l->memory.on && op_register(l, op) != SMEM_OK)
		r = -FI_ENOMEM;
	else if (put)
		r = fi_writemsg(l->ep.ep, &m, FI_COMPLETION | FI_DELIVERY_COMPLETE);
	else
		r = fi_readmsg(l->ep.ep, &m, FI_COMPLETION);
	ofi_local_leave(&l->memory);
	return r;
}

/* A job with something to post, the next one's turn after it; NULL: none, or no room. */
static struct link_job *next_job(struct ofi_link *l)
{
	struct link_job *job;

	if (!l->free_ops || l->inflight >= OFI_WINDOW)
		return NULL;
	DL_FOREACH(l->jobs, job)
	{
		if (has_work(job))
			break;
	}
	if (job && l->jobs->next) {
		DL_DELETE(l->jobs, job);
		DL_APPEND(l->jobs, job);
	}
	return job;
}

static void link_fault(struct ofi_link *l, const char *what, int64_t err)
{
	char why[OFI_TEXT];

	snprintf(why, sizeof(why), "%s: %s", what, fi_strerror((int)(err < 0 ? -err : err)));
	ofi_link_break(l, why);
}

/* Post what there is room for; the number of operations. The lead, without the lock. */
static unsigned post_some(struct ofi_link *l)
{
	unsigned posted = 0;
	struct link_job *job;
	struct link_op *op;
	struct cursor before;

	pthread_mutex_lock(&l->lock);
	while (!l->broken && (job = next_job(l))) {
		op = l->free_ops;
		LL_DELETE2(l->free_ops, op, next_free);
		before = job->at;
		if (!op_fill(l, op, job)) {
			LL_PREPEND2(l->free_ops, op, next_free);
			continue;
		}
		pthread_mutex_unlock(&l->lock);
		ssize_t r = op_post(l, op);
		pthread_mutex_lock(&l->lock);
		if (r == 0) {
			posted++;
			continue;
		}
		op_release(l, op);
		job->at = before;
		if (r != -FI_EAGAIN)
			link_fault(l, "post", r);
		break;
	}
	pthread_mutex_unlock(&l->lock);
	return posted;
}

static void reap_error(struct ofi_link *l)
{
	struct fi_cq_err_entry e = {0};

	ofi_local_enter(&l->memory);
	ssize_t n = fi_cq_readerr(l->dom.cq, &e, 0);
	ofi_local_leave(&l->memory);
	pthread_mutex_lock(&l->lock);
	link_fault(l, "operation", n > 0 ? e.err : n);
	pthread_mutex_unlock(&l->lock);
}

static unsigned reap(struct ofi_link *l)
{
	struct fi_cq_entry done[REAP_MAX];

	ofi_local_enter(&l->memory);
	ssize_t n = fi_cq_read(l->dom.cq, done, REAP_MAX);
	ofi_local_leave(&l->memory);
	if (n == -FI_EAGAIN || n == 0)
		return 0;
	if (n < 0) {
		reap_error(l);
		return 1;
	}
	pthread_mutex_lock(&l->lock);
	for (ssize_t i = 0; i < n; i++) {
		struct link_op *op = done[i].op_context;
		if (!op || !op->job) /* not asked for */
			continue;
		struct link_job *job = op->job;
		ofi_stage_scatter(op);
		op_release(l, op);
		job_check(l, job);
	}
	pthread_mutex_unlock(&l->lock);
	return (unsigned)n;
}

/* Sleep until the queue has something, or somebody wakes the leader. */
static void doze(struct ofi_link *l)
{
	struct pollfd fds[2] = {{.fd = l->dom.wait_fd, .events = POLLIN},
				{.fd = l->wake, .events = POLLIN}};
	uint64_t word;

	ofi_local_enter(&l->memory);
	bool may = ofi_domain_may_sleep(&l->dom);
	ofi_local_leave(&l->memory);
	if (!may)
		return;
	if (poll(fds, 2, ofi_watch_pause_ms(l)) > 0 && (fds[1].revents & POLLIN) &&
	    read(l->wake, &word, sizeof(word)) < 0 && errno != EAGAIN)
		LOG_WARN("ofi", "%s: errno %d", l->name, errno);
}

/* Break the link if nothing moves or is heard any more. */
static void look(struct ofi_link *l)
{
	uint32_t limit = l->process->silence_ms;
	char why[OFI_TEXT];

	enum ofi_verdict v = ofi_watch_look(l, limit, why);
	if (v == WATCH_FINE)
		return;
	LOCKED(&l->lock);
	l->stuck = v == WATCH_STUCK && !l->broken;
	ofi_link_break(l, why);
}

/* Drive the link until `own` is done or wants something, or the link breaks. */
static void drive(struct ofi_link *l, struct link_job *own)
{
	uint64_t active = clock_ns();
	bool sleep = false;

	ofi_watch_begin(l);
	for (unsigned turn = 1;; turn++) {
		unsigned moved = post_some(l);
		moved += reap(l);
		if (moved > 0) {
			active = clock_ns();
			ofi_watch_moved(&l->watch, active);
		} else if (sleep) {
			doze(l);
			look(l);
		} else if (turn % YIELD == 0) {
			sched_yield();
		}
		pthread_mutex_lock(&l->lock);
		bool over = own->done || own->wants || l->broken;
		/* Said before the next look at everything: what comes after it wakes us. */
		sleep = !over && moved == 0 && clock_ns() - active > SPIN_NS;
		l->sleeping = sleep;
		pthread_mutex_unlock(&l->lock);
		if (over)
			return;
	}
}

void ofi_jobs_cut(struct ofi_link *l)
{
	struct link_job *job, *next;
	struct link_ask *ask;

	for (size_t i = 0; i < OFI_OPS; i++) {
		if (l->op[i].job)
			op_release(l, &l->op[i]);
	}
	DL_FOREACH_SAFE(l->jobs, job, next)
	{
		DL_DELETE(l->jobs, job);
		job->cut = job->done = true;
		job->stuck = l->stuck;
	}
	LL_FOREACH(l->asks, ask)
	{
		ask->result = SMEM_UNREACHABLE;
		ask->done = true;
	}
	pthread_cond_broadcast(&l->cond);
}

/* Run a job to its end. The lock is held, and dropped meanwhile. */
static void job_run(struct ofi_link *l, struct link_job *job)
{
	uint64_t one = 1;

	DL_APPEND(l->jobs, job);
	if (l->sleeping && write(l->wake, &one, sizeof(one)) < 0 && errno != EAGAIN)
		LOG_WARN("ofi", "%s: cannot wake: errno %d", l->name, errno);
	while (!job->done) {
		if (job->wants) {
			int32_t r = ofi_link_ask(l, job->address, job->put);
			job->wants = false;
			if (!job->done && r != SMEM_OK && r != SMEM_UNREACHABLE) {
				job->status = r;
				job_check(l, job);
			}
		}
		if (job->done)
			break;
		if (l->led) {
			pthread_cond_wait(&l->cond, &l->lock);
			continue;
		}
		ofi_link_lead(l);
		pthread_mutex_unlock(&l->lock);
		drive(l, job);
		pthread_mutex_lock(&l->lock);
		if (l->broken) {
			pthread_mutex_unlock(&l->lock);
			ofi_link_down(l);
			pthread_mutex_lock(&l->lock);
		}
		ofi_link_unlead(l);
	}
}

static const char *put_or_get(bool put)
{
	return put ? "write to" : "read from";
}

static int32_t cut_error(struct ofi_link *l, const struct link_job *job, bool lost,
			 struct deadline since)
{
	struct piece p = piece_at(job, (struct cursor){0});

	return smem_err(lost	     ? SMEM_PEER_LOST
			: job->stuck ? SMEM_UNREACHABLE
				     : SMEM_IO,
			"%s %s, 0x%" PRIx64 " + %zu%s: %s, after %" PRIu64 " ms",
			put_or_get(job->put), l->name, p.remote, p.len,
			job->n > 1 ? " and more" : "", l->why, deadline_elapsed_ms(since));
}

/* The link cannot be used: ofi_link_ready() said why, this says for what. */
static int32_t ready_error(struct ofi_link *l, int32_t code, const struct link_job *job,
			   struct deadline since)
{
	struct piece p = piece_at(job, (struct cursor){0});
	char why[400];

	snprintf(why, sizeof(why), "%s", err_detail());
	return smem_err(code, "%s %s, 0x%" PRIx64 " + %zu: %s, after %" PRIu64 " ms",
			put_or_get(job->put), l->name, p.remote, p.len, why,
			deadline_elapsed_ms(since));
}

/* One stretch of the peer's addresses: keys for all of it, asked for where we have none. */
static int32_t cover_range(struct ofi_link *l, uint64_t at, uint64_t end, bool put)
{
	while (at < end) {
		struct ofi_key *key = ofi_keys_find(&l->keys, at, put);
		if (key) {
			at = key->end;
			continue;
		}
		int32_t r = ofi_link_ask(l, at, put);
		if (r == SMEM_STALE || r == SMEM_IO) {
			char why[300];
			snprintf(why, sizeof(why), "%s", err_detail());
			return smem_err(SMEM_INVALID_PARAM,
					"%s %s, 0x%" PRIx64 " + %" PRIu64 ": %s", put_or_get(put),
					l->name, at, end - at, why);
		}
		if (r != SMEM_OK)
			return r;
	}
	return SMEM_OK;
}

/*
 * All of it must be exposed before the first byte moves. What is withdrawn later is SMEM_STALE. The
 * lock is held, and dropped meanwhile. SMEM_UNREACHABLE: the link broke.
 */
static int32_t cover(struct ofi_link *l, const struct smem_xfer *x, size_t n, bool put)
{
	struct link_job job = {.x = x, .n = n, .put = put};
	int32_t r = SMEM_OK;

	for (struct cursor at = {0}; at.i < n && r == SMEM_OK;) {
		struct piece p = piece_at(&job, at);
		size_t pitch = put ? x[at.i].dpitch : x[at.i].spitch;
		uint64_t span =
		    is_plain(&x[at.i]) ? p.len : pitch * (x[at.i].height - 1) + x[at.i].width;
		struct ofi_key *key = ofi_keys_find(&l->keys, p.remote, put);
		if (at.row == 0 && key && key->end - p.remote >= span) {
			at = (struct cursor){.i = at.i + 1}; /* rows and gaps lie in one region */
			continue;
		}
		r = cover_range(l, p.remote, p.remote + p.len, put);
		at = step(&job, at, p.len);
	}
	return r;
}

int32_t ofi_link_move(struct ofi_link *l, const struct smem_xfer *x, size_t n, bool put)
{
	struct deadline since = deadline_in_ms(l->process->silence_ms), limit = since;
	struct link_job job;
	int32_t r = SMEM_OK;
	unsigned stuck = 0;

	pthread_mutex_lock(&l->lock);
	for (unsigned attempt = 1;; attempt++) {
		job = (struct link_job){.x = x, .n = n, .put = put};
		r = ofi_link_ready(l, limit);
		if (r != SMEM_OK) {
			r = ready_error(l, r, &job, since);
			break;
		}
		r = cover(l, x, n, put);
		bool silent = r == SMEM_UNREACHABLE && ofi_link_silent(l);
		if (r == SMEM_OK) {
			job_run(l, &job);
			r = job.status;
			silent = l->silent;
		}
		if (r == SMEM_INVALID_PARAM && attempt > 1) /* it was exposed at first */
			r = smem_err(SMEM_STALE, "%s, withdrawn meanwhile", l->name);
		if (!job.cut && r != SMEM_UNREACHABLE)
			break;
		if (attempt == 1)
			limit = deadline_in_ms(l->process->silence_ms);
		/* A new connection may get through where an old one was forgotten: once. */
		stuck += job.stuck;
		if (l->abandoned || silent || stuck > 1 || attempt == ATTEMPTS ||
		    deadline_passed(limit)) {
			r = cut_error(l, &job, l->abandoned || silent, since);
			break;
		}
	}
	pthread_mutex_unlock(&l->lock);
	return r;
}
