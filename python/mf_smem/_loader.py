# SPDX-License-Identifier: Apache-2.0
"""Which C library the extension will get, looked at before it is loaded.

The dynamic loader takes a libmf_smem.so.1 that the process has already, else one from LD_LIBRARY_PATH, else the one
bundled with the package. What it does not see is a library of another major version in the first two places: then two
libraries would live in one process, or not the one that was asked for. That is an ImportError here.
"""

import glob
import os
import re
import struct
from typing import BinaryIO, Iterator, Optional

SONAME = "libmf_smem.so.1"


def _read(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)


def _soname(path: str) -> Optional[str]:
    """DT_SONAME of a 64-bit ELF file; None when there is none or it cannot be read."""
    try:
        with open(path, "rb") as file:
            head = file.read(64)
            if len(head) < 64 or head[:5] != b"\x7fELF\x02":
                return None
            order = "<" if head[5] == 1 else ">"
            table, size, count = struct.unpack_from(order + "Q14xHH", head, 32)
            segments = [struct.unpack_from(order + "IIQQQQQQ", _read(file, table + i * size, 56)) for i in range(count)]
            names = soname = None
            for kind, _, offset, _, _, length, _, _ in segments:
                if kind != 2:  # PT_DYNAMIC
                    continue
                for tag, value in struct.iter_unpack(order + "qQ", _read(file, offset, length // 16 * 16)):
                    if tag == 0:
                        break
                    if tag == 5:  # DT_STRTAB, an address
                        names = value
                    elif tag == 14:  # DT_SONAME
                        soname = value
            if names is None or soname is None:
                return None
            for kind, _, offset, address, _, length, _, _ in segments:
                if kind == 1 and address <= names < address + length:  # PT_LOAD
                    text = _read(file, offset + names - address + soname, 256)
                    return text.split(b"\0", 1)[0].decode(errors="replace")
    except (OSError, struct.error):
        pass
    return None


def _is_ours(path: str) -> bool:
    """A file that cannot be read is judged by its name."""
    name = _soname(path)
    return (os.path.basename(path) if name is None else name).startswith(SONAME)


def _loaded() -> Iterator[str]:
    """Paths of the libraries of that name in this process."""
    seen = set()
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
            for line in maps:
                path = line.rstrip("\n").partition("/")
                name = "/" + path[2].removesuffix(" (deleted)")
                if path[1] and re.match(r"libmf_smem\.so(\.|$)", os.path.basename(name)) and name not in seen:
                    seen.add(name)
                    yield name
    except OSError:
        return


def _from_search_path() -> Iterator[str]:
    """What LD_LIBRARY_PATH offers: the file the dynamic loader takes, or those it would pass over."""
    folders = re.split("[:;]", os.environ.get("LD_LIBRARY_PATH", ""))
    given = [os.path.join(folder, SONAME) for folder in folders if folder]
    for path in given:
        if os.path.exists(path):
            yield path
            return
    for path in given:
        yield from sorted(glob.glob(glob.escape(os.path.dirname(path)) + "/libmf_smem.so*"))


def _own() -> str:
    """The bundled library, or where it would be."""
    here = os.path.dirname(os.path.abspath(__file__))
    return os.path.join(here, ".libs", SONAME)


def check() -> None:
    """ImportError when a library of another major version is loaded or given."""
    for where, paths in (("loaded already", _loaded()), ("given by LD_LIBRARY_PATH", _from_search_path())):
        for path in paths:
            if not _is_ours(path):
                raise ImportError(
                    f"mf_smem needs {SONAME}, as {_own()} is; {path}, {where}, is {_soname(path) or 'another'}",
                    name="mf_smem", path=path)
