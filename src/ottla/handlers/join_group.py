"""JoinGroup, key 11, versions 0 to 9.

The group's shard decides (`coordinator/group/classic_protocol.py`), and the answer waits until all
members have joined, or the time for that is up: there is no other deadline. A member is told
REBALANCE_IN_PROGRESS for a join that it has repeated meanwhile.
v1 rebalance timeout; v0 takes the session's · v4 member id required (KIP-394) · v5 group instance
id (KIP-345) · v6 flexible · v7 protocol type, nullable protocol (KIP-559) · v8 reason (KIP-800)
v9 skip assignment (KIP-814)
Where Kafka 4.3.1 differs: of v0 it takes -1 for the rebalance timeout and expels such members; it
promises ids without a limit; and it never answers a join that was repeated.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ottla.coordinator.group.classic_rounds import refused_join
from ottla.handlers.asking import caller, when_replied
from ottla.handlers.limits import note_full, too_many
from ottla.handlers.reply import Parked, Reply
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.join_group import JoinGroupRequest, JoinGroupResponse

if TYPE_CHECKING:
    from collections.abc import Callable

    from ottla.handlers.context import Context, Request

NULL_PROTOCOL_SINCE = 7


def handle(context: Context, request: Request[JoinGroupRequest]) -> Reply | Parked:
    """Join, and wait for the generation that this makes."""
    body, version = request.body, request.api_version
    note = partial(note_full, context, request.connection.peer, body.group_id)
    answer = partial(_answer, body.member_id, version, note)
    if not body.group_id:
        return answer(ErrorCode.INVALID_GROUP_ID)
    if too_many(context, request, len(body.protocols)):
        return answer(ErrorCode.INVALID_REQUEST)
    asking = caller(request)
    asked = context.groups.submit(body.group_id, lambda shard: shard.join_group(body, asking))
    return when_replied(asked, answer)


def _answer(
    member_id: str,
    version: int,
    note: Callable[[int], None],
    replied: JoinGroupResponse | ErrorCode,
) -> Reply:
    if isinstance(replied, ErrorCode):
        replied = refused_join(replied, member_id)
    note(replied.error_code)
    if replied.protocol_name is None and version < NULL_PROTOCOL_SINCE:
        replied.protocol_name = ""
    return Reply(replied)
