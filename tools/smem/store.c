/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A process that does nothing but host a config store. Signals are blocked before the library
 * starts its threads and taken with sigwait, so that ending is as orderly as any uninit: clients
 * get their pending replies, then the process goes.
 */
#include <argp.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "smem.h"
#include "tool.h"

#define URL_CAP	   300
#define PORT_TRIES 16

struct store {
	const char *listen;
	const char *port_file;
	int log_level;
	char url[URL_CAP];
};

enum { OPT_PORT_FILE = 256, OPT_LOG_LEVEL };

static const struct argp_option options[] = {
    {"listen", 'l', "URL", 0, "where to listen, tcp://HOST:PORT; port 0 takes a free one", 0},
    {"port-file", OPT_PORT_FILE, "FILE", 0, "write the port to FILE once it listens", 0},
    {"log-level", OPT_LOG_LEVEL, "N", 0, "0 debug, 1 info, 2 warn (default), 3 error", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct store *s = state->input;

	switch (key) {
	case 'l':
		s->listen = arg;
		if (strlen(arg) + 6 >= URL_CAP)
			argp_error(state, "--listen: the URL is too long");
		break;
	case OPT_PORT_FILE:
		s->port_file = arg;
		break;
	case OPT_LOG_LEVEL:
		if (arg[0] < '0' || arg[0] > '3' || arg[1])
			argp_error(state, "--log-level wants 0 to 3, not '%s'", arg);
		s->log_level = arg[0] - '0';
		break;
	case ARGP_KEY_ARG:
		argp_error(state, "'%s' is one word too many", arg);
		break;
	case ARGP_KEY_END:
		if (!s->listen)
			argp_error(state, "--listen URL is needed");
		break;
	default:
		return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

static const struct argp argp = {
    .options = options,
    .parser = parse,
    .doc =
	"Host a config store until a signal ends it.\v"
	"When it listens it prints `listening on URL`. With `tcp://HOST:0` it takes a free port "
	"and names it there and in the port file, which appears whole or not at all. SIGINT and "
	"SIGTERM end it: clients get their pending replies and have up to 5 s to go; exit status "
	"0. TLS is switched on by the environment, see docs/environment.md.",
};

/* Listens; with port 0 on one that is free. */
static int32_t start(struct store *s)
{
	size_t len = strlen(s->listen);
	bool any = len > 2 && strcmp(s->listen + len - 2, ":0") == 0;
	int32_t r = SMEM_IO;
	char host[URL_CAP] = "";

	if (any) {
		const char *from = strstr(s->listen, "//");
		const char *h = from ? from + 2 : s->listen;
		snprintf(host, sizeof(host), "%.*s", (int)(strlen(h) - 2), h);
		if (host[0] == '[') {
			memmove(host, host + 1, strlen(host));
			host[strcspn(host, "]")] = '\0';
		}
		host[strcspn(host, "/")] = '\0';
	}
	for (int i = 0; i < (any ? PORT_TRIES : 1); i++) {
		if (any)
			snprintf(s->url, sizeof(s->url), "%.*s:%u", (int)len - 2, s->listen,
				 free_port(host));
		else
			snprintf(s->url, sizeof(s->url), "%s", s->listen);
		r = smem_create_config_store(s->url);
		if (r != SMEM_RESOURCE_IN_USE)
			break;
	}
	return r;
}

/* A reader sees no file or all of it: written beside, then renamed. */
static int write_port(const struct store *s)
{
	char tmp[4096];
	const char *port = strrchr(s->url, ':') + 1;
	int fd, ok;

	if (snprintf(tmp, sizeof(tmp), "%s.XXXXXX", s->port_file) >= (int)sizeof(tmp)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	fd = mkostemp(tmp, O_CLOEXEC);
	if (fd < 0)
		return -1;
	ok = fchmod(fd, 0644) == 0 && dprintf(fd, "%s\n", port) > 0;
	ok = close(fd) == 0 && ok && rename(tmp, s->port_file) == 0;
	if (!ok)
		unlink(tmp);
	return ok ? 0 : -1;
}

int cmd_store(int argc, char **argv)
{
	struct store s = {.log_level = 2};
	sigset_t ends;
	int signal;

	argv[0] = (char[]){"smem store"};
	if (argp_parse(&argp, argc, argv, 0, NULL, &s) != 0)
		return EXIT_USAGE;
	sigemptyset(&ends);
	sigaddset(&ends, SIGINT);
	sigaddset(&ends, SIGTERM);
	sigaddset(&ends, SIGHUP);
	sigprocmask(SIG_BLOCK, &ends, NULL);
	smem_set_log_level(s.log_level);
	if (start(&s) != SMEM_OK) {
		int status =
		    smem_get_last_err_code() == SMEM_INVALID_PARAM ? EXIT_USAGE : EXIT_FAILURE;
		complain_smem(s.listen);
		return status;
	}
	if (s.port_file && write_port(&s) != 0) {
		complain("%s: %m", s.port_file);
		smem_uninit();
		return EXIT_FAILURE;
	}
	printf("listening on %s\n", s.url);
	fflush(stdout);
	while (sigwait(&ends, &signal) != 0)
		;
	smem_uninit();
	if (s.port_file)
		unlink(s.port_file);
	return EXIT_SUCCESS;
}
