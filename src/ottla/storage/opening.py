"""What a start has to do with the disk: what is read ahead, and what a refusal to read means.

Owns how far reading ahead goes, and which troubles are the whole disk's. Must not open a log.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from errno import EDQUOT, EMFILE, ENFILE, ENOMEM, ENOSPC, EROFS

from ottla.core.model import Offset, TopicPartition
from ottla.core.ports import Disk, DiskError

_READ_AHEAD = 256
"""Logs: while these are opened, so many more are read ahead, and stay in memory until it's their
turn."""


def ahead_of(
    disk: Disk,
    logs: Sequence[tuple[TopicPartition, str]],
    certain: Mapping[TopicPartition, Offset] | None,
) -> Iterator[tuple[TopicPartition, str]]:
    """The logs in order, each once it was read ahead: the disk serves the next while it is opened.

    `certain`: what of each was on disk, the rest being read again; None where nothing is.
    """
    some = [logs[at : at + _READ_AHEAD] for at in range(0, len(logs), _READ_AHEAD)]
    wanted = [
        [(path, None if certain is None else certain.get(name, Offset(0))) for name, path in part]
        for part in some
    ]
    wait = disk.read_ahead(wanted[0] if wanted else [])
    for part, following in zip(some, [*wanted[1:], []], strict=False):
        wait()
        wait = disk.read_ahead(following)
        yield from part


_OF_ALL = frozenset({ENOSPC, EDQUOT, EROFS, EMFILE, ENFILE, ENOMEM})
_READING = frozenset({"list", "open", "read", "stat"})
UNBELIEVABLE = b"\xff"
"""The content of a file of which nothing can be known: no kind of file may look like this."""


def is_of_one_file(error: DiskError) -> bool:
    """Whether a file could not be read, and that need not be so with any other.

    After a refused write a start must not go on: what was written before may be lost, too (I30).
    """
    return error.action in _READING and error.errno not in _OF_ALL


def read_derived(disk: Disk, path: str) -> bytes | None:
    """A small file that can be made anew: what can't be read is as good as damaged.

    None if it is not there. Raises DiskError where the trouble is not the file's own.
    """
    try:
        return disk.read_file(path)
    except DiskError as error:
        if not is_of_one_file(error):
            raise
        return UNBELIEVABLE
