/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One table of started transports for the process. The blob of addresses is a row of
 * (name length, name, length low, length high, bytes); its decoder is a pure function that believes
 * nothing.
 */
#include "core/path.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "util/cleanup.h"
#include "util/err.h"
#include "util/fork.h"
#include "util/log.h"

#define TRANSPORTS_MAX 8u
#define NAME_MAX_LEN   15u

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned refs;
static bool started[TRANSPORTS_MAX];
static char refused[TRANSPORTS_MAX][128]; /* why it did not start */

static void stop_all(void)
{
	for (size_t i = 0; transport_table[i]; i++) {
		if (started[i])
			transport_table[i]->stop();
		started[i] = false;
	}
}

/* Starts what can start. Only exhaustion fails: the caller would lose paths it should have. */
static int32_t start_all(const void *route, size_t route_len)
{
	for (size_t i = 0; transport_table[i] && i < TRANSPORTS_MAX; i++) {
		int32_t r = transport_table[i]->start(route, route_len);
		if (r == SMEM_MALLOC_FAILED || r == SMEM_NEW_OBJECT_FAILED) {
			stop_all();
			return r;
		}
		started[i] = r == SMEM_OK;
		if (r == SMEM_OK)
			continue;
		snprintf(refused[i], sizeof(refused[i]), "%.120s", err_detail());
		LOG_DEBUG("path", "%s is not available: %s", transport_table[i]->name, refused[i]);
	}
	return SMEM_OK;
}

int32_t paths_get(const void *route, size_t route_len)
{
	LOCKED(&lock);
	if (refs == 0) {
		int32_t r = start_all(route, route_len);
		if (r != SMEM_OK)
			return r;
	}
	refs++;
	return SMEM_OK;
}

void paths_put(void)
{
	LOCKED(&lock);
	if (refs > 0 && --refs == 0)
		stop_all();
}

static size_t put_address(uint8_t *at, size_t room, const char *name, const void *addr, size_t len)
{
	size_t name_len = strlen(name);

	if (1 + name_len + 2 + len > room)
		return 0;
	at[0] = (uint8_t)name_len;
	memcpy(at + 1, name, name_len); // NOLINT(bugprone-not-null-terminated-result)
	at[1 + name_len] = (uint8_t)(len & 0xff);
	at[2 + name_len] = (uint8_t)(len >> 8);
	memcpy(at + 3 + name_len, addr, len);
	return 3 + name_len + len;
}

int32_t paths_addresses(void *buf, size_t cap, size_t *ret_len)
{
	uint8_t addr[TRANSPORT_ADDR_MAX];
	size_t used = 0;

	LOCKED(&lock);
	for (size_t i = 0; transport_table[i]; i++) {
		size_t len = sizeof(addr);
		if (!started[i])
			continue;
		int32_t r = transport_table[i]->address(addr, &len);
		if (r != SMEM_OK)
			return r;
		if (len == 0)
			continue;
		size_t n = put_address((uint8_t *)buf + used, cap - used, transport_table[i]->name,
				       addr, len);
		if (n == 0)
			return smem_err(SMEM_ERROR, "transport addresses exceed %zu bytes", cap);
		used += n;
	}
	*ret_len = used;
	return SMEM_OK;
}

/* The address of `name` in a blob; NULL when it has none, or from where the blob makes no sense. */
static const void *find_address(const uint8_t *blob, size_t len, const char *name, size_t *ret_len)
{
	size_t want = strlen(name);

	while (len >= 3) {
		size_t name_len = blob[0];
		if (name_len > NAME_MAX_LEN || len < 3 + name_len)
			return NULL;
		size_t n = blob[1 + name_len] | (size_t)blob[2 + name_len] << 8;
		if (n > len - 3 - name_len)
			return NULL;
		if (name_len == want && memcmp(blob + 1, name, want) == 0) {
			*ret_len = n;
			return blob + 3 + name_len;
		}
		blob += 3 + name_len + n;
		len -= 3 + name_len + n;
	}
	return NULL;
}

int32_t paths_expose(uint64_t id, void *addr, size_t len, bool writable, const uint8_t secret[16])
{
	for (size_t i = 0; transport_table[i]; i++) {
		if (!started[i] || !transport_table[i]->expose)
			continue;
		int32_t r = transport_table[i]->expose(id, addr, len, writable, secret);
		if (r == SMEM_OK)
			continue;
		for (size_t k = 0; k < i; k++) {
			if (started[k] && transport_table[k]->withdraw)
				transport_table[k]->withdraw(id, deadline_in_ms(0));
		}
		return r;
	}
	return SMEM_OK;
}

int32_t paths_withdraw(uint64_t id, struct deadline deadline)
{
	int32_t first = SMEM_OK;

	for (size_t i = 0; transport_table[i]; i++) {
		if (!started[i] || !transport_table[i]->withdraw)
			continue;
		int32_t r = transport_table[i]->withdraw(id, deadline);
		if (first == SMEM_OK)
			first = r;
	}
	return first;
}

static void add_why(struct path *path, const char *name, const char *why)
{
	size_t used = strlen(path->why);

	snprintf(path->why + used, sizeof(path->why) - used, "%s%s: %.200s", used ? "; " : "", name,
		 why);
	size_t at = used + (used ? 2 : 0) + strlen(name) + 2, end = strlen(path->why);
	if (at > end || path->refused_n == PATH_REFUSED_MAX)
		return;
	path->refused[path->refused_n++] =
	    (struct path_refused){.name = name, .at = (uint16_t)at, .len = (uint16_t)(end - at)};
}

static _Atomic bool store_is_encrypted, warned;

void paths_store_encrypted(void)
{
	atomic_store(&store_is_encrypted, true);
}

int32_t path_connect(struct transport_peer *peer, const void *addrs, size_t addrs_len, bool mapped,
		     const char *unmapped, struct deadline deadline, struct path *ret)
{
	struct path path = {0};

	for (size_t i = 0; transport_table[i]; i++) {
		const struct transport_ops *t = transport_table[i];
		if (t == &transport_direct && !mapped) {
			add_why(&path, t->name, unmapped);
			continue;
		}
		if (!started[i]) {
			add_why(&path, t->name, refused[i]);
			continue;
		}
		peer->addr_len = 0;
		peer->addr = find_address(addrs, addrs_len, t->name, &peer->addr_len);
		int32_t r = t->connect(peer, deadline, &path.ep);
		if (r == SMEM_OK) {
			path.name = t->name;
			*ret = path;
			if (t == &transport_ofi && atomic_load(&store_is_encrypted) &&
			    !atomic_exchange(&warned, true))
				LOG_WARN("path",
					 "the store is protected by TLS, but data to %s and all "
					 "others on the network is not encrypted",
					 peer->name);
			return SMEM_OK;
		}
		if (r != SMEM_UNREACHABLE)
			return r;
		add_why(&path, t->name, err_detail());
	}
	return smem_err(SMEM_UNREACHABLE, "no data path to %s: %s", peer->name, path.why);
}

void path_close(struct path *path)
{
	if (path->ep)
		path->ep->ops->close(path->ep);
	path->ep = NULL;
}

static void fork_child(void)
{
	pthread_mutex_init(&lock, NULL);
	refs = 0;
	memset(started, 0, sizeof(started));
}

static const struct fork_hooks hooks = {.order = FORK_ORDER_CORE, .child = fork_child};
FORK_HOOKS(hooks)
