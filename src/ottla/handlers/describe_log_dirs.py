"""DescribeLogDirs, key 35, versions 1 to 5.

The one log directory: what it holds, partition by partition, and what room its disk has (KIP-113).
A topic or partition that is not there is left out. Null asks for all. A partition's size is that
of its segments; there are no future replicas, and no replica lags behind itself. An offline
directory is KAFKA_STORAGE_ERROR and tells nothing else.
v2 flexible · v3 an error for the whole answer, for which there is no authorizer yet · v4 total and
usable bytes (KIP-827) · v5 cordoned (KIP-1066), which a single directory never is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ottla.core.ports import DiskError, Space
from ottla.handlers.limits import too_many
from ottla.handlers.reply import Parked, Reply
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.describe_log_dirs import (
    DescribeLogDirsPartition,
    DescribeLogDirsRequest,
    DescribeLogDirsResponse,
    DescribeLogDirsResult,
    DescribeLogDirsTopic,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ottla.handlers.context import Context, Request

SPACE_SINCE = 4
SPACE_WAIT_S = 5.0
UNKNOWN = Space(-1, -1)


def handle(context: Context, request: Request[DescribeLogDirsRequest]) -> Reply | Parked:
    """One result for the one directory; INVALID_REQUEST where too many partitions are named."""
    if too_many(context, request, sum(len(one.partitions) for one in request.body.topics or ())):
        return _refused(context, ErrorCode.INVALID_REQUEST)
    if context.table.failure is not None:
        return _refused(context, ErrorCode.KAFKA_STORAGE_ERROR)
    if request.api_version < SPACE_SINCE:
        return _answer(_described(context, request.body, UNKNOWN))
    asked = context.disk.space(context.table.directory.path)

    def resume() -> Reply:
        try:
            space = asked.result() if asked.done else UNKNOWN
        except DiskError:
            space = UNKNOWN  # the logs may be sound all the same: their own errors tell
        return _answer(_described(context, request.body, space))

    return Parked(asked, resume, deadline_s=SPACE_WAIT_S, abandon=asked.abandon)


def _refused(context: Context, error: ErrorCode) -> Reply:
    """The error as the directory's own: before v3 an answer has no other place for it."""
    path = context.table.directory.path
    return _answer(DescribeLogDirsResult(error_code=error, log_dir=path))


def _answer(result: DescribeLogDirsResult) -> Reply:
    return Reply(DescribeLogDirsResponse(results=[result]))


def _described(
    context: Context, body: DescribeLogDirsRequest, space: Space
) -> DescribeLogDirsResult:
    topics: dict[str, list[DescribeLogDirsPartition]] = {}
    for name, number, size in _sizes(context, body):
        partition = DescribeLogDirsPartition(partition_index=number, partition_size=size)
        topics.setdefault(name, []).append(partition)
    return DescribeLogDirsResult(
        log_dir=context.table.directory.path,
        topics=[
            DescribeLogDirsTopic(name=name, partitions=partitions)
            for name, partitions in topics.items()
        ],
        total_bytes=space.total,
        usable_bytes=space.usable,
    )


def _sizes(context: Context, body: DescribeLogDirsRequest) -> Iterator[tuple[str, int, int]]:
    """(topic, partition, bytes) of what is asked for and there."""
    wanted = None
    if body.topics is not None:
        wanted = {(topic.topic, number) for topic in body.topics for number in topic.partitions}
    for partition in context.table:
        if wanted is None or partition.key in wanted:
            yield partition.key.topic, partition.key.partition, partition.log.size
