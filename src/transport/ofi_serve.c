/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All of it runs on the transport's loop, so a connection's state needs no lock. A client walks
 * challenge -> hello -> ready and may then ask for regions. Who sends nonsense, a wrong code or
 * nothing at all is cut.
 *
 * The order in which a connection ends is what its initiator relies on: first the endpoint, then
 * the control connection. Seen from there, an end of file or CUT_DONE means that nothing more lands
 * here. When the initiator's host is silent this side gives up first (half the silence time), so
 * that bytes which the network still holds find no endpoint when the link comes back.
 *
 * A withdrawal asks every peer that was given the key to let go (REVOKE), because a peer that is
 * writing would otherwise see its connection break; who has not answered after WITHDRAW_ASK_MS is
 * cut, and nobody else notices.
 */
#include "transport/ofi_serve.h"

#include <errno.h>
#include <event2/event.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <utlist.h>

#include "transport/ofi_ctl.h"
#include "transport/ofi_fds.h"
#include "transport/ofi_regions.h"
#include "util/err.h"
#include "util/fd.h"
#include "util/limits.h"
#include "util/log.h"
#include "util/loop.h"
#include "util/rng.h"

#define BACKLOG	    1024
#define TICKS	    4	/* looks at a silent client before it is given up */
#define SILENCE_MIN 100 /* of a client that wants to be given up soon */

struct grant { /* a region whose key a client was given */
	struct grant *next;
	uint64_t id;
	bool revoking;
};

struct client {
	struct client *prev, *next;
	struct ofi_ctl *ctl;
	struct event *timer; /* no hello in time; then, its silence */
	uint32_t silence_ms;
	unsigned probes; /* sent while it is not heard */
	struct ofi_nonces nonces;
	struct ofi_port *port;
	struct ofi_ep ep;
	struct fid_mr *probe_mr;
	uint8_t probe[OFI_PROBE];
	struct grant *grants;
	char name[64];
};

struct listener {
	int fd;
	struct event *ev;
};

static struct {
	struct ofi_serve_config config;
	struct ofi_card card;
	char provider[OFI_PROVIDER];
	struct listener listener[OFI_HOSTS];
	unsigned listeners;
	struct client *clients;
	unsigned count;
} serve;

static void close_ep(struct client *c)
{
	if (!c->port)
		return;
	ofi_regions_unbind(c->port, &c->ep);
	ofi_port_put(c->port, &c->ep, c->probe_mr);
	c->port = NULL;
	c->probe_mr = NULL;
	while (c->grants) {
		struct grant *g = c->grants;
		c->grants = g->next;
		if (g->revoking)
			ofi_regions_released(g->id);
		free(g);
	}
}

static void client_free(struct client *c)
{
	close_ep(c);
	if (c->timer)
		event_free(c->timer);
	ofi_ctl_free(c->ctl);
	DL_DELETE(serve.clients, c);
	serve.count--;
	free(c);
}

static void client_refuse(struct client *c, const char *why)
{
	LOG_WARN("ofi", "client %s cut off: %s", c->name, why);
	client_free(c);
}

static int32_t open_ep(struct client *c, const struct ofi_hello *h, struct ofi_ready *ready)
{
	struct sockaddr_storage local;
	const struct ofi_offer *offer;
	char provider[OFI_PROVIDER + 1] = "";

	memcpy(provider, h->provider, OFI_PROVIDER);
	if (serve.config.provider && strcmp(serve.config.provider, provider) != 0)
		return smem_err(SMEM_NOT_SUPPORTED, "provider %s is not to be used here, only %s",
				provider, serve.config.provider);
	ofi_ctl_local(c->ctl, &local);
	int32_t r = ofi_offer_get((struct sockaddr *)&local, provider, 0, &offer);
	if (r == SMEM_OK)
		r = ofi_port_get(offer, &c->port);
	if (r != SMEM_OK)
		return r;
	pthread_mutex_lock(&c->port->lock);
	r = ofi_ep_open(&c->port->dom, &c->ep);
	if (r == SMEM_OK)
		r = ofi_memory_open(&c->port->dom, &c->ep, c->probe, sizeof(c->probe),
				    FI_REMOTE_READ, &c->probe_mr, &ready->probe_addr);
	/* Providers that are not bound to IP addresses want to know whom they answer. */
	if (r == SMEM_OK && offer->info->addr_format != FI_SOCKADDR_IN &&
	    offer->info->addr_format != FI_SOCKADDR_IN6) {
		fi_addr_t addr;
		if (fi_av_insert(c->port->dom.av, h->addr, 1, &addr, 0, NULL) != 1)
			r = smem_err(SMEM_IO, "fi_av_insert refuses the peer's address");
	}
	pthread_mutex_unlock(&c->port->lock);
	return r;
}

/* Give up before the initiator does, whichever of us is the more patient. */
static void watch_silence(struct client *c, uint32_t silence_ms)
{
	c->silence_ms = serve.config.silence_ms;
	if (silence_ms >= SILENCE_MIN && silence_ms < c->silence_ms)
		c->silence_ms = silence_ms;
	ofi_ctl_silence(c->ctl, c->silence_ms / 2);
	event_del(c->timer);
	if (c->silence_ms < OFI_KEEPALIVE_MS)
		event_add(c->timer, &(struct timeval){.tv_usec = 1});
}

static void on_hello(struct client *c, const struct ofi_hello *h)
{
	struct ofi_ready ready = {0};
	uint8_t want[OFI_CODE];

	memcpy(c->nonces.initiator, h->nonce, sizeof(h->nonce));
	ofi_code(serve.card.key, sizeof(serve.card.key), "hello", &c->nonces, 0, want);
	if (c->ep.ep || h->addr_len > OFI_EP_ADDR || !ofi_code_equal(want, h->code)) {
		client_refuse(c, "it does not know this process's key");
		return;
	}
	watch_silence(c, h->silence_ms);
	ofi_code(serve.card.key, sizeof(serve.card.key), "probe", &c->nonces, 0, c->probe);
	ready.result = open_ep(c, h, &ready);
	if (ready.result != SMEM_OK) {
		strncpy(ready.text, err_detail(), sizeof(ready.text) - 1);
		close_ep(c);
	} else {
		ready.addr_len = c->ep.addr_len;
		memcpy(ready.addr, c->ep.addr, sizeof(ready.addr));
		ready.probe_key = ofi_mask(serve.card.key, sizeof(serve.card.key), &c->nonces, 0,
					   fi_mr_key(c->probe_mr));
	}
	ofi_code(serve.card.key, sizeof(serve.card.key), "ready", &c->nonces, 0, ready.code);
	ofi_ctl_send(c->ctl, OFI_READY, &ready);
}

static void on_resolve(struct client *c, const struct ofi_resolve *q)
{
	struct ofi_region region = {.seq = q->seq};
	uint8_t secret[16];
	struct grant *g;

	if (!c->grants) /* it has connected by now */
		ofi_fds_connections(c->ep.addr, c->ep.addr_len);
	region.result =
	    ofi_regions_resolve(q->addr, q->code, &c->nonces, c->port, &c->ep, &region, secret);
	if (region.result == SMEM_OK) {
		region.key = ofi_mask(secret, sizeof(secret), &c->nonces, region.id, region.key);
		LL_SEARCH_SCALAR(c->grants, g, id, region.id);
		if (!g && (g = calloc(1, sizeof(*g)))) {
			g->id = region.id;
			LL_PREPEND(c->grants, g);
		}
		if (!g)
			region.result = SMEM_MALLOC_FAILED;
	}
	ofi_ctl_send(c->ctl, OFI_REGION, &region);
}

static void on_revoked(struct client *c, uint64_t id)
{
	for (struct grant **at = &c->grants; *at; at = &(*at)->next) {
		struct grant *g = *at;
		if (g->id != id)
			continue;
		*at = g->next;
		if (g->revoking)
			ofi_regions_released(id);
		free(g);
		return;
	}
}

static void on_msg(void *arg, const struct ofi_msg *m)
{
	struct client *c = arg;

	if (m->head.type == OFI_HELLO) {
		on_hello(c, &m->hello);
	} else if (m->head.type == OFI_CUT) {
		close_ep(c);
		ofi_ctl_send(c->ctl, OFI_CUT_DONE, &m->id);
	} else if (!c->ep.ep) {
		client_refuse(c, "a request before its hello");
	} else if (m->head.type == OFI_PING) {
		struct ofi_pulse pong = {.sent_ns = m->pulse.sent_ns, .turns = ofi_ports_turns()};
		ofi_ctl_send(c->ctl, OFI_PONG, &pong);
	} else if (m->head.type == OFI_RESOLVE) {
		on_resolve(c, &m->resolve);
	} else if (m->head.type == OFI_REVOKED) {
		on_revoked(c, m->id.id);
	} else {
		client_refuse(c, "a message that targets do not get");
	}
}

static void on_end(void *arg, int err)
{
	struct client *c = arg;

	LOG_DEBUG("ofi", "client %s is gone: %s", c->name, err ? strerror(err) : "end of file");
	client_free(c);
}

/* The kernel's keepalive is in whole seconds: who gives up sooner than that notices needs ours. */
static void on_tick(struct client *c)
{
	uint32_t limit = c->silence_ms / 2;
	struct ofi_pulse none = {.sent_ns = 0};
	bool unacked;
	uint32_t heard = ofi_ctl_heard_ms(c->ctl, &unacked);

	if (heard >= limit && unacked && c->probes > 1) { /* else it is us who were not there */
		LOG_DEBUG("ofi", "client %s is silent for %" PRIu32 " ms", c->name, heard);
		client_free(c);
		return;
	}
	c->probes = heard >= limit / 2 ? c->probes + 1 : 0;
	if (c->probes > 0)
		ofi_ctl_send(c->ctl, OFI_PONG, &none);
	event_add(c->timer, &(struct timeval){.tv_usec = (long)limit * 1000 / TICKS});
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct client *c = arg;

	(void)fd;
	(void)what;
	if (c->silence_ms)
		on_tick(c);
	else
		client_refuse(c, "no hello in time");
}

static void client_new(int fd, const struct sockaddr_storage *from)
{
	static const struct ofi_ctl_ops ops = {.msg = on_msg, .end = on_end};
	struct timeval late = {.tv_sec = OFI_HELLO_MS / 1000, .tv_usec = OFI_HELLO_MS % 1000};
	struct ofi_challenge hi = {.magic = OFI_MAGIC, .version = OFI_VERSION};
	struct client *c = calloc(1, sizeof(*c));

	if (!c || serve.count >= OFI_CLIENTS_MAX || rng_bytes(hi.nonce, sizeof(hi.nonce)) != 0) {
		LOG_WARN("ofi", "client refused: no room");
		free(c);
		fd_close(&fd);
		return;
	}
	ofi_sockaddr_text((const struct sockaddr *)from, true, c->name, sizeof(c->name));
	memcpy(c->nonces.target, hi.nonce, sizeof(hi.nonce));
	hi.token = serve.card.token;
	DL_APPEND(serve.clients, c);
	serve.count++;
	int32_t r =
	    ofi_ctl_accept(serve.config.loop, fd, serve.config.silence_ms / 2, &ops, c, &c->ctl);
	c->timer = evtimer_new(loop_base(serve.config.loop), on_timer, c);
	if (r != SMEM_OK || !c->timer || evtimer_add(c->timer, &late) != 0) {
		client_free(c);
		return;
	}
	ofi_ctl_send(c->ctl, OFI_CHALLENGE, &hi);
}

static void on_accept(evutil_socket_t fd, short what, void *arg)
{
	struct sockaddr_storage from;
	socklen_t len = sizeof(from);

	(void)what;
	(void)arg;
	int client =
	    fd_own(accept4(fd, (struct sockaddr *)&from, &len, SOCK_CLOEXEC | SOCK_NONBLOCK));
	if (client >= 0)
		client_new(client, &from);
}

static int listen_at(const struct sockaddr_storage *at, uint16_t *ret_port)
{
	struct sockaddr_storage sa = *at;
	socklen_t len =
	    at->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
	struct ofi_host any;
	int on = 1;

	int fd = fd_own(socket(sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
	if (fd < 0)
		return -1;
	/* The port of the address is that of another connection: 0, any free one. */
	ofi_host_put(&any, (struct sockaddr *)at, 0);
	if (at->ss_family == AF_INET) {
		ofi_host_get(&any, &sa);
	} else {
		struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&sa;
		in6->sin6_port = 0;
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
	}
	if (bind(fd, (struct sockaddr *)&sa, len) != 0 || listen(fd, BACKLOG) != 0 ||
	    getsockname(fd, (struct sockaddr *)&sa, &len) != 0) {
		fd_close(&fd);
		return -1;
	}
	*ret_port = at->ss_family == AF_INET6 ? ntohs(((struct sockaddr_in6 *)&sa)->sin6_port)
					      : ntohs(((struct sockaddr_in *)&sa)->sin_port);
	return fd;
}

static void start_on_loop(void *arg)
{
	int32_t *r = arg;

	for (unsigned i = 0; i < serve.config.n && serve.listeners < OFI_HOSTS; i++) {
		struct listener *l = &serve.listener[serve.listeners];
		uint16_t port = 0;
		l->fd = listen_at(&serve.config.at[i], &port);
		if (l->fd < 0) {
			*r = smem_errno(SMEM_IO, errno, "listen for peers");
			continue;
		}
		l->ev = event_new(loop_base(serve.config.loop), l->fd, EV_READ | EV_PERSIST,
				  on_accept, NULL);
		if (!l->ev || event_add(l->ev, NULL) != 0) {
			fd_close(&l->fd);
			*r = smem_err(SMEM_MALLOC_FAILED, "listener");
			continue;
		}
		ofi_host_put(&serve.card.host[serve.listeners],
			     (const struct sockaddr *)&serve.config.at[i], port);
		serve.listeners++;
	}
	if (serve.listeners > 0)
		*r = SMEM_OK;
}

static void stop_on_loop(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < serve.listeners; i++) {
		if (serve.listener[i].ev)
			event_free(serve.listener[i].ev);
		fd_close(&serve.listener[i].fd);
	}
	serve.listeners = 0;
	while (serve.clients)
		client_free(serve.clients);
}

int32_t ofi_serve_start(const struct ofi_serve_config *config, struct ofi_card *ret)
{
	int32_t r = smem_err(SMEM_IO, "no address to listen on");

	memset(&serve, 0, sizeof(serve));
	serve.config = *config;
	serve.card = (struct ofi_card){.version = OFI_VERSION, .token = rng_u64()};
	if (config->provider) {
		strncpy(serve.provider, config->provider, sizeof(serve.provider) - 1);
		serve.config.provider = serve.provider;
	}
	if (rng_bytes(serve.card.key, sizeof(serve.card.key)) != 0)
		return err_code();
	loop_call(config->loop, start_on_loop, &r);
	if (r != SMEM_OK) {
		ofi_serve_stop();
		return r;
	}
	serve.card.hosts = serve.listeners;
	*ret = serve.card;
	return SMEM_OK;
}

void ofi_serve_stop(void)
{
	loop_call(serve.config.loop, stop_on_loop, NULL);
}

static void revoke_on_loop(void *arg)
{
	struct ofi_id id = {.id = *(uint64_t *)arg};
	struct client *c;

	DL_FOREACH(serve.clients, c)
	{
		struct grant *g;
		LL_SEARCH_SCALAR(c->grants, g, id, id.id);
		if (!g || g->revoking)
			continue;
		g->revoking = true;
		ofi_regions_await(id.id, 1);
		ofi_ctl_send(c->ctl, OFI_REVOKE, &id);
	}
}

static void cut_on_loop(void *arg)
{
	uint64_t id = *(uint64_t *)arg;
	struct client *c, *next;

	DL_FOREACH_SAFE(serve.clients, c, next)
	{
		struct grant *g;
		LL_SEARCH_SCALAR(c->grants, g, id, id);
		if (g)
			client_refuse(c, "it holds on to a region that was withdrawn");
	}
}

void ofi_serve_withdraw(uint64_t id, struct deadline deadline)
{
	struct deadline ask = deadline_in_ms(OFI_WITHDRAW_ASK_MS);

	if (!ofi_regions_hide(id))
		return;
	if (deadline.end < ask.end)
		ask = deadline;
	loop_call(serve.config.loop, revoke_on_loop, &id);
	if (!ofi_regions_wait(id, ask))
		loop_call(serve.config.loop, cut_on_loop, &id);
	ofi_regions_remove(id);
}

void ofi_serve_forget(void)
{
	memset(&serve, 0, sizeof(serve));
}
