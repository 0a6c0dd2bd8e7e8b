/* SPDX-License-Identifier: Apache-2.0 */
/* The services register themselves when the library is loaded, so this file knows none of them. */
#include "api/service.h"

#include "util/fork.h"

static struct service *services[SERVICE_COUNT];

void service_register(struct service *s)
{
	services[s->order] = s;
}

void service_lock(struct service *s)
{
	pthread_mutex_lock(&s->lock);
}

void service_unlock(struct service *s)
{
	pthread_mutex_unlock(&s->lock);
}

void service_up(struct service *s)
{
	atomic_store(&s->up, true);
}

bool service_down(struct service *s)
{
	if (!atomic_exchange(&s->up, false))
		return false;
	while (!gate_drain(&s->gate, deadline_in_s(3600)))
		;
	return true;
}

int32_t service_not_up(const struct service *s)
{
	return smem_err(SMEM_NOT_INITIALIZED, "%s is not initialised in this process: call %s_init",
			s->name, s->name);
}

int32_t service_enter(struct service *s, uint32_t *ticket)
{
	uint32_t t = gate_enter(&s->gate);

	if (!atomic_load(&s->up)) {
		gate_exit(&s->gate, t);
		return service_not_up(s);
	}
	*ticket = t;
	return SMEM_OK;
}

void service_exit(struct service *s, uint32_t ticket)
{
	gate_exit(&s->gate, ticket);
}

void service_uninit_all(void)
{
	for (int i = 0; i < SERVICE_COUNT; i++) {
		if (services[i])
			services[i]->uninit(0);
	}
}

static void fork_child(void)
{
	for (int i = 0; i < SERVICE_COUNT; i++) {
		struct service *s = services[i];
		if (!s)
			continue;
		pthread_mutex_init(&s->lock, NULL);
		gate_init(&s->gate);
		atomic_store(&s->up, false);
		if (s->forget)
			s->forget();
	}
}

static const struct fork_hooks hooks = {.order = FORK_ORDER_API, .child = fork_child};
FORK_HOOKS(hooks)
