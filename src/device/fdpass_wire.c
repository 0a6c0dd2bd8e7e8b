/* SPDX-License-Identifier: Apache-2.0 */
#include "device/fdpass_wire.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util/cleanup.h"
#include "util/env.h"
#include "util/err.h"
#include "util/rng.h"

#define PATH_NAME_BYTES 16 /* of the random name; the length of socket paths is scarce */

bool agent_frame_ok(const struct agent_frame *f, ssize_t n)
{
	return n == (ssize_t)sizeof(*f) && f->version == AGENT_VERSION && f->type >= AGENT_HELLO &&
	       f->type <= AGENT_BYE && f->info_len <= AGENT_INFO;
}

int agent_frame_send(int fd, const struct agent_frame *f, int pass)
{
	struct iovec iov = {.iov_base = (void *)f, .iov_len = sizeof(*f)};
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	if (pass >= 0) {
		memset(&control, 0, sizeof(control));
		msg.msg_control = control.buf;
		msg.msg_controllen = sizeof(control.buf);
		struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &pass, sizeof(int));
	}
	while (sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
		if (errno != EINTR)
			return errno;
	}
	return 0;
}

static void hex(const uint8_t *bytes, size_t n, char *ret)
{
	for (size_t i = 0; i < n; i++)
		sprintf(ret + 2 * i, "%02x", bytes[i]);
}

void agent_sock_abstract(const struct agent_addr *addr, struct agent_sock *ret)
{
	char name[2 * sizeof(addr->name) + 1];

	hex(addr->name, sizeof(addr->name), name);
	*ret = (struct agent_sock){.sun.sun_family = AF_UNIX};
	int n = snprintf(ret->sun.sun_path + 1, sizeof(ret->sun.sun_path) - 1, "smem-%s", name);
	ret->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
}

bool agent_sock_path(const struct agent_addr *addr, struct agent_sock *ret)
{
	const char *dir = env_str(ENV_RUNTIME_DIR);
	char name[2 * PATH_NAME_BYTES + 1];

	if (dir[0] == '\0')
		return false;
	hex(addr->name, PATH_NAME_BYTES, name);
	*ret = (struct agent_sock){.sun.sun_family = AF_UNIX, .len = sizeof(ret->sun)};
	int n = snprintf(ret->sun.sun_path, sizeof(ret->sun.sun_path), "%s/smem-%s", dir, name);
	return n > 0 && (size_t)n < sizeof(ret->sun.sun_path);
}

/* "xxxxxxxx-xxxx-...": 16 bytes in hexadecimal. All zero when there is none to be had. */
static void read_boot_id(uint8_t ret[16])
{
	char text[64] = "";
	size_t n = 0;
	auto_fd int fd = fd_own(open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC));

	if (fd < 0 || read(fd, text, sizeof(text) - 1) <= 0)
		return;
	for (const char *p = text; *p && n < 16; p++) {
		unsigned byte;
		if (*p == '-')
			continue;
		if (sscanf(p, "%2x", &byte) != 1)
			break;
		ret[n++] = (uint8_t)byte;
		p++;
	}
}

int32_t agent_addr_make(struct agent_addr *ret)
{
	struct agent_addr addr = {.version = AGENT_VERSION, .pid = (uint32_t)getpid()};
	struct stat st;
	int32_t r = rng_bytes(addr.name, sizeof(addr.name));

	if (r != SMEM_OK)
		return r;
	read_boot_id(addr.boot_id);
	if (stat("/proc/self/ns/net", &st) == 0)
		addr.netns = (uint32_t)st.st_ino;
	*ret = addr;
	return SMEM_OK;
}

bool agent_same_host(const struct agent_addr *addr)
{
	uint8_t own[sizeof(addr->boot_id)] = {0};

	read_boot_id(own);
	return memcmp(own, addr->boot_id, sizeof(own)) == 0;
}

bool agent_cred(int fd, struct ucred *ret)
{
	socklen_t len = sizeof(*ret);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, ret, &len) == 0 && len == sizeof(*ret);
}

int agent_socket(void)
{
	return fd_own(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
}
