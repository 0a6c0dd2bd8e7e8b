/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The yardstick of writes between hosts: libfabric alone, both sides spinning.
 *
 *   ofi_raw target NODE FILE [PROVIDER]     serve until killed; how to reach it goes to FILE
 *   ofi_raw write NODE FILE [PROVIDER]      measure
 */
#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_errno.h>
#include <rdma/fi_rma.h>
#include <stdint.h>

#include "shapes.h"

#define VEC 4

struct card {
	uint64_t key, base;
	size_t addr_len;
	char addr[256];
};

static struct {
	struct fi_info *info;
	struct fid_fabric *fabric;
	struct fid_domain *domain;
	struct fid_ep *ep;
	struct fid_cq *cq;
	struct fid_av *av;
} own;
static struct card peer;
static fi_addr_t to;

#define OK(call)                                                                                   \
	do {                                                                                       \
		long r_ = (call);                                                                  \
		if (r_ != 0) {                                                                     \
			fprintf(stderr, "%s: %s\n", #call, fi_strerror((int)-r_));                 \
			exit(1);                                                                   \
		}                                                                                  \
	} while (0)

static void open_own(const char *node, const char *provider)
{
	struct fi_cq_attr cq = {.format = FI_CQ_FORMAT_CONTEXT, .wait_obj = FI_WAIT_FD};
	struct fi_av_attr av = {.type = FI_AV_MAP};
	struct fi_info *h = fi_allocinfo();

	h->caps = FI_MSG | FI_RMA | FI_READ | FI_WRITE | FI_REMOTE_READ | FI_REMOTE_WRITE;
	h->ep_attr->type = FI_EP_RDM;
	h->domain_attr->threading = FI_THREAD_DOMAIN;
	h->domain_attr->mr_mode = FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY;
	h->fabric_attr->prov_name = strdup(provider);
	OK(fi_getinfo(FI_VERSION(1, 11), node, NULL, FI_SOURCE, h, &own.info));
	fi_freeinfo(h);
	OK(fi_fabric(own.info->fabric_attr, &own.fabric, NULL));
	OK(fi_domain(own.fabric, own.info, &own.domain, NULL));
	OK(fi_cq_open(own.domain, &cq, &own.cq, NULL));
	OK(fi_av_open(own.domain, &av, &own.av, NULL));
	OK(fi_endpoint(own.domain, own.info, &own.ep, NULL));
	OK(fi_ep_bind(own.ep, &own.av->fid, 0));
	OK(fi_ep_bind(own.ep, &own.cq->fid, FI_TRANSMIT | FI_RECV | FI_SELECTIVE_COMPLETION));
	OK(fi_enable(own.ep));
}

static void target(const char *file, volatile double *cpu)
{
	char *mem = mmap(NULL, MEM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct card card = {.addr_len = sizeof(card.addr)};
	struct fi_cq_entry e;
	struct fid_mr *mr;
	char tmp[300];

	memset(mem, 0, MEM);
	OK(fi_mr_reg(own.domain, mem, MEM, FI_REMOTE_READ | FI_REMOTE_WRITE, 0, 0x5a5a, 0, &mr,
		     NULL));
	OK(fi_getname(&own.ep->fid, card.addr, &card.addr_len));
	card.key = fi_mr_key(mr);
	if (own.info->domain_attr->mr_mode & FI_MR_VIRT_ADDR)
		card.base = (uint64_t)(uintptr_t)mem;
	snprintf(tmp, sizeof(tmp), "%s.tmp", file);
	FILE *f = fopen(tmp, "w");
	OK(!f || fwrite(&card, sizeof(card), 1, f) != 1 || fclose(f) != 0 || rename(tmp, file));
	for (unsigned turn = 0;; turn++) {
		fi_cq_read(own.cq, &e, 1);
		if (turn % 1024 == 0)
			*cpu = cpu_s();
	}
}

static void put(struct shape *s)
{
	int posted = 0, done = 0;
	struct fi_cq_entry e[16];
	long r;

	for (int i = 0; i < s->n; i += VEC) {
		struct fi_rma_iov at[VEC];
		struct iovec io[VEC];
		int k = 0;
		for (; k < VEC && i + k < s->n; k++) {
			io[k] = (struct iovec){s->src[i + k], s->len[i + k]};
			at[k] =
			    (struct fi_rma_iov){peer.base + s->off[i + k], s->len[i + k], peer.key};
		}
		struct fi_msg_rma m = {.msg_iov = io,
				       .iov_count = (size_t)k,
				       .addr = to,
				       .rma_iov = at,
				       .rma_iov_count = (size_t)k,
				       .context = &own};
		while ((r = fi_writemsg(own.ep, &m, FI_COMPLETION | FI_DELIVERY_COMPLETE)) ==
		       -FI_EAGAIN)
			done += fi_cq_read(own.cq, e, 1) == 1;
		OK(r);
		posted++;
	}
	while (done < posted) {
		r = fi_cq_read(own.cq, e, 16);
		if (r > 0)
			done += (int)r;
		else if (r != -FI_EAGAIN)
			OK(r);
	}
}

int main(int argc, char **argv)
{
	char stats[300];

	if (argc < 4) {
		fprintf(stderr, "usage: ofi_raw target|write NODE FILE [PROVIDER]\n");
		return 2;
	}
	int serve = strcmp(argv[1], "target") == 0;
	snprintf(stats, sizeof(stats), "%s.cpu", argv[3]);
	volatile double *cpu = shared_word(stats, serve);
	open_own(argv[2], argc > 4 ? argv[4] : "net");
	if (serve)
		target(argv[3], cpu);
	FILE *f = fopen(argv[3], "r");
	OK(!f || fread(&peer, sizeof(peer), 1, f) != 1);
	fclose(f);
	OK(fi_av_insert(own.av, peer.addr, 1, &to, 0, NULL) != 1);
	measure_all("raw", cpu, put);
	return 0;
}
