"""EndTxn, key 26, versions 0 to 5.

Commits or aborts a producer's transaction: answered once it is durable how it ends; the partitions
get their markers afterwards. Asked again, the same is answered again.
v2 PRODUCER_FENCED · v3 flexible · v4 TRANSACTION_ABORTABLE · v5 the epoch to go on with (KIP-890)
Where Kafka 4.3.1 differs: it takes a zombie's v5 for its own request come again when the producer
after it has ended a transaction by v4 or less, and gives it that producer's epoch (I40).
"""

from __future__ import annotations

from functools import lru_cache, partial
from struct import Struct
from typing import TYPE_CHECKING

from ottla.coordinator.transaction.ending import Identity
from ottla.coordinator.transaction.metadata import BUMPING, CLASSIC
from ottla.core.pending import Pending, Soon
from ottla.handlers.asking import when_replied
from ottla.handlers.reply import Parked, Reply
from ottla.handlers.transacting import DEADLINE_S, understood
from ottla.protocol.codec import encoder
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.end_txn import EndTxnRequest, EndTxnResponse

if TYPE_CHECKING:
    from typing import TypeAlias

    from ottla.handlers.context import Context, Request

    _GoOn: TypeAlias = partial[Reply | Parked]

FENCED_SINCE, BUMPING_SINCE = 2, 5
_NO_ERROR = ErrorCode.NONE  # a name of the module is found in a fraction of the time


def handle(context: Context, request: Request[EndTxnRequest]) -> Reply | Parked:
    """As whom the producer goes on, or why it may not end its transaction so."""
    return _when_ended(_end(context, request.api_version, request.body), context, request)


def quick(context: Context, version: int, body: EndTxnRequest) -> bytes | _GoOn:
    """The same where the answer is there at once; else how to wait for it."""
    asked = _end(context, version, body)
    if isinstance(asked, Pending):
        return partial(_when_ended, asked)
    return _answer(version, asked)


def _end(context: Context, version: int, body: EndTxnRequest) -> Soon[Identity | ErrorCode]:
    return context.transactions.end(
        body.transactional_id,
        Identity(body.producer_id, body.producer_epoch),
        body.committed,
        BUMPING if version >= BUMPING_SINCE else CLASSIC,
    )


def _when_ended(
    asked: Soon[Identity | ErrorCode],
    context: Context,  # noqa: ARG001  # as any handler
    request: Request[EndTxnRequest],
) -> Reply | Parked:
    version = request.api_version
    return when_replied(asked, lambda told: Reply(_answer(version, told)), DEADLINE_S)


_pack_identity = Struct(">ihqhB").pack
"""The answer of version 5: throttle time, error, producer id, epoch, no tagged fields."""


def _answer(version: int, told: Identity | ErrorCode) -> bytes:
    if isinstance(told, Identity):
        if version >= BUMPING_SINCE:
            return _pack_identity(0, 0, *told, 0)
        told = _NO_ERROR
    return _encoded(version, understood(told, version, FENCED_SINCE))


@lru_cache(maxsize=256)
def _encoded(version: int, error: ErrorCode) -> bytes:
    """The answer that says no more than this; most transactions of old clients end with one."""
    (body,) = encoder(EndTxnResponse, version)(EndTxnResponse(error_code=error))
    assert type(body) is bytes, "there are no slices of files in it"
    return body
