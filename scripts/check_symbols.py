#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""usage: check_symbols.py LIBRARY

As TAP: the library exports exactly the functions that the public headers declare, and has the promised SONAME.
"""

import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FUNCTION = re.compile(r"\b(smem_\w+)\s*\((?!\s*\*)[^;{}]*\)\s*;", re.DOTALL)
TYPE = re.compile(r"\btypedef\b[^;{}]*(?:\{[^}]*\})?[^;]*;", re.DOTALL)


def declared():
    names = set()
    folder = os.path.join(ROOT, "include")
    for header in os.listdir(folder):
        with open(os.path.join(folder, header), encoding="utf-8") as text:
            code = re.sub(r"/\*.*?\*/|//[^\n]*", " ", text.read(), flags=re.DOTALL)
        code = re.sub(r"^\s*#.*$", "", code, flags=re.MULTILINE)
        names.update(FUNCTION.findall(TYPE.sub(" ", code)))
    return names


def exported(library):
    listing = subprocess.run(["nm", "-D", "--defined-only", library], check=True, stdout=subprocess.PIPE,
                             universal_newlines=True).stdout
    names = set()
    for line in listing.splitlines():
        kind, name = line.split()[-2:]
        if kind != "A":  # the version itself
            names.add(name.split("@")[0])
    return names


def soname(library):
    listing = subprocess.run(["readelf", "-d", library], check=True, stdout=subprocess.PIPE,
                             universal_newlines=True).stdout
    return re.search(r"SONAME.*\[(.*)\]", listing).group(1)


def main():
    library = sys.argv[1]
    want, have = declared(), exported(library)
    checks = (
        ("every declared function is exported", ["missing: " + name for name in sorted(want - have)]),
        ("nothing else is exported", ["extra: " + name for name in sorted(have - want)]),
        ("the SONAME is libmf_smem.so.1", [] if soname(library) == "libmf_smem.so.1" else [soname(library)]),
    )
    print("1..%d" % len(checks))
    for number, (name, found) in enumerate(checks, 1):
        print("%sok %d - %s (%d functions)" % ("not " if found else "", number, name, len(want)))
        for line in found:
            print("# " + line)
    return 1 if any(found for _, found in checks) else 0


if __name__ == "__main__":
    sys.exit(main())
