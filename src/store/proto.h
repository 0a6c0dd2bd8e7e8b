/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames: pure encoding and decoding over bytes. All numbers little-endian.
 *
 * A connection begins with HELLO and its answer (frames with number 0). Then both sides send
 * numbered frames; every head says how many frames of the other side have arrived, so that after a
 * broken connection each side sends again exactly what the other has not seen, and a frame that is
 * out of its order (replayed, dropped) is recognised.
 *
 *   head: u32 length of the body, u16 op, u16 magic, u64 id, u32 number, u32 received
 *   id:   request and its reply: the request (0: no reply wanted); event: the receiver's group;
 *         watch: the receiver's watch; asked: the survey
 *   reply body: i32 code, text, then what the request asks for
 */
#ifndef STORE_PROTO_H
#define STORE_PROTO_H

#include "store/blob.h"
#include "store/set.h"

#define PROTO_VERSION	  3u /* 3: surveys */
#define PROTO_VERSION_MIN 2u
#define PROTO_SURVEYS	  3u			/* who speaks less knows none */
#define PROTO_MAGIC	  0x4d53u		/* "SM" */
#define HELLO_MAGIC	  0x3145524f54534d53ull /* "SMSTORE1" */
#define FRAME_HEAD	  24u
#define TOKEN_LEN	  16u

enum proto_op {
	OP_HELLO = 1,
	OP_WELCOME,
	OP_ACK, /* nothing but the head's `received` */
	OP_BYE,
	OP_REPLY,
	OP_EVENTS,
	OP_WATCHED,
	OP_CANCEL, /* seq: a pending request; gid: or the group it entered meanwhile */
	OP_ASKED, /* to the client; id: the survey that OP_ANSWER is to name; body: u32, bytes of an
		     answer at most */

	OP_SET = 16,
	OP_GET,
	OP_DEL,
	OP_ADD,
	OP_CAS,
	OP_APPEND,
	OP_GATHER,
	OP_WATCH,
	OP_UNWATCH,

	OP_USABLE = 32,
	OP_HOLD,
	OP_RELEASE,

	OP_ENTER = 48,
	OP_GROUP_ACK,
	OP_FENCE,
	OP_ROUND, /* a gather of a CLOSED group */
	OP_BLOB,
	OP_NOTE,
	OP_LEAVE,
	OP_SET_ROUND, /* the same, and the sender stands for several members */
	OP_SETTLE,    /* what became of a set round whose sender does not answer? */
	OP_PRESENT,   /* inside a round, but not at the store; for messages */

	OP_SURVEY = 64,
	OP_ANSWER,
	OP_END
};

struct frame_head {
	uint32_t len;
	uint16_t op;
	uint64_t id;
	uint32_t number;
	uint32_t received;
};

void frame_head_put(uint8_t out[FRAME_HEAD], const struct frame_head *head);
/* False: not a frame of this protocol, or longer than `max`. */
bool frame_head_get(const uint8_t in[FRAME_HEAD], uint32_t max, struct frame_head *ret);

struct hello {
	uint64_t client_id;
	uint32_t version_min;
	uint32_t version_max;
	bool resume;
	uint8_t token[TOKEN_LEN];
	uint32_t received;
};

struct welcome {
	int32_t code; /* not 0: refused, text says why */
	uint32_t version;
	bool resumed;
	uint8_t token[TOKEN_LEN];
	uint32_t received;
	struct span text;
};

struct blob *hello_encode(const struct hello *h);
bool hello_decode(const uint8_t *data, size_t len, struct hello *ret);
struct blob *welcome_encode(const struct welcome *w);
bool welcome_decode(const uint8_t *data, size_t len, struct welcome *ret);

/* Every request, as one flat struct; which fields travel is the table in proto.c. */
struct request {
	uint16_t op;
	uint64_t id;
	uint32_t flags;	     /* SET, GET wait, CAS has, NOTE once, LEAVE wait_acks, ENTER mode,
			      * PRESENT still */
	uint32_t index;	     /* GATHER index, ENTER member */
	uint32_t size;	     /* GATHER, ENTER */
	uint32_t numbers;    /* ENTER */
	int32_t code;	     /* GROUP_ACK */
	uint64_t timeout_ms; /* what is left of the caller's deadline */
	uint64_t gid;	     /* group (client's number) */
	uint64_t seq;	     /* event; CANCEL: request; WATCH, UNWATCH: watch (client's number);
			      * SET_ROUND, SETTLE: turn; ANSWER: survey */
	uint64_t value;	     /* ADD delta, HOLD length */
	uint64_t align;	     /* HOLD */
	struct span key;     /* key, range or group name */
	struct span val;     /* value, blob, note, contribution, list of ranges */
	struct span extra;   /* CAS expect, ENTER spec, kind of a round, GROUP_ACK text */
	struct span sort;    /* ENTER, SET_ROUND members */
};

enum cas_flags { CAS_EXPECT = 1, CAS_VALUE = 2 };

struct blob *request_encode(const struct request *req);
/* Spans point into `data`. False: unknown op or malformed. ret->id is not touched. */
bool request_decode(uint16_t op, const uint8_t *data, size_t len, struct request *ret);

/* The longest body of a request, by its op. */
uint32_t request_max(uint16_t op);
/* NULL, or which limit on keys and values it breaks: for both sides. */
const char *request_wrong(const struct request *req);

struct proto_event {
	uint8_t kind;
	uint32_t member;
	uint64_t seq;
	uint64_t incarnation;
	struct span data;
};
/* Members: bit i of the bits, from the lowest bit of the first byte on. False: not such a set. */
void write_set(struct writer *w, const struct set *s);
bool set_decode(struct span in, struct set *ret);

void event_encode(struct writer *w, const struct proto_event *e);
bool event_decode(struct reader *r, struct proto_event *ret);

const char *proto_op_name(uint16_t op);

#endif
