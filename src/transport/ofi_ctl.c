/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel watches the other side for us. Keepalive probes are answered by a live host even when
 * the process is stopped; TCP_USER_TIMEOUT bounds how long probes or data stay unanswered. The
 * messages are few and small, so a stopped process's receive buffer never fills and its window
 * stays open.
 */
#include "transport/ofi_ctl.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "util/err.h"
#include "util/fd.h"
#include "util/loop.h"

struct ofi_ctl {
	struct loop *loop;
	struct bufferevent *bev;
	int fd;
	bool ended;
	bool inside; /* a callback runs */
	bool freed;  /* in that callback: to be finished after it */
	const struct ofi_ctl_ops *ops;
	void *arg;
};

static void tune(int fd, uint32_t silence_ms)
{
	int on = 1, second = 1, count = 2 + (int)(silence_ms / 1000), urgent = 6;
	unsigned user = silence_ms;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &second, sizeof(second));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &second, sizeof(second));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user, sizeof(user));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	/* Before the data that queues at this host's interface. */
	setsockopt(fd, SOL_SOCKET, SO_PRIORITY, &urgent, sizeof(urgent));
}

static void ctl_finish(struct ofi_ctl *ctl)
{
	/* Freeing is finished later; the descriptor must be out of it before it is closed. */
	bufferevent_setcb(ctl->bev, NULL, NULL, NULL, NULL);
	bufferevent_setfd(ctl->bev, -1);
	bufferevent_free(ctl->bev);
	fd_close(&ctl->fd);
	free(ctl);
}

void ofi_ctl_free(struct ofi_ctl *ctl)
{
	if (!ctl)
		return;
	ctl->ended = true;
	ctl->freed = true;
	if (!ctl->inside)
		ctl_finish(ctl);
}

/* Leave a callback: true when the ctl is gone. */
static bool ctl_leave(struct ofi_ctl *ctl)
{
	ctl->inside = false;
	if (!ctl->freed)
		return false;
	ctl_finish(ctl);
	return true;
}

static void ctl_end(struct ofi_ctl *ctl, int err)
{
	if (ctl->ended)
		return;
	ctl->ended = true;
	bufferevent_disable(ctl->bev, EV_READ | EV_WRITE);
	ctl->inside = true;
	ctl->ops->end(ctl->arg, err);
	ctl_leave(ctl);
}

static void on_read(struct bufferevent *bev, void *arg)
{
	struct evbuffer *in = bufferevent_get_input(bev);
	struct ofi_ctl *ctl = arg;
	struct ofi_msg m;

	for (;;) {
		uint8_t buf[sizeof(m)];
		ev_ssize_t have = evbuffer_copyout(in, buf, sizeof(buf));
		int n = have > 0 ? ofi_msg_parse(buf, (size_t)have, &m) : 0;
		if (n < 0)
			ctl_end(ctl, EPROTO);
		if (n <= 0)
			return;
		evbuffer_drain(in, (size_t)n);
		ctl->inside = true;
		ctl->ops->msg(ctl->arg, &m);
		if (ctl_leave(ctl))
			return;
	}
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
	struct ofi_ctl *ctl = arg;
	int err = EVUTIL_SOCKET_ERROR();

	(void)bev;
	if (what & BEV_EVENT_CONNECTED) {
		ctl->inside = true;
		if (ctl->ops->up)
			ctl->ops->up(ctl->arg);
		ctl_leave(ctl);
		return;
	}
	if (what & BEV_EVENT_EOF)
		err = 0;
	else if (err == 0)
		err = EIO;
	ctl_end(ctl, err);
}

static int32_t ctl_new(struct loop *loop, int fd, const struct ofi_ctl_ops *ops, void *arg,
		       struct ofi_ctl **ret)
{
	struct ofi_ctl *ctl = calloc(1, sizeof(*ctl));
	struct bufferevent *bev = bufferevent_socket_new(loop_base(loop), fd, 0);

	if (!ctl || !bev) {
		free(ctl);
		if (bev)
			bufferevent_free(bev);
		fd_close(&fd);
		return smem_err(SMEM_MALLOC_FAILED, "control connection");
	}
	*ctl = (struct ofi_ctl){.loop = loop, .bev = bev, .fd = fd, .ops = ops, .arg = arg};
	bufferevent_setcb(bev, on_read, NULL, on_event, ctl);
	bufferevent_setwatermark(bev, EV_READ, 0, 16 * sizeof(struct ofi_msg));
	bufferevent_enable(bev, EV_READ | EV_WRITE);
	*ret = ctl;
	return SMEM_OK;
}

int32_t ofi_ctl_accept(struct loop *loop, int fd, uint32_t silence_ms,
		       const struct ofi_ctl_ops *ops, void *arg, struct ofi_ctl **ret)
{
	tune(fd, silence_ms);
	return ctl_new(loop, fd, ops, arg, ret);
}

int32_t ofi_ctl_connect(struct loop *loop, const struct sockaddr *sa, socklen_t len,
			uint32_t silence_ms, const struct ofi_ctl_ops *ops, void *arg,
			struct ofi_ctl **ret)
{
	struct ofi_ctl *ctl = NULL;

	int fd = fd_own(socket(sa->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
	if (fd < 0)
		return smem_errno(SMEM_NEW_OBJECT_FAILED, errno, "control socket");
	tune(fd, silence_ms);
	int32_t r = ctl_new(loop, fd, ops, arg, &ctl);
	if (r != SMEM_OK)
		return r;
	/* A refusal on the spot comes through the event callback too, deferred or from in here. */
	*ret = ctl;
	ctl->inside = true;
	int e = bufferevent_socket_connect(ctl->bev, sa, (int)len);
	int err = errno;
	ctl->inside = false;
	if (e != 0)
		ctl_end(ctl, err ? err : EIO);
	return SMEM_OK;
}

void ofi_ctl_silence(struct ofi_ctl *ctl, uint32_t silence_ms)
{
	tune(ctl->fd, silence_ms);
}

void ofi_ctl_local(struct ofi_ctl *ctl, struct sockaddr_storage *ret)
{
	socklen_t len = sizeof(*ret);

	memset(ret, 0, sizeof(*ret));
	getsockname(ctl->fd, (struct sockaddr *)ret, &len);
}

uint32_t ofi_ctl_heard_ms(const struct ofi_ctl *ctl, bool *ret_unacked)
{
	struct tcp_info info = {0};
	socklen_t len = sizeof(info);

	if (getsockopt(ctl->fd, IPPROTO_TCP, TCP_INFO, &info, &len) != 0)
		memset(&info, 0, sizeof(info));
	if (ret_unacked)
		*ret_unacked = info.tcpi_unacked > 0;
	return info.tcpi_last_ack_recv < info.tcpi_last_data_recv ? info.tcpi_last_ack_recv
								  : info.tcpi_last_data_recv;
}

void ofi_ctl_send(struct ofi_ctl *ctl, enum ofi_type type, const void *body)
{
	struct ofi_head head = {.len = (uint32_t)ofi_msg_size(type), .type = (uint16_t)type};

	if (ctl->ended)
		return;
	bufferevent_write(ctl->bev, &head, sizeof(head));
	bufferevent_write(ctl->bev, body, head.len - sizeof(head));
}

struct post {
	struct ofi_ctl *ctl;
	enum ofi_type type;
	uint8_t body[];
};

static void post_run(void *arg)
{
	struct post *p = arg;

	ofi_ctl_send(p->ctl, p->type, p->body);
	free(p);
}

int32_t ofi_ctl_post(struct ofi_ctl *ctl, enum ofi_type type, const void *body)
{
	size_t len = ofi_msg_size(type) - sizeof(struct ofi_head);
	struct post *p = malloc(sizeof(*p) + len);

	if (!p)
		return smem_err(SMEM_MALLOC_FAILED, "control message");
	p->ctl = ctl;
	p->type = type;
	memcpy(p->body, body, len);
	int32_t r = loop_post(ctl->loop, post_run, p);
	if (r != SMEM_OK)
		free(p);
	return r;
}
