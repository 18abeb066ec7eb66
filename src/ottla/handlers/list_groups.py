"""ListGroups, key 16, versions 0 to 5.

All groups that this node coordinates, whatever their protocol. Filters don't mind case; a state
or type that there isn't finds nothing.
v3 flexible · v4 states, and a filter for them (KIP-518) · v5 types, likewise (KIP-848)
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from ottla.coordinator.group.listing import list_groups
from ottla.handlers.asking import when_all_replied
from ottla.handlers.limits import too_many
from ottla.handlers.reply import Parked, Reply
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.list_groups import (
    ListedGroup,
    ListGroupsRequest,
    ListGroupsResponse,
)

if TYPE_CHECKING:
    from ottla.coordinator.decision import Decision
    from ottla.coordinator.group.shard import GroupShard
    from ottla.core.pending import Pending
    from ottla.handlers.context import Context, Request


def handle(context: Context, request: Request[ListGroupsRequest]) -> Reply | Parked:
    """The groups of all shards; an error if one of these can't say."""
    body = request.body
    if too_many(context, request, len(body.states_filter) + len(body.types_filter)):
        return Reply(ListGroupsResponse(error_code=ErrorCode.INVALID_REQUEST))
    states = frozenset(state.lower() for state in body.states_filter)
    types = frozenset(name.lower() for name in body.types_filter)
    asked = context.groups.submit_everywhere(partial(_list, states, types))
    return when_all_replied(asked, partial(_answer, asked))


def _list(
    states: frozenset[str], types: frozenset[str], shard: GroupShard
) -> Decision[list[ListedGroup]]:
    return list_groups(shard, states, types)


def _answer(asked: list[Pending[Any]]) -> Reply:
    groups: list[ListedGroup] = []
    error = ErrorCode.NONE
    for one in asked:
        told = one.result()
        if not isinstance(told, ErrorCode):
            groups += told
        elif told != ErrorCode.NOT_COORDINATOR:
            error = told
    return Reply(ListGroupsResponse(error_code=error, groups=groups))
