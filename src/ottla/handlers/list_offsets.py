"""ListOffsets, key 2, versions 1 to 11.

The log's start and end, the record with the largest timestamp, and the first record at or after
a time: the exact record, for which the one batch that holds it is opened, off the loop unless it
is small and not compressed. A batch that can't be read answers with its own base offset.
v1 one offset · v2 isolation level, throttle time · v4 leader epoch · v6 flexible
v7 largest timestamp (KIP-734) · v8 start of the local log (KIP-405) · v9 end of the tiered log
(KIP-1005) · v10 timeout, for remote reads, of which there are none · v11 start of what waits
for upload (KIP-1023). Nothing is tiered, so v9's and v11's answer is "nothing there".
Not as Kafka: a replica id is not believed, everybody is a consumer; an isolation level that does
not exist is INVALID_REQUEST, not UNKNOWN_SERVER_ERROR.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ottla.core import options
from ottla.core.model import LeaderEpoch, Offset
from ottla.core.pending import Pending, when_all
from ottla.core.ports import DiskError, OffloadError
from ottla.handlers.limits import too_many
from ottla.handlers.reply import Parked, Reply
from ottla.handlers.time_lookup import first_since
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.list_offsets import (
    ListOffsetsPartition,
    ListOffsetsPartitionResponse,
    ListOffsetsRequest,
    ListOffsetsResponse,
    ListOffsetsTopicResponse,
)
from ottla.records.batch import BatchView
from ottla.storage.reading import INTACT, TimeHit

if TYPE_CHECKING:
    from ottla.core.model import FileSlice
    from ottla.handlers.context import Context, Request
    from ottla.replication.partition import Partition

LATEST, EARLIEST, MAX_TIMESTAMP = -1, -2, -3
EARLIEST_LOCAL, LATEST_TIERED, EARLIEST_PENDING_UPLOAD = -4, -5, -6
KNOWN_SINCE = {
    LATEST: 1,
    EARLIEST: 1,
    MAX_TIMESTAMP: 7,
    EARLIEST_LOCAL: 8,
    LATEST_TIERED: 9,
    EARLIEST_PENDING_UPLOAD: 11,
}
NOTHING_TIERED = (LATEST_TIERED, EARLIEST_PENDING_UPLOAD)
READ_UNCOMMITTED, READ_COMMITTED = 0, 1

DEADLINE_S = 30.0
LOOKUPS_MAX = 16
"""Partitions of one request that are looked into at a time: each may hold a batch in memory."""
INLINE_BYTES_MAX = 4096
"""Batches up to this size that are not compressed are opened at once: about 0.1 ms."""


def handle(context: Context, request: Request[ListOffsetsRequest]) -> Reply | Parked:
    """Each partition on its own; those that need the disk or the worker are waited for."""
    listing = Listing(context, request)
    return listing.go_on()


class Lookup:
    """One partition of the request that asks for a time. `waiting` is what it waits for.

    Either a warming, then `slice` is held for it, or the opening of the batch `hit`.
    """

    __slots__ = ("answer", "asked", "hit", "slice", "topic", "waiting")

    def __init__(
        self, topic: str, asked: ListOffsetsPartition, answer: ListOffsetsPartitionResponse
    ) -> None:
        self.topic = topic
        self.asked = asked
        self.answer = answer
        self.hit: TimeHit | None = None
        self.slice: FileSlice | None = None
        self.waiting: Pending[None] | Pending[tuple[int, Offset] | None] | None = None


class Listing:
    """One ListOffsets request from arrival to answer."""

    __slots__ = ("committed", "context", "deadline", "lookups", "response", "together", "version")

    def __init__(self, context: Context, request: Request[ListOffsetsRequest]) -> None:
        self.context = context
        self.version = request.api_version
        self.committed = request.body.isolation_level == READ_COMMITTED
        self.deadline = context.clock.monotonic() + DEADLINE_S
        self.lookups: list[Lookup] = []
        self.together: Pending[None] | None = None
        self.response = ListOffsetsResponse(topics=self._topics(request))

    def _topics(self, request: Request[ListOffsetsRequest]) -> list[ListOffsetsTopicResponse]:
        body = request.body
        count = sum(len(topic.partitions) for topic in body.topics)
        sound = not too_many(self.context, request, count)
        sound = sound and body.isolation_level in (READ_UNCOMMITTED, READ_COMMITTED)
        answers: dict[str, dict[int, ListOffsetsPartitionResponse]] = {}
        looked_up: dict[tuple[str, int], Lookup] = {}
        for topic in body.topics:
            of_topic = answers.setdefault(topic.name, {})
            for asked in topic.partitions:
                number = asked.partition_index
                answer = ListOffsetsPartitionResponse(partition_index=number)
                if number in of_topic or not sound:
                    answer.error_code = ErrorCode.INVALID_REQUEST
                    looked_up.pop((topic.name, number), None)
                elif self._at_once(topic.name, asked, answer):
                    pass
                else:
                    looked_up[topic.name, number] = Lookup(topic.name, asked, answer)
                of_topic[number] = answer
        self.lookups = list(looked_up.values())
        return [
            ListOffsetsTopicResponse(name=name, partitions=list(partitions.values()))
            for name, partitions in answers.items()
        ]

    # --- what needs no look into the log -----------------------------------------------------

    def _at_once(
        self, topic: str, asked: ListOffsetsPartition, answer: ListOffsetsPartitionResponse
    ) -> bool:
        """Fill in the answer; False if the log has to be looked into."""
        timestamp = asked.timestamp
        if timestamp < 0 and self.version < KNOWN_SINCE.get(timestamp, 1 << 15):
            answer.error_code = ErrorCode.UNSUPPORTED_VERSION
            return True
        found = self._find(topic, asked)
        if isinstance(found, ErrorCode):
            answer.error_code = found
        elif found.log.damaged_at != INTACT and timestamp not in (EARLIEST, EARLIEST_LOCAL):
            # Whatever is said of offsets that can't be read would make a client pass them over.
            answer.error_code = ErrorCode.KAFKA_STORAGE_ERROR
        elif timestamp == LATEST:
            answer.offset = self._bound(found)
            answer.leader_epoch = found.leader_epoch
        elif timestamp in (EARLIEST, EARLIEST_LOCAL):
            start = found.log.start
            epoch = found.log.epochs.epoch_at(start)
            answer.offset = start
            # A log that nothing was written to yet belongs to whoever leads it now.
            answer.leader_epoch = epoch if epoch >= 0 else found.leader_epoch
        else:
            return timestamp in NOTHING_TIERED
        return True

    def _find(self, topic: str, asked: ListOffsetsPartition) -> Partition | ErrorCode:
        found = self.context.table.get(topic, asked.partition_index)
        if isinstance(found, ErrorCode):
            return found
        if asked.current_leader_epoch < -1:
            return ErrorCode.FENCED_LEADER_EPOCH  # Fetch takes these for -1, as Kafka's does
        return found.check_epoch(LeaderEpoch(asked.current_leader_epoch)) or found

    def _bound(self, partition: Partition) -> Offset:
        return partition.last_stable if self.committed else partition.high_watermark

    # --- looking into the log ----------------------------------------------------------------

    def go_on(self) -> Reply | Parked:
        """Take every lookup as far as it goes; answer when none is left."""
        left: list[Lookup] = []
        for lookup in self.lookups:
            if len(left) >= LOOKUPS_MAX or not self._step(lookup):
                left.append(lookup)
        self.lookups = left
        left_s = self.deadline - self.context.clock.monotonic()
        if not left:
            return Reply(self.response)
        if left_s <= 0:
            return self._late()
        waiting = [lookup.waiting for lookup in left if lookup.waiting is not None]
        self.together = when_all(waiting)
        return Parked(self.together, self._resume, left_s, abandon=self._leave)

    def _resume(self) -> Reply | Parked:
        assert self.together is not None, "only a parked request is resumed"
        if not self.together.done:
            self._leave()
            return self._late()
        self._release()
        return self.go_on()

    def _late(self) -> Reply:
        for lookup in self.lookups:
            lookup.answer.error_code = ErrorCode.REQUEST_TIMED_OUT
        return Reply(self.response)

    def _leave(self) -> None:
        """Let go of the files when the disk's threads are done with them, not before."""
        assert self.together is not None, "only a parked request is left"
        self.together.abandon()
        self.together.then(self._release)

    def _release(self) -> None:
        for lookup in self.lookups:
            if lookup.slice is not None:
                lookup.slice.release()
                lookup.slice = None

    def _step(self, lookup: Lookup) -> bool:
        """Go on with one lookup; False if it waits (or waits its turn)."""
        found = self._find(lookup.topic, lookup.asked)
        waiting, lookup.waiting = lookup.waiting, None
        if isinstance(found, ErrorCode):  # it may have gone while we waited
            lookup.answer.error_code = found
            return True
        if lookup.hit is not None:
            assert waiting is not None, "a batch that was hit is being opened"
            try:
                self._fill(lookup, found, lookup.hit, waiting.result())
            except OffloadError:  # too much to do just now: the client may come again
                lookup.answer.error_code = ErrorCode.REQUEST_TIMED_OUT
            return True
        try:
            if waiting is not None:
                waiting.result()
            return self._look(lookup, found)
        except DiskError as error:  # of this partition alone; the others may be well
            found.on_read_error(error)
            lookup.answer.error_code = ErrorCode.KAFKA_STORAGE_ERROR
            return True

    def _look(self, lookup: Lookup, partition: Partition) -> bool:
        log = partition.log
        if lookup.asked.timestamp == MAX_TIMESTAMP:
            place = log.max_timestamp()
        else:
            place = log.offset_for_time(lookup.asked.timestamp, partition.high_position)
        if place is None:
            return True
        piece = place.slice
        if isinstance(place, TimeHit):
            try:
                data = piece.file.read_nowait(piece.position, piece.length)
            except DiskError:
                piece.release()
                raise
            if data is not None:
                piece.release()
                return self._open(lookup, partition, place, data)
        lookup.slice = piece
        disk = self.context.disk
        lookup.waiting = disk.warm(piece) if isinstance(place, TimeHit) else place.bring(disk)
        return False

    def _open(self, lookup: Lookup, partition: Partition, hit: TimeHit, data: bytes) -> bool:
        self.context.metrics.open("list offsets by time")
        wanted = lookup.asked.timestamp
        if wanted == MAX_TIMESTAMP:
            wanted = hit.max_timestamp
        arguments = (
            data,
            wanted,
            partition.log.start,
            self.context.config[options.DECOMPRESSED_BYTES_MAX],
        )
        if len(data) <= INLINE_BYTES_MAX and BatchView(memoryview(data), 0).codec == 0:
            self._fill(lookup, partition, hit, first_since(*arguments))
            return True
        lookup.hit = hit
        lookup.waiting = self.context.offload.run(first_since, *arguments)
        return False

    def _fill(
        self,
        lookup: Lookup,
        partition: Partition,
        hit: TimeHit,
        found: tuple[int, Offset] | None,
    ) -> None:
        if found is None:
            found = hit.max_timestamp, max(hit.base_offset, partition.log.start)
        timestamp, offset = found
        if offset < self._bound(partition):  # the largest timestamp may not be committed yet
            lookup.answer.timestamp = timestamp
            lookup.answer.offset = offset
            lookup.answer.leader_epoch = hit.leader_epoch
