/* SPDX-License-Identifier: Apache-2.0 */
/* Groups, for the kv_*.c files only: members, entering, acknowledgements, rounds. */
#ifndef STORE_KV_GROUP_H
#define STORE_KV_GROUP_H

#include "store/kv_int.h"
#include "store/store.h"

struct kv_entering {
	struct wait w;
	struct kv_group *group;
	enum store_group_mode mode;
	uint32_t member, size, numbers;
	struct blob *spec, *blob, *sort;
	struct kv_entering *prev, *next; /* of the group, by arrival */
};

/*
 * Two that entered a CLOSED group disagreed, and those that waited were told; the others are told
 * when they come, for they belong to the same attempt. Who comes again begins the next one. It is
 * over when all have been told, nobody who was is there any more, or it is old.
 */
struct kv_refusal {
	struct store_conflict conflict;
	struct blob *spec, *own;
	char text[96];
	uint64_t end;
	uint32_t size; /* how many are to be told */
	uint32_t count;
	struct kv_client *told[]; /* `size` of them; NULL: gone since */
};

/* A contribution to the round of a group. */
struct kv_round {
	struct wait w;
	struct kv_member *member; /* who sent it */
	struct set set;		  /* whom it stands for, the sender included */
	uint32_t count;		  /* how many these are */
	bool of_set;		  /* asked for by OP_SET_ROUND */
	struct blob *kind, *val;
};

struct kv_fence {
	struct wait w;
	struct kv_group *group;
	uint64_t seq;
	uint32_t missing; /* live members that were there at seq and have not acknowledged it */
	struct kv_fence *prev, *next;
};

struct kv_failure {
	uint64_t seq;
	uint32_t member;
	int32_t code;
	char *text;
	struct kv_failure *prev, *next;
};

struct kv_member {
	UT_hash_handle hh; /* of the client, by gid */
	uint64_t gid;
	uint32_t number;
	struct kv_client *client;
	struct kv_group *group;
	uint64_t incarnation;
	uint64_t seq; /* of its entering */
	uint64_t acked;
	struct blob *blob;
	struct kv_round *round;	       /* what stands for it */
	bool has_turn;		       /* there was a set round for it, or it was settled: */
	uint32_t turn;		       /* the last one's */
	uint64_t present;	       /* for messages: until then it counts as inside */
	struct kv_member *prev, *next; /* of the group, by seq */
};

struct kv_group {
	UT_hash_handle hh;
	char *name;
	enum store_group_mode mode;
	uint32_t size, numbers;
	bool formed; /* CLOSED, LOBBY: all were there */
	struct blob *spec;
	uint64_t seq;
	uint32_t count;
	struct kv_member *members;
	struct kv_member **by_number; /* `numbers` entries while there are members */
	uint8_t *gone;		      /* by number: enum store_event_kind of its end, this life */
	uint32_t gone_count;
	struct kv_entering *entering;
	struct kv_refusal *refusal;
	struct kv_fence *fences;
	struct kv_failure *failures;
	uint32_t failure_count;
	uint32_t round_count;	/* members that are stood for */
	struct blob *done_kind; /* of the last set round that completed ... */
	struct blob *done;	/* ... and the reply to it */
	struct blob *once;	/* the first note with `once`, as an encoded event */
	uint64_t once_seq;
};

/* kv_group.c */
void group_request(struct kv *kv, struct kv_client *c, const struct request *req, uint64_t now);
void groups_client_back(struct kv *kv, struct kv_client *c, uint64_t now);
void groups_client_gone(struct kv *kv, struct kv_client *c, bool lost, uint64_t now);
void group_cancel_entered(struct kv *kv, struct kv_client *c, uint64_t gid, uint64_t now);

struct kv_group *group_make(struct kv *kv, struct span name);
void group_tidy(struct kv *kv, struct kv_group *g); /* frees it when nobody is there */
bool group_begin(struct kv *kv, struct kv_group *g,
		 const struct kv_entering *e); /* room for its numbers */
/* Add a member, in the event order. No events yet. NULL: no memory. */
struct kv_member *member_add(struct kv_group *g, const struct kv_entering *e, uint32_t number);
/* Ends the membership: event to the others, fences, rounds; the group's life with the last. */
uint64_t member_remove(struct kv *kv, struct kv_member *m, enum store_event_kind why, uint64_t now);
void group_emit(struct kv *kv, struct kv_group *g, const struct kv_member *except,
		struct blob *events);
void member_event(struct writer *w, const struct kv_member *m, enum store_event_kind kind,
		  uint64_t seq, struct span data);
void reply_conflict(struct kv *kv, const struct wait *w, const struct store_conflict *c,
		    struct span spec, struct span own_spec, const char *text);

/* kv_enter.c */
void enter_begin(struct kv *kv, struct kv_client *c, const struct request *req, uint64_t now);
void refusal_client_gone(struct kv *kv, struct kv_client *c);
/* Somebody left, came back, or the life ended: look at those that wait again. */
void enter_again(struct kv *kv, struct kv_group *g, uint64_t now);

/* kv_fence.c */
void fence_begin(struct kv *kv, struct kv_client *c, struct kv_group *g, const struct request *req,
		 uint64_t now);
void fence_ack(struct kv *kv, struct kv_member *m, const struct request *req);
void fence_member_gone(struct kv *kv, const struct kv_member *m);
void failures_free(struct kv_group *g);

/* kv_round.c */
void round_begin(struct kv *kv, struct kv_member *m, const struct request *req, uint64_t now);
void round_settle(struct kv *kv, struct kv_member *m, const struct request *req, uint64_t now);
void round_present(struct kv *kv, struct kv_member *m, const struct request *req, uint64_t now);
void round_forget(struct kv *kv, struct kv_group *g); /* the group's life ends */
void round_member_gone(struct kv *kv, struct kv_group *g, uint32_t number,
		       enum store_event_kind why);

#endif
