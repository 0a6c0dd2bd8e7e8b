/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing: on plain TCP whole batches go from the queue to the socket by one sendmsg(), without
 * a copy and without asking the event loop. What the socket does not take, one frame at a time, and
 * everything under TLS goes through the bufferevent, whose write callback calls link_flush() again:
 * so what is copied there stays small however slowly the other side reads.
 *
 * Acknowledging: every head carries how much has arrived. A side that only receives owes its
 * acknowledgement after a number of frames or bytes and then sends an empty frame for it.
 */
#include "store/link.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent_ssl.h>
#include <event2/event.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "util/fd.h"

#define BATCH	   128u		/* iovecs of one write: 64 frames */
#define TLS_BATCH  (256u << 10) /* bytes handed to a bufferevent at a time */
#define OWE_FRAMES 32u
#define OWE_BYTES  (64u << 10)

struct link_frame {
	struct link_frame *next;
	struct blob *body;
	uint32_t number;
	uint16_t op;
	uint64_t id;
	uint8_t head[FRAME_HEAD];
};

static size_t frame_len(const struct link_frame *f)
{
	return FRAME_HEAD + f->body->len;
}

void link_init(struct link *l, const struct link_ops *ops, void *arg, uint32_t frame_max,
	       size_t keep_max)
{
	*l = (struct link){.ops = ops, .arg = arg, .frame_max = frame_max, .keep_max = keep_max};
	l->tail = &l->head;
}

static void drop_first(struct link *l)
{
	struct link_frame *f = l->head;

	l->head = f->next;
	if (!l->head)
		l->tail = &l->head;
	l->queued -= frame_len(f);
	blob_put(f->body);
	free(f);
}

void link_deinit(struct link *l)
{
	link_detach(l);
	while (l->head)
		drop_first(l);
	l->unsent = NULL;
}

static void head_write(struct link *l, struct link_frame *f)
{
	frame_head_put(f->head, &(struct frame_head){.len = f->body->len,
						     .op = f->op,
						     .id = f->id,
						     .number = f->number,
						     .received = l->received});
	l->told = l->received;
	l->debt = 0;
}

/* The other side has `received` frames of ours. False: more than were sent. */
static bool acknowledged(struct link *l, uint32_t received)
{
	uint32_t first = l->head ? l->head->number : l->next;
	uint32_t sent = l->unsent ? l->unsent->number : l->next;

	if (received - first > sent - first)
		return false;
	while (l->head && l->head != l->unsent && l->head->number != received)
		drop_first(l);
	return true;
}

void link_bev_free(struct bufferevent *bev)
{
	if (!bev)
		return;
	int fd = bufferevent_getfd(bev);
	bool tls = bufferevent_openssl_get_ssl(bev) != NULL;
	bufferevent_setcb(bev, NULL, NULL, NULL, NULL);
	/* Out of the event base now: the rest may be freed only when the stack has unwound. */
	bufferevent_disable(bev, EV_READ | EV_WRITE);
	bufferevent_free(bev);
	if (tls)
		fd_disown(fd); /* closed together with its SSL */
	else
		fd_close(&fd);
}

void link_detach(struct link *l)
{
	struct bufferevent *bev = l->bev;

	l->bev = NULL;
	link_bev_free(bev);
}

void link_write_plain(struct bufferevent *bev, uint16_t op, struct blob *body)
{
	uint8_t head[FRAME_HEAD];

	frame_head_put(head, &(struct frame_head){.len = body->len, .op = op});
	bufferevent_write(bev, head, sizeof(head));
	bufferevent_write(bev, body->data, body->len);
	blob_put(body);
}

bool link_send(struct link *l, uint16_t op, uint64_t id, struct blob *body)
{
	struct link_frame *f = malloc(sizeof(*f));

	if (!body)
		body = blob_new(NULL, 0);
	if (!f || !body || l->queued + body->len > l->keep_max) {
		blob_put(body);
		free(f);
		return false;
	}
	*f = (struct link_frame){.body = body, .op = op, .id = id, .number = l->next++};
	*l->tail = f;
	l->tail = &f->next;
	bool clean = !l->unsent;
	if (clean) {
		l->unsent = f;
		l->offset = 0;
	}
	l->queued += frame_len(f);
	l->unsent_bytes += frame_len(f);
	if (!l->ops->dirty)
		link_flush(l);
	else if (clean)
		l->ops->dirty(l->arg);
	return true;
}

static unsigned batch_fill(struct link *l, struct iovec *iov)
{
	size_t skip = l->offset;
	unsigned n = 0;

	for (struct link_frame *f = l->unsent; f && n + 2 <= BATCH; f = f->next) {
		if (skip == 0)
			head_write(l, f);
		if (skip < FRAME_HEAD)
			iov[n++] = (struct iovec){f->head + skip, FRAME_HEAD - skip};
		size_t gone = skip < FRAME_HEAD ? 0 : skip - FRAME_HEAD;
		if (f->body->len > gone)
			iov[n++] = (struct iovec){f->body->data + gone, f->body->len - gone};
		skip = 0;
	}
	return n;
}

/* `n` more bytes are handed over. */
static void batch_sent(struct link *l, size_t n)
{
	l->unsent_bytes -= n;
	n += l->offset;
	while (l->unsent && n >= frame_len(l->unsent)) {
		n -= frame_len(l->unsent);
		l->unsent = l->unsent->next;
	}
	l->offset = n;
}

/* False: the socket takes no more now. */
static bool write_direct(struct link *l)
{
	struct iovec iov[BATCH];
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = batch_fill(l, iov)};
	ssize_t n;

	do {
		n = sendmsg(bufferevent_getfd(l->bev), &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return false;
	size_t want = 0;
	for (size_t i = 0; i < msg.msg_iovlen; i++)
		want += iov[i].iov_len;
	batch_sent(l, (size_t)n);
	return (size_t)n == want;
}

static void body_unref(const void *data, size_t len, void *arg)
{
	(void)data;
	(void)len;
	blob_put(arg);
}

/* The rest of the first frame that is not sent. */
static void write_buffered(struct link *l)
{
	struct link_frame *f = l->unsent;
	struct evbuffer *out = bufferevent_get_output(l->bev);

	if (l->offset == 0)
		head_write(l, f);
	if (l->offset < FRAME_HEAD)
		evbuffer_add(out, f->head + l->offset, FRAME_HEAD - l->offset);
	size_t gone = l->offset < FRAME_HEAD ? 0 : l->offset - FRAME_HEAD;
	size_t rest = f->body->len - gone;
	if (rest > 4096 && evbuffer_add_reference(out, f->body->data + gone, rest, body_unref,
						  blob_get(f->body)) != 0)
		blob_put(f->body);
	else if (rest > 0 && rest <= 4096)
		evbuffer_add(out, f->body->data + gone, rest);
	batch_sent(l, frame_len(f) - l->offset);
}

void link_flush(struct link *l)
{
	struct evbuffer *out = l->bev ? bufferevent_get_output(l->bev) : NULL;

	while (out && l->unsent) {
		size_t pending = evbuffer_get_length(out);
		if (l->direct && pending > 0)
			return;
		if (l->direct && write_direct(l))
			continue;
		if (pending >= TLS_BATCH || !l->unsent)
			return;
		write_buffered(l);
	}
}

/* The next frame's head if all of it is here; else false, with a reason if it cannot be one. */
static bool frame_here(struct link *l, struct evbuffer *in, struct frame_head *head,
		       const char **why)
{
	uint8_t bytes[FRAME_HEAD];
	size_t have = evbuffer_get_length(in);
	size_t need = FRAME_HEAD;

	if (have >= FRAME_HEAD) {
		evbuffer_copyout(in, bytes, FRAME_HEAD);
		if (!frame_head_get(bytes, l->frame_max, head)) {
			*why = "sent something that is not a frame, or is too long";
			return false;
		}
		if (l->ops->longest && head->len > l->ops->longest(head->op)) {
			*why = "sent a frame that is too long";
			return false;
		}
		need += head->len;
	}
	bufferevent_setwatermark(l->bev, EV_READ, have < need ? need : 0, 0);
	return have >= need;
}

static const char *take_frame(struct link *l, struct evbuffer *in, const struct frame_head *head)
{
	struct bufferevent *bev = l->bev;
	uint8_t *frame;

	if (head->number != l->received)
		return "sent a frame out of its order";
	if (!acknowledged(l, head->received))
		return "acknowledged what it was not sent";
	frame = evbuffer_pullup(in, (ev_ssize_t)(FRAME_HEAD + head->len));
	if (!frame)
		return "sent a frame there is no memory for";
	l->received++;
	l->debt += FRAME_HEAD + head->len;
	const char *why =
	    head->op == OP_ACK ? NULL : l->ops->frame(l->arg, head, frame + FRAME_HEAD);
	if (l->bev == bev)
		evbuffer_drain(in, FRAME_HEAD + head->len);
	return why;
}

static void on_read(struct bufferevent *bev, void *arg)
{
	struct link *l = arg;
	struct evbuffer *in = bufferevent_get_input(bev);
	struct frame_head head;
	const char *why = NULL;

	while (l->bev == bev && !why && frame_here(l, in, &head, &why))
		why = take_frame(l, in, &head);
	if (l->bev != bev)
		return;
	if (why)
		l->ops->down(l->arg, true, why);
	else if (!l->unsent && (l->received - l->told >= OWE_FRAMES || l->debt >= OWE_BYTES))
		link_send(l, OP_ACK, 0, NULL);
}

static void on_write(struct bufferevent *bev, void *arg)
{
	struct link *l = arg;

	(void)bev;
	link_flush(l);
	if (l->ops->sent)
		l->ops->sent(l->arg);
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
	struct link *l = arg;
	int err = errno;

	(void)bev;
	if (what & (BEV_EVENT_EOF | BEV_EVENT_ERROR))
		l->ops->down(l->arg, false,
			     what & BEV_EVENT_EOF || err == 0 ? "closed by the other side"
							      : evutil_socket_error_to_string(err));
}

bool link_attach(struct link *l, struct bufferevent *bev, uint32_t peer_received)
{
	struct link_frame *unsent = l->unsent;

	l->unsent = NULL; /* what the old connection took may have arrived */
	if (!acknowledged(l, peer_received)) {
		l->unsent = unsent;
		return false;
	}
	link_detach(l);
	l->bev = bev;
	l->direct = bufferevent_openssl_get_ssl(bev) == NULL;
	l->unsent = l->head;
	l->offset = 0;
	l->unsent_bytes = l->queued;
	bufferevent_setcb(bev, on_read, on_write, on_event, l);
	bufferevent_setwatermark(bev, EV_READ, 0, 0);
	bufferevent_enable(bev, EV_READ | EV_WRITE);
	link_flush(l);
	/* Frames may have come right behind the greeting. */
	if (evbuffer_get_length(bufferevent_get_input(bev)) > 0)
		bufferevent_trigger(bev, EV_READ,
				    BEV_TRIG_IGNORE_WATERMARKS | BEV_TRIG_DEFER_CALLBACKS);
	return true;
}
