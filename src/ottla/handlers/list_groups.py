"""ListGroups, key 16, versions 0 to 5.

All groups that this node coordinates, whatever their protocol. Filters don't mind case; a state
or type that there isn't finds nothing.
v3 flexible · v4 states, and a filter for them (KIP-518) · v5 types, likewise (KIP-848)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ottla.coordinator.group.listing import listed
from ottla.handlers.limits import too_many
from ottla.handlers.listing import Listing, Source
from ottla.handlers.reply import Parked, Reply
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.list_groups import (
    ListedGroup,
    ListGroupsRequest,
    ListGroupsResponse,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ottla.coordinator.group.shard import GroupShard
    from ottla.handlers.context import Context, Request


def handle(context: Context, request: Request[ListGroupsRequest]) -> Reply | Parked:
    """The groups of all shards; an error if one of these can't say."""
    body = request.body
    if too_many(context, request, len(body.states_filter) + len(body.types_filter)):
        return Reply(ListGroupsResponse(error_code=ErrorCode.INVALID_REQUEST))
    source = _Groups(body)
    return Listing(source, context.groups, context.timers, request.api_version).begin()


class _Groups(Source["GroupShard"]):
    """What is told of groups."""

    def __init__(self, body: ListGroupsRequest) -> None:
        self._answer = ListGroupsResponse()
        super().__init__(self._answer)
        self._states = frozenset(state.lower() for state in body.states_filter)
        self._types = frozenset(name.lower() for name in body.types_filter)

    def names(self, shard: GroupShard) -> Iterable[str]:
        return shard.group_ids()

    def tell(self, shard: GroupShard, name: str) -> ListedGroup | None:
        return listed(shard, name, self._states, self._types)

    def failed(self, error: ErrorCode) -> None:
        self._answer.error_code = error  # beside the groups of all others, as in Kafka
