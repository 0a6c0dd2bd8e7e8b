# SPDX-License-Identifier: Apache-2.0
"""mf_smem.shm: symmetric memory of one and of several processes."""

import gc
import threading
import weakref

import numpy
import pytest

import mf_smem
from mf_smem import shm

MIB2 = 2 << 20
CONFIG = dict(init_timeout=30, create_timeout=30, operation_timeout=30)


@pytest.fixture
def world(smem, url):
    assert shm.initialize(url, 4, 0, 0, shm.ShmConfig(**CONFIG)) == 0
    yield shm
    gc.collect()
    shm.uninitialize()


def code_of(call, *arguments):
    with pytest.raises(mf_smem.SmemError) as error:
        call(*arguments)
    return error.value.code


def test_one_rank(world):
    memory = shm.create(5, 1, 0, MIB2)
    assert (memory.local_rank, memory.rank_size) == (0, 1) and memory.gva % MIB2 == 0
    assert memory.query_support_data_operation() == shm.query_support_data_operation() == shm.ShmDataOpType.MTE
    memory.barrier()
    assert memory.all_gather(b"abc") == b"abc" == memory.all_gather(bytearray(b"abc"))
    assert memory.all_gather(numpy.arange(4, dtype=numpy.uint16)) == bytes(numpy.arange(4, dtype=numpy.uint16))
    assert memory.get_context(0) == b""
    memory.set_context(b"context")
    assert memory.get_context(0) == b"context"
    memory.set_context(context=memoryview(bytes(65536)))
    assert memory.get_context(rank=0) == bytes(65536)
    for call, argument in ((memory.set_context, b""), (memory.set_context, bytes(65537)), (memory.all_gather, b""),
                           (memory.all_gather, bytes(65537)), (memory.get_context, 1),
                           (memory.topology_can_reach, 1)):
        assert code_of(call, argument) == -2000
    assert memory.topology_can_reach(0) & shm.ShmDataOpType.MTE
    assert memory.topology_can_reach(0, 0) == 0 and memory.topology_can_reach(1, reach_info=5) == -2000
    view = memory.view()
    array = numpy.frombuffer(view, dtype=numpy.uint8)
    assert array.ctypes.data == memory.gva and len(view) == MIB2 and not array.any()
    array[0] = 1
    assert code_of(memory.view, 1) == -2000
    with pytest.raises(BufferError):
        memory.destroy()
    with pytest.raises(BufferError):
        shm.uninitialize()
    del array, view
    memory.destroy()
    memory.destroy()
    memory.destroy(flags=0)
    assert memory.query_support_data_operation() == 1
    for call in (memory.barrier, lambda: memory.gva, lambda: memory.local_rank, lambda: memory.global_exit(1),
                 memory.view):
        assert code_of(call) == -2000
    shm.uninitialize()
    memory.destroy()
    assert code_of(memory.barrier) == -2008


def test_create_failures(world):
    for arguments in ((64, 1, 0, MIB2), (0, 0, 0, MIB2), (0, 1, 1, MIB2), (0, 1, 0, 0), (0, 1, 0, MIB2, 8)):
        assert code_of(shm.create, *arguments) == code_of(shm.ShareMemory, *arguments) == -2000
    assert code_of(shm.create, 0, 1, 0, MIB2, shm.ShmDataOpType.SDMA) == -2023
    memory = shm.create(0, 1, 0, MIB2)
    assert code_of(shm.create, 0, 1, 0, MIB2) == -2006
    memory.destroy()
    for _ in range(3):
        with shm.ShareMemory(0, 1, 0, MIB2):
            pass


def test_exit_callback(world):
    called = threading.Event()
    seen = []

    def callback(status):
        seen.append((status, threading.get_ident()))
        memory.destroy()
        shm.uninitialize()
        called.set()

    memory = shm.create(0, 1, 0, MIB2)
    memory.register_exit(callback)
    assert code_of(memory.register_exit, callback) == -2005
    memory.global_exit(-7)
    assert called.wait(30)
    assert [s for s, _ in seen] == [-7] and seen[0][1] != threading.get_ident()
    assert code_of(memory.barrier) == -2008


def test_exit_callback_after_the_announcement_and_one_that_fails(world, monkeypatch):
    import sys

    caught = threading.Event()
    monkeypatch.setattr(sys, "unraisablehook", lambda u: caught.set())
    memory = shm.create(3, 1, 0, MIB2)
    memory.global_exit(status=1)
    memory.register_exit(callback=lambda status: 1 // 0)
    assert caught.wait(30)
    memory.destroy()


def test_exit_callbacks_of_many_objects(world):
    seen, done = {}, threading.Semaphore(0)

    def callback_of(number):
        def callback(status):
            seen[number] = status
            done.release()
        return callback

    objects = [shm.create(number, 1, 0, MIB2) for number in range(64)]
    for number, memory in enumerate(objects):
        memory.register_exit(callback_of(number))
    for number, memory in enumerate(objects):
        memory.global_exit(number)
    for _ in objects:
        assert done.acquire(timeout=30)
    assert seen == {n: n for n in range(64)}


def test_exit_callback_that_holds_its_object_is_collected(world):
    memory = shm.create(1, 1, 0, MIB2)
    memory.register_exit(lambda status, memory=memory: None)
    ref = weakref.ref(memory)
    del memory
    gc.collect()
    assert ref() is None
    shm.create(1, 1, 0, MIB2)


def test_destroy_wakes_a_barrier(world, child, url):
    other = child("""
        from mf_smem import shm
        assert shm.initialize(URL, 4, 1, 0, shm.ShmConfig(init_timeout=30, create_timeout=30)) == 0
        memory = shm.create(0, 2, 1, 2 << 20)
        print('in', flush=True)
        sys.stdin.readline()
    """, URL=url)
    memory = shm.create(0, 2, 0, MIB2)
    assert other.line() == "in"
    codes, started = [], threading.Event()

    def wait():
        started.set()
        codes.append(code_of(memory.barrier))

    thread = threading.Thread(target=wait)
    thread.start()
    started.wait()
    memory.destroy()
    thread.join()
    assert codes[0] in (-2007, -2000)
    other.tell("go")
    other.end()


def test_ranks(ranks):
    out = ranks(4, """
        import numpy, threading, mf_smem
        from mf_smem import shm
        assert shm.initialize(URL, WORLD, RANK, 0, shm.ShmConfig(init_timeout=30, create_timeout=30, operation_timeout=30)) == 0
        memory = shm.create(0, WORLD, RANK, 2 << 20)
        bases = memory.all_gather(memory.gva.to_bytes(8, 'little'))
        assert len(set(bases[i:i + 8] for i in range(0, 8 * WORLD, 8))) == 1
        memory.set_context(b'rank %d' % RANK)
        next_slot = numpy.frombuffer(memory.view((RANK + 1) % WORLD), dtype=numpy.uint8)
        next_slot[:] = RANK + 1
        memory.barrier()
        assert [memory.get_context(r) for r in range(WORLD)] == [b'rank %d' % r for r in range(WORLD)]
        mine = numpy.frombuffer(memory.view(), dtype=numpy.uint8)
        assert (mine == (RANK - 1) % WORLD + 1).all()
        assert all(memory.topology_can_reach(r) & 1 for r in range(WORLD))
        called = threading.Event()
        memory.register_exit(lambda status: print(status) or called.set())
        memory.barrier()
        if RANK == 2:
            memory.global_exit(5)
        assert called.wait(30)
        memory.barrier()
        del next_slot, mine
        memory.destroy()
        shm.uninitialize()
    """)
    assert out == ["5\n"] * 4


def test_rank_killed_in_a_barrier(child, url):
    script = """
        import mf_smem
        from mf_smem import shm
        assert shm.initialize(URL, 2, RANK, 0, shm.ShmConfig(init_timeout=30, create_timeout=30)) == 0
        memory = shm.create(0, 2, RANK, 2 << 20)
        memory.barrier()
        print('in', flush=True)
        if RANK == 1:
            sys.stdin.readline()
        try:
            memory.barrier()
        except mf_smem.SmemError as e:
            print(e.code, memory.topology_can_reach(1))
    """
    first = child(script, RANK=0, URL=url)
    second = child(script, RANK=1, URL=url)
    assert first.line() == second.line() == "in"
    second.kill()
    assert first.end() == "-2020 0\n"
