"""CRC-32C: the checksum of record batches and of producer snapshots.

Owns where the function comes from. The package `crc32c` asks for its own version when it is
imported, which costs importlib.metadata, email and zipfile: 11 of the 150 ms that a start may
take. So its extension module is loaded without it, and the package where that can't be done.
"""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from types import ModuleType
from typing import Protocol

from ottla.core.ports import Buffer


class _Crc32c(Protocol):
    def __call__(self, data: Buffer, value: int = 0, /) -> int: ...


def _module() -> ModuleType:
    """`crc32c._crc32c` by itself, or the package where that is not to be had as a file."""
    package = None if "crc32c" in sys.modules else PathFinder.find_spec("crc32c")
    if package is not None:
        spec = PathFinder.find_spec("crc32c._crc32c", package.submodule_search_locations)
        if spec is not None and spec.loader is not None:
            module = module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
    import crc32c

    return crc32c


crc32c: _Crc32c = _module().crc32c
