/* SPDX-License-Identifier: Apache-2.0 */
#include "device/copy.h"

#include <string.h>

void copy_pieces(const struct smem_xfer *x, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		for (size_t row = 0; row < x[i].height; row++)
			memcpy((char *)x[i].dst + row * x[i].dpitch,
			       (const char *)x[i].src + row * x[i].spitch, x[i].width);
	}
}
