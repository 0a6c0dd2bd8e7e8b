# SPDX-License-Identifier: Apache-2.0
"""The examples and python -m mf_smem.perf do what they say."""

import json
import subprocess
import sys

import pytest
from conftest import LIMIT, ROOT, child_env


def run(*command):
    done = subprocess.run([sys.executable, *map(str, command)], env=child_env(), stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("ranks", [1, 3])
def test_bm_pool(ranks):
    out = run(ROOT / "examples" / "bm_pool.py", ranks)
    assert out.count("verified") == ranks and "WRONG" not in out


def test_prefill_decode():
    out = run(ROOT / "examples" / "prefill_decode.py", 3)
    assert out.count("verified") == 3 and "WRONG" not in out


def test_perf():
    rows = json.loads(run("-m", "mf_smem.perf", "--json", "--rounds", 200, "--descriptors", 1000))
    assert len(rows) == 6 and all(row["c_ns"] > 0 for row in rows)
    assert len({row["call"] for row in rows}) == 6 and all("overhead_ns" in row for row in rows)
    assert "overhead" in run("-m", "mf_smem.perf", "--rounds", 50, "--descriptors", 100)
