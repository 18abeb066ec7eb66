"""DeleteTopics, key 20, versions 1 to 6.

The controller decides. An answer comes when this node's metadata has lost the topic; its files
go a little later.
v3 TOPIC_DELETION_DISABLED, before it INVALID_REQUEST · v4 flexible · v5 messages · v6 by id
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ottla.cluster.controller import TopicRef
from ottla.cluster.topics import TopicResult
from ottla.core.model import TopicId
from ottla.handlers.limits import too_many
from ottla.handlers.reply import Parked, Reply
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.delete_topics import (
    DeletableTopicResult,
    DeleteTopicsRequest,
    DeleteTopicsResponse,
)

if TYPE_CHECKING:
    from ottla.handlers.context import Context, Request

BY_ID_SINCE = 6
DISABLED_SINCE = 3


def handle(context: Context, request: Request[DeleteTopicsRequest]) -> Reply | Parked:
    """One result for each topic. REQUEST_TIMED_OUT after timeout_ms; deletion then goes on."""
    body = request.body
    version = request.api_version
    if version >= BY_ID_SINCE:
        references = [TopicRef(topic.name, TopicId(topic.topic_id)) for topic in body.topics]
    else:
        references = [TopicRef(name) for name in body.topic_names]
    if too_many(context, request, len(references)):
        return _answer(_all(references, ErrorCode.INVALID_REQUEST), version)
    deleted = context.controller.delete_topics(references)

    def answer() -> Reply:
        late = ErrorCode.REQUEST_TIMED_OUT
        return _answer(deleted.result() if deleted.done else _all(references, late), version)

    if deleted.done:
        return answer()
    deadline_s = max(body.timeout_ms, 0) / 1000
    return Parked(deleted, answer, deadline_s=deadline_s, abandon=deleted.abandon)


def _all(references: list[TopicRef], error: ErrorCode) -> list[TopicResult]:
    """The same error for each topic that was named."""
    return [
        TopicResult(one.name, error, topic_id=one.topic_id) for one in dict.fromkeys(references)
    ]


def _answer(results: list[TopicResult], version: int) -> Reply:
    return Reply(DeleteTopicsResponse(responses=[_result(result, version) for result in results]))


def _result(result: TopicResult, version: int) -> DeletableTopicResult:
    error = result.error
    if error == ErrorCode.TOPIC_DELETION_DISABLED and version < DISABLED_SINCE:
        error = ErrorCode.INVALID_REQUEST
    return DeletableTopicResult(
        name=result.name,
        topic_id=result.topic_id,
        error_code=error,
        error_message=result.message,
    )
