# SPDX-License-Identifier: Apache-2.0
"""mf_smem.bm: pools of one and of several processes."""

import gc
import os
import threading
import weakref

import numpy
import pytest

import mf_smem
from mf_smem import bm

MIB2 = 2 << 20


@pytest.fixture
def world(smem, url):
    assert bm.initialize(url, 1, 0, bm.BmConfig(rank_id=0, init_timeout=20, operation_timeout=20)) == 0
    yield bm
    gc.collect()
    bm.uninitialize()


def code_of(call, *arguments):
    with pytest.raises(mf_smem.SmemError) as error:
        call(*arguments)
    return error.value.code


def test_initialize_codes(smem, url):
    assert bm.initialize("tcp://1.2.3.4", 1, 0, bm.BmConfig(rank_id=0)) == -2000
    assert "1.2.3.4" in smem.get_last_err_msg()
    assert bm.initialize(url, 0, 0, bm.BmConfig(rank_id=0)) == -2000
    assert bm.initialize(url, 2, 0, bm.BmConfig(init_timeout=1, rank_id=1)) == -2004
    assert bm.initialize(url, 1, 0, bm.BmConfig(rank_id=0)) == 0
    assert bm.initialize(url, 1, 0, bm.BmConfig(rank_id=0)) == 0
    assert bm.bm_rank_id() == 0


def test_one_rank(world):
    pool = bm.create(7, MIB2, 2 * MIB2)
    assert pool.local_mem_size() == 2 * MIB2 == pool.local_mem_size(bm.BmMemType.DEVICE)
    assert pool.local_mem_size(mem_type=bm.BmMemType.HOST) == MIB2
    assert code_of(pool.local_mem_size, 0) == -2000 and code_of(pool.local_mem_size, 4) == -2000
    assert code_of(pool.local_mem_size, -1) == -2000
    address = pool.join()
    assert address == pool.join() == pool.peer_rank_ptr(0) == pool.peer_rank_ptr(0, bm.BmMemType.DEVICE)
    assert code_of(pool.peer_rank_ptr, 1) == -2000
    source = numpy.arange(1000, dtype=numpy.uint64)
    target = numpy.zeros_like(source)
    pool.copy_data(source.ctypes.data, address + 64, source.nbytes, bm.BmCopyType.H2G)
    pool.copy_data(src_ptr=address + 64, dst_ptr=target.ctypes.data, size=source.nbytes, type=2)
    assert numpy.array_equal(source, target)
    for arguments in ((0, address, 8, 3), (source.ctypes.data, address, 0, 3), (source.ctypes.data, 0, 8, 3),
                      (source.ctypes.data, address + 2 * MIB2 - 7, 8, 3), (source.ctypes.data, address, 8, 10),
                      (source.ctypes.data, address, 8, -1)):
        assert code_of(pool.copy_data, *arguments) == -2000
    assert code_of(pool.copy_data, source.ctypes.data, address, 8, 9) == -2023
    pool.leave()
    assert code_of(pool.leave) == -2003
    pool.destroy()
    pool.destroy()
    assert code_of(pool.join) == -2000
    with pytest.raises(mf_smem.SmemError, match="smem_bm_copy"):
        pool.copy_data(source.ctypes.data, address, 8, 3)


def test_window_that_the_pool_lacks(world):
    pool = bm.create(1, MIB2, 0)
    assert pool.local_mem_size(bm.BmMemType.DEVICE) == 0
    assert code_of(pool.peer_rank_ptr, 0, bm.BmMemType.DEVICE) == -2000
    assert pool.peer_rank_ptr(0) == pool.peer_rank_ptr(0, bm.BmMemType.HOST)


def test_create_failures(world):
    for arguments in ((1, 0, 0), (1, 1024, 0), (1, 3 << 20, 0), (1, MIB2, 0, 0), (1, MIB2, 0, 1, 0, 1025)):
        assert code_of(bm.create, *arguments) == code_of(bm.BigMemory, *arguments) == -2000
    pool = bm.create(0xFFFFFFFF, MIB2, 0)
    with pytest.raises(mf_smem.SmemError) as error:
        bm.create(0xFFFFFFFF, MIB2, 0)
    assert error.value.code == -2006 and error.value.operation == "smem_bm_create"
    assert code_of(pool.__init__, 2, MIB2, 0) == -2005
    pool.destroy()
    bm.create(0xFFFFFFFF, MIB2, 0).destroy()


def test_copy_2d(world):
    with bm.create(1, MIB2, 0) as pool:
        pool.join()
        matrix = numpy.arange(64 * 64, dtype=numpy.uint8).reshape(64, 64)
        params = bm.CopyData2DParams(src=matrix.ctypes.data, spitch=64, dest=pool.peer_rank_ptr(0), dpitch=100,
                                     width=10, height=64)
        pool.copy_data_2d(params, bm.BmCopyType.H2G)
        slot = numpy.frombuffer(pool.view(), dtype=numpy.uint8)[:6400].reshape(64, 100)
        assert numpy.array_equal(slot[:, :10], matrix[:, :10])
        del slot
        params.spitch = 9
        assert code_of(pool.copy_data_2d, params, 3) == -2000
        with pytest.raises(TypeError, match="params"):
            pool.copy_data_2d((1, 2, 3), 3)


def test_objects_are_not_copied(world):
    import copy
    import pickle

    import mf_adapter

    pool = bm.create(1, MIB2, 0)
    for thing in (pool, mf_adapter.TransferEngine()):
        for how in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError):
                how(thing)
    pool.join()


INSIDE = """
import sys
sys.path[:] = %r
import mf_smem
assert mf_smem.set_log_level(9) == -2000
try:
    mf_smem.set_extern_logger(print)
    raise SystemExit('accepted')
except RuntimeError:
    pass
"""


def test_another_interpreter(child):
    """Its end must not close the callbacks of the main one; callbacks of its own are refused."""
    out = child("""
        import mf_smem
        try:
            import _xxsubinterpreters as interpreters
        except ImportError:
            print('skip')
            raise SystemExit
        seen = []
        mf_smem.set_extern_logger(lambda level, text: seen.append(level))
        i = interpreters.create()
        interpreters.run_string(i, sys.argv[1] % (sys.path,))
        interpreters.destroy(i)
        mf_smem.set_log_level(9)
        print(seen)
    """, INSIDE).end()
    if out == "skip\n":
        pytest.skip("this Python has no module to make interpreters with")
    assert out == "[3, 3]\n"


def test_context_manager(world):
    with pytest.raises(KeyError), bm.BigMemory(1, MIB2, 0) as pool:
        pool.join()
        raise KeyError
    assert code_of(pool.join) == -2000


def test_collection_destroys(world):
    pool = bm.create(3, MIB2, 0)
    ref = weakref.ref(pool)
    del pool
    assert ref() is None
    pool = bm.create(3, MIB2, 0)  # the id is free again

    class Mine(bm.BigMemory):
        def __init__(self, id):
            super().__init__(id, MIB2, 0)
            self.me = self  # a cycle

    mine = Mine(4)
    ref = weakref.ref(mine)
    mine.join()
    del mine
    gc.collect()
    assert ref() is None
    bm.create(4, MIB2, 0)


def test_uninitialize_makes_destroy_a_silent_no_op(world, capfd):
    pool = bm.create(1, MIB2, 0)
    other = bm.create(2, MIB2, 0)
    bm.uninitialize()
    capfd.readouterr()
    mf_smem.get_and_clear_last_err_msg()
    pool.destroy()
    del other
    assert capfd.readouterr().err == "" and mf_smem.get_last_err_msg() == ""


def test_objects_of_an_earlier_life(world, url):
    pool = bm.create(1, MIB2, 0)
    bm.uninitialize()
    assert code_of(pool.join) == -2008
    assert bm.initialize(url, 1, 0, bm.BmConfig(rank_id=0)) == 0
    assert code_of(pool.join) == -2000
    again = bm.create(1, MIB2, 0)
    pool.destroy()
    again.join()


def test_view(world):
    pool = bm.create(1, MIB2, MIB2)
    view = pool.view()
    assert isinstance(view, memoryview) and not view.readonly and len(view) == MIB2 and view.format == "B"
    array = numpy.frombuffer(view, dtype=numpy.uint32)
    assert array.ctypes.data == pool.peer_rank_ptr(0) and not array.any()
    array[:] = 7
    back = numpy.zeros(4, dtype=numpy.uint32)
    pool.copy_data(pool.peer_rank_ptr(0), back.ctypes.data, 16, bm.BmCopyType.G2H)
    assert back.tolist() == [7] * 4
    host = pool.view(0, bm.BmMemType.HOST)
    assert numpy.frombuffer(host, dtype=numpy.uint8).ctypes.data == pool.peer_rank_ptr(0, bm.BmMemType.HOST)
    assert numpy.from_dlpack(array).ctypes.data == array.ctypes.data
    with pytest.raises(BufferError, match="2 views"):
        pool.destroy()
    with pytest.raises(BufferError):
        bm.uninitialize()
    with pytest.raises(BufferError):
        mf_smem.uninitialize()
    del host, view
    with pytest.raises(BufferError, match="1 view"):
        pool.destroy()
    array[1] = 9  # still the pool's
    del array
    gc.collect()
    pool.destroy()
    assert code_of(pool.view) == -2000


def test_view_keeps_the_pool(world):
    array = numpy.frombuffer(bm.create(1, MIB2, 0).view(), dtype=numpy.uint8)
    gc.collect()
    array[:] = 3
    assert int(array.sum()) == 3 * MIB2
    del array
    bm.create(1, MIB2, 0).destroy()


def test_view_of_a_window_or_rank_that_is_not_there(world):
    pool = bm.create(1, MIB2, 0)
    assert code_of(pool.view, 1) == -2000
    assert code_of(pool.view, 0, bm.BmMemType.DEVICE) == -2000
    pool.destroy()


def test_torch(world):
    torch = pytest.importorskip("torch", reason="torch is not installed for this Python")
    pool = bm.create(1, MIB2, 0)
    tensor = torch.frombuffer(pool.view(), dtype=torch.float32)
    assert tensor.data_ptr() == pool.peer_rank_ptr(0)
    tensor.fill_(1.5)
    source = torch.arange(16, dtype=torch.float32)
    pool.copy_data(source.data_ptr(), pool.peer_rank_ptr(0), 64, bm.BmCopyType.H2G)
    assert torch.equal(tensor[:16], source)
    assert torch.from_dlpack(numpy.frombuffer(pool.view(), dtype=numpy.float32)).data_ptr() == tensor.data_ptr()
    del tensor
    gc.collect()


def test_destroy_while_threads_are_inside(world):
    for number in range(20):
        pool = bm.create(number, MIB2, 0)
        address = pool.join()
        codes, started = set(), threading.Barrier(5)
        buffer = numpy.zeros(MIB2 // 2, dtype=numpy.uint8)

        def work():
            started.wait()
            try:
                while True:
                    pool.copy_data(buffer.ctypes.data, address, buffer.nbytes, bm.BmCopyType.H2G)
            except mf_smem.SmemError as error:
                codes.add(error.code)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        started.wait()
        pool.destroy()
        for thread in threads:
            thread.join()
        assert codes <= {-2000, -2007, -2003}


def test_eight_threads_and_a_heartbeat(world):
    """While eight threads copy, a ninth that holds the lock for moments only must keep going."""
    pool = bm.create(1, 16 * MIB2, 0)
    base = pool.join()
    beats, stop, wrong = [0], threading.Event(), []

    def heartbeat():
        while not stop.is_set():
            beats[0] += 1

    def work(index):
        size = 2 * MIB2
        source = numpy.full(size, index + 1, dtype=numpy.uint8)
        target = numpy.zeros(size, dtype=numpy.uint8)
        place = base + index * size
        for _ in range(50):
            pool.copy_data(source.ctypes.data, place, size, bm.BmCopyType.H2G)
            pool.copy_data(place, target.ctypes.data, size, bm.BmCopyType.G2H)
            if target[0] != index + 1 or target[-1] != index + 1:
                wrong.append(index)

    pulse = threading.Thread(target=heartbeat)
    pulse.start()
    workers = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for worker in workers:
        worker.start()
    before = beats[0]
    for worker in workers:
        worker.join()
    during = beats[0] - before
    stop.set()
    pulse.join()
    assert not wrong and during > 0
    pool.destroy()


def test_waiting_lets_others_run(child, url, late_store):
    """One thread waits in init for a store while another counts; then the store comes."""
    waiting = child("""
        import threading
        from mf_smem import bm
        result = []
        waits = threading.Thread(target=lambda: result.append(bm.initialize(URL, 1, 0, bm.BmConfig(rank_id=0, start_store=False))))
        waits.start()
        count = sum(1 for _ in range(1000000))
        assert waits.is_alive() and not result
        print(count, flush=True)
        waits.join()
        print(result)
    """, URL=url)
    assert waiting.line() == "1000000"
    late_store()
    assert waiting.end() == "[0]\n"


def rss():
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_no_leak_over_rounds(world):
    """10,000 rounds of what is cheap, 500 of pools: neither memory nor descriptors grow."""
    import mf_adapter

    def cheap():
        config = bm.BmConfig(rank_id=1)
        repr(config), config == bm.BmConfig(), bm.CopyData2DParams(1), mf_smem.SmemError(-1, "x", "y")
        engine = mf_adapter.TransferEngine()
        engine.batch_register_memory([1, 2, 3], numpy.arange(3))
        pool = bm.BigMemory.__new__(bm.BigMemory)
        try:
            pool.join()
        except mf_smem.SmemError:
            pass
        try:
            bm.BigMemory(1, "x", 0)
        except TypeError:
            pass

    def pools():
        with bm.BigMemory(1, MIB2, 0) as pool:
            pool.join()
            numpy.frombuffer(pool.view(), dtype=numpy.uint8)[0] = 1

    mf_smem.set_extern_logger(lambda level, text: None)
    for function, warm, rounds in ((cheap, 500, 10000), (pools, 50, 500)):
        for _ in range(warm):
            function()
        gc.collect()
        before, fds, objects = rss(), len(os.listdir("/proc/self/fd")), len(gc.get_objects())
        for _ in range(rounds):
            function()
        gc.collect()
        assert rss() - before < 8 << 20
        assert len(os.listdir("/proc/self/fd")) <= fds
        assert len(gc.get_objects()) - objects < 500
    mf_smem.set_extern_logger(None)


RANK = """
    import numpy, mf_smem
    from mf_smem import bm
    assert bm.initialize(URL, WORLD, 0, bm.BmConfig(rank_id=RANK, init_timeout=30, operation_timeout=30)) == 0
    pool = bm.create(1, 2 << 20, 0)
    pool.join()
"""

STEP = """
    import sys
    def step(name):
        print(name, flush=True)
        assert sys.stdin.readline().strip() == 'go'
"""


def test_ranks(ranks):
    """Each rank writes to all; views of all slots show it. SHM's barrier orders them."""
    out = ranks(4, RANK + """
    from mf_smem import shm
    assert shm.initialize(URL, WORLD, RANK, 0, shm.ShmConfig(init_timeout=30, create_timeout=30, operation_timeout=30)) == 0
    group = shm.create(0, WORLD, RANK, 2 << 20)
    group.barrier()
    mine = numpy.full(1024, RANK + 1, dtype=numpy.uint8)
    for peer in range(WORLD):
        pool.copy_data(mine.ctypes.data, pool.peer_rank_ptr(peer) + 1024 * RANK, 1024, bm.BmCopyType.H2G)
    group.barrier()
    for peer in range(WORLD):
        a = numpy.frombuffer(pool.view(peer), dtype=numpy.uint8)[:1024 * WORLD].reshape(WORLD, 1024)
        assert (a == numpy.arange(1, WORLD + 1)[:, None]).all()
        del a
    view = pool.view((RANK + 1) % WORLD)
    try:
        pool.leave()
        raise SystemExit('left with a view')
    except BufferError:
        pass
    view.release()
    del view
    group.barrier()
    pool.destroy()
    group.destroy()
    mf_smem.uninitialize()
    print('ok')
    """)
    assert out == ["ok\n"] * 4


def test_view_of_a_lost_rank_stays(child, url):
    first = child(RANK + STEP + """
    step('in')
    view = pool.view(1)
    assert bytes(view[:4]) == b'left'
    buffer = numpy.zeros(8, numpy.uint8)
    step('seen')
    while True:
        try:
            pool.copy_data(pool.peer_rank_ptr(1), buffer.ctypes.data, 8, 2)
        except mf_smem.SmemError as e:
            assert e.code == -2020, e
            break
    assert bytes(view[:4]) == b'left'
    try:
        pool.view(1)
        raise SystemExit('a view of a lost rank')
    except mf_smem.SmemError as e:
        assert e.code == -2020
    print('ok', flush=True)
    """, RANK=0, WORLD=2, URL=url)
    assert first.line() == "in"
    second = child(RANK + STEP + "    pool.view()[:4] = b'left'\n    step('in')\n", RANK=1, WORLD=2, URL=url)
    assert second.line() == "in"
    first.tell("go")
    assert first.line() == "seen"
    second.kill()
    first.tell("go")
    assert "ok" in first.end()


def test_exit_with_live_objects(child, url):
    """Nothing is destroyed, callbacks are set, a view and a thread are alive: the process just ends."""
    c = child("""
        import threading, mf_smem, mf_adapter
        from mf_smem import bm, shm
        mf_smem.set_extern_logger(lambda level, text: None)
        assert bm.initialize(URL, 1, 0, bm.BmConfig(rank_id=0)) == 0
        assert shm.initialize(URL, 1, 0, 0, shm.ShmConfig()) == 0
        pool, memory = bm.create(1, 2 << 20, 0), shm.create(1, 1, 0, 2 << 20)
        pool.join()
        memory.register_exit(lambda status: None)
        engine = mf_adapter.TransferEngine()
        assert engine.initialize(URL, '127.0.0.1:1', 'Decode', -1) == 0
        engine.get_rpc_port()
        view, cycle = pool.view(), []
        cycle.append((cycle, pool, memory, engine))
        block = threading.Event()
        threading.Thread(target=block.wait, daemon=True).start()
        print('end')
    """, URL=url, options=("-X", "dev"))
    assert c.end() == "end\n"
    assert "ResourceWarning" not in c.err and "Fatal" not in c.err
