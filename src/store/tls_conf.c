/* SPDX-License-Identifier: Apache-2.0 */
/*
 * "key: value;" pairs. A pair is cut at ';', key and value at the first ':', both lose the white
 * space around them. The last value of a key counts. What is wrong is named with the key, never
 * with more of the text than that.
 */
#include "store/tls_conf.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/err.h"
#include "util/log.h"

#define INFO_MAX     10240
#define PERIOD_HOURS 168
#define AHEAD_DAYS   30

static const char *const names[TLS_KEYS] = {
    [TLS_CA_PATH] = "tlsCaPath",   [TLS_CA_FILE] = "tlsCaFile",
    [TLS_CERT] = "tlsCert",	   [TLS_PK] = "tlsPk",
    [TLS_PK_PWD] = "tlsPkPwd",	   [TLS_CRL_PATH] = "tlsCrlPath",
    [TLS_CRL_FILE] = "tlsCrlFile", [TLS_PACKAGE_PATH] = "packagePath",
};

void tls_conf_free(struct tls_conf *conf)
{
	for (int i = 0; i < TLS_KEYS; i++)
		free(conf->value[i]);
	*conf = (struct tls_conf){.value = {NULL}};
}

static void trim(const char **s, size_t *len)
{
	while (*len && isspace((unsigned char)**s)) {
		++*s;
		--*len;
	}
	while (*len && isspace((unsigned char)(*s)[*len - 1]))
		--*len;
}

static int key_of(const char *s, size_t len)
{
	for (int i = 0; i < TLS_KEYS; i++) {
		if (strlen(names[i]) == len && memcmp(names[i], s, len) == 0)
			return i;
	}
	return -1;
}

static int32_t pair_parse(const char *pair, size_t len, struct tls_conf *conf)
{
	trim(&pair, &len);
	if (len == 0)
		return SMEM_OK;
	const char *colon = memchr(pair, ':', len);
	if (!colon) {
		LOG_WARN("store", "SMEM_CONF_STORE_TLS_INFO: a part without ':' is skipped");
		return SMEM_OK;
	}
	const char *value = colon + 1;
	size_t value_len = len - (size_t)(value - pair), key_len = (size_t)(colon - pair);
	trim(&pair, &key_len);
	trim(&value, &value_len);
	int key = key_of(pair, key_len);
	if (key < 0) {
		LOG_WARN("store", "SMEM_CONF_STORE_TLS_INFO: unknown key '%.*s' is skipped",
			 (int)(key_len < 64 ? key_len : 64), pair);
		return SMEM_OK;
	}
	if (value_len == 0)
		return smem_err(SMEM_SECURITY, "SMEM_CONF_STORE_TLS_INFO: %s has no value",
				names[key]);
	char *copy = strndup(value, value_len);
	if (!copy)
		return smem_err(SMEM_MALLOC_FAILED, "SMEM_CONF_STORE_TLS_INFO");
	free(conf->value[key]);
	conf->value[key] = copy;
	return SMEM_OK;
}

static int32_t complete(const struct tls_conf *conf)
{
	static const enum tls_conf_key required[] = {TLS_CA_PATH, TLS_CA_FILE, TLS_CERT, TLS_PK};

	for (size_t i = 0; i < sizeof(required) / sizeof(required[0]); i++) {
		if (!conf->value[required[i]])
			return smem_err(SMEM_SECURITY, "SMEM_CONF_STORE_TLS_INFO: %s is missing",
					names[required[i]]);
	}
	if (!conf->value[TLS_CRL_PATH] != !conf->value[TLS_CRL_FILE])
		return smem_err(SMEM_SECURITY,
				"SMEM_CONF_STORE_TLS_INFO: %s without %s, both or neither",
				names[conf->value[TLS_CRL_PATH] ? TLS_CRL_PATH : TLS_CRL_FILE],
				names[conf->value[TLS_CRL_PATH] ? TLS_CRL_FILE : TLS_CRL_PATH]);
	if (conf->value[TLS_PACKAGE_PATH])
		LOG_DEBUG("store", "SMEM_CONF_STORE_TLS_INFO: packagePath has no meaning here");
	return SMEM_OK;
}

int32_t tls_conf_parse(const char *text, struct tls_conf *ret)
{
	struct tls_conf conf = {.value = {NULL}};
	int32_t r = SMEM_OK;

	if (strnlen(text, INFO_MAX + 1) > INFO_MAX)
		return smem_err(SMEM_SECURITY, "SMEM_CONF_STORE_TLS_INFO is longer than %d bytes",
				INFO_MAX);
	while (r == SMEM_OK && *text) {
		size_t len = strcspn(text, ";");
		r = pair_parse(text, len, &conf);
		text += len + (text[len] == ';');
	}
	if (r == SMEM_OK)
		r = complete(&conf);
	if (r != SMEM_OK) {
		tls_conf_free(&conf);
		return r;
	}
	*ret = conf;
	return SMEM_OK;
}

/* An integer in the range, else `def` with a warning when the variable is set. */
static unsigned env_number(const char *name, unsigned min, unsigned max, unsigned def)
{
	const char *text = getenv(name);
	char *end;

	if (!text)
		return def;
	errno = 0;
	long v = strtol(text, &end, 10);
	if (errno == 0 && end != text && *end == '\0' && v >= (long)min && v <= (long)max)
		return (unsigned)v;
	LOG_WARN("store", "%s ignored: want an integer from %u to %u; %u counts", name, min, max,
		 def);
	return def;
}

static void read_watch(struct tls_conf *conf)
{
	conf->check_period_hours = env_number("ACCLINK_CHECK_PERIOD_HOURS", 24, 720, PERIOD_HOURS);
	conf->check_ahead_days = env_number("ACCLINK_CERT_CHECK_AHEAD_DAYS", 7, 180, AHEAD_DAYS);
	if (conf->check_ahead_days * 24 < conf->check_period_hours) {
		LOG_WARN("store",
			 "ACCLINK_CERT_CHECK_AHEAD_DAYS ignored: shorter than the check's period");
		conf->check_ahead_days = AHEAD_DAYS;
	}
}

int32_t tls_conf_from_env(bool *enabled, struct tls_conf *ret)
{
	const char *enable = getenv("SMEM_CONF_STORE_TLS_ENABLE");
	const char *info = getenv("SMEM_CONF_STORE_TLS_INFO");

	if (enable && strcmp(enable, "0") != 0 && strcmp(enable, "1") != 0)
		return smem_err(SMEM_SECURITY, "SMEM_CONF_STORE_TLS_ENABLE is '%.32s', want 0 or 1",
				enable);
	if (enable && enable[0] == '1' && !info)
		return smem_err(SMEM_SECURITY, "SMEM_CONF_STORE_TLS_ENABLE is 1, but "
					       "SMEM_CONF_STORE_TLS_INFO is not set");
	*enabled = info && !(enable && enable[0] == '0');
	*ret = (struct tls_conf){.value = {NULL}};
	if (!*enabled)
		return SMEM_OK;
	/* On failure `ret` stays empty. */
	int32_t r = tls_conf_parse(info, ret);
	if (r == SMEM_OK)
		read_watch(ret);
	return r;
}
