/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys of exposed memory, with a real provider over loopback: made by the first question and not
 * before, one for all who ask, and worth nothing once the region is withdrawn, whatever a peer that
 * kept its key may try.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <netinet/in.h>
#include <poll.h>

#include "smem.h"
#include "transport/ofi_regions.h"
#include "util/clock.h"

#define LEN	    4096u
#define PATIENCE_MS 20000

static const uint8_t secret[16] = "sixteen letters";
static const struct ofi_nonces nonces = {.target = "a", .initiator = "b"};
static unsigned registered;
static struct fi_ops_mr *real;

static int counted_reg(struct fid *fid, const void *buf, size_t len, uint64_t access,
		       uint64_t offset, uint64_t key, uint64_t flags, struct fid_mr **mr,
		       void *context)
{
	registered++;
	return real->reg(fid, buf, len, access, offset, key, flags, mr, context);
}

static int32_t resolve(const void *addr, struct ofi_port *port, struct ofi_ep *ep,
		       struct ofi_region *ret)
{
	uint64_t at = (uint64_t)(uintptr_t)addr;
	uint8_t code[OFI_CODE], got[16];

	ofi_code(secret, sizeof(secret), "open", &nonces, at, code);
	int32_t r = ofi_regions_resolve(at, code, &nonces, port, ep, ret, got);
	if (r == SMEM_OK)
		assert_memory_equal(got, secret, sizeof(secret));
	return r;
}

/* 0 and the bytes are in `to`, or the provider's error; 1: none of the two in time. */
static int read_with(struct ofi_domain *d, struct ofi_ep *ep, fi_addr_t peer,
		     const struct ofi_region *at, char *to)
{
	struct deadline deadline = deadline_in_ms(PATIENCE_MS);
	struct fi_context2 context;
	struct fi_cq_err_entry e = {0};
	struct fi_cq_entry done;
	ssize_t n;

	memset(to, 0, LEN);
	do {
		n = fi_read(ep->ep, to, LEN, NULL, peer, at->rma, at->key, &context);
		(void)fi_cq_read(d->cq, NULL, 0);
	} while (n == -FI_EAGAIN && !deadline_passed(deadline));
	if (n != 0)
		return (int)n;
	while (!deadline_passed(deadline)) {
		n = fi_cq_read(d->cq, &done, 1);
		if (n == 1)
			return 0;
		if (n == -FI_EAVAIL && fi_cq_readerr(d->cq, &e, 0) > 0)
			return -e.err;
	}
	return 1;
}

static void keys(void **state)
{
	struct sockaddr_in lo = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	char *mem = malloc(LEN), got[LEN];
	const struct ofi_offer *offer = NULL;
	struct ofi_region first, second, third;
	struct ofi_domain dom;
	struct ofi_port *port;
	struct ofi_ep ep, own;
	struct ofi_span span;
	fi_addr_t peer;

	(void)state;
	if (ofi_offer_get((struct sockaddr *)&lo, NULL, 0, &offer) != SMEM_OK) {
		print_message("no provider at loopback\n");
		free(mem);
		skip();
	}
	memset(mem, 'x', LEN);
	assert_int_equal(ofi_port_get(offer, &port), SMEM_OK);
	pthread_mutex_lock(&port->lock);
	assert_int_equal(ofi_ep_open(&port->dom, &ep), SMEM_OK);
	real = port->dom.domain->mr;
	struct fi_ops_mr counted = *real;
	counted.reg = counted_reg;
	port->dom.domain->mr = &counted;
	pthread_mutex_unlock(&port->lock);

	assert_int_equal(resolve(mem, port, &ep, &first), SMEM_STALE);
	assert_int_equal(ofi_regions_add(1, mem, LEN, true, secret), SMEM_OK);
	assert_int_equal(ofi_regions_add(1, mem, LEN, true, secret), SMEM_DUPLICATED_OBJECT);
	assert_int_equal(registered, 0); /* exposing costs nothing */
	assert_int_equal(resolve(mem, port, &ep, &first), SMEM_OK);
	assert_int_equal(registered, 1);
	assert_int_equal(resolve(mem + LEN - 1, port, &ep, &second), SMEM_OK);
	assert_int_equal(registered, 1);
	assert_true(first.key == second.key && first.begin == second.begin);
	assert_true(ofi_regions_holds(first.begin + 1, LEN - 1, &span) && span.id == 1);
	assert_false(ofi_regions_holds(first.begin + 1, LEN, &span));

	assert_int_equal(ofi_domain_open(offer, &dom), SMEM_OK);
	assert_int_equal(ofi_ep_open(&dom, &own), SMEM_OK);
	assert_int_equal(fi_av_insert(dom.av, ep.addr, 1, &peer, 0, NULL), 1);
	assert_int_equal(read_with(&dom, &own, peer, &first, got), 0);
	assert_memory_equal(got, mem, LEN);

	assert_true(ofi_regions_hide(1));
	assert_false(ofi_regions_holds(first.begin, LEN, &span));
	assert_int_equal(resolve(mem, port, &ep, &third), SMEM_STALE);
	ofi_regions_remove(1);
	assert_int_equal(ofi_regions_add(1, mem, LEN, true, secret), SMEM_OK);
	assert_int_equal(resolve(mem, port, &ep, &third), SMEM_OK); /* a new life, a new key */
	assert_int_equal(registered, 2);
	assert_true(third.key != first.key);
	assert_true(read_with(&dom, &own, peer, &first, got) < 0);
	for (unsigned i = 0; i < LEN; i++)
		assert_int_equal(got[i], 0);

	ofi_ep_close(&own);
	ofi_domain_close(&dom);
	ofi_regions_clear();
	pthread_mutex_lock(&port->lock);
	port->dom.domain->mr = real;
	pthread_mutex_unlock(&port->lock);
	ofi_port_put(port, &ep, NULL);
	ofi_ports_stop();
	ofi_offers_forget();
	free(mem);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(keys)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
