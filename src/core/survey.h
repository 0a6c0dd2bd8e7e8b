/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How this process answers when somebody asks all processes at a store what they have: objects list
 * themselves, and report when a survey comes.
 */
#ifndef CORE_SURVEY_H
#define CORE_SURVEY_H

#include "core/path.h"
#include "core/survey_rows.h"
#include "store/store.h"

struct survey_source {
	const struct store *store; /* who asks at this one is told */
	/* Write the object and its rows. On the I/O loop: no waiting, and no lock under which
	 * anybody waits. */
	void (*report)(void *arg, struct survey_writer *w);
	void *arg;
	bool listed;
	struct survey_source *prev, *next;
};

void survey_list(struct survey_source *s);
/* After the return report does not run any more. Not listed is fine. */
void survey_unlist(struct survey_source *s);

/* Which host an agent is on: the same number where its memory could be mapped. */
uint64_t survey_host(const struct agent_addr *addr);

/* Add path, provider and refusals to the row, and write it. `ep` may be NULL, and cannot be closed
 * meanwhile. */
void survey_path_row(struct survey_writer *w, struct survey_row *row, const struct path *path,
		     struct endpoint *ep);

#endif
