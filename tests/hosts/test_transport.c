/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The list that every transport passes, between hosts: for each provider of libfabric that this
 * machine may have, over IPv4 and IPv6.
 */
#include <stdlib.h>

#include "ends.h"
#include "transport_list.h"

static size_t enter(struct rank *r, const char *provider, bool v6, void *route)
{
	unsigned host = r->rank > 0;

	setenv("SMEM_FABRIC_PROVIDER", provider, 1);
	v6 ? host_enter_v6(r, host) : host_enter(r, host);
	if (!provider_is_there(host, v6, provider))
		rank_skip(r, "libfabric has no provider %s here", provider);
	return host_route(host, v6, route);
}

#define FAR(name, provider, v6)                                                                    \
	static size_t enter_##name(struct rank *r, void *route)                                    \
	{                                                                                          \
		return enter(r, provider, v6, route);                                              \
	}                                                                                          \
	static const struct row row_##name = {&transport_ofi, false, false,                        \
					      false,	      false, enter_##name};                \
	LIST_ROW(name)

FAR(net, "net", false)
FAR(net6, "net", true)
FAR(tcp, "tcp", false)
FAR(tcp6, "tcp", true)
FAR(rxm, "tcp;ofi_rxm", false)
FAR(rxm6, "tcp;ofi_rxm", true)

static const struct ranks_case cases[] = {
    LIST_CASES(net),  LIST_CASES(net6), LIST_CASES(tcp),
    LIST_CASES(tcp6), LIST_CASES(rxm),	LIST_CASES(rxm6),
};

int main(int argc, char **argv)
{
	return hosts_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
