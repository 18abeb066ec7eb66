"""InitProducerId, key 22, versions 0 to 5.

Gives a producer id from the durable blocks, with epoch 0; with a transactional id, that id's own,
with an epoch that fences every producer before it (I40). Without one Kafka looks at neither the
timeout nor the id and epoch that a producer says it had: a new id each time.
v2 flexible · v3 the id and epoch so far (KIP-360) · v4 PRODUCER_FENCED · v5 KIP-890
Not done: v6, prepared transactions (KIP-939), which Kafka 4.3 does not advertise either.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ottla.cluster.store import StoreError
from ottla.coordinator.transaction.ending import Identity
from ottla.core.group_options import TRANSACTION_MS_MAX
from ottla.core.model import NO_PRODUCER_ID
from ottla.handlers.asking import when_replied
from ottla.handlers.reply import Parked, Reply
from ottla.handlers.transacting import DEADLINE_S, is_too_long, note_full, understood
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.init_producer_id import InitProducerIdRequest, InitProducerIdResponse

if TYPE_CHECKING:
    from ottla.core.model import ProducerId
    from ottla.core.pending import Pending
    from ottla.handlers.context import Context, Request

NO_EPOCH = -1
BLOCK_WAIT_S = 10.0
FENCED_SINCE = 4


def handle(context: Context, request: Request[InitProducerIdRequest]) -> Reply | Parked:
    """A producer id; INVALID_REQUEST for an empty transactional id and half of a pair (H112)."""
    body = request.body
    name = body.transactional_id
    if (body.producer_id == NO_PRODUCER_ID) != (body.producer_epoch == NO_EPOCH):
        return _refused(ErrorCode.INVALID_REQUEST)
    if name is None:
        given = context.next_producer_id()
        if given.done:
            return _given(given)
        return Parked(given, lambda: _given(given), deadline_s=BLOCK_WAIT_S, abandon=given.abandon)
    if not name or is_too_long(context, name):
        return _refused(ErrorCode.INVALID_REQUEST)
    if not 0 < body.transaction_timeout_ms <= context.config[TRANSACTION_MS_MAX]:
        return _refused(ErrorCode.INVALID_TRANSACTION_TIMEOUT)
    expected = None
    if body.producer_id != NO_PRODUCER_ID:
        expected = Identity(body.producer_id, body.producer_epoch)
    asked = context.transactions.init_producer_id(name, body.transaction_timeout_ms, expected)
    return when_replied(asked, partial(_begun, context, request), DEADLINE_S)


def _given(given: Pending[ProducerId]) -> Reply:
    """Where no block can be had, what Kafka says while it waits for one: clients try again."""
    if not given.done:
        return _refused(ErrorCode.COORDINATOR_LOAD_IN_PROGRESS)
    try:
        producer_id = given.result()
    except StoreError:
        return _refused(ErrorCode.COORDINATOR_LOAD_IN_PROGRESS)
    return Reply(InitProducerIdResponse(producer_id=producer_id, producer_epoch=0))


def _begun(
    context: Context, request: Request[InitProducerIdRequest], told: Identity | ErrorCode
) -> Reply:
    if isinstance(told, ErrorCode):
        note_full(context, request.connection.peer, request.body.transactional_id or "", told)
        return _refused(understood(told, request.api_version, FENCED_SINCE))
    return Reply(InitProducerIdResponse(producer_id=told.producer_id, producer_epoch=told.epoch))


def _refused(error: ErrorCode) -> Reply:
    return Reply(InitProducerIdResponse(error_code=error, producer_epoch=NO_EPOCH))
