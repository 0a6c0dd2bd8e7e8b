/* SPDX-License-Identifier: Apache-2.0 */
/* Nothing is cached: a knob is read where an object is made, never on a data path, and a forked
 * child may set it. */
#include "util/env.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "util/log.h"

enum { STR = 0, INT = 1 };

#define ENV_ROW(id, name, kind, def, min, max, help) [id] = {name, kind, def, min, max, help},
const struct env_entry env_entries[ENV_COUNT] = {ENV_TABLE(ENV_ROW)};
#undef ENV_ROW

const char *env_str(enum env_id id)
{
	const char *value = getenv(env_entries[id].name);

	return value ? value : env_entries[id].def;
}

int64_t env_int(enum env_id id)
{
	const struct env_entry *e = &env_entries[id];
	const char *value = getenv(e->name);
	char *end;

	if (value) {
		errno = 0;
		int64_t n = strtoll(value, &end, 10);
		if (errno == 0 && end != value && *end == '\0' && n >= e->min && n <= e->max)
			return n;
		LOG_WARN("env", "%s=%s ignored: want an integer from %" PRId64 " to %" PRId64,
			 e->name, value, e->min, e->max);
	}
	return strtoll(e->def, NULL, 10);
}
