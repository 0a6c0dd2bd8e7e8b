/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TRANS: bad input row by row, names that are taken, unknown, lost and taken anew, and a store that
 * is lost: code, message, and that nothing was written.
 */
#include <stdio.h>
#include <string.h>

#include "trans_util.h"

#define CREATE	   "smem_trans_create"
#define REGISTER   "smem_trans_register_mem"
#define BATCH_REG  "smem_trans_batch_register_mem"
#define DEREGISTER "smem_trans_deregister_mem"
#define WRITE	   "smem_trans_write"
#define BATCH	   "smem_trans_batch_write"

static char mem[256];

/* The call gives -2000 and says `what`. */
#define BAD(r, call, function, what)                                                               \
	do {                                                                                       \
		RANK_CODE(r, call, SMEM_INVALID_PARAM);                                            \
		trans_message(r, function, SMEM_INVALID_PARAM, what);                              \
	} while (0)
#define GONE(r, call, function)                                                                    \
	do {                                                                                       \
		RANK_CODE(r, call, SMEM_OBJECT_NOT_EXISTS);                                        \
		trans_message(r, function, SMEM_OBJECT_NOT_EXISTS, "0x");                          \
	} while (0)

static void create_args(struct rank *r)
{
	static const char *const names[] = {
	    "",		  "1.2.3.4", "1.2.3.4:0", "1.2.3.4:65536", "1.2.3.4:05",
	    "01.2.3.4:9", "::1:9",   "0.0.0.0:9", "[::]:9",	   "1.2.3.4:9 ",
	    " a:9",	  "a b:9",   "tcp://a:9", "1.2.3.4:9/x",   "12.34:9"};
	smem_trans_config_t c;

	BAD(r, smem_trans_config_init(NULL), "smem_trans_config_init", "config");
	memset(&c, 0xff, sizeof(c));
	RANK_OK(r, smem_trans_config_init(&c));
	RANK_ASSERT(r, c.role == SMEM_TRANS_NONE && c.initTimeout == 120 &&
			   c.deviceId == UINT32_MAX && c.flags == 0);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		RANK_ASSERT(r, smem_trans_create(r->url, names[i], &c) == NULL);
		trans_message(r, CREATE, SMEM_INVALID_PARAM, names[i]);
	}
	RANK_ASSERT(r, !smem_trans_create(NULL, "a:9", &c));
	trans_message(r, CREATE, SMEM_INVALID_PARAM, "storeUrl");
	RANK_ASSERT(r, !smem_trans_create("", "a:9", &c));
	trans_message(r, CREATE, SMEM_INVALID_PARAM, "storeUrl");
	RANK_ASSERT(r, !smem_trans_create("http://a:9", "a:9", &c));
	trans_message(r, CREATE, SMEM_INVALID_PARAM, "http://a:9");
	RANK_ASSERT(r, !smem_trans_create("tcp://0.0.0.0:9", "a:9", &c));
	trans_message(r, CREATE, SMEM_INVALID_PARAM, "0.0.0.0");
	RANK_ASSERT(r, !smem_trans_create(r->url, NULL, &c));
	trans_message(r, CREATE, SMEM_INVALID_PARAM, "sessionId");
	RANK_ASSERT(r, !smem_trans_create(r->url, "a:9", NULL));
	trans_message(r, CREATE, SMEM_INVALID_PARAM, "config");
	for (int role = -1; role <= SMEM_TRANS_BUTT; role += SMEM_TRANS_BUTT + 1) {
		c.role = (smem_trans_role_t)role;
		RANK_ASSERT(r, !smem_trans_create(r->url, "a:9", &c));
		trans_message(r, CREATE, SMEM_INVALID_PARAM, "role");
	}
	/* no store there: the deadline */
	RANK_OK(r, smem_trans_config_init(&c));
	c.initTimeout = 1;
	uint64_t start = rank_ms();
	RANK_ASSERT(r, !smem_trans_create(r->url, "a:9", &c));
	RANK_ASSERT(r, rank_ms() - start >= 1000 && rank_ms() - start < 2500);
	trans_message(r, CREATE, SMEM_TIMEOUT, r->url);
}

static void register_args(struct rank *r, smem_trans_t h)
{
	void *addr[2] = {mem, mem + 100};
	size_t len[2] = {10, 10};

	BAD(r, smem_trans_register_mem(NULL, mem, 1, 0), REGISTER, "handle");
	BAD(r, smem_trans_register_mem(h, NULL, 1, 0), REGISTER, "address");
	BAD(r, smem_trans_register_mem(h, mem, 0, 0), REGISTER, "capacity");
	BAD(r, smem_trans_register_mem(h, mem, SIZE_MAX, 0), REGISTER, "wraps");
	BAD(r, smem_trans_batch_register_mem(NULL, addr, len, 2, 0), BATCH_REG, "handle");
	BAD(r, smem_trans_batch_register_mem(h, NULL, len, 2, 0), BATCH_REG, "addresses");
	BAD(r, smem_trans_batch_register_mem(h, addr, NULL, 2, 0), BATCH_REG, "capacities");
	BAD(r, smem_trans_batch_register_mem(h, addr, len, 0, 0), BATCH_REG, "count");
	len[1] = 0;
	BAD(r, smem_trans_batch_register_mem(h, addr, len, 2, 0), BATCH_REG, "element 1");
	addr[1] = NULL;
	BAD(r, smem_trans_batch_register_mem(h, addr, len, 2, 0), BATCH_REG, "element 1");
	/* of such a batch nothing is registered */
	GONE(r, smem_trans_deregister_mem(h, mem), DEREGISTER);
	BAD(r, smem_trans_deregister_mem(NULL, mem), DEREGISTER, "handle");
	BAD(r, smem_trans_deregister_mem(h, NULL), DEREGISTER, "address");
	RANK_OK(r, smem_trans_register_mem(h, mem, 100, 0));
	RANK_OK(r, smem_trans_register_mem(h, mem, 100, 7)); /* unknown flags are ignored */
	RANK_CODE(r, smem_trans_register_mem(h, mem, 99, 0), SMEM_DUPLICATED_OBJECT);
}

static void write_args(struct rank *r, smem_trans_t h)
{
	const char *self = trans_name(0);
	const void *src[2] = {mem + 200, mem + 201};
	void *dst[2] = {mem, mem + 1};
	size_t len[2] = {1, 1};

	BAD(r, smem_trans_write(NULL, mem, self, mem, 1), WRITE, "handle");
	BAD(r, smem_trans_write(h, NULL, self, mem, 1), WRITE, "srcAddress");
	BAD(r, smem_trans_write(h, mem, NULL, mem, 1), WRITE, "destSession");
	BAD(r, smem_trans_write(h, mem, "", mem, 1), WRITE, "destSession");
	BAD(r, smem_trans_write(h, mem, self, NULL, 1), WRITE, "destAddress");
	BAD(r, smem_trans_write(h, mem, self, mem, 0), WRITE, "dataSize");
	BAD(r, smem_trans_write(h, mem, "nonsense", mem, 1), WRITE, "nonsense");
	BAD(r, smem_trans_write(h, mem, self, mem, 101), WRITE, "is not registered");
	BAD(r, smem_trans_write(h, mem, self, mem + 1, SIZE_MAX), WRITE, "wraps");
	BAD(r, smem_trans_batch_write(h, NULL, self, dst, len, 2), BATCH, "srcAddress");
	BAD(r, smem_trans_batch_write(h, src, self, NULL, len, 2), BATCH, "destAddress");
	BAD(r, smem_trans_batch_write(h, src, self, dst, NULL, 2), BATCH, "dataSize");
	BAD(r, smem_trans_batch_write(h, src, self, dst, len, 0), BATCH, "batchSize");
	mem[200] = 1;
	len[1] = 0;
	BAD(r, smem_trans_batch_write(h, src, self, dst, len, 2), BATCH, "element 1");
	len[1] = 100;
	BAD(r, smem_trans_batch_write(h, src, self, dst, len, 2), BATCH, "element 1");
	src[1] = NULL;
	BAD(r, smem_trans_batch_write(h, src, self, dst, len, 2), BATCH, "element 1");
	RANK_ASSERT(r, mem[0] == 0); /* nothing is written */
	BAD(r, smem_trans_read(h, mem, self, mem, 1, 4), "smem_trans_read", "flags");
	BAD(r, smem_trans_read(h, NULL, self, mem, 1, 0), "smem_trans_read", "localAddr");
	RANK_CODE(r, smem_trans_write(h, mem, "9.9.9.9:9", mem, 1), SMEM_OBJECT_NOT_EXISTS);
	trans_message(r, WRITE, SMEM_OBJECT_NOT_EXISTS, "9.9.9.9:9");
}

static void bad_handles(struct rank *r, void *h)
{
	GONE(r, smem_trans_register_mem(h, mem, 1, 0), REGISTER);
	GONE(r, smem_trans_deregister_mem(h, mem), DEREGISTER);
	GONE(r, smem_trans_write(h, mem, trans_name(0), mem, 1), WRITE);
	smem_trans_destroy(h, 0);
	trans_message(r, "smem_trans_destroy", SMEM_OBJECT_NOT_EXISTS, "0x");
	/* an argument that is wrong in itself comes first */
	BAD(r, smem_trans_register_mem(h, NULL, 1, 0), REGISTER, "address");
}

static void args(struct rank *r)
{
	create_args(r);
	bad_handles(r, (void *)1);
	bad_handles(r, &r);
	smem_trans_destroy(NULL, 0);
	trans_message(r, "smem_trans_destroy", SMEM_INVALID_PARAM, "handle");
	smem_trans_uninit(0);
	RANK_OK(r, smem_create_config_store(r->url));
	smem_trans_t h = trans_open(r, trans_name(0), SMEM_TRANS_BOTH);
	register_args(r, h);
	write_args(r, h);
	RANK_ASSERT(r, !trans_try(r, trans_name(0), SMEM_TRANS_BOTH));
	trans_message(r, CREATE, SMEM_DUPLICATED_OBJECT, trans_name(0));
	smem_trans_destroy(h, 0);
	bad_handles(r, h);
	smem_uninit();
}

/* ---- names: taken, unknown, lost, taken anew ---- */

/* Rank 0 hosts; 1 lives and dies; 2 has written to it, 3 never has. */
static void names(struct rank *r)
{
	uint64_t at[4], mine = (uintptr_t)mem;
	smem_trans_t h = NULL;

	if (r->rank == 1 && r->life == 1) {
		h = trans_open(r, trans_name(1), SMEM_TRANS_RECEIVER);
		RANK_OK(r, smem_trans_register_mem(h, mem + 100, 10, 0));
		rank_meet(r, "again", 4);
		rank_meet(r, "end", 4);
		smem_trans_destroy(h, 0);
		smem_uninit();
		return;
	}
	h = trans_up(r);
	if (r->rank == 1) {
		rank_may_die(r);
		RANK_OK(r, smem_trans_register_mem(h, mem, 10, 0));
	}
	rank_gather(r, &mine, sizeof(mine), at);
	char *to = (char *)at[1];
	if (r->rank == 0) {
		RANK_ASSERT(r, !trans_try(r, trans_name(1), SMEM_TRANS_BOTH));
		trans_message(r, CREATE, SMEM_DUPLICATED_OBJECT, trans_name(1));
	}
	if (r->rank == 2)
		RANK_OK(r, smem_trans_write(h, "x", trans_name(1), to, 1));
	rank_barrier(r);
	if (r->rank == 1)
		rank_meet(r, "never", 4);
	if (r->rank == 0)
		rank_kill(r, 1);
	rank_meet(r, "killed", 3);
	RANK_CODE(r, smem_trans_write(h, "x", trans_name(1), to, 1), SMEM_PEER_LOST);
	trans_message(r, WRITE, SMEM_PEER_LOST, trans_name(1));
	rank_meet(r, "lost", 3);
	if (r->rank == 0)
		rank_spawn(r, 1);
	rank_meet(r, "again", 4);
	/* what the dead one had is stale for who used it; addresses are equal as long as they are
	 */
	int32_t e = smem_trans_write(h, "x", trans_name(1), to, 1);
	RANK_CODE(r, e, r->rank == 2 ? SMEM_STALE : SMEM_INVALID_PARAM);
	rank_meet(r, "end", 4);
	smem_trans_destroy(h, 0);
	smem_uninit();
}

/* ---- the store is lost ---- */

static void store_lost(struct rank *r)
{
	uint64_t at[3], mine = (uintptr_t)mem;

	smem_trans_t h = trans_up(r);
	RANK_OK(r, smem_trans_register_mem(h, mem, 10, 0));
	rank_gather(r, &mine, sizeof(mine), at);
	if (r->rank == 1)
		RANK_OK(r, smem_trans_write(h, "x", trans_name(2), (char *)at[2], 1));
	rank_barrier(r);
	if (r->rank == 0) {
		rank_may_die(r);
		rank_meet(r, "never", 3);
	}
	if (r->rank == 1)
		rank_kill(r, 0);
	rank_meet(r, "killed", 2);
	/* the way that is there stays; the loss is learnt, then nothing new is */
	uint64_t until = rank_ms() + 5000;
	int32_t e = SMEM_OK;
	while (e == SMEM_OK && rank_ms() < until) {
		e = smem_trans_register_mem(h, mem + 100, 10, 0);
		if (e == SMEM_OK)
			RANK_OK(r, smem_trans_deregister_mem(h, mem + 100));
	}
	RANK_CODE(r, e, SMEM_UNREACHABLE);
	trans_message(r, REGISTER, SMEM_UNREACHABLE, "store");
	if (r->rank == 1) {
		RANK_OK(r, smem_trans_write(h, "x", trans_name(2), (char *)at[2] + 1, 1));
		RANK_CODE(r, smem_trans_write(h, "x", "9.9.9.9:9", mem, 1), SMEM_UNREACHABLE);
	}
	rank_meet(r, "written", 2);
	RANK_OK(r, smem_trans_deregister_mem(h, mem));
	rank_meet(r, "closed", 2);
	if (r->rank == 1)
		RANK_CODE(r, smem_trans_write(h, "x", trans_name(2), (char *)at[2], 1),
			  SMEM_INVALID_PARAM);
	rank_meet(r, "end", 2);
	uint64_t start = rank_ms();
	smem_trans_destroy(h, 0);
	RANK_ASSERT(r, rank_ms() - start < 3000);
	smem_uninit();
}

static const struct ranks_case cases[] = {
    {.name = "args", .fn = args, .sizes = {1}},
    {.name = "names", .fn = names, .sizes = {4}},
    {.name = "store_lost", .fn = store_lost, .sizes = {3}},
};

int main(int argc, char **argv)
{
	return ranks_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
