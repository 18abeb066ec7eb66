"""The mark beside the metadata store: the last transaction that may have been answered.

Owns one line in a file apart from the database, by which a start sees that transactions are
missing. The database can't tell that by itself: SQLite takes the first frame of its log that
doesn't fit for the end of it, and a file without a byte for a new store. Must not know SQLite.

The line is written once its transaction is durable, before anybody is answered. So after any crash
it names that transaction or an earlier one, and a store that has less than it says is damaged. The
other way round nothing follows: an old mark, none, or one that can't be read (a power cut may leave
each of them) costs nothing but the proof, and is made anew.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from ottla.host.files import open_regular
from ottla.records.crc import crc32c

SUFFIX = "-last"
_LINE = re.compile(rb"ottla-metadata 1 (\d{19}) (\d{10}) (\d{10})\n")
"""Version, revision, checksum of all entries then, checksum of the line. Always of one length, and
within one sector: written over in place, it is the old one or the new one."""


class Mark(NamedTuple):
    """What the store was at its last transaction."""

    revision: int
    checksum: int

    def encode(self) -> bytes:
        text = b"ottla-metadata 1 %019d %010d" % self
        return b"%b %010d\n" % (text, crc32c(text))


def read_mark(path: str) -> Mark | None:
    """The mark of the store in `path`; None if there is none that can be believed."""
    try:
        with open(path + SUFFIX, "rb", opener=open_regular) as file:
            raw = file.read(512)
    except OSError:
        return None
    found = _LINE.fullmatch(raw)
    if found is None or crc32c(raw[: found.end(2)]) != int(found[3]):
        return None
    return Mark(int(found[1]), int(found[2]))


class MarkFile:
    """The file, held open by who writes the store."""

    def __init__(self, path: str, *, durable: bool) -> None:
        """Open or make it. Raises OSError."""
        self._path = path + SUFFIX
        self._durable = durable
        is_new = not os.path.exists(self._path)
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._name_unsynced = is_new
        self._unsynced = False
        size = len(Mark(0, 0).encode())
        if os.fstat(self._fd).st_size > size:  # damaged: nothing else has written there
            os.ftruncate(self._fd, size)

    def write(self, mark: Mark) -> None:
        """Raises OSError; the mark is then the old one, or can't be believed."""
        os.pwrite(self._fd, mark.encode(), 0)
        self._unsynced = True

    @property
    def is_behind(self) -> bool:
        """Whether a power cut might bring back an earlier one."""
        return self._durable and self._unsynced

    def sync(self) -> None:
        """Make it outlast a power cut. Raises OSError.

        Nobody waits for this: it is done when nothing else is to do. Until then a power cut brings
        back an earlier mark, which proves less and refuses nothing.
        """
        if not self.is_behind:
            return
        self._unsynced = False  # a sync that failed is not repeated: the next write is
        os.fsync(self._fd)
        if self._name_unsynced:
            folder = os.open(os.path.dirname(self._path) or ".", os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
            self._name_unsynced = False

    def close(self) -> None:
        os.close(self._fd)
