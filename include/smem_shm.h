/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SMEM_SHM_H
#define SMEM_SHM_H

#include "smem_shm_def.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Symmetric memory: a fixed number of ranks create an object together, each contributing a slot of
 * the same size. The slots lie side by side, in rank order, at the same address in every process;
 * on one host they are plain memory for everybody. Ranks meet in barriers and allgathers, lay out
 * contexts for each other, and can tell each other to exit.
 *
 * All functions may be called from any thread at any time. Calls on different objects do not wait
 * for each other; calls of several threads on one object's collectives are done one by one. A
 * handle that is destroyed, of another service, or made up gives SMEM_INVALID_PARAM. Before
 * smem_shm_init() every function but smem_shm_config_init(), smem_shm_uninit() and
 * smem_shm_query_support_data_operation() gives SMEM_NOT_INITIALIZED, unless its arguments are
 * wrong in themselves: that comes first. Functions that return no code give NULL or UINT32_MAX on
 * failure and leave the code in smem_get_last_err_code().
 *
 * "Network codes" below: SMEM_UNREACHABLE (the store is lost, or no data path), SMEM_IO,
 * SMEM_SECURITY, SMEM_NOT_SUPPORTED, SMEM_MALLOC_FAILED, SMEM_NEW_OBJECT_FAILED, SMEM_ERROR.
 */

/**
 * Fill a configuration with defaults: time-outs of 120 s, rank 0 hosts the store.
 *
 * @return SMEM_OK; SMEM_INVALID_PARAM when config is NULL
 */
int32_t smem_shm_config_init(smem_shm_config_t *config);

/**
 * Make this process a user of the config store; rank 0 hosts it if config->startConfigStore says
 * so. Waits for the store only, never for other ranks.
 *
 * @param configStoreIpPort "tcp://host:port" of the store, the same for all ranks. Copied.
 * @param worldSize 1..1024
 * @param rankId    0..worldSize-1. The ranks of an object are numbered when it is created and may
 *                  be others.
 * @param deviceId  device of this rank; recorded
 * @param config    copied; time-outs of at least 1 s
 * @return SMEM_OK, also when initialised already (nothing changes then);
 *         SMEM_INVALID_PARAM an argument or field;
 *         SMEM_TIMEOUT no store after shmInitTimeout;
 *         SMEM_RESOURCE_IN_USE another process has the store's port;
 *         network codes. After a failure the service is not initialised and the call may be
 *         repeated at once.
 */
int32_t smem_shm_init(const char *configStoreIpPort, uint32_t worldSize, uint32_t rankId,
		      uint16_t deviceId, smem_shm_config_t *config);

/**
 * Destroy all objects of this process and let the store go. Creates and collectives in other
 * threads end with SMEM_OBJECT_NOT_EXISTS or SMEM_NOT_INITIALIZED. Nothing happens when not
 * initialised.
 *
 * Blocks for calls in flight, at most 5 s for live ranks, and, where this process hosts the store,
 * at most 5 s more for its clients to leave.
 *
 * @param flags 0
 */
void smem_shm_uninit(uint32_t flags);

/**
 * How code reaches symmetric memory in this build on this machine; works before smem_shm_init().
 *
 * @return bits of smem_shm_data_op_type; SMEMS_DATA_OP_MTE (load/store) is always among them
 */
uint32_t smem_shm_query_support_data_operation(void);

/**
 * Create an object together with the other rankSize - 1 ranks; returns when all of them have mapped
 * all slots. Slots are zero-filled.
 *
 * @param id            0..63, of one object at a time under a store
 * @param rankSize      1..1024, the same on all ranks
 * @param rankId        0..rankSize-1, each on one rank
 * @param symmetricSize bytes of a slot: a multiple of 2 MiB up to 4 GiB, the same on all ranks
 * @param dataOpType    bits that smem_shm_query_support_data_operation() has
 * @param flags         0
 * @param gva           set to the base of the space, the same on all ranks and a multiple of 2 MiB;
 *                      the slot of rank r begins at base + r * symmetricSize. On one host every
 *                      slot is plain memory until smem_shm_destroy() here, whatever becomes of its
 *                      rank; slots of ranks on other hosts: smem_shm_topology_can_reach().
 * @return the handle; NULL and
 *         SMEM_INVALID_PARAM an argument, or symmetricSize or rankSize unlike another rank's, or a
 *         rankId used twice: told to all ranks that wait, naming ranks and values;
 *         SMEM_DUPLICATED_OBJECT this process has an object of that id;
 *         SMEM_TIMEOUT after shmCreateTimeout, naming the missing ranks;
 *         SMEM_PEER_LOST a rank was lost while it created;
 *         SMEM_RESOURCE_IN_USE the address range is taken in this process;
 *         SMEM_NOT_SUPPORTED dataOpType; network codes. A failure leaves nothing behind: the id is
 *         free, and the call may be repeated at once.
 */
smem_shm_t smem_shm_create(uint32_t id, uint32_t rankSize, uint32_t rankId, uint64_t symmetricSize,
			   smem_shm_data_op_type dataOpType, uint32_t flags, void **gva);

/**
 * Leave the object, without waiting for the other ranks: their collectives fail from now on, their
 * view of this rank's slot stays. Threads of this process inside calls on the object are woken with
 * SMEM_OBJECT_NOT_EXISTS. Call smem_shm_control_barrier() first to have all ranks finish together.
 *
 * When all ranks have destroyed it, or were lost, the id can be used again.
 *
 * @return SMEM_OK; SMEM_INVALID_PARAM handle is NULL; SMEM_OBJECT_NOT_EXISTS unknown, or destroyed
 *         before
 */
int32_t smem_shm_destroy(smem_shm_t handle, uint32_t flags);

/**
 * Lay out bytes for the other ranks to read (and, where a device is in use, for kernels of this
 * one). Replaces what was set before. What is set before a barrier is seen after it.
 *
 * @param context copied
 * @param size    1..65536 bytes
 * @return SMEM_OK; SMEM_INVALID_PARAM; network codes
 */
int32_t smem_shm_set_extra_context(smem_shm_t handle, const void *context, uint32_t size);

/**
 * Read what a rank laid out: the whole of what it set before the last common barrier, or of
 * something newer.
 *
 * @param rank 0..rankSize-1
 * @param buf  NULL with *size 0 asks for the length only
 * @param size in: bytes that buf has room for; out: the length, 0 when nothing was set
 * @return SMEM_OK;
 *         SMEM_INVALID_PARAM an argument, or buf is too small: then *size is what is needed and buf
 *         is untouched;
 *         SMEM_PEER_LOST the rank was lost or has destroyed the object; network codes
 */
int32_t smem_shm_get_extra_context(smem_shm_t handle, uint32_t rank, void *buf, uint32_t *size);

/** @return rankId of smem_shm_create(); UINT32_MAX on failure */
uint32_t smem_shm_get_global_rank(smem_shm_t handle);

/** @return rankSize of smem_shm_create(); UINT32_MAX on failure */
uint32_t smem_shm_get_global_rank_size(smem_shm_t handle);

/**
 * Wait until all ranks are inside. Stores and copies made by any rank before its call are visible
 * to every rank after a return of SMEM_OK. Between ranks of one host it neither allocates nor talks
 * to the store.
 *
 * A round completes for all ranks or for none. A rank whose call failed is out of the round; its
 * next call counts afresh.
 *
 * @return SMEM_OK;
 *         SMEM_INVALID_PARAM another rank called smem_shm_control_allgather(), told to all;
 *         SMEM_TIMEOUT after controlOperationTimeout, naming the missing ranks;
 *         SMEM_PEER_LOST a rank was lost or has destroyed the object, at once, naming it;
 *         SMEM_OBJECT_NOT_EXISTS the object was destroyed meanwhile; network codes
 */
int32_t smem_shm_control_barrier(smem_shm_t handle);

/**
 * A barrier that gives every rank the contributions of all, in rank order.
 *
 * @param sendBuf  read before the call returns; may be part of recvBuf
 * @param sendSize 1..65536 bytes, the same on all ranks
 * @param recvBuf  written on success only, or partly on a network code
 * @param recvSize exactly sendSize * rankSize
 * @return as smem_shm_control_barrier(); SMEM_INVALID_PARAM also for unlike sizes, told to all, and
 *         for a wrong recvSize, which is this rank's own affair
 */
int32_t smem_shm_control_allgather(smem_shm_t handle, const char *sendBuf, uint32_t sendSize,
				   char *recvBuf, uint32_t recvSize);

/**
 * How a rank's slot is reached from here. Does not block.
 *
 * @param remoteRank 0..rankSize-1; the own rank too
 * @param reachInfo  bits of smem_shm_data_op_type: MTE plain loads and stores, ROCE the network
 *                   fabric, SDMA a device's copy engine; 0 when the rank was lost or has destroyed
 *                   the object
 * @return SMEM_OK; SMEM_INVALID_PARAM
 */
int32_t smem_shm_topology_can_reach(smem_shm_t handle, uint32_t remoteRank, uint32_t *reachInfo);

/**
 * Have a function called when any rank calls smem_shm_global_exit(); at once if one has already.
 *
 * @param exit called once, with the status, on a thread of the library. It may call any function of
 *             the library; smem_shm_destroy() of its own object too. It does not start any more
 *             when smem_shm_destroy() has returned to another thread.
 * @return SMEM_OK; SMEM_INVALID_PARAM; SMEM_REPEAT_CALL this object has one;
 *         SMEM_NEW_OBJECT_FAILED, SMEM_MALLOC_FAILED
 */
int32_t smem_shm_register_exit(smem_shm_t handle, void (*exit)(int));

/**
 * Announce an exit status to all ranks that registered a function, this one included. Returns
 * without waiting for them and does not end the process; the announcement arrives even if the
 * process ends right after it. Only the first one of an object counts.
 *
 * Last error on failure: SMEM_INVALID_PARAM, SMEM_NOT_INITIALIZED, SMEM_UNREACHABLE.
 */
void smem_shm_global_exit(smem_shm_t handle, int status);

#ifdef __cplusplus
}
#endif
#endif
