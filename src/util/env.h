/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The project's own environment variables, one table. It produces the parser here, the list in
 * `smem info` and docs/environment.md. A variable is read at its first use after load; a malformed
 * value logs one warning that names the variable, the value and the range, and the default counts.
 */
#ifndef UTIL_ENV_H
#define UTIL_ENV_H

#include <stdint.h>

/* id, variable, kind (STR or INT), default, min, max, help */
#define ENV_TABLE(X)                                                                               \
	X(ENV_RUNTIME_DIR, "SMEM_RUNTIME_DIR", STR, "", 0, 0,                                      \
	  "directory for the agent's Unix socket beside the abstract one, shared by containers")   \
	X(ENV_FABRIC_PROVIDER, "SMEM_FABRIC_PROVIDER", STR, "", 0, 0,                              \
	  "libfabric provider to use for peers on other hosts; empty: the best one offered")       \
	X(ENV_FABRIC_INTERFACE, "SMEM_FABRIC_INTERFACE", STR, "", 0, 0,                            \
	  "network interface or address for data between hosts; empty: by the route to the store") \
	X(ENV_HUGE_PAGES, "SMEM_HUGE_PAGES", INT, "1", 0, 1,                                       \
	  "1: pool memory in 2 MiB pages where the system has them; 0: always base pages")         \
	X(ENV_COPY_THREADS, "SMEM_COPY_THREADS", INT, "-1", -1, 64,                                \
	  "helper threads for large copies; -1: as many as CPUs are idle, 0: none")                \
	X(ENV_SHM_PAGE, "SMEM_SHM_PAGE", INT, "1", 0, 1024,                                        \
	  "1: collectives of SHM among ranks of one host over a shared page; 0: by the store; "    \
	  "more: a page for so many ranks by their numbers, as if each such part were a host")     \
	X(ENV_SILENCE_MS, "SMEM_SILENCE_MS", INT, "3000", 250, 60000,                              \
	  "a host that is silent this long, in milliseconds, is lost")

#define ENV_ID(id, ...) id,
enum env_id { ENV_TABLE(ENV_ID) ENV_COUNT };
#undef ENV_ID

struct env_entry {
	const char *name;
	int is_int;
	const char *def;
	int64_t min;
	int64_t max;
	const char *help;
};

extern const struct env_entry env_entries[ENV_COUNT];

/* The value now in force. env_str never returns NULL. Thread-safe as long as nobody calls setenv
 * meanwhile. */
const char *env_str(enum env_id id);
int64_t env_int(enum env_id id);

#endif
