"""Markers: how a transaction's end reaches this node's partitions.

Owns the way of one marker into each partition, for the transaction coordinator (the port `Markers`)
and for an admin (`write_txn_markers`). A partition of group offsets is told through its shard, in
the order of its log. Must not decide how a transaction ends, nor try anything again.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from ottla.core.pending import Pending, Soon
from ottla.core.ports import DiskError
from ottla.handlers.internal_topics import OFFSETS_TOPIC
from ottla.protocol.errors import ErrorCode
from ottla.records.control import ControlType, EndMarker

if TYPE_CHECKING:
    from ottla.coordinator.decision import Ending
    from ottla.core.model import Offset, TopicPartition
    from ottla.handlers.context import Context
    from ottla.replication.partition import Partition

AT_ONCE: Final = 100
"""Partitions that one marker is written to before others get their turn: a few milliseconds."""

# What the coordinator of groups says of itself is, for a partition, where its leader is not.
_NOT_THERE = frozenset(
    {
        ErrorCode.COORDINATOR_NOT_AVAILABLE,
        ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
        ErrorCode.NOT_COORDINATOR,
    }
)


class PartitionMarkers:
    """The port `Markers` over the partitions that this node leads."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def write(
        self, ending: Ending, partitions: Sequence[TopicPartition]
    ) -> Soon[dict[TopicPartition, ErrorCode]]:
        """Write the marker to each partition; done once each is on disk, or can't be."""
        writing = _Writing(self._context, ending, partitions)
        if not writing.left:
            return writing.results
        writing.all_done = Pending()
        return writing.all_done


class _Writing:
    """One marker on its way to its partitions, each on its own."""

    __slots__ = ("_context", "_ending", "_marker", "all_done", "left", "results")

    def __init__(
        self, context: Context, ending: Ending, partitions: Sequence[TopicPartition]
    ) -> None:
        self._context = context
        self._ending = ending
        kind = ControlType.COMMIT if ending.committed else ControlType.ABORT
        self._marker = EndMarker(kind, ending.coordinator_epoch)
        self.results = dict.fromkeys(partitions, ErrorCode.NONE)
        self.left = len(self.results)
        """How many partitions it is not in yet."""
        self.all_done: Pending[dict[TopicPartition, ErrorCode]] | None = None
        """For who waits: where nothing needs to be waited for, nobody does."""
        if self.left == 1:
            self._begin(*self.results)
        else:
            self._begin_next(list(self.results))

    def _begin_next(self, places: Sequence[TopicPartition]) -> None:
        for place in places[:AT_ONCE]:
            self._begin(place)
        if len(places) > AT_ONCE:
            rest = places[AT_ONCE:]
            self._context.timers.soon(partial(self._begin_next, rest))

    def _begin(self, place: TopicPartition) -> None:
        found = self._context.table.get(*place)
        if type(found) is ErrorCode:
            self._done(place, found)
        elif place.topic == OFFSETS_TOPIC:
            asked = self._context.groups.end_transaction(place.partition, self._ending)
            asked.then(partial(self._answered, place, asked))
        else:
            self._append(place, found)

    def _answered(self, place: TopicPartition, asked: Pending[ErrorCode]) -> None:
        error = asked.result()
        self._done(place, ErrorCode.NOT_LEADER_OR_FOLLOWER if error in _NOT_THERE else error)

    def _append(self, place: TopicPartition, partition: Partition) -> None:
        ending = self._ending
        outcome = partition.append_marker(
            ending.producer_id, ending.producer_epoch, self._marker, ending.version
        )
        if isinstance(outcome, Pending):
            outcome.then(partial(self._prepared, place, partition, outcome))
        elif type(outcome) is ErrorCode:
            self._done(place, outcome)
        else:
            committing = partition.committed(outcome.end)
            if committing is None:
                self._done(place, ErrorCode.NONE)
            else:
                committing.then(partial(self._committed, place, partition, outcome.end))

    def _prepared(self, place: TopicPartition, partition: Partition, files: Pending[None]) -> None:
        try:
            files.result()
        except DiskError as error:
            partition.on_disk_error(error)
            self._done(place, ErrorCode.KAFKA_STORAGE_ERROR)
        else:
            self._append(place, partition)

    def _committed(self, place: TopicPartition, partition: Partition, end: Offset) -> None:
        if partition.is_committed(end):
            self._done(place, ErrorCode.NONE)
        elif partition.deleted:
            self._done(place, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
        else:
            self._done(place, ErrorCode.KAFKA_STORAGE_ERROR)

    def _done(self, place: TopicPartition, error: ErrorCode) -> None:
        self.results[place] = error
        self.left -= 1
        if not self.left and self.all_done is not None:
            self.all_done.complete(self.results)
