/* SPDX-License-Identifier: Apache-2.0 */
/* The `smem` command: finds the subcommand and hands over. See tool.h. */
#include <argp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "demo.h"
#include "info.h"
#include "perf.h"
#include "smem.h"
#include "tool.h"

static int cmd_help(int argc, char **argv);

const struct child_entry child_entries[] = {
    {"demo", demo_rank},
    {"info", probe_child},
    {"perf-bm", perf_bm_peer},
    {"perf-bm-join", perf_bm_join},
    {"perf-shm", perf_shm_rank},
    {"perf-trans", perf_trans_peer},
    {NULL, NULL},
};

static const struct command {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *help;
} commands[] = {
    {"demo", cmd_demo, "pool the memory of some processes and move real data through it"},
    {"store", cmd_store, "host a config store for other processes"},
    {"perf", cmd_perf, "measure the library beside the limits of this machine"},
    {"info", cmd_info, "what this machine offers, and the settings now in force"},
    {"help", cmd_help, "this text, or that of a command"},
};

#define COMMANDS (sizeof(commands) / sizeof(commands[0]))

static void usage(FILE *out)
{
	fputs("Usage: smem COMMAND [OPTION...]\n"
	      "The memory fabric of many processes: see, run, measure.\n\n"
	      "Commands:\n",
	      out);
	for (size_t i = 0; i < COMMANDS; i++)
		fprintf(out, "  %-7s %s\n", commands[i].name, commands[i].help);
	fputs("\nOptions:\n"
	      "  --version   the version of the library\n"
	      "  --help      this text; after a command: its options\n"
	      "\nExit status: 0 all well, 1 something failed or did not match, 2 bad usage.\n"
	      "Environment: the variables that `smem info` lists.\n",
	      out);
}

static const struct command *find(const char *name)
{
	for (size_t i = 0; i < COMMANDS; i++) {
		if (strcmp(commands[i].name, name) == 0)
			return &commands[i];
	}
	return NULL;
}

static int cmd_help(int argc, char **argv)
{
	const struct command *c = argc > 1 ? find(argv[1]) : NULL;

	if (argc > 1 && !c) {
		complain("no command '%s'; `smem help` lists them", argv[1]);
		return EXIT_USAGE;
	}
	if (!c || c->run == cmd_help) {
		usage(stdout);
		return 0;
	}
	return c->run(2, (char *[]){argv[1], (char[]){"--help"}, NULL});
}

/* The nearest command to what was typed: the one with the same beginning. */
static const char *guess(const char *word)
{
	for (size_t len = strlen(word); len > 0; len--) {
		for (size_t i = 0; i < COMMANDS; i++) {
			if (strncmp(commands[i].name, word, len) == 0)
				return commands[i].name;
		}
	}
	return NULL;
}

int main(int argc, char **argv)
{
	if (is_child(argc, argv))
		return child_main(argc, argv);
	signal(SIGPIPE, SIG_IGN);
	argp_err_exit_status = EXIT_USAGE;
	if (argc < 2) {
		usage(stderr);
		return EXIT_USAGE;
	}
	if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0) {
		printf("smem %s\n", SMEM_VERSION);
		return 0;
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
		usage(stdout);
		return 0;
	}
	const struct command *c = find(argv[1]);
	if (!c) {
		const char *near = guess(argv[1]);
		complain("no command '%s'%s%s%s; `smem help` lists them", argv[1],
			 near ? " (did you mean '" : "", near ? near : "", near ? "'?)" : "");
		return EXIT_USAGE;
	}
	return c->run(argc - 1, argv + 1);
}
