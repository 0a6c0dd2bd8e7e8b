/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SO_REUSEADDR lets a port be taken again at once although old connections linger; two processes
 * that bind at the same time are told apart by listen(). A taken port is tried again in small steps
 * because nobody tells when it becomes free.
 */
#include "store/listen.h"

#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/socket.h>

#include "store/net.h"
#include "util/cleanup.h"
#include "util/err.h"
#include "util/fd.h"

#define PAUSE_MS 20

/* errno, or 0. */
static int listen_try(const struct net_addr *a, int *ret)
{
	auto_fd int fd =
	    fd_own(socket(a->sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
	int on = 1, off = 0;

	if (fd < 0)
		return errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (a->sa.ss_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
	if (bind(fd, (const struct sockaddr *)&a->sa, a->len) != 0 || listen(fd, SOMAXCONN) != 0)
		return errno;
	*ret = take_fd(&fd);
	return 0;
}

/* Of the addresses of a name the first that is of this machine. */
static int listen_any(const struct net_addr *list, size_t n, int *ret)
{
	int err = EADDRNOTAVAIL;

	for (size_t i = 0; i < n && err == EADDRNOTAVAIL; i++)
		err = listen_try(&list[i], ret);
	return err;
}

static void pause_until(struct deadline end)
{
	pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
	struct timespec until = deadline_timespec(end);

	pthread_mutex_lock(&lock);
	while (pthread_cond_clockwait(&cond, &lock, CLOCK_MONOTONIC, &until) == 0)
		;
	pthread_mutex_unlock(&lock);
}

static int32_t listen_error(const struct store_url *url, int err)
{
	switch (err) {
	case EADDRINUSE:
		return smem_err(SMEM_RESOURCE_IN_USE,
				"config store %s: the port is taken by another process", url->text);
	case EADDRNOTAVAIL:
		return smem_err(SMEM_INVALID_PARAM,
				"config store %s: the host is not an address of this machine",
				url->text);
	case EMFILE:
	case ENFILE:
	case ENOBUFS:
		return smem_errno(SMEM_NEW_OBJECT_FAILED, err, "config store %s: socket",
				  url->text);
	default:
		return smem_errno(SMEM_IO, err, "config store %s: cannot listen", url->text);
	}
}

int32_t listen_open(const struct store_url *url, struct deadline retry, int *ret)
{
	struct net_addr list[NET_ADDRS_MAX];
	size_t n = 0;

	/* A look-up gets a moment even where the port would be tried only once. */
	struct deadline lookup = deadline_in_ms(2000);
	if (lookup.end < retry.end)
		lookup = retry;
	int32_t r = net_resolve(url, false, lookup, list, &n);
	if (r != SMEM_OK)
		return r;
	for (;;) {
		int err = listen_any(list, n, ret);
		if (err == 0)
			return SMEM_OK;
		if (err != EADDRINUSE || deadline_passed(retry))
			return listen_error(url, err);
		pause_until(deadline_in_ms(PAUSE_MS));
	}
}
