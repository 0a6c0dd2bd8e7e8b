/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A service: what BM, SHM and TRANS have in common in being initialised. Init and uninit of one
 * service wait for each other; calls that need the service's state pass its gate, so that uninit
 * takes the state away only after they left. TRANS has no init: it uses the registration only.
 *
 *   static struct service bm = {.name = "smem_bm", .order = SERVICE_BM, .uninit = smem_bm_uninit,
 *                               .forget = forget};
 *   SERVICE(bm)
 *
 *   init:   after the plain arguments were checked:
 *           service_lock(&bm);
 *           if (service_is_up(&bm)) { ... same arguments? warn; r = 0 }
 *           else if ((r = build()) == 0) service_up(&bm);
 *           service_unlock(&bm);
 *   uninit: service_lock(&bm);
 *           if (service_down(&bm)) take everything down;
 *           service_unlock(&bm);
 *   call:   after the plain arguments (specification 3.1, step 3):
 *           if ((r = service_enter(&bm, &ticket))) return r;    SMEM_NOT_INITIALIZED, recorded
 *           ... state of the service ...
 *           service_exit(&bm, ticket);
 *   copies and the like, which only touch their object: service_check(&bm), then handle_enter().
 */
#ifndef API_SERVICE_H
#define API_SERVICE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "util/err.h"
#include "util/gate.h"

enum service_order { SERVICE_BM, SERVICE_SHM, SERVICE_TRANS, SERVICE_COUNT };

struct service {
	const char *name; /* "smem_bm" */
	enum service_order order;
	void (*uninit)(uint32_t flags); /* the public function: smem_uninit() calls it */
	void (*forget)(void); /* forked child: drop the service's own state; NULL: there is none */
	pthread_mutex_t lock; /* all that follows: zero is right */
	struct gate gate;
	_Atomic bool up;
};

/* Let smem_uninit() and fork know of it, when the library is loaded. */
void service_register(struct service *s);
#define SERVICE(s)                                                                                 \
	__attribute__((constructor)) static void s##_register(void)                                \
	{                                                                                          \
		service_register(&s);                                                              \
	}

void service_lock(struct service *s);
void service_unlock(struct service *s);

static inline bool service_is_up(const struct service *s)
{
	return atomic_load_explicit(&s->up, memory_order_acquire);
}

void service_up(struct service *s); /* under the lock, as the next one */
/* False when it was not up. When true: nobody is inside any more, and nobody comes. */
bool service_down(struct service *s);

int32_t service_not_up(const struct service *s) __attribute__((cold)); /* records */

static inline int32_t service_check(const struct service *s)
{
	return service_is_up(s) ? SMEM_OK : service_not_up(s);
}

int32_t service_enter(struct service *s, uint32_t *ticket);
void service_exit(struct service *s, uint32_t ticket);

/* smem_uninit(): uninit of every registered service, in order. */
void service_uninit_all(void);

#endif
