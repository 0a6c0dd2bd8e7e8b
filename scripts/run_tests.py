#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs every test and ends with one line of counts.

The C tests run under `meson test`; each binary prints TAP, and what is counted are its subtests. Then pytest runs the
Python tests. What fails is shown with its output. The exit status is 0 only if something ran and nothing failed.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PLAN = re.compile(r"^1\.\.(\d+)(?:\s*#\s*skip\w*\s*(.*))?\s*$", re.IGNORECASE)
LINE = re.compile(r"^(not )?ok\b\s*(\d*)\s*(?:-\s*)?(.*?)\s*(?:#\s*(SKIP|TODO)\S*\s*(.*))?$", re.IGNORECASE)
SHOWN = 300  # lines of each stream of a failed test
BAD = ("FAIL", "ERROR", "TIMEOUT", "INTERRUPT", "UNEXPECTEDPASS")


class Counts:
    def __init__(self):
        self.passed = self.failed = 0
        self.failures = []
        self.skips = []

    def fail(self, name):
        self.failed += 1
        self.failures.append(name)

    def skip(self, name, reason):
        self.skips.append((name, " ".join((reason or "no reason given").split())))


def count_tap(counts, name, text):
    """Counts the subtests of one binary; returns false when its output is not TAP."""
    planned, seen, note = None, 0, ""
    for line in text.splitlines():
        plan = PLAN.match(line)
        if plan:
            planned = int(plan.group(1))
            if planned == 0:
                counts.skip(name, plan.group(2))
            continue
        result = LINE.match(line)
        if not result:
            if line.strip():
                note = line.lstrip("# ").strip()
            continue
        seen += 1
        bad, number, title, directive, reason = result.groups()
        title = "%s: %s" % (name, title or reason or number)
        if (directive or "").upper() == "SKIP":
            counts.skip(title, note or reason)
        elif bad and (directive or "").upper() != "TODO":
            counts.fail(title)
        else:
            counts.passed += 1
        note = ""
    return planned is not None


def show(test):
    """What a failed test said; the end of it, when it said much."""
    print("\n---- %s: %s, exit status %s" % (test["name"], test["result"].lower(), test["returncode"]))
    print("     " + " ".join(test["command"]))
    for stream in ("stdout", "stderr"):
        lines = (test.get(stream) or "").splitlines()
        if len(lines) > SHOWN:
            print("[%d lines left out, see meson-logs/testlog.txt]" % (len(lines) - SHOWN))
        for line in lines[-SHOWN:]:
            print(line)
    print("----")


def count_meson(counts, log):
    with open(log, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            test = json.loads(line)
            name, result = test["name"], test["result"]
            before = counts.failed
            tap = count_tap(counts, name, test.get("stdout") or "")
            if result in BAD:
                show(test)
                if counts.failed == before:
                    counts.fail("%s (%s)" % (name, result.lower()))
            elif not tap and result == "SKIP":
                counts.skip(name, "")
            elif not tap:
                counts.passed += 1


def meson_command():
    for meson in (os.environ.get("MESON"), "/usr/bin/meson", shutil.which("meson")):
        if meson and os.path.exists(meson):
            if subprocess.run([meson, "--version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0:
                return meson
    sys.exit("no meson that runs")


def run_meson(counts, options):
    log = os.path.join(options.build, "meson-logs", "testlog.json")
    if os.path.exists(log):
        os.remove(log)
    command = [meson_command(), "test", "-C", options.build, "--no-rebuild",
               "--timeout-multiplier", str(options.slow)]
    if options.sanitizer:
        command += ["--no-suite", "tree"]
    for suite in options.suite:
        command += ["--suite", suite]
    status = subprocess.run(command + options.names, stdin=subprocess.DEVNULL).returncode
    before = counts.failed
    if os.path.exists(log):
        count_meson(counts, log)
    if status and counts.failed == before:
        counts.fail("meson test exited with status %d" % status)


def python_command():
    """A Python that has what the tests import; the system's own first, for that is where apt puts it."""
    for python in (os.environ.get("PYTHON"), "/usr/bin/python3", shutil.which("python3")):
        if python and os.path.exists(python):
            if subprocess.run([python, "-c", "import pytest, numpy"], stderr=subprocess.DEVNULL).returncode == 0:
                return python
    return None


def run_pytest(counts, options):
    folder = os.path.join(ROOT, "python", "tests")
    if not os.path.isdir(folder):
        return
    python = python_command()
    if not python:
        counts.fail("pytest (no Python with pytest and NumPy)")
        return
    report = os.path.join(os.path.abspath(options.build), "pytest.xml")
    if os.path.exists(report):
        os.remove(report)
    env = dict(os.environ, MF_SMEM_BUILD=os.path.abspath(options.build), PYTHONDONTWRITEBYTECODE="1")
    status = subprocess.run([python, "-m", "pytest", "-ra", "--durations=5", "-p", "no:cacheprovider",
                             "--junit-xml", report, folder], cwd=ROOT, env=env, stdin=subprocess.DEVNULL).returncode
    before = counts.failed
    if os.path.exists(report):
        for case in ElementTree.parse(report).getroot().iter("testcase"):
            name = "%s: %s" % (case.get("classname"), case.get("name"))
            skipped = case.find("skipped")
            if case.find("failure") is not None or case.find("error") is not None:
                counts.fail(name)
            elif skipped is not None:
                counts.skip(name, skipped.get("message"))
            else:
                counts.passed += 1
    if status and counts.failed == before:
        counts.fail("pytest exited with status %d" % status)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build", help="the Meson build folder")
    parser.add_argument("--suite", action="append", default=[], help="only this suite of the C tests (may be repeated)")
    parser.add_argument("--slow", type=int, default=1, metavar="N", help="stretch the time limits by N")
    parser.add_argument("--sanitizer", action="store_true", help="leave out what a sanitizer cannot say anything about")
    parser.add_argument("--no-python", action="store_true", help="leave out pytest")
    parser.add_argument("names", nargs="*", help="only these C tests (then pytest is left out)")
    options = parser.parse_args()

    start = time.monotonic()
    counts = Counts()
    run_meson(counts, options)
    if not options.no_python and not options.names and not options.suite:
        run_pytest(counts, options)

    sys.stdout.flush()
    print()
    for name, reason in counts.skips:
        print("skipped: %s (%s)" % (name, reason))
    for name in counts.failures:
        print("FAILED: %s" % name)
    if not counts.passed and not counts.failed:
        print("no test ran")
    print("%d s" % (time.monotonic() - start))
    print("%d passed, %d failed, %d skipped" % (counts.passed, counts.failed, len(counts.skips)))
    return 0 if counts.passed and not counts.failed else 1


if __name__ == "__main__":
    sys.exit(main())
