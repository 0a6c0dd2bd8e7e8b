/* SPDX-License-Identifier: Apache-2.0 */
/* CMA never touches a process that is not the one it means: a child of it, what it became by exec,
 * who got its number later. And where it is forbidden it says so. The rest:
 * conformance/test_transport.c. */
#include <errno.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "device/fdpass_wire.h"
#include "transport/transport.h"
#include "util/err.h"

/* What the peer says of itself. */
struct card {
	struct agent_addr agent;
	uint8_t addr[TRANSPORT_ADDR_MAX];
	size_t len;
};

struct proc {
	pid_t pid;
	int to;	  /* close it: the peer goes on to what it does next */
	int from; /* its words */
	struct card card;
};

static char *shared; /* at the same address in every forked process, private to each */

static int setup(void **state)
{
	(void)state;
	shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return shared == MAP_FAILED;
}

static int teardown(void **state)
{
	(void)state;
	return munmap(shared, 4096);
}

static void say_card(int fd)
{
	struct card card;

	memset(&card, 0, sizeof(card));
	card.len = sizeof(card.addr);
	if (transport_cma.start(NULL, 0) != SMEM_OK ||
	    transport_cma.address(card.addr, &card.len) != SMEM_OK ||
	    agent_addr_make(&card.agent) != SMEM_OK)
		_exit(11);
	if (write(fd, &card, sizeof(card)) != sizeof(card))
		_exit(12);
}

static void wait_end(int fd)
{
	char c;

	while (read(fd, &c, 1) > 0)
		;
}

/* A peer that runs CMA, and `next` when told to go on. */
static struct proc start(void (*next)(int from_parent, int to_parent))
{
	int to[2], from[2];
	struct proc p = {.pid = -1};

	assert_int_equal(pipe(to), 0);
	assert_int_equal(pipe(from), 0);
	p.pid = fork();
	assert_true(p.pid >= 0);
	if (p.pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(to[1]);
		close(from[0]);
		say_card(from[1]);
		next(to[0], from[1]);
		_exit(0);
	}
	close(to[0]);
	close(from[1]);
	p.to = to[1];
	p.from = from[0];
	assert_int_equal(read(p.from, &p.card, sizeof(p.card)), sizeof(p.card));
	return p;
}

static int stop(struct proc *p)
{
	int status;

	close(p->to);
	close(p->from);
	assert_int_equal(waitpid(p->pid, &status, 0), p->pid);
	return status;
}

static int32_t connect_to(struct proc *p, struct endpoint **ret)
{
	struct transport_peer peer = {.agent = &p->card.agent,
				      .addr = p->card.addr,
				      .addr_len = p->card.len,
				      .name = "the peer"};

	return transport_cma.connect(&peer, deadline_in_ms(1000), ret);
}

static int32_t put_to(struct endpoint *ep, void *at)
{
	char bytes[64] = "written";
	struct smem_xfer x = {.dst = at, .src = bytes, .width = sizeof(bytes), .height = 1};

	return transport_cma.put(ep, &x, 1);
}

static void just_wait(int in, int out)
{
	(void)out;
	wait_end(in);
}

static void test_the_peer(void **state)
{
	struct endpoint *ep = NULL;
	char back[64];

	(void)state;
	struct proc p = start(just_wait);
	assert_int_equal(connect_to(&p, &ep), SMEM_OK);
	assert_int_equal(put_to(ep, shared), SMEM_OK);
	struct smem_xfer x = {.dst = back, .src = shared, .width = sizeof(back), .height = 1};
	assert_int_equal(transport_cma.get(ep, &x, 1), SMEM_OK);
	assert_string_equal(back, "written");
	assert_int_equal(shared[0], 0);
	assert_int_equal(stop(&p), 0);
	assert_int_equal(put_to(ep, shared), SMEM_PEER_LOST);
	transport_cma.close(ep);
}

static void fork_once(int in, int out)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		wait_end(in);
		_exit(shared[0] == 0 ? 0 : 1);
	}
	if (write(out, &pid, sizeof(pid)) != sizeof(pid))
		_exit(3);
	wait_end(in);
	waitpid(pid, &status, 0);
	_exit(status == 0 ? 0 : 4);
}

/* A child of the peer has the same memory, but not the guard. */
static void test_child_of_peer(void **state)
{
	struct endpoint *ep = NULL;
	pid_t child;
	uint32_t number;

	(void)state;
	struct proc p = start(fork_once);
	assert_int_equal(read(p.from, &child, sizeof(child)), sizeof(child));
	assert_int_equal(connect_to(&p, &ep), SMEM_OK);
	transport_cma.close(ep);
	number = (uint32_t)child;
	memcpy(p.card.addr + 4, &number, sizeof(number)); /* the process number in the address */
	assert_int_equal(connect_to(&p, &ep), SMEM_UNREACHABLE);
	assert_int_equal(stop(&p), 0);
}

static void exec_cat(int in, int out)
{
	(void)out;
	char c;
	if (read(in, &c, 1) != 1)
		_exit(3);
	dup2(in, 0);
	execlp("cat", "cat", (char *)NULL);
	_exit(4);
}

static void test_exec(void **state)
{
	struct endpoint *ep = NULL;
	int32_t r = SMEM_OK;

	(void)state;
	struct proc p = start(exec_cat);
	assert_int_equal(connect_to(&p, &ep), SMEM_OK);
	assert_int_equal(put_to(ep, shared), SMEM_OK);
	assert_int_equal(write(p.to, "x", 1), 1);
	struct deadline d = deadline_in_ms(20000);
	while (r == SMEM_OK && !deadline_passed(d))
		r = put_to(ep, shared);
	assert_int_equal(r, SMEM_PEER_LOST);
	assert_int_equal(put_to(ep, shared), SMEM_PEER_LOST);
	transport_cma.close(ep);
	assert_int_equal(stop(&p), 0);
}

#if defined(SYS_clone3) && !defined(__SANITIZE_THREAD__)
/* Another process gets the number of a dead peer and has memory at the same address. */
static void test_number_reused(void **state)
{
	struct endpoint *ep = NULL;
	int go[2], status;

	(void)state;
	struct proc p = start(just_wait);
	pid_t pid = p.pid;
	assert_int_equal(connect_to(&p, &ep), SMEM_OK);
	assert_int_equal(put_to(ep, shared), SMEM_OK);
	assert_int_equal(stop(&p), 0);
	assert_int_equal(pipe(go), 0);
	struct clone_args args = {
	    .exit_signal = SIGCHLD, .set_tid = (uint64_t)(uintptr_t)&pid, .set_tid_size = 1};
	long again = syscall(SYS_clone3, &args, sizeof(args));
	if (again == 0) {
		close(go[1]);
		wait_end(go[0]);
		_exit(shared[0] == 0 ? 0 : 1);
	}
	close(go[0]);
	if (again > 0) {
		assert_int_equal(again, pid);
		for (int i = 0; i < 100; i++)
			assert_int_equal(put_to(ep, shared), SMEM_PEER_LOST);
	}
	close(go[1]);
	transport_cma.close(ep);
	if (again < 0) {
		print_message("# skipped: a process number cannot be chosen here: %s\n",
			      strerror(errno));
		skip();
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}
#endif

/* From here on process_vm_readv gives EPERM in this process. */
static int forbid(void)
{
	struct sock_filter code[] = {
	    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
	    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_process_vm_readv, 0, 1),
	    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
	    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {.len = sizeof(code) / sizeof(code[0]), .filter = code};

	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
	       prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) != 0;
}

static void test_forbidden(void **state)
{
	struct endpoint *ep = NULL;
	int status;

	(void)state;
	struct proc p = start(just_wait);
	pid_t pid = fork();
	if (pid == 0) {
		if (forbid())
			_exit(77);
		if (connect_to(&p, &ep) != SMEM_UNREACHABLE || ep)
			_exit(1);
		_exit(strstr(err_detail(), "process_vm_readv") && strstr(err_detail(), "errno 1")
			  ? 0
			  : 2);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(stop(&p), 0);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
		print_message("# skipped: no seccomp filter can be set here\n");
		skip();
	}
	assert_int_equal(status, 0);
}

/* A process that may not be looked into, seen by one without privileges. */
static void undumpable(int in, int out)
{
	prctl(PR_SET_DUMPABLE, 0);
	if (write(out, "x", 1) == 1)
		wait_end(in);
}

static void test_not_dumpable(void **state)
{
	struct endpoint *ep = NULL;
	char c;
	int status;

	(void)state;
	if (geteuid() == 0) {
		/* The peer is root's; the one who looks is not: the same refusal. */
		struct proc p = start(just_wait);
		pid_t pid = fork();
		if (pid == 0)
			_exit(setuid(65534) == 0 && connect_to(&p, &ep) == SMEM_UNREACHABLE ? 0
											    : 1);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_int_equal(status, 0);
		assert_int_equal(stop(&p), 0);
		return;
	}
	struct proc p = start(undumpable);
	assert_int_equal(read(p.from, &c, 1), 1);
	assert_int_equal(connect_to(&p, &ep), SMEM_UNREACHABLE);
	assert_int_equal(stop(&p), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_the_peer, setup, teardown),
		cmocka_unit_test_setup_teardown(test_child_of_peer, setup, teardown),
		cmocka_unit_test_setup_teardown(test_exec, setup, teardown),
#if defined(SYS_clone3) && !defined(__SANITIZE_THREAD__)
		cmocka_unit_test_setup_teardown(test_number_reused, setup, teardown),
#endif
		cmocka_unit_test_setup_teardown(test_forbidden, setup, teardown),
		cmocka_unit_test_setup_teardown(test_not_dumpable, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
