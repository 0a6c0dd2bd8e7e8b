# SPDX-License-Identifier: Apache-2.0
"""Builds the extension against the library under test and gives tests ways to run processes with it.

MF_SMEM_BUILD names the build folder of the C library (default: build/ of the tree). The extension and links to the
Python files go to its folder python/. This process loads the library under test first, by its path; child processes
find it through LD_LIBRARY_PATH.
"""

import ctypes
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import textwrap

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("MF_SMEM_BUILD", ROOT / "build")).resolve()
STAGE = BUILD / "python"
LIMIT = 60  # seconds for a child process, far above what any needs


def build_extension():
    env = dict(os.environ, MF_SMEM_BUILD=str(BUILD), MF_SMEM_BUNDLE="0")
    done = subprocess.run(
        [sys.executable, "setup.py", "--quiet", "build_ext", "--build-lib", str(STAGE), "--build-temp",
         str(STAGE / "objects")], cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise pytest.UsageError("the extension does not build:\n" + done.stdout)
    for package in ("mf_smem", "mf_adapter"):
        (STAGE / package).mkdir(exist_ok=True)
        for link in (STAGE / package).iterdir():
            if link.is_symlink():
                link.unlink()
        for source in (ROOT / "python" / package).iterdir():
            if source.name == "py.typed" or (source.suffix in (".py", ".pyi") and source.name != "setup.py"):
                (STAGE / package / source.name).symlink_to(source)


def pytest_configure(config):
    library = BUILD / "libmf_smem.so.1"
    if not library.exists():
        raise pytest.UsageError("no %s: build the library first, or set MF_SMEM_BUILD" % library)
    build_extension()
    ctypes.CDLL(str(library))
    sys.path.insert(0, str(STAGE))


def child_env(**more):
    env = dict(os.environ, PYTHONPATH=str(STAGE), PYTHONDONTWRITEBYTECODE="1", PYTHONFAULTHANDLER="1")
    env["LD_LIBRARY_PATH"] = str(BUILD) + (":" + env["LD_LIBRARY_PATH"] if env.get("LD_LIBRARY_PATH") else "")
    env.update({name: str(value) for name, value in more.items()})
    return env


def free_port():
    """A port that was free a moment ago; a taken one shows as -2009, and no other test asks for it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def url():
    return "tcp://127.0.0.1:%d" % free_port()


class Child:
    """A Python process that runs a script; what it prints is its answer."""

    def __init__(self, script, *arguments, options=(), **env):
        prelude = "import sys, os\nURL = os.environ.get('URL', '')\nRANK = int(os.environ.get('RANK', 0))\n" \
                  "WORLD = int(os.environ.get('WORLD', 1))\n"
        self.process = subprocess.Popen(
            [sys.executable, *options, "-c", prelude + textwrap.dedent(script), *map(str, arguments)],
            env=child_env(**env), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True)

    def line(self):
        return self.process.stdout.readline().rstrip("\n")

    def tell(self, text):
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def end(self, status=0):
        """Standard output, once the process ended with that status."""
        try:
            out, err = self.process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)  # faulthandler shows where it hangs
            out, err = self.process.communicate()
            pytest.fail("the child hangs:\n%s\n%s" % (out, err))
        assert self.process.returncode == status, "status %s\n%s\n%s" % (self.process.returncode, out, err)
        self.err = err
        return out

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@pytest.fixture
def child():
    """child(script, *arguments, **env) starts one; all are gone at the end of the test."""
    children = []

    def start(script, *arguments, **keywords):
        children.append(Child(script, *arguments, **keywords))
        return children[-1]

    yield start
    for c in children:
        c.kill()


@pytest.fixture
def ranks(child, url):
    """ranks(n, script) runs the script as n rank processes (RANK, WORLD, URL) and returns their outputs."""
    def run(n, script, **env):
        children = [child(script, RANK=r, WORLD=n, URL=url, **env) for r in range(n)]
        return [c.end() for c in children]

    return run


@pytest.fixture
def late_store(child, url):
    """A process that hosts the store once the function is called."""
    host = child("""
        import mf_smem
        sys.stdin.readline()
        assert mf_smem.create_config_store(URL) == 0
        print('up', flush=True)
        sys.stdin.readline()
    """, URL=url)

    def start():
        host.tell("host")
        assert host.line() == "up"

    return start


@pytest.fixture
def smem():
    """The package, with nothing initialised after the test."""
    import mf_smem

    yield mf_smem
    mf_smem.uninitialize()
    mf_smem.set_log_level(2)


@pytest.fixture(autouse=True)
def quiet(capfd):
    """Failing calls log; that is not the test's output."""
    yield
    capfd.readouterr()


def has(command):
    return shutil.which(command) is not None
