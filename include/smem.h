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

/*
 * Unless said otherwise, every function of the library may be called from any thread at any time,
 * and its output parameters are written only on success.
 */

/**
 * Optional: every other function works without it.
 *
 * @param flags reserved, 0
 * @return SMEM_OK, also when repeated. Does not block.
 */
int32_t smem_init(uint32_t flags);

/**
 * The counterpart of everything: smem_bm_uninit(), smem_shm_uninit(), smem_trans_uninit(), then the
 * stores made by smem_create_config_store() and all internal threads. Harmless when nothing is
 * initialised and when repeated; the library can be used again afterwards. Logger, log level,
 * decrypt handler and last error stay.
 *
 * Blocks for data movement in flight, and at most 5 s for peers plus 5 s for clients of stores that
 * this process hosts. Never from a logger.
 */
void smem_uninit(void);

/**
 * Host a config store in this process: listen on the URL until smem_uninit() or the process's end.
 * A store this process has already for the URL is reused.
 *
 * @param storeUrl "tcp://host:port"; host is an IPv4 address, an IPv6 address in brackets or a
 *                 name; 0.0.0.0 and [::] listen on all addresses. Copied.
 * @return SMEM_OK, also when repeated; SMEM_INVALID_PARAM when NULL, malformed, or not an address
 * of this machine; SMEM_RESOURCE_IN_USE when another process has the port (after at most 2 s,
 *         otherwise it does not block); SMEM_SECURITY for unusable TLS settings; SMEM_IO,
 *         SMEM_MALLOC_FAILED, SMEM_NEW_OBJECT_FAILED
 */
int32_t smem_create_config_store(const char *storeUrl);

/**
 * Send log records to a function instead of standard error. Process-wide, at any time, last one
 * wins.
 *
 * @param func called with the level (0 debug, 1 info, 2 warn, 3 error) and one line of text without
 *             line end, valid during the call; from any thread, several at once. It may call the
 *             library, except uninit functions; records of its own thread meanwhile are dropped.
 * @return SMEM_OK; SMEM_INVALID_PARAM when NULL (the present sink stays)
 */
int32_t smem_set_extern_logger(void (*func)(int level, const char *msg));

/**
 * Drop log records below a level. Process-wide, at any time; initially 2.
 *
 * @param level 0 debug, 1 info, 2 warn, 3 error
 * @return SMEM_OK; SMEM_INVALID_PARAM for other levels (the present one stays)
 */
int32_t smem_set_log_level(int level);

/**
 * Why the calling thread's last failing call failed: "<function>: <NAME> (<code>): <detail>", one
 * line of UTF-8, at most 1023 bytes. Calls that succeed do not change it.
 *
 * @return "" when there is none; never NULL. The library's; valid until the thread's next failing
 *         call, next clear, or end.
 */
const char *smem_get_last_err_msg(void);

/** The same, and forgets it: the next smem_get_last_err_msg() of this thread gives "". */
const char *smem_get_and_clear_last_err_msg(void);

/** The code that belongs to smem_get_last_err_msg(); 0 when there is none. */
int32_t smem_get_last_err_code(void);

/** What a code means: static text, never NULL, also for unknown codes. */
const char *smem_strerror(int32_t code);

#ifdef __cplusplus
}
#endif
#endif
