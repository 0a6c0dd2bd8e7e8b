/* SPDX-License-Identifier: Apache-2.0 */
/* The owned descriptors are a bit set, so that owning one allocates only when the numbers grow. */
#include "util/fd.h"

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "util/fork.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t *owned;
static size_t owned_words;

static void fork_prepare(void)
{
	pthread_mutex_lock(&lock);
}

static void fork_parent(void)
{
	pthread_mutex_unlock(&lock);
}

static void fork_child(void)
{
	for (size_t w = 0; w < owned_words; w++) {
		for (uint64_t bits = owned[w]; bits; bits &= bits - 1)
			close((int)(w * 64) + __builtin_ctzll(bits));
		owned[w] = 0;
	}
	pthread_mutex_unlock(&lock); /* taken in fork_prepare() */
}

static const struct fork_hooks hooks = {
    .order = FORK_ORDER_FD,
    .prepare = fork_prepare,
    .parent = fork_parent,
    .child = fork_child,
};
FORK_HOOKS(hooks)

static void mark(int fd, int on)
{
	size_t word = (size_t)fd / 64;

	pthread_mutex_lock(&lock);
	if (word >= owned_words && on) {
		size_t words = word + 8;
		uint64_t *grown = realloc(owned, words * sizeof(*grown));
		if (grown) {
			memset(grown + owned_words, 0, (words - owned_words) * sizeof(*grown));
			owned = grown;
			owned_words = words;
		}
	}
	if (word < owned_words) {
		uint64_t bit = 1ULL << ((size_t)fd % 64);
		owned[word] = on ? owned[word] | bit : owned[word] & ~bit;
	}
	pthread_mutex_unlock(&lock);
}

int fd_own(int fd)
{
	if (fd >= 0)
		mark(fd, 1);
	return fd;
}

/* Hardened systems give no other kind (vm.memfd_noexec=2); kernels before 6.3 do not know it. */
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

int fd_memfd(const char *name, unsigned flags)
{
	flags |= MFD_CLOEXEC | MFD_ALLOW_SEALING;
	int fd = memfd_create(name, flags | MFD_NOEXEC_SEAL);
	if (fd < 0 && errno == EINVAL)
		fd = memfd_create(name, flags);
	return fd_own(fd);
}

void fd_disown(int fd)
{
	if (fd >= 0)
		mark(fd, 0);
}

void fd_close(int *fd)
{
	int keep = errno;

	if (*fd < 0)
		return;
	mark(*fd, 0);
	close(*fd);
	*fd = -1;
	errno = keep;
}
