/* SPDX-License-Identifier: Apache-2.0 */
#include "trans_util.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef F_ADD_SEALS
#define F_ADD_SEALS   1033
#define F_SEAL_SHRINK 2
#endif
#include <fcntl.h>

const char *trans_name(uint32_t rank)
{
	static __thread char name[4][64];
	static __thread unsigned int next;
	char *n = name[next++ % 4];

	snprintf(n, sizeof(name[0]), "10.1.%u.%u:%u", rank / 256, rank % 256, 7000 + rank);
	return n;
}

smem_trans_t trans_try(struct rank *r, const char *name, smem_trans_role_t role)
{
	smem_trans_config_t c;

	RANK_OK(r, smem_trans_config_init(&c));
	c.role = role;
	c.initTimeout = 30;
	return smem_trans_create(r->url, name, &c);
}

smem_trans_t trans_open(struct rank *r, const char *name, smem_trans_role_t role)
{
	smem_trans_t h = trans_try(r, name, role);

	RANK_ASSERT(r, h != NULL);
	return h;
}

smem_trans_t trans_up(struct rank *r)
{
	if (r->rank == 0)
		RANK_OK(r, smem_create_config_store(r->url));
	smem_trans_t h = trans_open(r, trans_name(r->rank), SMEM_TRANS_BOTH);
	rank_barrier(r);
	return h;
}

const char *mem_name(enum mem_kind kind)
{
	static const char *const names[] = {"heap",	    "private",	  "private, huge pages",
					    "sealed memfd", "open memfd", "file"};

	return names[kind];
}

static int mem_fd(struct rank *r, enum mem_kind kind, size_t len)
{
	char path[] = "/tmp/smem-test-XXXXXX";
	int fd = kind == MEM_FILE ? mkstemp(path)
				  : memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	RANK_ASSERT(r, fd >= 0);
	if (kind == MEM_FILE)
		unlink(path);
	RANK_OK(r, ftruncate(fd, (off_t)len));
	if (kind == MEM_SEALED)
		RANK_OK(r, fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK));
	return fd;
}

struct mem mem_new(struct rank *r, enum mem_kind kind, size_t len)
{
	struct mem m = {.kind = kind, .len = len, .fd = -1};

	if (kind == MEM_HEAP) {
		m.at = calloc(1, len);
		RANK_ASSERT(r, m.at != NULL);
		return m;
	}
	int flags = MAP_PRIVATE | MAP_ANONYMOUS;
	if (kind >= MEM_SEALED) {
		m.fd = mem_fd(r, kind, len);
		flags = MAP_SHARED;
	}
	m.at = mmap(NULL, len, PROT_READ | PROT_WRITE, flags, m.fd, 0);
	RANK_ASSERT(r, m.at != MAP_FAILED);
	if (kind == MEM_ANON_HUGE)
		madvise(m.at, len, MADV_HUGEPAGE);
	return m;
}

void mem_free(struct mem *m)
{
	if (m->kind == MEM_HEAP)
		free(m->at);
	else if (m->at)
		munmap(m->at, m->len);
	if (m->fd >= 0)
		close(m->fd);
	*m = (struct mem){.fd = -1};
}

void trans_fill(void *at, size_t len, uint64_t p, uint64_t first)
{
	for (size_t i = 0; i < len; i++)
		((uint8_t *)at)[i] = trans_byte(p, first + i);
}

bool trans_is(const void *at, size_t len, uint64_t p, uint64_t first)
{
	for (size_t i = 0; i < len; i++)
		if (((const uint8_t *)at)[i] != trans_byte(p, first + i))
			return false;
	return true;
}

void trans_message(struct rank *r, const char *function, int32_t code, const char *what)
{
	static const struct {
		int32_t code;
		const char *name;
	} names[] = {
	    {-2000, "SMEM_INVALID_PARAM"},
	    {-2004, "SMEM_TIMEOUT"},
	    {-2006, "SMEM_DUPLICATED_OBJECT"},
	    {-2007, "SMEM_OBJECT_NOT_EXISTS"},
	    {-2009, "SMEM_RESOURCE_IN_USE"},
	    {-2020, "SMEM_PEER_LOST"},
	    {-2021, "SMEM_UNREACHABLE"},
	    {-2022, "SMEM_STALE"},
	    {-2024, "SMEM_IO"},
	};
	const char *msg = smem_get_last_err_msg();
	char head[128] = "";

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (names[i].code == code)
			snprintf(head, sizeof(head), "%s: %s (%d): ", function, names[i].name,
				 code);
	if (!head[0] || strncmp(msg, head, strlen(head)) != 0 || !strstr(msg, what) ||
	    strlen(msg) > 1023 || strchr(msg, '\n'))
		rank_fail(r, __FILE__, __LINE__, "want \"%s...%s\"", head, what);
	RANK_CODE(r, smem_get_last_err_code(), code);
	smem_get_and_clear_last_err_msg();
}
