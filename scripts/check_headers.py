#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""usage: check_headers.py CC [CXX]

As TAP: each public header compiles alone, first in a file, without a warning, as C11, C++11 and C++17, and C++ sees C
linkage. CC and CXX are words, for a compiler may be more than one.
"""

import os
import shlex
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
INCLUDE = os.path.join(ROOT, "include")
WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Wundef", "-Wshadow", "-Werror"]


def compile_text(compiler, language, standard, text):
    command = compiler + ["-x", language, "-std=" + standard, "-fsyntax-only", "-I", INCLUDE] + WARNINGS
    if language == "c":
        command += ["-Wstrict-prototypes"]
    result = subprocess.run(command + ["-"], input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            universal_newlines=True)
    return result.returncode, result.stdout


def main():
    cc = shlex.split(sys.argv[1])
    cxx = shlex.split(sys.argv[2]) if len(sys.argv) > 2 else [shutil.which("c++") or "c++"]
    headers = sorted(name for name in os.listdir(INCLUDE) if name.endswith(".h"))
    number = bad = 0
    print("1..%d" % (3 * len(headers) + 1))
    for header in headers:
        for compiler, language, standard in ((cc, "c", "c11"), (cxx, "c++", "c++11"), (cxx, "c++", "c++17")):
            number += 1
            code, output = compile_text(compiler, language, standard, '#include "%s"\n' % header)
            print("%sok %d - %s as %s" % ("not " if code else "", number, header, standard))
            bad += bool(code)
            for line in output.splitlines():
                print("# " + line)
    # Declared twice with different linkage is an error: this compiles only if the headers say extern "C".
    text = "".join('#include "%s"\n' % header for header in headers)
    text += 'extern "C" { int32_t smem_init(uint32_t); uint32_t smem_bm_get_rank_id(void); void smem_shm_uninit(uint32_t); '
    text += "void smem_trans_uninit(uint32_t); int32_t smem_register_decrypt_handler(const smem_decrypt_handler); }\n"
    code, output = compile_text(cxx, "c++", "c++11", text)
    print("%sok %d - C linkage in C++" % ("not " if code else "", number + 1))
    for line in output.splitlines():
        print("# " + line)
    return 1 if bad or code else 0


if __name__ == "__main__":
    sys.exit(main())
