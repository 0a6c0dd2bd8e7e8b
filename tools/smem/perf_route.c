/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which address data between hosts is to use: the library takes the one by which this host reaches
 * the store, so the bare means that are measured beside it do the same. The kernel is asked for a
 * route by connecting a datagram socket, which sends nothing.
 */
#include <arpa/inet.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "perf_hosts.h"

#define INTERFACE "SMEM_FABRIC_INTERFACE"
#define DIAL_MS	  2000

/* A list to free with freeaddrinfo(); NULL: the URL names no host. */
static struct addrinfo *url_find(const char *url)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list = NULL;
	const char *at = strstr(url, "://"), *colon;
	char host[256];

	at = at ? at + 3 : url;
	colon = strrchr(at, ':');
	if (!colon || colon == at || (size_t)(colon - at) >= sizeof(host))
		return NULL;
	snprintf(host, sizeof(host), "%.*s", (int)(colon - at), at);
	size_t n = strlen(host);
	if (host[0] == '[' && host[n - 1] == ']') {
		memmove(host, host + 1, n - 2);
		host[n - 2] = '\0';
	}
	return getaddrinfo(host, colon + 1, &hints, &list) == 0 ? list : NULL;
}

bool route_store_listens(const char *url)
{
	struct addrinfo *list = url_find(url);
	bool there = false;

	for (const struct addrinfo *a = list; a && !there; a = a->ai_next) {
		int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		struct pollfd p = {.fd = fd, .events = POLLOUT};
		int err = -1;
		socklen_t len = sizeof(err);
		if (fd < 0)
			continue;
		if (connect(fd, a->ai_addr, a->ai_addrlen) == 0)
			there = true;
		else if (poll(&p, 1, DIAL_MS) == 1 &&
			 getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) == 0)
			there = err == 0;
		close(fd);
	}
	if (list)
		freeaddrinfo(list);
	return there;
}

static void text_of(const struct sockaddr *sa, char *ret, size_t cap)
{
	const void *at =
	    sa->sa_family == AF_INET6
		? (const void *)&((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr
		: (const void *)&((const struct sockaddr_in *)(const void *)sa)->sin_addr;

	if (!inet_ntop(sa->sa_family, at, ret, (socklen_t)cap))
		*ret = '\0';
}

/* The interface of r->own; or, if `want` is the name or the address of one, that and its address.
 */
static void by_interface(struct route *r, const char *want)
{
	struct ifaddrs *list = NULL;
	bool named = false;
	char text[64];

	if (getifaddrs(&list) != 0)
		return;
	for (const struct ifaddrs *i = list; i; i = i->ifa_next) {
		if (!i->ifa_addr ||
		    (i->ifa_addr->sa_family != AF_INET && i->ifa_addr->sa_family != AF_INET6))
			continue;
		text_of(i->ifa_addr, text, sizeof(text));
		if (strcmp(want ? want : r->own, text) != 0 &&
		    (!want || named || strcmp(want, i->ifa_name) != 0))
			continue;
		named = true;
		snprintf(r->own, sizeof(r->own), "%s", text);
		snprintf(r->interface, sizeof(r->interface), "%s", i->ifa_name);
	}
	freeifaddrs(list);
}

/* The own address towards another; the socket stays for questions. -1: no route. */
static int towards(const struct sockaddr *sa, socklen_t len, char *ret_own, size_t cap)
{
	int fd = socket(sa->sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct sockaddr_storage own;
	socklen_t n = sizeof(own);

	if (fd >= 0 && connect(fd, sa, len) == 0 &&
	    getsockname(fd, (struct sockaddr *)&own, &n) == 0) {
		text_of((const struct sockaddr *)&own, ret_own, cap);
		return fd;
	}
	if (fd >= 0)
		close(fd);
	return -1;
}

int route_own(struct route *r, const char *url)
{
	struct addrinfo *list = url_find(url);
	const char *want = getenv(INTERFACE);
	int fd = -1;

	*r = (struct route){0};
	for (const struct addrinfo *a = list; a && fd < 0; a = a->ai_next)
		fd = towards(a->ai_addr, a->ai_addrlen, r->own, sizeof(r->own));
	if (list)
		freeaddrinfo(list);
	if (fd < 0)
		return -1;
	close(fd);
	by_interface(r, want && *want ? want : NULL);
	return 0;
}

void route_peer(struct route *r, const char *peer)
{
	struct addrinfo hints = {.ai_socktype = SOCK_DGRAM, .ai_flags = AI_NUMERICHOST};
	struct addrinfo *list = NULL;
	socklen_t len = sizeof(r->mtu);
	char ignored[64];
	int fd = -1;

	snprintf(r->peer, sizeof(r->peer), "%s", peer);
	if (getaddrinfo(peer, "9", &hints, &list) == 0) {
		fd = towards(list->ai_addr, list->ai_addrlen, ignored, sizeof(ignored));
		bool v6 = list->ai_family == AF_INET6;
		if (fd < 0 || getsockopt(fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IPV6_MTU : IP_MTU,
					 &r->mtu, &len) != 0)
			r->mtu = 0;
		freeaddrinfo(list);
	}
	if (fd >= 0)
		close(fd);
}
