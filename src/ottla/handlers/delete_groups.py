"""DeleteGroups, key 42, versions 0 to 2.

A group that nobody is in ends, with all it has committed; NON_EMPTY_GROUP for any other (H111).
v2 flexible
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from ottla.coordinator.group.listing import delete_group
from ottla.handlers.asking import when_all_replied, write_deadline_s
from ottla.handlers.limits import too_many
from ottla.handlers.reply import Parked, Reply
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.delete_groups import (
    DeletableGroupResult,
    DeleteGroupsRequest,
    DeleteGroupsResponse,
)

if TYPE_CHECKING:
    from ottla.coordinator.decision import Decision
    from ottla.coordinator.group.shard import GroupShard
    from ottla.core.pending import Pending
    from ottla.handlers.context import Context, Request


def handle(context: Context, request: Request[DeleteGroupsRequest]) -> Reply | Parked:
    """A code for each group, once for one that is named twice."""
    group_ids = list(dict.fromkeys(request.body.groups_names))
    if too_many(context, request, len(group_ids)):
        return _reply(dict.fromkeys(group_ids, ErrorCode.INVALID_REQUEST))
    asked = {
        group_id: context.groups.submit(group_id, partial(_delete, group_id))
        for group_id in group_ids
    }
    return when_all_replied(asked.values(), partial(_answer, asked), write_deadline_s(context))


def _delete(group_id: str, shard: GroupShard) -> Decision[ErrorCode]:
    return delete_group(shard, group_id)


def _answer(asked: dict[str, Pending[Any]]) -> Reply:
    late = ErrorCode.COORDINATOR_NOT_AVAILABLE
    return _reply({name: one.result() if one.done else late for name, one in asked.items()})


def _reply(errors: dict[str, ErrorCode]) -> Reply:
    results = [DeletableGroupResult(group_id=one, error_code=code) for one, code in errors.items()]
    return Reply(DeleteGroupsResponse(results=results))
