"""AddOffsetsToTxn, key 25, versions 0 to 4.

Makes a group's partition of __consumer_offsets part of a producer's transaction, before offsets
are committed in it. Whether there is such a group does not matter.
v2 PRODUCER_FENCED · v3 flexible · v4 TRANSACTION_ABORTABLE (KIP-890)
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ottla.coordinator.transaction.ending import Identity
from ottla.coordinator.transaction.metadata import CLASSIC
from ottla.core.model import TopicPartition
from ottla.handlers.asking import when_replied
from ottla.handlers.internal_topics import OFFSETS_TOPIC
from ottla.handlers.reply import Parked, Reply
from ottla.handlers.transacting import DEADLINE_S, understood
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.add_offsets_to_txn import (
    AddOffsetsToTxnRequest,
    AddOffsetsToTxnResponse,
)

if TYPE_CHECKING:
    from ottla.core.pending import Pending
    from ottla.handlers.context import Context, Request

FENCED_SINCE = 2


def handle(context: Context, request: Request[AddOffsetsToTxnRequest]) -> Reply | Parked:
    """NONE once it is durable, or why not."""
    made = context.groups.when_made()
    if made.done:
        return _add(context, request, made)
    # Like what follows, before its effect: an EndTxn sent behind it would end too little.
    return Parked(
        made, partial(_add, context, request, made), DEADLINE_S, True, abandon=made.abandon
    )


def _add(
    context: Context, request: Request[AddOffsetsToTxnRequest], made: Pending[ErrorCode]
) -> Reply | Parked:
    """The topic is there, so that it can be told which partition has the group."""
    body = request.body
    error = made.result() if made.done else ErrorCode.COORDINATOR_NOT_AVAILABLE
    if error:
        return _answer(request.api_version, error)
    asked = context.transactions.join(
        body.transactional_id,
        Identity(body.producer_id, body.producer_epoch),
        [TopicPartition(OFFSETS_TOPIC, context.groups.partition_for(body.group_id))],
        CLASSIC,
    )
    answer = partial(_answer, request.api_version)
    return when_replied(asked, answer, DEADLINE_S, before_effect=True)


def _answer(version: int, error: ErrorCode) -> Reply:
    return Reply(AddOffsetsToTxnResponse(error_code=understood(error, version, FENCED_SINCE)))
