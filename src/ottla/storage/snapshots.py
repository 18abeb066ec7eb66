"""Snapshots of a log's producers: where they lie, and when one is due between those of rolls.

Owns which of them a log has written since it was opened, so that a start after a crash has little
to read again and no file stays that nobody needs. Must not know what is in one: `producers` does.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from ottla.core.model import Offset
from ottla.core.ports import CreateFile, Step, UnlinkFile
from ottla.storage.segment import stem

if TYPE_CHECKING:
    from ottla.storage.producers import ProducerStates
    from ottla.storage.segment import Segment

SUFFIX = ".snapshot"
_EVERY = 1 << 20  # bytes of log that a start after a crash reads again for its producers
_EVERY_PRODUCER = 1 << 10  # or more, where there are many: a snapshot has them all


def snapshot_path(directory: str, offset: int) -> str:
    """Where the snapshot lies that has what producers did before `offset`."""
    return stem(directory, offset) + SUFFIX


class Snapshots:
    """Of one log, those between rolls. A roll's own goes with its segment."""

    __slots__ = ("_behind", "_directory", "_offsets")

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._offsets: list[Offset] = []
        self._behind: tuple[Segment | None, int] = (None, 0)
        """The segment that the last one was taken in, and how much of it lay before."""

    def take(self, active: Segment, end: Offset, producers: ProducerStates) -> list[Step]:
        """Write one, if a start after a crash would read much without it.

        It needs no sync: one that is torn is passed over, and the one before it is still there.
        """
        segment, position = self._behind
        unread = active.size - (position if segment is active else 0)
        if unread < max(_EVERY, len(producers) * _EVERY_PRODUCER):
            return []
        self._behind = (active, active.size)
        old, self._offsets = self._offsets[:-1], [*self._offsets[-1:], end]
        created = CreateFile(snapshot_path(self._directory, end), producers.encode())
        return [created, *_unlink(self._directory, old)]

    def drop(self, kept: Collection[Offset]) -> list[Step]:
        """Remove them all but those at `kept`, which others have written there as well."""
        return _unlink(self._directory, {*self._offsets}.difference(kept))


def _unlink(directory: str, offsets: Collection[Offset]) -> list[Step]:
    return [UnlinkFile(snapshot_path(directory, offset)) for offset in offsets]
