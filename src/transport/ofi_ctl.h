/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A control connection: one TCP connection that carries ofi_wire.h's messages between an initiator
 * and a target, and tells both when the other side is gone: at once when its process ended, within
 * the silence time when its host or the way to it is dead. A process that is stopped on a live host
 * is neither.
 *
 * A ctl lives on the transport's loop; only ofi_ctl_post() may be called from elsewhere.
 */
#ifndef TRANSPORT_OFI_CTL_H
#define TRANSPORT_OFI_CTL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "transport/ofi_wire.h"

struct loop;
struct ofi_ctl;

struct ofi_ctl_ops {
	void (*up)(void *arg); /* connected; may be NULL */
	void (*msg)(void *arg, const struct ofi_msg *m);
	/* The connection is no more: err 0 end of file, EPROTO nonsense received, else errno. Once;
	 * ofi_ctl_free() is still to be called, and may be called here. */
	void (*end)(void *arg, int err);
};

/* Over an accepted socket, which is taken even on failure. silence_ms: see above. */
int32_t ofi_ctl_accept(struct loop *loop, int fd, uint32_t silence_ms,
		       const struct ofi_ctl_ops *ops, void *arg, struct ofi_ctl **ret);
/* To `sa`: ends in ops->up or ops->end. */
int32_t ofi_ctl_connect(struct loop *loop, const struct sockaddr *sa, socklen_t len,
			uint32_t silence_ms, const struct ofi_ctl_ops *ops, void *arg,
			struct ofi_ctl **ret);
void ofi_ctl_free(struct ofi_ctl *ctl); /* NULL is fine; no callback afterwards */

/* Another silence time. */
void ofi_ctl_silence(struct ofi_ctl *ctl, uint32_t silence_ms);

/* The local address of the connection. */
void ofi_ctl_local(struct ofi_ctl *ctl, struct sockaddr_storage *ret);

/* Milliseconds since the peer's host was last heard; a live one answers a probe every second. And
 * whether something was sent that it has not acknowledged (may be NULL). Any thread, while the ctl
 * cannot be freed. */
uint32_t ofi_ctl_heard_ms(const struct ofi_ctl *ctl, bool *ret_unacked);

/* body: of the size that belongs to the type. */
void ofi_ctl_send(struct ofi_ctl *ctl, enum ofi_type type, const void *body);

/* The same from any thread, soon. The ctl must not be freed before; loop_call(ofi_ctl_free) from
 * the same thread, or later, is in order. */
int32_t ofi_ctl_post(struct ofi_ctl *ctl, enum ofi_type type, const void *body);

#endif
