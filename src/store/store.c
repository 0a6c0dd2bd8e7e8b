/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stores of this process: one object per URL, shared by whoever asks. The first opener makes it
 * while others of the same URL wait for the outcome; different URLs do not wait for each other. Who
 * comes to serve does not wait for one who is connecting: that one may be waiting for it. An
 * object whose connection was lost is taken out of the list, so that the next opener gets a new
 * one, and lives on until its holders let go.
 */
#include "store/store.h"

#include <netinet/in.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "store/client.h"
#include "store/net.h"
#include "store/server.h"
#include "store/tls.h"
#include "util/cleanup.h"
#include "util/err.h"
#include "util/fork.h"
#include "util/limits.h"
#include "util/log.h"

#define CONNECT_STEP_MS 500

struct store {
	struct store_url url;
	unsigned refs;
	bool busy;	 /* somebody starts the server */
	bool connecting; /* somebody opens the client, which may take long */
	bool listed;	 /* in `stores` */
	bool ready;	 /* tls is what the environment said */
	struct tls *tls;
	struct client *client;
	struct server *server;
	struct store *prev, *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static struct store *stores;
static struct store *forgotten; /* the parent's, in a forked child: kept reachable, never touched */

static void fork_child(void)
{
	if (stores)
		DL_CONCAT(forgotten, stores);
	stores = NULL;
	pthread_mutex_init(&lock, NULL);
	pthread_cond_init(&cond, NULL);
}

static const struct fork_hooks hooks = {.order = FORK_ORDER_STORE, .child = fork_child};
FORK_HOOKS(hooks)

struct client *store_client(struct store *s)
{
	return s->client;
}

/* ---- which object a URL means ---- */

/* A host that listens on a wildcard address owns the port on each of this machine's addresses. */
static bool wildcard_covers(const struct store *s, const struct store_url *url, bool url_own)
{
	return s->url.wildcard && s->server && s->url.port == url->port && url_own &&
	       (s->url.family == AF_INET6 || url->family == AF_INET || url->family == 0);
}

static void unlist(struct store *s)
{
	if (!s->listed)
		return;
	DL_DELETE(stores, s);
	s->listed = false;
}

static struct store *find(const struct store_url *url, bool url_own)
{
	struct store *s, *tmp;

	DL_FOREACH_SAFE(stores, s, tmp)
	{
		if (strcmp(s->url.text, url->text) != 0 && !wildcard_covers(s, url, url_own))
			continue;
		if (s->busy || s->connecting || !store_lost(s))
			return s;
		unlist(s);
	}
	return NULL;
}

/* Names are looked up, which may take a while: never under the lock. */
static bool is_own(const struct store_url *url, struct deadline deadline)
{
	struct net_addr addr[NET_ADDRS_MAX];
	size_t n;

	return net_resolve(url, true, deadline, addr, &n) == SMEM_OK && n > 0 &&
	       net_is_own(&addr[0]);
}

/* ---- opening ---- */

static void warn_plain(const struct store *s)
{
	struct sockaddr_storage sa;
	socklen_t len;

	client_local_addr(s->client, &sa, &len);
	struct net_addr a = {.sa = sa, .len = len};
	if (s->url.wildcard || !net_is_loopback(&a))
		LOG_WARN("store",
			 "%s is plain TCP on a network: set SMEM_CONF_STORE_TLS_INFO to protect it",
			 s->url.text);
}

static int32_t serve(struct store *s, enum store_role role, bool own, struct deadline deadline)
{
	struct deadline retry = deadline_in_ms(STORE_PORT_RETRY_MS);
	struct server *server = NULL;

	if (role == STORE_CONNECT || store_hosting(s) || (role == STORE_HOST_IF_LOCAL && !own))
		return SMEM_OK;
	if (retry.end > deadline.end)
		retry.end = deadline.end;
	if (role == STORE_HOST_IF_LOCAL)
		retry.end = retry.start; /* another process of this host may be the one */
	int32_t r = server_start(&s->url, s->tls, retry, &server);
	if (r == SMEM_OK) {
		LOCKED(&lock);
		s->server = server;
	}
	return r == SMEM_RESOURCE_IN_USE && role == STORE_HOST_IF_LOCAL ? SMEM_OK : r;
}

static bool connected(const struct store *s)
{
	LOCKED(&lock);
	return s->client != NULL;
}

static int32_t prepare(struct store *s, enum store_role role, bool own, struct deadline deadline)
{
	int32_t r = SMEM_OK;

	if (!s->ready)
		r = tls_from_env(&s->tls);
	s->ready = r == SMEM_OK;
	/* An object that is connected is reused as it is, whatever the role. */
	return r == SMEM_OK && !connected(s) ? serve(s, role, own, deadline) : r;
}

/*
 * STORE_HOST_IF_LOCAL: when nobody listens at a port that was taken before, its holder has ended,
 * and this process may be the next one to host: look again now and then.
 */
static int32_t dial_or_serve(struct store *s, enum store_role role, bool own,
			     struct deadline deadline, struct client **ret)
{
	struct deadline step = deadline;
	int32_t r = SMEM_OK;

	while (r == SMEM_OK) {
		uint64_t next = clock_ns() + CONNECT_STEP_MS * NS_PER_MS;
		bool again = role == STORE_HOST_IF_LOCAL && own && next < deadline.end;
		step.end = again ? next : deadline.end;
		r = client_open(&s->url, s->tls, step, ret);
		if (r != SMEM_TIMEOUT || !again)
			return r;
		r = serve(s, role, own, deadline);
	}
	return r;
}

static int32_t connect_client(struct store *s, enum store_role role, bool own,
			      struct deadline deadline)
{
	struct client *client = NULL;
	int32_t r = dial_or_serve(s, role, own, deadline, &client);

	{
		LOCKED(&lock);
		s->client = client;
		s->connecting = false;
		pthread_cond_broadcast(&cond);
	}
	if (r == SMEM_OK && !s->tls)
		warn_plain(s);
	return r;
}

/* Wait, under the lock, until something changed; false when the deadline has passed. */
static bool wait_change(struct deadline deadline)
{
	struct timespec until = deadline_timespec(deadline);

	return pthread_cond_clockwait(&cond, &lock, CLOCK_MONOTONIC, &until) == 0 ||
	       !deadline_passed(deadline);
}

static int32_t still_opening(const struct store_url *url)
{
	return smem_err(SMEM_TIMEOUT, "config store %s: another thread is still opening it",
			url->text);
}

/* Under the lock: an object of the URL that this thread may build on, busy and with a reference. */
static int32_t claim(const struct store_url *url, bool own, struct deadline deadline,
		     struct store **ret)
{
	struct store *s = find(url, own);

	while (s && s->busy) {
		if (!wait_change(deadline))
			return still_opening(url);
		s = find(url, own);
	}
	if (!s) {
		s = calloc(1, sizeof(*s));
		if (!s)
			return smem_err(SMEM_MALLOC_FAILED, "config store %s", url->text);
		s->url = *url;
		s->listed = true;
		DL_APPEND(stores, s);
	}
	s->busy = true;
	s->refs++;
	*ret = s;
	return SMEM_OK;
}

/* Ends being busy; then this thread connects (*ret true), or somebody has. */
static int32_t claim_connecting(struct store *s, struct deadline deadline, bool *ret)
{
	LOCKED(&lock);
	s->busy = false;
	pthread_cond_broadcast(&cond);
	while (s->connecting) {
		if (!wait_change(deadline))
			return still_opening(&s->url);
	}
	*ret = s->connecting = !s->client;
	return SMEM_OK;
}

static void unclaim(struct store *s)
{
	LOCKED(&lock);
	s->busy = false;
	pthread_cond_broadcast(&cond);
}

int32_t store_open(const struct store_url *url, enum store_role role, struct deadline deadline,
		   struct store **ret)
{
	bool own = url->wildcard || is_own(url, deadline);
	struct store *s = NULL;
	bool connects = false;

	pthread_mutex_lock(&lock);
	int32_t r = claim(url, own, deadline, &s);
	pthread_mutex_unlock(&lock);
	if (r != SMEM_OK)
		return r;
	r = prepare(s, role, own, deadline);
	if (r == SMEM_OK)
		r = claim_connecting(s, deadline, &connects);
	else
		unclaim(s);
	if (r == SMEM_OK && connects)
		r = connect_client(s, role, own, deadline);
	if (r != SMEM_OK) {
		store_close(s, INIT_LINGER_MS);
		return r;
	}
	*ret = s;
	return SMEM_OK;
}

void store_close(struct store *s, uint32_t linger_ms)
{
	if (!s)
		return;
	pthread_mutex_lock(&lock);
	/* Somebody who has a reference too may be opening: then it is not the last. */
	bool last = --s->refs == 0;
	if (last)
		unlist(s);
	pthread_mutex_unlock(&lock);
	if (!last)
		return;
	client_close(s->client);
	server_stop(s->server, linger_ms);
	tls_destroy(s->tls);
	free(s);
}

/* ---- what it is ---- */

const char *store_url_text(const struct store *s)
{
	return s->url.text;
}

bool store_hosting(const struct store *s)
{
	LOCKED(&lock);
	return s->server != NULL;
}

bool store_encrypted(const struct store *s)
{
	return s->tls != NULL;
}

bool store_lost(const struct store *s)
{
	return !s->client || client_lost(s->client);
}

int32_t store_local_addr(const struct store *s, struct sockaddr_storage *ret, socklen_t *len)
{
	client_local_addr(s->client, ret, len);
	return *len > 0 ? SMEM_OK
			: smem_err(SMEM_IO, "the address towards the config store %s is unknown",
				   s->url.text);
}

uint64_t store_client_id(const struct store *s)
{
	return client_id(s->client);
}
