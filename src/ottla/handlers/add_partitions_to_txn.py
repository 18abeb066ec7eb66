"""AddPartitionsToTxn, key 24, versions 0 to 5.

Makes partitions part of a producer's transaction, before it writes to them; or, for brokers, only
says whether they are (KIP-890). All partitions of a transaction or none: where one does not exist,
or is an internal topic's, to which clients do not write, the others are OPERATION_NOT_ATTEMPTED.
v2 PRODUCER_FENCED · v3 flexible · v4 several transactions, verify only · v5 TRANSACTION_ABORTABLE
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from ottla.cluster.names import NAME_LENGTH_MAX, is_internal
from ottla.coordinator.transaction.ending import Identity
from ottla.coordinator.transaction.metadata import BUMPING, CLASSIC
from ottla.core import options
from ottla.core.model import TopicPartition
from ottla.core.pending import Pending, Soon, when_all
from ottla.handlers.limits import too_many
from ottla.handlers.reply import Parked, Reply
from ottla.handlers.transacting import DEADLINE_S, note_full, understood
from ottla.protocol.codec import decoder, encoder
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
    from typing import TypeAlias

    from ottla.handlers.context import Context, Request

    _GoOn: TypeAlias = partial[Reply | Parked]
    _Outcome: TypeAlias = ErrorCode | Mapping[TopicPartition, ErrorCode]

FENCED_SINCE, SEVERAL_SINCE = 2, 4
_NO_ROOM = ErrorCode.POLICY_VIOLATION
_FEW = 16
"""Partitions that the answer is worth being kept for."""
_USUAL_BYTES_MAX = 512
"""A request up to this size is worth being kept."""


def reader(version: int) -> Callable[[memoryview, int], tuple[AddPartitionsToTxnRequest, int]]:
    """The decoder of the version. By the old rules a producer sends the same bytes in one
    transaction after the other: what they say is remembered, and nobody changes a request."""
    decode = decoder(AddPartitionsToTxnRequest, version)
    if version >= SEVERAL_SINCE:
        return decode

    @lru_cache(maxsize=1024)
    def known(body: bytes) -> tuple[AddPartitionsToTxnRequest, int] | None:
        """What they say; nothing of what is not usual, which may be a hundred objects in 300 B."""
        told = decode(memoryview(body), 0)
        return told if _usual(told[0].v3_and_below_topics) is not None else None

    def read(view: memoryview, at: int) -> tuple[AddPartitionsToTxnRequest, int]:
        if len(view) - at > _USUAL_BYTES_MAX or (told := known(bytes(view[at:]))) is None:
            return decode(view, at)
        return told[0], at + told[1]

    return read


def handle(context: Context, request: Request[AddPartitionsToTxnRequest]) -> Reply | Parked:
    """A code for each partition of each transaction."""
    told = [_Told(one) for one in _transactions(request)]
    waiting: list[Pending[Any]] = []
    if not too_many(context, request, len(told) + sum([one.count() for one in told])):
        for one in told:
            places = one.places()
            one.found = _faults(context, request.api_version, places)
            if not one.found:
                one.ask(context, request.api_version, places)
                if one.asked is not None and not one.asked.done:
                    waiting.append(one.asked)
    if not waiting:
        return _answer(context, request, told)
    together = waiting[0] if len(waiting) == 1 else when_all(waiting)
    return _parked(context, request, told, together)


def quick(context: Context, version: int, body: AddPartitionsToTxnRequest) -> bytes | _GoOn | None:
    """The usual request: a few partitions of one topic, all there, of one transaction.

    As `handle` has it; what that would say something else of than one code is left to it.
    """
    places = _usual(body.v3_and_below_topics) if version < SEVERAL_SINCE else None
    if places is None or len(places) >= context.config[options.REQUEST_PARTITIONS_MAX]:
        return None
    if _faults(context, version, places):
        return None
    asked = context.transactions.join(
        body.v3_and_below_transactional_id,
        Identity(body.v3_and_below_producer_id, body.v3_and_below_producer_epoch),
        places,
        CLASSIC,
    )
    if isinstance(asked, Pending) or asked is _NO_ROOM:
        return partial(_go_on, asked)
    return _alike(version, places, asked)


def _go_on(
    asked: Soon[ErrorCode], context: Context, request: Request[AddPartitionsToTxnRequest]
) -> Reply | Parked:
    """As `handle`, where `quick` has asked the coordinator already."""
    [one] = _transactions(request)
    told = _Told(one)
    if not isinstance(asked, Pending):
        told.found = asked
        return _answer(context, request, [told])
    told.asked = asked
    return _parked(context, request, [told], asked)


def _parked(
    context: Context,
    request: Request[AddPartitionsToTxnRequest],
    told: list[_Told],
    waited: Pending[Any],
) -> Parked:
    # Who may have to wait for the transaction before has no place among what the coordinator does
    # yet: an EndTxn that its client sends behind it would be done first, and end too little.
    joins = request.api_version < SEVERAL_SINCE
    answer = partial(_answer, context, request, told)
    return Parked(waited, answer, DEADLINE_S, before_effect=joins, abandon=waited.abandon)


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


def _faults(
    context: Context, version: int, places: Sequence[TopicPartition]
) -> dict[TopicPartition, ErrorCode]:
    """A code for each partition if one of them does not exist, or is none for a client to write
    to; else nothing."""
    topics = context.image().topics
    by_client = version < SEVERAL_SINCE
    faults = {}
    for place in places:
        topic = topics.get(place.topic)
        if by_client and is_internal(place.topic):
            faults[place] = ErrorCode.TOPIC_AUTHORIZATION_FAILED
        elif topic is None or not 0 <= place.partition < len(topic.partitions):
            faults[place] = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    if not faults:
        return faults
    return dict.fromkeys(places, ErrorCode.OPERATION_NOT_ATTEMPTED) | faults


class _Told:
    """What becomes of one transaction: known at once, or asked for."""

    __slots__ = ("asked", "found", "wanted")

    def __init__(self, wanted: AddPartitionsToTxnTransaction) -> None:
        self.wanted = wanted
        self.found: _Outcome = ErrorCode.INVALID_REQUEST
        self.asked: Pending[Any] | None = None

    def count(self) -> int:
        return sum([len(topic.partitions) for topic in self.wanted.topics])

    def places(self) -> list[TopicPartition]:
        return [
            TopicPartition(topic.name, number)
            for topic in self.wanted.topics
            for number in topic.partitions
        ]

    def ask(self, context: Context, version: int, places: Sequence[TopicPartition]) -> None:
        """The coordinator."""
        wanted = self.wanted
        producer = Identity(wanted.producer_id, wanted.producer_epoch)
        name = wanted.transactional_id
        asked: Soon[Any]
        if wanted.verify_only:
            asked = context.transactions.verify(name, producer, places)
        elif version >= SEVERAL_SINCE:  # from brokers, which wait for their clients themselves
            asked = context.transactions.add_partitions(name, producer, places, BUMPING)
        else:
            asked = context.transactions.join(name, producer, places, CLASSIC)
        if isinstance(asked, Pending):
            self.asked = asked
        else:
            self.found = asked

    def outcome(self) -> _Outcome:
        if self.asked is None:
            return self.found
        if not self.asked.done:
            return ErrorCode.COORDINATOR_NOT_AVAILABLE
        outcome: _Outcome = self.asked.result()
        return outcome


def _answer(
    context: Context, request: Request[AddPartitionsToTxnRequest], told: Sequence[_Told]
) -> Reply:
    version = request.api_version
    results = []
    for said in told:
        wanted, outcome = said.wanted, said.outcome()
        note_full(context, request.connection.peer, wanted.transactional_id, outcome)
        if type(outcome) is ErrorCode and version < SEVERAL_SINCE:
            places = _usual(wanted.topics)
            if places is not None:
                return Reply(_alike(version, places, outcome))
        topics = wanted.topics
        if wanted.verify_only:  # of which Kafka tells nothing that is of no partition
            topics = [topic for topic in topics if topic.partitions]
        results.append(_topics(topics, outcome, version))
    if version < SEVERAL_SINCE:
        return Reply(AddPartitionsToTxnResponse(results_by_topic_v3_and_below=results[0]))
    return Reply(
        AddPartitionsToTxnResponse(
            results_by_transaction=[
                AddPartitionsToTxnResult(
                    transactional_id=one.wanted.transactional_id, topic_results=topics
                )
                for one, topics in zip(told, results, strict=True)
            ]
        )
    )


def _usual(topics: Sequence[AddPartitionsToTxnTopic]) -> tuple[TopicPartition, ...] | None:
    """What most requests name: a few partitions of one topic. None where it is anything else."""
    if len(topics) != 1:
        return None
    [topic] = topics
    if len(topic.partitions) > _FEW or len(topic.name) > NAME_LENGTH_MAX:
        return None  # nor of a name that is none, so that a client can't fill what is kept
    return _places(topic.name, tuple(topic.partitions))


@lru_cache(maxsize=1024)
def _places(name: str, partitions: tuple[int, ...]) -> tuple[TopicPartition, ...] | None:
    return tuple([TopicPartition(name, number) for number in partitions]) or None


@lru_cache(maxsize=1024)
def _alike(version: int, places: tuple[TopicPartition, ...], outcome: ErrorCode) -> bytes:
    """The answer that it is the same for these partitions. A producer asks for the same ones in
    one transaction after the other."""
    partitions = [place.partition for place in places]
    topic = AddPartitionsToTxnTopic(name=places[0].topic, partitions=partitions)
    results = _topics([topic], outcome, version)
    answer = AddPartitionsToTxnResponse(results_by_topic_v3_and_below=results)
    (body,) = encoder(AddPartitionsToTxnResponse, version)(answer)
    assert type(body) is bytes, "there are no slices of files in it"
    return body


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
