"""What is told of transactions: one in full, or many by filter (KIP-664, KIP-994, KIP-1152).

Owns the answers' contents. Must not change anything.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, NamedTuple

from ottla.coordinator.decision import Decision
from ottla.coordinator.transaction.metadata import schemas
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages import describe_transactions, list_transactions

if TYPE_CHECKING:
    from ottla.coordinator.transaction.shard import TransactionShard
    from ottla.coordinator.transaction.states import TransactionState


class Filter(NamedTuple):
    """What is listed: all that passes each of these. Empty ones let everything pass.

    `states` is None where none was asked for: states that don't exist find nothing. A
    `duration_ms` below 0 asks for nothing.
    """

    states: Collection[TransactionState] | None
    producer_ids: Collection[int]
    duration_ms: int


def describe(
    shard: TransactionShard, name: str
) -> Decision[describe_transactions.TransactionState]:
    """One transactional id, or why not: its error is in the answer, as the protocol has it."""
    told = describe_transactions.TransactionState(transactional_id=name)
    found = shard.transactions.get(name)
    if not name:
        told.error_code = ErrorCode.INVALID_REQUEST
    elif found is None:
        told.error_code = ErrorCode.TRANSACTIONAL_ID_NOT_FOUND
    else:
        told.transaction_state = found.state.title
        told.transaction_timeout_ms = found.timeout_ms
        told.transaction_start_time_ms = found.start_ms
        told.producer_id = found.producer_id
        told.producer_epoch = found.epoch
        told.topics = [
            describe_transactions.TopicData(topic=one.topic, partitions=one.partition_ids)
            for one in schemas(found.partitions)
        ]
    return Decision(told)


def listed(
    shard: TransactionShard, name: str, wanted: Filter, now_ms: int
) -> list_transactions.TransactionState | None:
    """One transactional id as ListTransactions tells it; None if it is gone, or doesn't pass."""
    states, producer_ids, duration_ms = wanted
    found = shard.transactions.get(name)
    if (
        found is None
        or (states is not None and found.state not in states)
        or (producer_ids and found.producer_id not in producer_ids)
        or (duration_ms >= 0 and now_ms - found.start_ms <= duration_ms)
    ):
        return None
    return list_transactions.TransactionState(
        transactional_id=found.id,
        producer_id=found.producer_id,
        transaction_state=found.state.title,
    )
