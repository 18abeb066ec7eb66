"""Sparse indexes of a segment: offset to position, and timestamp to offset, in Kafka's formats.

Owns entries, pending ones in memory and written ones in the file, and the searches over both. Must
not decide when an entry is due (the segment does) and must not believe itself: an index is a
hint, checked against the batch it points at, and rebuilt from the log after an unclean stop.

Nothing is cached. A search reads the file without blocking (about 1 µs a probe) and begins with a
guess by proportion, because entries are spread evenly; usually one read of 4 KiB finds it. Keeping
indexes in memory would cost up to 5 MB for each full segment, and the kernel keeps them anyway.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from contextlib import suppress
from typing import Final, TypeAlias

from ottla.core.model import FileSlice
from ottla.core.ports import DiskError, File

OFFSET_ENTRY: Final = struct.Struct(">ii")  # last offset of a batch - base, where the batch starts
TIME_ENTRY: Final = struct.Struct(">qi")  # largest timestamp so far, its batch's last offset - base
Entry: TypeAlias = tuple[int, int]

_WRITE_AT = 64  # entries that gather in memory before they are written
_WINDOW = 512  # entries read at once: about a page


class NotResident(Exception):
    """Index pages that are not in memory. Never leaves storage: it becomes a `Cold`."""

    def __init__(self, file: File, position: int, length: int) -> None:
        super().__init__(file.path)
        self.file = file
        self.position = position
        self.length = length

    def slice(self) -> FileSlice:
        """What to warm."""
        return FileSlice(self.file, self.position, self.length)


class SparseIndex:
    """Entries of two integers, both rising. `count` includes those not yet written."""

    __slots__ = ("_entry", "_pending", "_written", "count", "file", "last")

    def __init__(self, file: File, entry: struct.Struct, count: int, last: Entry | None) -> None:
        """`count` entries are sound in the file, the last of them `last`."""
        self.file = file
        self.count = count
        self.last = last
        self._entry = entry
        self._written = count
        self._pending = bytearray()

    def add(self, first: int, second: int) -> None:
        """Add an entry. It is written with others, later."""
        self._pending += self._entry.pack(first, second)
        self.last = (first, second)
        self.count += 1
        if self.count - self._written >= _WRITE_AT:
            # The batch it points at is in already, and the index is a hint: on an error the
            # entries stay in memory and the next one tries again; closing does not overlook it.
            with suppress(DiskError):
                self.write_out()

    def write_out(self) -> None:
        """Write what is pending. Raises DiskError; the entries then stay pending."""
        if self._pending:
            self.file.write(self._pending, self._written * self._entry.size)
            self._written = self.count
            self._pending = bytearray()

    def clear(self) -> None:
        """Drop all entries: they are wrong, or about to be made anew."""
        self.count = self._written = 0
        self.last = None
        self._pending = bytearray()

    def keep(self, count: int, last: Entry | None) -> None:
        """Only the first entries count, the last of them `last`: those behind it are made anew."""
        self.count = self._written = count
        self.last = last
        self._pending = bytearray()

    def settle(self, was: bytes, kept: int) -> bool:
        """Write what is pending and cut what lies behind it; whether that changes the file.

        It `was` so before its first `kept` entries were kept. Raises DiskError. At start only.
        """
        size = self._entry.size
        if self._written == kept and was == was[: kept * size] + self._pending:
            self._written = self.count
            self._pending = bytearray()
            return False
        self.write_out()
        self.file.truncate(self.count * size)
        return True

    def floor(self, value: int, field: int) -> tuple[int, Entry] | None:
        """Number and content of the last entry whose `field` is <= `value`. Raises NotResident."""
        if self.count == 0 or self.last is None:
            return None
        if self.last[field] <= value:
            return self.count - 1, self.last
        low, high = 0, self.count  # the answer, if there is one, is in [low, high)
        guess = int(self.count * value / self.last[field]) if self.last[field] > 0 else 0
        middle = max(0, min(guess, self.count - 1) - _WINDOW // 2)
        while True:
            window = self._read(middle, min(middle + _WINDOW, high))
            count = len(window) // self._entry.size
            if self._unpacked(window, 0)[field] > value:
                if middle == low:
                    return None
                high = middle
            elif middle + count >= high or self._unpacked(window, count - 1)[field] > value:
                # Eight looks at packed entries cost a fifth of unpacking the window.
                above = bisect_right(
                    range(count), value, key=lambda at: self._unpacked(window, at)[field]
                )
                return middle + above - 1, self._unpacked(window, above - 1)
            else:
                low = middle + count - 1
            # The guess was off: from here on by halves.
            middle = max(low, (low + high - _WINDOW) // 2)

    def at(self, number: int) -> Entry:
        """One entry. Raises NotResident."""
        return self._unpacked(self._read(number, number + 1), 0)

    def _unpacked(self, window: bytes, at: int) -> Entry:
        first, second = self._entry.unpack_from(window, at * self._entry.size)
        return first, second

    def _read(self, first: int, end: int) -> bytes:
        """Entries as they are packed. Raises NotResident."""
        size = self._entry.size
        raw = b""
        if first < self._written:
            length = (min(end, self._written) - first) * size
            read = self.file.read_nowait(first * size, length)
            if read is None:
                raise NotResident(self.file, first * size, length)
            if len(read) < length:
                # Somebody cut the file under us. Without entries the log still answers.
                self.clear()
                raise NotResident(self.file, 0, 0)
            raw = read
        if end > self._written:
            begin = max(first - self._written, 0) * size
            raw += self._pending[begin : (end - self._written) * size]
        return raw


def open_index(file: File, entry: struct.Struct) -> SparseIndex | None:
    """An index as it stands in its file; None if its length or its last entry can't be right.

    Blocks for two small reads: at start only. What lies between is checked when it is used.
    """
    size = file.size()
    count = size // entry.size
    if size % entry.size:
        return None
    if count == 0:
        return SparseIndex(file, entry, 0, None)
    first = entry.unpack(file.read(0, entry.size))
    last = entry.unpack(file.read((count - 1) * entry.size, entry.size))
    if min(*first, *last) < 0 or (count > 1 and not (first[0] < last[0] and first[1] < last[1])):
        return None
    return SparseIndex(file, entry, count, (last[0], last[1]))
