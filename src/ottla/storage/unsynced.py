"""What a log owes the disk besides the bytes of its last segment, until a sync round has taken it.

Owns a list of it, no more: `rounds` says when it is synced. What is written is not named here, for
every append would have to; what was rolled, made or renamed comes once in a segment.
"""

from __future__ import annotations

from collections.abc import Collection

from ottla.core.ports import File
from ottla.storage.segment import Segment


class Unsynced:
    """Of one log, since the last round."""

    __slots__ = ("names", "once", "rolled")

    def __init__(self) -> None:
        self.rolled: list[Segment] = []
        """Segments that get no more bytes."""
        self.once: list[File] = []
        """Files that nobody reads or writes any more: synced once, then closed."""
        self.names: list[str] = []
        """Directories with new names."""

    def files(self) -> list[File]:
        """All that are to be synced."""
        return [file for segment in self.rolled for file in segment.files()] + self.once

    def forget(self, gone: Collection[Segment]) -> None:
        """Segments that were let go of need no sync."""
        self.rolled = [segment for segment in self.rolled if segment not in gone]

    def close(self) -> None:
        """They are synced, or need not be."""
        for file in self.once:
            file.close()
        self.once = []
