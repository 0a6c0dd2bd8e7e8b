/* SPDX-License-Identifier: Apache-2.0 */
/* The order is the order of preference: no copy through the kernel, one, a network. */
#include "transport/transport.h"

const struct transport_ops *const transport_table[] = {
    &transport_direct,
    &transport_cma,
    &transport_ofi,
    NULL,
};
