/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a process answers to a survey: its objects at a store, and for each of them a row about
 * every peer: alive?, by which path, and why no better one. No addresses, cookies or keys.
 *
 *   u32 version, u32 pid, u64 host, host name; then records, each a u8 tag and fields of fixed
 *   width. A text is a record of its own before its first use, and a number afterwards (0: "");
 *   so is a way, which is all of a row that many peers have alike. All rows after an object's
 *   record are that object's.
 *
 * Pure functions; the reader takes any bytes.
 */
#ifndef CORE_SURVEY_ROWS_H
#define CORE_SURVEY_ROWS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/blob.h"

#define SURVEY_ROWS_VERSION 1u
#define SURVEY_REFUSED_MAX  4u

enum survey_kind { SURVEY_BM, SURVEY_SHM, SURVEY_TRANS, SURVEY_KINDS };

enum survey_state {
	SURVEY_MEMBER,
	SURVEY_JOINING, /* a path to it is being looked for */
	SURVEY_LOST,
	SURVEY_FAILED, /* it could not be reached; the refusal says why */
	SURVEY_STATES
};

struct survey_refusal {
	const char *path; /* the better one; "" where no single one is meant */
	const char *why;
};

struct survey_row {
	enum survey_state state;
	uint32_t rank;	  /* BM, SHM */
	const char *name; /* TRANS: the peer session */
	bool shared;  /* its memory is mapped here; TRANS: that of it which lies in shared files */
	uint32_t pid; /* as it sees itself; 0: unknown */
	uint64_t host;
	const char *path; /* "" none */
	const char *via;  /* by what of several: a libfabric provider */
	uint32_t refused_n;
	struct survey_refusal refused[SURVEY_REFUSED_MAX];
};

struct survey_object {
	enum survey_kind kind;
	const char *name; /* "bm/7", "shm/7", of TRANS the session's */
	uint32_t rank;	  /* own; BM, SHM */
	uint32_t world;
	bool joined;
	uint32_t n;
	struct survey_row *row;
};

struct survey_answer {
	uint32_t pid;
	uint64_t host; /* equal for processes that could share memory; see survey_host() */
	const char *host_name;
	bool cut; /* there is more than fits */
	uint32_t n;
	struct survey_object *object;
	/* private: what the above point into */
	char **text;
	uint32_t text_n;
};

/* ---- writing ---- */

struct survey_table { /* what was written, and is not written again */
	struct survey_entry *entry;
	uint32_t n;
	uint32_t *slot; /* by hash: number of an entry, 0 none */
};

struct survey_writer {
	struct writer out;
	struct survey_table text, way;
	size_t most;
	bool brief;
	bool cut;
};

/* At most `most` bytes. brief: reasons that differ in numbers only are one: survey_general(). */
void survey_begin(struct survey_writer *w, size_t most, bool brief);
/* First of all. */
void survey_process(struct survey_writer *w, const char *host_name, uint64_t host, uint32_t pid);
/* `o` without its rows, which follow. What does not fit is left out, and that is said. */
void survey_object(struct survey_writer *w, const struct survey_object *o);
void survey_row(struct survey_writer *w, const struct survey_row *row);
/* The answer, the caller's; NULL: no memory. Frees what the writer holds. */
struct blob *survey_end(struct survey_writer *w);

/* A reason without what is particular to a pair: numbers become N, but for codes in parentheses. */
void survey_general(const char *why, char *buf, size_t cap);

/* ---- reading ---- */

/*
 * False: not an answer of this version, or no memory; nothing to be freed. Texts are printable
 * ASCII afterwards, whatever they were.
 */
bool survey_decode(const void *data, size_t len, struct survey_answer *ret);
void survey_answer_free(struct survey_answer *a); /* twice is fine */

#endif
