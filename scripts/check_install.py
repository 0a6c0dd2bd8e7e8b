#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""usage: check_install.py MESON BUILDDIR CC

As TAP: what `make install` puts where, and that a program builds with `pkg-config mf_smem` alone and runs with it.
Installs below a temporary folder.
"""

import os
import shlex
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PROGRAM = """
#include "smem.h"
#include "smem_bm.h"
#include "smem_shm.h"
#include "smem_trans.h"
#include <stdio.h>
int main(void)
{
	return smem_init(0) == SMEM_OK && puts(smem_strerror(SMEM_PEER_LOST)) >= 0 ? 0 : 1;
}
"""


def run(command, **options):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True, **options)


def find(folder, name):
    return [os.path.join(path, name) for path, _, names in os.walk(folder) if name in names]


def check_files(folder):
    missing = [name for name in ("libmf_smem.so", "libmf_smem.so.1", "mf_smem.pc", "smem") if not find(folder, name)]
    for header in os.listdir(os.path.join(ROOT, "include")):
        missing += [] if find(folder, header) else [header]
    return ["missing: " + name for name in missing]


def check_program(folder, cc):
    env = dict(os.environ, PKG_CONFIG_PATH=os.path.dirname(find(folder, "mf_smem.pc")[0]), PKG_CONFIG_SYSROOT_DIR=folder)
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "mf_smem"], stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, universal_newlines=True, env=env)
    if flags.returncode:
        return [flags.stdout]
    program = os.path.join(folder, "program")
    built = run(cc + ["-x", "c", "-o", program, "-", "-x", "none"] + flags.stdout.split(), input=PROGRAM)
    if built.returncode:
        return [built.stdout]
    library = os.path.dirname(find(folder, "libmf_smem.so.1")[0])
    done = run([program], env=dict(os.environ, LD_LIBRARY_PATH=library))
    return [] if done.returncode == 0 else ["status %d: %s" % (done.returncode, done.stdout)]


def check_command(folder):
    library = os.path.dirname(find(folder, "libmf_smem.so.1")[0])
    done = run([find(folder, "smem")[0], "--version"], env=dict(os.environ, LD_LIBRARY_PATH=library))
    return [] if done.returncode == 0 and done.stdout.startswith("smem ") else [done.stdout]


def main():
    meson, build, cc = shlex.split(sys.argv[1]), sys.argv[2], shlex.split(sys.argv[3])
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        installed = run(meson + ["install", "-C", build, "--no-rebuild", "--destdir", folder])
        checks = (
            ("installs", lambda: [] if installed.returncode == 0 else [installed.stdout]),
            ("library, headers, pkg-config file, command", lambda: check_files(folder)),
            ("a program builds with pkg-config alone, and runs", lambda: check_program(folder, cc)),
            ("the command runs", lambda: check_command(folder)),
        )
        print("1..%d" % len(checks))
        for number, (name, check) in enumerate(checks, 1):
            try:
                found = check()
            except IndexError:
                found = ["not installed"]
            bad += bool(found)
            print("%sok %d - %s" % ("not " if found else "", number, name))
            for line in "\n".join(found).splitlines():
                print("# " + line)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
