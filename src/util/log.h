/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Log records. A record below the level is not formatted. The sink is standard error, or the one
 * function the user set; it is called without any library lock held, and records made by its own
 * thread meanwhile are dropped. `tag` is the noun that speaks: LOG_WARN("store", "client %s cut
 * off: %s", ...) prints "[store] client ...". Callable from any thread; may block as long as the
 * sink does.
 */
#ifndef UTIL_LOG_H
#define UTIL_LOG_H

#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_LEVEL_DEBUG = 0, LOG_LEVEL_INFO = 1, LOG_LEVEL_WARN = 2, LOG_LEVEL_ERROR = 3 };

extern int log_level_now; /* atomic; read through log_enabled() */

static inline bool log_enabled(enum log_level level)
{
	return (int)level >= __atomic_load_n(&log_level_now, __ATOMIC_RELAXED);
}

void log_write(enum log_level level, const char *tag, const char *fmt, ...)
    __attribute__((format(printf, 3, 4), cold));

/* level 0..3, checked by the caller. func may be NULL only inside the Python binding's reset:
 * default sink. */
void log_set_level(int level);
void log_set_sink(void (*func)(int level, const char *msg));

#define LOG_AT(level, tag, ...)                                                                    \
	do {                                                                                       \
		if (log_enabled(level))                                                            \
			log_write(level, tag, __VA_ARGS__);                                        \
	} while (0)
#define LOG_DEBUG(tag, ...) LOG_AT(LOG_LEVEL_DEBUG, tag, __VA_ARGS__)
#define LOG_INFO(tag, ...)  LOG_AT(LOG_LEVEL_INFO, tag, __VA_ARGS__)
#define LOG_WARN(tag, ...)  LOG_AT(LOG_LEVEL_WARN, tag, __VA_ARGS__)
#define LOG_ERROR(tag, ...) LOG_AT(LOG_LEVEL_ERROR, tag, __VA_ARGS__)

#endif
