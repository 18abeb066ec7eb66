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
from ottla.host import linux
from ottla.storage.index import OFFSET_ENTRY
from ottla.storage.scanning import HEADERS_CHUNK

Log = tuple[str, Offset | None]
"""A directory, and from where its batches will be read again; None if they won't."""

SLOW_S = 0.001
"""A disk that needs longer for a directory is waited for, most of the time: it serves many at once
better, and the logs before are opened meanwhile. On one that is quicker it would take longer: for
each call of the system a thread gives up the interpreter's lock, and then wants it back."""
THREADS_SLOW = 16
THREADS_QUICK = 4
COLD_S = 0.0005
"""Where the kernel doesn't tell: a directory that takes longer than this was not in memory, or the
machine is busy. What can be asked for without waiting often takes less."""
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
"""To open a pipe would wait for who writes it. Whether it is a file, whoever needs it sees."""
_TAIL_BYTES = 1 << 20
"""Of what is read again of a log: the rest is read through, which the kernel sees by itself."""
_WHOLE_BYTES_MAX = 256 << 10
_PAGE = 4096
_ENTRIES_MAX = 1 << 18  # of an index that is looked into


def read_ahead(
    logs: Sequence[Log],
    touch: Callable[[Log], None] | None = None,
    now: Callable[[], float] = perf_counter,
    known: Callable[[Log], bool | None] | None = None,
) -> Callable[[], None]:
    """Bring what a start reads of these logs into memory, if a few of them are not there.

    Returns what waits until it has been done: at once, but on a slow disk. What is `known` of the
    few is whether they are in memory.
    """
    touch = touch or touch_directory
    known = known or in_memory
    waits = []
    for at in {0, len(logs) // 2, len(logs) - 1} if logs else ():
        begun = now()
        is_here = known(logs[at])
        if not is_here:
            touch(logs[at])
            took = now() - begun
            if is_here is False or took > COLD_S:
                waits.append(took)
    if not waits:
        return _nothing
    slow = min(waits) > SLOW_S
    threads = _shared_out(logs, touch, THREADS_SLOW if slow else THREADS_QUICK)

    def wait() -> None:
        for thread in threads:
            thread.join()

    if slow:
        return wait
    wait()
    return _nothing


def _nothing() -> None:
    pass


def in_memory(log: Log) -> bool | None:
    """Whether the ends of the files that a start looks into are in memory; None if nobody tells."""
    path, _ = log
    byte = bytearray(1)
    try:
        names = sorted(os.listdir(path), key=lambda name: (name.endswith(".log"), name))
        earlier = {name for name in names[:-1] if name.endswith(".log")}
        for name in names:
            if name in earlier:
                continue
            fd = os.open(f"{path}/{name}", _FLAGS)
            try:
                size = os.fstat(fd).st_size
                if size:
                    linux.read_resident(fd, byte, size - 1)
            finally:
                os.close(fd)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _shared_out(
    logs: Sequence[Log], touch: Callable[[Log], None], threads_max: int
) -> list[threading.Thread]:
    left = deque(logs)

    def work() -> None:
        while True:
            try:
                log = left.popleft()  # atomic, so that no lock is needed
            except IndexError:
                return
            touch(log)

    count = min(threads_max, len(logs))
    # Daemons: a start that fails must not wait for them.
    threads = [threading.Thread(target=work, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads


def touch_directory(log: Log, tail_bytes: int = _TAIL_BYTES) -> None:
    """Have the kernel read the small files in a log's directory, and the ends of its indexes.

    And what is read again of its batches, up to `tail_bytes` for each file. Where nothing is, that
    is what the last index doesn't lead past; of other files the first header.
    """
    path, certain = log
    with suppress(OSError):
        names = sorted(os.listdir(path))
        for name in names:
            if not name.endswith(".log"):
                _touch(f"{path}/{name}")
        logs = [name for name in names if name.endswith(".log")]
        if certain is None:
            begins = {name: _last_position(f"{path}/{_index_of(name)}") for name in logs[-1:]}
            tail_bytes = HEADERS_CHUNK
        else:
            begins = will_read(path, logs, since_snapshot(names, certain))
        for name in logs:
            begin = begins.get(name)
            _touch_log(f"{path}/{name}", begin or 0, 0 if begin is None else tail_bytes)


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
            begins[name] = _position(f"{path}/{_index_of(name)}", certain - _base_offset(name))
    return begins


def _base_offset(name: str) -> int:
    digits = name.partition(".")[0]
    return int(digits) if digits.isdigit() else 0


def _index_of(name: str) -> str:
    return f"{name.removesuffix('.log')}.index"


def _last_position(path: str) -> int:
    """Where the last batch lies that an index leads to; 0 without one."""
    with suppress(OSError):
        fd = os.open(path, _FLAGS)
        try:
            size = os.fstat(fd).st_size
            if size >= OFFSET_ENTRY.size:
                raw = os.pread(fd, OFFSET_ENTRY.size, size - OFFSET_ENTRY.size)
                return max(int(OFFSET_ENTRY.unpack(raw)[1]), 0)
        finally:
            os.close(fd)
    return 0


def _position(path: str, relative: int) -> int:
    """Where the last batch lies that an index leads to below an offset; 0 without one."""
    raw = b""
    with suppress(OSError):
        fd = os.open(path, _FLAGS)
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


def _touch(path: str) -> None:
    """A small file; of another its first page and its last."""
    with suppress(OSError):
        fd = os.open(path, _FLAGS)
        try:
            size = os.fstat(fd).st_size
            if size <= _WHOLE_BYTES_MAX:
                _advise(fd, 0, size)
            else:
                _advise(fd, 0, _PAGE)
                _advise(fd, size - _PAGE, _PAGE)
        finally:
            os.close(fd)


def _touch_log(path: str, begin: int, length: int) -> None:
    """The first page, and `length` bytes from `begin` on, or as many as there are."""
    with suppress(OSError):
        fd = os.open(path, _FLAGS)
        try:
            size = os.fstat(fd).st_size
            if begin or not length:
                _advise(fd, 0, min(_PAGE, size))
            _advise(fd, begin, min(length, size - begin))
        finally:
            os.close(fd)


def _advise(fd: int, position: int, length: int) -> None:
    if length > 0:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(fd, position, length, os.POSIX_FADV_WILLNEED)
        else:
            os.pread(fd, length, position)
