# SPDX-License-Identifier: Apache-2.0
"""Symmetric memory: a slot of each rank in one address space, with barrier, all-gather, contexts and group exit.

>>> from mf_smem import shm
>>> shm.initialize("tcp://127.0.0.1:8570", 2, 0, 0, shm.ShmConfig())
0
>>> memory = shm.create(0, 2, 0, 2 << 20)
>>> memory.all_gather(b"a")
b'ab'
"""

from enum import IntFlag

from ._smem import ShareMemory, ShmConfig
from ._smem import shm_create as create
from ._smem import shm_initialize as initialize
from ._smem import shm_query as query_support_data_operation
from ._smem import shm_uninitialize as uninitialize

__all__ = [
    "ShareMemory",
    "ShmConfig",
    "ShmDataOpType",
    "create",
    "initialize",
    "query_support_data_operation",
    "uninitialize",
]


class ShmDataOpType(IntFlag):
    """How code reaches symmetric memory: load/store, device copy engine, network."""

    MTE = 1
    SDMA = 2
    ROCE = 4
