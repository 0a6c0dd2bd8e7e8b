/* SPDX-License-Identifier: Apache-2.0 */
/* The test authority of scripts/make-test-ca.sh, and environments that use it. */
#ifndef TEST_CERTS_H
#define TEST_CERTS_H

#include <stdbool.h>

/* Make it once for the process, in a temporary folder that goes with the process. False: openssl(1)
 * or the script is missing; reason printed. */
bool certs_make(void);
const char *certs_dir(void);

/* Set SMEM_CONF_STORE_TLS_INFO: CA, certificate and key by name ("ca", "node", "node.key"). `more`
 * are further pairs with %s for the folder, or NULL. */
void certs_use(const char *ca, const char *cert, const char *key, const char *more);
void certs_unset(void);

#endif
