/* SPDX-License-Identifier: Apache-2.0 */
/* Monotonic time and overall deadlines. */
#ifndef UTIL_CLOCK_H
#define UTIL_CLOCK_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#define NS_PER_S  1000000000ULL
#define NS_PER_MS 1000000ULL

static inline uint64_t clock_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

/* When a call must have ended. `start` is kept for "after N ms" in messages. */
struct deadline {
	uint64_t start;
	uint64_t end;
};

static inline struct deadline deadline_in_ms(uint64_t ms)
{
	uint64_t now = clock_ns();

	return (struct deadline){.start = now, .end = now + ms * NS_PER_MS};
}

static inline struct deadline deadline_in_s(uint32_t s)
{
	return deadline_in_ms((uint64_t)s * 1000);
}

/* Milliseconds left, rounded up, 0 when passed, at most INT_MAX: fit for poll(). */
static inline int deadline_left_ms(struct deadline d)
{
	uint64_t now = clock_ns();

	if (now >= d.end)
		return 0;
	uint64_t ms = (d.end - now + NS_PER_MS - 1) / NS_PER_MS;
	return ms > INT_MAX ? INT_MAX : (int)ms;
}

static inline bool deadline_passed(struct deadline d)
{
	return clock_ns() >= d.end;
}

static inline uint64_t deadline_elapsed_ms(struct deadline d)
{
	return (clock_ns() - d.start) / NS_PER_MS;
}

/* The absolute CLOCK_MONOTONIC time, for pthread_cond_clockwait() and FUTEX_WAIT_BITSET. */
static inline struct timespec deadline_timespec(struct deadline d)
{
	return (struct timespec){.tv_sec = (time_t)(d.end / NS_PER_S),
				 .tv_nsec = (long)(d.end % NS_PER_S)};
}

#endif
