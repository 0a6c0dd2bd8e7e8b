# SPDX-License-Identifier: Apache-2.0
"""Big memory: a pool with one address space, which ranks join and leave at any time.

>>> from mf_smem import bm
>>> bm.initialize("tcp://127.0.0.1:8570", 2, 0, bm.BmConfig(rank_id=0))
0
>>> pool = bm.create(1, 2 << 20, 0)
>>> address = pool.join()
>>> pool.copy_data(array.ctypes.data, pool.peer_rank_ptr(1), array.nbytes, bm.BmCopyType.H2G)
>>> numpy.frombuffer(pool.view(), dtype=numpy.uint8)[:4]
array([0, 0, 0, 0], dtype=uint8)
"""

from enum import IntEnum, IntFlag

from ._smem import BigMemory, BmConfig, CopyData2DParams, bm_rank_id
from ._smem import bm_create as create
from ._smem import bm_initialize as initialize
from ._smem import bm_uninitialize as uninitialize

__all__ = [
    "BigMemory",
    "BmConfig",
    "BmCopyType",
    "BmDataOpType",
    "BmMemType",
    "CopyData2DParams",
    "bm_rank_id",
    "create",
    "initialize",
    "uninitialize",
]


class BmCopyType(IntEnum):
    """Direction of a copy: L local device memory, G global address, H host memory."""

    L2G = 0
    G2L = 1
    G2H = 2
    H2G = 3


class BmDataOpType(IntFlag):
    """Preferred path of copies: memory copy engine or network. Never changes results."""

    SDMA = 1
    ROCE = 2


class BmMemType(IntEnum):
    """Which memory an address or size is about: DEVICE is the HBM window, HOST the DRAM window."""

    LOCAL_DEVICE = 0
    LOCAL_HOST = 1
    DEVICE = 2
    HOST = 3
