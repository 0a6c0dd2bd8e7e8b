# SPDX-License-Identifier: Apache-2.0
"""The transfer engine for asyncio: the same methods, awaitable where they block.

A call runs to its end even when the awaiting task is cancelled, as mf_smem.aio describes.

>>> async with TransferEngine() as engine:
...     code = await engine.initialize(url, session, "Prefill", -1)
"""

from types import TracebackType
from typing import TYPE_CHECKING, Optional, Type, TypeVar

import mf_adapter
from mf_smem.aio import run

if TYPE_CHECKING:
    from . import Addresses

__all__ = ["TransferEngine", "run"]

Self = TypeVar("Self", bound="TransferEngine")


class TransferEngine:
    """A mf_adapter.TransferEngine whose blocking methods are awaitable; .engine is the object itself."""

    def __init__(self, engine: Optional[mf_adapter.TransferEngine] = None) -> None:
        self.engine = mf_adapter.TransferEngine() if engine is None else engine

    async def initialize(self, store_url: str, session_id: str, role: str, device_id: int) -> int:
        """TransferEngine.initialize."""
        return await run(self.engine.initialize, store_url, session_id, role, device_id)

    def get_rpc_port(self) -> int:
        """TransferEngine.get_rpc_port, which does not block."""
        return self.engine.get_rpc_port()

    async def register_memory(self, buffer_addr: int, capacity: int) -> int:
        """TransferEngine.register_memory."""
        return await run(self.engine.register_memory, buffer_addr, capacity)

    async def unregister_memory(self, buffer_addr: int) -> int:
        """TransferEngine.unregister_memory."""
        return await run(self.engine.unregister_memory, buffer_addr)

    async def batch_register_memory(self, buffer_addrs: "Addresses", capacities: "Addresses") -> int:
        """TransferEngine.batch_register_memory."""
        return await run(self.engine.batch_register_memory, buffer_addrs, capacities)

    async def transfer_sync_write(self, dest_session: str, buffer: int, peer_buffer: int, length: int,
                                  flags: int = 0) -> int:
        """TransferEngine.transfer_sync_write."""
        return await run(self.engine.transfer_sync_write, dest_session, buffer, peer_buffer, length, flags)

    async def transfer_sync_read(self, dest_session: str, buffer: int, peer_buffer: int, length: int,
                                 flags: int = 0) -> int:
        """TransferEngine.transfer_sync_read."""
        return await run(self.engine.transfer_sync_read, dest_session, buffer, peer_buffer, length, flags)

    async def batch_transfer_sync_write(self, dest_session: str, buffers: "Addresses", peer_buffers: "Addresses",
                                        lengths: "Addresses", flags: int = 0) -> int:
        """TransferEngine.batch_transfer_sync_write."""
        return await run(self.engine.batch_transfer_sync_write, dest_session, buffers, peer_buffers, lengths, flags)

    async def batch_transfer_sync_read(self, dest_session: str, buffers: "Addresses", peer_buffers: "Addresses",
                                       lengths: "Addresses", flags: int = 0) -> int:
        """TransferEngine.batch_transfer_sync_read."""
        return await run(self.engine.batch_transfer_sync_read, dest_session, buffers, peer_buffers, lengths, flags)

    async def destroy(self) -> None:
        """TransferEngine.destroy."""
        await run(self.engine.destroy)

    async def __aenter__(self: Self) -> Self:
        return self

    async def __aexit__(self, exc_type: Optional[Type[BaseException]], exc_value: Optional[BaseException],
                        traceback: Optional[TracebackType]) -> None:
        await self.destroy()
