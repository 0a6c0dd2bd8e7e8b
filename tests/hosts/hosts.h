/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hosts for multi-process tests: network namespaces, each with one interface on a common bridge.
 * Ranks are those of tests/ranks/harness.h; a rank goes to its host first of all. The namespaces
 * have no names: they live as long as the test's processes, and vanish with them however they end.
 *
 * On one host, agents find each other and memory can be mapped. Between hosts nothing but the
 * network leads anywhere: abstract sockets end at the namespace, and CMA, which does not, is
 * forbidden to all ranks.
 *
 * A whole program can be run another way: SMEM_TEST_MTU is that of all interfaces, with
 * SMEM_TEST_IPV6 host_enter() is host_enter_v6(), and runs of more than SMEM_TEST_RANKS ranks are
 * left out.
 */
#ifndef HOSTS_HOSTS_H
#define HOSTS_HOSTS_H

#include "harness.h"

#define HOSTS 3u /* 10.77.0.1 and fd77::1, ... */

/* As ranks_main(); skips everything with a reason where namespaces cannot be made. */
int hosts_main(int argc, char **argv, const struct ranks_case *cases, size_t n);

/* Move this rank to a host, before its first call of the library. r->url is then a store on host 0,
 * at its IPv4 address. */
void host_enter(struct rank *r, unsigned host);
/* The same, and the url is IPv6. */
void host_enter_v6(struct rank *r, unsigned host);
/* What the store's connection would be bound to: a sockaddr with the host's own address; its
 * length. */
size_t host_route(unsigned host, bool v6, void *ret);

/* The network of a host, from any rank; back to normal at the end of the case is the case's duty.
 */
void host_silence(struct rank *r, unsigned host, bool on); /* packets get lost, the carrier stays */
void host_link(struct rank *r, unsigned host, bool up);
/*
 * A firewall at a host, which knows these TCP ports (either end of a connection) and treats what
 * the host sends, or gets, in a way of its own.
 */
enum host_wall {
	HOST_OPEN,	   /* no firewall */
	HOST_LOSE_OTHERS,  /* whatever is sent from or to other ports gets lost */
	HOST_LOSE_THESE,   /* the opposite */
	HOST_REFUSE_OTHERS /* it fails with "prohibited" */
};
void host_wall(struct rank *r, unsigned host, enum host_wall wall, const uint16_t *ports,
	       unsigned n);
void host_mtu(struct rank *r, unsigned mtu); /* of all interfaces */
/* Limit what the host sends; 0: no limit. False: the kernel has no such queue. */
bool host_rate(struct rank *r, unsigned host, unsigned mbit);
/* Lose so many of a hundred packets that the host gets, at random; 0: none. False: there is no nft,
 * or no nf_tables in the kernel. */
bool host_loss(struct rank *r, unsigned host, unsigned percent);
/* netem with these arguments, NULL: off. False: the kernel has none. */
bool host_netem(struct rank *r, unsigned host, const char *args);

#endif
