"""ConsumerGroupHeartbeat, key 68, versions 0 to 1.

A member of a consumer group (KIP-848) joins with epoch 0, stays, or leaves with -1 (-2: a static
member that will be back); it says what has changed, and is told what it may work on. The group's
shard decides (`coordinator/group/consumer.py`).
v1 regular expressions, member ids made by the member (KIP-1082)
Not as Kafka: it holds expressions against the topics elsewhere, so that a member there
learns what its expression names one heartbeat later; and it looks for new topics at most every
10 s, where this takes 1 s; a member that is an epoch behind is told its assignment again; one
that waits for others is told a shorter interval.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ottla.handlers.asking import caller, when_replied, write_deadline_s
from ottla.handlers.limits import note_full, too_many
from ottla.handlers.reply import Parked, Reply
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.consumer_group_heartbeat import (
    ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from ottla.handlers.context import Context, Request


def handle(context: Context, request: Request[ConsumerGroupHeartbeatRequest]) -> Reply | Parked:
    """The member's epoch and, where it has changed or was asked for, its assignment (H110)."""
    body = request.body
    if not body.group_id.strip():
        message = "GroupId can't be empty."
        return Reply(
            ConsumerGroupHeartbeatResponse(
                error_code=ErrorCode.INVALID_REQUEST, error_message=message
            )
        )
    answer = partial(_answer, partial(note_full, context, request.connection.peer, body.group_id))
    names = len(body.subscribed_topic_names or ())
    owned = sum(len(each.partitions) + 1 for each in body.topic_partitions or ())
    if too_many(context, request, names + owned):
        return answer(ErrorCode.INVALID_REQUEST)
    asking = caller(request)
    asked = context.groups.ask(body.group_id, lambda shard: shard.consumer.heartbeat(body, asking))
    return when_replied(asked, answer, write_deadline_s(context))


def _answer(
    note: Callable[[int], None], replied: ConsumerGroupHeartbeatResponse | ErrorCode
) -> Reply:
    if isinstance(replied, ErrorCode):
        replied = ConsumerGroupHeartbeatResponse(error_code=replied)
    note(replied.error_code)
    return Reply(replied)
