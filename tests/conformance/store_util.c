/* SPDX-License-Identifier: Apache-2.0 */
#include "store_util.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "certs.h"

uint16_t port_free(void)
{
	struct sockaddr_in sin = {.sin_family = AF_INET};
	socklen_t len = sizeof(sin);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&sin, len), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&sin, &len), 0);
	close(fd);
	return ntohs(sin.sin_port);
}

void hub_start(struct hub *h)
{
	struct store_url url;
	char text[64];
	int32_t r = SMEM_RESOURCE_IN_USE;

	h->tls = NULL;
	if (getenv("STORE_TEST_TLS")) {
		assert_true(certs_make());
		certs_use("ca", "node", "node.key", "tlsCrlPath: %s; tlsCrlFile: ca.crl");
	}
	if (tls_from_env(&h->tls) != 0)
		fail_msg("%s", err_detail());
	/* Another process may take the port between looking and listening. */
	for (int i = 0; i < 20 && r == SMEM_RESOURCE_IN_USE; i++) {
		h->port = port_free();
		snprintf(text, sizeof(text), "tcp://0.0.0.0:%u", h->port);
		assert_int_equal(store_url_parse(text, true, &url), 0);
		r = server_start(&url, h->tls, deadline_in_ms(0), &h->server);
	}
	assert_int_equal(r, 0);
}

void hub_stop(struct hub *h)
{
	server_stop(h->server, 0);
	tls_destroy(h->tls);
	h->server = NULL;
	h->tls = NULL;
}

struct store *hub_client(const struct hub *h, unsigned n)
{
	struct store_url url;
	struct store *s = NULL;
	char text[64];

	snprintf(text, sizeof(text), "tcp://127.0.%u.%u:%u", n / 250, n % 250 + 1, h->port);
	assert_int_equal(store_url_parse(text, false, &url), 0);
	if (store_open(&url, STORE_CONNECT, deadline_in_s(LONG_S), &s) != 0)
		fail_msg("%s", err_detail());
	return s;
}

static void *task_run(void *arg)
{
	struct task *t = arg;

	t->fn(t);
	return NULL;
}

void task_start(struct task *t, void (*fn)(struct task *t))
{
	t->fn = fn;
	assert_int_equal(pthread_create(&t->thread, NULL, task_run, t), 0);
}

void task_join(struct task *t)
{
	assert_int_equal(pthread_join(t->thread, NULL), 0);
}

void task_fail(struct task *t, int32_t code)
{
	t->code = code;
	snprintf(t->detail, sizeof(t->detail), "%s", code ? err_detail() : "");
}

void diary_init(struct diary *d)
{
	memset(d, 0, sizeof(*d));
	pthread_mutex_init(&d->lock, NULL);
	pthread_cond_init(&d->cond, NULL);
}

void diary_note(void *arg, const struct store_event *e)
{
	struct diary *d = arg;

	pthread_mutex_lock(&d->lock);
	if (d->count < sizeof(d->events) / sizeof(d->events[0])) {
		d->events[d->count] = *e;
		snprintf(d->data[d->count], sizeof(d->data[0]), "%.*s", (int)e->len,
			 e->data ? (const char *)e->data : "");
		d->count++;
	}
	struct store_group *ack = d->auto_ack ? d->group : NULL;
	pthread_cond_broadcast(&d->cond);
	pthread_mutex_unlock(&d->lock);
	if (ack)
		store_group_ack(ack, e->seq, 0, NULL);
}

void diary_wait(struct diary *d, size_t count)
{
	struct timespec until = deadline_timespec(deadline_in_s(LONG_S));

	pthread_mutex_lock(&d->lock);
	while (d->count < count &&
	       pthread_cond_clockwait(&d->cond, &d->lock, CLOCK_MONOTONIC, &until) == 0)
		;
	size_t have = d->count;
	pthread_mutex_unlock(&d->lock);
	if (have < count)
		fail_msg("%zu events, waited for %zu", have, count);
}

size_t diary_count(struct diary *d)
{
	pthread_mutex_lock(&d->lock);
	size_t n = d->count;
	pthread_mutex_unlock(&d->lock);
	return n;
}
