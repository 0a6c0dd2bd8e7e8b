# SPDX-License-Identifier: Apache-2.0
"""mf_adapter: the transfer engine as connectors use it."""

import array
import gc
import socket
import threading
import weakref

import numpy
import pytest

import mf_adapter
import mf_smem
from mf_adapter import TransferEngine


@pytest.fixture
def store(smem, url):
    assert mf_adapter.create_config_store(url) == 0
    yield url
    gc.collect()


def engine_of(url, name, role="Decode"):
    engine = TransferEngine()
    code = engine.initialize(url, name, role, -1)
    assert code == 0, mf_adapter.get_last_err_msg()
    return engine


def buffer_of(size, value=0):
    return numpy.full(size, value, dtype=numpy.uint8)


def test_before_and_after(store):
    engine = TransferEngine()
    assert 15000 <= engine.get_rpc_port() <= 25000
    calls = [
        lambda: engine.register_memory(1, 1), lambda: engine.unregister_memory(1),
        lambda: engine.batch_register_memory([], []), lambda: engine.transfer_sync_write("a:1", 1, 1, 1),
        lambda: engine.transfer_sync_read("a:1", 1, 1, 1), lambda: engine.batch_transfer_sync_write("a:1", [], [], []),
        lambda: engine.batch_transfer_sync_read("a:1", [], [], [])]
    assert [call() for call in calls] == [-2008] * 7
    assert engine.destroy() is None and engine.unInitialize() is None
    assert engine.initialize(store, "127.0.0.1:1", "decode", -1) == -2000
    assert engine.initialize(store, "nonsense", "Decode", -1) == -2000
    assert engine.initialize("nonsense", "127.0.0.1:1", "Decode", -1) == -2000
    assert engine.initialize(store_url=store, session_id="127.0.0.1:1", role="Decode", device_id=0) == 0
    assert engine.initialize(store, "127.0.0.1:1", "Decode", -1) == -2005
    other = TransferEngine()
    assert other.initialize(store, "127.0.0.1:1", "Decode", -1) == -2006
    engine.destroy()
    engine.destroy()
    assert [call() for call in calls] == [-2008] * 7
    assert other.initialize(store, "127.0.0.1:1", "Prefill", -1) == 0
    assert engine.initialize(store, "127.0.0.1:2", "Decode", -1) == 0


def test_transfers(store):
    prefill, decode = engine_of(store, "127.0.0.1:1", "Prefill"), engine_of(store, "127.0.0.1:2")
    source, target = buffer_of(1 << 20, 7), buffer_of(1 << 20)
    here, there, size = source.ctypes.data, target.ctypes.data, source.nbytes
    assert prefill.transfer_sync_write("127.0.0.1:2", here, there, size) == -2000  # not registered
    assert decode.register_memory(there, size) == 0 == decode.register_memory(there, size)
    assert decode.register_memory(there, size - 1) == -2006
    assert prefill.transfer_sync_write("127.0.0.1:2", here, there, size, 99) == 0
    assert numpy.array_equal(source, target)
    assert prefill.transfer_sync_write("127.0.0.1:2", here, there + 1, size) == -2000
    assert prefill.transfer_sync_write("127.0.0.1:9", here, there, size) == -2007
    assert prefill.transfer_sync_write("nonsense", here, there, size) == -2000
    assert prefill.register_memory(here, size) == 0
    assert decode.transfer_sync_write("127.0.0.1:1", there, here, size) == -2000  # Prefill takes no writes
    code = decode.transfer_sync_read("127.0.0.1:1", there, here, size)
    assert code in (0, -2023)
    for flags in (1, 4):
        assert decode.transfer_sync_read("127.0.0.1:1", there, here, size, flags) == -2000
        assert decode.batch_transfer_sync_read("127.0.0.1:1", [there], [here], [size], flags) == -2000
    assert decode.transfer_sync_read("127.0.0.1:1", there, here, size, flags=2) == code
    assert decode.batch_transfer_sync_read("127.0.0.1:1", [there], [here], [size], 2) == code
    assert decode.unregister_memory(there) == 0
    assert decode.unregister_memory(there) == -2007
    assert prefill.transfer_sync_write("127.0.0.1:2", here, there, size) == -2000


@pytest.mark.parametrize("kind", [
    list, tuple, lambda v: array.array("Q", v), lambda v: array.array("q", v),
    lambda v: numpy.array(v, dtype=numpy.uint64), lambda v: numpy.array(v, dtype=numpy.int64),
    lambda v: memoryview(array.array("Q", v))])
def test_batches(store, kind):
    engine = engine_of(store, "127.0.0.1:2")
    blocks = 64
    source, target = numpy.random.default_rng(1).integers(0, 255, (blocks, 256), numpy.uint8), buffer_of(blocks * 512)
    sources = [source.ctypes.data + i * 256 for i in range(blocks)]
    targets = [target.ctypes.data + i * 512 for i in range(blocks)]
    assert engine.batch_register_memory(kind(targets), kind([256] * blocks)) == 0
    assert engine.batch_transfer_sync_write("127.0.0.1:2", kind(sources), kind(targets), kind([256] * blocks)) == 0
    assert numpy.array_equal(target.reshape(blocks, 512)[:, :256], source)
    assert not target.reshape(blocks, 512)[:, 256:].any()
    target[:] = 0
    assert engine.batch_transfer_sync_write("127.0.0.1:2", kind(sources), kind(targets[:-1]), [256] * blocks) == -2000
    assert engine.batch_transfer_sync_write("127.0.0.1:2", kind(sources), kind(targets), [256] * 63 + [257]) == -2000
    assert not target.any()
    assert engine.batch_transfer_sync_write("127.0.0.1:9", kind([]), [], []) == 0
    assert engine.batch_register_memory([], kind([])) == 0
    assert engine.batch_register_memory([1], kind([])) == -2000
    for address in targets:
        assert engine.unregister_memory(address) == 0


def test_hundreds_of_tiny_unaligned_regions(store):
    engine = engine_of(store, "127.0.0.1:2")
    pool, source = buffer_of(10000), buffer_of(10000, 9)
    starts = [pool.ctypes.data + 13 * i + 1 for i in range(700)]
    lengths = [1 + i % 11 for i in range(700)]
    assert engine.batch_register_memory(starts, lengths) == 0
    assert engine.batch_transfer_sync_write("127.0.0.1:2", [source.ctypes.data + i for i in range(700)], starts,
                                            lengths) == 0
    expected = buffer_of(10000)
    for start, length in zip(starts, lengths):
        expected[start - pool.ctypes.data:start - pool.ctypes.data + length] = 9
    assert numpy.array_equal(pool, expected)
    for start in starts:
        assert engine.unregister_memory(start) == 0


def test_batch_registration_is_all_or_nothing(store):
    engine = engine_of(store, "127.0.0.1:2")
    pool = buffer_of(100)
    assert engine.batch_register_memory([pool.ctypes.data, pool.ctypes.data + 10], [5, 0]) == -2000
    assert engine.unregister_memory(pool.ctypes.data) == -2007


def test_many_threads(store):
    engine, decode = engine_of(store, "127.0.0.1:1", "Prefill"), engine_of(store, "127.0.0.1:2")
    size, codes = 64 << 10, []

    def work(index):
        source, target = buffer_of(size, index + 1), buffer_of(size)
        for _ in range(30):
            codes.append(decode.register_memory(target.ctypes.data, size))
            codes.append(engine.transfer_sync_write("127.0.0.1:2", source.ctypes.data, target.ctypes.data, size))
            codes.append(0 if target[-1] == index + 1 else 1)
            codes.append(decode.unregister_memory(target.ctypes.data))
            target[:] = 0

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [0] * len(codes) and len(codes) == 8 * 30 * 4


def test_destroy_while_threads_are_inside(store):
    for _ in range(10):
        engine = engine_of(store, "127.0.0.1:2")
        source, target = buffer_of(1 << 20), buffer_of(1 << 20)
        assert engine.register_memory(target.ctypes.data, target.nbytes) == 0
        codes, started = set(), threading.Barrier(5)

        def work():
            started.wait()
            code = 0
            while code == 0:
                code = engine.transfer_sync_write("127.0.0.1:2", source.ctypes.data, target.ctypes.data, target.nbytes)
            codes.add(code)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        started.wait()
        engine.destroy()
        for thread in threads:
            thread.join()
        assert codes <= {-2008, -2007, -2000, -2022, -2020}


def test_engine_that_waits_for_its_store(smem, url, late_store):
    engine, codes = TransferEngine(), []
    thread = threading.Thread(target=lambda: codes.append(engine.initialize(url, "127.0.0.1:2", "Decode", -1)))
    thread.start()
    assert engine.register_memory(1, 1) == -2008
    late_store()
    thread.join()
    assert codes == [0]
    engine.destroy()


def test_store_hosted_here_while_an_engine_waits_for_it(smem, url):
    """The thread that connects must not keep the one that serves out."""
    engines, codes = [TransferEngine() for _ in range(3)], []
    threads = [threading.Thread(target=lambda e=e, i=i: codes.append(e.initialize(url, "127.0.0.1:%d" % i, "Decode", -1)))
               for i, e in enumerate(engines, 1)]
    for thread in threads:
        thread.start()
    assert mf_adapter.create_config_store(url) == 0
    for thread in threads:
        thread.join()
    assert codes == [0] * 3


def test_engine_destroyed_while_it_waits(smem, url, late_store):
    engine, codes = TransferEngine(), []

    def wait():
        code = -2005
        while code == -2005:  # the probe below was there first
            code = engine.initialize(url, "127.0.0.1:2", "Decode", -1)
        codes.append(code)

    thread = threading.Thread(target=wait)
    thread.start()
    while engine.initialize("nonsense", "127.0.0.1:3", "Decode", -1) != -2005:
        pass  # until the thread's call is on its way
    engine.destroy()
    late_store()
    thread.join()
    assert codes == [-2007]
    assert engine.initialize(url, "127.0.0.1:2", "Decode", -1) == 0


def test_uninitialize_destroys_all(store):
    engines = [engine_of(store, "127.0.0.1:%d" % (i + 1)) for i in range(3)]
    idle = TransferEngine()
    ports = [e.get_rpc_port() for e in engines]
    kept = idle.get_rpc_port()
    engines[0].unInitialize()
    for engine in engines:
        assert engine.register_memory(1, 1) == -2008
        engine.destroy()
    assert idle.get_rpc_port() == kept
    for port in ports:
        with socket.socket() as s:
            s.bind(("0.0.0.0", port))
    assert mf_smem.create_config_store(store) == 0
    assert engines[1].initialize(store, "127.0.0.1:1", "Decode", -1) == 0
    engines[0].unInitialize()  # this one is not initialised: nothing happens
    assert engines[1].register_memory(1, 0) == -2000


def test_context_manager_and_collection(store):
    with TransferEngine() as engine:
        assert engine.initialize(store, "127.0.0.1:1", "Decode", -1) == 0
    assert engine.unregister_memory(1) == -2008
    ref = weakref.ref(engine)
    del engine
    assert ref() is None
    engine = engine_of(store, "127.0.0.1:1")
    del engine
    engine_of(store, "127.0.0.1:1").destroy()


def bound(port):
    """Is the port taken, on either family?"""
    for family, host in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        try:
            with socket.socket(family) as s:
                if family == socket.AF_INET6:
                    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                s.bind((host, port))
        except OSError:
            return True
    return False


def test_ports(smem):
    engines = [TransferEngine() for _ in range(50)]
    ports = [e.get_rpc_port() for e in engines]
    assert len(set(ports)) == 50 and all(15000 <= p <= 17000 for p in ports)
    assert [e.get_rpc_port() for e in engines] == ports
    assert all(bound(p) for p in ports)
    engines[0].destroy()
    assert not bound(ports[0])
    second = ports[1]
    del engines[1]
    assert not bound(second)


def test_ports_of_processes_differ(child):
    script = """
        from mf_adapter import TransferEngine
        engines = [TransferEngine() for _ in range(40)]
        print(*[e.get_rpc_port() for e in engines], flush=True)
        sys.stdin.readline()
    """
    children = [child(script) for _ in range(4)]
    ports = [p for c in children for p in c.line().split()]
    assert len(ports) == 160 == len(set(ports)) and "0" not in ports
    for c in children:
        c.tell("go")
        c.end()


def test_port_in_use_is_not_given(smem):
    """With all of the first range taken the second one serves."""
    taken = []
    try:
        for port in range(15000, 17001):
            s = socket.socket()
            try:
                s.bind(("127.0.0.1", port))
                taken.append(s)
            except OSError:
                s.close()
        assert 17001 <= TransferEngine().get_rpc_port() <= 25000
    finally:
        for s in taken:
            s.close()


def test_two_processes(child, store):
    peer = child("""
        import numpy
        from mf_adapter import TransferEngine, get_last_err_msg
        engine = TransferEngine()
        assert engine.initialize(URL, '127.0.0.1:2', 'Decode', -1) == 0
        cache = numpy.zeros(1 << 20, dtype=numpy.uint8)
        assert engine.register_memory(cache.ctypes.data, cache.nbytes) == 0
        print(cache.ctypes.data, flush=True)
        sys.stdin.readline()
        print(int(cache.sum()), flush=True)
        sys.stdin.readline()
    """, URL=store)
    there = int(peer.line())
    engine = engine_of(store, "127.0.0.1:1", "Prefill")
    source = buffer_of(1 << 20, 1)
    offsets = numpy.arange(256, dtype=numpy.uint64) * numpy.uint64(4096)
    assert engine.batch_transfer_sync_write(
        "127.0.0.1:2", offsets + numpy.uint64(source.ctypes.data), offsets + numpy.uint64(there),
        numpy.full(256, 4096, dtype=numpy.uint64)) == 0
    peer.tell("sum")
    assert peer.line() == str(1 << 20)
    peer.kill()
    code = 0
    while code == 0:
        code = engine.transfer_sync_write("127.0.0.1:2", source.ctypes.data, there, 4096)
    assert code == -2020
    assert engine.transfer_sync_write("127.0.0.1:7", source.ctypes.data, there, 4096) == -2007  # no such peer yet


def test_undestroyed_at_exit(child, store):
    c = child("""
        import threading
        from mf_adapter import TransferEngine
        engine = TransferEngine()
        port = engine.get_rpc_port()
        assert engine.initialize(URL, '127.0.0.1:1', 'Decode', -1) == 0
        assert engine.get_rpc_port() == port
        late = TransferEngine()
        threading.Thread(target=late.initialize, args=('tcp://127.0.0.1:1', '127.0.0.1:5', 'Decode', -1), daemon=True).start()
    """, URL=store, options=("-X", "dev"))
    assert c.end() == ""
    assert engine_of(store, "127.0.0.1:1")  # the name is free


@pytest.mark.parametrize("form,shown", [("tcp://127.0.0.1:%d", "tcp://127.0.0.1:%d"),
                                        ("tcp:://127.0.0.1/8:%d", "tcp://127.0.0.1:%d"),
                                        ("tcp://[::1]:%d", "tcp://[::1]:%d")])
@pytest.mark.parametrize("signal", ["SIGINT", "SIGTERM"])
def test_launch_store(signal, form, shown):
    import signal as signals
    import subprocess
    import sys

    from conftest import LIMIT, child_env, free_port

    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "mf_adapter.launch_store", form % port, "--log-level", "1"],
                               env=child_env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "listening on %s\n" % (shown % port)
        engine = TransferEngine()
        assert engine.initialize(form % port, "127.0.0.1:1", "Decode", -1) == 0
        engine.destroy()
        process.send_signal(getattr(signals, signal))
        out, err = process.communicate(timeout=LIMIT)
        assert (process.returncode, out) == (0, ""), err
        assert "Traceback" not in err
    finally:
        process.kill()
        process.communicate()


def test_launch_store_failures():
    import subprocess
    import sys

    from conftest import child_env

    for arguments, status, text in ((["tcp://127.0.0.1:0"], 1, "(-2000)"), ([], 2, "usage"),
                                    (["tcp://127.0.0.1:1", "--log-level", "9"], 2, "usage"),
                                    (["a", "b"], 2, "usage")):
        done = subprocess.run([sys.executable, "-m", "mf_adapter.launch_store", *arguments], env=child_env(),
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert done.returncode == status and text in done.stderr and done.stdout == ""
