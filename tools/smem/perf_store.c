/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `smem perf store`: what the config store costs its users, as they see it: becoming a rank and
 * ceasing to be one, making a transfer session and ending it. Each is a connection and several
 * requests; the limit beside is a bare TCP connection to the same port that is opened and closed.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "perf.h"
#include "smem.h"
#include "smem_bm.h"
#include "smem_trans.h"

struct rig {
	const char *url;
	struct sockaddr_in listener; /* a bare one */
	int fd;
};

static int op_rank(void *ctx, size_t i)
{
	struct rig *g = ctx;
	smem_bm_config_t config;

	(void)i;
	smem_bm_config_init(&config);
	config.rankId = 0;
	config.startConfigStore = false;
	if (smem_bm_init(g->url, 2, 0, &config) != SMEM_OK)
		return -1;
	smem_bm_uninit(0);
	return 0;
}

static int op_session(void *ctx, size_t i)
{
	struct rig *g = ctx;
	smem_trans_config_t config;

	(void)i;
	smem_trans_config_init(&config);
	smem_trans_t t = smem_trans_create(g->url, "127.0.0.1:1", &config);
	if (!t)
		return -1;
	smem_trans_destroy(t, 0);
	return 0;
}

static int op_connect(void *ctx, size_t i)
{
	struct rig *g = ctx;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), peer = -1;

	(void)i;
	if (fd >= 0 && connect(fd, (struct sockaddr *)&g->listener, sizeof(g->listener)) == 0)
		peer = accept4(g->fd, NULL, NULL, SOCK_CLOEXEC);
	if (fd >= 0)
		close(fd);
	if (peer >= 0)
		close(peer);
	return peer >= 0 ? 0 : -1;
}

static int listen_bare(struct rig *g)
{
	socklen_t len = sizeof(g->listener);

	g->listener =
	    (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	g->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	return g->fd >= 0 && bind(g->fd, (struct sockaddr *)&g->listener, len) == 0 &&
		       listen(g->fd, 16) == 0 &&
		       getsockname(g->fd, (struct sockaddr *)&g->listener, &len) == 0
		   ? 0
		   : -1;
}

int perf_store(struct perf *p)
{
	char url[300];
	struct rig g = {.url = url, .fd = -1};
	struct perf_case rank[] = {{.name = "bm init + uninit", .op = op_rank, .ctx = &g},
				   {.name = "TCP connect + close", .op = op_connect, .ctx = &g}};
	struct perf_case session[] = {
	    {.name = "trans create + destroy", .op = op_session, .ctx = &g},
	    {.name = "TCP connect + close", .op = op_connect, .ctx = &g}};

	if (p->store)
		snprintf(url, sizeof(url), "%s", p->store);
	else if (store_host_any(url, sizeof(url)) != SMEM_OK)
		return perf_fail(p, "hosting the store");
	if (listen_bare(&g) != 0)
		return perf_fail(p, "a bare listener");
	perf_section(p, "Config store, one client at a time");
	int r = perf_compare(p, "a rank", 0, rank, 2, NULL);
	if (r == 0)
		r = perf_compare(p, "a session", 0, session, 2, NULL);
	close(g.fd);
	perf_note(p, "operations a second with many clients, beside redis: "
		     "tests/bench/bench_store in the build folder");
	return r;
}
