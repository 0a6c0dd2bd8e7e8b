/* SPDX-License-Identifier: Apache-2.0 */
#include "json.h"

#include <inttypes.h>
#include <math.h>

static void quote(struct json *j, const char *text)
{
	fputc('"', j->out);
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;
		if (c == '"' || c == '\\')
			fprintf(j->out, "\\%c", c);
		else if (c < 0x20)
			fprintf(j->out, "\\u%04x", c);
		else
			fputc(c, j->out);
	}
	fputc('"', j->out);
}

static void member(struct json *j, const char *key)
{
	if (j->depth > 0)
		fprintf(j->out, "%s\n%*s", j->some ? "," : "", (int)(2 * j->depth), "");
	if (key) {
		quote(j, key);
		fputs(": ", j->out);
	}
	j->some = true;
}

void json_begin(struct json *j, const char *key, char bracket)
{
	member(j, key);
	fputc(bracket, j->out);
	j->depth++;
	j->some = false;
}

void json_end(struct json *j, char bracket)
{
	j->depth--;
	if (j->some)
		fprintf(j->out, "\n%*s", (int)(2 * j->depth), "");
	fputc(bracket, j->out);
	j->some = true;
	if (j->depth == 0) {
		fputc('\n', j->out);
		fflush(j->out);
	}
}

void json_str(struct json *j, const char *key, const char *value)
{
	member(j, key);
	quote(j, value);
}

void json_num(struct json *j, const char *key, double value)
{
	member(j, key);
	if (isfinite(value))
		fprintf(j->out, "%.6g", value);
	else
		fputs("null", j->out);
}

void json_int(struct json *j, const char *key, int64_t value)
{
	member(j, key);
	fprintf(j->out, "%" PRId64, value);
}

void json_bool(struct json *j, const char *key, bool value)
{
	member(j, key);
	fputs(value ? "true" : "false", j->out);
}
