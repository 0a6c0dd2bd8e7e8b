/* SPDX-License-Identifier: Apache-2.0 */
#include "smem_security.h"

#include "api/export.h"
#include "util/decrypt.h"
#include "util/err.h"

SMEM_API int32_t smem_register_decrypt_handler(const smem_decrypt_handler h)
{
	API_SCOPE(s);
	if (!h)
		return err_leave(&s, smem_err(SMEM_INVALID_PARAM, "h is NULL"));
	decrypt_set(h);
	return err_leave(&s, SMEM_OK);
}
