/* SPDX-License-Identifier: Apache-2.0 */
/* JSON written as it goes, commas and indentation included. A NULL key inside an array. */
#ifndef SMEM_TOOL_JSON_H
#define SMEM_TOOL_JSON_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct json {
	FILE *out;
	unsigned depth;
	bool some; /* the open object or array has a member */
};

void json_begin(struct json *j, const char *key, char bracket); /* '{' or '[' */
void json_end(struct json *j, char bracket);			/* '}' or ']' */
void json_str(struct json *j, const char *key, const char *value);
void json_num(struct json *j, const char *key, double value); /* not finite: null */
void json_int(struct json *j, const char *key, int64_t value);
void json_bool(struct json *j, const char *key, bool value);

#endif
