"""EndTxn, key 26, versions 0 to 5.

Commits or aborts a producer's transaction: answered once it is durable how it ends; the partitions
get their markers afterwards. Asked again, the same is answered again.
v2 PRODUCER_FENCED · v3 flexible · v4 TRANSACTION_ABORTABLE · v5 the epoch to go on with (KIP-890)
Where Kafka 4.3.1 differs: it takes a zombie's v5 for its own request come again when the producer
after it has ended a transaction by v4 or less, and gives it that producer's epoch (I40).
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import TYPE_CHECKING

from ottla.coordinator.transaction.ending import Identity
from ottla.coordinator.transaction.metadata import BUMPING, CLASSIC
from ottla.handlers.asking import when_replied
from ottla.handlers.reply import Parked, Reply
from ottla.handlers.transacting import DEADLINE_S, understood
from ottla.protocol.codec import encoder
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.end_txn import EndTxnRequest, EndTxnResponse

if TYPE_CHECKING:
    from ottla.handlers.context import Context, Request

FENCED_SINCE, BUMPING_SINCE = 2, 5


def handle(context: Context, request: Request[EndTxnRequest]) -> Reply | Parked:
    """As whom the producer goes on, or why it may not end its transaction so."""
    body = request.body
    asked = context.transactions.end(
        body.transactional_id,
        Identity(body.producer_id, body.producer_epoch),
        body.committed,
        BUMPING if request.api_version >= BUMPING_SINCE else CLASSIC,
    )
    return when_replied(asked, partial(_answer, request.api_version), DEADLINE_S)


def _answer(version: int, told: Identity | ErrorCode) -> Reply:
    if type(told) is ErrorCode:
        return Reply(_encoded(version, understood(told, version, FENCED_SINCE)))
    if version < BUMPING_SINCE:
        return Reply(_encoded(version, ErrorCode.NONE))
    return Reply(EndTxnResponse(producer_id=told.producer_id, producer_epoch=told.epoch))


@lru_cache(maxsize=256)
def _encoded(version: int, error: ErrorCode) -> bytes:
    """The answer that says no more than this; every transaction ends with the same one."""
    (body,) = encoder(EndTxnResponse, version)(EndTxnResponse(error_code=error))
    assert type(body) is bytes, "there are no slices of files in it"
    return body
