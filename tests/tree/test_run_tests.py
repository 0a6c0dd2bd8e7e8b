#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The test runner's counting, as TAP: what is not counted as failed passes by unseen."""

import json
import os
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "scripts"))

import run_tests  # noqa: E402

# stdout, result of meson -> passed, failed, skipped
CASES = (
    ("all pass", "1..2\nok 1 - a\nok 2 - b\n", "OK", (2, 0, 0)),
    ("one fails", "1..2\nok 1 - a\nnot ok 2 - b\n# why\n", "FAIL", (1, 1, 0)),
    ("cmocka's skip", "1..2\nok 1 - a\nno network namespaces\nnot ok 2 # SKIP b\n", "OK", (1, 0, 1)),
    ("a proper skip", "1..2\nok 1 - a\nok 2 # SKIP b\n", "OK", (1, 0, 1)),
    ("all skipped", "1..0 # SKIP not here\n", "SKIP", (0, 0, 1)),
    ("died after one", "1..3\nok 1 - a\n", "ERROR", (1, 1, 0)),
    ("too slow", "1..3\nok 1 - a\n", "TIMEOUT", (1, 1, 0)),
    ("two groups", "1..1\nok 1 - a\n1..2\nok 1 - b\nok 2 - c\n", "OK", (3, 0, 0)),
    ("no TAP, good", "hello\n", "OK", (1, 0, 0)),
    ("no TAP, bad", "hello\n", "FAIL", (0, 1, 0)),
    ("known bug", "1..1\nnot ok 1 - a # TODO later\n", "OK", (1, 0, 0)),
    ("noise", "1..1\nokay then\nnot okay\nok 1 - a\n", "OK", (1, 0, 0)),
)


def count(text, result):
    counts = run_tests.Counts()
    with tempfile.NamedTemporaryFile("w", suffix=".json") as log:
        json.dump({"name": "t", "result": result, "stdout": text, "returncode": 0, "command": ["t"]}, log)
        log.flush()
        shown, sys.stdout = sys.stdout, open(os.devnull, "w", encoding="ascii")
        try:
            run_tests.count_meson(counts, log.name)
        finally:
            sys.stdout.close()
            sys.stdout = shown
    return counts.passed, counts.failed, len(counts.skips)


def main():
    bad = 0
    print("1..%d" % len(CASES))
    for number, (name, text, result, wanted) in enumerate(CASES, 1):
        got = count(text, result)
        bad += got != wanted
        print("%sok %d - %s" % ("" if got == wanted else "not ", number, name))
        if got != wanted:
            print("# wanted %s, got %s" % (wanted, got))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
