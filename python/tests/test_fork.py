# SPDX-License-Identifier: Apache-2.0
"""fork and multiprocessing: objects inherited are inert, the parent notices nothing, children may begin anew."""

import pytest

LIVE = """
    import gc, mf_smem, mf_adapter, numpy, signal
    from mf_smem import bm, shm
    assert bm.initialize(URL, 4, 0, bm.BmConfig(rank_id=0, init_timeout=30, operation_timeout=30)) == 0
    assert shm.initialize(URL, 1, 0, 0, shm.ShmConfig(init_timeout=30)) == 0
    pool, memory = bm.create(1, 2 << 20, 0), shm.create(0, 1, 0, 2 << 20)
    address = pool.join()
    engine = mf_adapter.TransferEngine()
    assert engine.initialize(URL, '127.0.0.1:1', 'Decode', -1) == 0
    port = engine.get_rpc_port()
    buffer = numpy.full(4096, 3, numpy.uint8)
    def works():
        pool.copy_data(buffer.ctypes.data, address, 4096, bm.BmCopyType.H2G)
        memory.barrier()
        assert engine.register_memory(buffer.ctypes.data, 4096) == 0
        assert engine.transfer_sync_write('127.0.0.1:1', buffer.ctypes.data, buffer.ctypes.data, 4096) == 0
        return True
    assert works()
    def inert():
        assert bm.bm_rank_id() == 0xFFFFFFFF
        for call in (pool.join, pool.local_mem_size, pool.view, memory.barrier, lambda: memory.gva):
            try:
                call()
                raise SystemExit('not inert')
            except mf_smem.SmemError as e:
                assert e.code == -2008, e
        assert engine.register_memory(buffer.ctypes.data, 4096) == -2008
        pool.destroy()
        memory.destroy()
        engine.destroy()
        return True
    def wait(pid):
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert status == 0, status
"""


def test_objects_in_a_child_are_inert(child, url):
    child(LIVE + """
    for how in ('exit', 'kill', 'collect'):
        pid = os.fork()
        if pid == 0:
            inert()
            if how == 'kill':
                os.kill(os.getpid(), signal.SIGKILL)
            if how == 'collect':
                del pool, memory, engine
                gc.collect()
                sys.exit(0)   # the whole way out of an interpreter
            os._exit(0)
        if how == 'kill':
            os.waitpid(pid, 0)
        else:
            wait(pid)
        assert works() and engine.get_rpc_port() == port
    pool.destroy()
    mf_smem.uninitialize()
    """, URL=url).end()


def test_child_may_begin_anew(child, url):
    child(LIVE + """
    pid = os.fork()
    if pid == 0:
        assert engine.get_rpc_port() != port
        assert bm.initialize(URL, 4, 0, bm.BmConfig(rank_id=1, init_timeout=30, operation_timeout=30)) == 0
        with bm.create(1, 2 << 20, 0) as mine:
            assert mine.join() == address + (2 << 20)
            assert mine.view(0)[0] == 3
        assert engine.initialize(URL, '127.0.0.1:2', 'Decode', -1) == 0
        assert engine.transfer_sync_write('127.0.0.1:1', buffer.ctypes.data, buffer.ctypes.data, 16) == 0
        engine.destroy()
        mf_smem.uninitialize()
        os._exit(0)
    wait(pid)
    assert works()
    """, URL=url).end()


def test_fork_with_views_and_from_threads(child, url):
    child(LIVE + """
    import threading
    view = pool.view()
    failures = []
    def fork_some():
        for _ in range(10):
            pid = os.fork()
            if pid == 0:
                try:
                    memoryview(view.obj)
                    os._exit(3)
                except BufferError:
                    os._exit(0)
            if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0:
                failures.append(pid)
    def copy_on():
        while not done.is_set():
            works()
    done = threading.Event()
    busy = [threading.Thread(target=copy_on) for _ in range(2)]
    forking = [threading.Thread(target=fork_some) for _ in range(2)]
    for t in busy + forking:
        t.start()
    for t in forking:
        t.join()
    done.set()
    for t in busy:
        t.join()
    assert not failures
    """, URL=url).end()


WORKER = '''
import os
def job(n):
    import mf_smem, mf_adapter
    engine = mf_adapter.TransferEngine()
    name = '127.0.0.1:%d' % engine.get_rpc_port()
    if engine.initialize(os.environ['URL'], name, 'Decode', -1) != 0:
        return mf_smem.get_last_err_msg()
    import array
    source, target = array.array('B', [n] * 100), array.array('B', bytes(100))
    here, there = source.buffer_info()[0], target.buffer_info()[0]
    engine.register_memory(there, 100)
    code = engine.transfer_sync_write(name, here, there, 100)
    engine.destroy()
    return code if code else int(sum(target) == 100 * n) - 1
'''


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("before", ["nothing", "live"])
def test_pools_of_processes(child, url, tmp_path, method, before):
    (tmp_path / "pool_worker.py").write_text(WORKER)
    child(("""
    import mf_smem
    assert mf_smem.create_config_store(URL) == 0
    """ if before == "nothing" else LIVE) + """
    import multiprocessing
    sys.path.insert(0, sys.argv[1])
    os.environ['PYTHONPATH'] = sys.argv[1] + ':' + os.environ['PYTHONPATH']
    import pool_worker
    with multiprocessing.get_context(sys.argv[2]).Pool(3) as workers:
        results = workers.map(pool_worker.job, range(12))
        workers.close()
        workers.join()
    assert results == [0] * 12, results
    """ + ("" if before == "nothing" else "assert works()\n"), tmp_path, method, URL=url).end()


def test_settings_stay_in_a_child(child, url):
    out = child("""
    import mf_smem
    seen = []
    mf_smem.set_extern_logger(lambda level, text: seen.append(text))
    mf_smem.set_log_level(3)
    pid = os.fork()
    if pid == 0:
        mf_smem.set_log_level(-1)
        assert len(seen) == 1
        assert mf_smem.create_config_store(URL) == 0
        mf_smem.uninitialize()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert not seen
    print('ok')
    """, URL=url).end()
    assert out == "ok\n"
