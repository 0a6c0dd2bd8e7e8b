/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Setting a link up, and taking it down.
 *
 * Up: connect to one of the peer's addresses, take its challenge, open an endpoint at the local
 * address that the kernel chose for the way there, say hello with the provider's name, and read the
 * peer's probe through the fabric: only bytes that nobody else can know prove the whole path. A
 * provider that the peer has not makes the next best one's turn.
 *
 * A link breaks when the control connection ends (the peer's process or host is gone, or it cut us
 * off), when an operation fails, or when it is abandoned. Whoever leads next takes it down.
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

#define PROVIDERS_MAX 8u

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
	struct sockaddr_storage to;
	socklen_t len;
	int32_t r;
};

static void start_on_loop(void *arg)
{
	static const struct ofi_ctl_ops ops = {.up = on_up, .msg = on_msg, .end = on_end};
	struct start *s = arg;
	struct ofi_ctl *ctl = NULL;

	s->r = ofi_ctl_connect(s->l->process->loop, (struct sockaddr *)&s->to, s->len,
			       s->l->process->silence_ms, &ops, s->l, &ctl);
	LOCKED(&s->l->lock);
	s->l->ctl = ctl;
}

static void stop_on_loop(void *arg)
{
	ofi_ctl_free(arg);
}

/* The control connection goes, and with it what belongs to it. */
static void ctl_drop(struct ofi_link *l)
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

/* Wait for *flag; false: the connection ended, the link was abandoned or the deadline passed. */
static bool wait_flag(struct ofi_link *l, const bool *flag, struct deadline deadline)
{
	struct timespec until = deadline_timespec(deadline);
	int err = 0;

	LOCKED(&l->lock);
	while (!*flag && !l->ended && err == 0)
		err = pthread_cond_clockwait(&l->cond, &l->lock, CLOCK_MONOTONIC, &until);
	return *flag;
}

static int32_t no_answer(struct ofi_link *l, const char *what, struct deadline deadline)
{
	LOCKED(&l->lock);
	if (l->ended)
		return smem_err(SMEM_UNREACHABLE, "%s: %s", what,
				l->end_err ? strerror(l->end_err) : "connection closed");
	return smem_err(SMEM_UNREACHABLE, "%s: no answer in %" PRIu64 " ms", what,
			deadline_elapsed_ms(deadline));
}

/* The peer's host is there, so its process may take its time: it loads libfabric at its first peer,
 * and so do all others at that moment. */
static struct deadline patience(struct deadline deadline)
{
	struct deadline busy = deadline_in_ms(OFI_BUSY_MS);

	return busy.end > deadline.end ? busy : deadline;
}

static int32_t dial(struct ofi_link *l, const struct ofi_host *host, struct deadline deadline)
{
	struct start s = {.l = l};
	char at[64];

	s.len = ofi_host_get(host, &s.to);
	if (s.len == 0)
		return smem_err(SMEM_UNREACHABLE, "an address of family %u", host->family);
	loop_call(l->process->loop, start_on_loop, &s);
	if (s.r != SMEM_OK)
		return s.r;
	ofi_sockaddr_text((struct sockaddr *)&s.to, true, at, sizeof(at));
	if (!wait_flag(l, &l->have_up, deadline))
		return no_answer(l, at, deadline);
	if (!wait_flag(l, &l->have_challenge, patience(deadline)))
		return no_answer(l, at, deadline);
	LOCKED(&l->lock);
	if (l->challenge.magic != OFI_MAGIC || l->challenge.version != OFI_VERSION)
		return smem_err(SMEM_UNREACHABLE, "%s: not a peer of this version", at);
	if (l->challenge.token != l->card.token) {
		l->end_err = ECONNREFUSED; /* its port has a new owner */
		return smem_err(SMEM_UNREACHABLE, "%s: another process has the address now", at);
	}
	memcpy(l->nonces.target, l->challenge.nonce, sizeof(l->nonces.target));
	return rng_bytes(l->nonces.initiator, sizeof(l->nonces.initiator));
}

static int32_t greet(struct ofi_link *l, const struct ofi_offer *offer, struct deadline deadline)
{
	struct ofi_hello hello = {.addr_len = l->ep.addr_len};
	uint8_t want[OFI_CODE];

	memcpy(hello.nonce, l->nonces.initiator, sizeof(hello.nonce));
	memcpy(hello.provider, offer->provider, sizeof(hello.provider));
	memcpy(hello.addr, l->ep.addr, sizeof(hello.addr));
	ofi_code(l->card.key, sizeof(l->card.key), "hello", &l->nonces, 0, hello.code);
	int32_t r = ofi_ctl_post(l->ctl, OFI_HELLO, &hello);
	if (r != SMEM_OK)
		return r;
	if (!wait_flag(l, &l->have_ready, patience(deadline)))
		return no_answer(l, "hello", deadline);
	ofi_code(l->card.key, sizeof(l->card.key), "ready", &l->nonces, 0, want);
	if (!ofi_code_equal(want, l->ready.code) || l->ready.addr_len > OFI_EP_ADDR)
		return smem_err(SMEM_UNREACHABLE, "the peer does not know its own key");
	l->ready.text[OFI_TEXT - 1] = '\0';
	if (l->ready.result != SMEM_OK)
		return smem_err(l->ready.result, "the peer refuses: %s", l->ready.text);
	if (fi_av_insert(l->dom.av, l->ready.addr, 1, &l->peer, 0, NULL) != 1)
		return smem_err(SMEM_UNREACHABLE, "fi_av_insert refuses the peer's endpoint");
	return SMEM_OK;
}

static bool link_ended(struct ofi_link *l)
{
	LOCKED(&l->lock);
	return l->ended;
}

/* Wait for the one read in flight. */
static int32_t probe_wait(struct ofi_link *l, struct deadline deadline)
{
	struct fi_cq_err_entry e = {0};
	struct fi_cq_entry done;

	for (;;) {
		ssize_t n = fi_cq_read(l->dom.cq, &done, 1);
		if (n == 1)
			return SMEM_OK;
		if (n == -FI_EAVAIL && fi_cq_readerr(l->dom.cq, &e, 0) > 0)
			return ofi_err(SMEM_UNREACHABLE, e.err, "read of the peer's probe");
		if (n < 0 && n != -FI_EAGAIN && n != -FI_EAVAIL)
			return ofi_err(SMEM_UNREACHABLE, n, "fi_cq_read");
		if (link_ended(l) || deadline_passed(deadline))
			return no_answer(l, "read of the peer's probe", deadline);
		sched_yield();
	}
}

static int32_t probe(struct ofi_link *l, struct deadline deadline)
{
	uint64_t key =
	    ofi_mask(l->card.key, sizeof(l->card.key), &l->nonces, 0, l->ready.probe_key);
	uint8_t got[OFI_PROBE] = {0}, want[OFI_CODE];
	struct fid_mr *mr = NULL;
	uint64_t rma;
	ssize_t n;

	if (l->dom.offer->info->domain_attr->mr_mode & FI_MR_LOCAL) {
		int32_t r = ofi_memory_open(&l->dom, &l->ep, got, sizeof(got), FI_READ, &mr, &rma);
		if (r != SMEM_OK)
			return r;
	}
	struct iovec io = {.iov_base = got, .iov_len = sizeof(got)};
	struct fi_rma_iov at = {.addr = l->ready.probe_addr, .len = sizeof(got), .key = key};
	void *desc = mr ? fi_mr_desc(mr) : NULL;
	struct fi_msg_rma m = {.msg_iov = &io,
			       .desc = &desc,
			       .iov_count = 1,
			       .addr = l->peer,
			       .rma_iov = &at,
			       .rma_iov_count = 1,
			       .context = &l->op[0].context};
	do {
		n = fi_readmsg(l->ep.ep, &m, FI_COMPLETION);
		if (n == -FI_EAGAIN)
			(void)fi_cq_read(l->dom.cq, NULL, 0);
	} while (n == -FI_EAGAIN && !deadline_passed(deadline) && !link_ended(l));
	int32_t r = n == 0 ? probe_wait(l, deadline) : ofi_err(SMEM_UNREACHABLE, n, "fi_readmsg");
	if (r != SMEM_OK)
		ofi_ep_close(&l->ep); /* before `got` goes */
	if (mr)
		fi_close(&mr->fid);
	if (r != SMEM_OK)
		return r;
	ofi_code(l->card.key, sizeof(l->card.key), "probe", &l->nonces, 0, want);
	if (memcmp(want, got, OFI_PROBE) != 0)
		return smem_err(SMEM_UNREACHABLE, "the peer's probe read wrong bytes");
	return SMEM_OK;
}

static int32_t open_with(struct ofi_link *l, const struct ofi_offer *offer,
			 struct deadline deadline)
{
	int32_t r = ofi_domain_open(offer, &l->dom);

	if (r == SMEM_OK)
		r = ofi_ep_open(&l->dom, &l->ep);
	if (r == SMEM_OK)
		r = greet(l, offer, deadline);
	if (r == SMEM_OK)
		r = probe(l, patience(deadline));
	if (r == SMEM_OK)
		return r;
	ofi_ep_close(&l->ep);
	ofi_domain_close(&l->dom);
	return r;
}

static void link_started(struct ofi_link *l)
{
	const struct fi_tx_attr *tx = l->dom.offer->info->tx_attr;
	size_t ops = tx->size > 0 && tx->size < OFI_OPS ? tx->size : OFI_OPS;

	l->segments = LINK_SEGMENTS;
	if (tx->rma_iov_limit > 0 && tx->rma_iov_limit < l->segments)
		l->segments = (unsigned)tx->rma_iov_limit;
	if (tx->iov_limit > 0 && tx->iov_limit < l->segments)
		l->segments = (unsigned)tx->iov_limit;
	ofi_fds_connections(l->ready.addr, l->ready.addr_len);
	l->inflight = 0;
	l->free_ops = NULL;
	for (size_t i = 0; i < ops; i++)
		LL_PREPEND2(l->free_ops, &l->op[i], next_free);
	LOCKED(&l->lock);
	l->up = l->was_up = true;
	l->silent = false;
	LOG_DEBUG("ofi", "%s: %s at %s", l->name, l->dom.offer->provider, l->dom.offer->node);
}

/* One address of the peer, with one provider after the other. *ret_gone: nobody listens there. */
static int32_t try_host(struct ofi_link *l, const struct ofi_host *host, struct deadline deadline,
			bool *ret_gone)
{
	int32_t r = SMEM_OK;

	for (unsigned i = 0; i < PROVIDERS_MAX; i++) {
		const struct ofi_offer *offer = NULL;
		r = dial(l, host, deadline);
		if (r == SMEM_OK)
			r = ofi_offer_get((struct sockaddr *)&l->local, l->process->provider, i,
					  &offer);
		bool next = r == SMEM_OK;
		if (r == SMEM_OK)
			r = open_with(l, offer, deadline);
		if (r == SMEM_OK) {
			link_started(l);
			return SMEM_OK;
		}
		pthread_mutex_lock(&l->lock);
		*ret_gone = l->end_err == ECONNREFUSED;
		pthread_mutex_unlock(&l->lock);
		ctl_drop(l);
		if (!next || r != SMEM_NOT_SUPPORTED)
			break;
	}
	return r;
}

static int32_t set_up(struct ofi_link *l, struct deadline deadline)
{
	char tried[400] = "";
	bool gone = false;

	for (uint32_t i = 0; i < l->card.hosts; i++) {
		int32_t r = try_host(l, &l->card.host[i], deadline, &gone);
		if (r == SMEM_OK || r == SMEM_MALLOC_FAILED || r == SMEM_NEW_OBJECT_FAILED)
			return r;
		size_t used = strlen(tried);
		snprintf(tried + used, sizeof(tried) - used, "%s%.180s", used ? "; " : "",
			 err_detail());
	}
	return smem_err(gone && l->was_up ? SMEM_PEER_LOST : SMEM_UNREACHABLE, "%s", tried);
}

/* With the lead and the lock. */
static int32_t ready_lead(struct ofi_link *l, struct deadline deadline)
{
	pthread_mutex_unlock(&l->lock);
	if (l->up)
		ofi_link_down(l);
	int32_t r = set_up(l, deadline);
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

/* Ask the peer to close its end and wait until it did, or until it was silent for long enough. */
static void fence(struct ofi_link *l)
{
	uint32_t silence = l->process->silence_ms, heard = 0;
	struct ofi_id none = {0};

	pthread_mutex_lock(&l->lock);
	bool asked = l->ctl && !l->ended;
	if (asked) {
		heard = ofi_ctl_heard_ms(l->ctl);
		asked = ofi_ctl_post(l->ctl, OFI_CUT, &none) == SMEM_OK;
	}
	pthread_mutex_unlock(&l->lock);
	if (asked)
		wait_flag(l, &l->have_cut, deadline_in_ms(heard < silence ? silence - heard : 0));
}

void ofi_link_down(struct ofi_link *l)
{
	ofi_ep_close(&l->ep);
	fence(l);
	pthread_mutex_lock(&l->lock);
	l->silent = l->ended ? ofi_link_silent(l) : !l->have_cut;
	l->up = false;
	ofi_jobs_cut(l);
	pthread_mutex_unlock(&l->lock);
	ofi_domain_close(&l->dom);
	ctl_drop(l);
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
	ofi_ep_close(&l->ep);
	ofi_domain_close(&l->dom);
	ctl_drop(l);
	fd_close(&l->wake);
	pthread_mutex_destroy(&l->lock);
	pthread_cond_destroy(&l->cond);
	free(l);
}
