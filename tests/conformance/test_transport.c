/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The list for the transports of one host; tests/hosts/ has it for those between hosts.
 */
#include "none.h"
#include "transport_list.h"

static const struct row row_direct = {&transport_direct, true, true, false, false, NULL};
static const struct row row_cma = {&transport_cma, false, true, true, false, NULL};
static const struct row row_ofi = {&transport_ofi, false, false, false, false, NULL};
/* As with a provider that wants local memory registered. */
static const struct row row_ofi_local = {&transport_ofi, false, false, false, true, NULL};
static const struct row row_none = {&transport_none, false, false, false, false, NULL};

LIST_ROW(direct)
LIST_ROW(cma)
LIST_ROW(ofi)
LIST_ROW(ofi_local)
LIST_FOR(ofi_local, kept)

/* The fake that reaches nobody keeps to the contract as well. */
static void none_refuses(struct rank *r)
{
	list_nobody(r, &row_none);
}

static const struct ranks_case cases[] = {
    LIST_CASES(direct),
    LIST_CASES(cma),
    LIST_CASES(ofi),
    LIST_CASES(ofi_local),
    {.name = "ofi_local_kept", .fn = ofi_local_kept, .sizes = {2}},
    {.name = "none_refuses", .fn = none_refuses, .sizes = {1}},
};

int main(int argc, char **argv)
{
	return ranks_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
