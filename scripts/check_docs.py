#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""usage: check_docs.py BUILDDIR CC

As TAP: what the documentation says about the code is so. The C examples of README.md and docs/ compile against the
public headers and the library just built, README's also runs; the table of docs/environment.md is the one of
src/util/env.h; every public function has its place in docs/; links inside the tree lead somewhere.

check_docs.py --write brings the table of docs/environment.md up to date.
"""

import os
import re
import shlex
import socket
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "scripts"))

import check_symbols  # noqa: E402
import knobs  # noqa: E402

BEGIN, END = "<!-- knobs: begin -->", "<!-- knobs: end -->"
BLOCK = re.compile(r"^```c\n(.*?)^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)#\s]+)(#[^)]*)?\)")


def read(*parts):
    with open(os.path.join(ROOT, *parts), encoding="utf-8") as text:
        return text.read()


def pages():
    yield "README.md"
    for name in ("ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"):
        if os.path.exists(os.path.join(ROOT, name)):
            yield name
    for name in sorted(os.listdir(os.path.join(ROOT, "docs"))):
        if name.endswith(".md"):
            yield os.path.join("docs", name)


def table():
    rows = ["| variable | default | values | meaning |", "|---|---|---|---|"]
    for knob in knobs.table():
        values = "text" if knob.kind == "STR" else "%d .. %d" % (knob.low, knob.high)
        rows.append("| `%s` | %s | %s | %s |" % (
            knob.name, "`%s`" % knob.default if knob.default else "empty", values, knob.help))
    return "\n".join(rows)


def environment():
    page = read("docs", "environment.md")
    if BEGIN not in page or END not in page:
        return ["docs/environment.md has no table of knobs"]
    if page.split(BEGIN)[1].split(END)[0].strip() != table():
        return ["docs/environment.md differs from src/util/env.h; run scripts/check_docs.py --write"]
    return []


def write_environment():
    page = read("docs", "environment.md")
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    with open(os.path.join(ROOT, "docs", "environment.md"), "w", encoding="utf-8") as out:
        out.write(before + BEGIN + "\n" + table() + "\n" + END + after)


def programs(page):
    return [block for block in BLOCK.findall(read(page)) if re.search(r"^int main\(", block, re.MULTILINE)]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def compile_and_run(build, cc, run):
    """Every whole program of every page compiles; those of README.md also run and end with 0."""
    problems = []
    env = dict(os.environ, LD_LIBRARY_PATH=build)
    for page in pages():
        for index, code in enumerate(programs(page), 1):
            with tempfile.TemporaryDirectory() as folder:
                program = os.path.join(folder, "example")
                command = cc + ["-x", "c", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-I", os.path.join(ROOT, "include"),
                                "-o", program, "-", "-L", build, "-lmf_smem"]
                result = subprocess.run(command, input=code, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                        universal_newlines=True)
                if result.returncode:
                    problems.append("%s, program %d does not compile:\n%s" % (page, index, result.stdout))
                elif run and page == "README.md":
                    result = subprocess.run([program, "tcp://127.0.0.1:%d" % free_port()], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env,
                                            universal_newlines=True, timeout=60)
                    if result.returncode:
                        problems.append("%s, program %d ends with %d:\n%s" % (page, index, result.returncode, result.stdout))
    if not programs("README.md"):
        problems.append("README.md has no program")
    return problems


def functions():
    text = "".join(read(page) for page in pages() if page.startswith("docs"))
    return ["not in docs/: " + name for name in sorted(check_symbols.declared()) if not re.search(r"\b%s\b" % name, text)]


def links():
    problems = []
    for page in pages():
        prose = re.sub(r"```.*?```", "", read(page), flags=re.DOTALL)
        for target, _ in LINK.findall(prose):
            if "://" in target or target.startswith("mailto:"):
                continue
            if not os.path.exists(os.path.join(ROOT, os.path.dirname(page), target)):
                problems.append("%s: no such file: %s" % (page, target))
    return problems


def main():
    if sys.argv[1:] == ["--write"]:
        write_environment()
        return 0
    build, cc = os.path.abspath(sys.argv[1]), shlex.split(sys.argv[2])
    checks = (
        ("the programs in the pages compile, README's runs", lambda: compile_and_run(build, cc, True)),
        ("docs/environment.md is the table of src/util/env.h", environment),
        ("every public function is documented", functions),
        ("links lead somewhere", links),
    )
    bad = 0
    print("1..%d" % len(checks))
    for number, (name, check) in enumerate(checks, 1):
        found = check()
        bad += bool(found)
        print("%sok %d - %s" % ("not " if found else "", number, name))
        for line in "\n".join(found).splitlines():
            print("# " + line)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
