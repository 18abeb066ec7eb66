"""DescribeTransactions, key 65, versions 0 to 0 (KIP-664).

Each transactional id by itself: its producer, its state, since when, and the partitions that are
in the transaction until all of them have their markers.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from ottla.coordinator.transaction.listing import describe
from ottla.handlers.asking import when_all_replied
from ottla.handlers.limits import too_many
from ottla.handlers.reply import Parked, Reply
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.describe_transactions import (
    DescribeTransactionsRequest,
    DescribeTransactionsResponse,
    TransactionState,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ottla.coordinator.decision import Decision
    from ottla.coordinator.transaction.shard import TransactionShard
    from ottla.core.pending import Pending
    from ottla.handlers.context import Context, Request


def handle(context: Context, request: Request[DescribeTransactionsRequest]) -> Reply | Parked:
    """Each id that is asked for, with an error of its own."""
    names = request.body.transactional_ids
    if too_many(context, request, len(names)):
        return Reply(
            DescribeTransactionsResponse(
                transaction_states=[_refused(name, ErrorCode.INVALID_REQUEST) for name in names]
            )
        )
    asked = [context.transactions.runtime.submit(name, partial(_describe, name)) for name in names]
    return when_all_replied(asked, partial(_answer, names, asked))


def _describe(name: str, shard: TransactionShard) -> Decision[TransactionState]:
    return describe(shard, name)


def _answer(names: Sequence[str], asked: Sequence[Pending[Any]]) -> Reply:
    told = []
    for name, one in zip(names, asked, strict=True):
        found = one.result()
        told.append(_refused(name, found) if isinstance(found, ErrorCode) else found)
    return Reply(DescribeTransactionsResponse(transaction_states=told))


def _refused(name: str, error: ErrorCode) -> TransactionState:
    return TransactionState(transactional_id=name, error_code=error)
