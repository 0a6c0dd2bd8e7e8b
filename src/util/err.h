/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Errors: one code space (enum smem_error), one text per thread.
 *
 * The function that finds a fault records it with smem_err() and returns the code; callers return
 * it untouched. A recorded fault is *pending* until the API function on the stack ends: err_leave()
 * turns it into the thread's last error, and logs it once, only if the call really failed. So a
 * fault that somebody recovers from costs nothing and never shows. Internal threads have no API
 * scope: they log err_detail() themselves.
 */
#ifndef UTIL_ERR_H
#define UTIL_ERR_H

#include "smem.h"

#define ERR_TEXT_MAX 1024 /* bytes, the terminating zero included */

/*
 * Record a fault on this thread and return `code`. The text is the *detail* only: it names the
 * argument and its value, or the peer and address range, and what to do. No function name, no code,
 * no line end. UTF-8; control characters are replaced; cut at 900 bytes. Never a secret.
 */
int32_t smem_err(int32_t code, const char *fmt, ...) __attribute__((format(printf, 2, 3), cold));

/* The same, with ": <strerror(err)> (errno N)" appended. */
int32_t smem_errno(int32_t code, int err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4), cold));

/* Code and detail of the last fault recorded on this thread; 0 and "" when there is none. */
int32_t err_code(void);
const char *err_detail(void);

/* SMEM_INVALID_PARAM -> "SMEM_INVALID_PARAM"; NULL for unknown codes. */
const char *err_name(int32_t code);

/*
 * The scope of one API function. Scopes nest (a logger called by the library may call the API).
 *
 *   int32_t smem_x(...) { struct err_scope s = err_enter(__func__); return err_leave(&s, x(...)); }
 */
struct err_scope {
	const char *api;
	struct err_scope *outer;
};

#define API_SCOPE(name)                                                                            \
	struct err_scope name;                                                                     \
	err_enter(&name, __func__)

void err_enter(struct err_scope *scope, const char *api);

/* r == 0: nothing but the scope's end. r < 0: sets and logs the last error. Returns r. */
int32_t err_leave(struct err_scope *scope, int32_t r);

/* Behind smem_get_last_err_msg() and its like. */
const char *err_last(void);
const char *err_last_clear(void);
int32_t err_last_code(void);

#endif
