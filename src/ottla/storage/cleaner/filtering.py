"""What becomes of each batch of a log that is compacted: kept as it is, made smaller, or gone.

Owns Kafka's rules (Cleaner, MemoryRecords.filterTo). Must not read or write files. Offsets never
change: a batch keeps its base and last offset, whatever is left in it.

- A record stays if it is the latest of its key. One without a value stays until the time in its
  batch's header has come: `delete.retention.ms` after it was first compacted (KIP-534).
- What a transaction wrote that was taken back goes. A marker goes once nothing of its
  transaction is left, and after the same time.
- The last batch of a producer stays, though it may be empty, so that its sequence numbers do;
  and so does the last one below the end of what is compacted, so that this end is known.
"""

from __future__ import annotations

from collections.abc import Mapping

from ottla.core.ports import Buffer
from ottla.core.value import Value
from ottla.records.batch import (
    CODEC_MASK,
    CONTROL_BIT,
    DELETE_HORIZON_BIT,
    HEADER,
    HEADER_SIZE,
    LOG_APPEND_TIME_BIT,
    LOG_OVERHEAD,
    TRANSACTIONAL_BIT,
    BatchView,
    stamp_crc,
)
from ottla.records.compress import NONE, compress
from ottla.records.reader import payload
from ottla.storage.cleaner.latest import FAREWELL, GONE, LatestOffsets
from ottla.storage.cleaner.transactions import Transactions
from ottla.storage.cleaner.walking import (
    Kept,
    Rules,
    greatest_delta,
    kept_of,
    rebased,
    unmarked_of,
)

_EMPTY_BITS = LOG_APPEND_TIME_BIT | TRANSACTIONAL_BIT | CONTROL_BIT
_NO_TIMESTAMP = -1


class LastBatch(Value):
    """What a producer wrote last: the offset, -1 where only its epoch is known."""

    offset: int
    epoch: int


class Filter:
    """Told of every batch, in order."""

    __slots__ = (
        "_decompressed_max",
        "_horizon_ms",
        "_keeping",
        "_letting_go",
        "_marked_to",
        "_now_ms",
        "_producers",
        "_superseded",
        "_transactions",
        "_upper",
        "records_dropped",
    )

    def __init__(
        self,
        latest: LatestOffsets,
        known_to: int,
        transactions: Transactions,
        producers: Mapping[int, LastBatch],
        times: tuple[int, int],
        limits: tuple[int, int],
    ) -> None:
        """All keys below `known_to` were noted. `times`: now, and delete.retention.ms. `limits`:
        the first offset that may not be compacted, and the most bytes that a batch may
        decompress to."""
        self._keeping = Rules(latest.table, known_to, True)
        self._letting_go = Rules(latest.table, known_to, False)
        self._superseded = latest.superseded
        self._marked_to = min(known_to, latest.superseded.end)
        self._transactions = transactions
        self._producers = producers
        self._now_ms, retention_ms = times
        self._horizon_ms = min(self._now_ms + retention_ms, (1 << 63) - 1)
        self._upper, self._decompressed_max = limits
        self.records_dropped = 0

    def kept(self, batch: BatchView, data: bytes, at: int) -> Buffer | None:
        """What is written of a batch at `at` in `data`: its own view, other bytes, or nothing.

        Raises RecordError, where its records are not what its header says.
        """
        horizon = batch.base_timestamp if batch.attributes & DELETE_HORIZON_BIT else None
        if batch.is_control:
            may_go = self._transactions.control(batch)
            goes = may_go and horizon is not None and horizon <= self._now_ms
        else:
            may_go = False
            goes = self._transactions.data(batch)
        if goes or batch.records_count == 0:
            self.records_dropped += batch.records_count
            return emptied(batch) if self._is_needed(batch) else None
        by_marks = horizon is None and not batch.is_control and self._is_marked(batch)
        if by_marks and not self._has(GONE, batch):
            return batch.view
        data, span = opened(batch, data, at, self._decompressed_max)
        count, base = batch.records_count, batch.base_offset
        if batch.is_control:
            kept = Kept(count, None, may_go)
        elif by_marks:
            kept = unmarked_of(self._superseded, data, span, count, base)
        else:
            expired = horizon is not None and horizon <= self._now_ms
            rules = self._letting_go if expired else self._keeping
            kept = kept_of(rules, data, span, count, base)
        self.records_dropped += batch.records_count - kept.records_count
        if kept.records_count == 0:
            return emptied(batch) if self._is_needed(batch) else None
        if kept.tombstones and horizon is None:
            runs = [span] if kept.runs is None else kept.runs
            shift = batch.base_timestamp - self._horizon_ms
            records, greatest = rebased(data, runs, shift)
            times = (self._horizon_ms, greatest)
            return _rewritten(batch, records, kept.records_count, times, True)
        if kept.runs is None:
            return batch.view
        kept_bytes = b"".join([data[begin:end] for begin, end in kept.runs])
        times = (batch.base_timestamp, greatest_delta(data, kept.runs))
        return _rewritten(batch, kept_bytes, kept.records_count, times, horizon is not None)

    def _is_marked(self, batch: BatchView) -> bool:
        """Whether marks alone say what stays: all of it was noted, and all of it has a value."""
        inside = batch.base_offset >= self._superseded.first and batch.last_offset < self._marked_to
        return inside and not self._has(FAREWELL, batch)

    def _has(self, mark: int, batch: BatchView) -> bool:
        begin = batch.base_offset - self._superseded.first
        return self._superseded.marks.find(mark, begin, begin + batch.last_offset_delta + 1) >= 0

    def _is_needed(self, batch: BatchView) -> bool:
        if batch.last_offset + 1 == self._upper:
            return True
        last = self._producers.get(batch.producer_id) if batch.producer_id >= 0 else None
        if last is None:
            return False
        if last.offset >= 0:
            return batch.last_offset == last.offset
        return batch.is_control and batch.producer_epoch == last.epoch


def opened(
    batch: BatchView, data: bytes, at: int, decompressed_max: int
) -> tuple[bytes, tuple[int, int]]:
    """Where the records of the batch at `at` lie, and in which bytes. Raises RecordError."""
    if batch.codec == NONE:
        return data, (at + HEADER_SIZE, at + batch.length)
    records = bytes(payload(batch, decompressed_max))
    return records, (0, len(records))


def emptied(batch: BatchView) -> bytes:
    """A batch with all of its records taken out: its offsets and its producer's fields."""
    return _assembled(batch, b"", 0, batch.attributes & _EMPTY_BITS, _NO_TIMESTAMP, None)


def _rewritten(
    batch: BatchView, records: Buffer, count: int, times: tuple[int, int], has_horizon: bool
) -> bytes:
    base_timestamp, greatest = times
    attributes = batch.attributes & (_EMPTY_BITS | CODEC_MASK)
    if has_horizon:
        attributes |= DELETE_HORIZON_BIT
    max_timestamp = None if batch.log_append_time else base_timestamp + greatest
    return _assembled(batch, records, count, attributes, base_timestamp, max_timestamp)


def _assembled(  # the fields that are not the old batch's
    batch: BatchView,
    records: Buffer,
    count: int,
    attributes: int,
    base_timestamp: int,
    max_timestamp: int | None,
) -> bytes:
    packed = compress(attributes & CODEC_MASK, records) if count else b""
    header = HEADER.pack(
        batch.base_offset,
        HEADER_SIZE - LOG_OVERHEAD + len(packed),
        batch.leader_epoch,
        batch.magic,
        0,
        attributes,
        batch.last_offset_delta,
        base_timestamp,
        batch.max_timestamp if max_timestamp is None else max_timestamp,
        batch.producer_id,
        batch.producer_epoch,
        batch.base_sequence,
        count,
    )
    whole = bytearray(header)
    whole += packed
    stamp_crc(memoryview(whole))
    return bytes(whole)
