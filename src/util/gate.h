/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A gate: many threads pass at almost no cost, one thread now and then waits until everybody who
 * was inside has left, while newcomers keep passing. It is sleepable read-copy-update for one
 * object: readers run between gate_enter() and gate_exit(); a writer changes what they look at,
 * calls gate_drain(), and may then free it.
 *
 *   reader: ticket = gate_enter(&g); if (state is live) use it; gate_exit(&g, ticket);
 *   writer: state = dead; gate_drain(&g, deadline); free it;
 *
 * The gate itself must outlive the last gate_exit(): keep it in memory that is never freed (a
 * handle's entry).
 */
#ifndef UTIL_GATE_H
#define UTIL_GATE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "util/clock.h"
#include "util/turn.h"

#define GATE_SHARDS 16u

struct gate_shard {
	_Alignas(64) _Atomic uint32_t inside[2]; /* by phase; also the futex words of a drain */
};						 /* shard 0: for whoever has none of its own */

struct gate {
	struct gate_shard shard[GATE_SHARDS];
	_Alignas(64) _Atomic uint32_t phase;
	_Atomic uint32_t draining;
	struct turn drains; /* one at a time */
};

/* All zero is a valid gate; gate_init() for memory that is not. */
void gate_init(struct gate *g);

/* Any thread, never blocks, nests. The ticket goes back to gate_exit(), on the same thread. */
uint32_t gate_enter(struct gate *g);
void gate_exit(struct gate *g, uint32_t ticket);

/*
 * Wait until every reader that was inside when this was called has left. Never from inside the
 * gate; drains wait for each other. True when drained; false when the deadline passed first.
 */
bool gate_drain(struct gate *g, struct deadline deadline);

#endif
