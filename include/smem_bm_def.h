/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SMEM_BM_DEF_H
#define SMEM_BM_DEF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Largest value of the time-outs in smem_bm_config_t, seconds. */
#define SMEM_BM_TIMEOUT_MAX UINT32_MAX

/** A big-memory object. Validated on every call, never dereferenced by value. */
typedef void *smem_bm_t;

/** Preferred path of copies; bits may be combined. Never changes results. */
typedef enum {
	SMEMB_DATA_OP_SDMA = 1,	       /**< memory copy engine */
	SMEMB_DATA_OP_ROCE = 2,	       /**< network */
	SMEMB_DATA_OP_HOST_RDMA = 2,   /**< same as ROCE */
	SMEMB_DATA_OP_HOST_TCP = 4,    /**< TCP from host memory */
	SMEMB_DATA_OP_DEVICE_RDMA = 8, /**< RDMA from device memory */
	SMEMB_DATA_OP_HOST_URMA = 16   /**< URMA from host memory */
} smem_bm_data_op_type;

/** Direction of a copy: L local device memory, G global address, H host memory. */
typedef enum {
	SMEMB_COPY_L2G = 0,
	SMEMB_COPY_G2L = 1,
	SMEMB_COPY_G2H = 2,
	SMEMB_COPY_H2G = 3,
	SMEMB_COPY_L2GH = 4, /**< reserved: SMEM_NOT_SUPPORTED so far, as all up to AUTO */
	SMEMB_COPY_GH2L = 5,
	SMEMB_COPY_GH2H = 6,
	SMEMB_COPY_H2GH = 7,
	SMEMB_COPY_G2G = 8,
	SMEMB_COPY_AUTO = 9,
	SMEMB_COPY_BUTT = 10
} smem_bm_copy_type;

/** Which memory smem_bm_ptr_by_mem_type() and its like speak of. */
typedef enum {
	SMEM_MEM_TYPE_LOCAL_DEVICE = 0,
	SMEM_MEM_TYPE_LOCAL_HOST = 1,
	SMEM_MEM_TYPE_DEVICE = 2, /**< the HBM window */
	SMEM_MEM_TYPE_HOST = 3,	  /**< the DRAM window */
	SMEM_MEM_TYPE_BUTT = 4
} smem_bm_mem_type;

/** Configuration of smem_bm_init(); fill it with smem_bm_config_init() first. */
typedef struct {
	uint32_t initTimeout;		  /**< deadline of smem_bm_init(), seconds, >= 1 */
	uint32_t createTimeout;		  /**< deadline of smem_bm_create(), seconds, >= 1 */
	uint32_t controlOperationTimeout; /**< deadline of join and leave, seconds, >= 1 */
	bool startConfigStore;		  /**< rank 0 hosts the store */
	bool startConfigStoreOnly;	  /**< host the store, take no rank */
	bool dynamicWorldSize;		  /**< worldSize is only the upper bound */
	bool unifiedAddressSpace;	  /**< must be true */
	bool autoRanking;		  /**< the library assigns ranks */
	uint16_t rankId;		  /**< own rank when autoRanking is false */
	uint32_t flags;			  /**< reserved, 0 */
} smem_bm_config_t;

/** One contiguous copy. */
typedef struct {
	const void *src;
	void *dest;
	size_t count; /**< bytes */
} smem_copy_params;

/** `height` rows of `width` bytes, row i at src + i * spitch and dest + i * dpitch. All in bytes,
 * height in rows. */
typedef struct {
	const void *src;
	uint64_t spitch;
	void *dest;
	uint64_t dpitch;
	uint64_t width;
	uint64_t height;
} smem_copy_2d_params;

#ifdef __cplusplus
}
#endif
#endif
