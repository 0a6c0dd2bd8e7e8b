/* SPDX-License-Identifier: Apache-2.0 */
/* The process's handler for encrypted pass phrases. Kept over a fork. Thread-safe. */
#ifndef UTIL_DECRYPT_H
#define UTIL_DECRYPT_H

#include "smem_security.h"

void decrypt_set(smem_decrypt_handler h);
smem_decrypt_handler decrypt_get(void); /* NULL: none */

#endif
