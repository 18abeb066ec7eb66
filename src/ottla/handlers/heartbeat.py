"""Heartbeat, key 12, versions 0 to 4.

A member says that it is alive, and learns whether it must join again (H103). While the group is
still being loaded any heartbeat is fine, as in Kafka: its member has done nothing wrong.
v3 group instance id (KIP-345) · v4 flexible
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ottla.handlers.asking import caller, when_replied
from ottla.handlers.reply import Parked, Reply
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.heartbeat import HeartbeatRequest, HeartbeatResponse

if TYPE_CHECKING:
    from ottla.handlers.context import Context, Request


def handle(context: Context, request: Request[HeartbeatRequest]) -> Reply | Parked:
    """NONE, REBALANCE_IN_PROGRESS, or why the member is none (any more)."""
    body = request.body
    if not body.group_id:
        return _answer(ErrorCode.INVALID_GROUP_ID)
    asking = caller(request)
    asked = context.groups.ask(body.group_id, lambda shard: shard.heartbeat(body, asking))
    return when_replied(asked, _answer)


def _answer(replied: HeartbeatResponse | ErrorCode) -> Reply:
    if isinstance(replied, ErrorCode):
        loading = replied == ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
        return Reply(HeartbeatResponse(error_code=ErrorCode.NONE if loading else replied))
    return Reply(replied)
