/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Providers are asked for by name, in the order of a table: what has hardware first, then the TCP
 * engines. Of the latter the one that carries reliable datagrams itself ("net" of libfabric 1.17,
 * which became "tcp" in 1.18) comes before the one that needs the ofi_rxm layer: an endpoint of it
 * costs 0.1 ms and 60 KiB, one of `tcp;ofi_rxm` 70 ms and tens of MiB, and here every connection
 * has endpoints of its own so that it can be cut.
 *
 * Nothing of libfabric is touched before the first peer needs it: looking for providers takes
 * 85 ms of CPU, which a process whose peers are all on its host never pays.
 */
#include "transport/ofi_fabric.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "transport/ofi_fds.h"
#include "util/cleanup.h"
#include "util/env.h"
#include "util/err.h"
#include "util/log.h"
#include "util/rng.h"

#define OFI_API FI_VERSION(1, 11)

static const struct {
	const char *name;
	bool by_ip; /* its endpoints are bound to an IP address */
} ranking[] = {
    {"efa", false}, {"cxi", false}, {"verbs;ofi_rxm", true},
    {"net", true},  {"tcp", true},  {"tcp;ofi_rxm", true},
};
#define RANKING (sizeof(ranking) / sizeof(ranking[0]))

static pthread_mutex_t offers_lock = PTHREAD_MUTEX_INITIALIZER;
static struct ofi_offer *offers; /* also those that do not exist: info NULL */

int32_t ofi_err(int32_t code, int64_t err, const char *what)
{
	if (err < 0)
		err = -err;
	return smem_err(code, "%s: %s (%d)", what, fi_strerror((int)err), (int)err);
}

static struct fi_info *hints_for(const char *provider)
{
	struct fi_info *h = fi_allocinfo();

	if (!h)
		return NULL;
	h->caps = FI_MSG | FI_RMA | FI_READ | FI_WRITE | FI_REMOTE_READ | FI_REMOTE_WRITE;
	h->mode = FI_CONTEXT | FI_CONTEXT2;
	h->ep_attr->type = FI_EP_RDM;
	h->domain_attr->mr_mode =
	    FI_MR_LOCAL | FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY | FI_MR_ENDPOINT;
	h->domain_attr->threading = FI_THREAD_DOMAIN;
	h->tx_attr->op_flags = FI_DELIVERY_COMPLETE;
	if (strstr(provider, "rxm")) /* its buffers are sized by these; the default takes 70 MiB */
		h->tx_attr->size = h->rx_attr->size = 64;
	h->fabric_attr->prov_name = strdup(provider);
	if (!h->fabric_attr->prov_name) {
		fi_freeinfo(h);
		return NULL;
	}
	return h;
}

static void offer_ask(struct ofi_offer *o, bool by_ip)
{
	struct fi_info *hints = hints_for(o->provider);
	struct ofi_fds_seen seen;

	if (!hints)
		return;
	int r = fi_getinfo(OFI_API, by_ip ? o->node : NULL, NULL, by_ip ? FI_SOURCE : 0, hints,
			   &o->info);
	if (r != 0)
		o->info = NULL;
	/* "tcp" also matches what is layered over it. */
	if (o->info && strcmp(o->info->fabric_attr->prov_name, o->provider) != 0) {
		fi_freeinfo(o->info);
		o->info = NULL;
	}
	ofi_fds_before(&seen);
	if (o->info && fi_fabric(o->info->fabric_attr, &o->fabric, NULL) != 0) {
		fi_freeinfo(o->info);
		o->info = NULL;
	}
	ofi_fds_after(&seen);
	fi_freeinfo(hints);
	LOG_DEBUG("ofi", "provider %s at %s: %s", o->provider, o->node, o->info ? "yes" : "no");
}

static struct ofi_offer *offer_find(const char *provider, const char *node, bool by_ip)
{
	struct ofi_offer *o;

	for (o = offers; o; o = o->next) {
		if (strcmp(o->provider, provider) == 0 && strcmp(o->node, node) == 0)
			return o;
	}
	o = calloc(1, sizeof(*o));
	if (!o)
		return NULL;
	strncpy(o->provider, provider, sizeof(o->provider) - 1);
	strncpy(o->node, node, sizeof(o->node) - 1);
	offer_ask(o, by_ip);
	o->next = offers;
	offers = o;
	return o;
}

static bool by_ip(const char *provider)
{
	for (size_t k = 0; k < RANKING; k++) {
		if (strcmp(ranking[k].name, provider) == 0)
			return ranking[k].by_ip;
	}
	return true;
}

int32_t ofi_offer_get(const struct sockaddr *sa, const char *want, unsigned i,
		      const struct ofi_offer **ret)
{
	struct ofi_offer *o = NULL;
	char node[64];

	ofi_sockaddr_text(sa, false, node, sizeof(node));
	LOCKED(&offers_lock);
	if (want) {
		o = i == 0 ? offer_find(want, node, by_ip(want)) : NULL;
	} else {
		for (size_t k = 0; k < RANKING; k++) {
			o = offer_find(ranking[k].name, node, ranking[k].by_ip);
			if (o && o->info && i-- == 0)
				break;
			o = NULL;
		}
	}
	if (!o || !o->info)
		return smem_err(SMEM_NOT_SUPPORTED, "libfabric has no %s%s provider at %s",
				i ? "other " : "", want ? want : "usable", node);
	*ret = o;
	return SMEM_OK;
}

void ofi_offers_forget(void)
{
	LOCKED(&offers_lock);
	while (offers) {
		struct ofi_offer *o = offers;
		offers = o->next;
		if (o->fabric)
			fi_close(&o->fabric->fid);
		if (o->info)
			fi_freeinfo(o->info);
		free(o);
	}
}

void ofi_offers_drop(void)
{
	pthread_mutex_init(&offers_lock, NULL);
	offers = NULL;
}

static int32_t domain_parts(struct ofi_domain *d)
{
	struct fi_info *info = d->offer->info;
	struct fi_cq_attr cq = {.format = FI_CQ_FORMAT_CONTEXT, .wait_obj = FI_WAIT_FD};
	struct fi_av_attr av = {.type = info->domain_attr->av_type};

	int r = fi_domain(d->offer->fabric, info, &d->domain, NULL);
	if (r != 0)
		return ofi_err(SMEM_NEW_OBJECT_FAILED, r, "fi_domain");
	r = fi_cq_open(d->domain, &cq, &d->cq, NULL);
	if (r != 0)
		return ofi_err(SMEM_NEW_OBJECT_FAILED, r, "fi_cq_open");
	r = fi_control(&d->cq->fid, FI_GETWAIT, &d->wait_fd);
	if (r != 0)
		return ofi_err(SMEM_NEW_OBJECT_FAILED, r, "fi_control(FI_GETWAIT)");
	r = fi_av_open(d->domain, &av, &d->av, NULL);
	if (r != 0)
		return ofi_err(SMEM_NEW_OBJECT_FAILED, r, "fi_av_open");
	return SMEM_OK;
}

int32_t ofi_domain_open(const struct ofi_offer *offer, struct ofi_domain *ret)
{
	struct ofi_fds_seen seen;

	*ret = (struct ofi_domain){.offer = offer, .wait_fd = -1};
	ofi_fds_before(&seen);
	int32_t r = domain_parts(ret);
	ofi_fds_after(&seen);
	if (r != SMEM_OK)
		ofi_domain_close(ret);
	return r;
}

void ofi_domain_close(struct ofi_domain *d)
{
	if (d->cq)
		fi_close(&d->cq->fid);
	if (d->av)
		fi_close(&d->av->fid);
	if (d->domain)
		fi_close(&d->domain->fid);
	*d = (struct ofi_domain){.wait_fd = -1};
}

bool ofi_domain_may_sleep(struct ofi_domain *d)
{
	struct fid *f = &d->cq->fid;

	return fi_trywait(d->offer->fabric, &f, 1) == FI_SUCCESS;
}

static int32_t ep_parts(struct ofi_domain *d, struct ofi_ep *e)
{
	size_t len = sizeof(e->addr);

	int r = fi_endpoint(d->domain, d->offer->info, &e->ep, NULL);
	if (r != 0)
		return ofi_err(SMEM_NEW_OBJECT_FAILED, r, "fi_endpoint");
	r = fi_ep_bind(e->ep, &d->av->fid, 0);
	if (r == 0)
		r = fi_ep_bind(e->ep, &d->cq->fid, FI_TRANSMIT | FI_RECV | FI_SELECTIVE_COMPLETION);
	if (r != 0)
		return ofi_err(SMEM_NEW_OBJECT_FAILED, r, "fi_ep_bind");
	r = fi_enable(e->ep);
	if (r != 0)
		return ofi_err(SMEM_NEW_OBJECT_FAILED, r, "fi_enable");
	r = fi_getname(&e->ep->fid, e->addr, &len);
	if (r != 0)
		return ofi_err(SMEM_NEW_OBJECT_FAILED, r, "fi_getname");
	e->addr_len = (uint32_t)len;
	return SMEM_OK;
}

int32_t ofi_ep_open(struct ofi_domain *d, struct ofi_ep *ret)
{
	struct ofi_fds_seen seen;

	*ret = (struct ofi_ep){0};
	ofi_fds_before(&seen);
	int32_t r = ep_parts(d, ret);
	ofi_fds_after(&seen);
	if (r != SMEM_OK)
		ofi_ep_close(ret);
	return r;
}

void ofi_ep_close(struct ofi_ep *e)
{
	if (e->ep)
		fi_close(&e->ep->fid);
	*e = (struct ofi_ep){0};
}

int32_t ofi_memory_open(struct ofi_domain *d, struct ofi_ep *ep, void *addr, size_t len,
			uint64_t access, struct fid_mr **ret, uint64_t *ret_rma)
{
	const struct fi_domain_attr *attr = d->offer->info->domain_attr;
	struct fid_mr *mr = NULL;
	uint64_t want = 0;
	int r = -FI_ENOKEY;

	/* A key that is taken costs another throw of the dice. */
	for (int i = 0; i < 8 && r == -FI_ENOKEY; i++) {
		if (!(attr->mr_mode & FI_MR_PROV_KEY)) {
			want = rng_u64();
			if (attr->mr_key_size < 8)
				want &= (1ULL << (8 * attr->mr_key_size)) - 1;
		}
		r = fi_mr_reg(d->domain, addr, len, access, 0, want, 0, &mr, NULL);
	}
	if (r != 0)
		return ofi_err(r == -FI_ENOMEM ? SMEM_MALLOC_FAILED : SMEM_IO, r, "fi_mr_reg");
	if ((attr->mr_mode & FI_MR_ENDPOINT) && ep) {
		r = fi_mr_bind(mr, &ep->ep->fid, 0);
		if (r == 0)
			r = fi_mr_enable(mr);
		if (r != 0) {
			fi_close(&mr->fid);
			return ofi_err(SMEM_IO, r, "fi_mr_enable");
		}
	}
	*ret = mr;
	*ret_rma = attr->mr_mode & FI_MR_VIRT_ADDR ? (uint64_t)(uintptr_t)addr : 0;
	return SMEM_OK;
}
