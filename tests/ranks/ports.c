/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ports for a run. They lie below the ephemeral range, so that no outgoing connection takes one
 * meanwhile, and are locked against other test programs by an abstract socket of that number.
 */
#include <arpa/inet.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "wire.h"

static int lock_port(unsigned port)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int n = snprintf(a.sun_path + 1, sizeof(a.sun_path) - 1, "smem-test-port-%u", port);

	if (fd < 0 || bind(fd, (struct sockaddr *)&a,
			   (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n))) {
		if (fd >= 0)
			close(fd);
		return -1;
	}
	return fd;
}

static bool port_free(unsigned port)
{
	struct sockaddr_in a = {.sin_family = AF_INET,
				.sin_port = htons((uint16_t)port),
				.sin_addr.s_addr = htonl(INADDR_ANY)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool ok = fd >= 0 && bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0;

	if (fd >= 0)
		close(fd);
	return ok;
}

int port_take(uint16_t *ret)
{
	static uint64_t state;
	unsigned low = 32768;
	FILE *f = fopen("/proc/sys/net/ipv4/ip_local_port_range", "re");

	if (f && fscanf(f, "%u", &low) != 1)
		low = 32768;
	if (f)
		fclose(f);
	if (state == 0)
		state = (uint64_t)getpid() << 20 ^ rank_ms();
	unsigned from = low > 12000 ? 10000 : 1024;
	for (;;) {
		unsigned port = from + (unsigned)(rank_random(&state) % (low - from));
		int fd = port_free(port) ? lock_port(port) : -1;
		if (fd < 0)
			continue;
		*ret = (uint16_t)port;
		return fd;
	}
}
