"""DeleteRecords, key 21, versions 0 to 2.

Moves the start of a log (KIP-107, KIP-204). An answer comes when the new start is on disk, so that
no restart brings a record back. Offset -1 is the high watermark; past it OFFSET_OUT_OF_RANGE; below
the start nothing changes, and the answer names the start there is. A topic that is compacted and
does not delete refuses with POLICY_VIOLATION. A partition named twice goes by its last mention.
v1 like v0 · v2 flexible
Not as Kafka: Kafka answers at once and writes the start within a minute; as it is waited for here,
a timeout of less than a second is not taken at its word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ottla.cluster.names import is_internal
from ottla.core.model import Offset
from ottla.core.pending import Pending, when_all
from ottla.core.ports import DiskError
from ottla.core.topic_config import topic_config
from ottla.handlers.limits import too_many
from ottla.handlers.reply import Parked, Reply
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.delete_records import (
    DeleteRecordsPartitionResult,
    DeleteRecordsRequest,
    DeleteRecordsResponse,
    DeleteRecordsTopicResult,
)

if TYPE_CHECKING:
    from ottla.handlers.context import Context, Request
    from ottla.replication.partition import Partition

TO_HIGH_WATERMARK = -1
NO_WATERMARK = -1
TIMEOUT_MS_MIN = 1000

_Deletion = tuple["Partition", "Pending[None]"]


def handle(context: Context, request: Request[DeleteRecordsRequest]) -> Reply | Parked:
    """One result for each partition. REQUEST_TIMED_OUT where the disk takes too long."""
    body = request.body
    asked: dict[str, dict[int, int]] = {}
    for topic in body.topics:
        for one in topic.partitions:
            asked.setdefault(topic.name, {})[one.partition_index] = one.offset
    beyond = too_many(context, request, sum(map(len, asked.values())))
    outcomes: dict[tuple[str, int], _Deletion | ErrorCode] = {}
    for name, partitions in asked.items():
        refusal = ErrorCode.INVALID_REQUEST if beyond else _refusal(context, name)
        for number, offset in partitions.items():
            outcomes[name, number] = _delete(context, name, number, offset, refusal)
    together = when_all([one[1] for one in outcomes.values() if isinstance(one, tuple)])

    def answer() -> Reply:
        return Reply(
            DeleteRecordsResponse(
                topics=[
                    DeleteRecordsTopicResult(
                        name=name,
                        partitions=[_result(number, outcomes[name, number]) for number in numbers],
                    )
                    for name, numbers in asked.items()
                ]
            )
        )

    if together.done:
        return answer()
    deadline_s = max(body.timeout_ms, TIMEOUT_MS_MIN) / 1000
    return Parked(together, answer, deadline_s=deadline_s, abandon=together.abandon)


def _refusal(context: Context, name: str) -> ErrorCode:
    """Why no records of this topic may be deleted, if there is a reason."""
    topic = context.image().topics.get(name)
    if topic is None:
        return ErrorCode.NONE  # the table knows
    if is_internal(name):
        return ErrorCode.INVALID_TOPIC_EXCEPTION
    settings = topic_config(context.config, topic.configs)
    compact_only = settings.compact and not settings.delete
    return ErrorCode.POLICY_VIOLATION if compact_only else ErrorCode.NONE


def _delete(
    context: Context, name: str, number: int, offset: int, refusal: ErrorCode
) -> _Deletion | ErrorCode:
    partition = context.table.get(name, number)
    if isinstance(partition, ErrorCode):
        return partition
    if refusal:
        return refusal
    to = partition.high_watermark if offset == TO_HIGH_WATERMARK else Offset(offset)
    started = context.table.delete_records(partition, to)
    return started if isinstance(started, ErrorCode) else (partition, started)


def _result(number: int, outcome: _Deletion | ErrorCode) -> DeleteRecordsPartitionResult:
    error = outcome if isinstance(outcome, ErrorCode) else _end_of(outcome[1])
    low = NO_WATERMARK if error or isinstance(outcome, ErrorCode) else outcome[0].log.start
    return DeleteRecordsPartitionResult(partition_index=number, low_watermark=low, error_code=error)


def _end_of(pending: Pending[None]) -> ErrorCode:
    if not pending.done:
        return ErrorCode.REQUEST_TIMED_OUT
    try:
        pending.result()
    except DiskError:
        return ErrorCode.KAFKA_STORAGE_ERROR
    return ErrorCode.NONE
