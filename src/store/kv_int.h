/* SPDX-License-Identifier: Apache-2.0 */
/* What the kv_*.c files share. Not for anybody else. */
#ifndef STORE_KV_INT_H
#define STORE_KV_INT_H

#include "store/kv.h"
#include "util/limits.h"

/* Memory that runs out in a table fails the request, not the process. */
#define HASH_NONFATAL_OOM 1
#include <uthash.h>
#include <utlist.h>

enum over { OVER_TIMEOUT, OVER_CANCELLED, OVER_LEFT, OVER_LOST };

/* A request that waits for something. First member of what the kinds of waiting need. */
struct wait {
	struct kv_client *client;
	uint64_t id;
	uint64_t gid; /* of an entering */
	uint64_t begin;
	uint64_t end;
	size_t slot; /* in the heap of ends, from 1 */
	/* It ends without what it waited for: answer (unless the client is gone) and free it. */
	void (*over)(struct kv *kv, struct wait *w, enum over why);
	struct wait *prev, *next; /* of the client */
};

struct kv_key;
struct kv_watch;
struct kv_gather;
struct kv_group;
struct kv_member;
struct kv_range;
struct kv_usable;

struct kv_hold {
	struct kv_client *client;
	struct kv_range *range;
	struct kv_hold *prev, *next;   /* of the client */
	struct kv_hold *rprev, *rnext; /* of the range */
};

#define KV_ADDRESS_MAX 64

struct kv_survey;

struct kv_client {
	void *peer;
	bool detached;
	uint32_t version; /* of the protocol */
	char address[KV_ADDRESS_MAX];
	uint32_t wait_count;
	uint32_t thing_count; /* watches, memberships, holds */
	uint32_t key_count;
	size_t key_bytes;
	struct wait *waits;
	struct kv_key *keys; /* made by it */
	struct kv_watch *watches;
	struct kv_member *members; /* by gid */
	struct kv_hold *holds;
	struct kv_usable *usable;
	struct kv_client *prev, *next;
};

struct kv {
	kv_send_fn send;
	struct kv_client *clients;
	struct wait **heap; /* by end */
	size_t heap_len, heap_cap;
	struct kv_key *keys;
	size_t key_count, key_bytes;
	size_t round_bytes; /* of set rounds: brought, and kept outcomes */
	struct kv_gather *gathers;
	struct kv_range *ranges; /* by begin */
	uint32_t range_count;
	uint32_t refusal_count;
	struct kv_group *groups;
	struct kv_survey *surveys;
	uint64_t survey_number; /* of the last one */
	uint32_t survey_count;
};

/* kv.c */
bool wait_begin(struct kv *kv, struct wait *w, struct kv_client *c, const struct request *req,
		uint64_t now);
void wait_end(struct kv *kv, struct wait *w); /* out of heap and client's list; not freed */

void reply(struct kv *kv, struct kv_client *c, uint64_t id, int32_t code, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
/* A reply with more: begin, write fields, end. */
struct writer reply_begin(int32_t code, const char *text);
void reply_end(struct kv *kv, struct kv_client *c, uint64_t id, struct writer *w);
void push(struct kv *kv, struct kv_client *c, uint16_t op, uint64_t id, struct blob *body);
bool thing_take(struct kv *kv, struct kv_client *c, uint64_t id); /* false: answered already */
char *name_dup(struct span s);

/* kv_keys.c */
void kv_set(struct kv *kv, struct kv_client *c, const struct request *req);
void kv_get(struct kv *kv, struct kv_client *c, const struct request *req, uint64_t now);
void kv_del(struct kv *kv, struct kv_client *c, const struct request *req);
void kv_add(struct kv *kv, struct kv_client *c, const struct request *req);
void kv_cas(struct kv *kv, struct kv_client *c, const struct request *req);
void kv_append(struct kv *kv, struct kv_client *c, const struct request *req);
void kv_watch(struct kv *kv, struct kv_client *c, const struct request *req);
void kv_unwatch(struct kv *kv, struct kv_client *c, const struct request *req);
void keys_client_gone(struct kv *kv, struct kv_client *c);
/* Names of the values that go with the client, at most `max`; how many. */
uint32_t keys_leased(const struct kv_client *c, uint32_t max, const char **ret);
void keys_free(struct kv *kv);

/* kv_gather.c */
void kv_gather(struct kv *kv, struct kv_client *c, const struct request *req, uint64_t now);
/* The parts of a finished gather, in index order, as a reply; NULL: no memory or too long. */
struct blob *gather_reply(struct blob *const *parts, uint32_t size);

/* kv_survey.c */
void kv_survey(struct kv *kv, struct kv_client *c, const struct request *req, uint64_t now);
void kv_answer(struct kv *kv, struct kv_client *c, const struct request *req);
void surveys_client_gone(struct kv *kv, struct kv_client *c);

/* kv_range.c */
void kv_usable(struct kv *kv, struct kv_client *c, const struct request *req);
void kv_hold(struct kv *kv, struct kv_client *c, const struct request *req);
void kv_release(struct kv *kv, struct kv_client *c, const struct request *req);
void ranges_client_gone(struct kv *kv, struct kv_client *c);

#endif
