/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The target's side: listeners for control connections, and for each initiator that proved itself
 * an endpoint of its own, so that closing it ends everything that initiator may still have on its
 * way here.
 */
#ifndef TRANSPORT_OFI_SERVE_H
#define TRANSPORT_OFI_SERVE_H

#include <stdint.h>
#include <sys/socket.h>

#include "transport/ofi_wire.h"
#include "util/clock.h"

struct loop;

struct ofi_serve_config {
	struct loop *loop;
	const char *provider; /* the only one to be used; NULL: any */
	uint32_t silence_ms;
	const struct sockaddr_storage *at; /* addresses to listen on */
	unsigned n;
};

/* Listen, and fill the card. SMEM_IO when no address can be listened on. */
int32_t ofi_serve_start(const struct ofi_serve_config *config, struct ofi_card *ret);
void ofi_serve_stop(void);

/* Withdraw a region: ask those who have its key, cut off those who do not answer in time. */
void ofi_serve_withdraw(uint64_t id, struct deadline deadline);

void ofi_serve_forget(void); /* after fork, in the child */

#endif
