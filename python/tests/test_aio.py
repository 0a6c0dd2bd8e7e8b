# SPDX-License-Identifier: Apache-2.0
"""The awaitable variants: the loop never blocks, cancellation waits for the C call."""

import asyncio
import threading

import numpy
import pytest

import mf_adapter
import mf_smem
from mf_adapter import aio as adapter_aio
from mf_smem import aio, bm, shm

MIB2 = 2 << 20


def test_run_returns_and_raises():
    async def main():
        assert await aio.run(lambda a, b: a + b, 1, b=2) == 3
        with pytest.raises(KeyError):
            await aio.run({}.__getitem__, "x")
        names = await asyncio.gather(*(aio.run(lambda: threading.current_thread().name) for _ in range(5)))
        assert threading.current_thread().name not in names

    asyncio.run(main())


def test_more_waits_than_any_pool_has_threads():
    """Sixty calls that all wait for each other: a bounded pool of workers would never end."""
    meeting = threading.Barrier(60, timeout=30)

    async def main():
        await asyncio.gather(*(aio.run(meeting.wait) for _ in range(60)))

    asyncio.run(main())


def test_cancellation_waits_for_the_call():
    entered, leave, left = threading.Event(), threading.Event(), []

    def call():
        entered.set()
        leave.wait(30)
        left.append(True)

    async def main():
        task = asyncio.ensure_future(aio.run(call))
        await aio.run(entered.wait)
        task.cancel()
        await asyncio.wait([task], timeout=0.01)
        assert not task.done() and not left
        leave.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert left == [True]

    asyncio.run(main())


def test_cancelled_call_that_failed_says_nothing_else(recwarn):
    entered, leave = threading.Event(), threading.Event()

    def call():
        entered.set()
        leave.wait(30)
        raise ValueError

    async def main():
        task = asyncio.ensure_future(aio.run(call))
        await aio.run(entered.wait)
        task.cancel()
        leave.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert not recwarn.list


def test_pool(smem, url):
    async def main():
        beats = 0
        assert await aio.host_config_store(url) == 0
        assert await aio.bm_initialize(url, 1, 0, bm.BmConfig(rank_id=0)) == 0
        async with await aio.bm_create(1, 16 * MIB2, 0) as pool:
            address = await pool.join()
            assert address == pool.peer_rank_ptr(0) and pool.local_mem_size() == 16 * MIB2
            source = numpy.full(8 * MIB2, 5, dtype=numpy.uint8)
            copies = [asyncio.ensure_future(
                pool.copy_data(source.ctypes.data, address + i * 8 * MIB2, source.nbytes, bm.BmCopyType.H2G))
                for i in range(2)]
            while not all(c.done() for c in copies):
                beats += 1
                await asyncio.wait(copies, timeout=0)
            await asyncio.gather(*copies)
            assert pool.view()[-1] == 5
            params = bm.CopyData2DParams(source.ctypes.data, 10, address, 10, 10, 10)
            await pool.copy_data_2d(params, bm.BmCopyType.H2G)
            with pytest.raises(mf_smem.SmemError):
                await pool.copy_data(1, 1, 0, 0)
            await pool.leave()
        await aio.bm_uninitialize()
        await aio.uninitialize()
        assert beats > 0

    asyncio.run(main())


def test_shared_memory(smem, url):
    async def main():
        assert await aio.shm_initialize(url, 2, 0, 0, shm.ShmConfig(init_timeout=30, create_timeout=30)) == 0
        memory = await aio.shm_create(0, 1, 0, MIB2)
        await memory.barrier()
        assert await memory.all_gather(b"a") == b"a"
        await memory.set_context(b"x")
        assert await memory.get_context(0) == b"x"
        assert (memory.local_rank, memory.rank_size, len(memory.view())) == (0, 1, MIB2)
        await memory.destroy()
        await aio.shm_uninitialize()

    asyncio.run(main())


def test_engine(smem, url):
    async def main():
        assert mf_adapter.create_config_store(url) == 0
        async with adapter_aio.TransferEngine() as engine:
            assert await engine.initialize(url, "127.0.0.1:%d" % engine.get_rpc_port(), "Decode", -1) == 0
            name = "127.0.0.1:%d" % engine.get_rpc_port()
            source, target = numpy.full(4096, 3, numpy.uint8), numpy.zeros(4096, numpy.uint8)
            assert await engine.register_memory(target.ctypes.data, 2048) == 0
            assert await engine.batch_register_memory([target.ctypes.data + 2048], [2048]) == 0
            assert await engine.transfer_sync_write(name, source.ctypes.data, target.ctypes.data, 4096) == 0
            assert numpy.array_equal(source, target)
            assert await engine.batch_transfer_sync_write(name, [], [], []) == 0
            code = await engine.transfer_sync_read(name, source.ctypes.data, target.ctypes.data, 4096)
            assert code in (0, -2023)
            assert await engine.batch_transfer_sync_read(name, [], [], []) in (0, -2023)
            assert await engine.unregister_memory(target.ctypes.data) == 0

    asyncio.run(main())


def test_loop_goes_on_while_the_store_is_waited_for(child, url, late_store):
    waiting = child("""
        import asyncio
        from mf_smem import aio, bm
        async def main():
            config = bm.BmConfig(rank_id=1, init_timeout=30)
            task = asyncio.ensure_future(aio.bm_initialize(URL, 2, 0, config))
            for _ in range(100):
                await asyncio.wait([task], timeout=0)
            assert not task.done()
            print('ticked', flush=True)
            assert await task == 0
            await aio.bm_uninitialize()
        asyncio.run(main())
    """, URL=url)
    assert waiting.line() == "ticked"
    late_store()
    waiting.end()
