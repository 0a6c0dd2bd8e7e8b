/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Setting a link up: connect to one of the peer's addresses, take its challenge, open an endpoint
 * at the local address that the kernel chose for the way there, say hello with the provider's name,
 * and read the peer's probe through the fabric: only bytes that nobody else can know prove the
 * whole path. A provider that the peer has not makes the next best one's turn.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <utlist.h>

#include "transport/ofi_fds.h"
#include "transport/ofi_link.h"
#include "transport/ofi_regions.h"
#include "util/cleanup.h"
#include "util/err.h"
#include "util/log.h"
#include "util/rng.h"

#define PROVIDERS_MAX 8u
#define BRISK_MS      2 /* most answers are there by then */

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
	struct sockaddr_storage to;
	char at[64];

	socklen_t len = ofi_host_get(host, &to);
	if (len == 0)
		return smem_err(SMEM_UNREACHABLE, "an address of family %u", host->family);
	int32_t r = ofi_link_call(l, (struct sockaddr *)&to, len);
	if (r != SMEM_OK)
		return r;
	ofi_sockaddr_text((struct sockaddr *)&to, true, at, sizeof(at));
	if (!ofi_link_wait(l, &l->have_up, deadline))
		return no_answer(l, at, deadline);
	if (!ofi_link_wait(l, &l->have_challenge, patience(deadline)))
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
	struct ofi_hello hello = {.addr_len = l->ep.addr_len, .silence_ms = l->process->silence_ms};
	uint8_t want[OFI_CODE];

	memcpy(hello.nonce, l->nonces.initiator, sizeof(hello.nonce));
	memcpy(hello.provider, offer->provider, sizeof(hello.provider));
	memcpy(hello.addr, l->ep.addr, sizeof(hello.addr));
	ofi_code(l->card.key, sizeof(l->card.key), "hello", &l->nonces, 0, hello.code);
	int32_t r = ofi_ctl_post(l->ctl, OFI_HELLO, &hello);
	if (r != SMEM_OK)
		return r;
	if (!ofi_link_wait(l, &l->have_ready, patience(deadline)))
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

/* Nothing will come of the probe. Between two looks, let others run. */
static bool hopeless(struct ofi_link *l, struct deadline deadline)
{
	uint32_t limit = l->process->silence_ms / (l->stuck ? 2 : 1);
	struct pollfd fd = {.fd = l->dom.wait_fd, .events = POLLIN};
	char why[OFI_TEXT];

	pthread_mutex_lock(&l->lock);
	bool over = l->ended || l->abandoned;
	pthread_mutex_unlock(&l->lock);
	if (over || deadline_passed(deadline)) {
		no_answer(l, "read of the peer's probe", deadline);
		return true;
	}
	if (ofi_watch_look(l, limit, why) != WATCH_FINE) {
		smem_err(SMEM_UNREACHABLE, "%s", why);
		return true;
	}
	if (deadline_elapsed_ms(deadline) < BRISK_MS)
		sched_yield();
	else if (ofi_domain_may_sleep(&l->dom))
		poll(&fd, 1, BRISK_MS); /* connecting makes no event of every provider's queue */
	return false;
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
		if (hopeless(l, deadline))
			return err_code();
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
	int32_t r = SMEM_OK;
	ofi_watch_begin(l);
	while ((n = fi_readmsg(l->ep.ep, &m, FI_COMPLETION)) == -FI_EAGAIN && r == SMEM_OK) {
		(void)fi_cq_read(l->dom.cq, NULL, 0);
		if (hopeless(l, deadline))
			r = err_code();
	}
	if (r == SMEM_OK)
		r = n == 0 ? probe_wait(l, deadline) : ofi_err(SMEM_UNREACHABLE, n, "fi_readmsg");
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

/* Registrations of local memory, as the cache wants them. */
static int32_t memory_open(void *arg, void *addr, size_t len, uint64_t access, void **ret_mr,
			   void **ret_desc)
{
	struct ofi_link *l = arg;
	struct fid_mr *mr = NULL;
	uint64_t rma;

	int32_t r = ofi_memory_open(&l->dom, &l->ep, addr, len, access, &mr, &rma);
	if (r != SMEM_OK)
		return r;
	*ret_mr = mr;
	*ret_desc = fi_mr_desc(mr);
	return SMEM_OK;
}

static void memory_close(void *arg, void *mr)
{
	(void)arg;
	fi_close(&((struct fid_mr *)mr)->fid);
}

static const struct ofi_local_ops memory_ops = {
    .open = memory_open,
    .close = memory_close,
    .region = ofi_regions_holds,
};

/* Why it matters is told in ofi_jobs.c. */
static size_t chunk_of(struct ofi_link *l)
{
	char congestion[OFI_CONGESTION];

	if (!ofi_fds_congestion(l->ep.addr, l->ep.addr_len, l->ready.addr, l->ready.addr_len,
				congestion))
		return OFI_CHUNK;
	return strncmp(congestion, "bbr", 3) == 0 ? OFI_CHUNK_BBR : OFI_CHUNK;
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
	if (l->dom.offer->info->domain_attr->mr_mode & FI_MR_LOCAL)
		ofi_local_start(&l->memory, &memory_ops, l);
	ofi_fds_connections(l->ready.addr, l->ready.addr_len);
	l->chunk = chunk_of(l);
	l->inflight = 0;
	l->free_ops = NULL;
	for (size_t i = 0; i < ops; i++)
		LL_PREPEND2(l->free_ops, &l->op[i], next_free);
	LOCKED(&l->lock);
	l->up = l->was_up = true;
	l->silent = l->stuck = false;
	snprintf(l->provider, sizeof(l->provider), "%s", l->dom.offer->provider);
	LOG_DEBUG("ofi", "%s: %s at %s, operations of %zu KiB", l->name, l->dom.offer->provider,
		  l->dom.offer->node, l->chunk >> 10);
}

/* The connection was closed over there, by a process that ends or died before it came to it. */
static bool turned_away(struct ofi_link *l)
{
	LOCKED(&l->lock);
	return l->ended && (l->end_err == 0 || l->end_err == ECONNRESET || l->end_err == EPIPE);
}

/* One address of the peer, with one provider after the other. *ret_gone: nobody listens there. */
static int32_t try_host(struct ofi_link *l, const struct ofi_host *host, struct deadline deadline,
			bool *ret_gone)
{
	bool again = true; /* once, to learn whether anybody listens there still */
	int32_t r = SMEM_OK;

	for (unsigned i = 0; i < PROVIDERS_MAX;) {
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
		bool retry = again && turned_away(l);
		pthread_mutex_lock(&l->lock);
		*ret_gone = l->end_err == ECONNREFUSED;
		pthread_mutex_unlock(&l->lock);
		ofi_link_hang_up(l);
		if (retry)
			again = false;
		else if (next && r == SMEM_NOT_SUPPORTED)
			i++;
		else
			break;
	}
	return r;
}

int32_t ofi_link_dial(struct ofi_link *l, struct deadline deadline)
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
