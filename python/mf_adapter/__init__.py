# SPDX-License-Identifier: Apache-2.0
"""Transfer engine: memory registered under a session name, written and read by peers. Needs mf_smem.

>>> from mf_adapter import TransferEngine
>>> engine = TransferEngine()
>>> engine.initialize("tcp://10.0.0.1:8570", f"10.0.0.2:{engine.get_rpc_port()}", "Prefill", -1)
0
>>> engine.batch_transfer_sync_write("10.0.0.3:15001", sources, destinations, lengths)
0
"""

from enum import IntEnum
from typing import Sequence, Union

import mf_smem  # noqa: F401  checks which C library is loaded
from mf_smem._smem import TransferEngine, create_config_store, get_last_err_msg, set_log_level

from ._version import __version__

__all__ = [
    "Addresses",
    "TransferEngine",
    "TransferOpcode",
    "__version__",
    "create_config_store",
    "get_last_err_msg",
    "set_log_level",
]

# What batch calls take: integers, or a contiguous one-dimensional buffer of 8-byte integers.
Addresses = Union[Sequence[int], "Buffer"]  # noqa: F821  collections.abc.Buffer, from 3.12 on


class TransferOpcode(IntEnum):
    """Direction of a transfer."""

    Read = 0
    Write = 1


TransferEngine.TransferOpcode = TransferOpcode
