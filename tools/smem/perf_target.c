/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rank 0 of `smem perf --hosts`. It sits blocked until the writer asks for something, does it, and
 * says so. Its memory is open to the library's writes and to bare libfabric's; who serves the first
 * is the library, as in any program.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "perf_hosts.h"
#include "perf_raw.h"
#include "smem.h"
#include "smem_trans.h"

struct target {
	struct channel channel;
	struct route route;
	smem_trans_t trans;
	char *mem;
	size_t bytes;
	struct raw *raw;
	struct server server;
	char ranks_url[128];
};

static int32_t say(struct talk *a, const char *what, const char *why)
{
	a->failed = 1;
	snprintf(a->data, sizeof(a->data), "at the target: %s%s%.400s", what, *why ? ": " : "",
		 why);
	return -1;
}

static void hello(struct target *t, const struct talk *q, struct talk *a)
{
	struct hello h = {.iperf = rival_installed("iperf3"),
			  .ucx = rival_installed("ucx_perftest")};

	t->bytes = q->number[0];
	t->mem = perf_memory(t->bytes, false);
	if (!t->mem) {
		say(a, "memory", "there is not enough");
		return;
	}
	if (smem_trans_register_mem(t->trans, t->mem, t->bytes, 0) != SMEM_OK) {
		say(a, "registration", smem_get_last_err_msg());
		return;
	}
	a->number[0] = (uintptr_t)t->mem;
	snprintf(h.address, sizeof(h.address), "%s", t->route.own);
	memcpy(a->data, &h, sizeof(h));
}

static void open_raw(struct target *t, struct talk *a)
{
	struct raw_card card = {0};

	_Static_assert(sizeof(card) <= TALK_DATA, "a card is one word");
	if (!t->raw)
		t->raw = raw_open(t->route.own, "");
	if (!t->raw || raw_expose(t->raw, t->mem, t->bytes, &card) != 0)
		say(a, "libfabric", raw_why());
	else
		memcpy(a->data, &card, sizeof(card));
}

static void spin(struct target *t, struct talk *a)
{
	if (!t->raw || raw_spin(t->raw) != 0)
		say(a, "libfabric", raw_why());
}

static void serve(struct target *t, const struct talk *q, struct talk *a)
{
	uint16_t port = 0;

	if ((q->what == TALK_IPERF
		 ? rival_iperf_serve(&t->server, &t->route, &port)
		 : rival_ucx_serve(&t->server, &t->route, q->number[0], &port)) != 0)
		say(a, "the server did not start", "");
	a->number[0] = port;
}

/* A store for the ranks alone: their world is another than that of the two of us. */
static void ranks_url(struct target *t, struct talk *a)
{
	bool v6 = strchr(t->route.own, ':') != NULL;

	snprintf(t->ranks_url, sizeof(t->ranks_url), "tcp://%s%s%s:%u", v6 ? "[" : "", t->route.own,
		 v6 ? "]" : "", free_port(t->route.own));
	if (smem_create_config_store(t->ranks_url) != SMEM_OK)
		say(a, "a store for the ranks", smem_get_last_err_msg());
	else
		memcpy(a->data, t->ranks_url, sizeof(t->ranks_url));
}

static void ranks(struct target *t, const struct talk *q, struct talk *a)
{
	struct perf_stat ignored[PERF_SHM_KINDS];
	struct perf_shm_host h;
	struct procs g;

	memcpy(&h, q->data, sizeof(h));
	if (perf_shm_start(&g, t->ranks_url, &h) != 0)
		say(a, "ranks do not start", "");
	else if (perf_shm_collect(&g, ignored) != 0)
		say(a, "ranks failed", "");
}

static void answer(struct target *t, const struct talk *q, struct talk *a)
{
	switch (q->what) {
	case TALK_HELLO:
		hello(t, q, a);
		break;
	case TALK_RAW_OPEN:
		open_raw(t, a);
		break;
	case TALK_RAW_SPIN:
		spin(t, a);
		break;
	case TALK_RAW_REST:
		raw_rest(t->raw);
		break;
	case TALK_IPERF:
	case TALK_UCX:
		serve(t, q, a);
		break;
	case TALK_RANKS_URL:
		ranks_url(t, a);
		break;
	case TALK_RANKS:
		ranks(t, q, a);
		break;
	case TALK_CPU:
	case TALK_QUIT:
		break;
	default:
		say(a, "this was not understood", "are both ranks of the same version?");
	}
	a->cpu = perf_cpu_s();
}

static int serve_all(struct perf *p, struct target *t)
{
	struct talk q = {0};

	while (q.what != TALK_QUIT) {
		struct talk a = {0};
		if (channel_hear(&t->channel, &q) != 0)
			return perf_fail(p, "the writer");
		answer(t, &q, &a);
		if (channel_answer(&t->channel, &a) != 0 && q.what != TALK_QUIT)
			return perf_fail(p, "the writer");
	}
	return 0;
}

int perf_hosts_target(struct perf *p)
{
	struct target t = {0};
	smem_trans_config_t config;
	int r = -1;

	if (route_own(&t.route, p->store) != 0) {
		complain("no route to %s", p->store);
		p->failed = true;
		return -1;
	}
	perf_note(p, "rank 0 serves; the figures are told by rank 1");
	if (channel_open(&t.channel, p->store, HOSTS_TARGET) != 0) {
		p->failed = true;
		return -1;
	}
	smem_trans_config_init(&config);
	t.trans = smem_trans_create(p->store, HOSTS_TARGET_NAME, &config);
	if (!t.trans)
		perf_fail(p, "the session");
	else
		r = serve_all(p, &t);
	rival_end(&t.server);
	raw_close(t.raw);
	if (t.trans)
		smem_trans_destroy(t.trans, 0);
	channel_close(&t.channel);
	if (t.mem)
		munmap(t.mem, t.bytes);
	return r;
}
