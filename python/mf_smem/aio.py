# SPDX-License-Identifier: Apache-2.0
"""The blocking calls for asyncio: the same names, awaitable; the event loop never waits.

Each call runs in a thread of its own for as long as it blocks, so any number of them can wait at the same time and none
waits for a free worker. A C call always runs to its end: when the awaiting task is cancelled, the cancellation is
delivered after the call returned, so that nobody touches the caller's memory any more. Destroying the object from
another task ends the waits of join, leave, barrier and all_gather early.

>>> async with await aio.bm_create(1, 2 << 20, 0) as pool:
...     await pool.join()
...     await pool.copy_data(array.ctypes.data, pool.peer_rank_ptr(1), array.nbytes, BmCopyType.H2G)
"""

import asyncio
import os
import queue
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, List, Optional, Type, TypeVar

from . import bm, create_config_store, shm
from . import initialize as _initialize
from . import uninitialize as _uninitialize

if TYPE_CHECKING:
    from typing_extensions import Buffer  # known to type checkers without being installed

__all__ = [
    "BigMemory",
    "ShareMemory",
    "bm_create",
    "bm_initialize",
    "bm_uninitialize",
    "host_config_store",
    "initialize",
    "run",
    "shm_create",
    "shm_initialize",
    "shm_uninitialize",
    "uninitialize",
]

T = TypeVar("T")
Self = TypeVar("Self", bound="_Object")
Task = Callable[[], None]

IDLE_SECONDS = 10.0


class _Threads:
    """Threads that take one task at a time; an idle one is used again for a while, then ends."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """A forked child has none of the threads."""
        self.lock = threading.Lock()
        self.idle: List["queue.SimpleQueue[Task]"] = []

    def submit(self, task: Task) -> None:
        with self.lock:
            if self.idle:
                self.idle.pop().put(task)
                return
        inbox: "queue.SimpleQueue[Task]" = queue.SimpleQueue()
        inbox.put(task)
        threading.Thread(target=self._work, args=(inbox,), name="mf_smem.aio", daemon=True).start()

    def _work(self, inbox: "queue.SimpleQueue[Task]") -> None:
        while True:
            try:
                inbox.get(timeout=IDLE_SECONDS)()
            except queue.Empty:
                with self.lock:
                    if inbox in self.idle:
                        self.idle.remove(inbox)
                        return
                continue  # taken at the last moment: the task is in the inbox
            with self.lock:
                self.idle.append(inbox)


_threads = _Threads()
os.register_at_fork(after_in_child=_threads.forget)


def _settle(future: "asyncio.Future[T]", result: Optional[T], error: Optional[BaseException]) -> None:
    if future.cancelled():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)  # type: ignore[arg-type]


async def run(func: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
    """Await any blocking call of mf_smem or mf_adapter: its result, or its exception.

    >>> code = await aio.run(engine.initialize, url, session, "Decode", -1)
    """
    loop = asyncio.get_running_loop()
    future: "asyncio.Future[T]" = loop.create_future()

    def task() -> None:
        result: Optional[T] = None
        error: Optional[BaseException] = None
        try:
            result = func(*args, **kwargs)
        except BaseException as e:  # to be raised where it is awaited
            error = e
        try:
            loop.call_soon_threadsafe(_settle, future, result, error)
        except RuntimeError:
            pass  # the loop was closed without waiting

    _threads.submit(task)
    cancelled: Optional[asyncio.CancelledError] = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as e:
            cancelled = e
    if cancelled is not None:
        future.exception()  # retrieved
        raise cancelled
    return future.result()


async def initialize(flags: int = 0) -> int:
    """mf_smem.initialize."""
    return await run(_initialize, flags)


async def uninitialize() -> None:
    """mf_smem.uninitialize."""
    await run(_uninitialize)


async def host_config_store(store_url: str) -> int:
    """mf_smem.create_config_store."""
    return await run(create_config_store, store_url)


async def bm_initialize(store_url: str, world_size: int, device_id: int, config: bm.BmConfig) -> int:
    """mf_smem.bm.initialize."""
    return await run(bm.initialize, store_url, world_size, device_id, config)


async def bm_uninitialize(flags: int = 0) -> None:
    """mf_smem.bm.uninitialize."""
    await run(bm.uninitialize, flags)


async def shm_initialize(store_url: str, world_size: int, rank_id: int, device_id: int, config: shm.ShmConfig) -> int:
    """mf_smem.shm.initialize."""
    return await run(shm.initialize, store_url, world_size, rank_id, device_id, config)


async def shm_uninitialize(flags: int = 0) -> None:
    """mf_smem.shm.uninitialize."""
    await run(shm.uninitialize, flags)


class _Object:
    async def destroy(self) -> None:
        raise NotImplementedError

    async def __aenter__(self: Self) -> Self:
        return self

    async def __aexit__(self, exc_type: Optional[Type[BaseException]], exc_value: Optional[BaseException],
                        traceback: Optional[TracebackType]) -> None:
        await self.destroy()


class BigMemory(_Object):
    """A mf_smem.bm.BigMemory whose blocking methods are awaitable; .pool is the object itself."""

    def __init__(self, pool: bm.BigMemory) -> None:
        self.pool = pool

    async def join(self, flags: int = 0) -> int:
        """BigMemory.join."""
        return await run(self.pool.join, flags)

    async def leave(self, flags: int = 0) -> None:
        """BigMemory.leave."""
        await run(self.pool.leave, flags)

    async def copy_data(self, src_ptr: int, dst_ptr: int, size: int, type: bm.BmCopyType, flags: int = 0) -> None:
        """BigMemory.copy_data."""
        await run(self.pool.copy_data, src_ptr, dst_ptr, size, type, flags)

    async def copy_data_2d(self, params: bm.CopyData2DParams, type: bm.BmCopyType, flags: int = 0) -> None:
        """BigMemory.copy_data_2d; params is read when the call begins."""
        await run(self.pool.copy_data_2d, params, type, flags)

    async def destroy(self) -> None:
        """BigMemory.destroy."""
        await run(self.pool.destroy)

    def local_mem_size(self, mem_type: Optional[bm.BmMemType] = None) -> int:
        """BigMemory.local_mem_size, which does not block."""
        return self.pool.local_mem_size(mem_type)

    def peer_rank_ptr(self, peer_rank: int, mem_type: Optional[bm.BmMemType] = None) -> int:
        """BigMemory.peer_rank_ptr, which does not block."""
        return self.pool.peer_rank_ptr(peer_rank, mem_type)

    def view(self, peer_rank: Optional[int] = None, mem_type: Optional[bm.BmMemType] = None) -> memoryview:
        """BigMemory.view, which does not block."""
        return self.pool.view(peer_rank, mem_type)


async def bm_create(id: int, local_dram_size: int, local_hbm_size: int,
                    data_op_type: bm.BmDataOpType = bm.BmDataOpType.SDMA, flags: int = 0,
                    member_size: int = 0) -> BigMemory:
    """mf_smem.bm.create."""
    return BigMemory(await run(bm.create, id, local_dram_size, local_hbm_size, data_op_type, flags, member_size))


class ShareMemory(_Object):
    """A mf_smem.shm.ShareMemory whose blocking methods are awaitable; .memory is the object itself."""

    def __init__(self, memory: shm.ShareMemory) -> None:
        self.memory = memory

    @property
    def local_rank(self) -> int:
        """ShareMemory.local_rank."""
        return self.memory.local_rank

    @property
    def rank_size(self) -> int:
        """ShareMemory.rank_size."""
        return self.memory.rank_size

    @property
    def gva(self) -> int:
        """ShareMemory.gva."""
        return self.memory.gva

    async def set_context(self, context: "Buffer") -> None:
        """ShareMemory.set_context."""
        await run(self.memory.set_context, context)

    async def get_context(self, rank: int) -> bytes:
        """ShareMemory.get_context."""
        return await run(self.memory.get_context, rank)

    async def barrier(self) -> None:
        """ShareMemory.barrier."""
        await run(self.memory.barrier)

    async def all_gather(self, local_data: "Buffer") -> bytes:
        """ShareMemory.all_gather."""
        return await run(self.memory.all_gather, local_data)

    async def global_exit(self, status: int) -> None:
        """ShareMemory.global_exit."""
        await run(self.memory.global_exit, status)

    async def destroy(self, flags: int = 0) -> None:
        """ShareMemory.destroy."""
        await run(self.memory.destroy, flags)

    def view(self, rank: Optional[int] = None) -> memoryview:
        """ShareMemory.view, which does not block."""
        return self.memory.view(rank)


async def shm_create(id: int, rank_size: int, rank_id: int, local_mem_size: int,
                     data_op_type: shm.ShmDataOpType = shm.ShmDataOpType.MTE, flags: int = 0) -> ShareMemory:
    """mf_smem.shm.create."""
    return ShareMemory(await run(shm.create, id, rank_size, rank_id, local_mem_size, data_op_type, flags))
