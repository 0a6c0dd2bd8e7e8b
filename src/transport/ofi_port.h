/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ports: where this process is a target. One domain a provider and local address, with one endpoint
 * for each initiator, and one thread that serves them all: no provider moves a byte into memory
 * unless somebody calls it.
 */
#ifndef TRANSPORT_OFI_PORT_H
#define TRANSPORT_OFI_PORT_H

#include <pthread.h>

#include "transport/ofi_fabric.h"

struct ofi_port {
	struct ofi_port *next;
	pthread_mutex_t lock; /* of the domain and all in it */
	struct ofi_domain dom;
	bool single; /* for one initiator: goes with it */
	bool closed;
};

/* The port of that offer, made if need be. ofi_port_get() and _put(): one thread at a time. */
int32_t ofi_port_get(const struct ofi_offer *offer, struct ofi_port **ret);
/* An initiator is gone: close its endpoint and, of a single port, everything; keys that are bound
 * to them are closed already, but for `mr`. */
void ofi_port_put(struct ofi_port *p, struct ofi_ep *ep, struct fid_mr *mr);

/* How often the thread has looked at its queues. It is made to look again, so the number grows
 * unless the thread cannot run. One thread at a time, as above. */
uint64_t ofi_ports_turns(void);

/* Stop the thread and close all; their endpoints and memory are closed already. */
void ofi_ports_stop(void);

/* After fork, in the child. */
void ofi_ports_forget(void);

#endif
