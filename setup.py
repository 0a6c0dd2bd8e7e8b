# SPDX-License-Identifier: Apache-2.0
# mypy: ignore-errors
"""Builds mf_smem: the C library with Meson (or one built already, MF_SMEM_BUILD), the extension, and a bundle of both.

The wheel carries libmf_smem.so.1 and those of its dependencies that a plain installation lacks, in mf_smem/.libs. What
is linked is named as needed by the extension, which finds it through its RUNPATH: so the dynamic loader has each of them
before another one asks for it. libfabric is loaded later, by libmf_smem.so.1, which looks beside itself; there a
library without code takes its name, and names it and all that it needs in turn. No file is patched, and LD_LIBRARY_PATH
comes first.
"""

import glob
import os
import re
import shutil
import subprocess
import sys

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

ROOT = os.path.dirname(os.path.abspath(__file__))
PACKAGE = os.path.join("python", "mf_smem")
FABRIC = "libfabric.so.1"
LOWEST = 11  # minor version of CPython: the first whose limited API has buffers

# What every installation with a Python of ours has: the C library's family, the compiler's, OpenSSL 3, libuuid.
PLAIN = re.compile(
    r"(linux-vdso|ld-linux.*|libc|libm|libdl|librt|libpthread|libresolv|libutil|libgcc_s|libstdc\+\+|libz|libuuid|"
    r"libssl|libcrypto)\.so(\..*)?$")


def version():
    """VERSION of the environment, else what the tree says; normalised as PEP 440 has it."""
    try:
        from packaging.version import InvalidVersion, Version
    except ImportError:
        from setuptools.extern.packaging.version import InvalidVersion, Version
    with open(os.path.join(ROOT, PACKAGE, "_version.py"), encoding="utf-8") as file:
        default = re.search(r'"([^"]+)"$', file.read(), re.MULTILINE).group(1)
    text = os.environ.get("VERSION", default)
    try:
        return str(Version(text))
    except InvalidVersion:
        sys.exit("VERSION %r is not a valid PEP 440 version" % text)


def write_version(folder):
    """The version into a copy of the package; the file in the tree stays as it is."""
    path = os.path.join(folder, "_version.py")
    with open(path, encoding="utf-8") as file:
        text = file.read()
    os.unlink(path)  # it may be a hard link to the tree's
    with open(path, "w", encoding="utf-8") as file:
        file.write(re.sub(r'"[^"]+"$', '"%s"' % VERSION, text, flags=re.MULTILINE))


class BuildPy(build_py):
    def run(self):
        super().run()
        if not getattr(self, "editable_mode", False):
            write_version(os.path.join(self.build_lib, "mf_smem"))


class Sdist(sdist):
    def make_release_tree(self, base_dir, files):
        super().make_release_tree(base_dir, files)
        write_version(os.path.join(base_dir, PACKAGE))


def meson():
    for command in (os.environ.get("MESON"), shutil.which("meson"), "/usr/bin/meson"):
        if command and subprocess.run([command, "--version"], stdout=subprocess.DEVNULL,
                                      stderr=subprocess.DEVNULL).returncode == 0:
            return command
    sys.exit("mf_smem needs meson and ninja to build the C library")


def needed(library):
    """(SONAME, path) of everything the library loads that a plain installation lacks."""
    text = subprocess.run(["ldd", library], check=True, stdout=subprocess.PIPE).stdout.decode()
    for name, path in re.findall(r"^\s*(\S+) => (/\S+) \(", text, re.MULTILINE):
        if not PLAIN.match(name):
            yield name, path


def find_fabric():
    """Path of the libfabric that the C library was configured with; None when there is none."""
    folder = subprocess.run(["pkg-config", "--variable=libdir", "libfabric"], stdout=subprocess.PIPE, text=True).stdout
    path = os.path.join(folder.strip(), FABRIC)
    if not os.path.exists(path):
        path = subprocess.run(["cc", "-print-file-name=" + FABRIC], stdout=subprocess.PIPE, text=True).stdout.strip()
    return path if os.path.isabs(path) and os.path.exists(path) else None


class BuildExt(build_ext):
    def library(self):
        """Path of libmf_smem.so.1, built here unless MF_SMEM_BUILD names a build folder that has it."""
        folder = os.environ.get("MF_SMEM_BUILD")
        if not folder:
            folder = os.path.join(ROOT, self.build_temp, "meson")
            if not os.path.exists(os.path.join(folder, "build.ninja")):
                self.spawn([meson(), "setup", folder, ROOT, "-Dtests=false", "-Dbuildtype=release"])
            self.spawn([meson(), "compile", "-C", folder, "mf_smem:shared_library"])
        return os.path.join(folder, "libmf_smem.so.1")

    def build_extension(self, ext):
        library = self.library()
        bundle = [("libmf_smem.so.1", library)]
        if not self.linked_only():
            bundle += needed(library)
        ext.extra_link_args += ["-Wl,--no-as-needed"] + [path for _, path in bundle]
        if not self.linked_only():
            ext.extra_compile_args.append("-g0")
        super().build_extension(ext)
        if not self.linked_only():
            self.put(bundle, os.path.join(os.path.dirname(self.get_ext_fullpath(ext.name)), ".libs"))

    def copy_extensions_to_source(self):
        """In place and editable builds: the bundle follows the extension."""
        super().copy_extensions_to_source()
        built = os.path.join(self.build_lib, "mf_smem", ".libs")
        here = os.path.join(ROOT, PACKAGE, ".libs")
        if os.path.isdir(built) and os.path.abspath(built) != here:
            shutil.rmtree(here, ignore_errors=True)
            shutil.copytree(built, here)

    def linked_only(self):
        """For the tests: LD_LIBRARY_PATH names the library under test."""
        return os.environ.get("MF_SMEM_BUNDLE") == "0"

    def put_fabric(self, folder):
        """libfabric under another name, and under its own a library that needs it and what it needs."""
        fabric = find_fabric()
        if not fabric:
            print("warning: no %s to bundle: peers on other hosts need one installed" % FABRIC, file=sys.stderr)
            return []
        bundle = [("libfabric-bundled.so", fabric)] + list(needed(fabric))
        self.mkpath(self.build_temp)
        stand_in = os.path.join(self.build_temp, "libfabric-bundled.so")
        empty = ["cc", "-shared", "-nostdlib", "-x", "c", os.devnull, "-x", "none", "-o"]
        self.spawn(empty + [stand_in, "-Wl,-soname,libfabric-bundled.so"])
        self.spawn(empty + [os.path.join(folder, FABRIC), "-Wl,--no-as-needed", stand_in]
                   + [path for _, path in bundle[1:]] + ["-Wl,--enable-new-dtags", "-Wl,-rpath,$ORIGIN"])
        return bundle

    def put(self, bundle, folder):
        shutil.rmtree(folder, ignore_errors=True)
        self.mkpath(folder)
        bundle = bundle + self.put_fabric(folder)
        for name, path in bundle:
            shutil.copyfile(os.path.realpath(path), os.path.join(folder, name))
            if shutil.which("strip"):
                self.spawn(["strip", "--strip-unneeded", os.path.join(folder, name)])


VERSION = version()
SOURCES = sorted(os.path.relpath(path, ROOT) for path in glob.glob(os.path.join(ROOT, "python", "_smem", "*.c")))

setup(
    version=VERSION,
    package_dir={"": "python"},
    packages=["mf_smem"],
    package_data={"mf_smem": ["py.typed", "*.pyi"]},
    exclude_package_data={"": ["*.c", "*.h"]},
    include_package_data=False,
    python_requires=">=3.%d" % LOWEST,
    ext_modules=[
        Extension(
            "mf_smem._smem",
            sources=SOURCES,
            depends=glob.glob(os.path.join(ROOT, "python", "_smem", "*.h")),
            include_dirs=["include"],
            define_macros=[("Py_LIMITED_API", "0x03%02X0000" % LOWEST), ("_GNU_SOURCE", None)],
            extra_compile_args=["-std=gnu11", "-fvisibility=hidden", "-Wall", "-Wextra"],
            extra_link_args=["-Wl,--enable-new-dtags", "-Wl,-rpath,$ORIGIN/.libs"],
            py_limited_api=True,
        )
    ],
    cmdclass={"build_ext": BuildExt, "build_py": BuildPy, "sdist": Sdist},
    options={"bdist_wheel": {"py_limited_api": "cp3%d" % LOWEST}},
)
