/* SPDX-License-Identifier: Apache-2.0 */
#include "ends.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "transport/ofi_fabric.h"

struct card card;
struct page *page;
char *mem, *second;

bool provider_is_there(unsigned host, bool v6, const char *provider)
{
	struct sockaddr_storage at;
	const struct ofi_offer *o;

	host_route(host, v6, &at);
	bool is = ofi_offer_get((struct sockaddr *)&at, provider, 0, &o) == SMEM_OK;
	ofi_offers_forget();
	return is;
}

static void start_at(struct rank *r, unsigned host)
{
	const char *provider = getenv("SMEM_FABRIC_PROVIDER");
	bool v6 = getenv("SMEM_TEST_IPV6") != NULL;
	struct sockaddr_storage at;

	host_enter(r, host);
	if (provider && !provider_is_there(host, v6, provider))
		rank_skip(r, "libfabric has no provider %s here", provider);
	size_t len = host_route(host, v6, &at);
	WANT(r, ofi->start(&at, len), 0);
}

void target_up(struct rank *r)
{
	start_at(r, 0);
	int fd = memfd_create("signals", MFD_CLOEXEC);
	RANK_ASSERT(r, fd >= 0 && ftruncate(fd, sizeof(*page)) == 0);
	page = mmap(NULL, sizeof(*page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	/* With a page between them that is neither's. */
	mem = mmap(NULL, MEM + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	second = mmap(NULL, MEM + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	RANK_ASSERT(r, page != MAP_FAILED && mem != MAP_FAILED && second != MAP_FAILED);
	memset(card.secret, 0x5a, sizeof(card.secret));
	card.mem = (uint64_t)(uintptr_t)mem;
	card.second = (uint64_t)(uintptr_t)second;
	size_t len = sizeof(card.addr);
	WANT(r, ofi->address(card.addr, &len), 0);
	card.addr_len = len;
	WANT(r, ofi->expose(1, mem, MEM, 1, card.secret), 0);
	snprintf(card.shared, sizeof(card.shared), "/proc/%d/fd/%d", (int)getpid(), fd);
	rank_put(r, "card", &card, sizeof(card));
	if (r->life > 0)
		rank_meet(r, "new card", r->size);
	rank_meet(r, "mapped", r->size);
	close(fd);
}

void target_down(struct rank *r)
{
	WANT(r, ofi->withdraw(1, deadline_in_ms(5000)), 0);
	ofi->stop();
	munmap(mem, MEM + 4096);
	munmap(second, MEM + 4096);
	munmap(page, sizeof(*page));
}

struct transport_peer peer(void)
{
	return (struct transport_peer){
	    .addr = card.addr, .addr_len = card.addr_len, .secret = card.secret, .name = "rank 0"};
}

static void initiator_map(struct rank *r)
{
	RANK_ASSERT(r, rank_get(r, "card", &card, sizeof(card)) == sizeof(card));
	FILE *f = fopen(card.shared, "r+e");
	RANK_ASSERT(r, f != NULL);
	page = mmap(NULL, sizeof(*page), PROT_READ | PROT_WRITE, MAP_SHARED, fileno(f), 0);
	RANK_ASSERT(r, page != MAP_FAILED);
	fclose(f);
	rank_meet(r, "mapped", r->size);
}

void initiator_start(struct rank *r)
{
	start_at(r, 1);
	initiator_map(r);
}

void initiator_follow(struct rank *r)
{
	munmap(page, sizeof(*page));
	rank_meet(r, "new card", r->size);
	initiator_map(r);
}

struct endpoint *initiator_up(struct rank *r)
{
	struct endpoint *ep = NULL;

	initiator_start(r);
	struct transport_peer p = peer();
	WANT(r, ofi->connect(&p, deadline_in_ms(PATIENCE), &ep), 0);
	return ep;
}

void initiator_down(struct endpoint *ep)
{
	ofi->close(ep);
	ofi->stop();
	munmap(page, sizeof(*page));
}

struct smem_xfer to(uint64_t at, const void *src, size_t len)
{
	return (struct smem_xfer){
	    .dst = (void *)(uintptr_t)at, .src = src, .width = len, .height = 1};
}

struct smem_xfer from(uint64_t at, void *dst, size_t len)
{
	return (struct smem_xfer){
	    .dst = dst, .src = (void *)(uintptr_t)at, .width = len, .height = 1};
}

char *filled(struct rank *r, size_t len, int byte)
{
	char *p = malloc(len);

	RANK_ASSERT(r, p != NULL);
	memset(p, byte, len);
	return p;
}

bool all(const volatile char *p, size_t len, char byte)
{
	for (size_t i = 0; i < len; i++) {
		if (p[i] != byte)
			return false;
	}
	return true;
}

void await(struct rank *r, _Atomic uint64_t *word, uint64_t want)
{
	uint64_t until = rank_ms() + PATIENCE;

	while (atomic_load(word) != want) {
		RANK_ASSERT(r, rank_ms() < until);
		sched_yield();
	}
}

void await_more(struct rank *r, _Atomic uint64_t *word, uint64_t than)
{
	uint64_t until = rank_ms() + PATIENCE;

	while (atomic_load(word) <= than) {
		RANK_ASSERT(r, rank_ms() < until);
		sched_yield();
	}
}
