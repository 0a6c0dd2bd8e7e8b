/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A TCP port kept for this process: bound on IPv4 and IPv6, never listening. Zero-filled is "none".
 * No locks: the caller holds the GIL for the list, and none for port_reserve().
 */
#ifndef SMEM_PY_PORT_H
#define SMEM_PY_PORT_H

#include <stdbool.h>
#include <stdint.h>

struct port {
	uint16_t number; /* 0: none */
	int fd4, fd6;	 /* fd6 -1 where there is no IPv6 */
	void *owner;	 /* the caller's */
	struct port *next, *prev;
};

/* A free port of 15000..17000, else of 17001..25000, chosen at random; number 0 when none is. Does
 * not wait; some thousand system calls at worst. */
void port_reserve(struct port *ret);
/* Frees the port; fine when there is none. */
void port_release(struct port *p);

/* The ports of this process, so that a forked child can let go of them. */
void port_list_add(struct port *p);
void port_list_remove(struct port *p);
/* Releases those whose owner `which` says yes to; all when it is NULL. */
void port_list_drop(bool (*which)(const void *owner));

#endif
