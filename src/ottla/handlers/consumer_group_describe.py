"""ConsumerGroupDescribe, key 69, versions 0 to 1.

Consumer groups (KIP-848) only: of any other the answer is GROUP_ID_NOT_FOUND.
v1 whether a member speaks the classic protocol (KIP-1099)
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from ottla.coordinator.group.consumer_listing import describe_consumer_group
from ottla.handlers.asking import when_all_replied
from ottla.handlers.limits import too_many
from ottla.handlers.nodes import GROUP_OPERATIONS
from ottla.handlers.reply import Parked, Reply
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.consumer_group_describe import (
    ConsumerGroupDescribeRequest,
    ConsumerGroupDescribeResponse,
    DescribedGroup,
)

if TYPE_CHECKING:
    from ottla.coordinator.decision import Decision
    from ottla.coordinator.group.shard import GroupShard
    from ottla.core.pending import Pending
    from ottla.handlers.context import Context, Request


def handle(context: Context, request: Request[ConsumerGroupDescribeRequest]) -> Reply | Parked:
    """Each group that was named, in order."""
    group_ids = request.body.group_ids
    if too_many(context, request, len(group_ids)):
        refused = ErrorCode.INVALID_REQUEST
        failed = [_failed(one, refused) for one in group_ids]
        return Reply(ConsumerGroupDescribeResponse(groups=failed))
    asked: list[Pending[Any] | None] = [
        context.groups.submit(group_id, partial(_describe, group_id)) if group_id else None
        for group_id in group_ids
    ]
    waited = [one for one in asked if one is not None]
    return when_all_replied(waited, partial(_answer, request.body, asked))


def _describe(group_id: str, shard: GroupShard) -> Decision[DescribedGroup]:
    return describe_consumer_group(shard, group_id)


def _answer(body: ConsumerGroupDescribeRequest, asked: list[Pending[Any] | None]) -> Reply:
    groups: list[DescribedGroup] = []
    for group_id, one in zip(body.group_ids, asked, strict=True):
        told = ErrorCode.INVALID_GROUP_ID if one is None else one.result()
        if isinstance(told, ErrorCode):
            told = _failed(group_id, told)
        elif body.include_authorized_operations and not told.error_code:
            told.authorized_operations = GROUP_OPERATIONS
        groups.append(told)
    return Reply(ConsumerGroupDescribeResponse(groups=groups))


def _failed(group_id: str, error: ErrorCode) -> DescribedGroup:
    return DescribedGroup(group_id=group_id, error_code=error)
