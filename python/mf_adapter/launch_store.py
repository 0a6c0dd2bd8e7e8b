# SPDX-License-Identifier: Apache-2.0
"""python -m mf_adapter.launch_store URL [--log-level N]: hosts a config store until SIGINT or SIGTERM."""

import argparse
import re
import signal
import sys
from typing import List, Optional

import mf_smem


def _parse(arguments: Optional[List[str]]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m mf_adapter.launch_store", description="Hosts a config store.")
    parser.add_argument("url", metavar="URL", help="tcp://HOST:PORT; 0.0.0.0 and [::] listen on all addresses")
    parser.add_argument("--log-level", type=int, choices=range(4), metavar="N", help="0 debug, 1 info, 2 warn, 3 error")
    return parser.parse_args(arguments)


def _shown(url: str) -> str:
    """The URL as it counts: one colon after tcp, no mask, lower case."""
    return re.sub(r"/\d+(?=:\d+$)", "", re.sub(r"^tcp::?//", "tcp://", url)).lower()


def main(arguments: Optional[List[str]] = None) -> int:
    """Exit status: 0 after a signal, 1 when the store cannot be created, 2 for bad usage (by argparse)."""
    options = _parse(arguments)
    if options.log_level is not None:
        mf_smem.set_log_level(options.log_level)
    # Blocked before the library starts threads, so that the signal waits for us and nobody else.
    ends = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    if mf_smem.create_config_store(options.url) != 0:
        print(mf_smem.get_last_err_msg(), file=sys.stderr)
        return 1
    print(f"listening on {_shown(options.url)}", flush=True)
    signal.sigwait(ends)
    mf_smem.uninitialize()
    return 0


if __name__ == "__main__":
    sys.exit(main())
