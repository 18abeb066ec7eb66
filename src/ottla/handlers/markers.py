"""Markers: how a transaction's end reaches this node's partitions.

Owns the way of one marker into each partition, for the transaction coordinator (the port `Markers`)
and for an admin (`write_txn_markers`). A partition of group offsets is told through its shard, in
the order of its log. Must not decide how a transaction ends, nor try anything again.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
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

_NO_ERROR = ErrorCode.NONE  # a name of the module is found in a fraction of the time
# What the coordinator of groups says of itself is, for a partition, where its leader is not.
_NOT_THERE = frozenset(
    {
        ErrorCode.COORDINATOR_NOT_AVAILABLE,
        ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
        ErrorCode.NOT_COORDINATOR,
    }
)


@lru_cache(maxsize=64)  # one coordinator's are two
def _marker(committed: bool, coordinator_epoch: int) -> EndMarker:
    return EndMarker(ControlType.COMMIT if committed else ControlType.ABORT, coordinator_epoch)


class PartitionMarkers:
    """The port `Markers` over the partitions that this node leads."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def write(
        self, ending: Ending, partitions: Sequence[TopicPartition]
    ) -> Soon[dict[TopicPartition, ErrorCode]]:
        """Write the marker to each partition, each of which is named once; done once each is on
        disk, or can't be.

        As long as nothing has to be waited for it is a loop of appends; what is left at the first
        partition where something has, is for a `_Writing`.
        """
        producer_id, epoch, committed, coordinator_epoch, version, by_admin = ending
        marker = _marker(committed, coordinator_epoch)
        results: dict[TopicPartition, ErrorCode] = {}
        if len(partitions) <= AT_ONCE:
            find = self._context.table.get
            for place in partitions:
                topic, number = place
                found = find(topic, number)
                if type(found) is ErrorCode:
                    results[place] = found
                    continue
                if found.committed_by_sync or found.internal:
                    break
                outcome = found.append_marker(producer_id, epoch, marker, version, by_admin)
                if isinstance(outcome, Pending):
                    break
                results[place] = outcome if type(outcome) is ErrorCode else _NO_ERROR
            else:
                return results
        left = [place for place in partitions if place not in results]
        return _Writing(self._context, ending, marker, results, left).result


class _Writing:
    """One marker on its way to the partitions that are left, each on its own."""

    __slots__ = ("_context", "_ending", "_left", "_marker", "_results", "result")

    def __init__(
        self,
        context: Context,
        ending: Ending,
        marker: EndMarker,
        results: dict[TopicPartition, ErrorCode],
        left: Sequence[TopicPartition],
    ) -> None:
        self._context = context
        self._ending = ending
        self._marker = marker
        self._results = results
        self._left = len(left)
        self.result: Pending[dict[TopicPartition, ErrorCode]] = Pending()
        self._begin_next(left)

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
            ending.producer_id,
            ending.producer_epoch,
            self._marker,
            ending.version,
            ending.by_admin,
        )
        if isinstance(outcome, Pending):
            outcome.then(partial(self._prepared, place, partition, outcome))
        elif type(outcome) is ErrorCode:
            self._done(place, outcome)
        else:
            committing = partition.committed(outcome.end)
            if committing is None:
                self._done(place, _NO_ERROR)
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
            self._done(place, _NO_ERROR)
        elif partition.deleted:
            self._done(place, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
        else:
            self._done(place, ErrorCode.KAFKA_STORAGE_ERROR)

    def _done(self, place: TopicPartition, error: ErrorCode) -> None:
        self._results[place] = error
        self._left -= 1
        if not self._left:
            self.result.complete(self._results)
