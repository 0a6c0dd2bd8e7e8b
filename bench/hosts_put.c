/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes between hosts through the public interface.
 *
 *   hosts_put target URL FILE     host the store at URL, register memory, serve until killed
 *   hosts_put write URL FILE      measure
 */
#include <poll.h>
#include <stdint.h>

#include "shapes.h"
#include "smem.h"
#include "smem_trans.h"

#define TARGET "10.0.0.1:1"
#define WRITER "10.0.0.1:2"

static smem_trans_t session;
static char *far;

static void check(int failed)
{
	if (failed) {
		fprintf(stderr, "%s\n", smem_get_last_err_msg());
		exit(1);
	}
}

static void put(struct shape *s)
{
	void *dst[PIECES];

	for (int i = 0; i < s->n; i++)
		dst[i] = far + s->off[i];
	check(smem_trans_batch_write(session, (const void **)s->src, TARGET, dst, s->len,
				     (uint32_t)s->n));
}

static void target(const char *url, const char *file, volatile double *cpu)
{
	char *mem = mmap(NULL, MEM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	smem_trans_config_t config;
	char tmp[300];

	memset(mem, 0, MEM);
	smem_trans_config_init(&config);
	check(smem_create_config_store(url));
	check(!(session = smem_trans_create(url, TARGET, &config)));
	check(smem_trans_register_mem(session, mem, MEM, 0));
	snprintf(tmp, sizeof(tmp), "%s.tmp", file);
	FILE *f = fopen(tmp, "w");
	if (!f || fwrite(&mem, sizeof(mem), 1, f) != 1 || fclose(f) != 0 || rename(tmp, file) != 0)
		exit(1);
	for (;;) {
		*cpu = cpu_s();
		poll(NULL, 0, 2);
	}
}

int main(int argc, char **argv)
{
	smem_trans_config_t config;
	char stats[300];

	if (argc < 4) {
		fprintf(stderr, "usage: hosts_put target|write URL FILE\n");
		return 2;
	}
	int serve = strcmp(argv[1], "target") == 0;
	snprintf(stats, sizeof(stats), "%s.cpu", argv[3]);
	volatile double *cpu = shared_word(stats, serve);
	if (serve)
		target(argv[2], argv[3], cpu);
	FILE *f = fopen(argv[3], "r");
	if (!f || fread(&far, sizeof(far), 1, f) != 1)
		return 1;
	fclose(f);
	smem_trans_config_init(&config);
	check(!(session = smem_trans_create(argv[2], WRITER, &config)));
	measure_all("smem", cpu, put);
	smem_trans_destroy(session, 0);
	smem_uninit();
	return 0;
}
