/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Surveys are answered on the I/O loop, from what is in memory: a thousand rows are a fraction of a
 * millisecond. The list's lock is held meanwhile, which is what keeps the objects there; nobody
 * waits for anything under it.
 */
#include "core/survey.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>
#include <utlist.h>

#include "store/survey.h"
#include "util/cleanup.h"
#include "util/fork.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct survey_source *sources;

uint64_t survey_host(const struct agent_addr *addr)
{
	uint64_t h = 14695981039346656037ull;

	for (size_t i = 0; i < sizeof(addr->boot_id); i++)
		h = (h ^ addr->boot_id[i]) * 1099511628211ull;
	for (size_t i = 0; i < 4; i++)
		h = (h ^ (addr->netns >> (8 * i) & 0xff)) * 1099511628211ull;
	return h;
}

static struct blob *encode(uint64_t client, size_t most, bool brief, bool *ret_cut)
{
	struct utsname u = {.nodename = ""};
	struct survey_writer w;
	struct survey_source *s;
	bool some = false;

	survey_begin(&w, most, brief);
	DL_FOREACH(sources, s)
	{
		if (store_client_id(s->store) != client)
			continue;
		if (!some) {
			uname(&u);
			/* whoever is listed holds a reference on the agent */
			survey_process(&w, u.nodename, survey_host(agent_own()),
				       (uint32_t)getpid());
		}
		some = true;
		s->report(s->arg, &w);
	}
	*ret_cut = w.cut;
	struct blob *b = survey_end(&w);
	if (some)
		return b;
	blob_put(b);
	return NULL;
}

static void answer(uint64_t client, size_t most, struct store_bytes *ret)
{
	bool cut;

	LOCKED(&lock);
	struct blob *b = encode(client, most, false, &cut);
	if (cut) {
		blob_put(b);
		b = encode(client, most, true, &cut);
	}
	ret->data = b && b->len <= most ? malloc(b->len) : NULL;
	if (ret->data) {
		memcpy(ret->data, b->data, b->len);
		ret->len = b->len;
	}
	blob_put(b);
}

void survey_list(struct survey_source *s)
{
	LOCKED(&lock);
	DL_APPEND(sources, s);
	s->listed = true;
	store_answer_with(answer);
}

void survey_unlist(struct survey_source *s)
{
	LOCKED(&lock);
	if (s->listed)
		DL_DELETE(sources, s);
	s->listed = false;
}

void survey_path_row(struct survey_writer *w, struct survey_row *row, const struct path *path,
		     struct endpoint *ep)
{
	char why[PATH_REFUSED_MAX][PATH_WHY_MAX], via[64] = "";

	if (ep)
		row->path = path->name;
	if (ep && ep->ops->via)
		ep->ops->via(ep, via, sizeof(via));
	row->via = via;
	for (uint32_t i = 0; i < path->refused_n && i < SURVEY_REFUSED_MAX; i++) {
		const struct path_refused *r = &path->refused[i];
		snprintf(why[i], sizeof(why[i]), "%.*s", (int)r->len, path->why + r->at);
		row->refused[row->refused_n++] =
		    (struct survey_refusal){.path = r->name, .why = why[i]};
	}
	/* no path at all: one text for all of them */
	if (path->refused_n == 0 && path->why[0])
		row->refused[row->refused_n++] = (struct survey_refusal){.why = path->why};
	survey_row(w, row);
}

static void fork_child(void)
{
	pthread_mutex_init(&lock, NULL);
	sources = NULL;
}

static const struct fork_hooks hooks = {.order = FORK_ORDER_CORE, .child = fork_child};
FORK_HOOKS(hooks)
