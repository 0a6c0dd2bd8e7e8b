/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A server on all of 127/8 and many clients of it in one process: every 127.0.0.N is a URL of its
 * own, hence a store object and a client of its own.
 */
#ifndef TEST_STORE_UTIL_H
#define TEST_STORE_UTIL_H

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "store/server.h"
#include "store/store.h"
#include "store/tls.h"
#include "util/err.h"
#include "util/limits.h"

#define LONG_S 60 /* never reached by a test that passes */

struct hub {
	uint16_t port;
	struct server *server;
	struct tls *tls; /* with STORE_TEST_TLS in the environment */
};

uint16_t port_free(void);
void hub_start(struct hub *h);
void hub_stop(struct hub *h);
struct store *hub_client(const struct hub *h, unsigned n); /* n from 1 */

/* A call in a thread of its own. */
struct task {
	pthread_t thread;
	int32_t code;
	char detail[1024];
	void (*fn)(struct task *t);
	/* what the functions of the tests use */
	struct store *store;
	struct store_group *group;
	struct store_enter enter;
	struct store_conflict conflict;
	struct store_gathered gathered;
	struct store_bytes bytes;
	struct deadline deadline;
	const char *key;
	const void *val;
	size_t len;
	uint32_t index, size;
	uint64_t seq;
};
void task_start(struct task *t, void (*fn)(struct task *t));
void task_join(struct task *t);
void task_fail(struct task *t, int32_t code); /* keeps code and detail of this thread */

/* Events of a group, as they come. */
struct diary {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	struct store_event events[4096];
	char data[4096][64];
	size_t count;
	bool auto_ack;
	struct store_group *group; /* to acknowledge by, when set */
};
void diary_init(struct diary *d);
void diary_note(void *arg, const struct store_event *e);
/* Waits until `count` events are there. */
void diary_wait(struct diary *d, size_t count);
size_t diary_count(struct diary *d);

#endif
