/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SMEM_TRANS_DEF_H
#define SMEM_TRANS_DEF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** A transfer endpoint. Validated on every call, never dereferenced by value. */
typedef void *smem_trans_t;

/** What peers may do with memory registered here; any role may write to others and be read from. */
typedef enum {
	SMEM_TRANS_NONE = 0,	 /**< writable by peers */
	SMEM_TRANS_SENDER = 1,	 /**< not writable by peers */
	SMEM_TRANS_RECEIVER = 2, /**< writable by peers */
	SMEM_TRANS_BOTH = 3,	 /**< writable by peers */
	SMEM_TRANS_BUTT
} smem_trans_role_t;

/** Configuration of smem_trans_create(); fill it with smem_trans_config_init() first. */
typedef struct {
	smem_trans_role_t role;
	uint32_t initTimeout; /**< deadline of smem_trans_create(), seconds; 0 is taken as 120 */
	uint32_t deviceId;    /**< UINT32_MAX: none */
	uint32_t flags;	      /**< reserved, 0 */
} smem_trans_config_t;

#ifdef __cplusplus
}
#endif
#endif
