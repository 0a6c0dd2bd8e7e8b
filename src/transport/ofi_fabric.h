/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libfabric as the rest of the transport sees it: which providers this machine offers at an
 * address, and a domain of one of them with an endpoint or many.
 *
 * A domain, its completion queue and its endpoints are used by one thread at a time: the caller's
 * lock.
 */
#ifndef TRANSPORT_OFI_FABRIC_H
#define TRANSPORT_OFI_FABRIC_H

#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_errno.h>
#include <rdma/fi_rma.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "transport/ofi_wire.h"

/* One provider at one local address. Kept until ofi_offers_forget(). */
struct ofi_offer {
	struct ofi_offer *next;
	char provider[OFI_PROVIDER];
	char node[64]; /* the local address as text */
	struct fi_info *info;
	struct fid_fabric *fabric;
};

/*
 * The i-th best provider at the local address `sa`, or the one named `want` (i = 0).
 * SMEM_NOT_SUPPORTED when there is none (any more), with what was looked for. The first call of a
 * process takes a tenth of a second: libfabric looks at the hardware.
 */
int32_t ofi_offer_get(const struct sockaddr *sa, const char *want, unsigned i,
		      const struct ofi_offer **ret);
void ofi_offers_forget(void);
void ofi_offers_drop(void); /* after fork, in the child: without a word to libfabric */

struct ofi_domain {
	const struct ofi_offer *offer;
	struct fid_domain *domain;
	struct fid_cq *cq;
	struct fid_av *av;
	int wait_fd; /* of the queue; libfabric's own */
};

int32_t ofi_domain_open(const struct ofi_offer *offer, struct ofi_domain *ret);
void ofi_domain_close(struct ofi_domain *d); /* endpoints and registrations first; twice is fine */

/* True when a poll on wait_fd will not miss anything. */
bool ofi_domain_may_sleep(struct ofi_domain *d);

struct ofi_ep {
	struct fid_ep *ep;
	uint32_t addr_len;
	uint8_t addr[OFI_EP_ADDR];
};
int32_t ofi_ep_open(struct ofi_domain *d, struct ofi_ep *ret);
void ofi_ep_close(struct ofi_ep *ep); /* what was in flight touches no memory any more */

/*
 * Let peers read (and write) memory; `ep` is where a provider binds memory to endpoints. *ret_rma:
 * what RMA calls the first byte.
 */
int32_t ofi_memory_open(struct ofi_domain *d, struct ofi_ep *ep, void *addr, size_t len,
			uint64_t access, struct fid_mr **ret, uint64_t *ret_rma);

/* "fi_writemsg: Connection refused (111)" in the error record. */
int32_t ofi_err(int32_t code, int64_t err, const char *what);

#endif
