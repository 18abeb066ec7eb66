"""OffsetForLeaderEpoch, key 23, versions 2 to 4.

Where a leader epoch ended: by this a consumer finds out that its log was cut (KIP-320).
v3 replica id, which is nobody's here · v4 flexible
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ottla.core.model import LeaderEpoch, Offset
from ottla.handlers.limits import too_many
from ottla.handlers.reply import Reply
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.offset_for_leader_epoch import (
    EpochEndOffset,
    OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
    OffsetForLeaderPartition,
    OffsetForLeaderTopicResult,
)

if TYPE_CHECKING:
    from ottla.handlers.context import Context, Request
    from ottla.replication.partition import Partition

_UNDEFINED = (LeaderEpoch(-1), Offset(-1))


def handle(context: Context, request: Request[OffsetForLeaderEpochRequest]) -> Reply:
    """Each partition on its own: unknown, FENCED or UNKNOWN_LEADER_EPOCH, or (epoch, end)."""
    beyond = too_many(context, request, sum(len(topic.partitions) for topic in request.body.topics))
    return Reply(
        OffsetForLeaderEpochResponse(
            topics=[
                OffsetForLeaderTopicResult(
                    topic=topic.topic,
                    partitions=[
                        _answer(context, topic.topic, asked, beyond) for asked in topic.partitions
                    ],
                )
                for topic in request.body.topics
            ]
        )
    )


def _answer(
    context: Context, topic: str, asked: OffsetForLeaderPartition, beyond: bool
) -> EpochEndOffset:
    if beyond:
        return EpochEndOffset(error_code=ErrorCode.INVALID_REQUEST, partition=asked.partition)
    found = context.table.get(topic, asked.partition)
    if isinstance(found, ErrorCode):
        return EpochEndOffset(error_code=found, partition=asked.partition)
    if asked.current_leader_epoch < -1:
        return EpochEndOffset(error_code=ErrorCode.FENCED_LEADER_EPOCH, partition=asked.partition)
    if error := found.check_epoch(LeaderEpoch(asked.current_leader_epoch)):
        return EpochEndOffset(error_code=error, partition=asked.partition)
    wanted = LeaderEpoch(asked.leader_epoch)
    # Kafka knows -1 alone for none: one below it is before all that are known.
    before_all = wanted < _UNDEFINED[0]
    epoch, end = (wanted, _begin(found)) if before_all else end_of_epoch(found, wanted)
    return EpochEndOffset(partition=asked.partition, leader_epoch=epoch, end_offset=end)


def end_of_epoch(partition: Partition, epoch: LeaderEpoch) -> tuple[LeaderEpoch, Offset]:
    """(the largest epoch not above `epoch` that wrote here, the offset it ended at).

    The present epoch counts as begun at the log's end, though it may have written nothing yet.
    An epoch before all that are known ends where they begin; one yet to come, or -1, nowhere.
    """
    log = partition.log
    if epoch < 0 or epoch > partition.leader_epoch:
        return _UNDEFINED
    if epoch == partition.leader_epoch:
        return epoch, log.end
    known = log.epochs.end_of(epoch, log.end)
    if known != _UNDEFINED:
        return known
    return epoch, _begin(partition)


def _begin(partition: Partition) -> Offset:
    """Where the first of the epochs that are known begins."""
    entries = partition.log.epochs.entries()
    return entries[0][1] if entries else partition.log.end
