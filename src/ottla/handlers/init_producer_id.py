"""InitProducerId, key 22, versions 0 to 5.

Gives a producer id from the durable blocks, with epoch 0. Without a transactional id Kafka looks
at neither the timeout nor the id and epoch that a producer says it had: a new id each time.
v2 flexible · v3 the id and epoch so far (KIP-360) · v4 PRODUCER_FENCED · v5 KIP-890
Not done: transactional ids. They are answered TRANSACTIONAL_ID_AUTHORIZATION_FAILED, which every
client takes as fatal and says at once; a coordinator's error would be retried without end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ottla.cluster.store import StoreError
from ottla.core.group_options import TRANSACTION_MS_MAX
from ottla.core.model import NO_PRODUCER_ID
from ottla.handlers.reply import Parked, Reply
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.init_producer_id import InitProducerIdRequest, InitProducerIdResponse

if TYPE_CHECKING:
    from ottla.core.model import ProducerId
    from ottla.core.pending import Pending
    from ottla.handlers.context import Context, Request

NO_EPOCH = -1
BLOCK_WAIT_S = 10.0


def handle(context: Context, request: Request[InitProducerIdRequest]) -> Reply | Parked:
    """A new id; INVALID_REQUEST for an empty transactional id and for half of a pair (H112)."""
    body = request.body
    if body.transactional_id == "":
        return _refused(ErrorCode.INVALID_REQUEST)
    if (body.producer_id == NO_PRODUCER_ID) != (body.producer_epoch == NO_EPOCH):
        return _refused(ErrorCode.INVALID_REQUEST)
    if body.transactional_id is not None:
        if not 0 < body.transaction_timeout_ms <= context.config[TRANSACTION_MS_MAX]:
            return _refused(ErrorCode.INVALID_TRANSACTION_TIMEOUT)
        return _refused(ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
    given = context.next_producer_id()
    if given.done:
        return _given(given)
    return Parked(given, lambda: _given(given), deadline_s=BLOCK_WAIT_S, abandon=given.abandon)


def _given(given: Pending[ProducerId]) -> Reply:
    """Where no block can be had, what Kafka says while it waits for one: clients try again."""
    if not given.done:
        return _refused(ErrorCode.COORDINATOR_LOAD_IN_PROGRESS)
    try:
        producer_id = given.result()
    except StoreError:
        return _refused(ErrorCode.COORDINATOR_LOAD_IN_PROGRESS)
    return Reply(InitProducerIdResponse(producer_id=producer_id, producer_epoch=0))


def _refused(error: ErrorCode) -> Reply:
    return Reply(InitProducerIdResponse(error_code=error, producer_epoch=NO_EPOCH))
