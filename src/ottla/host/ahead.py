"""Bringing logs into memory before a start opens them one after the other.

Owns the look at whether the disk must be waited for, and the threads if so. Must not fail: what
can't be read is for whoever needs it to tell. A start reads half a dozen places of each log. From
memory that takes no time worth a thread; from a disk 2,000 logs took 43 s, one wait at a time.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import pairwise
from time import perf_counter

from ottla.core.model import Offset
from ottla.storage.index import OFFSET_ENTRY

Log = tuple[str, Offset | None]
"""A directory, and from where its batches will be read again; None if they won't."""

THREADS = 16
"""Most of their time they wait for the disk, which serves many at once better."""
COLD_S = 0.0005
"""A directory that takes longer than this was not in memory, or the machine is busy."""
_END_BYTES = 256 << 10  # of a log: what its index doesn't lead into yet after a crash, and more
_TAIL_BYTES = 1 << 20
"""Of what is read again of a log: the rest is read through, which the kernel sees by itself."""
_WHOLE_BYTES_MAX = 256 << 10
_PAGE = 4096
_ENTRIES_MAX = 1 << 18  # of an index that is looked into


def read_ahead(
    logs: Sequence[Log],
    touch: Callable[[Log], None] | None = None,
    now: Callable[[], float] = perf_counter,
) -> Callable[[], None]:
    """Begin to bring what a start reads of these logs into memory, if a few of them are not there.

    Returns what waits until it has been done.
    """
    touch = touch or touch_directory
    cold = False
    for at in {0, len(logs) // 2, len(logs) - 1} if logs else ():
        begun = now()
        touch(logs[at])
        cold = cold or now() - begun > COLD_S
    threads = _shared_out(logs, touch) if cold else []

    def wait() -> None:
        for thread in threads:
            thread.join()

    return wait


def _shared_out(logs: Sequence[Log], touch: Callable[[Log], None]) -> list[threading.Thread]:
    left = deque(logs)

    def work() -> None:
        while True:
            try:
                log = left.popleft()  # atomic, so that no lock is needed
            except IndexError:
                return
            touch(log)

    # Daemons: a start that fails must not wait for them.
    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(THREADS, len(logs)))]
    for thread in threads:
        thread.start()
    return threads


def touch_directory(log: Log, tail_bytes: int = _TAIL_BYTES) -> None:
    """Have the kernel read the ends of the files in a log's directory, and the small ones whole.

    And what is read again of its batches, up to `tail_bytes` for each file.
    """
    path, certain = log
    with suppress(OSError):
        names = sorted(os.listdir(path))
        for name in names:
            if not name.endswith(".log"):
                _touch(f"{path}/{name}", None, _PAGE)
        logs = [name for name in names if name.endswith(".log")]
        begins = will_read(path, logs, since_snapshot(names, certain))
        for name in logs:
            begin = begins.get(name)
            _touch(f"{path}/{name}", begin, _END_BYTES if begin is None else tail_bytes)


def since_snapshot(names: Sequence[str], certain: Offset | None) -> Offset | None:
    """From where a log is read if what its producers did since their snapshot is read, too."""
    if certain is None:
        return None
    snapshots = [_base_offset(name) for name in names if name.endswith(".snapshot")]
    return Offset(min(certain, max(snapshots, default=0)))


def will_read(path: str, logs: Sequence[str], certain: Offset | None) -> dict[str, int]:
    """Which of a log's files, by name and in order, are read again, and from which byte on."""
    if certain is None:
        return {}
    begins = {}
    for name, following in pairwise([*logs, ""]):
        if not following or _base_offset(following) > certain:
            index = f"{path}/{name.removesuffix('.log')}.index"
            begins[name] = _position(index, certain - _base_offset(name))
    return begins


def _base_offset(name: str) -> int:
    digits = name.partition(".")[0]
    return int(digits) if digits.isdigit() else 0


def _position(path: str, relative: int) -> int:
    """Where the last batch lies that an index leads to below an offset; 0 without one."""
    raw = b""
    with suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            raw = os.read(fd, _ENTRIES_MAX * OFFSET_ENTRY.size)
        finally:
            os.close(fd)
    entries = range(len(raw) // OFFSET_ENTRY.size)

    def entry(at: int) -> tuple[int, int]:
        offset, position = OFFSET_ENTRY.unpack_from(raw, at * OFFSET_ENTRY.size)
        return offset, position

    count = bisect_left(entries, relative, key=lambda at: entry(at)[0])
    return max(entry(count - 1)[1], 0) if count else 0


def _touch(path: str, begin: int | None, length: int) -> None:
    """A small file; of another its first page, and `length` bytes from `begin` on, or its last."""
    with suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            size = os.fstat(fd).st_size
            if size <= _WHOLE_BYTES_MAX:
                _advise(fd, 0, size)
            else:
                if begin is None:
                    begin = size - length
                _advise(fd, 0, _PAGE)
                _advise(fd, begin, min(length, size - begin))
        finally:
            os.close(fd)


def _advise(fd: int, position: int, length: int) -> None:
    if length > 0:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(fd, position, length, os.POSIX_FADV_WILLNEED)
        else:
            os.pread(fd, length, position)
