# SPDX-License-Identifier: Apache-2.0
"""Error codes and the exception that carries them."""

from enum import IntEnum

__all__ = ["ErrorCode", "SmemError"]


class ErrorCode(IntEnum):
    """What functions of the C library return: 0 or a negative code."""

    OK = 0
    ERROR = -1
    INVALID_PARAM = -2000
    MALLOC_FAILED = -2001
    NEW_OBJECT_FAILED = -2002
    NOT_STARTED = -2003
    TIMEOUT = -2004
    REPEAT_CALL = -2005
    DUPLICATED_OBJECT = -2006
    OBJECT_NOT_EXISTS = -2007
    NOT_INITIALIZED = -2008
    RESOURCE_IN_USE = -2009
    PEER_LOST = -2020
    UNREACHABLE = -2021
    STALE = -2022
    NOT_SUPPORTED = -2023
    IO = -2024
    SECURITY = -2025


class SmemError(RuntimeError):
    """A call of the C library failed.

    code       the C code, a value of ErrorCode
    message    the thread's last error message, which names the cause
    operation  the C function
    """

    def __init__(self, code: int, message: str, operation: str) -> None:
        super().__init__(code, message, operation)
        self.code = code
        self.message = message
        self.operation = operation

    def __str__(self) -> str:
        if self.operation in self.message and str(self.code) in self.message:
            return self.message
        try:
            name = "SMEM_" + ErrorCode(self.code).name
        except ValueError:
            name = "unknown code"
        return f"{self.operation}: {name} ({self.code}): {self.message}"


SmemError.__module__ = ErrorCode.__module__ = "mf_smem"
