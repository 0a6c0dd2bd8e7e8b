/* SPDX-License-Identifier: Apache-2.0 */
/* What the controller and its ranks say to each other: one SEQPACKET message each way. */
#ifndef RANKS_WIRE_H
#define RANKS_WIRE_H

#include "harness.h"

#define WIRE_TAG 64u
#define WIRE_ENV "SMEM_TEST_RANK" /* case:rank:size:life:seed:start:fd:port,port,... */

enum wire_op {
	WIRE_MEET, /* arg: how many */
	WIRE_GATHER,
	WIRE_PUT,
	WIRE_GET,
	WIRE_KILL, /* arg: rank */
	WIRE_STOP,
	WIRE_CONT,
	WIRE_SPAWN,
	WIRE_MAY_DIE,
	WIRE_NOTE, /* no reply, as the rest */
	WIRE_FAIL,
	WIRE_SKIP,
	WIRE_DONE
};

struct wire_msg {
	uint32_t op;
	uint32_t arg;
	uint32_t len;
	char tag[WIRE_TAG];
	uint8_t data[RANK_DATA_MAX];
};
#define WIRE_HEAD offsetof(struct wire_msg, data)

/* Become the rank that the environment describes; does not return to a controller's work. */
int rank_run(const char *env, const struct ranks_case *cases, size_t n);

/* A free TCP port, kept by the descriptor that is returned. */
int port_take(uint16_t *ret);

#endif
