/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two ends of the network transport, as tests between hosts use them: rank 0 is the target and
 * lives on host 0, the others reach it from host 1. What a completion promises is checked by
 * signals that do not go through the fabric: a page of shared memory and the harness's own
 * channels.
 */
#ifndef HOSTS_ENDS_H
#define HOSTS_ENDS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "hosts.h"
#include "transport/transport.h"
#include "util/err.h"

#define MIB	 (1ul << 20)
#define MEM	 (16 * MIB)
#define LANES	 4u
#define PATIENCE 30000 /* ms; never reached by a run that passes */

static const struct transport_ops *const ofi = &transport_ofi;

/* As RANK_CODE, and says what the layer below the API said. */
#define WANT(r, call, code)                                                                        \
	do {                                                                                       \
		long want_got_ = (long)(call);                                                     \
		if (want_got_ != (long)(code))                                                     \
			rank_fail(r, __FILE__, __LINE__, "%s = %ld, want %ld: %s", #call,          \
				  want_got_, (long)(code), err_detail());                          \
	} while (0)

struct card {
	uint64_t mem, second;
	uint8_t secret[16];
	uint8_t addr[TRANSPORT_ADDR_MAX];
	uint64_t addr_len;
	char shared[64]; /* path of a page that everybody can map */
};

/* The signals outside the fabric. */
struct page {
	_Atomic uint64_t asked, answered, what;
	struct {
		_Atomic uint64_t asked, answered;
	} lane[LANES];
	_Atomic int wrong;
	int byte;
};

extern struct card card;
extern struct page *page;
extern char *mem, *second; /* the target's; mem is exposed */

void target_up(struct rank *r);
void target_down(struct rank *r);
/* Does libfabric have this provider at that address? After host_enter(). */
bool provider_is_there(unsigned host, bool v6, const char *provider);

/* The first two steps of the third. */
void initiator_start(struct rank *r);
/* The target was started anew: use what it publishes now. */
void initiator_follow(struct rank *r);
struct transport_peer peer(void);
struct endpoint *initiator_up(struct rank *r);
void initiator_down(struct endpoint *ep);

struct smem_xfer to(uint64_t at, const void *src, size_t len);
struct smem_xfer from(uint64_t at, void *dst, size_t len);
char *filled(struct rank *r, size_t len, int byte);
bool all(const volatile char *p, size_t len, char byte);

/* Wait for a word to become `want`; other processes change it. */
void await(struct rank *r, _Atomic uint64_t *word, uint64_t want);
void await_more(struct rank *r, _Atomic uint64_t *word, uint64_t than);

#endif
