# SPDX-License-Identifier: Apache-2.0
"""The wheels, installed into an empty virtual environment in another folder; which library a process gets."""

import glob
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile

import pytest
from conftest import BUILD, LIMIT, ROOT

VERSION = "1.2.3rc1"


def clean_env(**more):
    env = {name: value for name, value in os.environ.items()
           if name not in ("LD_LIBRARY_PATH", "PYTHONPATH", "VERSION", "MF_SMEM_BUILD", "MF_SMEM_BUNDLE")}
    env.update({name: str(value) for name, value in more.items()})
    return env


def run(*command, status=0, cwd=None, timeout=LIMIT, **env):
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=clean_env(**env), stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout)
    assert done.returncode == status, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """Built as `make wheel` builds them, but around the library under test, which is built already."""
    dist = tmp_path_factory.mktemp("dist")
    run(ROOT / "scripts" / "wheel.sh", dist, timeout=300, VERSION="1.2.3-rc.1", MF_SMEM_BUILD=BUILD,
        PYTHON=sys.executable)
    return dist


@pytest.fixture(scope="module")
def python(wheels, tmp_path_factory):
    """The interpreter of an empty virtual environment with the wheels in it."""
    folder = tmp_path_factory.mktemp("empty") / "venv"
    venv.create(folder, with_pip=True)
    found = folder / "bin" / "python"
    run(found, "-m", "pip", "--disable-pip-version-check", "install", "--no-index", "--quiet", *wheels.glob("*.whl"))
    return found


def test_names_and_contents(wheels):
    names = {path.name for path in wheels.iterdir()}
    assert "mf_adapter-%s-py3-none-any.whl" % VERSION in names
    smem = [n for n in names if re.fullmatch(r"mf_smem-%s-cp3(\d+)-abi3-linux_\w+\.whl" % re.escape(VERSION), n)]
    assert len(smem) == 1 and int(re.search(r"-cp3(\d+)-", smem[0]).group(1)) <= 11
    assert "mf_smem-%s.tar.gz" % VERSION in names
    inside = zipfile.ZipFile(wheels / smem[0]).namelist()
    for wanted in ("mf_smem/py.typed", "mf_smem/bm.pyi", "mf_smem/__init__.pyi", "mf_smem/shm.pyi",
                   "mf_smem/_smem.abi3.so", "mf_smem/.libs/libmf_smem.so.1"):
        assert wanted in inside
    assert not [n for n in inside if n.endswith((".c", ".h")) or "test" in n or "setup.py" in n]
    adapter = zipfile.ZipFile(wheels / ("mf_adapter-%s-py3-none-any.whl" % VERSION))
    assert not [n for n in adapter.namelist() if n.endswith(".so") or "setup" in n]
    assert "mf_adapter/py.typed" in adapter.namelist() and "mf_adapter/__init__.pyi" in adapter.namelist()
    metadata = adapter.read("mf_adapter-%s.dist-info/METADATA" % VERSION).decode()
    assert re.search(r"^Requires-Dist: mf[-_]smem ?\(?==%s" % re.escape(VERSION), metadata, re.MULTILINE)


def test_bad_version(tmp_path):
    out = run(ROOT / "scripts" / "wheel.sh", tmp_path, status=1, VERSION="not-a-version", MF_SMEM_BUILD=BUILD,
              PYTHON=sys.executable)
    assert "PEP 440" in out and not list(tmp_path.glob("*.whl"))


USE = """
import array, os, sys
import mf_smem, mf_adapter
from importlib.metadata import version
assert mf_smem.__version__ == mf_adapter.__version__ == version("mf_smem") == version("mf_adapter") == sys.argv[1]
from mf_smem import bm
assert bm.initialize("tcp://127.0.0.1:" + sys.argv[2], 1, 0, bm.BmConfig(rank_id=0)) == 0, mf_smem.get_last_err_msg()
with bm.create(1, 2 << 20, 0) as pool:
    pool.join()
    data = array.array("B", b"x" * 100)
    pool.copy_data(data.buffer_info()[0], pool.peer_rank_ptr(0), 100, bm.BmCopyType.H2G)
    assert bytes(pool.view()[:100]) == b"x" * 100
mf_smem.uninitialize()
with open("/proc/self/maps") as maps:
    print({line.split()[-1] for line in maps if "libmf_smem.so" in line})
"""


def test_installed(python, tmp_path):
    from conftest import free_port

    out = run(python, "-X", "dev", "-c", USE, VERSION, free_port(), cwd=tmp_path)
    assert str(python.parent.parent.resolve()) in out and out.count("libmf_smem") == 1
    library = re.search(r"'(/[^']+libmf_smem[^']+)'", out).group(1)
    assert "not found" not in run("ldd", os.path.join(os.path.dirname(os.path.dirname(library)), "_smem.abi3.so"))


def test_bundled_libraries_find_each_other(python):
    """All of the bundle that gets loaded, libfabric at last as the library loads it, is the bundle's own."""
    folder = os.path.dirname(run(python, "-c", "import mf_smem; print(mf_smem.__file__)").strip()) + "/.libs"
    assert re.search(r"R(UN)?PATH.*\$ORIGIN", run("readelf", "-d", folder + "/libmf_smem.so.1"))
    out = run(python, "-c", "import sys, ctypes, mf_smem\n"
              "assert not any('fabric' in line for line in open('/proc/self/maps'))\n"
              "assert ctypes.CDLL(sys.argv[1] + '/libfabric.so.1').fi_getinfo\n"
              "print(*{line.split()[-1] for line in open('/proc/self/maps') if '.so' in line}, sep='\\n')", folder)
    loaded = {os.path.basename(path): os.path.dirname(path) for path in out.split()}
    for name in os.listdir(folder):
        assert loaded[name] == folder, name
    assert "libfabric-bundled.so" in loaded


@pytest.mark.parametrize("other", ["python3.12", "python3.13", "python3.14"])
def test_later_pythons(python, other):
    """abi3: the same files in a later CPython."""
    places = [shutil.which(other)] + glob.glob(os.path.expanduser("~/.pyenv/versions/*/bin/" + other))
    found = next((p for p in places if p and subprocess.run([p, "-c", ""], stderr=subprocess.DEVNULL).returncode == 0), None)
    if not found:
        pytest.skip("no %s that runs on PATH or below ~/.pyenv" % other)
    site = run(python, "-c", "import mf_smem, os; print(os.path.dirname(os.path.dirname(mf_smem.__file__)))").strip()
    out = run(found, "-c", "import mf_smem, mf_adapter; print(mf_smem.set_log_level(9), mf_adapter.TransferEngine()"
              ".register_memory(1, 1), mf_smem.bm.BmConfig(rank_id=1))", PYTHONPATH=site)
    assert "-2000 -2008 BmConfig(" in out


def test_library_of_the_search_path_comes_first(python, tmp_path):
    shutil.copy(os.path.realpath(BUILD / "libmf_smem.so.1"), tmp_path / "libmf_smem.so.1")
    out = run(python, "-c", "import mf_smem; print([l for l in open('/proc/self/maps') if 'libmf_smem.so' in l])",
              LD_LIBRARY_PATH=tmp_path)
    assert str(tmp_path) in out and ".libs/libmf_smem" not in out


def test_library_that_is_loaded_already_comes_first(python, tmp_path):
    shutil.copy(os.path.realpath(BUILD / "libmf_smem.so.1"), tmp_path / "libmf_smem.so.1")
    out = run(python, "-c", "import sys, ctypes; ctypes.CDLL(sys.argv[1]); import mf_smem; "
              "print([l for l in open('/proc/self/maps') if 'libmf_smem.so' in l])", tmp_path / "libmf_smem.so.1")
    assert str(tmp_path) in out and ".libs/libmf_smem" not in out


@pytest.mark.parametrize("how,file", [
    ("given", "libmf_smem.so.2"), ("given", "libmf_smem.so.1"), ("given", "libmf_smem.so"),
    ("loaded", "libmf_smem.so.2"), ("loaded", "libmf_smem.so")])
def test_another_major_version(python, tmp_path, how, file):
    library = tmp_path / file
    subprocess.run(["cc", "-shared", "-x", "c", "-", "-o", str(library), "-Wl,-soname,libmf_smem.so.2"], check=True,
                   input=b"int smem_init(unsigned flags) { return (int)flags; }\n")
    code = "import sys, ctypes\nif sys.argv[1] == 'loaded': ctypes.CDLL(sys.argv[2])\n" \
           "try:\n    import mf_smem\nexcept ImportError as e:\n    print(e)\n"
    env = {"LD_LIBRARY_PATH": tmp_path} if how == "given" else {}
    out = run(python, "-c", code, how, library, **env)
    assert str(library) in out and ".libs/libmf_smem.so.1" in out and "libmf_smem.so.2" in out


def test_editable(tmp_path, wheels):
    """pip install -e of a copy of the tree; a change of a Python file shows at once."""
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("LICENSE", "README.md", "MANIFEST.in", "meson.build", "meson_options.txt", "pyproject.toml",
                 "setup.py"):
        shutil.copy(ROOT / name, tree / name)
    for name in ("include", "python"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", "*.so", ".libs", "build"))
    venv.create(tmp_path / "venv", with_pip=True, system_site_packages=True)
    python = tmp_path / "venv" / "bin" / "python"
    if subprocess.run([python, "-c", "import setuptools, wheel"], stderr=subprocess.DEVNULL, env=clean_env()).returncode:
        pytest.skip("no setuptools and wheel for %s" % sys.executable)
    for project in (tree, tree / "python" / "mf_adapter"):
        run(python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-build-isolation", "--no-deps",
            "-e", project, MF_SMEM_BUILD=BUILD, timeout=120)
    with open(tree / "python" / "mf_adapter" / "__init__.py", "a") as f:
        f.write("\nCHANGED = True\n")
    out = run(python, "-c", "import mf_smem, mf_adapter; print(mf_smem.__file__, mf_adapter.CHANGED, mf_smem.strerror(0))",
              cwd=tmp_path)
    assert str(tree) in out and "True" in out


def test_sdist_is_complete(wheels, tmp_path):
    """Everything the library and the extension are built from is in it; the build itself is `make wheel`'s."""
    shutil.unpack_archive(wheels / ("mf_smem-%s.tar.gz" % VERSION), tmp_path)
    tree = tmp_path / ("mf_smem-" + VERSION)
    always = re.findall(r"^subdir\('(\w+)'\)", (ROOT / "meson.build").read_text(), re.MULTILINE)
    assert "src" in always
    tracked = subprocess.run(["git", "ls-files", "include", "python/_smem", "python/mf_smem", "meson.build",
                              "meson_options.txt", *always], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if tracked.returncode:
        pytest.skip("not a git checkout: nothing to compare the source distribution with")
    missing = [name for name in tracked.stdout.split() if not (tree / name).exists()]
    assert not missing
    assert '"%s"' % VERSION in (tree / "python" / "mf_smem" / "_version.py").read_text()
