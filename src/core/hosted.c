/* SPDX-License-Identifier: Apache-2.0 */
/* A list of references on store objects, one a URL. */
#include "core/hosted.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "store/store.h"
#include "util/cleanup.h"
#include "util/err.h"
#include "util/fork.h"
#include "util/limits.h"

struct hosted {
	struct store *store;
	char url[sizeof(((struct store_url *)NULL)->text)];
	struct hosted *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct hosted *list; /* under lock */

/* Under lock. */
static int32_t add_new(const struct store_url *url)
{
	struct hosted *h = calloc(1, sizeof(*h));

	if (!h)
		return smem_err(SMEM_MALLOC_FAILED, "store %s", url->text);
	int32_t r = store_open(url, STORE_HOST, deadline_in_ms(STORE_CREATE_MS), &h->store);
	if (r != SMEM_OK) {
		free(h);
		return r;
	}
	memcpy(h->url, url->text, sizeof(h->url));
	h->next = list;
	list = h;
	return SMEM_OK;
}

int32_t hosted_add(const char *url)
{
	struct store_url parsed;

	int32_t r = store_url_parse(url, true, &parsed);
	if (r != SMEM_OK)
		return r;
	LOCKED(&lock);
	for (const struct hosted *h = list; h; h = h->next) {
		if (strcmp(h->url, parsed.text) == 0)
			return SMEM_OK;
	}
	return add_new(&parsed);
}

void hosted_close(void)
{
	LOCKED(&lock);
	while (list) {
		struct hosted *h = list;
		list = h->next;
		store_close(h->store, STORE_LINGER_MS);
		free(h);
	}
}

static void fork_child(void)
{
	pthread_mutex_init(&lock, NULL);
	list = NULL;
}

static const struct fork_hooks hooks = {.order = FORK_ORDER_CORE, .child = fork_child};
FORK_HOOKS(hooks)
