# SPDX-License-Identifier: Apache-2.0
"""mf_smem itself: last errors, stores, the logger, the decrypt handler."""

import subprocess
import sys
import threading

import pytest
from conftest import has

import mf_smem


def test_last_error_is_of_the_thread_and_clears(smem):
    smem.get_and_clear_last_err_msg()
    assert smem.get_last_err_msg() == ""
    assert smem.set_log_level(4) == -2000
    text = smem.get_last_err_msg()
    assert text.startswith("smem_set_log_level: SMEM_INVALID_PARAM (-2000)") and smem.get_last_err_msg() == text
    seen = []
    thread = threading.Thread(target=lambda: seen.append(smem.get_last_err_msg()))
    thread.start()
    thread.join()
    assert seen == [""]
    assert smem.set_log_level(2) == 0 and smem.get_last_err_msg() == text
    assert smem.get_and_clear_last_err_msg() == text and smem.get_last_err_msg() == ""


def test_failures_found_in_python_are_last_errors_too(smem):
    import mf_adapter

    engine = mf_adapter.TransferEngine()
    assert engine.initialize("tcp://127.0.0.1:1", "127.0.0.1:2", "prefill", -1) == -2000
    assert "prefill" in mf_adapter.get_last_err_msg()
    smem.set_log_level(9)
    assert "level 9" in smem.get_last_err_msg()
    engine.register_memory(1, 1)
    assert "(-2008)" in smem.get_and_clear_last_err_msg() and smem.get_last_err_msg() == ""


def test_strerror():
    texts = {mf_smem.strerror(code) for code in mf_smem.ErrorCode}
    assert len(texts) == len(mf_smem.ErrorCode) and all(texts)
    assert mf_smem.strerror(12345)


def test_store(smem, url):
    assert smem.create_config_store(url) == 0
    assert smem.create_config_store(url) == 0
    assert smem.create_config_store("tcp://1.2.3.4.5:x") == -2000
    smem.uninitialize()
    assert smem.create_config_store(url) == 0


def test_store_port_taken(smem):
    import socket

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        assert smem.create_config_store("tcp://127.0.0.1:%d" % other.getsockname()[1]) == -2009


def test_logger(smem, capfd):
    records = []
    assert smem.set_extern_logger(lambda level, text: records.append((level, text))) == 0
    try:
        smem.set_log_level(-1)
        assert len(records) == 1 and records[0][0] == 3 and records[0][1].startswith("[")
        assert capfd.readouterr().err == ""
    finally:
        assert smem.set_extern_logger(None) == -2000
    smem.set_log_level(-1)
    assert len(records) == 1
    line = capfd.readouterr().err.splitlines()[-1]
    assert " error " in line and "level -1" in line


def test_logger_exception_goes_to_the_hook(smem, monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", lambda u: seen.append(u.exc_value))

    def bad(level, text):
        raise KeyError(text)

    smem.set_extern_logger(bad)
    assert smem.set_log_level(-1) == -2000  # no exception comes out of it
    smem.set_extern_logger(None)
    assert len(seen) == 1 and isinstance(seen[0], KeyError)


def test_logger_may_call_and_may_replace_itself(smem):
    records = []

    def second(level, text):
        records.append("second")

    def first(level, text):
        records.append(smem.get_last_err_msg())
        smem.set_extern_logger(second)

    smem.set_extern_logger(first)
    smem.set_log_level(-1)
    smem.set_log_level(-1)
    smem.set_extern_logger(None)
    assert records[1:] == ["second"]


def test_logger_is_dropped(smem):
    import gc
    import weakref

    def logger(level, text):
        pass

    ref = weakref.ref(logger)
    smem.set_extern_logger(logger)
    smem.set_extern_logger(None)
    del logger
    gc.collect()
    assert ref() is None


def test_logger_from_threads_of_the_library(child, url):
    """A store that cannot be reached and one that is hosted make the library's own threads log at level debug."""
    out = child("""
        import threading, mf_smem
        from mf_smem import bm
        seen = set()
        mf_smem.set_extern_logger(lambda level, text: seen.add(threading.get_native_id()))
        mf_smem.set_log_level(0)
        assert bm.initialize(URL, 1, 0, bm.BmConfig(rank_id=0)) == 0
        for i in range(20):
            with bm.BigMemory(i, 2 << 20, 0) as pool:
                pool.join()
        bm.uninitialize()
        print(len(seen))
    """, URL=url).end()
    assert int(out) >= 1


def test_callbacks_at_shutdown_are_dropped(child, url):
    """The interpreter ends while threads of the library log without pause."""
    c = child("""
        import mf_smem, threading
        from mf_smem import bm
        mf_smem.set_log_level(0)
        mf_smem.set_extern_logger(lambda level, text: None)
        assert bm.initialize(URL, 1, 0, bm.BmConfig(rank_id=0)) == 0
        pool = bm.create(1, 2 << 20, 0)
        pool.join()
        started = threading.Event()
        def storm():
            while True:
                mf_smem.set_log_level(9)
                started.set()
        for _ in range(4):
            threading.Thread(target=storm, daemon=True).start()
        started.wait()
        print('end')
    """, URL=url)
    assert c.end() == "end\n"


def test_one_library_with_a_c_host(smem):
    """What ctypes sets on the library that this process loaded is seen by the packages."""
    import ctypes

    from conftest import BUILD

    c = ctypes.CDLL(str(BUILD / "libmf_smem.so.1"))
    records = []
    smem.set_extern_logger(lambda level, text: records.append(text))
    c.smem_set_log_level(7)
    smem.set_extern_logger(None)
    assert len(records) == 1
    c.smem_get_last_err_msg.restype = ctypes.c_char_p
    assert c.smem_get_last_err_msg().decode() == smem.get_last_err_msg()


TLS = """
    import mf_smem
    info, mode = sys.argv[1:3]
    os.environ['SMEM_CONF_STORE_TLS_INFO'] = info
    calls = []
    sys.unraisablehook = lambda u: calls.append(type(u.exc_value).__name__)
    def handler(cipher):
        calls.append(cipher)
        if mode == 'raise': raise RuntimeError('no')
        return {'good': cipher[::-1], 'bytes': b'x', 'empty': '', 'long': 'x' * 100000}[mode]
    assert mf_smem.register_decrypt_handler(None) == -2000
    assert mf_smem.register_decrypt_handler(handler) == 0
    assert mf_smem.register_decrypt_handler(py_decrypt_func=None) == -2000
    print(mf_smem.create_config_store(URL), calls)
"""


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    if not has("openssl"):
        pytest.skip("no openssl command to make certificates with")
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-days", "2",
            "-subj", "/CN=ca")
    openssl("req", "-newkey", "rsa:2048", "-passout", "pass:secret", "-keyout", "key.pem", "-out", "own.csr",
            "-subj", "/CN=own")
    openssl("x509", "-req", "-in", "own.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-set_serial", "1", "-days", "2",
            "-out", "own.pem")
    (folder / "pass").write_text("\n terces \n")
    return "tlsCaPath: %s; tlsCaFile: ca.pem; tlsCert: %s/own.pem; tlsPk: %s/key.pem; tlsPkPwd: %s/pass" % (
        (folder,) * 4)


@pytest.mark.parametrize("mode,code,calls", [
    ("good", 0, ["terces"]), ("raise", -2025, ["terces", "RuntimeError"]), ("bytes", -2025, ["terces", "TypeError"]),
    ("empty", -2025, ["terces", "ValueError"]), ("long", -2025, ["terces", "ValueError"])])
def test_decrypt_handler(child, url, tls, mode, code, calls):
    assert child(TLS, tls, mode, URL=url).end() == "%d %r\n" % (code, calls)


