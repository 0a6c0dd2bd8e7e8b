/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store beside redis: operations per second and latency with 1, 50 and 500 clients, plain and
 * TLS, each client with one request under way. The store's server runs in a process of its own, as
 * redis does; the driver is one thread with epoll, as redis-benchmark is. Values of 16 bytes.
 *
 * usage: bench_store [SECONDS]     (default 3 a row; TLS rows need SMEM_CONF_STORE_TLS_INFO,
 *                                   see scripts/make-test-ca.sh; redis rows need redis-server)
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store/proto.h"
#include "store/server.h"
#include "store/tls.h"
#include "store/tls_files.h"
#include "util/clock.h"
#include "util/err.h"

#define VALUE	16
#define SAMPLES 4000000u

static uint16_t port_free(void)
{
	struct sockaddr_in sin = {.sin_family = AF_INET};
	socklen_t len = sizeof(sin);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&sin, len) != 0 ||
	    getsockname(fd, (struct sockaddr *)&sin, &len) != 0)
		exit(1);
	close(fd);
	return ntohs(sin.sin_port);
}

/* The store in a process of its own; dies with this one. */
static pid_t serve(uint16_t port, bool encrypted)
{
	struct store_url url;
	struct server *server;
	struct tls *tls = NULL;
	char text[64], word = 'u';
	int up[2];

	if (pipe(up) != 0)
		exit(1);
	pid_t pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		snprintf(text, sizeof(text), "tcp://127.0.0.1:%u", port);
		if (store_url_parse(text, false, &url) != 0 ||
		    (encrypted && tls_from_env(&tls) != 0) ||
		    server_start(&url, tls, deadline_in_ms(2000), &server) != 0) {
			fprintf(stderr, "bench: %s\n", err_detail());
			_exit(1);
		}
		if (write(up[1], &word, 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(up[1]);
	if (read(up[0], &word, 1) != 1)
		exit(1);
	close(up[0]);
	return pid;
}

struct lane {
	int fd;
	SSL *ssl;
	uint32_t number, received;
	uint64_t begin;
	uint8_t in[512];
	size_t have;
};

static SSL_CTX *ctx;
static uint32_t *samples;
static size_t sample_count;

static bool lane_write(struct lane *l, const void *data, size_t len)
{
	return l->ssl ? SSL_write(l->ssl, data, (int)len) == (int)len
		      : send(l->fd, data, len, MSG_NOSIGNAL) == (ssize_t)len;
}

static void lane_frame(struct lane *l, uint16_t op, uint64_t id, struct blob *body)
{
	uint8_t out[FRAME_HEAD + 256];

	frame_head_put(out, &(struct frame_head){.len = body->len,
						 .op = op,
						 .id = id,
						 .number = op == OP_HELLO ? 0 : l->number++,
						 .received = l->received});
	memcpy(out + FRAME_HEAD, body->data, body->len);
	if (!lane_write(l, out, FRAME_HEAD + body->len)) {
		perror("bench: write");
		exit(1);
	}
}

/* True when a whole frame is there; it is taken out. */
static bool lane_read(struct lane *l)
{
	struct frame_head head;

	ssize_t n = l->ssl ? SSL_read(l->ssl, l->in + l->have, (int)(sizeof(l->in) - l->have))
			   : recv(l->fd, l->in + l->have, sizeof(l->in) - l->have, 0);
	if (n <= 0) {
		fprintf(stderr, "bench: the store closed a connection\n");
		exit(1);
	}
	l->have += (size_t)n;
	if (l->have < FRAME_HEAD || !frame_head_get(l->in, sizeof(l->in), &head) ||
	    l->have < FRAME_HEAD + head.len)
		return false;
	l->have -= FRAME_HEAD + head.len;
	memmove(l->in, l->in + FRAME_HEAD + head.len, l->have);
	l->received += head.op == OP_REPLY;
	return true;
}

static void lane_open(struct lane *l, uint16_t port)
{
	struct sockaddr_in sin = {.sin_family = AF_INET, .sin_port = htons(port)};
	int on = 1;

	memset(l, 0, sizeof(*l));
	sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	l->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(l->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (l->fd < 0 || connect(l->fd, (struct sockaddr *)&sin, sizeof(sin)) != 0) {
		perror("bench: connect");
		exit(1);
	}
	if (ctx) {
		l->ssl = SSL_new(ctx);
		SSL_set_fd(l->ssl, l->fd);
		if (SSL_connect(l->ssl) != 1) {
			fprintf(stderr, "bench: TLS handshake failed\n");
			exit(1);
		}
	}
	struct blob *hello = hello_encode(
	    &(struct hello){.version_min = PROTO_VERSION, .version_max = PROTO_VERSION});
	lane_frame(l, OP_HELLO, 0, hello);
	blob_put(hello);
	while (!lane_read(l))
		;
}

static int by_value(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static void report(const char *who, unsigned clients, const char *op, double rate, double p50,
		   double p99)
{
	printf("%-10s %4u clients  %-4s %9.0f ops/s   p50 %7.1f us   p99 %7.1f us\n", who, clients,
	       op, rate, p50, p99);
	fflush(stdout);
}

static double drive(const char *who, struct lane *lanes, unsigned n, uint16_t op, double seconds)
{
	uint8_t value[VALUE] = "0123456789abcdef";
	struct blob *body =
	    request_encode(&(struct request){.op = op,
					     .key = {(const uint8_t *)"key:000000000001", 16},
					     .val = {value, op == OP_SET ? VALUE : 0}});
	struct epoll_event ev[512];
	int ep = epoll_create1(EPOLL_CLOEXEC);
	uint64_t begin = clock_ns(), end = begin + (uint64_t)(seconds * 1e9), now = begin, ops = 0;

	sample_count = 0;
	for (unsigned i = 0; i < n; i++) {
		struct epoll_event add = {.events = EPOLLIN, .data.ptr = &lanes[i]};
		epoll_ctl(ep, EPOLL_CTL_ADD, lanes[i].fd, &add);
		lanes[i].begin = clock_ns();
		lane_frame(&lanes[i], op, 1, body);
	}
	for (unsigned running = n; running > 0;) {
		int got = epoll_wait(ep, ev, 512, -1);
		for (int i = 0; i < got; i++) {
			struct lane *l = ev[i].data.ptr;
			if (!lane_read(l))
				continue;
			now = clock_ns();
			if (sample_count < SAMPLES)
				samples[sample_count++] = (uint32_t)(now - l->begin);
			ops++;
			if (now >= end) {
				running--;
				continue;
			}
			l->begin = now;
			lane_frame(l, op, 1, body);
		}
	}
	close(ep);
	blob_put(body);
	qsort(samples, sample_count, sizeof(*samples), by_value);
	double rate = (double)ops / ((double)(now - begin) / 1e9);
	report(who, n, op == OP_SET ? "set" : "get", rate, samples[sample_count / 2] / 1e3,
	       samples[sample_count * 99 / 100] / 1e3);
	return rate;
}

static void bench_store(const char *who, unsigned clients, double seconds, double rate[2])
{
	uint16_t port = port_free();
	pid_t pid = serve(port, ctx != NULL);
	struct lane *lanes = calloc(clients, sizeof(*lanes));

	for (unsigned i = 0; i < clients; i++)
		lane_open(&lanes[i], port);
	rate[0] = drive(who, lanes, clients, OP_SET, seconds);
	rate[1] = drive(who, lanes, clients, OP_GET, seconds);
	for (unsigned i = 0; i < clients; i++) {
		SSL_free(lanes[i].ssl);
		close(lanes[i].fd);
	}
	free(lanes);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

/* ---- redis ---- */

static bool port_answers(uint16_t port)
{
	struct sockaddr_in sin = {.sin_family = AF_INET, .sin_port = htons(port)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	bool ok = connect(fd, (struct sockaddr *)&sin, sizeof(sin)) == 0;
	close(fd);
	return ok;
}

static pid_t redis_start(uint16_t port)
{
	char text[16];
	int status;

	snprintf(text, sizeof(text), "%u", port);
	pid_t pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (!freopen("/dev/null", "w", stdout))
			_exit(127);
		execlp("redis-server", "redis-server", "--port", text, "--bind", "127.0.0.1",
		       "--save", "", "--appendonly", "no", (char *)NULL);
		_exit(127);
	}
	struct deadline d = deadline_in_s(10);
	while (!port_answers(port)) {
		if (deadline_passed(d) || waitpid(pid, &status, WNOHANG) == pid)
			return -1;
		poll(NULL, 0, 20);
	}
	return pid;
}

static bool bench_redis(unsigned clients, double seconds, double rate[2])
{
	uint16_t port = port_free();
	pid_t pid = redis_start(port);
	char line[512], command[256], name[16];
	double avg, min, p50, p95, p99;
	unsigned requests = (unsigned)(seconds * (clients == 1 ? 20000 : 80000));

	if (pid < 0)
		return false;
	snprintf(command, sizeof(command),
		 "redis-benchmark -h 127.0.0.1 -p %u -c %u -n %u -d %d -t set,get --csv "
		 "2>/dev/null",
		 port, clients, requests, VALUE);
	FILE *f = popen(command, "r");
	while (f && fgets(line, sizeof(line), f)) {
		double r;
		if (sscanf(line, "\"%15[A-Z]\",\"%lf\",\"%lf\",\"%lf\",\"%lf\",\"%lf\",\"%lf\"",
			   name, &r, &avg, &min, &p50, &p95, &p99) != 7)
			continue;
		bool set = strcmp(name, "SET") == 0;
		rate[set ? 0 : 1] = r;
		report("redis", clients, set ? "set" : "get", r, p50 * 1000, p99 * 1000);
	}
	if (f)
		pclose(f);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	return true;
}

static bool tls_prepare(void)
{
	struct tls_conf conf;
	bool enabled = false;
	STACK_OF(X509) *seen = sk_X509_new_null();

	if (tls_conf_from_env(&enabled, &conf) != 0 || !enabled)
		return false;
	ctx = SSL_CTX_new(TLS_method());
	if (tls_load_ca(&conf, ctx, seen) != 0 || tls_load_own(&conf, ctx, seen) != 0) {
		fprintf(stderr, "bench: %s\n", err_detail());
		exit(1);
	}
	tls_conf_free(&conf);
	sk_X509_pop_free(seen, X509_free);
	return true;
}

int main(int argc, char **argv)
{
	static const unsigned counts[] = {1, 50, 500};
	double seconds = argc > 1 ? atof(argv[1]) : 3, plain[2] = {0}, tls[2], redis[2] = {0};

	samples = malloc(SAMPLES * sizeof(*samples));
	if (!samples || seconds <= 0)
		return 2;
	for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
		bool have_redis = bench_redis(counts[i], seconds, redis);
		bench_store("store", counts[i], seconds, plain);
		if (have_redis)
			printf("%-10s %4u clients  set %.2f, get %.2f of redis\n", "ratio",
			       counts[i], plain[0] / redis[0], plain[1] / redis[1]);
		if (tls_prepare()) {
			bench_store("store-tls", counts[i], seconds, tls);
			SSL_CTX_free(ctx);
			ctx = NULL;
		}
	}
	free(samples);
	return 0;
}
