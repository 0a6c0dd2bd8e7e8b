/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SMEM_TRANS_H
#define SMEM_TRANS_H

#include "smem_trans_def.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Transfer: an instance is a named endpoint, a session. It registers memory of its process, any
 * memory of any alignment, and peers that know the session's name and an address write there and
 * read from there, without a word from its process. There is no init.
 *
 * All functions may be called from any thread at any time; writes and reads on one instance run in
 * parallel. A handle that is NULL gives SMEM_INVALID_PARAM; one that is destroyed, of another
 * service, or made up gives SMEM_OBJECT_NOT_EXISTS. Arguments that are wrong in themselves come
 * before that look-up, everything that depends on state after it.
 *
 * "Network codes" below: SMEM_UNREACHABLE (the store is lost, or no data path), SMEM_IO,
 * SMEM_SECURITY, SMEM_NOT_SUPPORTED, SMEM_MALLOC_FAILED, SMEM_NEW_OBJECT_FAILED, SMEM_ERROR.
 */

/**
 * Fill a configuration with defaults: role NONE, 120 s, no device.
 *
 * @return SMEM_OK; SMEM_INVALID_PARAM when config is NULL
 */
int32_t smem_trans_config_init(smem_trans_config_t *config);

/**
 * Create a session. Connects to the store, which may start later; never hosts it.
 *
 * Blocks at most initTimeout.
 *
 * @param storeUrl  "tcp://host:port" of the store
 * @param sessionId its name: "ip:port", "[v6]:port" or "host:port"; an identity, nothing listens
 *                  there and no name is resolved
 * @param config    copied
 * @return the handle; NULL with SMEM_INVALID_PARAM an argument or field; SMEM_DUPLICATED_OBJECT a
 *         live session has that name; SMEM_TIMEOUT no store within initTimeout; network codes. The
 *         name of a lost or destroyed session is free.
 */
smem_trans_t smem_trans_create(const char *storeUrl, const char *sessionId,
			       const smem_trans_config_t *config);

/**
 * Deregister everything and end the session. Its name is free and unknown afterwards.
 *
 * Blocks for data movement in flight, for writes of peers at most 5 s, never for lost peers or a
 * lost store. A bad handle or a repeated call sets the last error and does nothing else.
 *
 * @param flags reserved, 0
 */
void smem_trans_destroy(smem_trans_t handle, uint32_t flags);

/**
 * Destroy all sessions of this process. Nothing happens when there are none.
 *
 * @param flags reserved, 0
 */
void smem_trans_uninit(uint32_t flags);

/**
 * Open [address, address + capacity) to peers: exactly, no rounding. Once it returned 0, a peer
 * that learns the address by any means can write there at once. Costs the same for any capacity.
 *
 * Ranges may overlap with different starts. The memory must stay mapped until deregistered; if it
 * does not, writes to it give SMEM_IO at the writer.
 *
 * @param address  any memory of the process: heap, stack, mapped, shared, of a pool
 * @param capacity bytes, > 0
 * @param flags    reserved, 0
 * @return SMEM_OK, also for the same range again (not counted); SMEM_INVALID_PARAM an argument, or
 *         the range wraps; SMEM_DUPLICATED_OBJECT the address is registered with another capacity,
 *         or its deregistration is not complete; SMEM_OBJECT_NOT_EXISTS; network codes
 */
int32_t smem_trans_register_mem(smem_trans_t handle, void *address, size_t capacity,
				uint32_t flags);

/**
 * Register `count` ranges, all or none; peers too see all or none.
 *
 * @return as smem_trans_register_mem(); SMEM_INVALID_PARAM also when count is 0
 */
int32_t smem_trans_batch_register_mem(smem_trans_t handle, void *addresses[], size_t capacities[],
				      uint32_t count, uint32_t flags);

/**
 * Close a registration. After 0 no write of any peer lands in the range, except in bytes that
 * another registration still covers. Works with a lost store and with lost peers.
 *
 * Blocks for writes in flight, at most 5 s. What died in the middle of a write is not waited for.
 *
 * @param address the exact start of the registration
 * @return SMEM_OK; SMEM_INVALID_PARAM address is NULL; SMEM_OBJECT_NOT_EXISTS unknown handle or
 *         address; SMEM_RESOURCE_IN_USE a write is still in flight (its process is stopped): the
 *         range is closed to new writes and the call may be repeated
 */
int32_t smem_trans_deregister_mem(smem_trans_t handle, void *address);

/**
 * Write dataSize bytes into a peer's registered memory. 0: they are there, visible to everybody who
 * is ordered after the return. After any return the source is not touched any more.
 *
 * Blocks until done, or until the peer's loss is detected. The first write to a peer asks the
 * store who it is.
 *
 * @param srcAddress  local memory, registered or not
 * @param destSession the peer's name; the own session and others of this process are valid
 * @param destAddress the address as the peer sees it; the whole range must be registered there, in
 *                    one or several adjoining registrations
 * @param dataSize    bytes, > 0
 * @return SMEM_OK; SMEM_INVALID_PARAM an argument, the name is malformed, the range wraps or is not
 *         registered, or the peer has role SENDER (nothing is written); SMEM_OBJECT_NOT_EXISTS
 *         unknown handle or session, or destroyed; SMEM_PEER_LOST the session is lost; SMEM_STALE
 *         the address belonged to an earlier incarnation of the session, or was withdrawn during
 *         the call; network codes, SMEM_IO among them when the memory is not mapped any more
 */
int32_t smem_trans_write(smem_trans_t handle, const void *srcAddress, const char *destSession,
			 void *destAddress, size_t dataSize);

/**
 * Write many pieces to one session. All are checked before the first byte moves; then the first
 * failure's code is returned. Pieces are unordered.
 *
 * @return as smem_trans_write(); SMEM_INVALID_PARAM also when batchSize is 0 or an element is
 *         NULL or 0
 */
int32_t smem_trans_batch_write(smem_trans_t handle, const void *srcAddresses[],
			       const char *destSession, void *destAddresses[], size_t dataSizes[],
			       uint32_t batchSize);

/**
 * Read from a peer's registered memory: smem_trans_write() the other way. Allowed from every role.
 *
 * @param flags 0 or COPY_EXTEND_FLAG
 * @return as smem_trans_write(); SMEM_INVALID_PARAM also for other flags
 */
int32_t smem_trans_read(smem_trans_t handle, void *localAddr, const char *remoteSession,
			const void *remoteAddr, size_t dataSize, uint32_t flags);

/** Read many pieces: smem_trans_batch_write() the other way. */
int32_t smem_trans_batch_read(smem_trans_t handle, void *localAddrs[], const char *remoteSession,
			      const void *remoteAddrs[], size_t dataSizes[], uint32_t batchSize,
			      uint32_t flags);

#ifdef __cplusplus
}
#endif
#endif
