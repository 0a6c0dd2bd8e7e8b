/* SPDX-License-Identifier: Apache-2.0 */
/*
 * getaddrinfo() can block far longer than a caller may wait, and cannot be interrupted: it runs in
 * a thread of its own that owns the question together with the caller; whoever lets go last frees
 * it.
 */
#include "store/net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <linux/tcp.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/env.h"
#include "util/err.h"
#include "util/thread.h"

#define SILENCE_MIN_MS 2500

struct question {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	int refs;
	bool done;
	int error;
	char host[256];
	uint16_t port;
	struct net_addr addr[NET_ADDRS_MAX];
	size_t count;
};

static void question_put(struct question *q)
{
	pthread_mutex_lock(&q->lock);
	bool last = --q->refs == 0;
	pthread_mutex_unlock(&q->lock);
	if (!last)
		return;
	pthread_cond_destroy(&q->cond);
	pthread_mutex_destroy(&q->lock);
	free(q);
}

static void set_port(struct net_addr *a, uint16_t port)
{
	if (a->sa.ss_family == AF_INET6)
		((struct sockaddr_in6 *)&a->sa)->sin6_port = htons(port);
	else
		((struct sockaddr_in *)&a->sa)->sin_port = htons(port);
}

static void *answer(void *arg)
{
	struct question *q = arg;
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_family = AF_UNSPEC};
	struct addrinfo *list = NULL;

	int error = getaddrinfo(q->host, NULL, &hints, &list);
	pthread_mutex_lock(&q->lock);
	for (struct addrinfo *i = list; i && q->count < NET_ADDRS_MAX; i = i->ai_next) {
		if (i->ai_addrlen > sizeof(q->addr[0].sa) ||
		    (i->ai_family != AF_INET && i->ai_family != AF_INET6))
			continue;
		struct net_addr *a = &q->addr[q->count++];
		memcpy(&a->sa, i->ai_addr, i->ai_addrlen);
		a->len = i->ai_addrlen;
		set_port(a, q->port);
	}
	q->error = error;
	q->done = true;
	pthread_cond_signal(&q->cond);
	pthread_mutex_unlock(&q->lock);
	if (list)
		freeaddrinfo(list);
	question_put(q);
	return NULL;
}

static int32_t question_result(struct question *q, struct deadline deadline, struct net_addr *ret,
			       size_t *count)
{
	struct timespec until = deadline_timespec(deadline);
	int32_t r = SMEM_OK;

	pthread_mutex_lock(&q->lock);
	while (!q->done && !deadline_passed(deadline))
		pthread_cond_clockwait(&q->cond, &q->lock, CLOCK_MONOTONIC, &until);
	if (!q->done) {
		r = smem_err(SMEM_TIMEOUT, "host %s: no answer from name resolution", q->host);
	} else if (q->error || q->count == 0) {
		r = smem_err(SMEM_IO, "host %s: %s", q->host,
			     q->error ? gai_strerror(q->error) : "no address");
	} else {
		memcpy(ret, q->addr, q->count * sizeof(*ret));
		*count = q->count;
	}
	pthread_mutex_unlock(&q->lock);
	return r;
}

static int32_t resolve_name(const struct store_url *url, struct deadline deadline,
			    struct net_addr *ret, size_t *count)
{
	struct question *q = calloc(1, sizeof(*q));
	pthread_t thread;

	if (!q)
		return smem_err(SMEM_MALLOC_FAILED, "host %s", url->host);
	pthread_mutex_init(&q->lock, NULL);
	pthread_cond_init(&q->cond, NULL);
	q->refs = 2;
	q->port = url->port;
	memcpy(q->host, url->host, sizeof(q->host));
	int32_t r = thread_start(&thread, "smem-resolve", answer, q);
	if (r != SMEM_OK) {
		q->refs = 1;
	} else {
		pthread_detach(thread);
		r = question_result(q, deadline, ret, count);
	}
	question_put(q);
	return r;
}

int32_t net_resolve(const struct store_url *url, bool connect, struct deadline deadline,
		    struct net_addr *ret, size_t *count)
{
	struct net_addr a = {.len = sizeof(struct sockaddr_in)};
	bool loopback = url->wildcard && connect;

	if (url->family == 0)
		return resolve_name(url, deadline, ret, count);
	a.sa.ss_family = url->family;
	if (url->family == AF_INET6) {
		struct sockaddr_in6 *sin6 = (struct sockaddr_in6 *)&a.sa;
		a.len = sizeof(*sin6);
		inet_pton(AF_INET6, loopback ? "::1" : url->host, &sin6->sin6_addr);
	} else {
		struct sockaddr_in *sin = (struct sockaddr_in *)&a.sa;
		inet_pton(AF_INET, loopback ? "127.0.0.1" : url->host, &sin->sin_addr);
	}
	set_port(&a, url->port);
	ret[0] = a;
	*count = 1;
	return SMEM_OK;
}

void net_tune(int fd, bool loopback)
{
	int on = 1, second = 1;
	int probes = (int)(env_int(ENV_SILENCE_MS) / 1000) - 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (loopback) /* the kernel itself tells of every end */
		return;
	if (probes < 1)
		probes = 1;
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &second, sizeof(second));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &second, sizeof(second));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
}

static bool v4_of(const struct net_addr *a, uint32_t *ret)
{
	if (a->sa.ss_family == AF_INET) {
		*ret = ntohl(((const struct sockaddr_in *)&a->sa)->sin_addr.s_addr);
		return true;
	}
	const struct in6_addr *v6 = &((const struct sockaddr_in6 *)&a->sa)->sin6_addr;
	if (a->sa.ss_family != AF_INET6 || !IN6_IS_ADDR_V4MAPPED(v6))
		return false;
	memcpy(ret, v6->s6_addr + 12, 4);
	*ret = ntohl(*ret);
	return true;
}

bool net_is_loopback(const struct net_addr *a)
{
	uint32_t v4;

	if (v4_of(a, &v4))
		return v4 >> 24 == 127;
	return a->sa.ss_family == AF_INET6 &&
	       IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)&a->sa)->sin6_addr);
}

static bool same_host(const struct net_addr *a, const struct sockaddr *b)
{
	uint32_t v4;

	if (v4_of(a, &v4))
		return b->sa_family == AF_INET &&
		       v4 == ntohl(((const struct sockaddr_in *)b)->sin_addr.s_addr);
	return b->sa_family == AF_INET6 &&
	       memcmp(&((const struct sockaddr_in6 *)&a->sa)->sin6_addr,
		      &((const struct sockaddr_in6 *)b)->sin6_addr, sizeof(struct in6_addr)) == 0;
}

bool net_is_own(const struct net_addr *a)
{
	struct ifaddrs *list;
	bool found = net_is_loopback(a);

	if (found || getifaddrs(&list) != 0)
		return found;
	for (struct ifaddrs *i = list; i && !found; i = i->ifa_next)
		found = i->ifa_addr && same_host(a, i->ifa_addr);
	freeifaddrs(list);
	return found;
}

void net_text(const struct net_addr *a, char *text, size_t cap)
{
	char host[INET6_ADDRSTRLEN] = "?";

	if (a->sa.ss_family == AF_INET6) {
		const struct sockaddr_in6 *sin6 = (const struct sockaddr_in6 *)&a->sa;
		inet_ntop(AF_INET6, &sin6->sin6_addr, host, sizeof(host));
		snprintf(text, cap, "[%s]:%u", host, ntohs(sin6->sin6_port));
	} else {
		const struct sockaddr_in *sin = (const struct sockaddr_in *)&a->sa;
		inet_ntop(AF_INET, &sin->sin_addr, host, sizeof(host));
		snprintf(text, cap, "%s:%u", host, ntohs(sin->sin_port));
	}
}

bool net_silent(int fd, uint64_t now, uint64_t *since)
{
	/* An idle connection hears from a live host once a second: less than two and a half could
	 * be one lost probe. */
	uint64_t limit = (uint64_t)env_int(ENV_SILENCE_MS);
	struct tcp_info info;
	socklen_t len = sizeof(info);

	limit = (limit > SILENCE_MIN_MS ? limit : SILENCE_MIN_MS) - NET_LOOK_MS;
	memset(&info, 0, sizeof(info));
	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) != 0)
		return false;
	if (info.tcpi_unacked > 0 || info.tcpi_notsent_bytes == 0) {
		/* Keepalive or retransmissions make a live host answer every second at least. */
		*since = 0;
		return info.tcpi_last_ack_recv >= limit;
	}
	/* Its window is closed: probes in growing intervals; an answer resets their count. */
	if (info.tcpi_probes < 2)
		*since = 0;
	else if (*since == 0)
		*since = now;
	return *since != 0 && now - *since >= limit * NS_PER_MS;
}
