"""WriteTxnMarkers, key 27, versions 1 to 2.

Ends a producer's transaction in the partitions that are named: how an admin aborts one that hangs
(KIP-664). That a coordinator still knows of it is not asked, and it is not told: as in Kafka it
goes on to say Ongoing. This node's own coordinator writes its markers by the same way without a
request. Answered once the markers are on disk.
v2 transaction version (KIP-1228): by which rules a marker's epoch is judged
Not as Kafka: a marker without producer id or epoch, or of a version below 0, is INVALID_REQUEST,
not UNKNOWN_SERVER_ERROR.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ottla.coordinator.decision import Ending
from ottla.core.model import TopicPartition
from ottla.core.pending import Pending, Soon, when_all
from ottla.handlers.asking import write_deadline_s
from ottla.handlers.limits import too_many
from ottla.handlers.markers import PartitionMarkers
from ottla.handlers.reply import Parked, Reply
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.write_txn_markers import (
    WritableTxnMarker,
    WritableTxnMarkerPartitionResult,
    WritableTxnMarkerResult,
    WritableTxnMarkerTopicResult,
    WriteTxnMarkersRequest,
    WriteTxnMarkersResponse,
)

if TYPE_CHECKING:
    from ottla.handlers.context import Context, Request


def handle(context: Context, request: Request[WriteTxnMarkersRequest]) -> Reply | Parked:
    """A code for each partition of each marker (KIP-98)."""
    markers = request.body.markers
    count = sum(len(topic.partition_indexes) for marker in markers for topic in marker.topics)
    if too_many(context, request, count + len(markers)):
        refused = [(one, dict.fromkeys(_places(one), ErrorCode.INVALID_REQUEST)) for one in markers]
        return _reply(refused)
    if not count:
        return Reply(WriteTxnMarkersResponse())
    writer = PartitionMarkers(context)
    writing = [(one, _write(writer, one)) for one in markers]

    def answer() -> Reply:
        return _reply([(one, _outcome(one, each)) for one, each in writing])

    left = [each for _, each in writing if isinstance(each, Pending) and not each.done]
    if not left:
        return answer()
    together = when_all(left)
    return Parked(together, answer, write_deadline_s(context), abandon=together.abandon)


def _write(
    writer: PartitionMarkers, marker: WritableTxnMarker
) -> Soon[dict[TopicPartition, ErrorCode]]:
    places = _places(marker)
    if marker.producer_id < 0 or marker.producer_epoch < 0 or marker.transaction_version < 0:
        return dict.fromkeys(places, ErrorCode.INVALID_REQUEST)
    ending = Ending(
        marker.producer_id,
        marker.producer_epoch,
        marker.transaction_result,
        marker.coordinator_epoch,
        marker.transaction_version,
        by_admin=True,
    )
    return writer.write(ending, places)


def _outcome(
    marker: WritableTxnMarker, writing: Soon[dict[TopicPartition, ErrorCode]]
) -> dict[TopicPartition, ErrorCode]:
    if not isinstance(writing, Pending):
        return writing
    if writing.done:
        return writing.result()
    return dict.fromkeys(_places(marker), ErrorCode.REQUEST_TIMED_OUT)


def _places(marker: WritableTxnMarker) -> list[TopicPartition]:
    """Its partitions, each once."""
    places = {
        TopicPartition(topic.name, number): None
        for topic in marker.topics
        for number in topic.partition_indexes
    }
    return list(places)


def _reply(results: list[tuple[WritableTxnMarker, dict[TopicPartition, ErrorCode]]]) -> Reply:
    answer = WriteTxnMarkersResponse()
    for marker, codes in results:
        topics: dict[str, WritableTxnMarkerTopicResult] = {}
        for (name, number), error in codes.items():
            if name not in topics:
                topics[name] = WritableTxnMarkerTopicResult(name=name)
            topics[name].partitions.append(
                WritableTxnMarkerPartitionResult(partition_index=number, error_code=error)
            )
        answer.markers.append(
            WritableTxnMarkerResult(producer_id=marker.producer_id, topics=list(topics.values()))
        )
    return Reply(answer)
