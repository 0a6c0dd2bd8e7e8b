# SPDX-License-Identifier: Apache-2.0
from enum import IntEnum, IntFlag
from types import TracebackType
from typing import Any, ClassVar

from typing_extensions import Self, disjoint_base

__all__ = [
    "BigMemory",
    "BmConfig",
    "BmCopyType",
    "BmDataOpType",
    "BmMemType",
    "CopyData2DParams",
    "bm_rank_id",
    "create",
    "initialize",
    "uninitialize",
]

class BmCopyType(IntEnum):
    L2G = 0
    G2L = 1
    G2H = 2
    H2G = 3

class BmDataOpType(IntFlag):
    SDMA = 1
    ROCE = 2

class BmMemType(IntEnum):
    LOCAL_DEVICE = 0
    LOCAL_HOST = 1
    DEVICE = 2
    HOST = 3

@disjoint_base
class BmConfig:
    __hash__: ClassVar[None]  # type: ignore[assignment]
    init_timeout: int
    create_timeout: int
    operation_timeout: int
    start_store: bool
    start_store_only: bool
    dynamic_world_size: bool
    unified_address_space: bool
    auto_ranking: bool
    rank_id: int
    flags: int
    def __init__(
        self,
        init_timeout: int = 120,
        create_timeout: int = 120,
        operation_timeout: int = 120,
        start_store: bool = True,
        start_store_only: bool = False,
        dynamic_world_size: bool = False,
        unified_address_space: bool = True,
        auto_ranking: bool = False,
        rank_id: int = 65535,
        flags: int = 0,
    ) -> None: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __reduce__(self) -> tuple[type[Self], tuple[Any, ...]]: ...

@disjoint_base
class CopyData2DParams:
    __hash__: ClassVar[None]  # type: ignore[assignment]
    src: int
    spitch: int
    dest: int
    dpitch: int
    width: int
    height: int
    def __init__(
        self, src: int = 0, spitch: int = 0, dest: int = 0, dpitch: int = 0, width: int = 0, height: int = 0
    ) -> None: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __reduce__(self) -> tuple[type[Self], tuple[Any, ...]]: ...

def initialize(store_url: str, world_size: int, device_id: int, config: BmConfig) -> int: ...
def uninitialize(flags: int = 0) -> None: ...
def bm_rank_id() -> int: ...
def create(
    id: int,
    local_dram_size: int,
    local_hbm_size: int,
    data_op_type: BmDataOpType | int = BmDataOpType.SDMA,
    flags: int = 0,
    member_size: int = 0,
) -> BigMemory: ...

@disjoint_base
class BigMemory:
    def __init__(
        self,
        id: int,
        local_dram_size: int,
        local_hbm_size: int,
        data_op_type: BmDataOpType | int = BmDataOpType.SDMA,
        flags: int = 0,
        member_size: int = 0,
    ) -> None: ...
    def join(self, flags: int = 0) -> int: ...
    def leave(self, flags: int = 0) -> None: ...
    def local_mem_size(self, mem_type: BmMemType | int | None = None) -> int: ...
    def peer_rank_ptr(self, peer_rank: int, mem_type: BmMemType | int | None = None) -> int: ...
    def copy_data(self, src_ptr: int, dst_ptr: int, size: int, type: BmCopyType | int, flags: int = 0) -> None: ...
    def copy_data_2d(self, params: CopyData2DParams, type: BmCopyType | int, flags: int = 0) -> None: ...
    def view(self, peer_rank: int | None = None, mem_type: BmMemType | int | None = None) -> memoryview: ...
    def destroy(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...
