/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SMEM_H
#define SMEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "smem_security.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Every int32_t function of the library returns 0 or one of these. A failing call also sets the
 * calling thread's last error (smem_get_last_err_msg()).
 */
enum smem_error {
	SMEM_OK = 0,	 /**< success */
	SMEM_ERROR = -1, /**< internal failure that no other code describes */
	SMEM_INVALID_PARAM =
	    -2000, /**< argument NULL, zero, out of range, malformed or mismatched */
	SMEM_MALLOC_FAILED = -2001,	/**< memory (host, shared, device) cannot be had */
	SMEM_NEW_OBJECT_FAILED = -2002, /**< descriptors, threads, sockets or mappings exhausted */
	SMEM_NOT_STARTED =
	    -2003,	      /**< the rank, or the owner of a slot, has not joined or has left */
	SMEM_TIMEOUT = -2004, /**< a deadline passed */
	SMEM_REPEAT_CALL = -2005,	/**< this may be done once only */
	SMEM_DUPLICATED_OBJECT = -2006, /**< id, rank, session or address taken by something live */
	SMEM_OBJECT_NOT_EXISTS = -2007, /**< unknown handle, session or registration */
	SMEM_NOT_INITIALIZED = -2008,	/**< the service is not initialised */
	SMEM_RESOURCE_IN_USE = -2009,	/**< listen address or address range taken; group full */
	SMEM_PEER_LOST = -2020,		/**< a rank or session needed by the call is lost */
	SMEM_UNREACHABLE = -2021, /**< store connection lost, or no data path to a live peer */
	SMEM_STALE = -2022,	  /**< address of an earlier incarnation, or withdrawn meanwhile */
	SMEM_NOT_SUPPORTED = -2023, /**< not available in this build, machine or mode */
	SMEM_IO = -2024,	    /**< operating-system, network, device or protocol failure */
	SMEM_SECURITY = -2025	    /**< TLS configuration, certificate, key or handshake failure */
};

/** Copy returns early and smem_bm_wait() completes it. Accepted; copies are synchronous so far. */
#define ASYNC_COPY_FLAG (1U << 0)
/** Hint; never an error. */
#define COPY_EXTEND_FLAG (1U << 1)

int32_t smem_init(uint32_t flags);
void smem_uninit(void);
int32_t smem_create_config_store(const char *storeUrl);
int32_t smem_set_extern_logger(void (*func)(int level, const char *msg));
int32_t smem_set_log_level(int level);
const char *smem_get_last_err_msg(void);
const char *smem_get_and_clear_last_err_msg(void);
int32_t smem_get_last_err_code(void);
const char *smem_strerror(int32_t code);

#ifdef __cplusplus
}
#endif
#endif
