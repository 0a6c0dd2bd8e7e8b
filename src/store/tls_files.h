/* SPDX-License-Identifier: Apache-2.0 */
/* Reading certificates, keys and revocation lists, every fault with its file and reason. */
#ifndef STORE_TLS_FILES_H
#define STORE_TLS_FILES_H

#include <openssl/ssl.h>

#include "store/tls_conf.h"

/* NULL, or why a certificate is not to be used: time, key strength. */
const char *tls_cert_wrong(X509 *cert);
/* RSA from 2048 bits, elliptic curves from 256, nothing else. */
bool tls_key_strong(EVP_PKEY *key);

int32_t tls_load_ca(const struct tls_conf *conf, SSL_CTX *ctx, STACK_OF(X509) * seen);
int32_t tls_load_crl(const struct tls_conf *conf, SSL_CTX *ctx);
int32_t tls_load_own(const struct tls_conf *conf, SSL_CTX *ctx, STACK_OF(X509) * seen);

#endif
