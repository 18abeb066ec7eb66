"""Bringing directories of logs into memory before a start reads them one after the other.

Owns the look at whether the disk must be waited for, and the threads if so. Must not fail: what
can't be read is for whoever needs it to tell. A start reads half a dozen places of each log. From
memory that takes no time worth a thread; from a disk 2,000 logs took 43 s, one wait at a time.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import perf_counter

THREADS = 16
"""Most of their time they wait for the disk, which serves many at once better."""
COLD_S = 0.002
"""A directory that takes longer than this was not in memory, or the machine is busy."""
_TAIL_BYTES = 256 << 10  # of a log: what its index doesn't lead into yet after a crash, and more
_WHOLE_BYTES_MAX = 256 << 10
_PAGE = 4096


def read_ahead(
    paths: Sequence[str],
    touch: Callable[[str], None] | None = None,
    now: Callable[[], float] = perf_counter,
) -> None:
    """Bring what a start reads of these directories into memory, if a few of them are not there."""
    touch = touch or touch_directory
    left = deque(paths)
    cold = False
    for at in {0, len(paths) // 2, len(paths) - 1} if paths else ():
        begun = now()
        touch(paths[at])
        cold = cold or now() - begun > COLD_S
    if not cold:
        return

    def work() -> None:
        while True:
            try:
                path = left.popleft()  # atomic, so that no lock is needed
            except IndexError:
                return
            touch(path)

    threads = [threading.Thread(target=work) for _ in range(min(THREADS, len(paths)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def touch_directory(path: str) -> None:
    """Have the kernel read the ends of the files in a directory, and the small ones whole."""
    with suppress(OSError):
        for name in os.listdir(path):
            _touch(f"{path}/{name}")


def _touch(path: str) -> None:
    with suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.fstat(fd).st_size
            tail = _TAIL_BYTES if path.endswith(".log") else _PAGE
            if size <= _WHOLE_BYTES_MAX:
                _advise(fd, 0, size)
            else:
                _advise(fd, 0, _PAGE)
                _advise(fd, size - tail, tail)
        finally:
            os.close(fd)


def _advise(fd: int, position: int, length: int) -> None:
    if length:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(fd, position, length, os.POSIX_FADV_WILLNEED)
        else:
            os.pread(fd, length, position)
