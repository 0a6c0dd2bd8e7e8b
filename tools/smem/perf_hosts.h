/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parts of `smem perf --hosts`. Rank 0 is the target: it owns memory and does what it is asked.
 * Rank 1, the writer, asks, measures and tells.
 *
 *   perf_netns    makes two hosts of namespaces; in each of them this command runs again
 *   perf_hosts    rank 1
 *   perf_target   rank 0
 *   perf_route    which addresses they use
 *   perf_talk     question and answer between them
 *   perf_raw      bare libfabric
 *   perf_rivals   iperf3 and UCX
 *   perf_verdict  tables, JSON, aims
 */
#ifndef SMEM_TOOL_PERF_HOSTS_H
#define SMEM_TOOL_PERF_HOSTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "perf.h"

enum { HOSTS_TARGET, HOSTS_WRITER };

/* Sessions. */
#define HOSTS_TARGET_NAME "smem-perf-target:1"
#define HOSTS_WRITER_NAME "smem-perf-writer:1"

/* perf_target.c: 0, or -1 with p->failed set. */
int perf_hosts_target(struct perf *p);

/* ---- perf_netns.c ---- */

#define PERF_NETNS_WORDS 24

/* Both ranks on this machine; options: for both, up to a NULL. The exit status. */
int perf_netns(char *const options[], unsigned mtu);

/* ---- perf_talk.c: the two ranks share an object of SHM, whose allgather carries the words ---- */

#define TALK_DATA 512

enum talk_what {
	TALK_HELLO,	/* number[0] bytes of memory -> number[0] its address; data: struct hello */
	TALK_CPU,	/* -> cpu */
	TALK_RAW_OPEN,	/* -> data: struct raw_card */
	TALK_RAW_SPIN,	/* -> cpu */
	TALK_RAW_REST,	/* -> cpu */
	TALK_IPERF,	/* -> number[0] port */
	TALK_UCX,	/* number[0] tuned -> number[0] port */
	TALK_RANKS_URL, /* -> data: URL of a store for ranks */
	TALK_RANKS,	/* data: struct perf_shm_host -> they ran */
	TALK_QUIT,
};

struct hello {
	char address[64];
	bool iperf, ucx; /* are installed */
};

struct talk {
	uint32_t what;
	uint32_t failed; /* answer: data is text that says why */
	uint64_t number[2];
	double cpu; /* of the target's process so far, seconds */
	char data[TALK_DATA];
};

struct channel {
	void *shm; /* smem_shm_t */
	unsigned rank;
	bool near; /* the two share memory: they are on one host */
};

/* Rank 0 hosts the store unless one is there. 0, or -1, told. */
int channel_open(struct channel *c, const char *url, unsigned rank);
void channel_close(struct channel *c);
/* The writer's: asks and waits for the answer. -1 when there is none, or failed is set; ret->data
 * says why. q may be NULL: nothing but `what`. ret may be NULL. */
int channel_ask(struct channel *c, enum talk_what what, const struct talk *q, struct talk *ret);
/* The target's. */
int channel_hear(struct channel *c, struct talk *ret);
int channel_answer(struct channel *c, const struct talk *a);

/* ---- perf_route.c ---- */

/* The network between the ranks, as a rank sees it. */
struct route {
	char own[64];	    /* own address */
	char interface[32]; /* of it; "" not known */
	char peer[64];
	int mtu; /* to the peer; 0: not known */
};

/* The own side of a route to the host of a store's URL; $SMEM_FABRIC_INTERFACE counts. 0 or -1. */
int route_own(struct route *r, const char *url);
/* And the peer's, at an address. */
void route_peer(struct route *r, const char *peer);
/* Whether somebody accepts connections where the URL points. */
bool route_store_listens(const char *url);

/* ---- perf_rivals.c ---- */

#define RIVAL_UCX_TESTS 7u

/* A program that serves one test. */
struct server {
	int pid; /* 0: none */
	int out;
};

bool rival_installed(const char *program);
/* Starts it on a port that is free at r->own; returns when it listens. Ends the one before. */
int rival_iperf_serve(struct server *s, const struct route *r, uint16_t *ret_port);
void rival_end(struct server *s);

struct rival_figure {
	double gb_per_s;
	double latency_s;	       /* 0: not of this test */
	double cpu_writer, cpu_target; /* seconds a GB; 0: not known */
};

int rival_iperf(const struct route *r, uint16_t port, unsigned streams, struct rival_figure *ret);
struct rival_ucx {
	const char *name;
	const char *test;
	size_t bytes;
	unsigned iterations;
	bool latency;
	bool tuned; /* TCP segments of 256 KiB instead of UCX's default */
};
extern const struct rival_ucx rival_ucx[RIVAL_UCX_TESTS];
int rival_ucx_serve(struct server *s, const struct route *r, bool tuned, uint16_t *ret_port);
int rival_ucx_run(const struct route *r, uint16_t port, const struct rival_ucx *t,
		  struct rival_figure *ret);

/* ---- what was measured ---- */

#define HOSTS_ROUNDS 9u /* at most */
#define HOSTS_SHAPES 11u

/* The last: raw libfabric again, that cuts what is large and contiguous into requests, of which few
 * are in flight. That is no other shape to its caller, and often faster. */
enum { LANE_SMEM, LANE_RAW, LANE_CUT, LANES };
#define HOSTS_CUT    (512u << 10)
#define HOSTS_FLIGHT 3u
enum { SHAPE_4K, SHAPE_64K, SHAPE_1M, SHAPE_16M, SHAPE_64M, SHAPE_ONE, SHAPE_BATCH, SHAPE_READS };

/* A round of a lane; medians are taken over the rounds. */
struct hosts_round {
	double median_s;
	double cpu_writer, cpu_target; /* seconds a GB */
};

struct hosts_lane {
	struct hosts_round round[HOSTS_ROUNDS];
	double *samples; /* of all rounds, seconds */
	size_t n;
	double p99_s;
};

struct hosts_shape {
	struct perf_shape shape;
	bool read;
	uint64_t bytes;
	struct hosts_lane lane[LANES];
};

struct hosts_result {
	struct route route;
	unsigned rounds;
	bool have_raw;
	char raw_text[256]; /* provider, or why there is none */
	struct hosts_shape shape[HOSTS_SHAPES];
	/* 1 and 4 streams; rounds of them */
	unsigned iperf_rounds;
	struct rival_figure iperf[2][HOSTS_ROUNDS];
	char iperf_text[128]; /* why not; "": measured */
	unsigned ucx_rounds[RIVAL_UCX_TESTS];
	struct rival_figure ucx[RIVAL_UCX_TESTS][HOSTS_ROUNDS];
	char ucx_text[128];
	double connect_s;
	double idle_s, idle_writer_s, idle_target_s; /* wall time, CPU time in it */
	unsigned ranks;				     /* a host; 0: collectives were not measured */
	struct perf_stat collective[PERF_SHM_KINDS];
};

extern const char *const lane_name[LANES];
/* How many lanes a shape has. */
int hosts_lanes(const struct hosts_result *r, unsigned shape);

/* perf_verdict.c: all tables. */
void verdict_tell(struct perf *p, struct hosts_result *r);

#endif
