"""How much of a file lies in the page cache, as Linux's cachestat(2) tells it.

Owns that one system call. Blocks for as long as it takes to open a file: not for the loop's
thread. Elsewhere, and before Linux 6.5, nobody knows, and that is what is answered.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from functools import cache
from typing import NamedTuple

_CACHESTAT = 451  # the same on every architecture


class Residency(NamedTuple):
    """Bytes of a file in the page cache, and of those the ones not yet written to the disk."""

    cached: int
    dirty: int


class _Range(ctypes.Structure):
    _fields_ = [("offset", ctypes.c_uint64), ("length", ctypes.c_uint64)]


class _Stat(ctypes.Structure):
    _fields_ = [
        ("cached", ctypes.c_uint64),
        ("dirty", ctypes.c_uint64),
        ("writeback", ctypes.c_uint64),
        ("evicted", ctypes.c_uint64),
        ("recently_evicted", ctypes.c_uint64),
    ]


@cache
def _library() -> ctypes.CDLL | None:
    return ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def residency(path: str) -> Residency | None:
    """None where the system doesn't tell, or the file is gone."""
    library = _library()
    if library is None:
        return None
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        whole, found = _Range(0, 0), _Stat()
        failed = library.syscall(
            ctypes.c_long(_CACHESTAT), fd, ctypes.byref(whole), ctypes.byref(found), 0
        )
    finally:
        os.close(fd)
    if failed:
        return None
    return Residency(found.cached * mmap.PAGESIZE, found.dirty * mmap.PAGESIZE)
