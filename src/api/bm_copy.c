/* SPDX-License-Identifier: Apache-2.0 */
/* The copies of the BM API: arguments and handle here, everything about ranges and ranks in
 * core/copy.c. */
#include "smem_bm.h"

#include "api/bm_object.h"
#include "api/export.h"
#include "core/copy.h"
#include "util/err.h"

static int32_t check_type(smem_bm_copy_type t, enum copy_way *ret)
{
	switch (t) {
	case SMEMB_COPY_L2G:
	case SMEMB_COPY_H2G:
		*ret = COPY_TO_GLOBAL;
		return SMEM_OK;
	case SMEMB_COPY_G2L:
	case SMEMB_COPY_G2H:
		*ret = COPY_FROM_GLOBAL;
		return SMEM_OK;
	case SMEMB_COPY_L2GH:
	case SMEMB_COPY_GH2L:
	case SMEMB_COPY_GH2H:
	case SMEMB_COPY_H2GH:
	case SMEMB_COPY_G2G:
	case SMEMB_COPY_AUTO:
		return smem_err(SMEM_NOT_SUPPORTED, "copy type %d is not offered", (int)t);
	default:
		return smem_err(SMEM_INVALID_PARAM, "copy type %d, want 0..3", (int)t);
	}
}

static int32_t zero_param(const char *name) __attribute__((cold));
static int32_t zero_param(const char *name)
{
	return smem_err(SMEM_INVALID_PARAM, "params->%s is 0", name);
}

static int32_t check_xfer(const struct smem_xfer *x, bool flat)
{
	if (!x->src)
		return smem_err(SMEM_INVALID_PARAM, "params->src is NULL");
	if (!x->dst)
		return smem_err(SMEM_INVALID_PARAM, "params->dest is NULL");
	if (x->width == 0)
		return zero_param(flat ? "count" : "width");
	return x->height == 0 ? zero_param("height") : SMEM_OK;
}

static int32_t bm_move(smem_bm_t handle, const struct smem_xfer *x, smem_bm_copy_type t, bool flat)
{
	struct handle_ref ref;
	enum copy_way way = COPY_TO_GLOBAL;
	struct bm *bm;

	int32_t r = bm_enter(handle, false, &ref, &bm);
	if (r != SMEM_OK)
		return r;
	r = check_type(t, &way);
	if (r == SMEM_OK)
		r = check_xfer(x, flat);
	if (r == SMEM_OK)
		r = copy_run(bm->pool, way, x, 1);
	handle_exit(&ref);
	return r;
}

static int32_t null_params(smem_bm_t handle) __attribute__((cold));
static int32_t null_params(smem_bm_t handle)
{
	return handle ? smem_err(SMEM_INVALID_PARAM, "params is NULL") : bm_null_handle();
}

SMEM_API int32_t smem_bm_copy(smem_bm_t handle, smem_copy_params *params, smem_bm_copy_type t,
			      uint32_t flags)
{
	API_SCOPE(s);
	(void)flags;
	if (!handle || !params)
		return err_leave(&s, null_params(handle));
	struct smem_xfer x = {
	    .dst = params->dest, .src = params->src, .width = params->count, .height = 1};
	return err_leave(&s, bm_move(handle, &x, t, true));
}

SMEM_API int32_t smem_bm_copy_2d(smem_bm_t handle, smem_copy_2d_params *params, smem_bm_copy_type t,
				 uint32_t flags)
{
	API_SCOPE(s);
	(void)flags;
	if (!handle || !params)
		return err_leave(&s, null_params(handle));
	struct smem_xfer x = {
	    .dst = params->dest,
	    .src = params->src,
	    .dpitch = params->dpitch,
	    .spitch = params->spitch,
	    .width = params->width,
	    .height = params->height,
	};
	return err_leave(&s, bm_move(handle, &x, t, false));
}
