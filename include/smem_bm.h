/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SMEM_BM_H
#define SMEM_BM_H

#include "smem_bm_def.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Big memory: ranks pool memory of theirs in one global address space. Every object has a window of
 * device memory (HBM), of host memory (DRAM), or both; in each, rank r's slot begins at base + r *
 * size, at the same address in every process. Ranks join and leave an object at any time and copy
 * to and from the slots of those that are members.
 *
 * All functions may be called from any thread at any time. Calls on different objects do not wait
 * for each other, copies on one object run in parallel. A handle that is destroyed, of another
 * service, or made up gives SMEM_INVALID_PARAM. Before smem_bm_init() every function but
 * smem_bm_config_init() and smem_bm_uninit() gives SMEM_NOT_INITIALIZED, unless its arguments are
 * wrong in themselves: that comes first. Functions that return no code give NULL, 0 or UINT32_MAX
 * on failure and leave the code in smem_get_last_err_code().
 *
 * "Network codes" below: SMEM_UNREACHABLE (the store is lost, or no data path), SMEM_IO,
 * SMEM_SECURITY, SMEM_NOT_SUPPORTED, SMEM_MALLOC_FAILED, SMEM_NEW_OBJECT_FAILED, SMEM_ERROR.
 */

/**
 * Fill a configuration with defaults: time-outs of 120 s, rank 0 hosts the store, ranks are given
 * (rankId must be set).
 *
 * @return SMEM_OK; SMEM_INVALID_PARAM when config is NULL
 */
int32_t smem_bm_config_init(smem_bm_config_t *config);

/**
 * Make this process a rank of the world that meets at a config store; host the store if the
 * configuration says so. Without autoRanking it waits for the store only, never for other ranks.
 *
 * @param storeURL  "tcp://host:port" of the store, the same for all ranks. Copied.
 * @param worldSize ranks of the world, 1..1024, the same for all; with dynamicWorldSize the most
 *                  there may be at a time
 * @param deviceId  device of this rank; recorded; orders ranks under autoRanking
 * @param config    copied
 * @return SMEM_OK, also when initialised already (nothing changes then);
 *         SMEM_INVALID_PARAM an argument or field, or a worldSize unlike that of the others;
 *         SMEM_TIMEOUT after initTimeout: no store, or autoRanking lacks ranks;
 *         SMEM_DUPLICATED_OBJECT a live process has this rankId;
 *         SMEM_RESOURCE_IN_USE another process has the store's port, or no rank is free;
 *         network codes. After a failure the service is not initialised and the call may be
 *         repeated at once.
 */
int32_t smem_bm_init(const char *storeURL, uint32_t worldSize, uint16_t deviceId,
		     const smem_bm_config_t *config);

/**
 * Destroy all objects of this process (leaving their groups), give the rank back, and let the store
 * go. Nothing happens when not initialised.
 *
 * Blocks for data movement in flight, at most 5 s for acknowledgements of live members, and, where
 * this process hosts the store, at most 5 s for its clients.
 *
 * @param flags reserved, 0
 */
void smem_bm_uninit(uint32_t flags);

/** The own rank. UINT32_MAX when not initialised or with startConfigStoreOnly. Does not block. */
uint32_t smem_bm_get_rank_id(void);

/**
 * Create this process's side of an object: reserve the windows and allocate the own memory, filled
 * with zeros and usable at once. Waits for no other rank; talks to the store, at most
 * createTimeout.
 *
 * @param id            names the object under the store; any number, once per process
 * @param memberSize    how many ranks may be joined at a time, at most worldSize; 0: worldSize
 * @param dataOpType    preferred path, bits of smem_bm_data_op_type; never changes results
 * @param localDRAMSize bytes of host memory, a multiple of 2 MiB up to 4 GiB; 0: no such window
 * @param localHBMSize  bytes of device memory, the same; not both 0. Sizes must be equal in all
 *                      members, which is checked when joining.
 * @param flags         reserved, 0
 * @return the object, to be given to smem_bm_destroy(); NULL: SMEM_INVALID_PARAM,
 *         SMEM_DUPLICATED_OBJECT (id exists in this process), SMEM_RESOURCE_IN_USE (the agreed
 *         address range cannot be had here), SMEM_MALLOC_FAILED, SMEM_TIMEOUT, network codes
 */
smem_bm_t smem_bm_create(uint32_t id, uint32_t memberSize, smem_bm_data_op_type dataOpType,
			 uint64_t localDRAMSize, uint64_t localHBMSize, uint32_t flags);

/**
 * Leave if joined, free memory and addresses. The id may be used again at once. Other threads'
 * copies on the object are waited for, their joins and leaves end with SMEM_OBJECT_NOT_EXISTS. Lost
 * members are not waited for, live ones at most 5 s. A wrong handle only sets the last error
 * (SMEM_INVALID_PARAM, SMEM_NOT_INITIALIZED).
 */
void smem_bm_destroy(smem_bm_t handle);

/**
 * Become a member. Returns when every live member can use this rank's memory and this rank theirs:
 * of two ranks whose joins returned 0, each may copy to the other at once. Members take part in the
 * background, whatever their threads do.
 *
 * @param flags           reserved, 0
 * @param localGvaAddress receives the own slot: in the HBM window if there is one, else DRAM
 * @return SMEM_OK, also when joined already; SMEM_INVALID_PARAM also when sizes, memberSize or
 *         windows are unlike those of the members; SMEM_RESOURCE_IN_USE memberSize ranks are
 * joined; SMEM_TIMEOUT after controlOperationTimeout; SMEM_OBJECT_NOT_EXISTS destroyed meanwhile;
 *         network codes. After a failure the rank is no member and may join again.
 */
int32_t smem_bm_join(smem_bm_t handle, uint32_t flags, void **localGvaAddress);

/**
 * Stop being a member. Returns when all live members have acknowledged: no copy of theirs touches
 * this rank's slot any more. The own slot and its contents stay until smem_bm_destroy(); other
 * slots cannot be used until the rank joins again.
 *
 * @param flags reserved, 0
 * @return SMEM_OK; SMEM_NOT_STARTED not joined; SMEM_TIMEOUT after controlOperationTimeout: a live
 *         member did not acknowledge, the rank has left nevertheless; SMEM_OBJECT_NOT_EXISTS
 *         destroyed meanwhile; SMEM_INVALID_PARAM; network codes: SMEM_UNREACHABLE, the store was
 *         lost before, leaves the rank joined
 */
int32_t smem_bm_leave(smem_bm_t handle, uint32_t flags);

/**
 * Bytes this rank contributes: localHBMSize if it is not 0, else localDRAMSize. 0 on failure. Does
 * not block.
 */
uint64_t smem_bm_get_local_mem_size(smem_bm_t handle);

/**
 * Bytes this rank contributes to one window: SMEM_MEM_TYPE_DEVICE (HBM) or SMEM_MEM_TYPE_HOST
 * (DRAM). A window the object lacks has 0, without an error; other types are SMEM_INVALID_PARAM.
 */
uint64_t smem_bm_get_local_mem_size_by_mem_type(smem_bm_t handle, smem_bm_mem_type memType);

/**
 * Where a rank's slot is: in the HBM window if there is one, else in the DRAM window. Arithmetic
 * only: the rank need not have joined, and the address may be dereferenced only while it and this
 * rank are members, on one host. NULL: SMEM_INVALID_PARAM when the rank is not below worldSize.
 */
void *smem_bm_ptr(smem_bm_t handle, uint16_t peerRankId);

/** The same in a given window; NULL, SMEM_INVALID_PARAM also when the object lacks it. */
void *smem_bm_ptr_by_mem_type(smem_bm_t handle, smem_bm_mem_type memType, uint16_t peerRankId);

/**
 * Copy between memory of this process and global addresses. Synchronous: when it returns 0, every
 * byte is applied and visible to everybody ordered after the return; after any return nothing more
 * moves. The global range may cross slots and must lie inside one window of the object. The other
 * side is any memory of this process, any alignment, not registered; slots of other ranks too,
 * where they can be loaded from. Overlapping sides: contents unspecified.
 *
 * The own slot is always usable; for others, this rank and the owners of all slots touched must be
 * members, which is checked before the first byte moves.
 *
 * @param params not kept
 * @param t      SMEMB_COPY_L2G, H2G: dest is global; G2L, G2H: src is
 * @param flags  ASYNC_COPY_FLAG, COPY_EXTEND_FLAG: accepted, no effect
 * @return SMEM_OK; SMEM_INVALID_PARAM src or dest NULL, count 0, type out of range, the range not
 *         inside one window; SMEM_NOT_SUPPORTED a reserved type (4..9); SMEM_NOT_STARTED this rank
 *         or an owner has not joined or has left; SMEM_PEER_LOST an owner is lost; SMEM_STALE,
 *         network codes from paths to other hosts. Blocks for the movement; no time-out of its own.
 */
int32_t smem_bm_copy(smem_bm_t handle, smem_copy_params *params, smem_bm_copy_type t,
		     uint32_t flags);

/**
 * The same for `height` rows of `width` bytes, row i from src + i * spitch to dest + i * dpitch.
 * Pitches below width with several rows are SMEM_INVALID_PARAM; with one row they are ignored. Only
 * slots that a row touches need be usable.
 */
int32_t smem_bm_copy_2d(smem_bm_t handle, smem_copy_2d_params *params, smem_bm_copy_type t,
			uint32_t flags);

#ifdef __cplusplus
}
#endif
#endif
