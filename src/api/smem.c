/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The common functions. smem_init() has nothing to do: every part comes up with its first user and
 * goes with its last, so smem_uninit() only ends the users: the services, and the references on
 * stores that smem_create_config_store() took.
 */
#include "smem.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "api/export.h"
#include "api/service.h"
#include "store/store.h"
#include "util/cleanup.h"
#include "util/err.h"
#include "util/fork.h"
#include "util/limits.h"
#include "util/log.h"

struct created {
	struct store *store;
	char url[sizeof(((struct store_url *)NULL)->text)];
	struct created *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct created *created; /* under lock */

SMEM_API int32_t smem_init(uint32_t flags)
{
	if (flags != 0)
		LOG_DEBUG("smem", "smem_init: flags 0x%x ignored", flags);
	return SMEM_OK;
}

/* Under lock. */
static int32_t create_new(const struct store_url *url)
{
	struct created *c = calloc(1, sizeof(*c));

	if (!c)
		return smem_err(SMEM_MALLOC_FAILED, "store %s", url->text);
	int32_t r = store_open(url, STORE_HOST, deadline_in_ms(STORE_CREATE_MS), &c->store);
	if (r != SMEM_OK) {
		free(c);
		return r;
	}
	memcpy(c->url, url->text, sizeof(c->url));
	c->next = created;
	created = c;
	return SMEM_OK;
}

static int32_t create_store(const char *text)
{
	struct store_url url;

	if (!text)
		return smem_err(SMEM_INVALID_PARAM, "storeUrl is NULL");
	int32_t r = store_url_parse(text, true, &url);
	if (r != SMEM_OK)
		return r;
	LOCKED(&lock);
	for (const struct created *c = created; c; c = c->next) {
		if (strcmp(c->url, url.text) == 0)
			return SMEM_OK;
	}
	return create_new(&url);
}

SMEM_API int32_t smem_create_config_store(const char *storeUrl)
{
	API_SCOPE(s);
	return err_leave(&s, create_store(storeUrl));
}

SMEM_API void smem_uninit(void)
{
	service_uninit_all();
	LOCKED(&lock);
	while (created) {
		struct created *c = created;
		created = c->next;
		store_close(c->store, STORE_LINGER_MS);
		free(c);
	}
}

static void fork_child(void)
{
	pthread_mutex_init(&lock, NULL);
	created = NULL;
}

static const struct fork_hooks hooks = {.order = FORK_ORDER_API, .child = fork_child};
FORK_HOOKS(hooks)

SMEM_API int32_t smem_set_extern_logger(void (*func)(int level, const char *msg))
{
	API_SCOPE(s);
	if (!func)
		return err_leave(&s, smem_err(SMEM_INVALID_PARAM, "func is NULL"));
	log_set_sink(func);
	return err_leave(&s, SMEM_OK);
}

SMEM_API int32_t smem_set_log_level(int level)
{
	API_SCOPE(s);
	if (level < LOG_LEVEL_DEBUG || level > LOG_LEVEL_ERROR)
		return err_leave(&s, smem_err(SMEM_INVALID_PARAM, "level %d, want 0..3", level));
	log_set_level(level);
	return err_leave(&s, SMEM_OK);
}

SMEM_API const char *smem_get_last_err_msg(void)
{
	return err_last();
}

SMEM_API const char *smem_get_and_clear_last_err_msg(void)
{
	return err_last_clear();
}

SMEM_API int32_t smem_get_last_err_code(void)
{
	return err_last_code();
}
