# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable

from . import bm as bm
from . import shm as shm
from ._errors import ErrorCode as ErrorCode
from ._errors import SmemError as SmemError
from ._version import __version__ as __version__

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

def initialize(flags: int = 0) -> int: ...
def uninitialize() -> None: ...
def create_config_store(store_url: str) -> int: ...
def set_log_level(level: int) -> int: ...
def set_extern_logger(log_fn: Callable[[int, str], object] | None) -> int: ...
def get_last_err_msg() -> str: ...
def get_and_clear_last_err_msg() -> str: ...
def strerror(code: int) -> str: ...
def register_decrypt_handler(py_decrypt_func: Callable[[str], str] | None) -> int: ...
