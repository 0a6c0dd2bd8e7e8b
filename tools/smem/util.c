/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "smem.h"
#include "tool.h"

#define PORT_TRIES 16

void complain(const char *fmt, ...)
{
	va_list ap;

	fflush(stdout);
	flockfile(stderr);
	fputs("smem: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	funlockfile(stderr);
}

int complain_smem(const char *what)
{
	const char *last = smem_get_last_err_msg();

	complain("%s%s%s", what, *last ? ": " : "", last);
	return EXIT_FAILURE;
}

uint16_t free_port(const char *host)
{
	struct sockaddr_in v4 = {.sin_family = AF_INET};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
	bool is_v6 = inet_pton(AF_INET6, host, &v6.sin6_addr) == 1;
	struct sockaddr *addr = is_v6 ? (struct sockaddr *)&v6 : (struct sockaddr *)&v4;
	socklen_t len = is_v6 ? sizeof(v6) : sizeof(v4);
	uint16_t port = 0;
	int fd;

	if (!is_v6 && inet_pton(AF_INET, host, &v4.sin_addr) != 1)
		v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	fd = socket(addr->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return 0;
	if (bind(fd, addr, len) == 0 && getsockname(fd, addr, &len) == 0)
		port = ntohs(is_v6 ? v6.sin6_port : v4.sin_port);
	close(fd);
	return port;
}

int32_t store_host_any(char *url, size_t cap)
{
	int32_t r = SMEM_IO;

	/* Between the look and the listening somebody else may take the port. */
	for (int i = 0; i < PORT_TRIES; i++) {
		snprintf(url, cap, "tcp://127.0.0.1:%u", free_port("127.0.0.1"));
		r = smem_create_config_store(url);
		if (r != SMEM_RESOURCE_IN_USE)
			break;
	}
	return r;
}

double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

char *size_text(char *buf, size_t cap, uint64_t bytes)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
	double value = (double)bytes;
	size_t u = 0;

	for (; value >= 1024 && u + 1 < sizeof(units) / sizeof(units[0]); u++)
		value /= 1024;
	if (value == (double)(uint64_t)value)
		snprintf(buf, cap, "%.0f %s", value, units[u]);
	else
		snprintf(buf, cap, "%.1f %s", value, units[u]);
	return buf;
}

uint64_t parse_size(const char *text)
{
	static const char units[] = "kmgt";
	char *end;
	double value;

	if (*text < '0' || *text > '9')
		return UINT64_MAX;
	value = strtod(text, &end);
	if (*end) {
		const char *u = strchr(units, *end | 0x20);
		if (!u || !*u)
			return UINT64_MAX;
		value *= (double)(1ull << (10 * (u - units + 1)));
		end++;
		if (strcmp(end, "iB") != 0 && strcmp(end, "B") != 0 && *end)
			return UINT64_MAX;
	}
	return value < 1e18 ? (uint64_t)value : UINT64_MAX;
}
