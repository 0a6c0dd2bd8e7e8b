/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SHM: arguments, the handle, the object. Ids are taken before anything is made, so that two
 * threads cannot create the same one; an object is known to uninit from the moment it may wait for
 * others, so that uninit can wake it.
 */
#include "smem_shm.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "api/export.h"
#include "api/handle.h"
#include "api/service.h"
#include "core/symmetric.h"
#include "util/cleanup.h"
#include "util/err.h"
#include "util/limits.h"
#include "util/log.h"

#define IDS	    64u
#define TIMEOUT_DEF 120u
#define OPS_ALL	    ((uint32_t)SMEMS_DATA_OP_MTE | SMEMS_DATA_OP_SDMA | SMEMS_DATA_OP_ROCE)
#define ANNOUNCE_MS 5000u /* an exit status on its way to the store */
#define NO_RANK	    UINT32_MAX

static void forget(void);
static struct service shm = {.name = "smem_shm",
			     .order = SERVICE_SHM,
			     .uninit = smem_shm_uninit,
			     .lock = PTHREAD_MUTEX_INITIALIZER,
			     .forget = forget};
SERVICE(shm)

/* Constant while the service is up. */
static struct {
	struct store *store;
	struct store_url url;
	uint32_t world;
	uint32_t rank;
	uint16_t device;
	smem_shm_config_t config;
} now;

static pthread_mutex_t ids_lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
	bool taken;
	struct symmetric *meeting; /* it waits for the others */
} ids[IDS];
static bool closing; /* uninit runs: nobody may begin to wait */

static void forget(void)
{
	memset(&now, 0, sizeof(now));
	memset(ids, 0, sizeof(ids));
	closing = false;
	pthread_mutex_init(&ids_lock, NULL);
}

/* ---- init ---- */

SMEM_API int32_t smem_shm_config_init(smem_shm_config_t *config)
{
	API_SCOPE(s);
	if (!config)
		return err_leave(&s, smem_err(SMEM_INVALID_PARAM, "config is NULL"));
	*config = (smem_shm_config_t){.shmInitTimeout = TIMEOUT_DEF,
				      .shmCreateTimeout = TIMEOUT_DEF,
				      .controlOperationTimeout = TIMEOUT_DEF,
				      .startConfigStore = true};
	return err_leave(&s, SMEM_OK);
}

static int32_t check_init(const char *url, uint32_t world, uint32_t rank,
			  const smem_shm_config_t *config, struct store_url *ret)
{
	if (!url)
		return smem_err(SMEM_INVALID_PARAM, "configStoreIpPort is NULL");
	if (!config)
		return smem_err(SMEM_INVALID_PARAM, "config is NULL");
	if (world == 0 || world > WORLD_MAX)
		return smem_err(SMEM_INVALID_PARAM, "worldSize %u, want 1..%u", world, WORLD_MAX);
	if (rank >= world)
		return smem_err(SMEM_INVALID_PARAM, "rankId %u, worldSize is %u", rank, world);
	if (config->shmInitTimeout == 0)
		return smem_err(SMEM_INVALID_PARAM, "shmInitTimeout is 0");
	if (config->shmCreateTimeout == 0)
		return smem_err(SMEM_INVALID_PARAM, "shmCreateTimeout is 0");
	if (config->controlOperationTimeout == 0)
		return smem_err(SMEM_INVALID_PARAM, "controlOperationTimeout is 0");
	return store_url_parse(url, false, ret);
}

/* Initialised already: say what is not as this call wants it. */
static void warn_if_unlike(const struct store_url *url, uint32_t world, uint32_t rank,
			   uint16_t device, const smem_shm_config_t *config)
{
	if (strcmp(url->text, now.url.text) != 0)
		LOG_WARN("shm", "initialised already: configStoreIpPort stays %s, not %s",
			 now.url.text, url->text);
	if (world != now.world)
		LOG_WARN("shm", "initialised already: worldSize stays %u, not %u", now.world,
			 world);
	if (rank != now.rank)
		LOG_WARN("shm", "initialised already: rankId stays %u, not %u", now.rank, rank);
	if (device != now.device)
		LOG_WARN("shm", "initialised already: deviceId stays %u, not %u", now.device,
			 device);
	if (config->shmInitTimeout != now.config.shmInitTimeout ||
	    config->shmCreateTimeout != now.config.shmCreateTimeout ||
	    config->controlOperationTimeout != now.config.controlOperationTimeout ||
	    config->startConfigStore != now.config.startConfigStore)
		LOG_WARN("shm", "initialised already: config stays as it was");
}

static int32_t init(const struct store_url *url, uint32_t world, uint32_t rank, uint16_t device,
		    const smem_shm_config_t *config)
{
	bool host = rank == 0 && config->startConfigStore;
	struct store *store;

	if (config->flags != 0)
		LOG_DEBUG("shm", "config.flags 0x%x ignored", config->flags);
	int32_t r = symmetric_store_open(url, host, deadline_in_s(config->shmInitTimeout), &store);
	if (r != SMEM_OK)
		return r;
	now.store = store;
	now.url = *url;
	now.world = world;
	now.rank = rank;
	now.device = device;
	now.config = *config;
	service_up(&shm);
	return SMEM_OK;
}

SMEM_API int32_t smem_shm_init(const char *configStoreIpPort, uint32_t worldSize, uint32_t rankId,
			       uint16_t deviceId, smem_shm_config_t *config)
{
	API_SCOPE(s);
	struct store_url url;
	int32_t r = check_init(configStoreIpPort, worldSize, rankId, config, &url);
	if (r != SMEM_OK)
		return err_leave(&s, r);
	service_lock(&shm);
	if (service_is_up(&shm))
		warn_if_unlike(&url, worldSize, rankId, deviceId, config);
	else
		r = init(&url, worldSize, rankId, deviceId, config);
	service_unlock(&shm);
	return err_leave(&s, r);
}

SMEM_API uint32_t smem_shm_query_support_data_operation(void)
{
	return SMEMS_DATA_OP_MTE; /* the others are a device backend's to offer */
}

/* ---- destroy, uninit ---- */

struct object {
	uint32_t id;
	struct symmetric *sym;
};

static void id_release(uint32_t id)
{
	LOCKED(&ids_lock);
	ids[id].taken = false;
	ids[id].meeting = NULL;
}

/* The handle was retired: nobody else does this. */
static void object_free(smem_shm_t handle, struct object *o)
{
	symmetric_tell_losses(o->sym);
	symmetric_wake(o->sym);
	handle_drain(handle);
	symmetric_free(o->sym);
	id_release(o->id);
	free(o);
	handle_free(handle);
}

static int32_t destroy(smem_shm_t handle)
{
	uint32_t ticket = 0;
	int32_t r = service_enter(&shm, &ticket);

	if (r != SMEM_OK)
		return r;
	struct object *o = handle_retire(HANDLE_SHM, handle);
	if (o)
		object_free(handle, o);
	else
		r = smem_err(SMEM_OBJECT_NOT_EXISTS, "no SHM object has the handle %p", handle);
	service_exit(&shm, ticket);
	return r;
}

SMEM_API int32_t smem_shm_destroy(smem_shm_t handle, uint32_t flags)
{
	API_SCOPE(s);
	if (!handle)
		return err_leave(&s, smem_err(SMEM_INVALID_PARAM, "handle is NULL"));
	if (flags != 0)
		LOG_DEBUG("shm", "smem_shm_destroy: flags 0x%x ignored", flags);
	return err_leave(&s, destroy(handle));
}

static void destroy_each(void *handle, void *arg)
{
	struct object *o = handle_retire(HANDLE_SHM, handle);

	(void)arg;
	if (o)
		object_free(handle, o);
}

static void set_closing(bool yes)
{
	LOCKED(&ids_lock);
	closing = yes;
	for (uint32_t i = 0; yes && i < IDS; i++) {
		if (ids[i].meeting)
			symmetric_wake(ids[i].meeting);
	}
}

SMEM_API void smem_shm_uninit(uint32_t flags)
{
	if (flags != 0)
		LOG_DEBUG("shm", "smem_shm_uninit: flags 0x%x ignored", flags);
	service_lock(&shm);
	if (service_is_up(&shm)) {
		set_closing(true);
		service_down(&shm);
		handle_each(HANDLE_SHM, destroy_each, NULL);
		symmetric_store_close(take_ptr(&now.store));
		set_closing(false);
	}
	service_unlock(&shm);
}

/* ---- create ---- */

struct create_args {
	uint32_t id;
	uint32_t size;
	uint32_t rank;
	uint64_t bytes;
	uint32_t op;
};

static int32_t check_create(const struct create_args *a, void **gva)
{
	if (a->id >= IDS)
		return smem_err(SMEM_INVALID_PARAM, "id %u, want 0..%u", a->id, IDS - 1);
	if (a->size == 0 || a->size > WORLD_MAX)
		return smem_err(SMEM_INVALID_PARAM, "rankSize %u, want 1..%u", a->size, WORLD_MAX);
	if (a->rank >= a->size)
		return smem_err(SMEM_INVALID_PARAM, "rankId %u, rankSize is %u", a->rank, a->size);
	if (a->bytes == 0 || a->bytes % SLOT_ALIGN != 0 || a->bytes > SLOT_MAX)
		return smem_err(SMEM_INVALID_PARAM,
				"symmetricSize %" PRIu64 ", want a multiple of 2 MiB up to 4 GiB",
				a->bytes);
	if (a->op == 0 || (a->op & ~OPS_ALL) != 0)
		return smem_err(SMEM_INVALID_PARAM, "dataOpType 0x%x, want bits of 0x%x", a->op,
				OPS_ALL);
	if (!gva)
		return smem_err(SMEM_INVALID_PARAM, "gva is NULL");
	return SMEM_OK;
}

static int32_t id_take(uint32_t id)
{
	LOCKED(&ids_lock);
	if (ids[id].taken)
		return smem_err(SMEM_DUPLICATED_OBJECT, "id %u exists in this process", id);
	ids[id].taken = true;
	return SMEM_OK;
}

/* Let uninit find it, or not any more (sym NULL). */
static int32_t id_meeting(uint32_t id, struct symmetric *sym)
{
	LOCKED(&ids_lock);
	ids[id].meeting = sym;
	if (sym && closing)
		return smem_err(SMEM_NOT_INITIALIZED, "smem_shm_uninit runs");
	return SMEM_OK;
}

static int32_t object_new(const struct create_args *a, smem_shm_t handle, struct object **ret)
{
	struct deadline deadline = deadline_in_s(now.config.shmCreateTimeout);
	struct symmetric_config config = {.id = a->id,
					  .size = a->size,
					  .rank = a->rank,
					  .bytes = a->bytes,
					  .store = now.store,
					  .gate = handle_gate(handle)};
	auto_free struct object *o = calloc(1, sizeof(*o));

	if (!o)
		return smem_err(SMEM_MALLOC_FAILED, "SHM object %u", a->id);
	o->id = a->id;
	int32_t r = symmetric_new(&config, deadline, &o->sym);
	if (r != SMEM_OK)
		return r;
	r = id_meeting(a->id, o->sym);
	if (r == SMEM_OK)
		r = symmetric_meet(o->sym, deadline);
	id_meeting(a->id, NULL);
	if (r != SMEM_OK) {
		symmetric_wake(o->sym);
		symmetric_free(o->sym);
		return r;
	}
	*ret = take_ptr(&o);
	return SMEM_OK;
}

static int32_t create(const struct create_args *a, void **gva, smem_shm_t *ret)
{
	struct object *o = NULL;
	smem_shm_t handle;
	void *base;

	int32_t r = id_take(a->id);
	if (r != SMEM_OK)
		return r;
	if ((a->op & ~smem_shm_query_support_data_operation()) != 0)
		r = smem_err(SMEM_NOT_SUPPORTED, "dataOpType 0x%x, supported are 0x%x", a->op,
			     smem_shm_query_support_data_operation());
	else
		r = handle_new(HANDLE_SHM, NULL, &handle);
	if (r == SMEM_OK) {
		r = object_new(a, handle, &o);
		if (r != SMEM_OK)
			handle_free(handle);
	}
	if (r != SMEM_OK) {
		id_release(a->id);
		return r;
	}
	base = symmetric_base(o->sym);
	handle_publish(handle, o);
	*gva = base;
	*ret = handle;
	return SMEM_OK;
}

SMEM_API smem_shm_t smem_shm_create(uint32_t id, uint32_t rankSize, uint32_t rankId,
				    uint64_t symmetricSize, smem_shm_data_op_type dataOpType,
				    uint32_t flags, void **gva)
{
	API_SCOPE(s);
	struct create_args args = {.id = id,
				   .size = rankSize,
				   .rank = rankId,
				   .bytes = symmetricSize,
				   .op = (uint32_t)dataOpType};
	smem_shm_t handle = NULL;
	uint32_t ticket = 0;

	int32_t r = check_create(&args, gva);
	if (r == SMEM_OK)
		r = service_enter(&shm, &ticket);
	if (r == SMEM_OK) {
		if (flags != 0)
			LOG_DEBUG("shm", "smem_shm_create: flags 0x%x ignored", flags);
		r = create(&args, gva, &handle);
		service_exit(&shm, ticket);
	}
	err_leave(&s, r);
	return handle;
}

/* ---- calls on an object ---- */

/* Steps 1, 3 and 4 of every call: hold the object. */
static int32_t hold(smem_shm_t handle, struct handle_ref *ref, struct symmetric **ret)
{
	int32_t r = service_check(&shm);

	if (r != SMEM_OK)
		return r;
	struct object *o = handle_hold(HANDLE_SHM, handle, ref);
	if (!o)
		return smem_err(SMEM_INVALID_PARAM, "no SHM object has the handle %p", handle);
	*ret = o->sym;
	return SMEM_OK;
}

static int32_t check_handle(smem_shm_t handle)
{
	return handle ? SMEM_OK : smem_err(SMEM_INVALID_PARAM, "handle is NULL");
}

/* Constant from create to destroy, but `now` may go while a call waits: read it once. */
static struct deadline control_deadline(void)
{
	return deadline_in_s(now.config.controlOperationTimeout);
}

static uint32_t rank_or_size(smem_shm_t handle, struct err_scope *s,
			     uint32_t (*fn)(const struct symmetric *))
{
	struct handle_ref ref;
	struct symmetric *sym = NULL;
	uint32_t value = NO_RANK;

	int32_t r = check_handle(handle);
	if (r == SMEM_OK)
		r = hold(handle, &ref, &sym);
	if (r == SMEM_OK) {
		value = fn(sym);
		handle_exit(&ref);
	}
	err_leave(s, r);
	return value;
}

SMEM_API uint32_t smem_shm_get_global_rank(smem_shm_t handle)
{
	API_SCOPE(s);
	return rank_or_size(handle, &s, symmetric_rank);
}

SMEM_API uint32_t smem_shm_get_global_rank_size(smem_shm_t handle)
{
	API_SCOPE(s);
	return rank_or_size(handle, &s, symmetric_size);
}

SMEM_API int32_t smem_shm_control_barrier(smem_shm_t handle)
{
	API_SCOPE(s);
	struct handle_ref ref;
	struct symmetric *sym = NULL;

	int32_t r = check_handle(handle);
	if (r == SMEM_OK)
		r = hold(handle, &ref, &sym);
	if (r != SMEM_OK)
		return err_leave(&s, r);
	r = symmetric_barrier(sym, control_deadline());
	handle_exit(&ref);
	return err_leave(&s, r);
}

static int32_t check_allgather(smem_shm_t handle, const char *send, uint32_t len, const char *recv)
{
	if (!handle)
		return check_handle(handle);
	if (!send)
		return smem_err(SMEM_INVALID_PARAM, "sendBuf is NULL");
	if (!recv)
		return smem_err(SMEM_INVALID_PARAM, "recvBuf is NULL");
	if (len == 0 || len > ALLGATHER_MAX)
		return smem_err(SMEM_INVALID_PARAM, "sendSize %u, want 1..%u", len, ALLGATHER_MAX);
	return SMEM_OK;
}

SMEM_API int32_t smem_shm_control_allgather(smem_shm_t handle, const char *sendBuf,
					    uint32_t sendSize, char *recvBuf, uint32_t recvSize)
{
	API_SCOPE(s);
	struct handle_ref ref;
	struct symmetric *sym = NULL;

	int32_t r = check_allgather(handle, sendBuf, sendSize, recvBuf);
	if (r == SMEM_OK)
		r = hold(handle, &ref, &sym);
	if (r != SMEM_OK)
		return err_leave(&s, r);
	if (recvSize != (uint64_t)sendSize * symmetric_size(sym))
		r = smem_err(SMEM_INVALID_PARAM, "recvSize %u, want sendSize %u times %u ranks",
			     recvSize, sendSize, symmetric_size(sym));
	else
		r = symmetric_allgather(sym, sendBuf, sendSize, recvBuf, control_deadline());
	handle_exit(&ref);
	return err_leave(&s, r);
}

SMEM_API int32_t smem_shm_set_extra_context(smem_shm_t handle, const void *context, uint32_t size)
{
	API_SCOPE(s);
	struct handle_ref ref;
	struct symmetric *sym = NULL;

	int32_t r = check_handle(handle);
	if (r == SMEM_OK && !context)
		r = smem_err(SMEM_INVALID_PARAM, "context is NULL");
	else if (r == SMEM_OK && (size == 0 || size > EXTRA_CONTEXT_MAX))
		r = smem_err(SMEM_INVALID_PARAM, "size %u, want 1..%u", size, EXTRA_CONTEXT_MAX);
	if (r == SMEM_OK)
		r = hold(handle, &ref, &sym);
	if (r != SMEM_OK)
		return err_leave(&s, r);
	r = symmetric_set_context(sym, context, size, control_deadline());
	handle_exit(&ref);
	return err_leave(&s, r);
}

static int32_t check_rank(const struct symmetric *sym, const char *name, uint32_t rank)
{
	if (rank < symmetric_size(sym))
		return SMEM_OK;
	return smem_err(SMEM_INVALID_PARAM, "%s %u, rankSize is %u", name, rank,
			symmetric_size(sym));
}

SMEM_API int32_t smem_shm_get_extra_context(smem_shm_t handle, uint32_t rank, void *buf,
					    uint32_t *size)
{
	API_SCOPE(s);
	struct handle_ref ref;
	struct symmetric *sym = NULL;

	int32_t r = check_handle(handle);
	if (r == SMEM_OK && !size)
		r = smem_err(SMEM_INVALID_PARAM, "size is NULL");
	else if (r == SMEM_OK && !buf && *size > 0)
		r = smem_err(SMEM_INVALID_PARAM, "buf is NULL, *size is %u", *size);
	if (r == SMEM_OK)
		r = hold(handle, &ref, &sym);
	if (r != SMEM_OK)
		return err_leave(&s, r);
	r = check_rank(sym, "rank", rank);
	if (r == SMEM_OK)
		r = symmetric_get_context(sym, rank, buf, size, control_deadline());
	handle_exit(&ref);
	return err_leave(&s, r);
}

SMEM_API int32_t smem_shm_topology_can_reach(smem_shm_t handle, uint32_t remoteRank,
					     uint32_t *reachInfo)
{
	API_SCOPE(s);
	struct handle_ref ref;
	struct symmetric *sym = NULL;

	int32_t r = check_handle(handle);
	if (r == SMEM_OK && !reachInfo)
		r = smem_err(SMEM_INVALID_PARAM, "reachInfo is NULL");
	if (r == SMEM_OK)
		r = hold(handle, &ref, &sym);
	if (r != SMEM_OK)
		return err_leave(&s, r);
	r = check_rank(sym, "remoteRank", remoteRank);
	if (r == SMEM_OK) {
		uint32_t reach = symmetric_reach(sym, remoteRank);
		*reachInfo = (reach & SYMMETRIC_MAPPED ? SMEMS_DATA_OP_MTE : 0) |
			     (reach & SYMMETRIC_FABRIC ? SMEMS_DATA_OP_ROCE : 0);
	}
	handle_exit(&ref);
	return err_leave(&s, r);
}

SMEM_API int32_t smem_shm_register_exit(smem_shm_t handle, void (*exit)(int))
{
	API_SCOPE(s);
	struct handle_ref ref;
	struct symmetric *sym = NULL;

	int32_t r = check_handle(handle);
	if (r == SMEM_OK && !exit)
		r = smem_err(SMEM_INVALID_PARAM, "exit is NULL");
	if (r == SMEM_OK)
		r = hold(handle, &ref, &sym);
	if (r != SMEM_OK)
		return err_leave(&s, r);
	r = symmetric_on_exit(sym, exit);
	handle_exit(&ref);
	return err_leave(&s, r);
}

SMEM_API void smem_shm_global_exit(smem_shm_t handle, int status)
{
	API_SCOPE(s);
	struct handle_ref ref;
	struct symmetric *sym = NULL;

	int32_t r = check_handle(handle);
	if (r == SMEM_OK)
		r = hold(handle, &ref, &sym);
	if (r == SMEM_OK) {
		r = symmetric_exit(sym, status, deadline_in_ms(ANNOUNCE_MS));
		handle_exit(&ref);
	}
	err_leave(&s, r);
}
