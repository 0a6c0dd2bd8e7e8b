#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prefill and decode in two processes: python examples/prefill_decode.py [REQUESTS].

Decode owns a KV cache of pages, one NumPy array a layer, and registers it. For each request it takes free pages and
sends their numbers, the block table, to prefill. Prefill computes the pages in its own cache, at other numbers, and
writes all pages of all layers with one batch call; the addresses are computed with NumPy and go to C without a copy.
A message tells decode that the pages are there; it verifies them and frees the pages.
"""

import multiprocessing
import random
import socket
import sys

import numpy

from mf_adapter import TransferEngine, create_config_store, get_last_err_msg

LAYERS, PAGES, TOKENS, HEADS, DIM = 8, 64, 16, 4, 32
PAGE_BYTES = TOKENS * HEADS * DIM * 2  # float16


def cache() -> numpy.ndarray:
    return numpy.zeros((LAYERS, PAGES, TOKENS, HEADS, DIM), dtype=numpy.float16)


def page(request: int, layer: int, index: int) -> numpy.ndarray:
    """What prefill would compute: any function of its arguments."""
    seed = request * 1009 + layer * 101 + index
    return ((numpy.arange(TOKENS * HEADS * DIM) + seed) % 997).astype(numpy.float16).reshape(TOKENS, HEADS, DIM)


def addresses(base: int, table: numpy.ndarray) -> numpy.ndarray:
    """Address of each page of the table in each layer, layer by layer."""
    layers = numpy.arange(LAYERS, dtype=numpy.uint64)[:, None] * numpy.uint64(PAGES)
    return (numpy.uint64(base) + (layers + table.astype(numpy.uint64)) * numpy.uint64(PAGE_BYTES)).ravel()


def check(code: int) -> None:
    if code != 0:
        sys.exit(f"{code}: {get_last_err_msg()}")


def open_engine(url: str, role: str) -> "tuple[TransferEngine, str]":
    engine = TransferEngine()
    session = f"127.0.0.1:{engine.get_rpc_port()}"
    check(engine.initialize(url, session, role, -1))
    return engine, session


def prefill(url: str, pipe) -> None:
    engine, _ = open_engine(url, "Prefill")
    mine = cache()
    session, base = pipe.recv()
    while (message := pipe.recv()) is not None:
        request, table = message
        own = numpy.array(random.sample(range(PAGES), len(table)))
        for layer in range(LAYERS):
            for index, number in enumerate(own):
                mine[layer, number] = page(request, layer, index)
        lengths = numpy.full(LAYERS * len(table), PAGE_BYTES, dtype=numpy.uint64)
        check(engine.batch_transfer_sync_write(session, addresses(mine.ctypes.data, own), addresses(base, table),
                                               lengths))
        pipe.send(request)
    engine.destroy()


def decode(url: str, pipe, requests: int) -> int:
    wrong = 0
    with TransferEngine() as engine:
        session = f"127.0.0.1:{engine.get_rpc_port()}"
        check(engine.initialize(url, session, "Decode", -1))
        cached = cache()
        check(engine.batch_register_memory([layer.ctypes.data for layer in cached], [layer.nbytes for layer in cached]))
        pipe.send((session, cached.ctypes.data))
        free = list(range(PAGES))
        random.shuffle(free)
        for request in range(requests):
            table = numpy.array([free.pop() for _ in range(random.randint(1, PAGES // 2))])
            pipe.send((request, table))
            if pipe.recv() != request:
                return 1
            for layer in range(LAYERS):
                for index, number in enumerate(table):
                    wrong += not numpy.array_equal(cached[layer, number], page(request, layer, index))
            print(f"request {request}: {len(table)} pages in {LAYERS} layers, {'verified' if not wrong else 'WRONG'}",
                  flush=True)
            free.extend(table.tolist())
            random.shuffle(free)
        pipe.send(None)
        for layer in cached:
            check(engine.unregister_memory(layer.ctypes.data))
    return 1 if wrong else 0


def main() -> int:
    requests = int(sys.argv[1]) if len(sys.argv) > 1 else 4
    with socket.socket() as probe:  # a free port for the store
        probe.bind(("127.0.0.1", 0))
        url = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    check(create_config_store(url))
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=prefill, args=(url, there))
    process.start()
    there.close()
    try:
        status = decode(url, here, requests)
    except EOFError:
        status = 1
    process.join()
    return status or process.exitcode


if __name__ == "__main__":
    sys.exit(main())
