/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A link: one peer as an initiator reaches it. A control connection, and a domain with one endpoint
 * that talks to the endpoint which the peer opened for us alone. Both can be closed, here and
 * there, without disturbing anybody else; that is what makes an error final.
 *
 * `lock` guards the lists and flags and is held briefly. The *lead* is the exclusive right to touch
 * the endpoint, its queue and `op`, and to set the link up or take it down: `led` says that a
 * thread has it. Callbacks on the loop take the lock only.
 */
#ifndef TRANSPORT_OFI_LINK_H
#define TRANSPORT_OFI_LINK_H

#include <pthread.h>
#include <stdatomic.h>

#include "transport/ofi_ctl.h"
#include "transport/ofi_fabric.h"
#include "transport/ofi_keys.h"
#include "transport/ofi_local.h"
#include "transport/ofi_watch.h"
#include "transport/transport.h"
#include "util/limits.h"

#define LINK_SEGMENTS 4u /* pieces of one operation, at most; also the provider's limit */

struct ofi_process { /* what all links of the process share */
	struct loop *loop;
	const char *provider; /* NULL: the best */
	uint32_t silence_ms;
};

struct link_job;

struct link_op {		    /* one operation in flight */
	struct fi_context2 context; /* first: what a completion names */
	struct link_op *next_free;
	struct link_job *job;
	unsigned n;
	size_t bytes;
	struct iovec local[LINK_SEGMENTS];
	struct fi_rma_iov remote[LINK_SEGMENTS];
	struct ofi_key *key[LINK_SEGMENTS];
	struct ofi_local_reg *reg[LINK_SEGMENTS]; /* where the provider wants it */
	void *desc[LINK_SEGMENTS];
	char *stage;	 /* OFI_STAGE bytes, from its first use on */
	unsigned pieces; /* that go through it; 0: all is in place */
	size_t at[3];	 /* the first of them: piece, row, byte in the row */
	uint64_t begin;	 /* its address at the peer */
};

struct link_ask { /* a thread that waits for a region */
	struct link_ask *next;
	uint64_t seq;
	bool done;
	int32_t result;
};

struct ofi_link {
	struct endpoint base;
	const struct ofi_process *process;
	char name[64];
	struct ofi_card card;
	uint8_t secret[16];

	pthread_mutex_t lock;
	pthread_cond_t cond; /* anything below changed */
	bool led;
	bool up;		     /* the endpoint can be used, unless broken */
	bool broken;		     /* to be taken down by the next who leads */
	bool abandoned;		     /* for good */
	bool was_up;		     /* ever: a refusal now means that the process is gone */
	bool sleeping;		     /* the leader is in poll(2) */
	int wake;		     /* eventfd for it */
	bool silent;		     /* it broke because nothing was heard */
	bool stuck;		     /* it broke because nothing moved */
	char provider[OFI_PROVIDER]; /* that it came up with last */
	char why[OFI_TEXT];	     /* it broke */
	uint64_t tried_ns;	     /* end of the last try to set it up, which failed with: */
	int32_t tried_code;
	char tried_text[512];

	struct ofi_ctl *ctl; /* the pointer: lock; what it points to: the loop */
	bool ended;	     /* the control connection did */
	int end_err;
	bool have_up, have_challenge, have_ready, have_cut;
	struct ofi_challenge challenge;
	struct ofi_ready ready;
	struct ofi_pulse pong; /* the last one, and when it came */
	uint64_t pong_ns;
	struct sockaddr_storage local;
	struct ofi_nonces nonces;

	struct link_ask *asks;
	uint64_t seq;
	struct ofi_keys keys;
	struct link_job *jobs;

	struct ofi_domain dom; /* the lead's, from here */
	struct ofi_watch watch;
	struct ofi_ep ep;
	struct ofi_local memory; /* around every use of the two: ofi_local_enter() */
	fi_addr_t peer;
	unsigned segments; /* pieces of one operation */
	size_t chunk;	   /* bytes of one operation, at most */
	size_t inflight;   /* bytes */
	struct link_op *free_ops;
	struct link_op op[OFI_OPS];
};

int32_t ofi_link_new(const struct ofi_process *process, const struct transport_peer *peer,
		     struct ofi_link **ret);
void ofi_link_free(struct ofi_link *l); /* nobody is inside */

/*
 * With the lock held, which is dropped meanwhile. Bring the link up if it is not, or wait for the
 * thread that does. SMEM_PEER_LOST, SMEM_UNREACHABLE naming what was tried.
 */
int32_t ofi_link_ready(struct ofi_link *l, struct deadline deadline);

/*
 * With the lead, without the lock. Close the endpoint, so that nothing of the operations in flight
 * touches memory here; then make sure that none of them lands at the peer any more: it says so, or
 * its control connection ends, or it is silent for as long as it takes to give us up itself.
 */
void ofi_link_down(struct ofi_link *l);

/*
 * The pieces of that, with the lead. Dial brings the link up; call starts a control connection, and
 * hang up ends it, and with it what belongs to it. Wait for *flag, which the loop sets; false: the
 * connection ended, the link was abandoned or the deadline passed.
 */
int32_t ofi_link_dial(struct ofi_link *l, struct deadline deadline);
int32_t ofi_link_call(struct ofi_link *l, const struct sockaddr *to, socklen_t len);
void ofi_link_hang_up(struct ofi_link *l);
bool ofi_link_wait(struct ofi_link *l, const bool *flag, struct deadline deadline);

/* It broke because nothing is heard from the peer's host; the lock is held. */
bool ofi_link_silent(const struct ofi_link *l);

/* Broken, because: the lock is held. */
void ofi_link_break(struct ofi_link *l, const char *why);

/* The lock is held and nobody leads; given back with a broadcast. */
void ofi_link_lead(struct ofi_link *l);
void ofi_link_unlead(struct ofi_link *l);

/* Ask for the region that holds addr. The lock is held, and dropped meanwhile. SMEM_STALE: none;
 * SMEM_UNREACHABLE: the link broke. */
int32_t ofi_link_ask(struct ofi_link *l, uint64_t addr, bool writable);

/* An operation that used the key ended; the lock is held. */
void ofi_link_key_done(struct ofi_link *l, struct ofi_key *key);

/* Free all operations, and take their jobs off the list as cut; the lock and the lead are held. */
void ofi_jobs_cut(struct ofi_link *l);

int32_t ofi_link_move(struct ofi_link *l, const struct smem_xfer *x, size_t n, bool put);

#endif
