"""AlterReplicaLogDirs, key 34, versions 1 to 2.

There is one log directory. To name it is fine and moves nothing; any other is LOG_DIR_NOT_FOUND.
v2 flexible
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ottla.handlers.limits import too_many
from ottla.handlers.reply import Reply
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.alter_replica_log_dirs import (
    AlterReplicaLogDirPartitionResult,
    AlterReplicaLogDirsRequest,
    AlterReplicaLogDirsResponse,
    AlterReplicaLogDirTopicResult,
)

if TYPE_CHECKING:
    from ottla.handlers.context import Context, Request


def handle(context: Context, request: Request[AlterReplicaLogDirsRequest]) -> Reply:
    """One result for each partition; the last directory counts, where one is named for several.

    INVALID_REQUEST for all of too many.
    """
    count = sum(len(topic.partitions) for one in request.body.dirs for topic in one.topics)
    beyond = too_many(context, request, count)
    found: dict[str, dict[int, ErrorCode]] = {}
    for one in request.body.dirs:
        for topic in one.topics:
            results = found.setdefault(topic.name, {})
            for number in topic.partitions:
                results[number] = (
                    ErrorCode.INVALID_REQUEST
                    if beyond
                    else _outcome(context, one.path, topic.name, number)
                )
    return Reply(
        AlterReplicaLogDirsResponse(
            results=[
                AlterReplicaLogDirTopicResult(
                    topic_name=name,
                    partitions=[
                        AlterReplicaLogDirPartitionResult(partition_index=number, error_code=error)
                        for number, error in results.items()
                    ],
                )
                for name, results in found.items()
            ]
        )
    )


def _outcome(context: Context, path: str, topic: str, number: int) -> ErrorCode:
    table = context.table
    if path != table.directory.path:
        return ErrorCode.LOG_DIR_NOT_FOUND
    if table.failure is not None:
        return ErrorCode.KAFKA_STORAGE_ERROR
    partition = table.get(topic, number)
    return partition if isinstance(partition, ErrorCode) else ErrorCode.NONE
