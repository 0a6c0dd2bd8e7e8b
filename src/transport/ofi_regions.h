/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What this process exposes. Exposing is a row in a table; a key is made when the first peer that
 * knows the secret asks (the registration cache: one key a region and port, for all peers), and
 * revoked when the region is withdrawn.
 */
#ifndef TRANSPORT_OFI_REGIONS_H
#define TRANSPORT_OFI_REGIONS_H

#include "transport/ofi_local.h"
#include "transport/ofi_port.h"
#include "transport/ofi_wire.h"
#include "util/clock.h"

int32_t ofi_regions_add(uint64_t id, void *addr, size_t len, bool writable,
			const uint8_t secret[16]);

/*
 * The region that holds `addr`, reaches furthest, and whose secret gives `code` over the nonces;
 * its key at the port in *ret, unmasked. SMEM_STALE: no such region.
 */
int32_t ofi_regions_resolve(uint64_t addr, const uint8_t code[OFI_CODE],
			    const struct ofi_nonces *nonces, struct ofi_port *port,
			    struct ofi_ep *ep, struct ofi_region *ret, uint8_t ret_secret[16]);

/* The region exposed that holds all of [addr, addr + len) and reaches furthest; false: none. */
bool ofi_regions_holds(uint64_t addr, size_t len, struct ofi_span *ret);

/* Nobody gets it any more. False: no such region. */
bool ofi_regions_hide(uint64_t id);
/* So many peers have yet to say that nothing of theirs is in flight to it; and one of them did. */
void ofi_regions_await(uint64_t id, unsigned peers);
void ofi_regions_released(uint64_t id);
/* Wait for them. True when all did. */
bool ofi_regions_wait(uint64_t id, struct deadline deadline);
/* Revoke its keys and forget it. */
void ofi_regions_remove(uint64_t id);

/* Close keys that are bound to that endpoint or to its single port, which are about to be closed.
 */
void ofi_regions_unbind(struct ofi_port *port, struct ofi_ep *ep);

void ofi_regions_clear(void);
void ofi_regions_forget(void); /* after fork, in the child */

#endif
