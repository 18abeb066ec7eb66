"""TxnOffsetCommit, key 28, versions 0 to 5.

Commits offsets in a producer's transaction: they count once that is committed, and never if it is
aborted. The transaction's coordinator is asked first whether the group is in the transaction, and
then the group's shard whether the member may commit; the answer leaves once the batch is on disk.
v2 leader epoch · v3 member, generation and instance (KIP-447), flexible
v4 TRANSACTION_ABORTABLE (KIP-890) · v5 the group is added to the transaction by the commit itself
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ottla.coordinator.group.shard import Commit, Member
from ottla.coordinator.transaction.ports import said_of
from ottla.core.model import TopicPartition
from ottla.core.pending import Pending, when_told
from ottla.handlers.asking import when_replied, write_deadline_s
from ottla.handlers.internal_topics import OFFSETS_TOPIC
from ottla.handlers.limits import note_full, too_many
from ottla.handlers.reply import Parked, Reply
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.txn_offset_commit import (
    TxnOffsetCommitRequest,
    TxnOffsetCommitRequestPartition,
    TxnOffsetCommitResponse,
    TxnOffsetCommitResponsePartition,
    TxnOffsetCommitResponseTopic,
)
from ottla.records.builder import Producer

if TYPE_CHECKING:
    from ottla.coordinator.decision import Decision
    from ottla.coordinator.group.shard import GroupShard
    from ottla.coordinator.transaction.ports import Admitted
    from ottla.handlers.context import Context, Request
    from ottla.replication.partition import Partition
    from ottla.storage.producers import Verification

ABORTABLE_SINCE, ADDS_SINCE = 4, 5
NO_SEQUENCE = -1


def handle(context: Context, request: Request[TxnOffsetCommitRequest]) -> Reply | Parked:
    """A code for each partition (KIP-98)."""
    body = request.body
    answer = TxnOffsetCommitResponse()
    commits: list[Commit] = []
    responses: list[TxnOffsetCommitResponsePartition] = []
    topics = context.image().topics
    for wanted in body.topics:
        topic = topics.get(wanted.name)
        parts: list[TxnOffsetCommitResponsePartition] = []
        answer.topics.append(TxnOffsetCommitResponseTopic(name=wanted.name, partitions=parts))
        for one in wanted.partitions:
            part = TxnOffsetCommitResponsePartition(partition_index=one.partition_index)
            parts.append(part)
            if topic is None or not 0 <= one.partition_index < len(topic.partitions):
                part.error_code = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            else:
                responses.append(part)
                commits.append(_commit(topic.name, topic.id, one))
    if too_many(context, request, sum(len(topic.partitions) for topic in body.topics)):
        return _answer(answer, responses, ErrorCode.INVALID_REQUEST)
    if not commits:
        return Reply(answer)
    if not body.group_id:
        return _answer(answer, responses, ErrorCode.INVALID_GROUP_ID)
    committing = _Committing(context, request, commits)
    # Nothing behind it may come first: an EndTxn would end a transaction that it is not in yet.
    return when_replied(
        committing.result,
        partial(_answer, answer, responses),
        write_deadline_s(context),
        before_effect=True,
    )


def _commit(topic: str, topic_id: bytes, one: TxnOffsetCommitRequestPartition) -> Commit:
    return Commit(
        topic,
        topic_id,
        one.partition_index,
        one.committed_offset,
        one.committed_leader_epoch,
        one.committed_metadata or "",
    )


class _Committing:
    """One request on its way: the topic of offsets, the transaction, the group. Once it has begun
    it goes on without its client, as in Kafka."""

    __slots__ = ("_commits", "_context", "_request", "result")

    def __init__(
        self, context: Context, request: Request[TxnOffsetCommitRequest], commits: list[Commit]
    ) -> None:
        self._context = context
        self._request = request
        self._commits = commits
        self.result: Pending[list[ErrorCode] | ErrorCode] = Pending()
        made = context.groups.when_made()
        made.then(partial(self._made, made))

    def _made(self, made: Pending[ErrorCode]) -> None:
        """The topic is there, so that it can be told which partition has the group."""
        if error := made.result():
            self.result.complete(error)
            return
        body, context = self._request.body, self._context
        place = TopicPartition(OFFSETS_TOPIC, context.groups.partition_for(body.group_id))
        partition = context.table.get(*place)
        if isinstance(partition, ErrorCode):
            self.result.complete(ErrorCode.COORDINATOR_NOT_AVAILABLE)
            return
        self._ask(partition)

    def _ask(self, partition: Partition, *, is_again: bool = False) -> None:
        body = self._request.body
        adds = self._request.api_version >= ADDS_SINCE
        verification = partition.verify(
            body.producer_id, body.producer_epoch, NO_SEQUENCE, bumps=adds
        )
        if verification is None:
            if partition.has_seen_later(body.producer_id, body.producer_epoch):
                # At once, as in Kafka: the group is not asked whether the member is one of its own.
                self.result.complete(ErrorCode.INVALID_PRODUCER_EPOCH)
            else:  # what it has written there before is verified
                self._commit(None)
            return
        admitted = self._context.transactions.admit(
            body.transactional_id, body.producer_id, body.producer_epoch, [partition.key], add=adds
        )
        when_told(admitted, partial(self._admitted, partition, verification, is_again))

    def _admitted(
        self,
        partition: Partition,
        verification: Verification,
        is_again: bool,
        admitted: Admitted,
    ) -> None:
        producer_id = self._request.body.producer_id
        if error := said_of(partition.key, admitted):
            partition.refuted(producer_id, verification, error)
            self.result.complete(_known(error, self._request.api_version))
        elif (
            not is_again
            and self._request.api_version >= ADDS_SINCE
            and not partition.is_verifying(producer_id, verification)
        ):
            self._ask(partition, is_again=True)  # as in Produce: the marker before has come since
        else:
            self._commit(verification)

    def _commit(self, verification: Verification | None) -> None:
        body, commits, version = self._request.body, self._commits, self._request.api_version
        member = Member(body.member_id, body.group_instance_id, body.generation_id)
        producer = Producer(body.producer_id, body.producer_epoch)

        def decide(shard: GroupShard) -> Decision[list[ErrorCode] | ErrorCode]:
            decision = shard.commit_in_transaction(
                body.group_id, member, commits, producer, version=version
            )
            decision.verification = verification
            return decision

        asked = self._context.groups.submit(body.group_id, decide)
        asked.then(partial(self._committed, asked))

    def _committed(self, asked: Pending[list[ErrorCode] | ErrorCode]) -> None:
        replied = asked.result()
        if isinstance(replied, ErrorCode):
            request = self._request
            note_full(self._context, request.connection.peer, request.body.group_id, replied)
        self.result.complete(replied)


def _known(error: ErrorCode, version: int) -> ErrorCode:
    """What the transaction's coordinator says, in codes that the clients of a version know."""
    if error is ErrorCode.PRODUCER_FENCED:
        return ErrorCode.INVALID_PRODUCER_EPOCH
    if error is ErrorCode.TRANSACTION_ABORTABLE and version < ABORTABLE_SINCE:
        return ErrorCode.INVALID_TXN_STATE
    return error


def _answer(
    answer: TxnOffsetCommitResponse,
    responses: list[TxnOffsetCommitResponsePartition],
    replied: list[ErrorCode] | ErrorCode,
) -> Reply:
    if isinstance(replied, ErrorCode):
        replied = [replied] * len(responses)
    for response, error in zip(responses, replied, strict=True):
        response.error_code = error
    return Reply(answer)
