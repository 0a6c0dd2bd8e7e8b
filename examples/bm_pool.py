#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A pool of memory between processes: python examples/bm_pool.py [RANKS].

Every rank gives 4 MiB. It writes an array into the slot of the next rank, and after a barrier finds in its own slot,
which it sees as a NumPy array without a copy, what the rank before it wrote.
"""

import multiprocessing
import socket
import sys

import numpy

from mf_smem import bm

SLOT = 4 << 20
POOL = 1


def pattern(writer: int) -> numpy.ndarray:
    return numpy.arange(SLOT // 8, dtype=numpy.int64) * (writer + 1)


def rank_main(rank: int, ranks: int, url: str, barrier) -> None:
    config = bm.BmConfig(rank_id=rank, init_timeout=30, operation_timeout=30)  # rank 0 hosts the store
    code = bm.initialize(url, ranks, 0, config)
    if code != 0:
        sys.exit(f"rank {rank}: initialize: {code}")
    with bm.create(POOL, SLOT, 0) as pool:
        pool.join()
        barrier.wait()  # everybody is in

        data = pattern(rank)
        pool.copy_data(data.ctypes.data, pool.peer_rank_ptr((rank + 1) % ranks), data.nbytes, bm.BmCopyType.H2G)
        barrier.wait()  # everybody has written

        mine = numpy.frombuffer(pool.view(), dtype=numpy.int64)  # no copy: this is the pool's memory
        right = numpy.array_equal(mine, pattern((rank - 1) % ranks))
        del mine  # a pool with views cannot be destroyed
        print(f"rank {rank}: slot at {pool.peer_rank_ptr(rank):#x}, {'verified' if right else 'WRONG'}", flush=True)
        barrier.wait()  # nobody leaves while another still looks
    bm.uninitialize()
    sys.exit(0 if right else 1)


def main() -> int:
    ranks = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    with socket.socket() as probe:  # a free port for the store
        probe.bind(("127.0.0.1", 0))
        url = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(ranks, timeout=60)
    processes = [context.Process(target=rank_main, args=(rank, ranks, url, barrier)) for rank in range(ranks)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return 0 if all(process.exitcode == 0 for process in processes) else 1


if __name__ == "__main__":
    sys.exit(main())
