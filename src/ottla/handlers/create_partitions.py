"""CreatePartitions, key 37, versions 0 to 3.

The controller decides. An answer comes when this node's metadata has the new partitions.
v2 flexible · v3 quota error, for which there are no quotas
Not as Kafka: past a cap POLICY_VIOLATION, where Kafka has UNKNOWN_SERVER_ERROR past 10,000; an
internal topic can't grow, INVALID_PARTITIONS: by the number of its partitions ids are found in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ottla.cluster.partitions import MorePartitions
from ottla.cluster.topics import TopicResult
from ottla.handlers.limits import too_many
from ottla.handlers.reply import Parked, Reply
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.create_partitions import (
    CreatePartitionsRequest,
    CreatePartitionsResponse,
    CreatePartitionsTopic,
    CreatePartitionsTopicResult,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ottla.handlers.context import Context, Request


def handle(context: Context, request: Request[CreatePartitionsRequest]) -> Reply | Parked:
    """One result for each name. REQUEST_TIMED_OUT after timeout_ms; it may then still be done."""
    body = request.body
    if too_many(context, request, len(body.topics)):
        return _all(body, ErrorCode.INVALID_REQUEST)
    grown = context.controller.create_partitions(
        [_more(topic) for topic in body.topics], validate_only=body.validate_only
    )

    def answer() -> Reply:
        if not grown.done:
            return _all(body, ErrorCode.REQUEST_TIMED_OUT)
        return _answer(grown.result())

    if grown.done:
        return answer()
    deadline_s = max(body.timeout_ms, 0) / 1000
    return Parked(grown, answer, deadline_s=deadline_s, abandon=grown.abandon)


def _all(body: CreatePartitionsRequest, error: ErrorCode) -> Reply:
    """The same error for each name."""
    names = dict.fromkeys(topic.name for topic in body.topics)
    return _answer([TopicResult(name, error) for name in names])


def _answer(results: Iterable[TopicResult]) -> Reply:
    return Reply(CreatePartitionsResponse(results=[_result(result) for result in results]))


def _more(topic: CreatePartitionsTopic) -> MorePartitions:
    assignments = topic.assignments
    nodes = None if assignments is None else [one.broker_ids for one in assignments]
    return MorePartitions(topic.name, topic.count, nodes)


def _result(result: TopicResult) -> CreatePartitionsTopicResult:
    assert result.name is not None, "a topic grows by name"
    return CreatePartitionsTopicResult(
        name=result.name, error_code=result.error, error_message=result.message
    )
