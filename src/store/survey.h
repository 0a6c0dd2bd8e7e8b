/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Surveys: a question to every process that is connected to a store. Everybody answers once, from
 * its I/O loop, with bytes that the store does not know the meaning of. Nobody polls or watches for
 * it, so what is not asked costs nothing, and nothing of it stays at the store.
 */
#ifndef STORE_SURVEY_H
#define STORE_SURVEY_H

#include "store/store.h"

enum store_survey_state {
	STORE_SURVEY_ANSWERED,
	STORE_SURVEY_SILENT, /* connected, but no answer came until the deadline */
	STORE_SURVEY_GONE,   /* it ended meanwhile */
	STORE_SURVEY_UNABLE, /* too old a version to be asked, or its answer too long */
	STORE_SURVEY_STATES
};

enum store_held_kind { STORE_HELD_MEMBER, STORE_HELD_KEY, STORE_HELD_KINDS };

/* What a client that did not answer holds at the store: a group's name and its number there, or a
 * key that goes with it. */
struct store_held {
	enum store_held_kind kind;
	uint32_t member;
	char *name;
};

struct store_surveyed {
	enum store_survey_state state;
	char address[64]; /* of its connection, as the store sees it */
	struct store_bytes answer;
	uint32_t held_n;
	struct store_held *held;
};

struct store_survey {
	uint32_t n;
	struct store_surveyed *client; /* all that were connected, but for the caller's own */
};

/*
 * Ask all, and wait until each has answered or is gone, or until the deadline: those that have not
 * answered by then are told as silent, which is no error. The reply may take 5 s more.
 * SMEM_NOT_SUPPORTED: the store is of an older version; SMEM_NEW_OBJECT_FAILED: too many surveys at
 * a time. Free with store_survey_free().
 */
int32_t store_survey(struct store *s, struct deadline deadline, struct store_survey *ret);
void store_survey_free(struct store_survey *s);

/*
 * How this process answers, at whatever store: `client` is the store_client_id() of the one that is
 * asked. Fills *ret (malloc'ed, at most `most` bytes) or leaves it empty. On the I/O loop: must not
 * block.
 */
typedef void (*store_answer_fn)(uint64_t client, size_t most, struct store_bytes *ret);
void store_answer_with(store_answer_fn fn);

#endif
