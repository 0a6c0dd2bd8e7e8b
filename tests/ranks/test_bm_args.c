/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bad input, row by row: the code, the message (function, name of the code, argument, value), and
 * that nothing was written. The order of checks: a handle or argument that is wrong in itself comes
 * before the service, the service before the look-up, the look-up before what depends on state.
 */
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "bm_util.h"

#define SLOT (2 * MIB)

/* The last error has the form of 2.5 in the specification and speaks of `what`. */
static void check_message(struct rank *r, const char *function, int32_t code, const char *name,
			  const char *what)
{
	char head[128];
	const char *msg = smem_get_last_err_msg();

	snprintf(head, sizeof(head), "%s: %s (%d): ", function, name, code);
	if (strncmp(msg, head, strlen(head)) != 0 || !strstr(msg, what) || strlen(msg) > 1023 ||
	    strchr(msg, '\n'))
		rank_fail(r, __FILE__, __LINE__, "want \"%s...%s\"", head, what);
	RANK_CODE(r, smem_get_last_err_code(), code);
	RANK_ASSERT(r, smem_get_and_clear_last_err_msg() == msg);
	RANK_ASSERT(r, smem_get_last_err_msg()[0] == '\0' && smem_get_last_err_code() == 0);
}

#define BAD(r, function, what) check_message(r, function, -2000, "SMEM_INVALID_PARAM", what)
#define NOT_UP(r, function)                                                                        \
	check_message(r, function, -2008, "SMEM_NOT_INITIALIZED", "smem_bm is not initialised")

static void common_functions(struct rank *r)
{
	RANK_OK(r, smem_init(0));
	RANK_OK(r, smem_init(0));
	static const int levels[] = {-1, 4, 5, INT32_MAX, INT32_MIN};
	for (size_t i = 0; i < sizeof(levels) / sizeof(levels[0]); i++) {
		RANK_CODE(r, smem_set_log_level(levels[i]), SMEM_INVALID_PARAM);
		BAD(r, "smem_set_log_level", "level");
	}
	for (int level = 3; level >= 0; level--)
		RANK_OK(r, smem_set_log_level(level));
	RANK_OK(r, smem_set_log_level(3));
	RANK_CODE(r, smem_set_extern_logger(NULL), SMEM_INVALID_PARAM);
	BAD(r, "smem_set_extern_logger", "func");
	RANK_CODE(r, smem_create_config_store(NULL), SMEM_INVALID_PARAM);
	BAD(r, "smem_create_config_store", "storeUrl");
	RANK_CODE(r, smem_create_config_store("tcp://:1"), SMEM_INVALID_PARAM);
	BAD(r, "smem_create_config_store", "tcp://:1");
	static const int32_t codes[] = {0, -1, -2000, -2025, -5, 7, INT32_MIN};
	for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
		RANK_ASSERT(r, smem_strerror(codes[i]) && smem_strerror(codes[i])[0]);
	smem_uninit();
	smem_uninit();
	RANK_ASSERT(r, smem_get_last_err_msg()[0] == '\0'); /* success changes nothing */
}

struct init_row {
	const char *url;
	uint32_t world;
	const char *what;
	void (*spoil)(smem_bm_config_t *c);
};

static void no_unified(smem_bm_config_t *c)
{
	c->unifiedAddressSpace = false;
}

static void no_init_timeout(smem_bm_config_t *c)
{
	c->initTimeout = 0;
}

static void no_create_timeout(smem_bm_config_t *c)
{
	c->createTimeout = 0;
}

static void no_control_timeout(smem_bm_config_t *c)
{
	c->controlOperationTimeout = 0;
}

static void rank_two(smem_bm_config_t *c)
{
	c->rankId = 2;
}

static void rank_default(smem_bm_config_t *c)
{
	c->rankId = UINT16_MAX;
}

static void init_rows(struct rank *r)
{
	static const char good[] = "tcp://127.0.0.1:9";
	static const struct init_row rows[] = {
	    {NULL, 2, "storeURL", NULL},
	    {good, 0, "worldSize 0", NULL},
	    {good, 1025, "worldSize 1025", NULL},
	    {good, 65536, "worldSize 65536", NULL},
	    {good, 2, "unifiedAddressSpace", no_unified},
	    {good, 2, "initTimeout", no_init_timeout},
	    {good, 2, "createTimeout", no_create_timeout},
	    {good, 2, "controlOperationTimeout", no_control_timeout},
	    {good, 2, "rankId 2", rank_two},
	    {good, 2, "rankId 65535", rank_default},
	    {"", 2, "", NULL},
	    {"tcp://1.2.3.4", 2, "tcp://1.2.3.4", NULL},
	    {"http://1.2.3.4:9", 2, "http://1.2.3.4:9", NULL},
	    {"tcp://1.2.3.4:0", 2, "tcp://1.2.3.4:0", NULL},
	    {"tcp://1.2.3.4:65536", 2, "65536", NULL},
	    {"tcp://1.2.3.4:05", 2, "05", NULL},
	    {"tcp://01.2.3.4:9", 2, "01.2.3.4", NULL},
	    {"tcp://::1:9", 2, "::1", NULL},
	    {"tcp://1.2.3.4:9 ", 2, "1.2.3.4", NULL},
	    {"tcp://1.2.3.4:9/x", 2, "/x", NULL},
	    {"tcp://0.0.0.0:9", 2, "0.0.0.0", NULL},
	    {"tcp://[::]:9", 2, "::", NULL},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		smem_bm_config_t c = bm_config(r);
		if (rows[i].spoil)
			rows[i].spoil(&c);
		RANK_CODE(r, smem_bm_init(rows[i].url, rows[i].world, 0, &c), SMEM_INVALID_PARAM);
		BAD(r, "smem_bm_init", rows[i].what);
	}
	RANK_CODE(r, smem_bm_init(good, 2, 0, NULL), SMEM_INVALID_PARAM);
	BAD(r, "smem_bm_init", "config");
	RANK_CODE(r, smem_bm_config_init(NULL), SMEM_INVALID_PARAM);
	BAD(r, "smem_bm_config_init", "config");
	smem_bm_config_t c;
	memset(&c, 0xff, sizeof(c));
	RANK_OK(r, smem_bm_config_init(&c));
	RANK_ASSERT(
	    r, c.initTimeout == 120 && c.createTimeout == 120 && c.controlOperationTimeout == 120 &&
		   c.startConfigStore && !c.startConfigStoreOnly && !c.dynamicWorldSize &&
		   c.unifiedAddressSpace && !c.autoRanking && c.rankId == 65535 && c.flags == 0);
}

/* Every function with this handle value gives this. */
static void handle_rows(struct rank *r, smem_bm_t h, bool up)
{
	smem_copy_params p = {.src = &p, .dest = &p, .count = 1};
	smem_copy_2d_params q = {.src = &q, .dest = &q, .width = 1, .height = 1};
	int32_t want = !h || up ? SMEM_INVALID_PARAM : SMEM_NOT_INITIALIZED;
	void *own = &p;

#define ROW(name, failed)                                                                          \
	do {                                                                                       \
		RANK_ASSERT(r, failed);                                                            \
		RANK_CODE(r, smem_get_last_err_code(), want);                                      \
		if (want == SMEM_NOT_INITIALIZED)                                                  \
			NOT_UP(r, name);                                                           \
		else                                                                               \
			BAD(r, name, "handle");                                                    \
	} while (0)
	ROW("smem_bm_join", smem_bm_join(h, 0, &own) == want);
	ROW("smem_bm_leave", smem_bm_leave(h, 0) == want);
	ROW("smem_bm_copy", smem_bm_copy(h, &p, SMEMB_COPY_H2G, 0) == want);
	ROW("smem_bm_copy_2d", smem_bm_copy_2d(h, &q, SMEMB_COPY_H2G, 0) == want);
	ROW("smem_bm_get_local_mem_size", smem_bm_get_local_mem_size(h) == 0);
	ROW("smem_bm_get_local_mem_size_by_mem_type",
	    smem_bm_get_local_mem_size_by_mem_type(h, SMEM_MEM_TYPE_HOST) == 0);
	ROW("smem_bm_ptr", smem_bm_ptr(h, 0) == NULL);
	ROW("smem_bm_ptr_by_mem_type", smem_bm_ptr_by_mem_type(h, SMEM_MEM_TYPE_HOST, 0) == NULL);
	ROW("smem_bm_destroy", (smem_bm_destroy(h), true));
#undef ROW
	RANK_ASSERT(r, own == &p);
}

/* NULL arguments come before the service and the handle. */
static void null_rows(struct rank *r, smem_bm_t h)
{
	RANK_CODE(r, smem_bm_join(h, 0, NULL), SMEM_INVALID_PARAM);
	BAD(r, "smem_bm_join", "localGvaAddress");
	RANK_CODE(r, smem_bm_copy(h, NULL, SMEMB_COPY_H2G, 0), SMEM_INVALID_PARAM);
	BAD(r, "smem_bm_copy", "params");
	RANK_CODE(r, smem_bm_copy_2d(h, NULL, SMEMB_COPY_H2G, 0), SMEM_INVALID_PARAM);
	BAD(r, "smem_bm_copy_2d", "params");
	for (int type = -1; type < 6; type++) {
		if (type == SMEM_MEM_TYPE_DEVICE || type == SMEM_MEM_TYPE_HOST)
			continue;
		RANK_ASSERT(r, !smem_bm_ptr_by_mem_type(h, (smem_bm_mem_type)type, 0));
		BAD(r, "smem_bm_ptr_by_mem_type", "memType");
		RANK_ASSERT(r, !smem_bm_get_local_mem_size_by_mem_type(h, (smem_bm_mem_type)type));
		BAD(r, "smem_bm_get_local_mem_size_by_mem_type", "memType");
	}
}

struct create_row {
	uint32_t members;
	int op;
	uint64_t dram, hbm;
	const char *what;
};

static void create_rows(struct rank *r)
{
	static const struct create_row rows[] = {
	    {1025, 1, SLOT, 0, "memberSize 1025"},
	    {UINT32_MAX, 1, SLOT, 0, "memberSize 4294967295"},
	    {1, 0, SLOT, 0, "dataOpType 0x0"},
	    {1, 32, SLOT, 0, "dataOpType 0x20"},
	    {1, -1, SLOT, 0, "dataOpType 0xffffffff"},
	    {1, 1, 0, 0, "both 0"},
	    {1, 1, 1024, 0, "localDRAMSize 1024"},
	    {1, 1, 3 * MIB, 0, "localDRAMSize 3145728"},
	    {1, 1, 4096 * MIB + SLOT, 0, "localDRAMSize 4297064448"},
	    {1, 1, UINT64_MAX, 0, "localDRAMSize 18446744073709551615"},
	    {1, 1, SLOT, 1024, "localHBMSize 1024"},
	    {1, 1, 0, 3 * MIB, "localHBMSize 3145728"},
	    {1, 1, SLOT, 4096 * MIB + SLOT, "localHBMSize 4297064448"},
	    {1, 1, 0, UINT64_MAX, "localHBMSize 18446744073709551615"},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const struct create_row *w = &rows[i];
		RANK_ASSERT(r, !smem_bm_create(1, w->members, (smem_bm_data_op_type)w->op, w->dram,
					       w->hbm, 0));
		BAD(r, "smem_bm_create", w->what);
	}
}

static void before_init(struct rank *r)
{
	int local;

	init_rows(r);
	handle_rows(r, NULL, false);
	handle_rows(r, (void *)1, false);
	handle_rows(r, &local, false);
	null_rows(r, (void *)1);
	create_rows(r);
	RANK_ASSERT(r, !smem_bm_create(1, 1, SMEMB_DATA_OP_SDMA, SLOT, 0, 0));
	NOT_UP(r, "smem_bm_create");
	RANK_ASSERT(r, smem_bm_get_rank_id() == UINT32_MAX);
	NOT_UP(r, "smem_bm_get_rank_id");
	smem_bm_uninit(0);
}

static void objects(struct rank *r)
{
	int local;
	void *own;

	bm_init(r);
	handle_rows(r, NULL, true);
	handle_rows(r, (void *)1, true);
	handle_rows(r, &local, true);
	null_rows(r, (void *)1);
	create_rows(r);
	RANK_ASSERT(r, !smem_bm_create(1, r->size + 1, SMEMB_DATA_OP_SDMA, SLOT, 0, 0));
	BAD(r, "smem_bm_create", "memberSize 2, worldSize is 1");
	smem_bm_t a = smem_bm_create(4294967295u, 0, (smem_bm_data_op_type)31, SLOT, 0, 7);
	RANK_ASSERT(r, a != NULL);
	RANK_ASSERT(r, !smem_bm_create(4294967295u, 0, SMEMB_DATA_OP_SDMA, SLOT, 0, 0));
	check_message(r, "smem_bm_create", -2006, "SMEM_DUPLICATED_OBJECT", "4294967295");
	null_rows(r, a);
	RANK_ASSERT(r, smem_bm_get_local_mem_size(a) == SLOT);
	RANK_ASSERT(r, smem_bm_get_local_mem_size_by_mem_type(a, SMEM_MEM_TYPE_HOST) == SLOT);
	RANK_ASSERT(r, smem_bm_get_local_mem_size_by_mem_type(a, SMEM_MEM_TYPE_DEVICE) == 0);
	RANK_ASSERT(r, smem_get_last_err_msg()[0] == '\0');
	RANK_ASSERT(r, !smem_bm_ptr_by_mem_type(a, SMEM_MEM_TYPE_DEVICE, 0));
	BAD(r, "smem_bm_ptr_by_mem_type", "window");
	static const uint16_t ranks[] = {1, 2, 1024, 65535};
	for (size_t i = 0; i < 4; i++) {
		RANK_ASSERT(r, !smem_bm_ptr(a, ranks[i]));
		BAD(r, "smem_bm_ptr", "peerRankId");
	}
	RANK_OK(r, smem_bm_join(a, 0x80, &own));
	RANK_ASSERT(r, own == smem_bm_ptr(a, 0));
	RANK_ASSERT(r, own == smem_bm_ptr_by_mem_type(a, SMEM_MEM_TYPE_HOST, 0));
	RANK_ASSERT(r, (uintptr_t)own % SLOT == 0);
	smem_bm_destroy(a);
	handle_rows(r, a, true);
	smem_bm_t b = smem_bm_create(4294967295u, 0, SMEMB_DATA_OP_SDMA, 0, SLOT, 0);
	RANK_ASSERT(r, b != NULL && b != a);
	handle_rows(r, a, true);
	smem_bm_uninit(0);
	handle_rows(r, a, false);
	handle_rows(r, b, false);
}

/* ---- copies ---- */

static int32_t copy(smem_bm_t bm, int type, char *g, void *l, uint64_t n)
{
	bool to = type == SMEMB_COPY_L2G || type == SMEMB_COPY_H2G;
	smem_copy_params p = {.src = to ? l : g, .dest = to ? (void *)g : l, .count = n};

	return smem_bm_copy(bm, &p, (smem_bm_copy_type)type, 0);
}

static void copy_rows(struct rank *r)
{
	static char local[256];
	smem_bm_t bm = bm_up(r, 1, SLOT, SLOT);
	char *base = smem_bm_ptr(bm, 0);

	memset(base, 'k', SLOT);
	memset(local, 'l', sizeof(local));
	for (int type = 0; type < 4; type++) {
		RANK_OK(r, copy(bm, type, base + SLOT - 16, local, 16));
		memset(base, 'k', SLOT);
		memset(local, 'l', sizeof(local));
		bool to = type == SMEMB_COPY_L2G || type == SMEMB_COPY_H2G;
		const char *side = to ? "dest" : "src";
		static const struct {
			int64_t at;
			uint64_t n;
		} bad[] = {
		    {(int64_t)SLOT - 15, 16}, {(int64_t)SLOT, 1}, {-1, 2}, {-1, 1}, {0, SLOT + 1},
		    {8, UINT64_MAX - 4},      {0, UINT64_MAX}};
		for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
			RANK_CODE(r, copy(bm, type, base + bad[i].at, local, bad[i].n),
				  SMEM_INVALID_PARAM);
			BAD(r, "smem_bm_copy", side);
		}
		RANK_CODE(r, copy(bm, type, base, NULL, 1), SMEM_INVALID_PARAM);
		BAD(r, "smem_bm_copy", "NULL");
		RANK_CODE(r, copy(bm, type, NULL, local, 1), SMEM_INVALID_PARAM);
		BAD(r, "smem_bm_copy", side);
		RANK_CODE(r, copy(bm, type, base, local, 0), SMEM_INVALID_PARAM);
		BAD(r, "smem_bm_copy", "count");
		RANK_CODE(r, copy(bm, type, local, base, 4), SMEM_INVALID_PARAM);
		BAD(r, "smem_bm_copy", side);
	}
	static const int types[] = {10, 11, -1, INT32_MAX, INT32_MIN};
	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		RANK_CODE(r, copy(bm, types[i], base, local, 1), SMEM_INVALID_PARAM);
		BAD(r, "smem_bm_copy", "copy type");
	}
	for (int type = 4; type < 10; type++) {
		RANK_CODE(r, copy(bm, type, base, local, 1), SMEM_NOT_SUPPORTED);
		check_message(r, "smem_bm_copy", -2023, "SMEM_NOT_SUPPORTED", "copy type");
	}
	for (uint64_t i = 0; i < SLOT; i++)
		RANK_ASSERT(r, base[i] == 'k');
	for (size_t i = 0; i < sizeof(local); i++)
		RANK_ASSERT(r, local[i] == 'l');
	/* reserved flags are ignored */
	smem_copy_params p = {.src = local, .dest = base, .count = 1};
	RANK_OK(r, smem_bm_copy(bm, &p, SMEMB_COPY_H2G, ASYNC_COPY_FLAG | COPY_EXTEND_FLAG));
	smem_bm_uninit(0);
}

static void copy_2d_rows(struct rank *r)
{
	static char local[4096];
	smem_bm_t bm = bm_up(r, 1, SLOT, 0);
	char *base = smem_bm_ptr(bm, 0);
	const struct {
		smem_copy_2d_params p;
		const char *what;
	} rows[] = {
	    {{NULL, 8, base, 8, 8, 2}, "src"},
	    {{local, 8, NULL, 8, 8, 2}, "dest"},
	    {{local, 8, base, 8, 0, 2}, "width"},
	    {{local, 8, base, 8, 8, 0}, "height"},
	    {{local, 7, base, 8, 8, 2}, "src pitch 7"},
	    {{local, 8, base, 7, 8, 2}, "dest pitch 7"},
	    {{local, 8, base, 0, 8, 2}, "dest pitch 0"},
	    {{local, 8, base, UINT64_MAX / 2, 8, 4}, "overflow"},
	    {{local, 8, base, UINT64_MAX, 8, 2}, "overflow"},
	    {{local, UINT64_MAX / 2, base, 8, 8, 4}, "overflow"},
	    {{local, UINT64_MAX - 100, base, 8, 8, 2}, "overflow"},
	    {{local, 8, base, 8, 8, UINT64_MAX}, "dest"},
	    {{local, 8, base, SLOT, 1, 2}, "dest"},
	    {{local, 8, base + SLOT - 8, 8, 8, 2}, "dest"},
	    {{local, 8, base - 8, 8, 8, 2}, "dest"},
	    {{local, 8, base, 64, SLOT + 1, 1}, "dest"},
	};

	memset(base, 'k', SLOT);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		smem_copy_2d_params p = rows[i].p;
		RANK_CODE(r, smem_bm_copy_2d(bm, &p, SMEMB_COPY_H2G, 0), SMEM_INVALID_PARAM);
		BAD(r, "smem_bm_copy_2d", rows[i].what);
	}
	for (uint64_t i = 0; i < SLOT; i++)
		RANK_ASSERT(r, base[i] == 'k');
	/* with one row pitches are ignored */
	smem_copy_2d_params p = {.src = local, .dest = base + SLOT - 8, .width = 8, .height = 1};
	RANK_OK(r, smem_bm_copy_2d(bm, &p, SMEMB_COPY_H2G, 0));
	p.spitch = p.dpitch = UINT64_MAX;
	RANK_OK(r, smem_bm_copy_2d(bm, &p, SMEMB_COPY_H2G, 0));
	smem_bm_uninit(0);
}

static const struct ranks_case cases[] = {
    {.name = "common_functions", .fn = common_functions, .sizes = {1}},
    {.name = "before_init", .fn = before_init, .sizes = {1}},
    {.name = "objects", .fn = objects, .sizes = {1}},
    {.name = "copy_rows", .fn = copy_rows, .sizes = {1}},
    {.name = "copy_2d_rows", .fn = copy_2d_rows, .sizes = {1}},
};

int main(int argc, char **argv)
{
	return ranks_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
