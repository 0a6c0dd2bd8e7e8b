/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Descriptors. All are close-on-exec. Those given to fd_own() are closed in a forked child without
 * a word to peers; fd_close() forgets and closes. Thread-safe.
 */
#ifndef UTIL_FD_H
#define UTIL_FD_H

/* Remember `fd` for the child of a fork and return it; -1 passes through. */
int fd_own(int fd);

/* A new memfd, owned, that can be sealed and not executed; `flags` beside those that say so. -1
 * with errno. */
int fd_memfd(const char *name, unsigned flags);

/* Forget without closing: somebody else closes it now. */
void fd_disown(int fd);

/* Close *fd if it is >= 0, forget it, and set it to -1. errno is kept. Twice is fine. */
void fd_close(int *fd);

#endif
