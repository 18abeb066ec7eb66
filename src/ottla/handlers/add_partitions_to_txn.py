"""AddPartitionsToTxn, key 24, versions 0 to 5.

Makes partitions part of a producer's transaction, before it writes to them; or, for brokers, only
says whether they are (KIP-890). All partitions of a transaction or none: where one does not exist
the others are OPERATION_NOT_ATTEMPTED.
v2 PRODUCER_FENCED · v3 flexible · v4 several transactions, verify only · v5 TRANSACTION_ABORTABLE
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ottla.coordinator.transaction.ending import Identity
from ottla.coordinator.transaction.metadata import BUMPING, CLASSIC
from ottla.core.model import TopicPartition
from ottla.core.pending import Pending, when_all
from ottla.handlers.limits import too_many
from ottla.handlers.reply import Parked, Reply
from ottla.handlers.transacting import DEADLINE_S, note_full, understood
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.add_partitions_to_txn import (
    AddPartitionsToTxnPartitionResult,
    AddPartitionsToTxnRequest,
    AddPartitionsToTxnResponse,
    AddPartitionsToTxnResult,
    AddPartitionsToTxnTopic,
    AddPartitionsToTxnTopicResult,
    AddPartitionsToTxnTransaction,
)

if TYPE_CHECKING:
    from ottla.handlers.context import Context, Request

FENCED_SINCE, SEVERAL_SINCE = 2, 4


def handle(context: Context, request: Request[AddPartitionsToTxnRequest]) -> Reply | Parked:
    """A code for each partition of each transaction."""
    wanted = _transactions(request)
    count = sum(len(topic.partitions) for one in wanted for topic in one.topics)
    refused = too_many(context, request, count + len(wanted))
    told: list[_Told] = []
    for one in wanted:
        found: ErrorCode | Mapping[TopicPartition, ErrorCode] = ErrorCode.INVALID_REQUEST
        if not refused:
            found = _missing(context, one)
        told.append(_Told(one.topics, found))
        if not refused and not found:
            told[-1].asked = _ask(context, request.api_version, one)
    waiting = [one.asked for one in told if one.asked is not None and not one.asked.done]
    answer = partial(_answer, context, request, wanted, told)
    if not waiting:
        return answer()
    together = waiting[0] if len(waiting) == 1 else when_all(waiting)
    return Parked(together, answer, DEADLINE_S, abandon=together.abandon)


def _transactions(
    request: Request[AddPartitionsToTxnRequest],
) -> Sequence[AddPartitionsToTxnTransaction]:
    body = request.body
    if request.api_version >= SEVERAL_SINCE:
        return body.transactions
    return (
        AddPartitionsToTxnTransaction(
            transactional_id=body.v3_and_below_transactional_id,
            producer_id=body.v3_and_below_producer_id,
            producer_epoch=body.v3_and_below_producer_epoch,
            topics=body.v3_and_below_topics,
        ),
    )


def _missing(
    context: Context, wanted: AddPartitionsToTxnTransaction
) -> Mapping[TopicPartition, ErrorCode]:
    """A code for each partition if one of them does not exist; else nothing."""
    topics = context.image().topics
    errors: dict[TopicPartition, ErrorCode] = {}
    is_missing = False
    for one in wanted.topics:
        topic = topics.get(one.name)
        count = 0 if topic is None else len(topic.partitions)
        for number in one.partitions:
            there = 0 <= number < count
            is_missing |= not there
            errors[TopicPartition(one.name, number)] = (
                ErrorCode.OPERATION_NOT_ATTEMPTED if there else ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            )
    return errors if is_missing else {}


def _ask(context: Context, version: int, wanted: AddPartitionsToTxnTransaction) -> Pending[Any]:
    producer = Identity(wanted.producer_id, wanted.producer_epoch)
    partitions = [
        TopicPartition(topic.name, number) for topic in wanted.topics for number in topic.partitions
    ]
    name = wanted.transactional_id
    if wanted.verify_only:
        return context.transactions.verify(name, producer, partitions)
    kind = BUMPING if version >= SEVERAL_SINCE else CLASSIC
    return context.transactions.add_partitions(name, producer, partitions, kind)


class _Told:
    """What becomes of one transaction: known at once, or asked for."""

    __slots__ = ("asked", "found", "topics")

    def __init__(
        self,
        topics: Sequence[AddPartitionsToTxnTopic],
        found: ErrorCode | Mapping[TopicPartition, ErrorCode],
    ) -> None:
        self.topics = topics
        self.found = found
        self.asked: Pending[Any] | None = None

    def outcome(self) -> ErrorCode | Mapping[TopicPartition, ErrorCode]:
        if self.asked is None:
            return self.found
        if not self.asked.done:
            return ErrorCode.COORDINATOR_NOT_AVAILABLE
        outcome: ErrorCode | Mapping[TopicPartition, ErrorCode] = self.asked.result()
        return outcome


def _answer(
    context: Context,
    request: Request[AddPartitionsToTxnRequest],
    wanted: Sequence[AddPartitionsToTxnTransaction],
    told: Sequence[_Told],
) -> Reply:
    results = []
    for one, said in zip(wanted, told, strict=True):
        outcome = said.outcome()
        note_full(context, request.connection.peer, one.transactional_id, outcome)
        results.append(_topics(said.topics, outcome, request.api_version))
    if request.api_version < SEVERAL_SINCE:
        return Reply(AddPartitionsToTxnResponse(results_by_topic_v3_and_below=results[0]))
    return Reply(
        AddPartitionsToTxnResponse(
            results_by_transaction=[
                AddPartitionsToTxnResult(
                    transactional_id=one.transactional_id, topic_results=topics
                )
                for one, topics in zip(wanted, results, strict=True)
            ]
        )
    )


def _topics(
    topics: Sequence[AddPartitionsToTxnTopic],
    outcome: ErrorCode | Mapping[TopicPartition, ErrorCode],
    version: int,
) -> list[AddPartitionsToTxnTopicResult]:
    results = []
    for topic in topics:
        parts = []
        for number in topic.partitions:
            error = outcome
            if not isinstance(error, ErrorCode):
                error = error[TopicPartition(topic.name, number)]
            parts.append(
                AddPartitionsToTxnPartitionResult(
                    partition_index=number,
                    partition_error_code=understood(error, version, FENCED_SINCE),
                )
            )
        results.append(AddPartitionsToTxnTopicResult(name=topic.name, results_by_partition=parts))
    return results
