/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One record is one write(2) to standard error, so lines of threads and processes do not mix. No
 * lock is held around the sink and none is needed: the sink is one atomic pointer, so the log works
 * in a forked child too.
 */
#include "util/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define RECORD_MAX 2048

int log_level_now = LOG_LEVEL_WARN;

typedef void (*log_sink)(int level, const char *msg);
static _Atomic(log_sink) sink;
static __thread bool inside_sink __attribute__((tls_model("initial-exec")));

static const char *const level_names[] = {"debug", "info", "warn", "error"};

void log_set_level(int level)
{
	__atomic_store_n(&log_level_now, level, __ATOMIC_RELAXED);
}

void log_set_sink(void (*func)(int level, const char *msg))
{
	atomic_store(&sink, func);
}

static void write_stderr(enum log_level level, const char *text)
{
	struct timespec now;
	struct tm tm;
	char line[RECORD_MAX + 64];

	clock_gettime(CLOCK_REALTIME, &now);
	localtime_r(&now.tv_sec, &tm);
	int n =
	    snprintf(line, sizeof(line), "%04d-%02d-%02d %02d:%02d:%02d.%06ld %s %ld %s\n",
		     tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec,
		     now.tv_nsec / 1000, level_names[level], syscall(SYS_gettid), text);
	if (n > 0 && write(STDERR_FILENO, line, (size_t)n) < 0)
		return; /* nowhere left to say so */
}

void log_write(enum log_level level, const char *tag, const char *fmt, ...)
{
	char text[RECORD_MAX];
	va_list ap;

	if (inside_sink)
		return;
	int n = snprintf(text, sizeof(text), "[%s] ", tag);
	va_start(ap, fmt);
	vsnprintf(text + n, sizeof(text) - (size_t)n, fmt, ap);
	va_end(ap);
	for (char *c = text; *c; c++) {
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			*c = '?';
	}
	log_sink func = atomic_load(&sink);
	if (!func) {
		write_stderr(level, text);
		return;
	}
	inside_sink = true;
	func((int)level, text);
	inside_sink = false;
}
