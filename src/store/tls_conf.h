/* SPDX-License-Identifier: Apache-2.0 */
/* What the environment says about TLS (specification 6.1, 6.3): parsing, no files are opened. */
#ifndef STORE_TLS_CONF_H
#define STORE_TLS_CONF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum tls_conf_key {
	TLS_CA_PATH,
	TLS_CA_FILE,
	TLS_CERT,
	TLS_PK,
	TLS_PK_PWD,
	TLS_CRL_PATH,
	TLS_CRL_FILE,
	TLS_PACKAGE_PATH,
	TLS_KEYS
};

struct tls_conf {
	char *value[TLS_KEYS]; /* NULL: not given */
	unsigned check_period_hours;
	unsigned check_ahead_days;
};

/* *enabled false: plain, and ret is empty. SMEM_SECURITY recorded. */
int32_t tls_conf_from_env(bool *enabled, struct tls_conf *ret);

/* The text of SMEM_CONF_STORE_TLS_INFO. SMEM_SECURITY, SMEM_MALLOC_FAILED. */
int32_t tls_conf_parse(const char *text, struct tls_conf *ret);
void tls_conf_free(struct tls_conf *conf);

#endif
