/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Locals that own: `auto_free char *s`, `auto_fd int fd = -1`. Disarm with take_ptr(&s) /
 * take_fd(&fd) when the ownership moves on; every error path is then a plain return.
 */
#ifndef UTIL_CLEANUP_H
#define UTIL_CLEANUP_H

#include <pthread.h>
#include <stdlib.h>

#include "util/fd.h"

static inline void cleanup_free(void *p)
{
	free(*(void **)p);
}

static inline void cleanup_unlock(pthread_mutex_t **m)
{
	if (*m)
		pthread_mutex_unlock(*m);
}

#define CLEANUP(fn) __attribute__((cleanup(fn)))
#define auto_free   CLEANUP(cleanup_free)
#define auto_fd	    CLEANUP(fd_close)

/* Hold `m` until the end of the block. */
#define LOCKED_CAT2(a, b) a##b
#define LOCKED_CAT(a, b)  LOCKED_CAT2(a, b)
#define LOCKED(m)                                                                                  \
	CLEANUP(cleanup_unlock)                                                                    \
	__attribute__((unused)) pthread_mutex_t *LOCKED_CAT(locked_, __LINE__) =                   \
	    (pthread_mutex_lock(m), (m))

#define take_ptr(p)                                                                                \
	__extension__({                                                                            \
		__typeof__(*(p)) taken_ = *(p);                                                    \
		*(p) = NULL;                                                                       \
		taken_;                                                                            \
	})

static inline int take_fd(int *fd)
{
	int taken = *fd;

	*fd = -1;
	return taken;
}

#endif
