/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is remembered is a socket's inode beside its number: libfabric closes descriptors without a
 * word to us, and the number may be somebody else's by the time of a fork.
 *
 * Only kinds that libfabric opens are touched (event polls, pairs of Unix sockets, IP sockets),
 * only those that are not close-on-exec, and only those that appeared during the call.
 */
#include "transport/ofi_fds.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util/cleanup.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct known {
	int fd;
	ino_t inode;
} * known;
static size_t count, capacity;

static bool still(const struct known *k)
{
	struct stat st;

	return fstat(k->fd, &st) == 0 && S_ISSOCK(st.st_mode) && st.st_ino == k->inode;
}

static void remember(int fd, ino_t inode)
{
	struct known *slot = NULL;

	LOCKED(&lock);
	for (size_t i = 0; i < count && !slot; i++) {
		if (known[i].fd == fd || !still(&known[i]))
			slot = &known[i];
	}
	if (!slot && count == capacity) {
		size_t want = capacity ? 2 * capacity : 32;
		struct known *grown = realloc(known, want * sizeof(*grown));
		if (!grown)
			return; /* a child will hold it until it ends */
		known = grown;
		capacity = want;
	}
	if (!slot)
		slot = &known[count++];
	*slot = (struct known){.fd = fd, .inode = inode};
}

static bool is_eventpoll(int fd)
{
	char path[32], target[32] = "";

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return readlink(path, target, sizeof(target) - 1) > 0 &&
	       strcmp(target, "anon_inode:[eventpoll]") == 0;
}

/* One that may be libfabric's: close it on exec; sockets also in a child. */
static void claim(int fd)
{
	struct stat st;
	int flags = fcntl(fd, F_GETFD);

	if (flags < 0 || (flags & FD_CLOEXEC) || fstat(fd, &st) != 0)
		return;
	bool sock = S_ISSOCK(st.st_mode);
	if (!sock && !is_eventpoll(fd))
		return;
	fcntl(fd, F_SETFD, flags | FD_CLOEXEC);
	if (sock)
		remember(fd, st.st_ino);
}

static void each_fd(void (*fn)(int fd, void *arg), void *arg)
{
	DIR *d = opendir("/proc/self/fd");
	struct dirent *e;

	while (d && (e = readdir(d))) {
		int fd = atoi(e->d_name);
		if (e->d_name[0] >= '0' && e->d_name[0] <= '9' && fd != dirfd(d))
			fn(fd, arg);
	}
	if (d)
		closedir(d);
}

static void see(int fd, void *arg)
{
	struct ofi_fds_seen *seen = arg;

	if ((size_t)fd < 8 * sizeof(seen->bit))
		seen->bit[fd / 8] |= (unsigned char)(1u << fd % 8);
}

static void claim_new(int fd, void *arg)
{
	const struct ofi_fds_seen *seen = arg;

	if ((size_t)fd < 8 * sizeof(seen->bit) && !(seen->bit[fd / 8] & 1u << fd % 8))
		claim(fd);
}

void ofi_fds_before(struct ofi_fds_seen *seen)
{
	memset(seen, 0, sizeof(*seen));
	each_fd(see, seen);
}

void ofi_fds_after(const struct ofi_fds_seen *seen)
{
	each_fd(claim_new, (void *)(uintptr_t)seen);
}

static uint16_t port_of(const struct sockaddr_storage *sa)
{
	struct sockaddr_in in;
	struct sockaddr_in6 in6;

	memcpy(&in, sa, sizeof(in));
	memcpy(&in6, sa, sizeof(in6));
	return sa->ss_family == AF_INET	   ? in.sin_port
	       : sa->ss_family == AF_INET6 ? in6.sin6_port
					   : 0;
}

static void claim_port(int fd, void *arg)
{
	const struct sockaddr_storage *of = arg;
	struct sockaddr_storage own = {0}, peer = {0};
	socklen_t own_len = sizeof(own), peer_len = sizeof(peer);

	if (getsockname(fd, (struct sockaddr *)&own, &own_len) != 0)
		return;
	getpeername(fd, (struct sockaddr *)&peer, &peer_len);
	if (own.ss_family == of->ss_family &&
	    (port_of(&own) == port_of(of) || port_of(&peer) == port_of(of)))
		claim(fd);
}

void ofi_fds_connections(const void *addr, size_t len)
{
	struct sockaddr_storage of = {0};

	if (len > sizeof(of))
		return;
	memcpy(&of, addr, len);
	if (port_of(&of) != 0)
		each_fd(claim_port, &of);
}

struct movement {
	struct sockaddr_storage own, peer;
	uint64_t bytes;
	bool seen;
	char congestion[OFI_CONGESTION];
};

static bool same_address(const struct sockaddr_storage *a, const struct sockaddr_storage *b)
{
	struct sockaddr_in x, y;
	struct sockaddr_in6 x6, y6;

	if (a->ss_family != b->ss_family || port_of(a) != port_of(b))
		return false;
	memcpy(&x, a, sizeof(x));
	memcpy(&y, b, sizeof(y));
	memcpy(&x6, a, sizeof(x6));
	memcpy(&y6, b, sizeof(y6));
	return a->ss_family == AF_INET ? x.sin_addr.s_addr == y.sin_addr.s_addr
				       : IN6_ARE_ADDR_EQUAL(&x6.sin6_addr, &y6.sin6_addr);
}

static bool is_between(int fd, const struct movement *m)
{
	struct sockaddr_storage own = {0}, peer = {0};
	socklen_t own_len = sizeof(own), peer_len = sizeof(peer);

	if (getsockname(fd, (struct sockaddr *)&own, &own_len) != 0 ||
	    getpeername(fd, (struct sockaddr *)&peer, &peer_len) != 0)
		return false;
	return same_address(&peer, &m->peer) || same_address(&own, &m->own);
}

static void add_movement(int fd, void *arg)
{
	struct tcp_info info = {0};
	socklen_t len = sizeof(info);
	struct movement *m = arg;

	if (!is_between(fd, m))
		return;
	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) != 0)
		return;
	m->bytes += info.tcpi_bytes_acked + info.tcpi_bytes_received;
	m->seen = true;
}

static void take_congestion(int fd, void *arg)
{
	struct movement *m = arg;
	socklen_t len = sizeof(m->congestion);

	if (is_between(fd, m) &&
	    getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, m->congestion, &len) == 0)
		m->seen = true;
}

/* False: these are no addresses of sockets. */
static bool movement_of(const void *own, size_t own_len, const void *peer, size_t peer_len,
			struct movement *ret)
{
	*ret = (struct movement){.seen = false};
	if (own_len > sizeof(ret->own) || peer_len > sizeof(ret->peer))
		return false;
	memcpy(&ret->own, own, own_len);
	memcpy(&ret->peer, peer, peer_len);
	return port_of(&ret->own) != 0 && port_of(&ret->peer) != 0;
}

bool ofi_fds_congestion(const void *own, size_t own_len, const void *peer, size_t peer_len,
			char ret[OFI_CONGESTION])
{
	struct movement m;

	if (!movement_of(own, own_len, peer, peer_len, &m))
		return false;
	each_fd(take_congestion, &m);
	if (!m.seen)
		return false;
	memcpy(ret, m.congestion, OFI_CONGESTION);
	ret[OFI_CONGESTION - 1] = '\0';
	return true;
}

bool ofi_fds_moved(const void *own, size_t own_len, const void *peer, size_t peer_len,
		   uint64_t *ret)
{
	struct movement m;

	*ret = 0;
	if (!movement_of(own, own_len, peer, peer_len, &m))
		return false;
	each_fd(add_movement, &m);
	*ret = m.bytes;
	return m.seen;
}

void ofi_fds_drop(void)
{
	for (size_t i = 0; i < count; i++) {
		if (still(&known[i]))
			close(known[i].fd);
	}
	count = 0;
	pthread_mutex_init(&lock, NULL);
}
