"""The log of one partition: prepare, append, roll, end. `reading` has how it is read.

Owns the segments and the offsets (`start <= flushed <= end`, moved in one place). Must not check
what a client sent (`records.validate`, `producers.check`), know high watermarks, or wait: what
takes time is a Pending, what is not in memory is Cold.

An append is synchronous: `prepare` in the same breath before it has seen to files, room and epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from ottla.core.model import NO_TOPIC_ID, LeaderEpoch, Offset, TopicId
from ottla.core.pending import Pending
from ottla.core.ports import (
    Clock,
    CreateFile,
    Disk,
    DiskError,
    File,
    MakeDirectory,
    ReplaceFile,
    Step,
    SyncDirectory,
    SyncFile,
)
from ottla.core.value import Value
from ottla.records.batch import BatchView, stamp
from ottla.storage import epochs as leader_epochs
from ottla.storage.aborted import SUFFIX, AbortedIndex
from ottla.storage.checkpoints import (
    PARTITION_METADATA,
    QUARANTINE,
    encode_epochs,
    encode_partition_metadata,
    encode_quarantine,
)
from ottla.storage.epochs import LeaderEpochs
from ottla.storage.making import Making, reserve
from ottla.storage.producers import ProducerStates
from ottla.storage.reading import INTACT, LogPosition, Readable
from ottla.storage.rounds import Covered, Rounds
from ottla.storage.segment import (
    POSITION_MAX,
    Segment,
    creation_steps,
    new_segment,
    stem,
)
from ottla.storage.settings import LogSettings
from ottla.storage.snapshots import Snapshots, snapshot_path
from ottla.storage.unsynced import Unsynced

_FIRST = Offset(0)
_OFFSETS_MAX = POSITION_MAX + 1  # of one segment


class Opened(Value):
    """What is known of a log when it is opened: nothing for a new one, `recovery` for the rest."""

    topic_id: TopicId
    start: Offset = _FIRST
    recovery_point: Offset = _FIRST
    segments: Sequence[Segment] = ()
    epochs: LeaderEpochs | None = None
    producers: ProducerStates | None = None
    failed: bool = False
    damaged_at: Offset = INTACT
    on_disk: bool = False
    complete: bool = False
    """Whether its files are as a clean stop leaves them."""


class Log(Readable):
    """One partition's log. Without segments until its first append."""

    __slots__ = (
        "_bytes_before", "_complete_at", "_flushed_at", "_index_entries_max", "_queued",
        "_segment_bytes_max", "_segment_ms_least", "_settings", "_snapshots", "_syncing",
        "_time_entries_max", "_unsynced", "clock", "closed", "directory", "disk", "end", "epochs",
        "flushed", "making",
        "named", "on_disk", "on_flushed", "on_start_moved", "producers", "recovery_point",
        "replacing", "rounds", "topic_id",
    )  # fmt: skip

    def __init__(
        self,
        directory: str,
        disk: Disk,
        clock: Clock,
        rounds: Rounds,
        settings: LogSettings,
        opened: Opened,
    ) -> None:
        self.directory = directory
        self.disk = disk
        self.clock = clock
        self.rounds = rounds
        self.settings = settings
        self.topic_id = opened.topic_id
        super().__init__(list(opened.segments), opened.start)
        self.epochs = LeaderEpochs() if opened.epochs is None else opened.epochs
        self.producers = opened.producers or ProducerStates(settings.producers_max)
        self.failed = opened.failed
        self.on_disk = opened.on_disk
        """Whether there is, or may be, a directory of it."""
        self.named = opened.on_disk and opened.topic_id != NO_TOPIC_ID
        """Whether a start is certain to find the topic's id in the directory."""
        self.closed = False
        self.recovery_point = opened.recovery_point
        """On disk for certain, whatever the policy; where recovery would begin."""
        self.replacing: Sequence[Segment] = ()
        """Segments whose files get other names just now: they stay where they are meanwhile."""
        self.on_flushed: Callable[[], None] = _nothing
        self.on_start_moved: Callable[[], None] = _nothing
        self.end = self.flushed = opened.start if self._active is None else self._active.end
        self._bytes_before = 0
        self._move(self.start, self.flushed, self.end)
        # While nothing changes a log that was opened after a clean stop, stopping takes nothing.
        self._complete_at = (self._active, self.end) if opened.complete else None
        self._snapshots = Snapshots(directory)
        if opened.failed:
            self.damaged_at = min(self.end, opened.damaged_at)
        self.epochs.raise_start(self.start)
        self._flushed_at = self.end_position()
        self._unsynced: Unsynced | None = None
        """Mostly there is nothing but what was appended, and then a round makes no lists."""
        self._syncing: Unsynced | None = None
        """What the round in flight has taken, or one that failed."""
        self._queued = False
        self.making = Making()

    @property
    def settings(self) -> LogSettings:
        """What the topic's configuration asks. To be replaced whole, at any time."""
        return self._settings

    @settings.setter
    def settings(self, settings: LogSettings) -> None:
        self._settings = settings
        # Every append asks whether the segment is full, so what that takes is reckoned here.
        self._segment_bytes_max = min(settings.segment_bytes, POSITION_MAX)
        self._index_entries_max = settings.index_entries_max
        self._time_entries_max = settings.time_entries_max
        self._segment_ms_least = settings.segment_ms - settings.segment_jitter_ms

    def _move(self, start: Offset, flushed: Offset, end: Offset) -> None:
        """The only place where the offsets change, but for `append`, which raises the last."""
        assert start <= flushed <= end, f"{self.directory}: {start} {flushed} {end}"
        self.start = start
        self.flushed = flushed
        self.end = end

    @property
    def usable(self) -> bool:
        """Whether it takes appends: neither failed nor closed. Ask before each."""
        return not (self.failed or self.closed)

    def flushed_position(self) -> LogPosition:
        """`flushed`, and where it lies: what the high watermark is on a single node."""
        return self._flushed_at if self.rounds.policy == "commit" else self.end_position()

    def end_position(self) -> LogPosition:
        """The log end, and where it lies."""
        active = self._active
        return LogPosition(self.end, active, 0 if active is None else active.size)

    # -- writing

    def prepare(
        self, size: int, epoch: LeaderEpoch, timestamp_ms: int, offsets: int = 0
    ) -> Pending[None] | None:
        """See to it that a batch of `size` bytes and `offsets` offsets can be appended.

        None: it can, now. Else wait and ask again: somebody else may have filled what was made.
        The Pending fails with DiskError. `offsets` matters only past 2^31 in one segment; 0 takes
        the size for it, which suffices unless records take less than a byte (compression).
        """
        making = self.making
        if making.waiting is None:
            active = self._active
            full = active is not None and self._full(active, size, timestamp_ms, offsets or size)
            if active is not None and not full and epoch <= self.epochs.latest:
                return None
            if not self.usable:
                return None  # for the caller to notice, as it must before it appends
            pending = making.begin()
            self._make(full, epoch)
            return pending
        return making.wait()

    def has_room(self, size: int, epoch: LeaderEpoch, timestamp_ms: int, offsets: int) -> bool:
        """Whether it is seen at one glance that `prepare` would say None. Changes nothing."""
        active = self._active
        if active is None or self.making.waiting is not None or epoch > self.epochs.latest:
            return False
        first = active.first_timestamp
        return (
            first is not None
            and first >= 0 <= timestamp_ms
            and timestamp_ms - first <= self._segment_ms_least
            and active.size + size <= self._segment_bytes_max
            and self.end + offsets - active.base_offset <= _OFFSETS_MAX
            and active.offsets.count < self._index_entries_max
            and active.times.count < self._time_entries_max
        )

    def _metadata_step(self) -> ReplaceFile:
        content = encode_partition_metadata(self.topic_id)
        return ReplaceFile(f"{self.directory}/{PARTITION_METADATA}", content, False)

    def naming_steps(self) -> list[Step]:
        """What makes `named` true, if it is not and can be; then sync the directory above."""
        needed = not self.named and self.topic_id != NO_TOPIC_ID
        return [self._metadata_step(), SyncDirectory(self.directory)] if needed else []

    def _full(self, active: Segment, size: int, timestamp_ms: int, offsets: int) -> bool:
        if active.size == 0:
            return False
        if (
            active.size + size > self._segment_bytes_max
            or self.end + offsets - active.base_offset > _OFFSETS_MAX
            or active.offsets.count >= self._index_entries_max
            or active.times.count >= self._time_entries_max
        ):
            return True
        settings = self._settings
        most_ms = settings.segment_ms
        if settings.segment_jitter_ms:
            most_ms -= settings.jitter_ms(self.directory, active.base_offset)
        first = active.first_timestamp
        if first is not None and first >= 0 and timestamp_ms >= 0:
            return timestamp_ms - first > most_ms
        return self.clock.wall_ms() - active.created_ms > most_ms

    def _make(self, roll: bool, epoch: LeaderEpoch) -> None:
        """Make what an append needs: first files, next segment, epoch's line; all in one go.

        There is no spare segment: a roll parks its connection for about 0.2 ms, once in a
        gigabyte, and spare files would need a case of their own in recovery (design/0002).
        """
        old = self._active
        was_on_disk = self.on_disk
        steps: list[Step] = []
        if old is None:
            # What stands in its place is somebody else's: never to be written to, nor removed.
            steps += [MakeDirectory(self.directory, not self.on_disk), self._metadata_step()]
            self.on_disk = True
        if epoch > self.epochs.latest:
            after = LeaderEpochs(self.epochs.entries())
            after.assign(epoch, self.end)
            path = f"{self.directory}/{leader_epochs.FILE_NAME}"
            steps.append(ReplaceFile(path, encode_epochs(after.entries()), False))
        if roll:
            try:
                assert old is not None
                old.seal()
            except DiskError as error:
                self.making.end(error)
                return
            path = snapshot_path(self.directory, self.end)
            steps.append(CreateFile(path, self.producers.encode()))
        if old is None or roll:
            steps += creation_steps(self.directory, self.end)
        done = self.disk.perform(steps)

        def finish() -> None:
            try:
                files = done.result()
            except DiskError as error:
                if error.action == "make directory":
                    self.on_disk = was_on_disk
                    self.making.end(error)
                else:
                    self._unmake(steps, error)
                return
            assert not self.closed, "closed while files were being made"
            if files:
                self._begin_segment(files)
            self.epochs.assign(epoch, self.end)
            self._owed().names.append(self.directory)
            if roll:
                # Also under flush.policy=os, as Kafka does: recovery then has only the active
                # segment to read.
                self._queued = True
                self.rounds.request(self)
            self.making.end(None)

        done.then(finish)

    def _unmake(self, steps: list[Step], error: DiskError) -> None:
        """Remove what a refused roll has made: the next one may begin at another offset.

        As well as it goes; what stays is empty, and recovery removes it. What is synced next syncs
        that, too: an empty segment that came back would stand where this one has gone on.
        """
        self.making.unmake(
            self.disk, steps, error, lambda: self._owed().names.append(self.directory)
        )

    def _begin_segment(self, files: list[File]) -> None:
        owed = self._owed()
        owed.once += files[:-3]
        segment = new_segment(self.end, files[-3:])
        segment.created_ms = self.clock.wall_ms()
        segment.on_damage = self._quarantine
        if self._active is None:
            owed.names.append(self.directory.rpartition("/")[0])
        else:
            owed.rolled.append(self._active)
            self._bytes_before += self._active.size
        self.segments.append(segment)
        self._bases.append(self.end)
        self._active = segment

    def _owed(self) -> Unsynced:
        if self._unsynced is None:
            self._unsynced = Unsynced()
        return self._unsynced

    def append(self, batch: BatchView, epoch: LeaderEpoch) -> Offset:
        """Give a checked batch the next offsets and write it. `prepare` must just have said None.

        On return it is in the page cache, indexed, and its producer is remembered; `flushed`
        passes it once it is durable. Raises DiskError: the log is as before, or `failed`.
        """
        segment = self._active
        assert segment is not None, "append without prepare"
        assert self.making.waiting is None, "append while files are being made"
        assert epoch == self.epochs.latest, "append in an epoch that was not prepared"
        assert not self.failed, "append to a log that failed"
        assert not self.closed, "append to a log that is closed"
        base_offset = self.end
        # Not by a call of `Offset`, which takes longer than the sum.
        end: Offset = base_offset + batch.last_offset_delta + 1  # type: ignore[assignment]
        assert base_offset < end <= segment.base_offset + _OFFSETS_MAX, "append without prepare"
        batch.stamp(base_offset, epoch)
        settings = self._settings
        try:
            segment.append(batch.view, end - 1, batch.max_timestamp, settings.index_interval_bytes)
        except DiskError:
            self.failed = segment.torn
            raise
        self.end = end
        if self.rounds.policy == "os":
            self.flushed = end
            if end - self.recovery_point >= settings.flush_messages:
                self.rounds.request(self)
        if batch.producer_id >= 0:
            began = self.producers.update(batch, segment, segment.size - batch.length)
            if began is not None:
                began.since_ms = self.clock.wall_ms()
        if not self._queued:
            self._queue()
        if segment.size >= segment.reserve_at:
            self._reserve(segment)
        return base_offset

    def append_single(
        self, built: bytearray, epoch: LeaderEpoch, timestamp_ms: int
    ) -> Offset | None:
        """`has_room` and `append` in one, of a batch of one record that was built just now: an
        entry of a coordinator's, or a marker. Its header needs no reading.

        None, and nothing has been done, where `prepare` must be asked. Whoever ends a transaction
        with it tells `producers`, in the same breath. Raises DiskError, as `append`.
        """
        segment, offset = self._active, self.end
        if (
            segment is None
            or self.failed
            or self.closed
            or not self.has_room(len(built), epoch, timestamp_ms, 1)
        ):
            return None
        assert epoch == self.epochs.latest, "append in an epoch that was not prepared"
        stamp(built, offset, epoch)
        settings = self._settings
        try:
            segment.append(built, offset, timestamp_ms, settings.index_interval_bytes)
        except DiskError:
            self.failed = segment.torn
            raise
        end: Offset = offset + 1  # type: ignore[assignment]  # as in `append`
        self.end = end
        if self.rounds.policy == "os":
            self.flushed = end
            if end - self.recovery_point >= settings.flush_messages:
                self.rounds.request(self)
        if not self._queued:
            self._queue()
        if segment.size >= segment.reserve_at:
            self._reserve(segment)
        return offset

    def _queue(self) -> None:
        """Something is not synced: have it covered by a round."""
        self._queued = True
        self.rounds.dirty(self)
        flush_ms = self._settings.flush_ms
        if self.rounds.policy == "os" and flush_ms < 1 << 40:
            self.rounds.request_after(self, flush_ms / 1000)

    def prepare_abort(
        self, size: int, epoch: LeaderEpoch, timestamp_ms: int
    ) -> Pending[None] | None:
        """As `prepare`, for a marker that takes a transaction back: its segment needs an index."""
        pending = self.prepare(size, epoch, timestamp_ms, 1)
        segment = self._active
        if pending is not None or not self.usable or segment is None or segment.aborted is not None:
            return pending

        def made(file: File) -> None:
            segment.aborted = AbortedIndex(file)
            self._owed().names.append(self.directory)

        path = stem(self.directory, segment.base_offset) + SUFFIX
        return self.making.make(self.disk, CreateFile(path), made)

    def append_marker(self, batch: BatchView, epoch: LeaderEpoch) -> Offset:
        """As `append`, for the control batch that ends its producer's transaction.

        `prepare_abort` must have said None if it takes the transaction back, else `prepare`.
        """
        segment = self._active
        assert segment is not None, "append without prepare"
        aborted = self.producers.taken_back(batch, self.end)
        if aborted is None:
            return self.append(batch, epoch)
        assert segment.aborted is not None, "an abort without its index: see prepare_abort"
        segment.aborted.stage(aborted)
        offset = self.append(batch, epoch)
        segment.aborted.take()
        return offset

    def _reserve(self, segment: Segment) -> None:
        blocks = segment.reservation(self._settings.segment_bytes)
        if blocks is not None:
            reserve(self.disk, segment.log, *blocks)

    def begin_sync(self) -> Covered:
        """For `Rounds`: what is not yet durable, up to the log end as it is now."""
        position = self.end_position()
        owed = self._syncing = self._unsynced
        self._unsynced = None
        self._queued = False
        files = [] if owed is None else owed.files()
        if position.segment is not None:
            files.append(position.segment.log)

        def synced() -> None:
            if owed is not None:
                owed.close()
                self._syncing = None
            if self.closed:
                return
            self.named = True
            # Not back: segments may have gone meanwhile, and with them what there was to recover.
            self.recovery_point = max(self.recovery_point, position.offset)
            if self.rounds.policy == "commit":
                self._move(self.start, position.offset, self.end)
                self._flushed_at = position
                self.on_flushed()

        return Covered(files, [] if owed is None else owed.names, synced)

    # -- the rest of its life

    def set_start(self, offset: Offset) -> None:
        """Records before `offset` are no longer there for readers. Never moves back.

        Durable once the directory's checkpoint of starts is written: `Starts.move`.
        """
        if offset > self.start:
            self._move(offset, self.flushed, self.end)
            self.epochs.raise_start(offset)
            self.on_start_moved()

    def drop_below(self, start: Offset) -> list[Segment]:
        """Let go of segments that lie wholly below `start`: those, closed; their files are there.

        `start` is at or before the log's, and durable as its start. The one with the high
        watermark stays: readers are bounded by it. What is being sent keeps its file open.
        """
        assert start <= self.start, f"{self.directory}: {start} is not below {self.start}"
        bound = self.flushed_position().segment
        count = 0
        for segment, after in pairwise(self.segments):
            if after.base_offset > start or segment is bound or segment in self.replacing:
                break
            count += 1
        if not count or self.closed:
            return []
        gone = self.segments[:count]
        del self.segments[:count], self._bases[:count]
        if self._unsynced is not None:
            self._unsynced.forget(gone)
        self.recovery_point = max(self.recovery_point, self.segments[0].base_offset)
        for segment in gone:
            segment.close()
        return gone

    def roll(self) -> Pending[None] | None:
        """Close the last segment and begin another, for retention. Fails with DiskError.

        None where it is empty, or files are being made already.
        """
        active = self._active
        if active is None or active.size == 0 or self.making.waiting is not None or not self.usable:
            return None
        pending = self.making.begin()
        self._make(True, self.epochs.latest)
        return pending

    def expire_producers(self) -> None:
        """Forget idle producers; to be called every few minutes."""
        self.producers.producers_max = self.settings.producers_max
        self.producers.expire(self.clock.wall_ms(), self.settings.producer_id_expiration_ms)

    def snapshot_steps(self) -> list[Step]:
        """A snapshot of the producers, where a start after a crash would read much without one."""
        active = self._active
        if active is None or self.making.waiting is not None or not self.usable:
            return []
        return self._snapshots.take(active, self.end, self.producers)

    def closing_steps(self) -> list[Step]:
        """Complete the files; the steps make all of it durable, producers' snapshot included.

        Raises DiskError. Only while nothing else runs: at stop. Their order is that of the kinds:
        syncs of files, replacements, removals, syncs of directories.
        """
        active = self._active
        if active is None or (active, self.end) == self._complete_at:
            return []
        active.seal()
        owed = self._owed()
        steps: list[Step] = [SyncFile(file) for file in (*active.files(), *owed.files())]
        path = snapshot_path(self.directory, self.end)
        steps.append(ReplaceFile(path, self.producers.encode(), False))
        steps += self._snapshots.drop({self.end, *(one.base_offset for one in self.segments)})
        names = dict.fromkeys([*owed.names, self.directory])
        return steps + [SyncDirectory(name) for name in names]

    def close(self) -> None:
        """Let go of all files. What is being sent keeps its file open until it is through."""
        self.closed = True
        self.rounds.forget(self)
        for segment in self.segments:
            segment.close()
        for owed in (self._unsynced, self._syncing):
            if owed is not None:
                owed.close()

    def all_synced(self) -> None:
        """The closing steps were done: everything is on disk."""
        self._move(self.start, self.end, self.end)
        self._flushed_at = self.end_position()
        self.recovery_point = self.end

    @property
    def size(self) -> int:
        """Bytes of its segments."""
        return sum(segment.size for segment in self.segments)

    @property
    def bytes_end(self) -> int:
        """What only grows, by the bytes of each batch that is appended. It has no other meaning."""
        return self._bytes_before + (0 if self._active is None else self._active.size)

    def hold_until(self, ready: Pending[None]) -> None:
        """Let `prepare` wait until then. If `ready` fails, so has the log."""
        self.making.begin()

        def go() -> None:
            try:
                ready.result()
            except DiskError as error:
                self.failed = True
                self.making.end(error)
            else:
                self.making.end(None)

        ready.then(go)

    def _quarantine(self, segment: Segment, offset: Offset) -> None:
        """Write it down, too: a start must not take appends until the damage is met again."""
        before = self.damaged_at
        super()._quarantine(segment, offset)
        if self.damaged_at < before and not self.closed:
            note = encode_quarantine(self.damaged_at)
            self.disk.perform([ReplaceFile(f"{self.directory}/{QUARANTINE}", note)])


def _nothing() -> None:
    pass
