/* SPDX-License-Identifier: Apache-2.0 */
/* The three-state futex lock. A waiter that gave up may leave a 2 behind: one needless wake. */
#include "util/turn.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

bool turn_take_slow(struct turn *turn, struct deadline deadline)
{
	struct timespec until = deadline_timespec(deadline);

	while (atomic_exchange(&turn->word, 2) != 0) {
		if (deadline_passed(deadline))
			return false;
		syscall(SYS_futex, &turn->word, FUTEX_WAIT_BITSET_PRIVATE, 2, &until, NULL,
			FUTEX_BITSET_MATCH_ANY);
	}
	return true;
}

void turn_wake(struct turn *turn)
{
	syscall(SYS_futex, &turn->word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}
