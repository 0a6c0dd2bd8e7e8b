# SPDX-License-Identifier: Apache-2.0
"""python -m mf_smem.perf [--json]: what a call from Python costs beside the same C call.

One process, an own store on the loopback address, own slots and an own session: what is measured is the way through the
binding, not the fabric. Each figure is the best of several runs: what else the machine does only adds.
"""

import argparse
import json
import socket
import sys
import time
from array import array
from typing import Any, Callable, Dict, List, Optional

import mf_smem
from mf_smem import _smem, bm

SLOT = 2 << 20
RUNS = 7


def _free_url() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


def _loop(call: Callable[[], Any], rounds: int) -> float:
    """Nanoseconds a round."""
    start = time.perf_counter_ns()
    for _ in range(rounds):
        call()
    return (time.perf_counter_ns() - start) / rounds


def _nothing() -> None:
    return None


def _compare(name: str, call: Callable[[], Any], c: Callable[[int], float], rounds: int) -> Dict[str, Any]:
    """Interleaved, so that a noisy machine hits all alike; the loop's own cost is taken off."""
    runs = [(_loop(call, rounds), _loop(_nothing, rounds), c(rounds)) for _ in range(RUNS)]
    python, empty, native = (min(column) for column in zip(*runs))
    return {"call": name, "python_ns": round(python - empty, 1), "c_ns": round(native, 1),
            "overhead_ns": round(python - empty - native, 1)}


def _check(code: int) -> None:
    if code != 0:
        raise RuntimeError(mf_smem.get_last_err_msg())


def _pool(rounds: int) -> List[Dict[str, Any]]:
    _check(bm.initialize(_free_url(), 1, 0, bm.BmConfig(rank_id=0)))
    buffer = array("B", bytes(64 << 10))
    source = buffer.buffer_info()[0]
    with bm.BigMemory(1, SLOT, 0) as pool:
        target = pool.join()

        def copy(size: int) -> Dict[str, Any]:
            return _compare(f"BigMemory.copy_data, {size} B",
                            lambda: pool.copy_data(source, target, size, bm.BmCopyType.H2G),
                            lambda n: _smem._time_copy(pool, source, target, size, bm.BmCopyType.H2G, n), rounds)

        results = [
            _compare("BigMemory.peer_rank_ptr", lambda: pool.peer_rank_ptr(0),
                     lambda n: _smem._time_ptr(pool, 0, n), rounds),
            copy(64),
            copy(64 << 10),
        ]
    bm.uninitialize()
    return results


def _session(rounds: int, descriptors: int) -> List[Dict[str, Any]]:
    import mf_adapter

    url, name = _free_url(), "127.0.0.1:15000"
    _check(mf_adapter.create_config_store(url))
    engine = mf_adapter.TransferEngine()
    _check(engine.initialize(url, name, "Decode", -1))
    source, target = array("B", bytes(8 * descriptors)), array("B", bytes(8 * descriptors))
    here, there = source.buffer_info()[0], target.buffer_info()[0]
    _check(engine.register_memory(there, len(target)))
    # Not adjoining, so that each is a piece of its own.
    buffers = array("Q", range(here, here + 8 * descriptors, 8))
    peers = array("Q", range(there, there + 8 * descriptors, 8))
    lengths = array("Q", [4]) * descriptors
    results = [
        _compare("TransferEngine.transfer_sync_write, 64 B",
                 lambda: engine.transfer_sync_write(name, here, there, 64),
                 lambda n: _smem._time_write(engine, name, here, there, 64, n), rounds),
        _compare(f"batch_transfer_sync_write, {descriptors} x 4 B from buffers",
                 lambda: _check(engine.batch_transfer_sync_write(name, buffers, peers, lengths)),
                 lambda n: _smem._time_batch(engine, name, buffers, peers, lengths, n), 5),
    ]
    lists = (buffers.tolist(), peers.tolist(), lengths.tolist())
    results.append(
        _compare(f"batch_transfer_sync_write, {descriptors} x 4 B from lists",
                 lambda: _check(engine.batch_transfer_sync_write(name, *lists)),
                 lambda n: _smem._time_batch(engine, name, buffers, peers, lengths, n), 5))
    engine.destroy()
    mf_smem.uninitialize()
    return results


def main(arguments: Optional[List[str]] = None) -> int:
    """Prints the table; exit status 1 when a call failed."""
    parser = argparse.ArgumentParser(prog="python -m mf_smem.perf", description="What the binding costs.")
    parser.add_argument("--json", action="store_true", help="one JSON array instead of a table")
    parser.add_argument("--rounds", type=int, default=20000, help="calls in a run of the single calls")
    parser.add_argument("--descriptors", type=int, default=100000, help="elements of a batch")
    options = parser.parse_args(arguments)
    try:
        results = _pool(options.rounds)
        try:
            results += _session(options.rounds, options.descriptors)
        except ModuleNotFoundError:
            print("mf_adapter is not installed: its calls are left out", file=sys.stderr)
    except (RuntimeError, mf_smem.SmemError) as error:
        print(error, file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(results))
        return 0
    print(f"{'call':<58}{'Python ns':>14}{'C ns':>14}{'overhead ns':>14}")
    for row in results:
        print(f"{row['call']:<58}{row['python_ns']:>14}{row['c_ns']:>14}{row['overhead_ns']:>14}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
