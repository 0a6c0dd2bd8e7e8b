/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Peers whose memory can neither be mapped nor reached by CMA: libfabric RMA.
 *
 *   ofi_fabric   which provider, a domain of it, an endpoint
 *   ofi_ctl      control connections: small messages, and the notice that a peer is gone
 *   ofi_serve    target: listeners, one endpoint for each initiator, withdrawals
 *   ofi_port     target: domains, and the thread that serves them
 *   ofi_regions  target: what is exposed, and the keys made for it
 *   ofi_link     initiator: one peer, set up and taken down
 *   ofi_keys     initiator: keys the peer gave
 *   ofi_local    initiator: registrations of local memory, for providers that want them
 *   ofi_jobs     initiator: moving bytes
 *   ofi_stage    initiator: many small pieces through a buffer
 *   ofi_wire     what both sides say
 *
 * libfabric moves the bytes. What it does not offer alike over all providers is done over one TCP
 * connection a peer and direction: who may have which key, the withdrawal of a key, the notice of a
 * death, and the fence after a failure. A closed endpoint touches no local memory any more, but
 * bytes that left it may still land: with TCP megabytes lie in the kernels' buffers. So a failure
 * is told to the caller only when the peer has closed its end too, is dead, or was silent for so
 * long that it has given us up before.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "transport/ofi_fds.h"
#include "transport/ofi_link.h"
#include "transport/ofi_local.h"
#include "transport/ofi_port.h"
#include "transport/ofi_regions.h"
#include "transport/ofi_serve.h"
#include "util/cleanup.h"
#include "util/env.h"
#include "util/err.h"
#include "util/fork.h"
#include "util/log.h"
#include "util/loop.h"

static struct {
	struct ofi_process process;
	struct ofi_card card;
	char provider[OFI_PROVIDER];
} self;

struct found {
	struct sockaddr_storage at[OFI_HOSTS];
	unsigned n;
};

static socklen_t size_of(const struct sockaddr *sa)
{
	return sa->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
}

static bool is_ip(const struct sockaddr *sa)
{
	return sa && (sa->sa_family == AF_INET || sa->sa_family == AF_INET6);
}

static bool is_loopback(const struct sockaddr *sa)
{
	if (sa->sa_family == AF_INET)
		return ntohl(((const struct sockaddr_in *)sa)->sin_addr.s_addr) >> 24 == 127;
	return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)sa)->sin6_addr);
}

static bool is_link_local(const struct sockaddr *sa)
{
	return sa->sa_family == AF_INET6 &&
	       IN6_IS_ADDR_LINKLOCAL(&((const struct sockaddr_in6 *)sa)->sin6_addr);
}

static void add(struct found *f, const struct sockaddr *sa)
{
	if (f->n < OFI_HOSTS)
		memcpy(&f->at[f->n++], sa, size_of(sa));
}

static bool same_host(const struct sockaddr *a, const struct sockaddr *b)
{
	char x[64], y[64];

	return strcmp(ofi_sockaddr_text(a, false, x, sizeof(x)),
		      ofi_sockaddr_text(b, false, y, sizeof(y))) == 0;
}

/* Addresses of interfaces that are up: those of `want` (a name or an address), or all that lead
 * out. */
static void add_interfaces(struct found *f, const char *want)
{
	struct ifaddrs *all = NULL;
	char text[64];

	if (getifaddrs(&all) != 0)
		return;
	for (struct ifaddrs *i = all; i; i = i->ifa_next) {
		if (!is_ip(i->ifa_addr) || !(i->ifa_flags & IFF_UP) || is_link_local(i->ifa_addr))
			continue;
		ofi_sockaddr_text(i->ifa_addr, false, text, sizeof(text));
		if (want ? strcmp(want, i->ifa_name) == 0 || strcmp(want, text) == 0
			 : !is_loopback(i->ifa_addr))
			add(f, i->ifa_addr);
	}
	freeifaddrs(all);
}

/*
 * Where peers find this process. The local end of the connection to the store is on the network
 * that all share. When that is loopback (the store is on this host, or its name resolves to it)
 * peers elsewhere need the others.
 */
static int32_t own_addresses(const struct sockaddr *route, struct found *f)
{
	const char *want = env_str(ENV_FABRIC_INTERFACE);

	if (*want) {
		add_interfaces(f, want);
		return f->n ? SMEM_OK
			    : smem_err(SMEM_NOT_SUPPORTED, "%s=%s: no such interface or address",
				       env_entries[ENV_FABRIC_INTERFACE].name, want);
	}
	struct sockaddr_in lo = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	if (!route)
		route = (const struct sockaddr *)&lo;
	add(f, route);
	if (is_loopback(route))
		add_interfaces(f, NULL);
	for (unsigned i = 1; i < f->n; i++) {
		if (same_host((struct sockaddr *)&f->at[i], route))
			f->at[i--] = f->at[--f->n];
	}
	return SMEM_OK;
}

static int32_t ofi_start(const void *route, size_t route_len)
{
	const struct sockaddr *sa = route_len >= sizeof(struct sockaddr_in) ? route : NULL;
	const char *provider = env_str(ENV_FABRIC_PROVIDER);
	struct found f = {.n = 0};

	int32_t r = own_addresses(is_ip(sa) ? sa : NULL, &f);
	if (r != SMEM_OK)
		return r;
	self.process = (struct ofi_process){.silence_ms = (uint32_t)env_int(ENV_SILENCE_MS)};
	if (*provider) {
		snprintf(self.provider, sizeof(self.provider), "%s", provider);
		self.process.provider = self.provider;
	}
	r = loop_create("smem-ofi", &self.process.loop);
	if (r != SMEM_OK)
		return r;
	struct ofi_serve_config config = {
	    .loop = self.process.loop,
	    .provider = self.process.provider,
	    .silence_ms = self.process.silence_ms,
	    .at = f.at,
	    .n = f.n,
	};
	r = ofi_serve_start(&config, &self.card);
	if (r != SMEM_OK)
		loop_destroy(self.process.loop);
	return r;
}

static void ofi_stop(void)
{
	ofi_serve_stop();
	loop_destroy(self.process.loop);
	ofi_regions_clear();
	ofi_ports_stop();
	ofi_offers_forget();
	memset(&self, 0, sizeof(self));
}

static int32_t ofi_address(void *buf, size_t *len)
{
	if (*len < sizeof(self.card))
		return smem_err(SMEM_ERROR, "%zu bytes for an address of %zu", *len,
				sizeof(self.card));
	memcpy(buf, &self.card, sizeof(self.card));
	*len = sizeof(self.card);
	return SMEM_OK;
}

static int32_t ofi_expose(uint64_t id, void *addr, size_t len, int writable,
			  const uint8_t secret[16])
{
	return ofi_regions_add(id, addr, len, writable != 0, secret);
}

static int32_t ofi_withdraw(uint64_t id, struct deadline deadline)
{
	ofi_serve_withdraw(id, deadline);
	ofi_local_withdraw(id);
	return SMEM_OK;
}

static int32_t ofi_connect(const struct transport_peer *peer, struct deadline deadline,
			   struct endpoint **ret)
{
	struct ofi_link *l = NULL;

	if (!peer->addr)
		return smem_err(SMEM_UNREACHABLE, "%s offers no fabric", peer->name);
	int32_t r = ofi_link_new(&self.process, peer, &l);
	if (r != SMEM_OK)
		return r;
	pthread_mutex_lock(&l->lock);
	r = ofi_link_ready(l, deadline);
	pthread_mutex_unlock(&l->lock);
	if (r != SMEM_OK) {
		ofi_link_free(l);
		bool ours = r == SMEM_MALLOC_FAILED || r == SMEM_NEW_OBJECT_FAILED;
		return ours ? r : smem_err(SMEM_UNREACHABLE, "%s", err_detail());
	}
	*ret = &l->base;
	return SMEM_OK;
}

static void ofi_close(struct endpoint *ep)
{
	if (ep)
		ofi_link_free((struct ofi_link *)ep);
}

static int32_t ofi_put(struct endpoint *ep, const struct smem_xfer *x, size_t n)
{
	return ofi_link_move((struct ofi_link *)ep, x, n, true);
}

static int32_t ofi_get(struct endpoint *ep, const struct smem_xfer *x, size_t n)
{
	return ofi_link_move((struct ofi_link *)ep, x, n, false);
}

static void ofi_abandon(struct endpoint *ep)
{
	struct ofi_link *l = (struct ofi_link *)ep;

	pthread_mutex_lock(&l->lock);
	l->abandoned = true;
	ofi_link_break(l, "the peer is lost");
	pthread_mutex_unlock(&l->lock);
}

static void ofi_via(struct endpoint *ep, char *buf, size_t cap)
{
	struct ofi_link *l = (struct ofi_link *)ep;

	LOCKED(&l->lock);
	snprintf(buf, cap, "%s", l->provider);
}

const struct transport_ops transport_ofi = {
    .name = "ofi",
    .start = ofi_start,
    .stop = ofi_stop,
    .address = ofi_address,
    .expose = ofi_expose,
    .withdraw = ofi_withdraw,
    .connect = ofi_connect,
    .close = ofi_close,
    .put = ofi_put,
    .get = ofi_get,
    .abandon = ofi_abandon,
    .via = ofi_via,
};

static void fork_child(void)
{
	ofi_fds_drop();
	ofi_serve_forget();
	ofi_regions_forget();
	ofi_local_forget();
	ofi_ports_forget();
	ofi_offers_drop();
	memset(&self, 0, sizeof(self));
}

static const struct fork_hooks hooks = {.order = FORK_ORDER_DEVICE, .child = fork_child};
FORK_HOOKS(hooks)
