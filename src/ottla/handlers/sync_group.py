"""SyncGroup, key 14, versions 0 to 5.

The leader hands in everybody's assignment, which goes to the log; the others wait for it, at most
for the rebalance timeout. Who is assigned but not a member is passed over, and what anybody but
the leader hands in is ignored (H106, H107).
v3 group instance id (KIP-345) · v4 flexible · v5 protocol type and name, both mandatory (KIP-559)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ottla.handlers.asking import caller, when_replied
from ottla.handlers.limits import too_many
from ottla.handlers.reply import Parked, Reply
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.sync_group import SyncGroupRequest, SyncGroupResponse

if TYPE_CHECKING:
    from ottla.handlers.context import Context, Request

PROTOCOL_SINCE = 5


def handle(context: Context, request: Request[SyncGroupRequest]) -> Reply | Parked:
    """The assignment of the member that asks, once there is one."""
    body = request.body
    if request.api_version >= PROTOCOL_SINCE and None in (body.protocol_type, body.protocol_name):
        return _answer(ErrorCode.INCONSISTENT_GROUP_PROTOCOL)
    if not body.group_id:
        return _answer(ErrorCode.INVALID_GROUP_ID)
    if too_many(context, request, len(body.assignments)):
        return _answer(ErrorCode.INVALID_REQUEST)
    asking = caller(request)
    asked = context.groups.submit(body.group_id, lambda shard: shard.sync_group(body, asking))
    return when_replied(asked, _answer)


def _answer(replied: SyncGroupResponse | ErrorCode) -> Reply:
    if isinstance(replied, ErrorCode):
        return Reply(SyncGroupResponse(error_code=replied))
    return Reply(replied)
