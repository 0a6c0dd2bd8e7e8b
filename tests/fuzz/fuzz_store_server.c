/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The server as a process: a stream of connections that send greetings and requests with bytes
 * changed, cut short, repeated, at random speed, against a store in a child, for FUZZ_SECONDS
 * (default 60). A healthy client must be served all the while, and the child must end in order,
 * with nothing leaked under the sanitizers. FUZZ_SEED repeats the stream.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "store/proto.h"
#include "store/server.h"
#include "store/store.h"
#include "util/err.h"
#include "util/limits.h"
#include "util/log.h"

static uint64_t rng;

static uint32_t rnd(uint32_t below)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (uint32_t)(rng >> 11) % below;
}

static void drop(int level, const char *msg)
{
	(void)level;
	(void)msg;
}

/* ---- the server's process ---- */

static struct server *listen_somewhere(uint16_t *port)
{
	struct server *server = NULL;
	struct store_url url;
	char text[64];

	for (int i = 0; i < 100 && !server; i++) {
		struct sockaddr_in sin = {.sin_family = AF_INET};
		socklen_t len = sizeof(sin);
		int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (fd < 0 || bind(fd, (struct sockaddr *)&sin, len) != 0 ||
		    getsockname(fd, (struct sockaddr *)&sin, &len) != 0)
			return NULL;
		close(fd);
		*port = ntohs(sin.sin_port);
		snprintf(text, sizeof(text), "tcp://127.0.0.1:%u", *port);
		if (store_url_parse(text, false, &url) != 0 ||
		    server_start(&url, NULL, deadline_in_ms(0), &server) != 0)
			server = NULL;
	}
	return server;
}

static int serve(int out, int in)
{
	uint16_t port;
	char word;

	log_set_sink(drop);
	struct server *server = listen_somewhere(&port);
	if (!server || write(out, &port, sizeof(port)) != sizeof(port))
		return 1;
	if (read(in, &word, 1) < 0)
		return 1;
	server_stop(server, 0);
	return 0;
}

/* ---- what is sent ---- */

static size_t put_frame(uint8_t *at, size_t cap, uint16_t op, uint32_t number, struct blob *body)
{
	size_t len = body ? FRAME_HEAD + body->len : 0;

	if (!body || len > cap) {
		blob_put(body);
		return 0;
	}
	frame_head_put(
	    at, &(struct frame_head){.len = body->len, .op = op, .id = rnd(64), .number = number});
	memcpy(at + FRAME_HEAD, body->data, body->len);
	blob_put(body);
	return len;
}

static struct blob *random_request(uint16_t *op)
{
	static const uint8_t text[64] = "abcdefgh";
	struct request req;

	do {
		*op = (uint16_t)rnd(OP_END);
		req = (struct request){.op = *op,
				       .flags = rnd(4),
				       .index = rnd(4),
				       .size = rnd(5),
				       .timeout_ms = rnd(3000),
				       .gid = 1 + rnd(3),
				       .seq = rnd(16),
				       .value = (uint64_t)rnd(1u << 20),
				       .align = 1ull << rnd(30),
				       .key = {text + rnd(4), 1},
				       .val = {text, rnd(64)},
				       .extra = {text, rnd(8)},
				       .sort = {text, rnd(8)}};
		req.numbers = req.size;
	} while (strcmp(proto_op_name(*op), "unknown") == 0 || *op < OP_ACK);
	return request_encode(&req);
}

static size_t compose(uint8_t *buf, size_t cap)
{
	size_t len = 0;
	uint16_t op;

	if (rnd(10))
		len += put_frame(
		    buf, cap, OP_HELLO, 0,
		    hello_encode(&(struct hello){.version_min = PROTO_VERSION,
						 .version_max = PROTO_VERSION_MIN + rnd(2),
						 .client_id = rnd(9),
						 .resume = rnd(10) == 0}));
	uint32_t frames = rnd(40);
	for (uint32_t i = 0; i < frames; i++) {
		struct blob *body = random_request(&op);
		len += put_frame(buf + len, cap - len, op, i, body);
	}
	if (len && rnd(3)) { /* one of three streams is sound */
		for (uint32_t k = 1 + rnd(4); k > 0; k--)
			buf[rnd((uint32_t)len)] = (uint8_t)rnd(256);
	}
	return len && rnd(4) == 0 ? rnd((uint32_t)len) + 1 : len;
}

static int dial(uint16_t port)
{
	struct sockaddr_in sin = {.sin_family = AF_INET, .sin_port = htons(port)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd < 0 || connect(fd, (struct sockaddr *)&sin, sizeof(sin)) != 0) {
		close(fd);
		return -1;
	}
	return fd;
}

static bool attack(uint16_t port)
{
	static uint8_t buf[65536];
	static uint8_t back[65536];
	struct linger abort_it = {.l_onoff = 1};
	size_t len = compose(buf, sizeof(buf));
	int fd = dial(port);

	if (fd < 0)
		return false;
	for (size_t off = 0; off < len;) {
		size_t piece = rnd(5) ? len - off : 1 + rnd((uint32_t)(len - off));
		ssize_t n = send(fd, buf + off, piece, MSG_NOSIGNAL);
		if (n <= 0)
			break; /* cut off already */
		off += (size_t)n;
	}
	struct pollfd p = {.fd = fd, .events = POLLIN};
	if (rnd(2) && poll(&p, 1, (int)rnd(5)) == 1 && recv(fd, back, sizeof(back), 0) < 0)
		len = 0;
	if (rnd(2)) /* half end in order, half by a reset */
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &abort_it, sizeof(abort_it));
	close(fd);
	return true;
}

static int fuzz(uint16_t port, double seconds)
{
	struct store *healthy = NULL;
	struct store_url url;
	unsigned long streams = 0;
	uint64_t longest = 0, sum = 0, beats = 0;
	struct deadline end = deadline_in_ms((uint64_t)(seconds * 1000));
	char text[64];
	int64_t v = 0, want = 0;

	snprintf(text, sizeof(text), "tcp://127.0.0.1:%u", port);
	if (store_url_parse(text, false, &url) != 0 ||
	    store_open(&url, STORE_CONNECT, deadline_in_s(30), &healthy) != 0)
		return 1;
	for (; !deadline_passed(end); streams++) {
		if (!attack(port))
			return 2;
		if (streams % 16)
			continue;
		uint64_t begin = clock_ns();
		if (store_add(healthy, "healthy", 1, deadline_in_s(30), &v) != 0 || v != ++want) {
			printf("# %s\n", err_detail());
			return 3;
		}
		begin = clock_ns() - begin;
		longest = begin > longest ? begin : longest;
		sum += begin;
		beats++;
	}
	store_close(healthy, 0);
	printf("# %lu streams; healthy client: mean %.0f us, longest %.1f ms\n", streams,
	       beats ? (double)sum / (double)beats / 1e3 : 0, (double)longest / 1e6);
	return 0;
}

int main(int argc, char **argv)
{
	const char *seconds = getenv("FUZZ_SECONDS"), *seed = getenv("FUZZ_SEED");
	int up[2], down[2], status = -1;
	uint16_t port = 0;
	char fd[2][16];

	if (argc == 3)
		return serve(atoi(argv[1]), atoi(argv[2]));
	rng = seed ? strtoull(seed, NULL, 0) : (uint64_t)time(NULL) * 0x9e3779b97f4a7c15ull;
	rng |= 1;
	printf("1..1\n# FUZZ_SEED=%llu\n", (unsigned long long)rng);
	fflush(stdout);
	if (pipe(up) != 0 || pipe(down) != 0)
		return 1;
	snprintf(fd[0], sizeof(fd[0]), "%d", up[1]);
	snprintf(fd[1], sizeof(fd[1]), "%d", down[0]);
	pid_t pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(down[1]);
		execl("/proc/self/exe", argv[0], fd[0], fd[1], (char *)NULL);
		_exit(127);
	}
	close(up[1]);
	int r = 1;
	if (pid > 0 && read(up[0], &port, sizeof(port)) == sizeof(port))
		r = fuzz(port, seconds ? atof(seconds) : 60);
	close(down[1]);
	if (pid > 0)
		waitpid(pid, &status, 0);
	bool ok = r == 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0;
	printf("%s 1 - the server lives through random clients (%d, status %d)\n",
	       ok ? "ok" : "not ok", r, status);
	return !ok;
}
