"""The order in which the logs of a directory are opened, and how the disk is kept busy meanwhile.

Owns how far reading ahead goes. Must not open a log.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ottla.core.model import Offset, TopicPartition
from ottla.core.ports import Disk

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
