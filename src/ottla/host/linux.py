"""What can be done only on some systems: read without waiting, reserve, sync for real, stand back.

Owns the calls and whether they are there. `host/disk.py` has the fallback of each.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from errno import EDQUOT, EFBIG, EINTR, EINVAL, ENODEV, ENOSPC, ENOSYS, EOPNOTSUPP
from functools import cache
from typing import Any

AVAILABLE = sys.platform == "linux" and hasattr(os, "RWF_NOWAIT")

_KEEP_SIZE = 1
_NOT_NOW = frozenset({EOPNOTSUPP, ENOSYS, EINVAL, ENODEV, ENOSPC, EDQUOT, EFBIG, EINTR})
"""Answers of fallocate that only mean "no": a write that needs the room will name the trouble."""


def read_resident(fd: int, into: bytearray, position: int) -> int:
    """Read what is in the page cache. Raises OSError EAGAIN if the first page is not."""
    if sys.platform != "linux":
        raise OSError(EOPNOTSUPP, "no preadv2 here")
    return os.preadv(fd, (into,), position, os.RWF_NOWAIT)


def stand_back() -> None:
    """Have the calling thread take the processor from nobody when it wakes, from now on.

    Who wakes a thread for a disk stands beside it on the same processor, as a rule, and Linux
    prefers who has slept for long: the loop waited 0.3 to 1.1 ms in the middle of an answer.
    """
    if sys.platform == "linux":
        with suppress(OSError):  # forbidden here: then as before
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def reserve(fd: int, position: int, length: int) -> None:
    """Ask for blocks without changing the file's length. Raises OSError where it is not a "no"."""
    fallocate, errno = _fallocate()
    if fallocate(fd, _KEEP_SIZE, position, length) != 0 and (code := errno()) not in _NOT_NOW:
        raise OSError(code, os.strerror(code))


@cache
def _fallocate() -> tuple[Callable[..., int], Callable[[], int]]:
    # Python has posix_fallocate only, and that one lengthens the file: a zero tail, at which
    # Kafka's DumpLogSegments fails. Imported late because ctypes is not needed to start.
    import ctypes

    library: Any = ctypes.CDLL(None, use_errno=True)
    call = library.fallocate64 if hasattr(library, "fallocate64") else library.fallocate
    call.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    call.restype = ctypes.c_int
    return call, ctypes.get_errno


def _full_sync() -> Callable[[int], object] | None:
    if sys.platform != "darwin":
        return None
    import fcntl

    return lambda fd: fcntl.fcntl(fd, fcntl.F_FULLFSYNC)


FULL_SYNC = _full_sync()
