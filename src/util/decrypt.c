/* SPDX-License-Identifier: Apache-2.0 */
#include "util/decrypt.h"

#include <stdatomic.h>

static _Atomic(smem_decrypt_handler) handler;

void decrypt_set(smem_decrypt_handler h)
{
	atomic_store(&handler, h);
}

smem_decrypt_handler decrypt_get(void)
{
	return atomic_load(&handler);
}
