"""One round of compaction over a partition's files: keys noted, then segments written anew.

Owns what reads and writes: from segments to `.cleaned` files beside them, synced. Must not touch
the segments themselves nor put anything in their place (`swap` does), and must not run on the
loop: it blocks, for minutes. A worker process runs it, or a tool.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from ottla.core.model import Offset
from ottla.core.ports import Buffer, CreateFile, Disk, File, SyncDirectory, SyncFile
from ottla.core.value import Value
from ottla.records.batch import (
    CONTROL_BIT,
    CRC_START,
    HEADER_SIZE,
    LOG_OVERHEAD,
    MAGIC,
    TRANSACTIONAL_BIT,
    BatchView,
    RecordError,
)
from ottla.records.crc import crc32c
from ottla.storage.aborted import SUFFIX as ABORTED
from ottla.storage.aborted import Aborted, AbortedIndex, decode_aborted
from ottla.storage.cleaner.filtering import Filter, LastBatch, emptied, opened
from ottla.storage.cleaner.latest import LatestOffsets
from ottla.storage.cleaner.swap import CLEANED
from ottla.storage.cleaner.transactions import Transactions
from ottla.storage.cleaner.walking import note_keys
from ottla.storage.index import OFFSET_ENTRY, TIME_ENTRY, Entry, SparseIndex
from ottla.storage.segment import POSITION_MAX, SUFFIXES, Segment, stem

_CHUNK: Final = 4 << 20
_WRITE_AT: Final = 1 << 20
_LENGTH: Final = struct.Struct(">i")
_MAGIC_AT: Final = 16
_TRANSACTIONS: Final = TRANSACTIONAL_BIT | CONTROL_BIT


class Uncleanable(Exception):
    """What lies in the log can't be compacted: the partition is left alone from now on."""


class Piece(Value):
    """A segment to compact. `size` bytes are batches, whose last offset lies below `end`."""

    base_offset: int
    size: int
    end: int


class Plan(Value):
    """What a worker must know. Picklable. Offsets below `upper` may be compacted."""

    directory: str
    pieces: Sequence[Piece]
    """All segments below `upper`, in order."""
    first_dirty: int
    upper: int
    aborted_in: Sequence[int]
    """Base offsets of all segments, later ones too, that have an index of aborted transactions."""
    producers: Mapping[int, LastBatch]
    now_ms: int
    delete_retention_ms: int
    index_interval_bytes: int
    buffer_bytes: int
    decompressed_max: int


class Noted(NamedTuple):
    """What the first half has found: all keys below `known_to`."""

    known_to: int
    keys_count: int
    is_full: bool
    """Whether keys were left that did not fit: another round goes on from here."""


class Cleaned(NamedTuple):
    """A segment written anew: what is known of it without reading it."""

    base_offset: int
    size: int
    end: int
    first_timestamp: int | None
    max_timestamp: int
    max_timestamp_offset: int
    offsets: tuple[int, Entry | None]
    times: tuple[int, Entry | None]
    aborted: tuple[int, int]
    """How many entries its index of aborted transactions has, and their checksum."""
    records_dropped: int

    def segment(self, files: Sequence[File]) -> Segment:
        """The segment, its files open: in the order of `suffixes_of`."""
        indexes = [
            SparseIndex(file, entry, *known)
            for file, entry, known in zip(
                files[1:3], (OFFSET_ENTRY, TIME_ENTRY), (self.offsets, self.times), strict=True
            )
        ]
        segment = Segment(Offset(self.base_offset), files[0], *indexes)
        segment.size = self.size
        segment.end = Offset(self.end)
        segment.first_timestamp = self.first_timestamp
        segment.max_timestamp = self.max_timestamp
        segment.max_timestamp_offset = self.max_timestamp_offset
        segment.opened()
        segment.checked_from = 0  # every checksum in it was just computed
        if self.aborted[0]:
            segment.aborted = AbortedIndex(files[3], *self.aborted)
        return segment

    @property
    def suffixes(self) -> tuple[str, ...]:
        """The kinds of files that it has."""
        return (*SUFFIXES, ABORTED) if self.aborted[0] else SUFFIXES


Pace = Callable[[int], None]
"""Told of bytes that were read or written; waits where that was too fast."""


class Round:
    """`note` once, then `clean` each group of segments, in order. All raise DiskError."""

    def __init__(self, disk: Disk, plan: Plan, pace: Pace) -> None:
        self._disk = disk
        self._plan = plan
        self._pace = pace
        self._latest = LatestOffsets(plan.buffer_bytes, plan.first_dirty)
        self._aborted = self._read_aborted()
        self._filter: Filter | None = None
        self._transactions = self._transactions_from(plan.pieces)

    def _read_aborted(self) -> list[Aborted]:
        found: list[Aborted] = []
        for base in self._plan.aborted_in:
            file = self._disk.open(stem(self._plan.directory, base) + ABORTED)
            try:
                entries = decode_aborted(file.read(0, file.size()), Offset(base))
                if entries is None:
                    raise Uncleanable(f"{file.path} can't be right")
                found += entries
            finally:
                file.close()
        return found

    def _transactions_from(self, pieces: Sequence[Piece]) -> Transactions:
        """What was aborted further down is over; its producer goes on with something else."""
        begin = pieces[0].base_offset if pieces else 0
        return Transactions([one for one in self._aborted if one.last_offset >= begin])

    def note(self) -> Noted:
        """Note the keys of what is not compacted yet, as many as there is room for.

        Raises Uncleanable where the log is damaged.
        """
        plan = self._plan
        known_to, is_full = plan.first_dirty, False
        dirty = [piece for piece in plan.pieces if piece.end > plan.first_dirty]
        transactions = self._transactions_from(dirty)
        for piece in dirty:
            reached = self._note_piece(piece, transactions)
            if reached is not None:
                known_to, is_full = max(known_to, reached), True
                break
            known_to = piece.end  # nothing follows in it, though its batches may end before
        self._filter = Filter(
            self._latest,
            known_to,
            self._transactions,
            plan.producers,
            (plan.now_ms, plan.delete_retention_ms),
            (plan.upper, plan.decompressed_max),
        )
        return Noted(known_to, len(self._latest), is_full)

    def _note_piece(self, piece: Piece, transactions: Transactions) -> int | None:
        """Where it stopped, if there was no more room."""
        first_dirty, decompressed_max = self._plan.first_dirty, self._plan.decompressed_max
        latest, superseded = self._latest, self._latest.superseded
        for batch, data, at in self._batches(piece):
            try:
                if batch.attributes & _TRANSACTIONS:
                    if batch.is_control:
                        transactions.control(batch)
                        continue
                    if transactions.data(batch):
                        continue
                if batch.last_offset < first_dirty:
                    continue
                if not latest.room(batch.records_count):
                    return batch.base_offset
                superseded.reach(batch.last_offset + 1)
                raw, span = opened(batch, data, at, decompressed_max)
                note_keys(latest, raw, span, batch.records_count, batch.base_offset)
            except RecordError as error:
                raise self._damaged(piece, batch, error) from error
        return None

    def clean(self, group: Sequence[Piece]) -> Cleaned:
        """Write what stays of some segments into one, under names that nobody takes for a log's.

        Synced, names too. Raises Uncleanable, and leaves files behind: see `swap.leftovers`.
        """
        keep = self._filter
        assert keep is not None, "keys come first"
        dropped, observed = keep.records_dropped, len(self._transactions.observed)
        base = group[0].base_offset
        writing = _Writing(self._disk, self._plan, base, self._pace)
        try:
            left_out: BatchView | None = None
            for piece in group:
                for batch, data, at in self._batches(piece):
                    try:
                        kept = keep.kept(batch, data, at)
                    except RecordError as error:
                        raise self._damaged(piece, batch, error) from error
                    if kept is None:
                        left_out = batch
                    else:
                        left_out = None
                        writing.add(kept)
            if left_out is not None:
                # A segment says by its last batch how far it reaches: after a crash that tells
                # which ones it takes the place of.
                writing.add(emptied(left_out))
            aborted = self._transactions.observed[observed:]
            return writing.finish(aborted, keep.records_dropped - dropped)
        finally:
            writing.close()

    def _batches(self, piece: Piece) -> Iterator[tuple[BatchView, bytes, int]]:
        """Each batch, and where it lies in which bytes. Raises Uncleanable at the first unsound."""
        file = self._disk.open(stem(self._plan.directory, piece.base_offset) + ".log")
        try:
            position, chunk, chunk_at = 0, b"", 0
            while position < piece.size:
                at, left = position - chunk_at, piece.size - position
                if at + HEADER_SIZE > len(chunk):
                    chunk, chunk_at, at = self._read(file, position, min(_CHUNK, left)), position, 0
                length = 0
                if at + HEADER_SIZE <= len(chunk):
                    length = _LENGTH.unpack_from(chunk, at + 8)[0] + LOG_OVERHEAD
                if len(chunk) - at < length <= left:
                    wanted = max(length, min(_CHUNK, left))
                    chunk, chunk_at, at = self._read(file, position, wanted), position, 0
                whole = HEADER_SIZE <= length <= len(chunk) - at
                if not whole or chunk[at + _MAGIC_AT] != MAGIC:
                    raise Uncleanable(f"{file.path} has no whole batch at byte {position}")
                batch = BatchView(memoryview(chunk), at)
                if crc32c(batch.view[CRC_START:]) != batch.crc:
                    raise Uncleanable(f"{file.path} has a wrong checksum at byte {position}")
                yield batch, chunk, at
                position += length
        finally:
            file.close()

    def _read(self, file: File, position: int, length: int) -> bytes:
        chunk = file.read(position, length)
        self._pace(len(chunk))
        return chunk

    def _damaged(self, piece: Piece, batch: BatchView, error: RecordError) -> Uncleanable:
        path = stem(self._plan.directory, piece.base_offset) + ".log"
        return Uncleanable(f"{path} has a batch at offset {batch.base_offset}: {error}")


class _Writing:
    """A `.cleaned` segment while it is written."""

    def __init__(self, disk: Disk, plan: Plan, base: int, pace: Pace) -> None:
        self._disk = disk
        self._plan = plan
        self._pace = pace
        self._path = stem(plan.directory, base)
        steps = [CreateFile(f"{self._path}{suffix}{CLEANED}") for suffix in SUFFIXES]
        self._files = disk.perform_now(steps)
        log, offsets, times = self._files
        self._segment = Segment(
            Offset(base),
            log,
            SparseIndex(offsets, OFFSET_ENTRY, 0, None),
            SparseIndex(times, TIME_ENTRY, 0, None),
        )
        self._gathered = bytearray()
        self._written = 0

    def add(self, batch: Buffer) -> None:
        segment = self._segment
        if segment.size + len(batch) > POSITION_MAX:
            raise Uncleanable(f"{self._path}.log would grow past what an index can point at")
        view = BatchView(memoryview(batch))
        segment.note(view, segment.size, self._plan.index_interval_bytes)
        self._gathered += batch
        if len(self._gathered) >= _WRITE_AT:
            self._write()

    def _write(self) -> None:
        self._segment.log.write(self._gathered, self._written)
        self._written += len(self._gathered)
        self._pace(len(self._gathered))
        self._gathered = bytearray()

    def finish(self, aborted: Sequence[Aborted], records_dropped: int) -> Cleaned:
        self._write()
        segment = self._segment
        segment.seal()
        crc = 0
        if aborted:
            path = f"{self._path}{ABORTED}{CLEANED}"
            self._files += self._disk.perform_now([CreateFile(path)])
            index = AbortedIndex(self._files[-1])
            for one in sorted(aborted, key=lambda one: one.last_offset):
                index.stage(one)
                index.take()
            crc = index.crc
        steps = [SyncFile(file) for file in self._files]
        self._disk.perform_now([*steps, SyncDirectory(self._plan.directory)])
        return Cleaned(
            segment.base_offset,
            segment.size,
            segment.end,
            segment.first_timestamp,
            segment.max_timestamp,
            segment.max_timestamp_offset,
            (segment.offsets.count, segment.offsets.last),
            (segment.times.count, segment.times.last),
            (len(aborted), crc),
            records_dropped,
        )

    def close(self) -> None:
        for file in self._files:
            file.close()
