"""Making a directory cold: its pages dropped, so that whoever reads it next waits for the disk.

Owns how that is done, and how fast the disk itself reads. Must not know what lies there.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from ottla.bench import usage
from ottla.host.residency import residency

ALL = "all of the kernel's caches, directories and inodes too (/proc/sys/vm/drop_caches)"
FILES = "the pages of the files, not directories and inodes (posix_fadvise; as root: all)"
_DROP_CACHES = Path("/proc/sys/vm/drop_caches")
_CHUNK_BYTES = 1 << 20
_SAMPLE = 32  # files asked how much of them is in memory


def drop(folder: str) -> str:
    """Write out everything and drop it; what was dropped. Raises OSError, Unmeasurable."""
    os.sync()  # a page that is not written yet can't be dropped
    try:
        _DROP_CACHES.write_text("3")
    except OSError:
        for path in _files(folder):
            _drop_file(path)
        return FILES
    return ALL


def _drop_file(path: Path) -> None:
    if not hasattr(os, "posix_fadvise"):
        raise usage.Unmeasurable("this system has no way to drop pages of a file")
    fd = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def _files(folder: str) -> Iterator[Path]:
    return (path for path in Path(folder).rglob("*") if path.is_file())


def cached_share(folder: str) -> float | None:
    """How much of some of the logs below a folder is in memory; None where nobody tells."""
    logs = sorted(Path(folder).glob("*/*.log"))
    whole = cached = 0
    for path in logs[:: max(1, len(logs) // _SAMPLE)]:
        found = residency(str(path))
        if found is None:
            return None
        whole += path.stat().st_size
        cached += found.cached
    return cached / whole if whole else None


def read_plainly(folder: str) -> tuple[int, float]:
    """Bytes of the logs below a folder, read one after the other, and the seconds that took."""
    size, begun = 0, time.perf_counter()
    buffer = memoryview(bytearray(_CHUNK_BYTES))
    for path in sorted(Path(folder).glob("*/*.log")):
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                size += count
    return size, time.perf_counter() - begun
