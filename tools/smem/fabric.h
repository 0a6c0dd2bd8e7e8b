/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fabric at a store as `smem info` shows it: who is in which object, and how each reaches each
 * other. Put together from what every process says of itself and of its peers; what one did not say
 * is known from the others.
 */
#ifndef SMEM_TOOL_FABRIC_H
#define SMEM_TOOL_FABRIC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "json.h"

#define FABRIC_REFUSED 4u
#define FABRIC_NOWHERE UINT32_MAX /* a host that is not known */

struct fabric_host {
	uint64_t id; /* 0: only its address is known */
	char *name;
	char address[64]; /* as the store sees it, without a port; "" unknown */
};

enum fabric_member_state {
	FABRIC_SAID,   /* it answered */
	FABRIC_SILENT, /* connected to the store, and did not answer in time */
	FABRIC_UNSEEN, /* others have it, the store does not know it */
	FABRIC_ABSENT  /* others had it, or looked for it, and it is not there */
};

enum fabric_cell_state { FABRIC_UP, FABRIC_JOINING, FABRIC_LOST, FABRIC_FAILED };

/* How one member reaches another. Texts are numbers of fabric.text; 0 is "". */
struct fabric_cell {
	uint32_t to; /* member */
	uint8_t state;
	uint8_t shared;
	uint8_t refused_n;
	uint32_t path, via;
	struct {
		uint32_t path, why;
		uint32_t kind; /* why, without what is particular to the pair */
	} refused[FABRIC_REFUSED];
};

struct fabric_member {
	uint32_t rank;
	uint32_t name; /* text: a session's */
	uint32_t host; /* index or FABRIC_NOWHERE */
	uint32_t pid;  /* 0: unknown */
	enum fabric_member_state state;
	bool joined;
	struct fabric_cell *cell; /* by `to`, after fabric_arrange() */
	uint32_t n, cap;
};

enum fabric_kind { FABRIC_BM, FABRIC_SHM, FABRIC_TRANS };

struct fabric_object {
	enum fabric_kind kind;
	uint32_t name;		      /* text: "bm/7"; TRANS: "" */
	uint32_t world;		      /* ranks; TRANS: 0 */
	struct fabric_member *member; /* by host and rank, after fabric_arrange() */
	uint32_t n, cap;
	uint32_t *find; /* by rank or text of the name: member + 1 */
	uint32_t find_cap;
};

struct fabric_text;

struct fabric {
	uint32_t processes; /* connected, but for this one */
	uint32_t idle;	    /* of them, without any object */
	uint32_t silent, unable;
	bool cut; /* somebody has more than fits an answer */
	struct fabric_host *host;
	uint32_t host_n, host_cap;
	struct fabric_object *object;
	uint32_t object_n, object_cap;
	char **text;
	uint32_t text_n, text_cap;
	uint32_t *slot;
	uint32_t slot_cap;
	char **stranger; /* addresses of those who did not answer and are in no object */
	uint32_t stranger_n, stranger_cap;
};

/* ---- fabric.c: putting it together. Out of memory ends the program. ---- */

/* Room for one more element after n of them; *cap and the array's place change as need be. */
void *fabric_more(void *array, uint32_t n, uint32_t *cap, size_t size);
uint32_t fabric_text(struct fabric *f, const char *text);
uint32_t fabric_host(struct fabric *f, uint64_t id, const char *name, const char *address);
struct fabric_object *fabric_object(struct fabric *f, enum fabric_kind kind, const char *name,
				    uint32_t world);
/* The member of that rank or name, made FABRIC_ABSENT when it is new; its index. */
uint32_t fabric_member(struct fabric *f, struct fabric_object *o, uint32_t rank, const char *name);
struct fabric_cell *fabric_cell(struct fabric_object *o, uint32_t from, uint32_t to);
void fabric_stranger(struct fabric *f, const char *address);
/* All is said: sort by host and rank. */
void fabric_arrange(struct fabric *f);
/* NULL: nothing is known. */
const struct fabric_cell *fabric_find(const struct fabric_object *o, uint32_t from, uint32_t to);
void fabric_free(struct fabric *f);

/* ---- info_survey.c ---- */

/* Ask everybody at the store. 0, or -1 with what went wrong. */
int fabric_survey(const char *url, unsigned timeout_s, struct fabric *ret, char *error, size_t cap);

/* ---- fabric_show.c, fabric_json.c ---- */

void fabric_show(struct fabric *f, const char *url, unsigned timeout_s);
void fabric_json(struct json *j, struct fabric *f, const char *url);

#endif
