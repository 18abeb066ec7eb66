"""Partition: one partition as its leader sees it.

Owns the leader epoch, the high watermark and those who wait for it to move. The log below
keeps the bytes; the handlers above know the messages. Must not wait, nor know a socket.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

from ottla.cluster.names import is_internal
from ottla.core.metrics import PartitionTally
from ottla.core.model import (
    NO_TIMESTAMP,
    FileSlice,
    LeaderEpoch,
    Offset,
    ProducerId,
    TopicPartition,
)
from ottla.core.pending import Pending, completed
from ottla.core.ports import DiskError
from ottla.protocol.errors import ErrorCode
from ottla.records.batch import CODEC_MASK, BatchView
from ottla.records.control import ControlType, EndMarker, build_end_marker

if TYPE_CHECKING:
    from ottla.core.model import TopicId
    from ottla.core.ports import Clock
    from ottla.replication.settings import PartitionSettings
    from ottla.storage.aborted import Aborted
    from ottla.storage.checked import Cold
    from ottla.storage.log import Log
    from ottla.storage.producers import Duplicate, Verification
    from ottla.storage.reading import LogPosition
    from ottla.storage.unstable import Transaction


# Names of the module: to look a member up in an enum takes as long as to make an object.
_NO_ERROR = ErrorCode.NONE
_OUT_OF_RANGE = ErrorCode.OFFSET_OUT_OF_RANGE
_ABORT = ControlType.ABORT
_REFUSED_FOR_GOOD = (
    ErrorCode.INVALID_PRODUCER_ID_MAPPING,
    ErrorCode.PRODUCER_FENCED,
    ErrorCode.INVALID_REQUEST,
)
"""What a coordinator says of a producer and its epoch that it will never say otherwise."""
_A_LOT = 1 << 31  # more than any fetch can wait for


class Appended:
    """What an accepted batch was given. `end` is the offset after it: committed when passed."""

    __slots__ = ("base_offset", "end", "log_append_time_ms")

    def __init__(self, base_offset: Offset, end: Offset, log_append_time_ms: int) -> None:
        self.base_offset = base_offset
        self.end = end
        self.log_append_time_ms = log_append_time_ms


class ReadWaiter:
    """A fetch that waits for `missing` more bytes, over all the partitions it reads.

    Counted down by every partition it is registered with; `pending` completes once, when
    enough has come or when a partition has something else to say (an error, a deletion).
    `committed` asks for what is stable only: no transaction may still take it back.
    """

    __slots__ = ("committed", "missing", "partitions", "pending")

    def __init__(self, missing: int, *, committed: bool = False) -> None:
        self.missing = missing
        self.committed = committed
        self.pending: Pending[None] = Pending()
        self.partitions: list[Partition] = []

    def watch(self, partition: Partition) -> None:
        partition.readers[id(self)] = self
        self.partitions.append(partition)

    def arrived(self, count: int) -> None:
        self.missing -= count
        if self.missing <= 0 and not self.pending.done:
            self.pending.complete(None)

    def leave(self) -> None:
        """Stop watching. Idle partitions would otherwise keep the waiters of gone connections."""
        for partition in self.partitions:
            partition.readers.pop(id(self), None)
        self.partitions.clear()
        self.pending.abandon()


class Sleeper(Protocol):
    """Who has seen all that a partition has to say, and looks again when it has changed."""

    def woken(self, partition: Partition, arrived: int, settled: int) -> None:
        """Called once, and forgotten. Bytes that came, and those of them below the last stable
        offset: more than anybody waits for, where there is something else to say at once."""


class Partition:
    """A partition led by this node.

    Under `flush.policy=commit` the high watermark is what a sync round has covered; under `os`
    it is the log end. It is kept as a position (offset, segment, bytes), captured and never
    searched for, so that a fetch needs no scan to find where it must stop. So is the last stable
    offset, which moves with it: a transaction begins above it, and its end counts once committed.
    """

    __slots__ = (
        "_committing",
        "clock",
        "committed_by_sync",
        "deleted",
        "fetch_answers",
        "high_position",
        "internal",
        "key",
        "leader_epoch",
        "log",
        "on_disk_error",
        "on_read_error",
        "opening",
        "plain",
        "produce_answers",
        "readers",
        "rules",
        "sleepers",
        "stable_position",
        "stamps_time",
        "tally",
        "topic_id",
    )

    def __init__(  # noqa: PLR0913, PLR0917  # a record of what a partition is
        self,
        key: TopicPartition,
        topic_id: TopicId,
        leader_epoch: LeaderEpoch,
        log: Log,
        settings: PartitionSettings,
        clock: Clock,
        on_disk_error: Callable[[DiskError], None],
        on_read_error: Callable[[DiskError], None],
        *,
        committed_by_sync: bool,
    ) -> None:
        self.key = key
        self.topic_id = topic_id
        self.internal = is_internal(key.topic)
        self.leader_epoch = leader_epoch
        self.log = log
        self.clock = clock
        self.configure(settings)
        self.on_disk_error = on_disk_error
        self.on_read_error = on_read_error
        self.committed_by_sync = committed_by_sync
        self.deleted = False
        self.produce_answers: dict[int, tuple[bytes, bytes]] | None = None
        self.fetch_answers: dict[int, tuple[bytes, bytes, bytes]] | None = None
        """What is the same in all answers of a version: each is its handler's own."""
        self.tally = PartitionTally(log.end, log.bytes_end)
        # What survived the start is on disk: recovery has synced what it kept.
        self.high_position = self.stable_position = log.end_position()
        if log.producers.unstable.first is not None:
            self._settle(self.high_position)
        self.readers: dict[int, ReadWaiter] = {}
        self.sleepers: set[Sleeper] | None = None  # made when there is one: most have none
        self._committing: deque[tuple[Offset, Pending[None]]] = deque()
        log.on_flushed = self.flushed
        log.on_start_moved = self.stir

    def configure(self, settings: PartitionSettings) -> None:
        """Take a topic's settings; they hold from the next batch on."""
        self.rules = settings.rules
        self.opening = settings.opening
        self.plain = settings.opening is None and not self.internal
        """Whether a client's batch is appended as it is, once its header is judged."""
        self.stamps_time = settings.rules.timestamp_type == "LogAppendTime"
        self.log.settings = settings.log

    # --- what came in since the start --------------------------------------------------------

    @property
    def records_in(self) -> int:
        return self.log.end - self.tally.first_offset

    @property
    def bytes_in(self) -> int:
        return self.log.bytes_end - self.tally.first_byte

    @property
    def batches_in(self) -> int:
        return self.records_in - self.tally.more

    @property
    def batches_by_codec(self) -> list[int]:
        packed = self.tally.packed[1:]  # the first is of those with another attribute than a codec
        return [self.batches_in - sum(packed), *packed]

    # --- offsets ---------------------------------------------------------------------------

    @property
    def high_watermark(self) -> Offset:
        """Exclusive end of what readers may see."""
        return self.high_position.offset

    @property
    def last_stable(self) -> Offset:
        """Exclusive end of what read_committed may see: below it no transaction is open."""
        stable = self.stable_position
        if stable is self.high_position:
            return stable.offset
        return max(stable.offset, self.log.start)  # DeleteRecords may go past it

    def open_transactions(self) -> Iterator[Transaction]:
        """Those that have no marker here yet, the one that began first at first."""
        return self.log.producers.unstable.open()

    def check_epoch(self, current_leader_epoch: int) -> ErrorCode:
        """Judge the epoch that a client believes in; below 0 asks for no check (KIP-320)."""
        if current_leader_epoch < 0 or current_leader_epoch == self.leader_epoch:
            return _NO_ERROR
        if current_leader_epoch < self.leader_epoch:
            return ErrorCode.FENCED_LEADER_EPOCH
        return ErrorCode.UNKNOWN_LEADER_EPOCH

    # --- produce ---------------------------------------------------------------------------

    def prepare(self, batch: BatchView) -> Pending[None] | None:
        """None if `batch` can be appended now; else wait for this, and ask again."""
        timestamp = batch.max_timestamp
        if self.stamps_time:
            timestamp = self.clock.wall_ms()  # the time that counts for a roll is the one it gets
        log, size, offsets = self.log, batch.length, batch.last_offset_delta + 1
        if log.has_room(size, self.leader_epoch, timestamp, offsets):
            return None
        return log.prepare(size, self.leader_epoch, timestamp, offsets)

    def append_as_leader(
        self, batch: BatchView, verification: Verification | None = None
    ) -> Appended | ErrorCode:
        """As `put`, and what became of the batch in one form."""
        outcome = self.put(batch, verification)
        if outcome is None:
            append_time = batch.max_timestamp if self.stamps_time else NO_TIMESTAMP
            return Appended(Offset(batch.base_offset), self.log.end, append_time)
        if isinstance(outcome, ErrorCode):
            return outcome
        end = Offset(outcome.base_offset + batch.last_offset_delta + 1)
        return Appended(outcome.base_offset, end, outcome.timestamp)

    def put(
        self, batch: BatchView, verification: Verification | None = None
    ) -> Duplicate | ErrorCode | None:
        """Append a validated, prepared batch and give it its offsets: None, if it is in now.

        Its fields tell the offset that it was given, and where the topic stamps it the time. One
        that an idempotent producer sends again is not stored twice: `Duplicate` tells what it was
        given the first time. The first batch of a transaction here needs the `verification` that
        was begun before the coordinator was asked (KIP-890).
        """
        log = self.log
        if log.failed or log.closed:  # not log.usable, without the call
            return self._gone()
        if batch.producer_id >= 0:
            verdict = log.producers.check(batch, verification)
            if verdict is not None:
                return verdict
        if self.stamps_time:
            batch.stamp_log_append_time(self.clock.wall_ms())
        try:
            log.append(batch, self.leader_epoch)
        except DiskError as error:
            self.on_disk_error(error)
            return ErrorCode.KAFKA_STORAGE_ERROR
        if batch.last_offset_delta:
            self.tally.more += batch.last_offset_delta
        if batch.attributes:
            self.tally.packed[batch.attributes & CODEC_MASK] += 1
        if not self.committed_by_sync:
            self._all_is_committed()
        return None

    def put_own(self, built: bytearray, timestamp_ms: int) -> ErrorCode | None:
        """`prepare` and `put` in one, of an entry of a coordinator's: a batch of one record, by
        nobody, that was built just now. NONE, if it is in. None, and nothing has been done, where
        that can't be at once: ask both then."""
        log = self.log
        if self.stamps_time:
            return None
        try:
            if log.append_single(built, self.leader_epoch, timestamp_ms) is None:
                return None
        except DiskError as error:
            self.on_disk_error(error)
            return ErrorCode.KAFKA_STORAGE_ERROR
        if not self.committed_by_sync:
            self._all_is_committed()
        return _NO_ERROR

    def verify(
        self, producer_id: int, epoch: int, sequence: int, *, bumps: bool
    ) -> Verification | None:
        """Begin to verify a producer; None if its transaction is open here already.

        Then ask the coordinator, and show what this returned to `append_as_leader`. `bumps`: by
        the rules of transaction version 2.
        """
        return self.log.producers.verify(producer_id, epoch, sequence, bumps=bumps)

    def has_seen_later(self, producer_id: int, epoch: int) -> bool:
        """Whether something is here, or has been, of a later epoch of the producer."""
        state = self.log.producers.get(ProducerId(producer_id))
        return state is not None and epoch < state.epoch

    def is_verifying(self, producer_id: int, verification: Verification) -> bool:
        """Whether it still stands; else begin anew, and ask the coordinator again."""
        return self.log.producers.is_verifying(producer_id, verification)

    def refuted(self, producer_id: int, verification: Verification, error: ErrorCode) -> None:
        """The coordinator has refused it so; where that is for good, it is forgotten."""
        if error in _REFUSED_FOR_GOOD:
            self.log.producers.refute(producer_id, verification)

    def append_marker(
        self,
        producer_id: int,
        producer_epoch: int,
        marker: EndMarker,
        transaction_version: int,
        by_admin: bool = False,
    ) -> Pending[None] | Appended | ErrorCode:
        """End a producer's transaction here. A Pending: wait for it, and ask again.

        A marker that comes again is written again, and ends nothing twice (I43). Committed as any
        batch is: see `committed`. INVALID_PRODUCER_EPOCH, TRANSACTION_COORDINATOR_FENCED: see
        `ProducerStates.check_marker`. KAFKA_STORAGE_ERROR, UNKNOWN_TOPIC_OR_PARTITION as above.
        """
        log = self.log
        producers = log.producers
        if log.failed or log.closed:  # not log.usable, without the call
            return self._gone()
        claimed = marker.coordinator_epoch if by_admin else None
        fault = producers.check_marker(producer_id, producer_epoch, claimed, transaction_version)
        if fault:
            return fault
        now_ms = self.clock.wall_ms()
        built = build_end_marker(marker, producer_id, producer_epoch, now_ms)
        offset = None
        try:
            if marker.type is not _ABORT and not self.stamps_time:
                offset = log.append_single(built, self.leader_epoch, now_ms)
            if offset is not None:
                producers.mark(producer_id, producer_epoch, marker, now_ms, offset)
            else:
                appended = self._append_marker(BatchView(memoryview(built)), now_ms)
                if isinstance(appended, Pending | ErrorCode):
                    return appended
                offset = appended
        except DiskError as error:
            self.on_disk_error(error)
            return ErrorCode.KAFKA_STORAGE_ERROR
        if not self.committed_by_sync:
            self._all_is_committed()
        return Appended(offset, log.end, now_ms)

    def _append_marker(self, batch: BatchView, now_ms: int) -> Offset | Pending[None] | ErrorCode:
        """Where it may take something back, or something has to be made for it."""
        log, epoch = self.log, self.leader_epoch
        aborts = log.producers.taken_back(batch, log.end) is not None
        prepare = log.prepare_abort if aborts else log.prepare
        pending = prepare(batch.length, epoch, now_ms)
        if pending is not None:
            return pending
        if log.failed or log.closed:
            return self._gone()
        if self.stamps_time:
            batch.stamp_log_append_time(now_ms)
        return log.append_marker(batch, epoch) if aborts else log.append(batch, epoch)

    def _gone(self) -> ErrorCode:
        if self.deleted:
            return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        return ErrorCode.KAFKA_STORAGE_ERROR

    def committed(self, end: Offset) -> Pending[None] | None:
        """None if everything below `end` is committed; else completes when it is, or can't be.

        Ask `is_committed` again afterwards: a log that failed completes its waiters too.
        """
        if self.high_position.offset >= end:
            return None
        if not self.log.usable:
            return completed(None)  # another partition's write took the disk offline meanwhile
        pending: Pending[None] = Pending()
        committing = self._committing
        at = len(committing)
        while at and committing[at - 1][0] > end:  # a batch sent again: it has its place already
            at -= 1
        committing.insert(at, (end, pending))
        return pending

    def is_committed(self, end: Offset) -> bool:
        return self.high_position.offset >= end

    def is_all_committed(self) -> bool:
        """Whether nothing that was appended waits to be committed."""
        return self.high_position.offset >= self.log.end

    def flushed(self) -> None:
        """A sync round has covered more of the log. Not of one that failed meanwhile: I30."""
        if self.committed_by_sync and not self.log.failed:
            self._advance()

    def _advance(self) -> None:
        """Move the high watermark to what is committed, and wake who waited for it."""
        before = self.high_position
        log = self.log
        after = log.flushed_position() if self.committed_by_sync else log.end_position()
        assert before.offset <= after.offset <= log.end, self.key
        self.high_position = after
        stable = self.stable_position
        if log.producers.unstable.first is not None:
            self._settle(after)
        else:
            self.stable_position = after
        committing = self._committing
        while committing and committing[0][0] <= after.offset:
            committing.popleft()[1].complete(None)
        if self.readers or self.sleepers:
            # A new segment has no common origin with the last one: wake rather than reckon.
            arrived = _bytes_between(before, after)
            settled = _bytes_between(stable, self.stable_position)
            for waiter in list(self.readers.values()):
                waiter.arrived(settled if waiter.committed else arrived)
            self.stir(arrived, settled)

    def _all_is_committed(self) -> None:
        """As `_advance`, where what is written is committed: nobody waits for that."""
        if self.readers or self.sleepers:
            self._advance()
            return
        self.high_position = high = self.log.end_position()
        if self.log.producers.unstable.first is None:
            self.stable_position = high
        else:
            self._settle(high)

    def _settle(self, high: LogPosition) -> None:
        """Bring the last stable offset to where it is for this high watermark."""
        unstable = self.log.producers.unstable
        if unstable.ended:
            unstable.settle(high.offset)
        first = unstable.first
        if first is None:
            self.stable_position = high
            return
        place = first.place
        self.stable_position = high if place.offset > high.offset else place

    # --- fetch -----------------------------------------------------------------------------

    def read(
        self, offset: Offset, bytes_max: int, *, committed: bool = False
    ) -> FileSlice | Cold | ErrorCode | None:
        """What a consumer at `offset` gets: whole batches up to the high watermark.

        With `committed` up to the last stable offset: `aborted_in` says what of it to skip. None
        when there is nothing yet, which holds for what is written and not committed too: a
        producer may know of that. `Cold` when the bytes must be warmed first.
        """
        bound = self.stable_position if committed else self.high_position
        try:
            piece = self.log.read(offset, bytes_max, bound)
        except DiskError as error:
            self.on_read_error(error)
            return ErrorCode.KAFKA_STORAGE_ERROR
        if type(piece) is FileSlice:
            tally = self.tally
            tally.fetches += 1
            tally.bytes_out += piece.length
        elif piece is _OUT_OF_RANGE and bound.offset < offset <= self.log.end:
            return None if offset >= self.log.start else piece
        return piece

    def give_back(self, piece: FileSlice) -> None:
        """Release what `read` gave and nobody is sent, and count it as not read."""
        tally = self.tally
        tally.fetches -= 1
        tally.bytes_out -= piece.length
        piece.release()

    def aborted_in(self, offset: Offset, piece: FileSlice) -> list[Aborted] | Cold | ErrorCode:
        """What a reader of committed records skips in `piece`, which was read from `offset` on."""
        try:
            return self.log.aborted_in(offset, piece)
        except DiskError as error:
            self.on_read_error(error)
            return ErrorCode.KAFKA_STORAGE_ERROR

    def more_behind(self, piece: FileSlice, *, committed: bool = False) -> bool:
        """Whether there is more than a slice could take in, since it ends with its segment."""
        segment = (self.stable_position if committed else self.high_position).segment
        return segment is not None and piece.file is not segment.log

    # --- failure and end -------------------------------------------------------------------

    def fail(self) -> None:
        """The directory is offline: nothing that is not committed by now ever will be."""
        self.log.failed = True
        self._release_all()

    def wake_readers(self) -> None:
        """There is something to say to those who wait for more: let them ask again."""
        for waiter in list(self.readers.values()):
            waiter.arrived(waiter.missing)
        self.stir(_A_LOT, _A_LOT)

    def stir(self, arrived: int = 0, settled: int = 0) -> None:
        """Something that a fetch would be told has changed: see `Sleeper`. By what moves the high
        watermark or the log's start, by a new leader epoch, and by `wake_readers`.
        """
        sleepers, self.sleepers = self.sleepers, None
        for sleeper in sleepers or ():
            sleeper.woken(self, arrived, settled)

    def close(self, *, deleted: bool = False) -> None:
        """Stop serving: whoever waits is told to look again, and finds the partition gone."""
        self.deleted = deleted
        self._release_all()

    def _release_all(self) -> None:
        committing, self._committing = self._committing, deque()
        for _end, pending in committing:
            pending.complete(None)
        self.wake_readers()


def _bytes_between(before: LogPosition, after: LogPosition) -> int:
    """How much a bound has moved on; a lot, where it came to another segment."""
    if before.segment is after.segment:
        return after.position - before.position
    return _A_LOT if after.offset > before.offset else 0
