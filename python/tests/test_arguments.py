# SPDX-License-Identifier: Apache-2.0
"""Mistakes of users: an exception that names the argument, before any C call, and never a crash."""

import array
import gc

import numpy
import pytest

import mf_adapter
import mf_smem
from mf_smem import bm, shm

U32 = 1 << 32
U64 = 1 << 64
URL = "tcp://127.0.0.1:1"

ENGINE = mf_adapter.TransferEngine()
BM = bm.BigMemory.__new__(bm.BigMemory)
SHM = shm.ShareMemory.__new__(shm.ShareMemory)

# function, arguments, name of the bad one, exception
BAD = [
    (mf_smem.initialize, ("x",), "flags", TypeError),
    (mf_smem.initialize, (-1,), "flags", OverflowError),
    (mf_smem.initialize, (U32,), "flags", OverflowError),
    (mf_smem.create_config_store, (5,), "store_url", TypeError),
    (mf_smem.create_config_store, (b"tcp://127.0.0.1:1",), "store_url", TypeError),
    (mf_smem.set_log_level, (1.0,), "level", TypeError),
    (mf_smem.set_log_level, (1 << 31,), "level", OverflowError),
    (mf_smem.set_extern_logger, (5,), "log_fn", TypeError),
    (mf_smem.register_decrypt_handler, ("f",), "py_decrypt_func", TypeError),
    (mf_smem.strerror, (None,), "code", TypeError),
    (bm.initialize, (None, 1, 0, bm.BmConfig()), "store_url", TypeError),
    (bm.initialize, (URL, "1", 0, bm.BmConfig()), "world_size", TypeError),
    (bm.initialize, (URL, -1, 0, bm.BmConfig()), "world_size", OverflowError),
    (bm.initialize, (URL, 1, 65536, bm.BmConfig()), "device_id", OverflowError),
    (bm.initialize, (URL, 1, 0, None), "config", TypeError),
    (bm.initialize, (URL, 1, 0, shm.ShmConfig()), "config", TypeError),
    (bm.uninitialize, (None,), "flags", TypeError),
    (bm.create, ("1", 0, 0), "id", TypeError),
    (bm.create, (U32, 0, 0), "id", OverflowError),
    (bm.create, (1, -1, 0), "local_dram_size", OverflowError),
    (bm.create, (1, 0, U64), "local_hbm_size", OverflowError),
    (bm.create, (1, 0, 0, "SDMA"), "data_op_type", TypeError),
    (bm.create, (1, 0, 0, 1, 0, -1), "member_size", OverflowError),
    (bm.BigMemory, (1, 0.5, 0), "local_dram_size", TypeError),
    (BM.join, ("x",), "flags", TypeError),
    (BM.leave, (-1,), "flags", OverflowError),
    (BM.local_mem_size, ("HOST",), "mem_type", TypeError),
    (BM.peer_rank_ptr, (65536,), "peer_rank", OverflowError),
    (BM.peer_rank_ptr, (-1,), "peer_rank", OverflowError),
    (BM.copy_data, (None, 1, 1, 0), "src_ptr", TypeError),
    (BM.copy_data, (1, -1, 1, 0), "dst_ptr", OverflowError),
    (BM.copy_data, (1, 1, -1, 0), "size", OverflowError),
    (BM.copy_data, (1, 1, 1, "L2G"), "type", TypeError),
    (BM.copy_data, (1, 1, 1, 0, U32), "flags", OverflowError),
    (BM.view, ("0",), "peer_rank", TypeError),
    (BM.view, (0, 1.5), "mem_type", TypeError),
    (shm.initialize, (URL, 1, U32, 0, shm.ShmConfig()), "rank_id", OverflowError),
    (shm.initialize, (URL, 1, 0, 0, bm.BmConfig()), "config", TypeError),
    (shm.create, (0, 1, 0, -1), "local_mem_size", OverflowError),
    (shm.ShareMemory, (0, 1, None, 1), "rank_id", TypeError),
    (SHM.get_context, (-1,), "rank", OverflowError),
    (SHM.topology_can_reach, ("x",), "remote_rank", TypeError),
    (SHM.topology_can_reach, (0, "x"), "reach_info", TypeError),
    (SHM.register_exit, (None,), "callback", TypeError),
    (SHM.global_exit, (1 << 31,), "status", OverflowError),
    (SHM.destroy, (None,), "flags", TypeError),
    (ENGINE.initialize, (1, "127.0.0.1:1", "Decode", -1), "store_url", TypeError),
    (ENGINE.initialize, (URL, None, "Decode", -1), "session_id", TypeError),
    (ENGINE.initialize, (URL, "127.0.0.1:1", 2, -1), "role", TypeError),
    (ENGINE.initialize, (URL, "127.0.0.1:1", "Decode", -2), "device_id", OverflowError),
    (ENGINE.initialize, (URL, "127.0.0.1:1", "Decode", None), "device_id", TypeError),
    (ENGINE.register_memory, (-1, 1), "buffer_addr", OverflowError),
    (ENGINE.register_memory, (1, b"1"), "capacity", TypeError),
    (ENGINE.unregister_memory, ("x",), "buffer_addr", TypeError),
    (ENGINE.transfer_sync_write, (b"a:1", 1, 1, 1), "dest_session", TypeError),
    (ENGINE.transfer_sync_write, ("a:1", 1, -1, 1), "peer_buffer", OverflowError),
    (ENGINE.transfer_sync_read, ("a:1", 1, 1, U64), "length", OverflowError),
    (ENGINE.transfer_sync_read, ("a:1", 1, 1, 1, -1), "flags", OverflowError),
]


@pytest.mark.parametrize("function,arguments,name,exception", BAD,
                         ids=["%s-%s" % (b[0].__name__, b[2]) for b in BAD])
def test_bad_argument(function, arguments, name, exception):
    with pytest.raises(exception, match="'%s'" % name):
        function(*arguments)


@pytest.mark.parametrize("function,arguments,keywords,message", [
    (bm.create, (1,), {}, "local_dram_size"),
    (bm.create, (1, 2, 3, 1, 0, 0, 9), {}, "at most 6"),
    (bm.create, (1, 2, 3), {"size": 1}, "size"),
    (bm.BigMemory, (1, 2, 3), {"id": 1}, "multiple values.*id"),
    (bm.BmConfig, (), {"timeout": 1}, "timeout"),
    (ENGINE.register_memory, (), {"capacity": 1}, "buffer_addr"),
    (mf_adapter.TransferEngine, (1,), {}, "TransferEngine"),
])
def test_binding(function, arguments, keywords, message):
    with pytest.raises(TypeError, match=message):
        function(*arguments, **keywords)


def test_integers_are_what_has_an_index():
    assert mf_smem.initialize(numpy.uint32(0)) == 0
    assert ENGINE.register_memory(buffer_addr=numpy.int64(1), capacity=numpy.uint64(1)) == -2008

    class Wild:
        def __index__(self):
            raise ValueError("wild")

    with pytest.raises(ValueError, match="wild"):
        ENGINE.register_memory(Wild(), 1)


def test_text_that_is_no_c_string_is_malformed():
    for url in ("tcp://127.0.0.1:1\0", "\ud800", ""):
        assert mf_smem.create_config_store(url) == -2000
        assert ENGINE.initialize(url, "127.0.0.1:1", "Decode", -1) == -2000


def test_config_classes():
    config = bm.BmConfig()
    assert (config.init_timeout, config.create_timeout, config.operation_timeout, config.start_store,
            config.start_store_only, config.dynamic_world_size, config.unified_address_space, config.auto_ranking,
            config.rank_id, config.flags) == (120, 120, 120, True, False, False, True, False, 65535, 0)
    assert config == bm.BmConfig() and config != bm.BmConfig(rank_id=1) and config != 5
    config.rank_id = numpy.int32(7)
    config.auto_ranking = numpy.bool_(True)
    assert config.rank_id == 7 and config.auto_ranking is True
    assert "rank_id=7" in repr(config) and eval(repr(config), vars(bm)) == config
    for name, value in (("rank_id", 65536), ("rank_id", -1), ("init_timeout", 1 << 32), ("flags", -1)):
        with pytest.raises(OverflowError, match=name):
            setattr(config, name, value)
    for name in ("rank_id", "start_store"):
        with pytest.raises(TypeError, match=name):
            setattr(config, name, "x")
    with pytest.raises(AttributeError):
        del config.rank_id
    with pytest.raises(AttributeError):
        bm.BmConfig().initTimeout
    with pytest.raises(TypeError):
        hash(config)
    with pytest.raises(OverflowError, match="rank_id"):
        bm.BmConfig(5, rank_id=-1)
    before = repr(config)
    with pytest.raises(OverflowError):
        config.__init__(1, 2, 3, rank_id=1 << 16)
    assert repr(config) == before
    assert shm.ShmConfig(1, 2, 3, False, 4) == shm.ShmConfig(init_timeout=1, create_timeout=2, operation_timeout=3,
                                                             start_store=False, flags=4)
    params = bm.CopyData2DParams(1, 2, 3, 4, 5, 6)
    assert [params.src, params.spitch, params.dest, params.dpitch, params.width, params.height] == [1, 2, 3, 4, 5, 6]
    params.src = U64 - 1
    with pytest.raises(OverflowError, match="src"):
        params.src = U64


def test_config_classes_pickle_copy_and_subclass():
    import copy
    import pickle

    class Mine(bm.BmConfig):
        pass

    for value in (bm.BmConfig(1, 2, 3, rank_id=4), shm.ShmConfig(5), bm.CopyData2DParams(1, 2, 3)):
        assert pickle.loads(pickle.dumps(value)) == value == copy.copy(value)
    assert isinstance(Mine(rank_id=3), bm.BmConfig) and Mine(rank_id=3).rank_id == 3


GOOD_VECTORS = [
    [1, 2], (1, 2), array.array("Q", [1, 2]), array.array("q", [1, 2]), numpy.array([1, 2], dtype=numpy.uint64),
    numpy.array([1, 2]), memoryview(array.array("Q", [1, 2])), range(1, 3), memoryview(bytes(16)).cast("Q"),
    numpy.arange(4, dtype=numpy.uint64)[1:3], [numpy.uint64(1), True],
    numpy.frombuffer(bytes(17), dtype=numpy.uint64, offset=1, count=2),
]

BAD_VECTORS = [
    ("12", TypeError), (5, TypeError), (None, TypeError), (b"12345678", TypeError), ({1, 2}, TypeError),
    (numpy.array([1.0, 2.0]), TypeError), (numpy.array([1, 2], dtype=">u8"), TypeError),
    (numpy.array([[1, 2]], dtype=numpy.uint64), TypeError), (numpy.arange(4, dtype=numpy.uint64)[::2], TypeError),
    (numpy.array([1, 2], dtype=numpy.uint32), TypeError), (numpy.array([object(), 1]), TypeError),
    (numpy.array(["2001-01-01"], dtype="M8[s]"), TypeError), (numpy.uint64(3), TypeError),
    ([1, "x"], TypeError), ([1, 2.0], TypeError), ([-1, 2], OverflowError), ([1, U64], OverflowError),
]


@pytest.mark.parametrize("vector", GOOD_VECTORS, ids=lambda v: type(v).__name__)
def test_vectors(vector):
    assert ENGINE.batch_register_memory(vector, [1, 2]) == -2008
    assert ENGINE.batch_transfer_sync_write("a:1", vector, vector, [1, 2]) == -2008


@pytest.mark.parametrize("vector,exception", BAD_VECTORS)
def test_bad_vectors(vector, exception):
    with pytest.raises(exception, match="'capacities'"):
        ENGINE.batch_register_memory([1, 2], vector)
    for place, name in enumerate(("buffers", "peer_buffers", "lengths")):
        arguments = [[1], [1], [1]]
        arguments[place] = vector
        with pytest.raises(exception, match="'%s'" % name):
            ENGINE.batch_transfer_sync_write("a:1", *arguments)


def test_list_that_shrinks_while_it_is_read():
    class Shrinks:
        def __index__(self):
            victim.clear()
            gc.collect()
            return 1

    victim = [Shrinks()] + [1 << 40] * 1000
    with pytest.raises(IndexError):
        ENGINE.batch_register_memory(victim, [1])


def test_buffers_are_let_go():
    a = array.array("Q", [1])
    ENGINE.batch_register_memory(a, a)
    with pytest.raises(TypeError):
        ENGINE.batch_register_memory(a, "x")
    a.append(1)  # would raise BufferError


@pytest.mark.parametrize("value", ["x", 5, None, numpy.arange(8)[::2]])
def test_bad_bytes(value):
    for method, name in ((SHM.set_context, "context"), (SHM.all_gather, "local_data")):
        with pytest.raises(TypeError, match=name):
            method(value)


def test_objects_that_were_never_created():
    for call in (BM.join, BM.leave, BM.local_mem_size, BM.view, SHM.barrier, lambda: SHM.gva, lambda: SHM.local_rank,
                 lambda: SHM.rank_size, lambda: SHM.global_exit(0), lambda: SHM.register_exit(print),
                 lambda: SHM.all_gather(b"x"), lambda: SHM.get_context(0), SHM.view, lambda: BM.peer_rank_ptr(0),
                 lambda: BM.copy_data(1, 1, 1, 0), lambda: BM.copy_data_2d(bm.CopyData2DParams(), 0),
                 lambda: SHM.set_context(b"x"), lambda: SHM.topology_can_reach(0)):
        with pytest.raises(mf_smem.SmemError) as error:
            call()
        assert error.value.code in (-2008, -2000) and error.value.operation in str(error.value)
    assert SHM.topology_can_reach(0, 0) == -2008
    BM.destroy()
    SHM.destroy()
    assert SHM.query_support_data_operation() & 1


def test_services_not_initialised():
    for create in (lambda: bm.create(1, 2 << 20, 0), lambda: bm.BigMemory(1, 2 << 20, 0),
                   lambda: shm.create(0, 1, 0, 2 << 20), lambda: shm.ShareMemory(0, 1, 0, 2 << 20)):
        with pytest.raises(mf_smem.SmemError) as error:
            create()
        assert error.value.code == -2008 and error.value.message == mf_smem.get_last_err_msg()
    assert bm.bm_rank_id() == 0xFFFFFFFF
    bm.uninitialize()
    shm.uninitialize()
    mf_smem.uninitialize()


def test_references_do_not_drift():
    """Every way in and out of a function, many times: nobody's count moves."""
    import sys

    text, url, array_ = "127.0.0.1:" + str(id(ENGINE)), "tcp://" + str(id(BM)), numpy.arange(3)
    config, integer, function = bm.BmConfig(), 1 << 70, lambda *a: None
    watched = [text, url, array_, config, integer, function, BM, SHM, ENGINE, bm.BmConfig, bm.CopyData2DParams,
               shm.ShmConfig, bm.BigMemory, shm.ShareMemory, mf_adapter.TransferEngine, mf_smem.SmemError]

    def attempt(call, *arguments, **keywords):
        try:
            call(*arguments, **keywords)
        except (TypeError, OverflowError, mf_smem.SmemError, AttributeError, ValueError, BufferError):
            pass

    def all_ways():
        for call, arguments, _, _ in BAD:
            attempt(call, *arguments)
        for call in (bm.BmConfig, bm.CopyData2DParams, shm.ShmConfig, bm.BigMemory, shm.ShareMemory,
                     mf_adapter.TransferEngine, bm.create, shm.create):
            attempt(call)
            attempt(call, integer)
            attempt(call, text)
            attempt(call, id=integer)
        attempt(bm.initialize, url, 1, 0, config)
        attempt(ENGINE.initialize, url, text, text, -1)
        attempt(ENGINE.initialize, url + "\0", text, "Decode", -1)
        for vector in (array_, [integer], (text,), [1, 2]):
            attempt(ENGINE.batch_register_memory, array_, vector)
            attempt(ENGINE.batch_transfer_sync_write, text, array_, array_, vector)
        attempt(SHM.register_exit, function)
        attempt(SHM.set_context, array_)
        attempt(SHM.all_gather, array_)
        attempt(BM.copy_data_2d, bm.CopyData2DParams(), 0)
        attempt(setattr, config, "rank_id", integer)
        mf_smem.set_extern_logger(function)
        attempt(mf_smem.set_log_level, 9)
        mf_smem.set_extern_logger(None)
        with mf_adapter.TransferEngine() as engine:
            engine.get_rpc_port()

    mf_smem.set_log_level(3)
    all_ways()
    gc.collect()
    before = [sys.getrefcount(o) for o in watched]
    for _ in range(200):
        all_ways()
    gc.collect()
    after = [sys.getrefcount(o) for o in watched]
    mf_smem.set_log_level(2)
    assert [b - a for a, b in zip(before, after)] == [0] * len(watched)
