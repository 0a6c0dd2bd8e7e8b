/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SMEM_SHM_DEF_H
#define SMEM_SHM_DEF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Largest value of the time-outs in smem_shm_config_t, seconds. */
#define SMEM_SHM_TIMEOUT_MAX UINT32_MAX

/** A symmetric-memory object. Validated on every call, never dereferenced by value. */
typedef void *smem_shm_t;

/** How code reaches symmetric memory; bits may be combined. */
typedef enum {
	SMEMS_DATA_OP_MTE = 1,	/**< load/store */
	SMEMS_DATA_OP_SDMA = 2, /**< device copy engine */
	SMEMS_DATA_OP_ROCE = 4	/**< network fabric */
} smem_shm_data_op_type;

/** Configuration of smem_shm_init(); fill it with smem_shm_config_init() first. */
typedef struct {
	uint32_t shmInitTimeout;	  /**< deadline of smem_shm_init(), seconds, >= 1 */
	uint32_t shmCreateTimeout;	  /**< deadline of smem_shm_create(), seconds, >= 1 */
	uint32_t controlOperationTimeout; /**< deadline of barrier and allgather, seconds, >= 1 */
	bool startConfigStore;		  /**< rank 0 hosts the store */
	uint32_t flags;			  /**< reserved, 0 */
} smem_shm_config_t;

#ifdef __cplusplus
}
#endif
#endif
