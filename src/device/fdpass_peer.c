/* SPDX-License-Identifier: Apache-2.0 */
/* The asking side of the agent: watching a peer and fetching descriptors over the connection that
 * fdpass_conn.c keeps. A request waits on its caller's stack; the loop's thread fills it in. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "device/fdpass_conn.h"
#include "util/cleanup.h"
#include "util/err.h"
#include "util/limits.h"

static int32_t check_addr(const struct agent_addr *addr)
{
	if (addr->version != AGENT_VERSION)
		return smem_err(SMEM_UNREACHABLE, "agent speaks version %u, this one %u",
				(unsigned)addr->version, AGENT_VERSION);
	if (!agent_same_host(addr))
		return smem_err(SMEM_UNREACHABLE, "it is on another host");
	return SMEM_OK;
}

/* Watch a connection that is up. */
static int32_t watch(struct conn *c, struct agent_peer *w, struct deadline deadline)
{
	int32_t r = conn_wait_up(c, deadline);

	if (r != SMEM_OK)
		return r;
	loop_call(c->loop, conn_arm, w);
	return w->armed == SMEM_OK ? SMEM_OK : conn_over_err(c, deadline);
}

int32_t agent_peer_open(const struct agent_addr *addr, struct deadline deadline,
			void (*lost)(void *arg), void *arg, struct agent_peer **ret)
{
	bool fresh = false;
	struct conn *c = NULL;
	int32_t r = check_addr(addr);

	if (r == SMEM_OK)
		r = conn_find(addr, &c, &fresh);
	if (r != SMEM_OK)
		return r;
	if (fresh)
		loop_call(c->loop, conn_start, c);
	struct agent_peer *w = calloc(1, sizeof(*w));
	if (w) {
		*w = (struct agent_peer){.conn = c, .lost = lost, .arg = arg};
		r = watch(c, w, deadline);
	} else {
		r = smem_err(SMEM_MALLOC_FAILED, "connection to an agent");
	}
	if (r != SMEM_OK) {
		conn_release(c);
		free(w);
		return r;
	}
	*ret = w;
	return SMEM_OK;
}

void agent_peer_close(struct agent_peer *peer)
{
	if (!peer)
		return;
	loop_call(peer->conn->loop, conn_disarm, peer);
	conn_release(peer->conn);
	free(peer);
}

int32_t agent_peer_pid(const struct agent_peer *peer)
{
	LOCKED(&peer->conn->lock);
	return peer->conn->pid;
}

/* Queue q as soon as there is room, and send it if the connection is up. Under c->lock. */
static int32_t request_start(struct conn *c, struct request *q, struct deadline deadline)
{
	struct timespec until = deadline_timespec(deadline);

	while (c->state != CONN_OVER && c->request_count >= AGENT_FETCHES_MAX &&
	       !deadline_passed(deadline))
		pthread_cond_clockwait(&c->cond, &c->lock, CLOCK_MONOTONIC, &until);
	if (c->state == CONN_OVER)
		return conn_over_err(c, deadline);
	if (c->request_count >= AGENT_FETCHES_MAX)
		return SMEM_TIMEOUT;
	q->id = q->frame.id = ++c->next_id;
	DL_APPEND(c->requests, q);
	c->request_count++;
	if (c->state == CONN_UP)
		q->sent = agent_frame_send(c->fd, &q->frame, -1) == 0;
	return SMEM_OK;
}

static void request_end(struct conn *c, struct request *q)
{
	DL_DELETE(c->requests, q);
	if (c->request_count-- == AGENT_FETCHES_MAX)
		pthread_cond_broadcast(&c->cond);
}

static int32_t request_run(struct conn *c, struct request *q, struct deadline deadline)
{
	struct timespec until = deadline_timespec(deadline);

	LOCKED(&c->lock);
	int32_t r = request_start(c, q, deadline);
	if (r == SMEM_OK) {
		while (!q->done && !deadline_passed(deadline))
			pthread_cond_clockwait(&c->cond, &c->lock, CLOCK_MONOTONIC, &until);
		request_end(c, q);
		r = q->done ? q->code : SMEM_TIMEOUT;
	}
	if (r == SMEM_TIMEOUT)
		return smem_err(
		    r, "agent of process %u of this host does not answer (after %" PRIu64 " ms)",
		    (unsigned)c->addr.pid, deadline_elapsed_ms(deadline));
	if (r != SMEM_OK && c->state == CONN_OVER)
		return conn_over_err(c, deadline);
	return r;
}

int32_t agent_fetch(struct agent_peer *peer, uint64_t object, const uint8_t cookie[AGENT_COOKIE],
		    struct deadline deadline, int *ret_fd, void *info, size_t *info_len)
{
	struct conn *c = peer->conn;
	struct request q = {
	    .fd = -1, .frame = {.version = AGENT_VERSION, .type = AGENT_FETCH, .object = object}};

	memcpy(q.frame.cookie, cookie, AGENT_COOKIE);
	int32_t r = request_run(c, &q, deadline);
	if (r == SMEM_OBJECT_NOT_EXISTS)
		return smem_err(r, "process %u of this host does not offer object %" PRIx64,
				(unsigned)c->addr.pid, object);
	if (r == SMEM_IO)
		return smem_err(r, "no descriptor came with object %" PRIx64 " of process %u",
				object, (unsigned)c->addr.pid);
	if (r != SMEM_OK)
		return r;
	if (info) {
		memcpy(info, q.info, q.info_len < *info_len ? q.info_len : *info_len);
		*info_len = q.info_len;
	}
	*ret_fd = q.fd;
	return SMEM_OK;
}
