/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SMEM_SECURITY_H
#define SMEM_SECURITY_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef int (*smem_decrypt_handler)(const char *cipherText, int *cipherTextLen, char *plainText,
				    int *plainTextLen);

int32_t smem_register_decrypt_handler(const smem_decrypt_handler h);

#ifdef __cplusplus
}
#endif
#endif
