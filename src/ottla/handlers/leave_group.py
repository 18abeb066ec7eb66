"""LeaveGroup, key 13, versions 0 to 5.

Members leave, and those that stay join again without waiting for a timeout. An admin may remove
a static member by its instance id alone.
v3 several members, with instance ids (KIP-345) · v4 flexible · v5 reasons (KIP-800)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ottla.handlers.asking import caller, when_replied, write_deadline_s
from ottla.handlers.limits import too_many
from ottla.handlers.reply import Parked, Reply
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.leave_group import LeaveGroupRequest, LeaveGroupResponse

if TYPE_CHECKING:
    from ottla.handlers.context import Context, Request


def handle(context: Context, request: Request[LeaveGroupRequest]) -> Reply | Parked:
    """A code for each member; below version 3 one for the one."""
    body = request.body
    if not body.group_id:
        return _answer(ErrorCode.INVALID_GROUP_ID)
    if too_many(context, request, len(body.members)):
        return _answer(ErrorCode.INVALID_REQUEST)
    asking = caller(request)
    asked = context.groups.submit(body.group_id, lambda shard: shard.leave_group(body, asking))
    return when_replied(asked, _answer, write_deadline_s(context))


def _answer(replied: LeaveGroupResponse | ErrorCode) -> Reply:
    if isinstance(replied, ErrorCode):
        return Reply(LeaveGroupResponse(error_code=replied))
    return Reply(replied)
