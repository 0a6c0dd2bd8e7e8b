# SPDX-License-Identifier: Apache-2.0
# mypy: ignore-errors
"""Builds mf_adapter, which is pure Python and needs mf_smem of the same version."""

import os
import re
import sys

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

HERE = os.path.dirname(os.path.abspath(__file__))


def version():
    """VERSION of the environment, else what the tree says; normalised as PEP 440 has it."""
    try:
        from packaging.version import InvalidVersion, Version
    except ImportError:
        from setuptools.extern.packaging.version import InvalidVersion, Version
    with open(os.path.join(HERE, "_version.py"), encoding="utf-8") as file:
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
    def find_package_modules(self, package, package_dir):
        """This folder is the package; this file is none of its modules."""
        return [entry for entry in super().find_package_modules(package, package_dir) if entry[1] != "setup"]

    def run(self):
        super().run()
        if not getattr(self, "editable_mode", False):
            write_version(os.path.join(self.build_lib, "mf_adapter"))


class Sdist(sdist):
    def make_release_tree(self, base_dir, files):
        super().make_release_tree(base_dir, files)
        write_version(base_dir)


VERSION = version()

setup(
    version=VERSION,
    package_dir={"mf_adapter": "."},
    packages=["mf_adapter"],
    package_data={"mf_adapter": ["py.typed", "*.pyi"]},
    install_requires=["mf_smem==" + VERSION],
    cmdclass={"build_py": BuildPy, "sdist": Sdist},
)
