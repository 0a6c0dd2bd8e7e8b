# SPDX-License-Identifier: Apache-2.0
"""Memory fabric: pooled (mf_smem.bm) and symmetric (mf_smem.shm) memory of many processes.

Functions that initialise or set something return 0 or a negative code, explained by get_last_err_msg(). Objects raise
SmemError. Every call that can wait or move data runs without the interpreter's lock. mf_smem.aio has the blocking calls
for asyncio; transfers between registered buffers are in the package mf_adapter.
"""

from . import _loader
from ._errors import ErrorCode, SmemError
from ._version import __version__

_loader.check()

from . import bm, shm  # noqa: E402
from ._smem import (  # noqa: E402
    create_config_store,
    get_and_clear_last_err_msg,
    get_last_err_msg,
    initialize,
    register_decrypt_handler,
    set_extern_logger,
    set_log_level,
    strerror,
    uninitialize,
)

__all__ = [
    "ErrorCode",
    "SmemError",
    "__version__",
    "bm",
    "create_config_store",
    "get_and_clear_last_err_msg",
    "get_last_err_msg",
    "initialize",
    "register_decrypt_handler",
    "set_extern_logger",
    "set_log_level",
    "shm",
    "strerror",
    "uninitialize",
]
