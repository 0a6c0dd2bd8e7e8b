/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store's rounds without its sockets: the real state, and in place of client and server calls
 * that can be held up before they are sent or after they were answered, or whose answer is lost.
 * That is how a process looks that is stopped or dies there.
 */
#ifndef TEST_STORE_FAKE_H
#define TEST_STORE_FAKE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "store/kv.h"
#include "store/store.h"

enum hold { HOLD_NOT, HOLD_BEFORE, HOLD_AFTER };

struct store_group {
	struct kv_client *client;
	uint64_t next;
	enum hold hold; /* the next call */
	bool held;	/* it is */
	bool unreachable, deaf, woken;
	unsigned calls;
};

extern pthread_mutex_t fake_lock; /* of all of it */
extern pthread_cond_t fake_changed;

void fake_start(void);
void fake_stop(void);
/* Enter the one group; all `size` members come this way. */
void fake_enter(struct store_group *g, uint32_t member, uint32_t size);
/* Its process is gone; under fake_lock. */
void fake_lost(struct store_group *g);

void fake_hold(struct store_group *g, enum hold how);
void fake_until_held(struct store_group *g);

#endif
