# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable
from enum import IntFlag
from types import TracebackType
from typing import Any, ClassVar

from typing_extensions import Buffer, Self, disjoint_base

__all__ = [
    "ShareMemory",
    "ShmConfig",
    "ShmDataOpType",
    "create",
    "initialize",
    "query_support_data_operation",
    "uninitialize",
]

class ShmDataOpType(IntFlag):
    MTE = 1
    SDMA = 2
    ROCE = 4

@disjoint_base
class ShmConfig:
    __hash__: ClassVar[None]  # type: ignore[assignment]
    init_timeout: int
    create_timeout: int
    operation_timeout: int
    start_store: bool
    flags: int
    def __init__(
        self,
        init_timeout: int = 120,
        create_timeout: int = 120,
        operation_timeout: int = 120,
        start_store: bool = True,
        flags: int = 0,
    ) -> None: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __reduce__(self) -> tuple[type[Self], tuple[Any, ...]]: ...

def initialize(store_url: str, world_size: int, rank_id: int, device_id: int, config: ShmConfig) -> int: ...
def uninitialize(flags: int = 0) -> None: ...
def query_support_data_operation() -> int: ...
def create(
    id: int,
    rank_size: int,
    rank_id: int,
    local_mem_size: int,
    data_op_type: ShmDataOpType | int = ShmDataOpType.MTE,
    flags: int = 0,
) -> ShareMemory: ...

@disjoint_base
class ShareMemory:
    def __init__(
        self,
        id: int,
        rank_size: int,
        rank_id: int,
        local_mem_size: int,
        data_op_type: ShmDataOpType | int = ShmDataOpType.MTE,
        flags: int = 0,
    ) -> None: ...
    @property
    def local_rank(self) -> int: ...
    @property
    def rank_size(self) -> int: ...
    @property
    def gva(self) -> int: ...
    def set_context(self, context: Buffer) -> None: ...
    def get_context(self, rank: int) -> bytes: ...
    def query_support_data_operation(self) -> int: ...
    def barrier(self) -> None: ...
    def all_gather(self, local_data: Buffer) -> bytes: ...
    def topology_can_reach(self, remote_rank: int, reach_info: int | None = None) -> int: ...
    def register_exit(self, callback: Callable[[int], object]) -> None: ...
    def global_exit(self, status: int) -> None: ...
    def view(self, rank: int | None = None) -> memoryview: ...
    def destroy(self, flags: int = 0) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...
