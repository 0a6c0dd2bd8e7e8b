/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Big memory: arguments, handles, and which codes they give. The service's own state is its place
 * in the world and the ids that are taken in this process; the pool does the rest.
 */
#include "smem_bm.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/bm_object.h"
#include "api/export.h"
#include "api/service.h"
#include "core/world.h"
#include "util/cleanup.h"
#include "util/limits.h"
#include "util/log.h"

static struct {
	struct world world; /* as these two, what init brought up; valid while the service is */
	smem_bm_config_t config;
	_Atomic uint32_t rank; /* of the world; for readers without the service's gate */
	pthread_mutex_t lock;  /* list */
	struct bm *list;       /* what exists or is being created; ids are unique in it */
} state = {.rank = WORLD_NO_RANK, .lock = PTHREAD_MUTEX_INITIALIZER};

static void forget(void)
{
	memset(&state.world, 0, sizeof(state.world));
	atomic_store(&state.rank, WORLD_NO_RANK);
	pthread_mutex_init(&state.lock, NULL);
	state.list = NULL;
}

static struct service bm_service = {
    .name = "smem_bm", .order = SERVICE_BM, .uninit = smem_bm_uninit, .forget = forget};
SERVICE(bm_service)

/* ---- init, uninit ---- */

SMEM_API int32_t smem_bm_config_init(smem_bm_config_t *config)
{
	API_SCOPE(s);
	if (!config)
		return err_leave(&s, smem_err(SMEM_INVALID_PARAM, "config is NULL"));
	*config = (smem_bm_config_t){
	    .initTimeout = 120,
	    .createTimeout = 120,
	    .controlOperationTimeout = 120,
	    .startConfigStore = true,
	    .unifiedAddressSpace = true,
	    .rankId = UINT16_MAX,
	};
	return err_leave(&s, SMEM_OK);
}

static int32_t check_timeouts(const smem_bm_config_t *c)
{
	if (c->initTimeout == 0)
		return smem_err(SMEM_INVALID_PARAM, "config.initTimeout is 0");
	if (c->createTimeout == 0)
		return smem_err(SMEM_INVALID_PARAM, "config.createTimeout is 0");
	if (c->controlOperationTimeout == 0)
		return smem_err(SMEM_INVALID_PARAM, "config.controlOperationTimeout is 0");
	return SMEM_OK;
}

static int32_t check_init(const char *url, uint32_t size, const smem_bm_config_t *c,
			  struct store_url *ret)
{
	if (!url)
		return smem_err(SMEM_INVALID_PARAM, "storeURL is NULL");
	if (!c)
		return smem_err(SMEM_INVALID_PARAM, "config is NULL");
	if (size == 0 || size > WORLD_MAX)
		return smem_err(SMEM_INVALID_PARAM, "worldSize %u, want 1..%u", size, WORLD_MAX);
	if (!c->unifiedAddressSpace)
		return smem_err(SMEM_INVALID_PARAM, "config.unifiedAddressSpace is false");
	int32_t r = check_timeouts(c);
	if (r != SMEM_OK)
		return r;
	if (!c->autoRanking && !c->startConfigStoreOnly && c->rankId >= size)
		return smem_err(SMEM_INVALID_PARAM, "config.rankId %u, worldSize is %u", c->rankId,
				size);
	return store_url_parse(url, false, ret);
}

static enum store_role store_role(const smem_bm_config_t *c)
{
	if (c->startConfigStoreOnly)
		return STORE_HOST;
	if (!c->startConfigStore)
		return STORE_CONNECT;
	if (c->autoRanking)
		return STORE_HOST_IF_LOCAL;
	return c->rankId == 0 ? STORE_HOST : STORE_CONNECT;
}

static enum world_ranking ranking(const smem_bm_config_t *c)
{
	if (!c->autoRanking)
		return WORLD_GIVEN;
	return c->dynamicWorldSize ? WORLD_FIRST_FREE : WORLD_TOGETHER;
}

/* Repeated init: nothing changes; say what would have been different. */
static void warn_differences(const struct world_config *w, const smem_bm_config_t *b)
{
	const struct world_config *now = &state.world.config;
	const smem_bm_config_t *a = &state.config;

	if (strcmp(now->url.text, w->url.text) != 0)
		LOG_WARN("bm", "smem_bm_init again: storeURL %s ignored, it is %s", w->url.text,
			 now->url.text);
	if (now->size != w->size)
		LOG_WARN("bm", "smem_bm_init again: worldSize %u ignored, it is %u", w->size,
			 now->size);
	if (now->device != w->device)
		LOG_WARN("bm", "smem_bm_init again: deviceId %u ignored, it is %u", w->device,
			 now->device);
	if (a->rankId != b->rankId)
		LOG_WARN("bm", "smem_bm_init again: rankId %u ignored, it is %u", b->rankId,
			 a->rankId);
	if (a->initTimeout != b->initTimeout || a->createTimeout != b->createTimeout ||
	    a->controlOperationTimeout != b->controlOperationTimeout)
		LOG_WARN("bm", "smem_bm_init again: time-outs %u %u %u ignored, they are %u %u %u",
			 b->initTimeout, b->createTimeout, b->controlOperationTimeout,
			 a->initTimeout, a->createTimeout, a->controlOperationTimeout);
	if (a->startConfigStore != b->startConfigStore ||
	    a->startConfigStoreOnly != b->startConfigStoreOnly ||
	    a->dynamicWorldSize != b->dynamicWorldSize || a->autoRanking != b->autoRanking)
		LOG_WARN("bm", "smem_bm_init again: other switches in config ignored");
}

static int32_t bm_init(const char *url, uint32_t size, uint16_t device,
		       const smem_bm_config_t *config)
{
	struct world_config w = {.size = size, .device = device};

	int32_t r = check_init(url, size, config, &w.url);
	if (r != SMEM_OK)
		return r;
	w.role = store_role(config);
	w.store_only = config->startConfigStoreOnly;
	w.ranking = ranking(config);
	w.rank = config->rankId;
	LOCKED(&bm_service.lock);
	if (service_is_up(&bm_service)) {
		warn_differences(&w, config);
		return SMEM_OK;
	}
	r = world_open(&w, deadline_in_s(config->initTimeout), &state.world);
	if (r != SMEM_OK)
		return r;
	state.config = *config;
	atomic_store(&state.rank, state.world.rank);
	service_up(&bm_service);
	return SMEM_OK;
}

SMEM_API int32_t smem_bm_init(const char *storeURL, uint32_t worldSize, uint16_t deviceId,
			      const smem_bm_config_t *config)
{
	API_SCOPE(s);
	return err_leave(&s, bm_init(storeURL, worldSize, deviceId, config));
}

static void destroy_retired(void *handle, struct bm *bm, struct deadline deadline);

static void destroy_one(void *handle, void *arg)
{
	struct bm *bm = handle_retire(HANDLE_BM, handle);

	if (bm)
		destroy_retired(handle, bm, *(struct deadline *)arg);
}

SMEM_API void smem_bm_uninit(uint32_t flags)
{
	(void)flags;
	LOCKED(&bm_service.lock);
	if (!service_down(&bm_service))
		return;
	struct deadline deadline = deadline_in_ms(DESTROY_ACK_MS);
	handle_each(HANDLE_BM, destroy_one, &deadline);
	atomic_store(&state.rank, WORLD_NO_RANK);
	world_close(&state.world, STORE_LINGER_MS);
}

static int32_t get_rank(uint32_t *ret)
{
	int32_t r = service_check(&bm_service);

	if (r != SMEM_OK)
		return r;
	*ret = atomic_load(&state.rank);
	if (*ret == WORLD_NO_RANK)
		return smem_err(SMEM_NOT_SUPPORTED,
				"this process only hosts the store: it has no rank");
	return SMEM_OK;
}

SMEM_API uint32_t smem_bm_get_rank_id(void)
{
	uint32_t rank = WORLD_NO_RANK;

	API_SCOPE(s);
	return err_leave(&s, get_rank(&rank)) == SMEM_OK ? rank : WORLD_NO_RANK;
}

/* ---- create, destroy ---- */

static int32_t check_size(const char *name, uint64_t size)
{
	if (size % SLOT_ALIGN != 0 || size > SLOT_MAX)
		return smem_err(SMEM_INVALID_PARAM,
				"%s %" PRIu64 ", want a multiple of 2 MiB up to 4 GiB", name, size);
	return SMEM_OK;
}

static int32_t check_create(uint32_t members, smem_bm_data_op_type op, uint64_t dram, uint64_t hbm)
{
	const unsigned all = SMEMB_DATA_OP_SDMA | SMEMB_DATA_OP_ROCE | SMEMB_DATA_OP_HOST_TCP |
			     SMEMB_DATA_OP_DEVICE_RDMA | SMEMB_DATA_OP_HOST_URMA;

	if (members > WORLD_MAX)
		return smem_err(SMEM_INVALID_PARAM, "memberSize %u, want 0..%u", members,
				WORLD_MAX);
	if ((unsigned)op == 0 || ((unsigned)op & ~all) != 0)
		return smem_err(SMEM_INVALID_PARAM, "dataOpType 0x%x, want bits of 0x%x",
				(unsigned)op, all);
	int32_t r = check_size("localDRAMSize", dram);
	if (r == SMEM_OK)
		r = check_size("localHBMSize", hbm);
	if (r == SMEM_OK && dram == 0 && hbm == 0)
		r = smem_err(SMEM_INVALID_PARAM, "localDRAMSize and localHBMSize are both 0");
	return r;
}

/* Claim the id. */
static int32_t list_add(struct bm *bm)
{
	LOCKED(&state.lock);
	for (struct bm *b = state.list; b; b = b->next) {
		if (b->id == bm->id)
			return smem_err(SMEM_DUPLICATED_OBJECT,
					"id %u exists in this process already", bm->id);
	}
	bm->next = state.list;
	state.list = bm;
	return SMEM_OK;
}

static void list_remove(struct bm *bm)
{
	LOCKED(&state.lock);
	for (struct bm **p = &state.list; *p; p = &(*p)->next) {
		if (*p == bm) {
			*p = bm->next;
			return;
		}
	}
}

static int32_t create_pool(struct bm *bm, uint32_t members, uint64_t dram, uint64_t hbm,
			   void *handle)
{
	const struct world *w = &state.world;
	char name[32];

	snprintf(name, sizeof(name), "bm/%u", bm->id);
	struct pool_config config = {
	    .name = name,
	    .store = w->store,
	    .mode = STORE_GROUP_OPEN,
	    .world = w->config.size,
	    .members = members ? members : w->config.size,
	    .rank = w->rank,
	    .size = {[POOL_HBM] = hbm, [POOL_DRAM] = dram},
	    .size_name = {[POOL_HBM] = "localHBMSize", [POOL_DRAM] = "localDRAMSize"},
	    .members_name = "memberSize",
	    .gate = handle_gate(handle),
	};
	return pool_create(&config, deadline_in_s(state.config.createTimeout), &bm->pool);
}

/* In the service, with the id claimed. */
static int32_t create_claimed(struct bm *bm, uint32_t members, uint64_t dram, uint64_t hbm,
			      smem_bm_t *ret)
{
	void *handle;

	int32_t r = handle_new(HANDLE_BM, NULL, &handle);
	if (r != SMEM_OK)
		return r;
	r = create_pool(bm, members, dram, hbm, handle);
	if (r != SMEM_OK) {
		handle_free(handle);
		return r;
	}
	handle_publish(handle, bm);
	*ret = handle;
	return SMEM_OK;
}

static int32_t create_inside(uint32_t id, uint32_t members, uint64_t dram, uint64_t hbm,
			     smem_bm_t *ret)
{
	const struct world *w = &state.world;

	if (!w->group)
		return smem_err(SMEM_NOT_SUPPORTED,
				"this process only hosts the store (startConfigStoreOnly)");
	if (members > w->config.size)
		return smem_err(SMEM_INVALID_PARAM, "memberSize %u, worldSize is %u", members,
				w->config.size);
	struct bm *bm = calloc(1, sizeof(*bm));
	if (!bm)
		return smem_err(SMEM_MALLOC_FAILED, "object %u", id);
	bm->id = id;
	bm->control_timeout = state.config.controlOperationTimeout;
	int32_t r = list_add(bm);
	if (r == SMEM_OK) {
		r = create_claimed(bm, members, dram, hbm, ret);
		if (r != SMEM_OK)
			list_remove(bm);
	}
	if (r != SMEM_OK)
		free(bm);
	return r;
}

static int32_t bm_create(uint32_t id, uint32_t members, smem_bm_data_op_type op, uint64_t dram,
			 uint64_t hbm, smem_bm_t *ret)
{
	uint32_t ticket;

	int32_t r = check_create(members, op, dram, hbm);
	if (r == SMEM_OK)
		r = service_enter(&bm_service, &ticket);
	if (r != SMEM_OK)
		return r;
	r = create_inside(id, members, dram, hbm, ret);
	service_exit(&bm_service, ticket);
	return r;
}

SMEM_API smem_bm_t smem_bm_create(uint32_t id, uint32_t memberSize, smem_bm_data_op_type dataOpType,
				  uint64_t localDRAMSize, uint64_t localHBMSize, uint32_t flags)
{
	smem_bm_t bm = NULL;

	API_SCOPE(s);
	if (flags != 0)
		LOG_DEBUG("bm", "smem_bm_create: flags 0x%x ignored", flags);
	err_leave(&s, bm_create(id, memberSize, dataOpType, localDRAMSize, localHBMSize, &bm));
	return bm;
}

static void destroy_retired(void *handle, struct bm *bm, struct deadline deadline)
{
	pool_wake(bm->pool);
	handle_drain(handle);
	pool_destroy(bm->pool, deadline);
	list_remove(bm);
	free(bm);
	handle_free(handle);
}

static int32_t unknown_handle(smem_bm_t handle) __attribute__((cold));
static int32_t unknown_handle(smem_bm_t handle)
{
	return smem_err(SMEM_INVALID_PARAM, "handle %p is no BM object (destroyed?)", handle);
}

int32_t bm_null_handle(void)
{
	return smem_err(SMEM_INVALID_PARAM, "handle is NULL");
}

static int32_t bm_destroy(smem_bm_t handle)
{
	uint32_t ticket;

	if (!handle)
		return bm_null_handle();
	int32_t r = service_enter(&bm_service, &ticket);
	if (r != SMEM_OK)
		return r;
	struct bm *bm = handle_retire(HANDLE_BM, handle);
	if (bm)
		destroy_retired(handle, bm, deadline_in_ms(DESTROY_ACK_MS));
	else
		r = unknown_handle(handle);
	service_exit(&bm_service, ticket);
	return r;
}

SMEM_API void smem_bm_destroy(smem_bm_t handle)
{
	API_SCOPE(s);
	err_leave(&s, bm_destroy(handle));
}

/* ---- join, leave ---- */

int32_t bm_enter(smem_bm_t handle, bool waiting, struct handle_ref *ref, struct bm **ret)
{
	int32_t r = service_check(&bm_service);

	if (r != SMEM_OK)
		return r;
	*ret = waiting ? handle_hold(HANDLE_BM, handle, ref) : handle_enter(HANDLE_BM, handle, ref);
	return *ret ? SMEM_OK : unknown_handle(handle);
}

static int32_t bm_join(smem_bm_t handle, void **ret)
{
	struct handle_ref ref;
	struct bm *bm;

	if (!handle)
		return bm_null_handle();
	if (!ret)
		return smem_err(SMEM_INVALID_PARAM, "localGvaAddress is NULL");
	int32_t r = bm_enter(handle, true, &ref, &bm);
	if (r != SMEM_OK)
		return r;
	r = pool_join(bm->pool, deadline_in_s(bm->control_timeout));
	if (r == SMEM_OK)
		*ret = pool_slot(bm->pool, pool_main(bm->pool), bm->pool->config.rank);
	handle_exit(&ref);
	return r;
}

SMEM_API int32_t smem_bm_join(smem_bm_t handle, uint32_t flags, void **localGvaAddress)
{
	API_SCOPE(s);
	if (flags != 0)
		LOG_DEBUG("bm", "smem_bm_join: flags 0x%x ignored", flags);
	return err_leave(&s, bm_join(handle, localGvaAddress));
}

static int32_t bm_leave(smem_bm_t handle)
{
	struct handle_ref ref;
	struct bm *bm;

	if (!handle)
		return bm_null_handle();
	int32_t r = bm_enter(handle, true, &ref, &bm);
	if (r != SMEM_OK)
		return r;
	r = pool_leave(bm->pool, deadline_in_s(bm->control_timeout));
	handle_exit(&ref);
	return r;
}

SMEM_API int32_t smem_bm_leave(smem_bm_t handle, uint32_t flags)
{
	API_SCOPE(s);
	if (flags != 0)
		LOG_DEBUG("bm", "smem_bm_leave: flags 0x%x ignored", flags);
	return err_leave(&s, bm_leave(handle));
}

/* ---- sizes, addresses ---- */

/* SMEM_MEM_TYPE_BUTT: the main window. */
static enum pool_kind kind_of(const struct pool *pool, smem_bm_mem_type type)
{
	if (type == SMEM_MEM_TYPE_BUTT)
		return pool_main(pool);
	return type == SMEM_MEM_TYPE_DEVICE ? POOL_HBM : POOL_DRAM;
}

static int32_t check_mem_type(smem_bm_mem_type type)
{
	if (type == SMEM_MEM_TYPE_DEVICE || type == SMEM_MEM_TYPE_HOST)
		return SMEM_OK;
	return smem_err(SMEM_INVALID_PARAM, "memType %d, want %d or %d", (int)type,
			SMEM_MEM_TYPE_DEVICE, SMEM_MEM_TYPE_HOST);
}

static int32_t bm_size(smem_bm_t handle, smem_bm_mem_type type, uint64_t *ret)
{
	struct handle_ref ref;
	struct bm *bm;

	int32_t r = bm_enter(handle, false, &ref, &bm);
	if (r != SMEM_OK)
		return r;
	*ret = bm->pool->window[kind_of(bm->pool, type)].size;
	handle_exit(&ref);
	return SMEM_OK;
}

SMEM_API uint64_t smem_bm_get_local_mem_size(smem_bm_t handle)
{
	uint64_t size = 0;

	API_SCOPE(s);
	err_leave(&s, handle ? bm_size(handle, SMEM_MEM_TYPE_BUTT, &size) : bm_null_handle());
	return size;
}

SMEM_API uint64_t smem_bm_get_local_mem_size_by_mem_type(smem_bm_t handle, smem_bm_mem_type memType)
{
	uint64_t size = 0;

	API_SCOPE(s);
	int32_t r = handle ? check_mem_type(memType) : bm_null_handle();
	err_leave(&s, r == SMEM_OK ? bm_size(handle, memType, &size) : r);
	return size;
}

static int32_t slot_of(const struct pool *pool, smem_bm_mem_type type, uint16_t rank, void **ret)
{
	enum pool_kind kind = kind_of(pool, type);

	if (rank >= pool->config.world)
		return smem_err(SMEM_INVALID_PARAM, "peerRankId %u, worldSize is %u", rank,
				pool->config.world);
	if (pool->window[kind].size == 0)
		return smem_err(SMEM_INVALID_PARAM, "memType %d: the object has no such window",
				(int)type);
	*ret = pool_slot(pool, kind, rank);
	return SMEM_OK;
}

static int32_t bm_ptr(smem_bm_t handle, smem_bm_mem_type type, uint16_t rank, void **ret)
{
	struct handle_ref ref;
	struct bm *bm;

	int32_t r = bm_enter(handle, false, &ref, &bm);
	if (r != SMEM_OK)
		return r;
	r = slot_of(bm->pool, type, rank, ret);
	handle_exit(&ref);
	return r;
}

SMEM_API void *smem_bm_ptr(smem_bm_t handle, uint16_t peerRankId)
{
	void *ptr = NULL;

	API_SCOPE(s);
	err_leave(&s,
		  handle ? bm_ptr(handle, SMEM_MEM_TYPE_BUTT, peerRankId, &ptr) : bm_null_handle());
	return ptr;
}

SMEM_API void *smem_bm_ptr_by_mem_type(smem_bm_t handle, smem_bm_mem_type memType,
				       uint16_t peerRankId)
{
	void *ptr = NULL;

	API_SCOPE(s);
	int32_t r = handle ? check_mem_type(memType) : bm_null_handle();
	err_leave(&s, r == SMEM_OK ? bm_ptr(handle, memType, peerRankId, &ptr) : r);
	return ptr;
}
