/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The `smem` command. It is a user of the library like any other: public headers only.
 *
 * Each subcommand is one function with the arguments from its own name on, that returns the exit
 * status: 0 all well, 1 something failed or did not match, 2 bad usage.
 */
#ifndef SMEM_TOOL_H
#define SMEM_TOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proc.h"

#define EXIT_USAGE 2

int cmd_demo(int argc, char **argv);
int cmd_store(int argc, char **argv);
int cmd_perf(int argc, char **argv);
int cmd_info(int argc, char **argv);

/* What a process that this program started again (proc.h) does, by name. */
struct child_entry {
	const char *name;
	int (*run)(struct child *c);
};
extern const struct child_entry child_entries[]; /* ends with a NULL name */

/* "smem: " text to standard error. */
void complain(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* The same, and the library's last error. Returns 1, the exit status. */
int complain_smem(const char *what);

/* A store in this process at an unused port of 127.0.0.1; writes its URL. 0 or a code. */
int32_t store_host_any(char *url, size_t cap);

/* A TCP port nobody uses on `host` right now; 0: none (errno). */
uint16_t free_port(const char *host);

/* Seconds on the monotonic clock. */
double now_s(void);

/* "64 B", "4 KiB", "1.5 MiB" into buf, returned. */
char *size_text(char *buf, size_t cap, uint64_t bytes);
/* "4096", "64K", "1.5M", "2GiB": bytes; UINT64_MAX: not understood. */
uint64_t parse_size(const char *text);

#endif
