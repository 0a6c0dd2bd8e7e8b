/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bare libfabric is loaded as the library loads it, by name and when it is wanted, because linking
 * it costs every start of the command a fifth of a second. Its headers' inline functions go through
 * tables of the objects, so that four entry points are all there is to find.
 *
 * A move is fi_writemsg or fi_readmsg, vectored up to the provider's limit, each request with a
 * completion; writes ask for FI_DELIVERY_COMPLETE. The writer spins on the completion queue. The
 * target's provider makes progress by hand: a thread reads its queue over and over while it is told
 * to, and blocks on a semaphore otherwise, so that it takes no CPU from what is measured then.
 */
#include "perf_raw.h"

#include <dlfcn.h>
#include <pthread.h>
#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_errno.h>
#include <rdma/fi_rma.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tool.h"

#define SONAME	 "libfabric.so.1"
#define API	 FI_VERSION(1, 11)
#define VEC_MAX	 16u
#define DEEP	 128u /* requests in flight; no operation of whole pieces has more */
#define STUCK_S	 10.0
#define PROVIDER "SMEM_FABRIC_PROVIDER"

struct raw {
	struct fi_info *info;
	struct fid_fabric *fabric;
	struct fid_domain *domain;
	struct fid_cq *cq;
	struct fid_av *av;
	struct fid_ep *ep;
	struct fid_mr *mr;
	/* writer */
	struct raw_card peer;
	fi_addr_t to;
	size_t vec;
	struct fi_context2 context[DEEP];
	size_t posted, done;
	/* target */
	pthread_t thread;
	sem_t go, rested;
	bool started;
	_Atomic bool on, quit;
};

static struct {
	bool tried;
	__typeof__(fi_getinfo) *getinfo;
	__typeof__(fi_freeinfo) *freeinfo;
	__typeof__(fi_dupinfo) *dupinfo;
	__typeof__(fi_fabric) *fabric;
	__typeof__(fi_strerror) *strerror;
} lib;

static char why[256] = "libfabric is not there";

const char *raw_why(void)
{
	return why;
}

static int fail(const char *what, ssize_t err)
{
	snprintf(why, sizeof(why), "%s: %s", what, lib.strerror((int)(err < 0 ? -err : err)));
	return -1;
}

/* ---- opening ---- */

static bool find(void *handle, const char *name, void *slot)
{
	void *at = dlsym(handle, name);

	memcpy(slot, &at, sizeof(at));
	return at != NULL;
}

static bool load(void)
{
	void *handle;

	if (lib.tried)
		return lib.strerror != NULL;
	lib.tried = true;
	handle = dlopen(SONAME, RTLD_NOW | RTLD_LOCAL);
	if (!handle)
		snprintf(why, sizeof(why), "%s", dlerror());
	return handle && find(handle, "fi_getinfo", &lib.getinfo) &&
	       find(handle, "fi_freeinfo", &lib.freeinfo) &&
	       find(handle, "fi_dupinfo", &lib.dupinfo) && find(handle, "fi_fabric", &lib.fabric) &&
	       find(handle, "fi_strerror", &lib.strerror);
}

static struct fi_info *ask(const char *node, const char *provider, bool by_ip)
{
	struct fi_info *h = lib.dupinfo(NULL), *info = NULL;

	if (!h)
		return NULL;
	h->caps = FI_MSG | FI_RMA | FI_READ | FI_WRITE | FI_REMOTE_READ | FI_REMOTE_WRITE;
	h->mode = FI_CONTEXT | FI_CONTEXT2;
	h->ep_attr->type = FI_EP_RDM;
	h->domain_attr->mr_mode =
	    FI_MR_LOCAL | FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY | FI_MR_ENDPOINT;
	h->domain_attr->threading = FI_THREAD_DOMAIN;
	h->tx_attr->op_flags = FI_DELIVERY_COMPLETE;
	h->fabric_attr->prov_name = strdup(provider);
	if (h->fabric_attr->prov_name &&
	    lib.getinfo(API, by_ip ? node : NULL, NULL, by_ip ? FI_SOURCE : 0, h, &info) == 0 &&
	    strcmp(info->fabric_attr->prov_name, provider) != 0) { /* something layered over it */
		lib.freeinfo(info);
		info = NULL;
	}
	lib.freeinfo(h);
	return info;
}

static struct fi_info *choose(const char *node, const char *provider)
{
	static const char *const ranking[] = {"efa", "cxi", "verbs;ofi_rxm",
					      "net", "tcp", "tcp;ofi_rxm"};
	struct fi_info *info = NULL;

	if (!*provider && getenv(PROVIDER))
		provider = getenv(PROVIDER);
	for (size_t i = 0; i < sizeof(ranking) / sizeof(ranking[0]) && !*provider && !info; i++)
		info = ask(node, ranking[i], i >= 2);
	if (*provider)
		info = ask(node, provider,
			   strcmp(provider, "efa") != 0 && strcmp(provider, "cxi") != 0);
	if (!info)
		snprintf(why, sizeof(why), "libfabric has no %s provider at %s",
			 *provider ? provider : "usable", node);
	return info;
}

static int open_parts(struct raw *w)
{
	struct fi_cq_attr cq = {.format = FI_CQ_FORMAT_CONTEXT, .wait_obj = FI_WAIT_FD};
	struct fi_av_attr av = {.type = w->info->domain_attr->av_type};
	int r;

	if ((r = lib.fabric(w->info->fabric_attr, &w->fabric, NULL)) != 0)
		return fail("fi_fabric", r);
	if ((r = fi_domain(w->fabric, w->info, &w->domain, NULL)) != 0)
		return fail("fi_domain", r);
	if ((r = fi_cq_open(w->domain, &cq, &w->cq, NULL)) != 0)
		return fail("fi_cq_open", r);
	if ((r = fi_av_open(w->domain, &av, &w->av, NULL)) != 0)
		return fail("fi_av_open", r);
	if ((r = fi_endpoint(w->domain, w->info, &w->ep, NULL)) != 0)
		return fail("fi_endpoint", r);
	if ((r = fi_ep_bind(w->ep, &w->av->fid, 0)) != 0 ||
	    (r = fi_ep_bind(w->ep, &w->cq->fid, FI_TRANSMIT | FI_RECV | FI_SELECTIVE_COMPLETION)) !=
		0)
		return fail("fi_ep_bind", r);
	if ((r = fi_enable(w->ep)) != 0)
		return fail("fi_enable", r);
	w->vec = w->info->tx_attr->iov_limit;
	if (w->info->tx_attr->rma_iov_limit < w->vec)
		w->vec = w->info->tx_attr->rma_iov_limit;
	w->vec = w->vec > VEC_MAX ? VEC_MAX : w->vec < 1 ? 1 : w->vec;
	return 0;
}

struct raw *raw_open(const char *node, const char *provider)
{
	struct raw *w;

	if (!load())
		return NULL;
	w = calloc(1, sizeof(*w));
	if (!w)
		return NULL;
	sem_init(&w->go, 0, 0);
	sem_init(&w->rested, 0, 0);
	w->info = choose(node, provider);
	if (!w->info || open_parts(w) != 0) {
		raw_close(w);
		return NULL;
	}
	return w;
}

const char *raw_provider(const struct raw *w)
{
	return w->info->fabric_attr->prov_name;
}

static void shut(struct fid *f)
{
	if (f)
		fi_close(f);
}

void raw_close(struct raw *w)
{
	if (!w)
		return;
	if (w->started) {
		atomic_store(&w->quit, true);
		sem_post(&w->go);
		pthread_join(w->thread, NULL);
	}
	shut(w->ep ? &w->ep->fid : NULL);
	shut(w->mr ? &w->mr->fid : NULL);
	shut(w->cq ? &w->cq->fid : NULL);
	shut(w->av ? &w->av->fid : NULL);
	shut(w->domain ? &w->domain->fid : NULL);
	shut(w->fabric ? &w->fabric->fid : NULL);
	if (w->info)
		lib.freeinfo(w->info);
	sem_destroy(&w->go);
	sem_destroy(&w->rested);
	free(w);
}

static int register_memory(struct raw *w, void *mem, size_t len, uint64_t access)
{
	int r = fi_mr_reg(w->domain, mem, len, access, 0, 0x5a5a, 0, &w->mr, NULL);

	if (r == 0 && w->info->domain_attr->mr_mode & FI_MR_ENDPOINT) {
		r = fi_mr_bind(w->mr, &w->ep->fid, 0);
		if (r == 0)
			r = fi_mr_enable(w->mr);
	}
	return r ? fail("fi_mr_reg", r) : 0;
}

/* ---- the target ---- */

int raw_expose(struct raw *w, void *mem, size_t len, struct raw_card *ret)
{
	struct raw_card c = {.start = (uintptr_t)mem};
	size_t n = sizeof(c.addr);

	if (register_memory(w, mem, len, FI_REMOTE_READ | FI_REMOTE_WRITE) != 0)
		return -1;
	int r = fi_getname(&w->ep->fid, c.addr, &n);
	if (r != 0)
		return fail("fi_getname", r);
	c.addr_len = (uint32_t)n;
	c.key = fi_mr_key(w->mr);
	c.rma = w->info->domain_attr->mr_mode & FI_MR_VIRT_ADDR ? c.start : 0;
	snprintf(c.provider, sizeof(c.provider), "%s", raw_provider(w));
	*ret = c;
	return 0;
}

static void *serve(void *arg)
{
	struct raw *w = arg;
	struct fi_cq_entry e;

	for (;;) {
		while (sem_wait(&w->go) != 0)
			;
		if (atomic_load(&w->quit))
			return NULL;
		while (atomic_load(&w->on))
			fi_cq_read(w->cq, &e, 1);
		sem_post(&w->rested);
	}
}

int raw_spin(struct raw *w)
{
	if (!w->started && pthread_create(&w->thread, NULL, serve, w) != 0) {
		snprintf(why, sizeof(why), "no thread");
		return -1;
	}
	w->started = true;
	atomic_store(&w->on, true);
	sem_post(&w->go);
	return 0;
}

void raw_rest(struct raw *w)
{
	atomic_store(&w->on, false);
	while (sem_wait(&w->rested) != 0)
		;
}

/* ---- the writer ---- */

int raw_connect(struct raw *w, const struct raw_card *c, void *mem, size_t len)
{
	w->peer = *c;
	if (fi_av_insert(w->av, c->addr, 1, &w->to, 0, NULL) != 1)
		return fail("fi_av_insert", FI_EINVAL);
	if (w->info->domain_attr->mr_mode & FI_MR_LOCAL)
		return register_memory(w, mem, len, FI_READ | FI_WRITE);
	return 0;
}

static int reap(struct raw *w)
{
	struct fi_cq_err_entry bad = {0};
	struct fi_cq_entry e[16];
	ssize_t n = fi_cq_read(w->cq, e, 16);

	if (n > 0)
		w->done += (size_t)n;
	if (n >= 0 || n == -FI_EAGAIN)
		return 0;
	if (n == -FI_EAVAIL && fi_cq_readerr(w->cq, &bad, 0) > 0)
		n = bad.err;
	return fail("fi_cq_read", n);
}

/* Until at most `left` requests are in flight. */
static int drain(struct raw *w, size_t left)
{
	double start = 0;

	for (unsigned turn = 1; w->posted - w->done > left; turn++) {
		if (reap(w) != 0)
			return -1;
		if (turn % 4096)
			continue;
		if (start == 0)
			start = now_s();
		if (now_s() - start > STUCK_S) {
			snprintf(why, sizeof(why), "no completion for %.0f s", STUCK_S);
			return -1;
		}
	}
	return 0;
}

static int post(struct raw *w, bool read, const struct fi_msg_rma *m)
{
	size_t seen = w->done;
	double start = now_s();
	ssize_t r;

	while ((r = read ? fi_readmsg(w->ep, m, FI_COMPLETION)
			 : fi_writemsg(w->ep, m, FI_COMPLETION | FI_DELIVERY_COMPLETE)) ==
	       -FI_EAGAIN) {
		if (reap(w) != 0)
			return -1;
		if (seen == w->done && now_s() - start > STUCK_S)
			break;
	}
	if (r != 0)
		return fail(read ? "fi_readmsg" : "fi_writemsg", r);
	w->posted++;
	return 0;
}

/* The next request: fills io and at, moves on behind them. How many. */
static size_t fill(const struct raw *w, const struct raw_move *m, size_t *i, size_t *off,
		   struct iovec io[VEC_MAX], struct fi_rma_iov at[VEC_MAX])
{
	size_t k = 0, vec = m->cut ? 1 : w->vec;

	for (; k < vec && *i < m->n; k++) {
		size_t len = m->len[*i] - *off;
		if (m->cut && len > m->cut)
			len = m->cut;
		io[k] = (struct iovec){(char *)(uintptr_t)m->near[*i] + *off, len};
		at[k] = (struct fi_rma_iov){
		    (uintptr_t)m->far[*i] + *off - w->peer.start + w->peer.rma, len, w->peer.key};
		*off += len;
		if (*off == m->len[*i]) {
			++*i;
			*off = 0;
		}
	}
	return k;
}

int raw_move(struct raw *w, const struct raw_move *m)
{
	size_t flight = m->flight ? m->flight : DEEP, i = 0, off = 0;
	struct fi_rma_iov at[VEC_MAX];
	struct iovec io[VEC_MAX];
	void *desc[VEC_MAX];

	for (size_t k = 0; k < VEC_MAX; k++)
		desc[k] = w->mr ? fi_mr_desc(w->mr) : NULL;
	while (i < m->n) {
		size_t k = fill(w, m, &i, &off, io, at);
		struct fi_msg_rma msg = {.msg_iov = io,
					 .desc = desc,
					 .iov_count = k,
					 .addr = w->to,
					 .rma_iov = at,
					 .rma_iov_count = k,
					 .context = &w->context[w->posted % DEEP]};
		if (drain(w, flight - 1) != 0 || post(w, m->read, &msg) != 0)
			return -1;
	}
	return drain(w, 0);
}
