/* SPDX-License-Identifier: Apache-2.0 */
#include "certs.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[64];
static pid_t owner;

static void remove_all(void)
{
	char path[400];
	struct dirent *e;
	DIR *d;

	if (getpid() != owner || !(d = opendir(dir)))
		return;
	while ((e = readdir(d))) {
		snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
		if (e->d_name[0] != '.')
			unlink(path);
	}
	closedir(d);
	rmdir(dir);
}

static bool run_script(void)
{
	const char *script = getenv("SMEM_TEST_CA_SCRIPT");
	int status;

	pid_t pid = fork();
	if (pid == 0) {
		if (!freopen("/dev/null", "w", stdout))
			_exit(126);
		execl("/bin/sh", "sh", script ? script : "scripts/make-test-ca.sh", dir,
		      (char *)NULL);
		_exit(127);
	}
	return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) &&
	       WEXITSTATUS(status) == 0;
}

bool certs_make(void)
{
	if (owner == getpid())
		return true;
	snprintf(dir, sizeof(dir), "/tmp/smem-certs-XXXXXX");
	if (!mkdtemp(dir)) {
		perror("mkdtemp");
		return false;
	}
	owner = getpid();
	atexit(remove_all);
	if (run_script())
		return true;
	printf("# scripts/make-test-ca.sh failed; it needs openssl(1)\n");
	return false;
}

const char *certs_dir(void)
{
	return dir;
}

void certs_use(const char *ca, const char *cert, const char *key, const char *more)
{
	char info[2000], rest[800] = "";
	const char *from = more;
	size_t used = 0;

	while (from && *from && used + 1 < sizeof(rest)) {
		if (from[0] == '%' && from[1] == 's') {
			used += (size_t)snprintf(rest + used, sizeof(rest) - used, "%s", dir);
			from += 2;
		} else {
			rest[used++] = *from++;
		}
	}
	snprintf(info, sizeof(info),
		 "tlsCaPath: %s; tlsCaFile: %s.pem; tlsCert: %s/%s.pem; tlsPk: %s/%s; %s", dir, ca,
		 dir, cert, dir, key, rest);
	setenv("SMEM_CONF_STORE_TLS_INFO", info, 1);
	setenv("SMEM_CONF_STORE_TLS_ENABLE", "1", 1);
}

void certs_unset(void)
{
	unsetenv("SMEM_CONF_STORE_TLS_INFO");
	unsetenv("SMEM_CONF_STORE_TLS_ENABLE");
}
