/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A lock with a deadline on the monotonic clock. (pthread_mutex_clocklock() is one too, but the
 * thread sanitizers in use do not see it.) All zero is a free one; nothing to destroy. Not fair.
 */
#ifndef UTIL_TURN_H
#define UTIL_TURN_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "util/clock.h"

struct turn {
	_Atomic uint32_t word; /* 0 free, 1 taken, 2 taken and maybe waited for */
};

/* False: the deadline passed. */
bool turn_take_slow(struct turn *turn, struct deadline deadline);
void turn_wake(struct turn *turn);

static inline bool turn_take(struct turn *turn, struct deadline deadline)
{
	uint32_t is_free = 0;

	return atomic_compare_exchange_strong(&turn->word, &is_free, 1) ||
	       turn_take_slow(turn, deadline);
}

static inline void turn_give(struct turn *turn)
{
	if (atomic_exchange(&turn->word, 0) == 2)
		turn_wake(turn);
}

static inline void turn_cleanup(struct turn **turn)
{
	if (*turn)
		turn_give(*turn);
}

/* A turn taken is given back at the end of the block. */
#define auto_turn __attribute__((cleanup(turn_cleanup), unused)) struct turn *

#endif
