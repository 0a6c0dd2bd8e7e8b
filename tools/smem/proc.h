/* SPDX-License-Identifier: Apache-2.0 */
/*
 * This program, executed again a number of times: ranks of a demo or of a measurement. Parent and
 * child speak over a SOCK_SEQPACKET socket: one packet, one message. A child dies with its parent.
 *
 *   struct procs g;
 *   procs_start(&g, "perf-bm", 2, (const char *[]){url, NULL});
 *   procs_send(&g, 0, MSG_GO, NULL, 0);
 *   procs_recv(&g, &i, &m, 10000);        i says who; m.type MSG_DIED when it is gone
 *   procs_stop(&g);                       waits for those that end by themselves, kills the others
 */
#ifndef SMEM_TOOL_PROC_H
#define SMEM_TOOL_PROC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define MSG_BYTES 4096u

/* Types below 16 are the same for all; the others are up to the pair that speaks. */
enum {
	MSG_DIED = 0,	/* made by procs_recv(): the child is gone; status is its wait status */
	MSG_FAILED = 1, /* text: why; the child ends after it */
	MSG_GO = 2,
	MSG_DONE = 3,
	MSG_QUIT = 4,
	MSG_USER = 16
};

struct msg {
	uint32_t type;
	uint32_t len;		  /* of data */
	int status;		  /* MSG_DIED only */
	char data[MSG_BYTES + 1]; /* a NUL follows, so that text can be read as it is */
};

struct proc {
	pid_t pid;
	int sock; /* -1: gone */
};

struct procs {
	size_t n;
	struct proc *proc;
};

/* args: strings that every child gets, up to a NULL. 0, or -1 with errno and nothing running. */
int procs_start(struct procs *g, const char *entry, size_t n, const char *const args[]);
int procs_send(struct procs *g, size_t i, uint32_t type, const void *data, size_t len);
int procs_send_all(struct procs *g, uint32_t type, const void *data, size_t len);
/* The next message of any child. 1: one came; 0: timeout_ms (-1: none) passed; -1: no child left.
 */
int procs_recv(struct procs *g, size_t *ret_i, struct msg *ret, int timeout_ms);
/* Messages of `type` from all n children, in any order, each handed to `fn` (may be NULL). Any
 * other message, a death or the time limit ends it: -1, told on standard error. */
int procs_gather(struct procs *g, uint32_t type, int timeout_ms,
		 void (*fn)(void *ctx, size_t i, const struct msg *m), void *ctx);
/* Tells on standard error what an unexpected message says. */
void procs_complain(const struct procs *g, size_t i, const struct msg *m);
/* MSG_QUIT to all; after patience_ms those that are still there are killed. All are reaped. */
void procs_stop(struct procs *g, int patience_ms);

/* The child's side. */
struct child {
	size_t rank;
	size_t n;
	int sock;
	int argc;
	char **argv; /* what procs_start() was given as args */
};

int child_send(struct child *c, uint32_t type, const void *data, size_t len);
/* Blocks until the parent says something; -1: it is gone. */
int child_recv(struct child *c, struct msg *ret);
/* Receives, and is 0 only if it is of that type. */
int child_expect(struct child *c, uint32_t type, struct msg *ret);
/* Sends MSG_FAILED with the text and the library's last error; returns 1, the exit status. */
int child_fail(struct child *c, const char *what);
/* main() of a child. */
int child_main(int argc, char **argv);
bool is_child(int argc, char **argv);

#endif
