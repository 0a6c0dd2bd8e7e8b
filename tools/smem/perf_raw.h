/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The yardstick of writes between hosts: libfabric and nothing else. One endpoint a side, both
 * sides spin. Functions return 0, or -1 with the reason in raw_why().
 */
#ifndef SMEM_TOOL_PERF_RAW_H
#define SMEM_TOOL_PERF_RAW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct raw;

/* How a target is reached; crosses the network as it is. */
struct raw_card {
	char provider[32];
	uint64_t key;
	uint64_t start; /* the exposed memory's address there */
	uint64_t rma;	/* and what a request calls it */
	uint32_t addr_len;
	uint8_t addr[256];
};

/* Opens an endpoint at the IP address `node`. provider "": what $SMEM_FABRIC_PROVIDER says, else
 * the first there is, in the library's order. NULL: none. */
struct raw *raw_open(const char *node, const char *provider);
void raw_close(struct raw *w); /* NULL is fine */
const char *raw_why(void);
const char *raw_provider(const struct raw *w);

/* The target's side: opens `mem` to the writer. */
int raw_expose(struct raw *w, void *mem, size_t len, struct raw_card *ret);
/* It serves, on a thread that spins, from spin to rest. */
int raw_spin(struct raw *w);
void raw_rest(struct raw *w);

/* The writer's side. mem: where all its pieces are. */
int raw_connect(struct raw *w, const struct raw_card *c, void *mem, size_t len);

struct raw_move {
	bool read;
	size_t n; /* pieces */
	const void **near;
	void **far; /* addresses at the target */
	const size_t *len;
	/* Cut into requests of at most so many bytes, so many of them in flight; 0: a request takes
	 * as many pieces as the provider allows, and all are in flight. */
	size_t cut, flight;
};

/* Returns when all were delivered; reading: have come. */
int raw_move(struct raw *w, const struct raw_move *m);

#endif
