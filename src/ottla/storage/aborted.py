"""Aborted transactions of a segment: the `.txnindex` file, in Kafka's format.

Owns its entries, in the order of the markers that ended them, and the search for those that a
range of offsets meets. Must not know which transactions are open (`producers` does), nor read a
marker. A segment has the file only once a transaction was aborted in it.

Entry, big-endian: version int16 · producer id int64 · first offset int64 · last offset int64 (the
marker's) · last stable offset int64, as it was once the marker was in. Derived data: recovery makes
it anew from the batches. Unlike the sparse indexes it is written at once and believed: an entry
that was missing would show readers what was taken back. So a checkpoint says which segments have
one, and with what content (`derived.doubt_aborted`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from errno import EIO
from typing import Final, NamedTuple

from ottla.core.model import Offset
from ottla.core.ports import DiskError, File
from ottla.records.crc import crc32c
from ottla.storage.index import NotResident

SUFFIX: Final = ".txnindex"
_ENTRY = struct.Struct(">hqqqq")
_VERSION = 0
_WINDOW = 128
"""Entries read at once: about a page."""


class Aborted(NamedTuple):
    """A transaction that was taken back: both offsets inclusive, the last one is its marker's.

    `last_stable` is where the next open transaction began when the marker was written, or else the
    offset after it: whatever was aborted later began there or behind it.
    """

    producer_id: int
    first_offset: Offset
    last_offset: Offset
    last_stable: Offset


class AbortedIndex:
    """The aborted transactions whose markers lie in one segment."""

    __slots__ = ("_staged_crc", "count", "crc", "file")

    def __init__(self, file: File, count: int = 0, crc: int = 0) -> None:
        """`count` entries of the file are sound; what lies behind them will be written over."""
        self.file = file
        self.count = count
        self.crc = crc
        """CRC-32C of those entries."""
        self._staged_crc = crc

    def stage(self, aborted: Aborted) -> None:
        """Write the next entry; it counts after `take`, once its marker is in the log.

        Before the marker, for the other way round a failed write would leave a marker that no
        reader learns of. Raises DiskError.
        """
        raw = _ENTRY.pack(_VERSION, *aborted)
        self.file.write(raw, self.count * _ENTRY.size)
        self._staged_crc = crc32c(raw, self.crc)

    def take(self) -> None:
        """The marker of the staged entry is in the log."""
        self.count += 1
        self.crc = self._staged_crc

    def clear(self) -> None:
        """Begin again with the first entry."""
        self.count = self.crc = 0

    def settle(self) -> None:
        """Cut what lies behind the last entry. Raises DiskError."""
        self.file.truncate(self.count * _ENTRY.size)

    def search(self, offset: Offset, upper: Offset) -> tuple[list[Aborted], bool]:
        """Those that meet [offset, upper), and whether no later one can.

        Raises NotResident, and DiskError where the file is not as it was left.
        """
        found: list[Aborted] = []
        for aborted in self._entries(self._first_ending_at(offset)):
            if aborted.first_offset < upper:
                found.append(aborted)
            if aborted.last_stable >= upper:
                return found, True
        return found, False

    def _first_ending_at(self, offset: Offset) -> int:
        """Number of the first entry whose marker is at `offset` or later: they rise."""
        low, high = 0, self.count
        while low < high:
            middle = (low + high) // 2
            if next(self._entries(middle, 1)).last_offset < offset:
                low = middle + 1
            else:
                high = middle
        return low

    def _entries(self, number: int, window: int = _WINDOW) -> Iterator[Aborted]:
        while number < self.count:
            position = number * _ENTRY.size
            length = min(window, self.count - number) * _ENTRY.size
            raw = self.file.read_nowait(position, length)
            if raw is None:
                raise NotResident(self.file, position, length)
            if len(raw) < length:
                # Cut under us. Without it readers would be shown what was taken back.
                raise DiskError("read", self.file.path, OSError(EIO, "it was cut"))
            for entry in _ENTRY.iter_unpack(raw):
                yield _aborted(entry)
            number += length // _ENTRY.size


def open_aborted(file: File, base_offset: Offset) -> AbortedIndex | None:
    """The index as it stands in its file; None if its entries can't be right. Blocks: at start."""
    raw = file.read(0, file.size())
    entries = decode_aborted(raw, base_offset)
    return None if entries is None else AbortedIndex(file, len(entries), crc32c(raw))


def decode_aborted(raw: bytes, base_offset: Offset) -> list[Aborted] | None:
    """The entries in a segment's index; None if they can't be right."""
    if len(raw) % _ENTRY.size:
        return None
    before = base_offset - 1
    found: list[Aborted] = []
    for entry in _ENTRY.iter_unpack(raw):
        aborted = _aborted(entry)
        if entry[0] != _VERSION or not before < aborted.last_offset:
            return None
        # The last stable offset lies below both where an older transaction is still open.
        if not 0 <= aborted.first_offset <= aborted.last_offset or aborted.last_stable < 0:
            return None
        before = aborted.last_offset
        found.append(aborted)
    return found


def _aborted(entry: tuple[int, ...]) -> Aborted:
    _, producer_id, first, last, stable = entry
    return Aborted(producer_id, Offset(first), Offset(last), Offset(stable))
