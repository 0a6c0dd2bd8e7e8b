# SPDX-License-Identifier: Apache-2.0
"""The public names: what they are called, what they take, what the stubs say, what help() shows."""

import ast
import importlib
import inspect
import pickle
import pydoc
import re
import subprocess
import sys
from enum import IntEnum, IntFlag

import pytest
from conftest import ROOT, STAGE, child_env

MODULES = ("mf_smem", "mf_smem.bm", "mf_smem.shm", "mf_adapter")

NAMES = {
    "mf_smem": {
        "__version__", "SmemError", "ErrorCode", "initialize", "uninitialize", "create_config_store", "set_log_level",
        "set_extern_logger", "get_last_err_msg", "get_and_clear_last_err_msg", "strerror", "register_decrypt_handler",
        "bm", "shm"},
    "mf_smem.bm": {"BmCopyType", "BmDataOpType", "BmMemType", "BmConfig", "CopyData2DParams", "initialize",
                   "uninitialize", "bm_rank_id", "create", "BigMemory"},
    "mf_smem.shm": {"ShmDataOpType", "ShmConfig", "initialize", "uninitialize", "query_support_data_operation",
                    "create", "ShareMemory"},
    "mf_adapter": {"__version__", "Addresses", "TransferOpcode", "create_config_store", "set_log_level", "get_last_err_msg",
                   "TransferEngine"},
}


@pytest.mark.parametrize("name", MODULES)
def test_names(name):
    module = importlib.import_module(name)
    assert set(module.__all__) == NAMES[name]
    for public in module.__all__:
        value = getattr(module, public)
        assert public in ("__version__", "Addresses") or inspect.getdoc(value), public


def stub_functions(name):
    """(class or None, function) of a stub, with what it takes: [(parameter, kind, default text)]."""
    path = STAGE / (name.replace(".", "/") + ("/__init__.pyi" if "." not in name else ".pyi"))
    found = {}

    def add(owner, node):
        given = node.args
        ordinary = given.posonlyargs + given.args
        defaults = [None] * (len(ordinary) - len(given.defaults)) + [ast.unparse(d) for d in given.defaults]
        found[(owner, node.name)] = [
            (a.arg, a in given.posonlyargs, d) for a, d in zip(ordinary, defaults) if a.arg != "self"]

    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            add(None, node)
        elif isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef) and not inner.decorator_list:
                    add(node.name, inner)
    return found


@pytest.mark.parametrize("name", MODULES)
def test_stubs_and_signatures_agree(name):
    module = importlib.import_module(name)
    checked = 0
    for (owner, function), wanted in stub_functions(name).items():
        if function in ("__eq__", "__ne__", "__reduce__"):
            continue
        target = getattr(module, owner) if owner else module
        target = target if function == "__init__" else getattr(target, function)
        parameters = [p for p in inspect.signature(target).parameters.values() if p.name != "self"]
        assert [p.name for p in parameters] == [w[0] for w in wanted], (owner, function)
        for parameter, (_, positional, default) in zip(parameters, wanted):
            assert (parameter.kind is parameter.POSITIONAL_ONLY) == positional, (owner, function, parameter)
            if default is None:
                assert parameter.default is parameter.empty, (owner, function, parameter)
            else:
                assert parameter.default == eval(default, vars(module)), (owner, function, parameter)
        assert inspect.getdoc(target), (owner, function)
        checked += 1
    assert checked > 5


def test_signatures_of_the_specification():
    from mf_adapter import TransferEngine
    from mf_smem import bm, shm

    def names(f):
        return [n for n in inspect.signature(f).parameters if n != "self"]

    assert names(bm.create) == names(bm.BigMemory) == [
        "id", "local_dram_size", "local_hbm_size", "data_op_type", "flags", "member_size"]
    assert names(bm.BigMemory.copy_data) == ["src_ptr", "dst_ptr", "size", "type", "flags"]
    assert names(shm.create) == ["id", "rank_size", "rank_id", "local_mem_size", "data_op_type", "flags"]
    assert names(shm.ShareMemory.topology_can_reach) == ["remote_rank", "reach_info"]
    assert names(TransferEngine.batch_transfer_sync_write) == [
        "dest_session", "buffers", "peer_buffers", "lengths", "flags"]
    assert inspect.signature(bm.create).parameters["data_op_type"].default is bm.BmDataOpType.SDMA


@pytest.mark.parametrize("name", MODULES)
def test_help_reads_well(name):
    text = pydoc.render_doc(importlib.import_module(name), renderer=pydoc.plaintext)
    assert "Built-in function" not in text
    for public in NAMES[name] - {"__version__"}:
        assert public in text
    module = importlib.import_module(name)
    for public in NAMES[name]:
        for line in (inspect.getdoc(getattr(module, public)) or "").splitlines():
            assert len(line) <= 120


def test_every_function_says_its_codes_and_whether_it_blocks():
    for name in MODULES:
        module = importlib.import_module(name)
        for public in module.__all__:
            value = getattr(module, public)
            todo = [value] if inspect.isbuiltin(value) else []
            if public in ("BigMemory", "ShareMemory", "TransferEngine"):
                todo += [f for n, f in vars(value).items() if not n.startswith("_") and inspect.isroutine(f)]
            for f in todo:
                assert re.search(r"block|wait|Blocks|Waits", f.__doc__, re.IGNORECASE), (public, f)


def test_error_codes_are_those_of_the_header():
    from mf_smem import ErrorCode

    header = (ROOT / "include" / "smem.h").read_text()
    body = re.search(r"enum smem_error \{(.*?)\};", header, re.DOTALL).group(1)
    values = {name: int(value) for name, value in re.findall(r"SMEM_(\w+)\s*=\s*(-?\d+)", body)}
    assert len(values) == 18
    assert {code.name: code.value for code in ErrorCode} == values
    assert isinstance(ErrorCode.OK, int) and issubclass(ErrorCode, IntEnum)


def test_enums():
    from mf_adapter import TransferEngine, TransferOpcode
    from mf_smem import bm, shm

    assert [(m.name, m.value) for m in bm.BmCopyType] == [("L2G", 0), ("G2L", 1), ("G2H", 2), ("H2G", 3)]
    assert [(m.name, m.value) for m in bm.BmMemType] == [
        ("LOCAL_DEVICE", 0), ("LOCAL_HOST", 1), ("DEVICE", 2), ("HOST", 3)]
    assert issubclass(bm.BmDataOpType, IntFlag) and bm.BmDataOpType.SDMA | bm.BmDataOpType.ROCE == 3
    assert [m.value for m in shm.ShmDataOpType] == [1, 2, 4]
    assert bm.BmCopyType(0) is bm.BmCopyType.L2G and int(bm.BmCopyType.H2G) == 3 and bm.BmCopyType.G2L + 1 == 2
    assert TransferEngine.TransferOpcode is TransferOpcode and TransferOpcode.Write == 1
    for module, names in ((bm, ("L2G", "SDMA", "HOST")), (shm, ("MTE",))):
        assert not any(hasattr(module, name) for name in names)


def test_error_pickles_and_says_all():
    from mf_smem import SmemError

    error = SmemError(-2004, "no rank came", "smem_bm_join")
    again = pickle.loads(pickle.dumps(error))
    assert (again.code, again.message, again.operation) == (-2004, "no rank came", "smem_bm_join")
    assert isinstance(error, RuntimeError)
    for text in ("-2004", "no rank came", "smem_bm_join"):
        assert text in str(again)
    assert str(SmemError(-2004, "smem_x: SMEM_TIMEOUT (-2004): y", "smem_x")) == "smem_x: SMEM_TIMEOUT (-2004): y"
    assert "-77" in str(SmemError(-77, "?", "f"))


def test_version():
    import mf_adapter
    import mf_smem

    assert mf_smem.__version__ == mf_adapter.__version__ and mf_smem.__version__[0].isdigit()


def test_type_checkers():
    if subprocess.run([sys.executable, "-c", "import mypy"], stderr=subprocess.DEVNULL).returncode:
        pytest.skip("mypy is not installed for %s" % sys.executable)
    for command in (["mypy", "--strict", "-p", "mf_smem", "-p", "mf_adapter"],
                    ["mypy.stubtest", "mf_smem", "mf_adapter"]):
        done = subprocess.run([sys.executable, "-m", *command], env=child_env(MYPYPATH=STAGE), cwd=STAGE,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert done.returncode == 0, done.stdout


def test_import_starts_nothing(child):
    out = child("""
        import threading
        before = set(os.listdir('/proc/self/task')), set(os.listdir('/proc/self/fd'))
        import mf_smem, mf_adapter
        assert (set(os.listdir('/proc/self/task')), set(os.listdir('/proc/self/fd'))) == before
    """)
    assert out.end() == "" and out.err == ""
