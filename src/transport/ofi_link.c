/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A link's life: what its control connection says, whose turn it is to set it up, and taking it
 * down. It breaks when the control connection ends (the peer's process or host is gone, or it cut
 * us off), when an operation fails, when nothing moves any more (ofi_watch.c), or when it is
 * abandoned. Whoever leads next takes it down.
 */
#include "transport/ofi_link.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <utlist.h>

#include "transport/ofi_fds.h"
#include "util/cleanup.h"
#include "util/err.h"
#include "util/fd.h"
#include "util/log.h"
#include "util/loop.h"
#include "util/rng.h"

static void link_wake(struct ofi_link *l)
{
	uint64_t one = 1;

	pthread_cond_broadcast(&l->cond);
	if (l->sleeping && write(l->wake, &one, sizeof(one)) < 0 && errno != EAGAIN)
		LOG_WARN("ofi", "%s: cannot wake: errno %d", l->name, errno);
}

void ofi_link_break(struct ofi_link *l, const char *why)
{
	if (!l->broken)
		snprintf(l->why, sizeof(l->why), "%s", why);
	l->broken = true;
	link_wake(l);
}

void ofi_link_lead(struct ofi_link *l)
{
	l->led = true;
}

void ofi_link_unlead(struct ofi_link *l)
{
	l->led = false;
	pthread_cond_broadcast(&l->cond);
}

static void send_revoked(struct ofi_link *l, uint64_t id)
{
	struct ofi_id body = {.id = id};

	/* Not sent for want of memory: the peer cuts us off in time. */
	if (l->ctl && ofi_ctl_post(l->ctl, OFI_REVOKED, &body) != SMEM_OK)
		LOG_WARN("ofi", "%s: %s", l->name, err_detail());
}

void ofi_link_key_done(struct ofi_link *l, struct ofi_key *key)
{
	if (--key->inflight > 0 || !key->revoked)
		return;
	send_revoked(l, key->id);
	ofi_keys_remove(&l->keys, key);
}

static void on_region(struct ofi_link *l, const struct ofi_region *m)
{
	struct link_ask *ask;

	LL_SEARCH_SCALAR(l->asks, ask, seq, m->seq);
	int32_t r = m->result;
	if (r == SMEM_OK) {
		struct ofi_key key = {
		    .id = m->id,
		    .begin = m->begin,
		    .end = m->end,
		    .rma = m->rma,
		    .key = ofi_mask(l->secret, sizeof(l->secret), &l->nonces, m->id, m->key),
		    .writable = m->writable != 0,
		};
		r = key.end > key.begin ? ofi_keys_add(&l->keys, &key) : SMEM_IO;
	}
	if (ask) {
		ask->result = r;
		ask->done = true;
	}
}

static void on_revoke(struct ofi_link *l, uint64_t id)
{
	struct ofi_key *key = ofi_keys_by_id(&l->keys, id);

	if (key && key->inflight > 0) {
		key->revoked = true;
		return;
	}
	if (key)
		ofi_keys_remove(&l->keys, key);
	send_revoked(l, id);
}

static void on_msg(void *arg, const struct ofi_msg *m)
{
	struct ofi_link *l = arg;

	LOCKED(&l->lock);
	switch (m->head.type) {
	case OFI_CHALLENGE:
		l->challenge = m->challenge;
		l->have_challenge = true;
		ofi_ctl_local(l->ctl, &l->local);
		break;
	case OFI_READY:
		l->ready = m->ready;
		l->have_ready = true;
		break;
	case OFI_REGION:
		on_region(l, &m->region);
		break;
	case OFI_REVOKE:
		on_revoke(l, m->id.id);
		break;
	case OFI_PONG:
		if (m->pulse.sent_ns == 0)
			return;
		l->pong = m->pulse;
		l->pong_ns = clock_ns();
		return; /* whoever asked looks now and then */
	case OFI_CUT_DONE:
		l->have_cut = true;
		break;
	default:
		break;
	}
	link_wake(l);
}

static void on_up(void *arg)
{
	struct ofi_link *l = arg;

	LOCKED(&l->lock);
	l->have_up = true;
	link_wake(l);
}

static void on_end(void *arg, int err)
{
	struct ofi_link *l = arg;
	char why[OFI_TEXT];

	LOCKED(&l->lock);
	l->ended = true;
	l->end_err = err;
	snprintf(why, sizeof(why), "control connection: %s", err ? strerror(err) : "end of file");
	ofi_link_break(l, why);
}

struct start {
	struct ofi_link *l;
	const struct sockaddr *to;
	socklen_t len;
	int32_t r;
};

static void start_on_loop(void *arg)
{
	static const struct ofi_ctl_ops ops = {.up = on_up, .msg = on_msg, .end = on_end};
	struct start *s = arg;
	struct ofi_ctl *ctl = NULL;

	s->r = ofi_ctl_connect(s->l->process->loop, s->to, s->len, s->l->process->silence_ms, &ops,
			       s->l, &ctl);
	LOCKED(&s->l->lock);
	s->l->ctl = ctl;
}

int32_t ofi_link_call(struct ofi_link *l, const struct sockaddr *to, socklen_t len)
{
	struct start s = {.l = l, .to = to, .len = len};

	loop_call(l->process->loop, start_on_loop, &s);
	return s.r;
}

static void stop_on_loop(void *arg)
{
	ofi_ctl_free(arg);
}

void ofi_link_hang_up(struct ofi_link *l)
{
	pthread_mutex_lock(&l->lock);
	struct ofi_ctl *ctl = take_ptr(&l->ctl);
	pthread_mutex_unlock(&l->lock);
	loop_call(l->process->loop, stop_on_loop, ctl);
	LOCKED(&l->lock);
	l->ended = false;
	l->end_err = 0;
	l->broken = false;
	l->have_up = l->have_challenge = l->have_ready = l->have_cut = false;
	ofi_keys_clear(&l->keys);
}

bool ofi_link_wait(struct ofi_link *l, const bool *flag, struct deadline deadline)
{
	struct timespec until = deadline_timespec(deadline);
	int err = 0;

	LOCKED(&l->lock);
	while (!*flag && !l->ended && !l->abandoned && err == 0)
		err = pthread_cond_clockwait(&l->cond, &l->lock, CLOCK_MONOTONIC, &until);
	return *flag;
}

/* With the lead and the lock. */
static int32_t ready_lead(struct ofi_link *l, struct deadline deadline)
{
	pthread_mutex_unlock(&l->lock);
	if (l->up)
		ofi_link_down(l);
	int32_t r = ofi_link_dial(l, deadline);
	pthread_mutex_lock(&l->lock);
	if (r != SMEM_OK) {
		l->tried_ns = clock_ns();
		l->tried_code = r;
		snprintf(l->tried_text, sizeof(l->tried_text), "%s", err_detail());
	}
	return r;
}

int32_t ofi_link_ready(struct ofi_link *l, struct deadline deadline)
{
	while (!l->up || l->broken) {
		if (l->abandoned)
			return smem_err(SMEM_PEER_LOST, "it is gone");
		if (l->led) {
			pthread_cond_wait(&l->cond, &l->lock);
			/* Whoever waited shares the outcome, or n threads would fail one after
			 * the other. */
			if (l->tried_ns > deadline.start && (!l->up || l->broken) && !l->led)
				return smem_err(l->tried_code, "%s", l->tried_text);
			continue;
		}
		ofi_link_lead(l);
		int32_t r = ready_lead(l, deadline);
		ofi_link_unlead(l);
		if (r != SMEM_OK)
			return r;
	}
	return l->abandoned ? smem_err(SMEM_PEER_LOST, "it is gone") : SMEM_OK;
}

static bool means_silent(int err)
{
	return err == ETIMEDOUT || err == EHOSTUNREACH || err == ENETUNREACH || err == ENETDOWN;
}

bool ofi_link_silent(const struct ofi_link *l)
{
	return l->ended && means_silent(l->end_err);
}

/*
 * Ask the peer to close its end and wait until it did, or until it was silent for long enough. A
 * control connection that the peer closed says the same as its answer; one that this kernel gave up
 * says nothing.
 */
static void fence(struct ofi_link *l)
{
	uint32_t silence = l->process->silence_ms;
	struct ofi_id none = {0};
	int err = 0;

	LOCKED(&l->lock);
	if (!l->ctl)
		return;
	uint32_t heard = ofi_ctl_heard_ms(l->ctl, NULL);
	struct deadline rest = deadline_in_ms(heard < silence ? silence - heard : 0);
	struct timespec until = deadline_timespec(rest);
	if (!l->ended && ofi_ctl_post(l->ctl, OFI_CUT, &none) != SMEM_OK)
		LOG_WARN("ofi", "%s: %s", l->name, err_detail());
	while (!l->have_cut && err == 0 && (!l->ended || ofi_link_silent(l)))
		err = pthread_cond_clockwait(&l->cond, &l->lock, CLOCK_MONOTONIC, &until);
}

void ofi_link_down(struct ofi_link *l)
{
	ofi_local_enter(&l->memory);
	ofi_ep_close(&l->ep);
	ofi_local_leave(&l->memory);
	fence(l);
	pthread_mutex_lock(&l->lock);
	l->silent = l->ended ? ofi_link_silent(l) : !l->have_cut;
	l->up = false;
	ofi_jobs_cut(l);
	pthread_mutex_unlock(&l->lock);
	ofi_local_stop(&l->memory);
	ofi_domain_close(&l->dom);
	ofi_link_hang_up(l);
}

int32_t ofi_link_ask(struct ofi_link *l, uint64_t addr, bool writable)
{
	struct link_ask ask = {.seq = ++l->seq};
	struct ofi_resolve q = {.seq = ask.seq, .addr = addr};

	if (!l->ctl || l->broken)
		return smem_err(SMEM_UNREACHABLE, "%s", l->why);
	ofi_code(l->secret, sizeof(l->secret), "open", &l->nonces, addr, q.code);
	int32_t r = ofi_ctl_post(l->ctl, OFI_RESOLVE, &q);
	if (r != SMEM_OK)
		return r;
	LL_PREPEND(l->asks, &ask);
	while (!ask.done && !l->broken)
		pthread_cond_wait(&l->cond, &l->lock);
	LL_DELETE(l->asks, &ask);
	if (!ask.done)
		return smem_err(SMEM_UNREACHABLE, "%s", l->why);
	if (ask.result != SMEM_OK)
		return smem_err(ask.result, "%s does not expose 0x%" PRIx64, l->name, addr);
	if (writable && !ofi_keys_find(&l->keys, addr, true))
		return smem_err(SMEM_IO, "%s exposes 0x%" PRIx64 " for reading only", l->name,
				addr);
	return SMEM_OK;
}

int32_t ofi_link_new(const struct ofi_process *process, const struct transport_peer *peer,
		     struct ofi_link **ret)
{
	struct ofi_link *l = calloc(1, sizeof(*l));

	if (!l)
		return smem_err(SMEM_MALLOC_FAILED, "link to %s", peer->name);
	l->base.ops = &transport_ofi;
	l->process = process;
	l->wake = -1;
	l->dom.wait_fd = -1;
	snprintf(l->name, sizeof(l->name), "%s", peer->name);
	memcpy(l->secret, peer->secret, sizeof(l->secret));
	pthread_mutex_init(&l->lock, NULL);
	pthread_cond_init(&l->cond, NULL);
	ofi_local_init(&l->memory);
	if (!ofi_card_parse(peer->addr, peer->addr_len, &l->card)) {
		free(l);
		return smem_err(SMEM_UNREACHABLE, "%s has no address of this version", peer->name);
	}
	l->wake = fd_own(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
	if (l->wake < 0) {
		free(l);
		return smem_errno(SMEM_NEW_OBJECT_FAILED, errno, "eventfd");
	}
	*ret = l;
	return SMEM_OK;
}

void ofi_link_free(struct ofi_link *l)
{
	/* Nothing is in flight, so nothing has to be fenced: the peer closes its side on the end of
	 * the control connection. */
	ofi_local_enter(&l->memory);
	ofi_ep_close(&l->ep);
	ofi_local_leave(&l->memory);
	ofi_local_destroy(&l->memory);
	ofi_domain_close(&l->dom);
	ofi_link_hang_up(l);
	for (size_t i = 0; i < OFI_OPS; i++)
		free(l->op[i].stage);
	fd_close(&l->wake);
	pthread_mutex_destroy(&l->lock);
	pthread_cond_destroy(&l->cond);
	free(l);
}
