# SPDX-License-Identifier: Apache-2.0
from collections.abc import Sequence
from enum import IntEnum
from types import TracebackType
from typing import TypeAlias

from typing_extensions import Buffer, Self, disjoint_base

from ._version import __version__ as __version__

__all__ = [
    "Addresses",
    "TransferEngine",
    "TransferOpcode",
    "__version__",
    "create_config_store",
    "get_last_err_msg",
    "set_log_level",
]

Addresses: TypeAlias = Sequence[int] | Buffer

class TransferOpcode(IntEnum):
    Read = 0
    Write = 1

def create_config_store(store_url: str) -> int: ...
def set_log_level(level: int) -> int: ...
def get_last_err_msg() -> str: ...

@disjoint_base
class TransferEngine:
    TransferOpcode: type[TransferOpcode]
    def __init__(self) -> None: ...
    def initialize(self, store_url: str, session_id: str, role: str, device_id: int) -> int: ...
    def get_rpc_port(self) -> int: ...
    def register_memory(self, buffer_addr: int, capacity: int) -> int: ...
    def unregister_memory(self, buffer_addr: int) -> int: ...
    def batch_register_memory(self, buffer_addrs: Addresses, capacities: Addresses) -> int: ...
    def transfer_sync_write(
        self, dest_session: str, buffer: int, peer_buffer: int, length: int, flags: int = 0
    ) -> int: ...
    def transfer_sync_read(
        self, dest_session: str, buffer: int, peer_buffer: int, length: int, flags: int = 0
    ) -> int: ...
    def batch_transfer_sync_write(
        self, dest_session: str, buffers: Addresses, peer_buffers: Addresses, lengths: Addresses, flags: int = 0
    ) -> int: ...
    def batch_transfer_sync_read(
        self, dest_session: str, buffers: Addresses, peer_buffers: Addresses, lengths: Addresses, flags: int = 0
    ) -> int: ...
    def destroy(self) -> None: ...
    def unInitialize(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...
