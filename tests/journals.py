"""Journals without logs: the coordinators' ports, kept in memory and moved by hand.

Owns what stands in for a partition of an internal topic. Must not be kinder than one: nothing is
committed before `commit` says so, unless `commits_at_once`, and a restart keeps what was written.
"""

from __future__ import annotations

from collections.abc import Callable

from ottla.coordinator.decision import Ending, Entry
from ottla.coordinator.entries.offsets_topic import decode_entry, encode_entry
from ottla.core.model import Offset
from ottla.core.pending import Pending
from ottla.protocol.errors import ErrorCode
from ottla.records.batch import BatchView
from ottla.records.builder import Producer, build_batch
from ottla.records.control import ControlType, EndMarker, build_end_marker
from ottla.records.reader import Record, pairs_of


class Codec:
    """Entries of __consumer_offsets, not compressed."""

    def encode(self, entry: Entry) -> tuple[bytes, bytes | None]:
        return encode_entry(entry)

    def decode(self, key: bytes, value: bytes | None) -> Entry | None:
        return decode_entry(key, value)

    def compression(self) -> int:
        return 0


class MemoryJournal:
    """The port Journal."""

    def __init__(self, *, commits_at_once: bool = True) -> None:
        self.batch_bytes_max = 1 << 20
        self.start = Offset(0)
        self.batches: list[bytes] = []
        self.high_watermark = 0
        self.commits_at_once = commits_at_once
        self.failure = ErrorCode.NONE
        self.append_error = ErrorCode.NONE
        self.files: Pending[None] | None = None
        """What `prepare` answers, once."""
        self.reads: list[Pending[bytes | ErrorCode]] | None = None
        """Set to a list, reads wait; complete them."""
        self.read_bytes_max: int | None = None
        self._committing: list[tuple[Offset, Pending[None]]] = []

    @property
    def end(self) -> Offset:
        if not self.batches:
            return self.start
        return Offset(BatchView(memoryview(self.batches[-1])).last_offset + 1)

    def prepare(self, batch: BatchView) -> Pending[None] | None:
        files, self.files = self.files, None
        return files

    def append(self, batch: BatchView, verification: object | None = None) -> Offset | ErrorCode:
        if self.append_error:
            return self.append_error
        batch.stamp(self.end, 0)
        self.batches.append(bytes(batch.view))
        if self.commits_at_once:
            self.commit()
        return self.end

    def put_own(self, built: bytearray, timestamp_ms: int) -> ErrorCode | None:
        if self.files is not None:
            return None
        outcome = self.append(BatchView(memoryview(built)))
        return outcome if isinstance(outcome, ErrorCode) else ErrorCode.NONE

    def end_transaction(self, ending: Ending) -> Pending[None] | Offset | ErrorCode:
        if self.files is not None:
            files, self.files = self.files, None
            return files
        kind = ControlType.COMMIT if ending.committed else ControlType.ABORT
        marker = EndMarker(kind, ending.coordinator_epoch)
        built = build_end_marker(marker, ending.producer_id, ending.producer_epoch, 1)
        return self.append(BatchView(memoryview(bytearray(built))))

    def committed(self, end: Offset) -> Pending[None] | None:
        if self.is_committed(end):
            return None
        pending: Pending[None] = Pending()
        self._committing.append((end, pending))
        return pending

    def is_committed(self, end: Offset) -> bool:
        return end <= self.high_watermark

    def is_all_committed(self) -> bool:
        return self.is_committed(self.end)

    def state(self) -> ErrorCode:
        return self.failure

    def read(
        self, offset: Offset, bytes_max: int
    ) -> Pending[bytes | ErrorCode] | bytes | ErrorCode:
        if self.reads is not None:
            self.reads.append(Pending())
            return self.reads[-1]
        return self.bytes_from(offset, self.read_bytes_max or bytes_max)

    # --- by hand ---------------------------------------------------------------------------

    def bytes_from(self, offset: int, bytes_max: int = 1 << 20) -> bytes:
        """Whole batches from the one with that offset on, one at least."""
        found = b""
        for batch in self.batches:
            if BatchView(memoryview(batch)).last_offset >= offset:
                if found and len(found) + len(batch) > bytes_max:
                    break
                found += batch
        return found

    def commit(self) -> None:
        """Everything is on disk."""
        self.high_watermark = self.end
        committing, self._committing = self._committing, []
        for _end, pending in committing:
            pending.complete(None)

    def fail(self, error: ErrorCode) -> None:
        """The partition is gone or its disk is: who waits is told to look again."""
        self.failure = error
        committing, self._committing = self._committing, []
        for _end, pending in committing:
            pending.complete(None)

    def write(
        self,
        *entries: Entry | tuple[bytes, bytes | None],
        producer: Producer | None = None,
        attributes: int = 0,
    ) -> None:
        """A batch as somebody else may have written it."""
        pairs = [encode_entry(one) if isinstance(one, Entry) else one for one in entries]
        records = [Record(key, value, 1) for key, value in pairs]
        more = {} if producer is None else {"producer": producer}
        built = build_batch(records, base_offset=self.end, attributes=attributes, **more)
        self.batches.append(built)
        self.high_watermark = self.end

    def entries(self) -> list[Entry | None]:
        """All that was written."""
        return [
            decode_entry(key or b"", value)
            for batch in self.batches
            for key, value in pairs_of(BatchView(memoryview(batch)))
        ]


class MemoryJournals:
    """The port Journals."""

    def __init__(self, count: int = 0) -> None:
        self.journals = [MemoryJournal() for _ in range(count)]
        self.making: Pending[ErrorCode] | None = None
        self.made_count = 0
        self.open_error = ErrorCode.NONE
        self._gone: list[Callable[[], None]] = []

    def count(self) -> int:
        return len(self.journals)

    def make(self) -> Pending[ErrorCode]:
        self.made_count += 1
        self.making = Pending()
        return self.making

    def open(self, partition: int) -> MemoryJournal | ErrorCode:
        return self.open_error or self.journals[partition]

    def on_gone(self, call: Callable[[], None]) -> None:
        self._gone.append(call)

    # --- by hand ---------------------------------------------------------------------------

    def made(self, count: int, error: ErrorCode = ErrorCode.NONE) -> None:
        assert self.making is not None
        self.journals = [MemoryJournal() for _ in range(count)]
        self.making.complete(error)

    def delete(self) -> None:
        for journal in self.journals:
            journal.fail(ErrorCode.NOT_COORDINATOR)
        self.journals = []
        for call in self._gone:
            call()
