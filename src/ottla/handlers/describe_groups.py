"""DescribeGroups, key 15, versions 0 to 6.

Classic groups, and those that only ever committed. Protocol and metadata are told of stable groups
alone, as in Kafka. Any other group, a consumer group (KIP-848) too, is in state Dead.
v3 authorized operations · v4 group instance id (KIP-345) · v5 flexible
v6 GROUP_ID_NOT_FOUND with a message instead of a dead group (KIP-1043)
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from ottla.coordinator.group.listing import describe_group
from ottla.handlers.asking import when_all_replied
from ottla.handlers.limits import too_many
from ottla.handlers.nodes import GROUP_OPERATIONS
from ottla.handlers.reply import Parked, Reply
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.describe_groups import (
    DescribedGroup,
    DescribeGroupsRequest,
    DescribeGroupsResponse,
)

if TYPE_CHECKING:
    from ottla.coordinator.decision import Decision
    from ottla.coordinator.group.shard import GroupShard
    from ottla.core.pending import Pending
    from ottla.handlers.context import Context, Request


def handle(context: Context, request: Request[DescribeGroupsRequest]) -> Reply | Parked:
    """Each group that was named, in order."""
    group_ids = request.body.groups
    if too_many(context, request, len(group_ids)):
        refused = ErrorCode.INVALID_REQUEST
        return Reply(DescribeGroupsResponse(groups=[_failed(one, refused) for one in group_ids]))
    version = request.api_version
    asked = [
        context.groups.submit(group_id, partial(_describe, group_id, version))
        for group_id in group_ids
    ]
    return when_all_replied(asked, partial(_answer, request.body, asked))


def _describe(group_id: str, version: int, shard: GroupShard) -> Decision[DescribedGroup]:
    return describe_group(shard, group_id, version)


def _answer(body: DescribeGroupsRequest, asked: list[Pending[Any]]) -> Reply:
    groups: list[DescribedGroup] = []
    for group_id, one in zip(body.groups, asked, strict=True):
        told = one.result()
        if isinstance(told, ErrorCode):
            told = _failed(group_id, told)
        elif body.include_authorized_operations and not told.error_code:
            told.authorized_operations = GROUP_OPERATIONS
        groups.append(told)
    return Reply(DescribeGroupsResponse(groups=groups))


def _failed(group_id: str, error: ErrorCode) -> DescribedGroup:
    return DescribedGroup(group_id=group_id, error_code=error)
