/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether a link still moves. Everything else that can go wrong is noticed by somebody: the death
 * of a process and the silence of a host by the control connection, an error by the provider. What
 * is left is a way that loses the data alone, as a firewall does that knows one port of two.
 */
#ifndef TRANSPORT_OFI_WATCH_H
#define TRANSPORT_OFI_WATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "transport/ofi_wire.h"

struct ofi_link;

struct ofi_watch {		   /* the lead's */
	uint64_t next_ns;	   /* when to look again */
	uint64_t since_ns;	   /* nothing moved although the peer was there */
	uint64_t moved;		   /* bytes of its connections */
	uint64_t asked_ns;	   /* no answer to any ping since then; 0: none is out */
	uint64_t sent_ns;	   /* the last one */
	unsigned unanswered;	   /* pings */
	bool doubt;		   /* whether its host is heard */
	uint64_t turns, turned_ns; /* the peer's thread, and when it was known to run */
};

/* Something is in flight from now on. */
void ofi_watch_begin(struct ofi_link *l);

/* Something moved. */
static inline void ofi_watch_moved(struct ofi_watch *w, uint64_t now)
{
	w->since_ns = now;
}

enum ofi_verdict {
	WATCH_FINE,
	WATCH_STUCK,  /* nothing moved for limit_ms while the peer's process was there and served */
	WATCH_SILENT, /* its host was not heard for the silence time */
};

/* Call often while something is in flight; looks now and then. `why` is filled unless it is fine.
 * With the lead, without the lock. */
enum ofi_verdict ofi_watch_look(struct ofi_link *l, uint32_t limit_ms, char why[OFI_TEXT]);

/* For how long one may sleep between two calls. */
int ofi_watch_pause_ms(const struct ofi_link *l);

#endif
