"""Whether a producer may end its transaction so: the rules of both versions, as Kafka has them.

Owns the judging alone. Must not change or write anything. Version 2 is KIP-890's: each transaction
has an epoch of its own, so that a request that was delayed can't end a later one (I39).
"""

from __future__ import annotations

from typing import NamedTuple

from ottla.coordinator.transaction.metadata import BUMPING, EXHAUSTED_EPOCH, Transaction
from ottla.coordinator.transaction.states import TransactionState
from ottla.protocol.errors import ErrorCode

_S = TransactionState
_ENDED = frozenset({_S.COMPLETE_COMMIT, _S.COMPLETE_ABORT})
_ONGOING = _S.ONGOING  # a name of the module: it is found in a fraction of the time


class Identity(NamedTuple):
    """A producer as it names itself: the id it was given, and which one of those that had it."""

    producer_id: int
    epoch: int


def judge_end(
    found: Transaction, producer: Identity, committed: bool, version: int
) -> ErrorCode | None:
    """None: it may. NONE: it has been done, this is the same request again. Else why not."""
    if version >= BUMPING:
        return _judge_bumping(found, producer, committed)
    return _judge_classic(found, producer, committed)


def _judge_classic(found: Transaction, producer: Identity, committed: bool) -> ErrorCode | None:
    if found.producer_id != producer.producer_id:
        return ErrorCode.INVALID_PRODUCER_ID_MAPPING
    if found.epoch != producer.epoch:
        return ErrorCode.PRODUCER_FENCED
    if found.is_prepared:
        return ErrorCode.CONCURRENT_TRANSACTIONS
    if found.state is _ONGOING:
        return None
    done = _S.COMPLETE_COMMIT if committed else _S.COMPLETE_ABORT
    return ErrorCode.NONE if found.state is done else ErrorCode.INVALID_TXN_STATE


def _judge_bumping(found: Transaction, producer: Identity, committed: bool) -> ErrorCode | None:
    # First of all: the producer may already use the id and epoch that it has when this is over.
    if found.is_prepared:
        return ErrorCode.CONCURRENT_TRANSACTIONS
    is_same = found.epoch == producer.epoch
    # Only after an end that has raised the epoch is the epoch before it that of who asked for it.
    # After one by the rules of version 1 it is a zombie's, and the next epoch is not its own:
    # Kafka 4.3.1 gives it to the zombie, which then is the living producer to everybody.
    bumped = found.version >= BUMPING and found.state in _ENDED
    again = bumped and found.epoch == producer.epoch + 1
    again_with_a_new_id = (
        bumped
        and found.previous_producer_id == producer.producer_id
        and producer.epoch == EXHAUSTED_EPOCH
        and found.epoch == 0
    )
    if found.producer_id != producer.producer_id and not again_with_a_new_id:
        return ErrorCode.INVALID_PRODUCER_ID_MAPPING
    if not (is_same or again or again_with_a_new_id):
        return ErrorCode.PRODUCER_FENCED
    if found.state is _ONGOING:
        return None
    if again or again_with_a_new_id:
        done = _S.COMPLETE_COMMIT if committed else _S.COMPLETE_ABORT
        return ErrorCode.NONE if found.state is done else ErrorCode.INVALID_TXN_STATE
    # Nothing was begun. Aborting that gives a new epoch, which the producer asks for when it
    # can't know what became of its batches; there is nothing to commit.
    return ErrorCode.INVALID_TXN_STATE if committed else None
