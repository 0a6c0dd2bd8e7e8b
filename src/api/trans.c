/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TRANS has no init: an instance is all there is. A single write is a batch of one.
 */
#include <stdlib.h>

#include "smem_trans.h"

#include "api/export.h"
#include "api/handle.h"
#include "api/service.h"
#include "core/session.h"
#include "util/err.h"
#include "util/log.h"

#define INIT_TIMEOUT_S 120u

static struct service trans = {
    .name = "smem_trans",
    .order = SERVICE_TRANS,
    .uninit = smem_trans_uninit,
};
SERVICE(trans)

SMEM_API int32_t smem_trans_config_init(smem_trans_config_t *config)
{
	API_SCOPE(scope);
	if (!config)
		return err_leave(&scope, smem_err(SMEM_INVALID_PARAM, "config is NULL"));
	*config = (smem_trans_config_t){.role = SMEM_TRANS_NONE,
					.initTimeout = INIT_TIMEOUT_S,
					.deviceId = UINT32_MAX,
					.flags = 0};
	return err_leave(&scope, SMEM_OK);
}

/* ---- instances ---- */

static void ignore_flags(uint32_t flags)
{
	if (flags)
		LOG_DEBUG("trans", "flags 0x%x ignored", flags);
}

static int32_t check_text(const char *name, const char *text)
{
	if (!text)
		return smem_err(SMEM_INVALID_PARAM, "%s is NULL", name);
	if (!text[0])
		return smem_err(SMEM_INVALID_PARAM, "%s is empty", name);
	return SMEM_OK;
}

static int32_t create(const char *storeUrl, const char *sessionId,
		      const smem_trans_config_t *config, void **ret)
{
	struct session *s = NULL;

	int32_t r = check_text("storeUrl", storeUrl);
	if (!r)
		r = check_text("sessionId", sessionId);
	if (r)
		return r;
	if (!config)
		return smem_err(SMEM_INVALID_PARAM, "config is NULL");
	if ((int)config->role < SMEM_TRANS_NONE || config->role >= SMEM_TRANS_BUTT)
		return smem_err(SMEM_INVALID_PARAM, "role %d, want 0..3", (int)config->role);
	ignore_flags(config->flags);
	struct session_config c = {
	    .store_url = storeUrl,
	    .name = sessionId,
	    .role = config->role,
	    .device = config->deviceId,
	    .timeout_s = config->initTimeout ? config->initTimeout : INIT_TIMEOUT_S,
	};
	r = session_create(&c, &s);
	if (r)
		return r;
	r = handle_new(HANDLE_TRANS, s, ret);
	if (r)
		session_destroy(s);
	return r;
}

SMEM_API smem_trans_t smem_trans_create(const char *storeUrl, const char *sessionId,
					const smem_trans_config_t *config)
{
	void *handle = NULL;

	API_SCOPE(scope);
	return err_leave(&scope, create(storeUrl, sessionId, config, &handle)) ? NULL : handle;
}

static int32_t unknown(smem_trans_t handle)
{
	return smem_err(SMEM_OBJECT_NOT_EXISTS, "handle %p is not a TRANS instance", handle);
}

static int32_t destroy(smem_trans_t handle)
{
	if (!handle)
		return smem_err(SMEM_INVALID_PARAM, "handle is NULL");
	struct session *s = handle_retire(HANDLE_TRANS, handle);
	if (!s)
		return unknown(handle);
	session_wake(s);
	handle_drain(handle);
	session_destroy(s);
	handle_free(handle);
	return SMEM_OK;
}

SMEM_API void smem_trans_destroy(smem_trans_t handle, uint32_t flags)
{
	API_SCOPE(scope);
	ignore_flags(flags);
	err_leave(&scope, destroy(handle));
}

static void destroy_one(void *handle, void *arg)
{
	(void)arg;
	destroy(handle); /* whoever was faster has destroyed it */
}

SMEM_API void smem_trans_uninit(uint32_t flags)
{
	API_SCOPE(scope);
	ignore_flags(flags);
	service_lock(&trans);
	handle_each(HANDLE_TRANS, destroy_one, NULL);
	service_unlock(&trans);
	err_leave(&scope, SMEM_OK);
}

/* ---- registration ---- */

static int32_t enter(smem_trans_t handle, struct handle_ref *ref, struct session **ret)
{
	*ret = handle_enter(HANDLE_TRANS, handle, ref);
	return *ret ? SMEM_OK : unknown(handle);
}

static int32_t check_range(const void *address, size_t capacity, uint32_t i)
{
	if (!address)
		return smem_err(SMEM_INVALID_PARAM, "address is NULL (element %u)", i);
	if (capacity == 0)
		return smem_err(SMEM_INVALID_PARAM, "capacity is 0 (element %u)", i);
	if (capacity > UINTPTR_MAX - (uintptr_t)address)
		return smem_err(SMEM_INVALID_PARAM, "address %p + capacity %zu wraps (element %u)",
				address, capacity, i);
	return SMEM_OK;
}

static int32_t register_all(smem_trans_t handle, void *const *addresses, const size_t *capacities,
			    uint32_t count)
{
	struct handle_ref ref;
	struct session *s;
	int32_t r = SMEM_OK;

	for (uint32_t i = 0; i < count && !r; i++)
		r = check_range(addresses[i], capacities[i], i);
	if (!r)
		r = enter(handle, &ref, &s);
	if (r)
		return r;
	r = session_register(s, addresses, capacities, count);
	handle_exit(&ref);
	return r;
}

SMEM_API int32_t smem_trans_register_mem(smem_trans_t handle, void *address, size_t capacity,
					 uint32_t flags)
{
	API_SCOPE(scope);
	ignore_flags(flags);
	if (!handle)
		return err_leave(&scope, smem_err(SMEM_INVALID_PARAM, "handle is NULL"));
	return err_leave(&scope, register_all(handle, &address, &capacity, 1));
}

SMEM_API int32_t smem_trans_batch_register_mem(smem_trans_t handle, void *addresses[],
					       size_t capacities[], uint32_t count, uint32_t flags)
{
	API_SCOPE(scope);
	ignore_flags(flags);
	int32_t r = SMEM_OK;
	if (!handle)
		r = smem_err(SMEM_INVALID_PARAM, "handle is NULL");
	else if (!addresses || !capacities)
		r = smem_err(SMEM_INVALID_PARAM, "%s is NULL",
			     addresses ? "capacities" : "addresses");
	else if (count == 0)
		r = smem_err(SMEM_INVALID_PARAM, "count is 0");
	else
		r = register_all(handle, addresses, capacities, count);
	return err_leave(&scope, r);
}

static int32_t deregister(smem_trans_t handle, void *address)
{
	struct handle_ref ref;
	struct session *s;

	if (!handle)
		return smem_err(SMEM_INVALID_PARAM, "handle is NULL");
	if (!address)
		return smem_err(SMEM_INVALID_PARAM, "address is NULL");
	int32_t r = enter(handle, &ref, &s);
	if (r)
		return r;
	r = session_deregister(s, address);
	handle_exit(&ref);
	return r;
}

SMEM_API int32_t smem_trans_deregister_mem(smem_trans_t handle, void *address)
{
	API_SCOPE(scope);
	return err_leave(&scope, deregister(handle, address));
}

/* ---- write, read ---- */

/* What the arguments are called in messages. */
struct names {
	const char *local, *peer, *remote, *len, *n;
};
static const struct names write_names = {"srcAddress", "destSession", "destAddress", "dataSize",
					 "batchSize"};
static const struct names read_names = {"localAddr", "remoteSession", "remoteAddr", "dataSize",
					"batchSize"};

static int32_t check_batch(const struct session_batch *b, const struct names *names)
{
	int32_t r = check_text(names->peer, b->peer);

	if (r)
		return r;
	if (!b->local || !b->remote || !b->len)
		return smem_err(SMEM_INVALID_PARAM, "%s[] is NULL",
				!b->local    ? names->local
				: !b->remote ? names->remote
					     : names->len);
	if (b->n == 0)
		return smem_err(SMEM_INVALID_PARAM, "%s is 0", names->n);
	for (uint32_t i = 0; i < b->n; i++) {
		if (!b->local[i] || !b->remote[i])
			return smem_err(SMEM_INVALID_PARAM, "%s is NULL (element %u)",
					b->local[i] ? names->remote : names->local, i);
		if (b->len[i] == 0)
			return smem_err(SMEM_INVALID_PARAM, "%s is 0 (element %u)", names->len, i);
	}
	return SMEM_OK;
}

static int32_t transfer(smem_trans_t handle, const struct session_batch *b,
			const struct names *names)
{
	struct handle_ref ref;
	struct session *s;

	if (!handle)
		return smem_err(SMEM_INVALID_PARAM, "handle is NULL");
	int32_t r = check_batch(b, names);
	if (!r)
		r = enter(handle, &ref, &s);
	if (r)
		return r;
	r = session_transfer(s, b);
	handle_exit(&ref);
	return r;
}

SMEM_API int32_t smem_trans_write(smem_trans_t handle, const void *srcAddress,
				  const char *destSession, void *destAddress, size_t dataSize)
{
	void *local = (void *)(uintptr_t)srcAddress;
	const struct session_batch b = {
	    .peer = destSession, .local = &local, .remote = &destAddress, .len = &dataSize, .n = 1};

	API_SCOPE(scope);
	return err_leave(&scope, transfer(handle, &b, &write_names));
}

SMEM_API int32_t smem_trans_batch_write(smem_trans_t handle, const void *srcAddresses[],
					const char *destSession, void *destAddresses[],
					size_t dataSizes[], uint32_t batchSize)
{
	const struct session_batch b = {.peer = destSession,
					.local = (void *const *)srcAddresses,
					.remote = destAddresses,
					.len = dataSizes,
					.n = batchSize};

	API_SCOPE(scope);
	return err_leave(&scope, transfer(handle, &b, &write_names));
}

static int32_t check_read_flags(uint32_t flags)
{
	if (flags & ~(uint32_t)COPY_EXTEND_FLAG)
		return smem_err(SMEM_INVALID_PARAM, "flags 0x%x, want 0 or COPY_EXTEND_FLAG",
				flags);
	return SMEM_OK;
}

SMEM_API int32_t smem_trans_read(smem_trans_t handle, void *localAddr, const char *remoteSession,
				 const void *remoteAddr, size_t dataSize, uint32_t flags)
{
	void *remote = (void *)(uintptr_t)remoteAddr;
	const struct session_batch b = {.peer = remoteSession,
					.local = &localAddr,
					.remote = &remote,
					.len = &dataSize,
					.n = 1,
					.read = true};

	API_SCOPE(scope);
	int32_t r = check_read_flags(flags);
	return err_leave(&scope, r ? r : transfer(handle, &b, &read_names));
}

SMEM_API int32_t smem_trans_batch_read(smem_trans_t handle, void *localAddrs[],
				       const char *remoteSession, const void *remoteAddrs[],
				       size_t dataSizes[], uint32_t batchSize, uint32_t flags)
{
	const struct session_batch b = {.peer = remoteSession,
					.local = localAddrs,
					.remote = (void *const *)remoteAddrs,
					.len = dataSizes,
					.n = batchSize,
					.read = true};

	API_SCOPE(scope);
	int32_t r = check_read_flags(flags);
	return err_leave(&scope, r ? r : transfer(handle, &b, &read_names));
}
