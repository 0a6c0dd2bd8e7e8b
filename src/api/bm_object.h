/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the BM API share. */
#ifndef API_BM_OBJECT_H
#define API_BM_OBJECT_H

#include "api/handle.h"
#include "core/pool.h"
#include "smem_bm.h"

struct bm {
	uint32_t id;
	struct pool *pool;
	uint32_t control_timeout; /* seconds */
	struct bm *next;	  /* of those of this process */
};

/* Steps 3 and 4 of every call on an object (specification 3.1). waiting: it may be long inside, see
 * api/handle.h. Leave with handle_exit(). */
int32_t bm_enter(smem_bm_t handle, bool waiting, struct handle_ref *ref, struct bm **ret);

/* Step 1 failed. */
int32_t bm_null_handle(void) __attribute__((cold));

#endif
