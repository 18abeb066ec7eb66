"""Cases of offsets committed in transactions: TxnOffsetCommit, and OffsetFetch that wants stable."""

from __future__ import annotations

from typing import Any

from ottla.protocol.codec import decoder
from ottla.protocol.messages.add_offsets_to_txn import AddOffsetsToTxnRequest
from ottla.protocol.messages.delete_groups import DeleteGroupsRequest
from ottla.protocol.messages.end_txn import EndTxnRequest
from ottla.protocol.messages.find_coordinator import FindCoordinatorRequest
from ottla.protocol.messages.init_producer_id import InitProducerIdRequest, InitProducerIdResponse
from ottla.protocol.messages.txn_offset_commit import (
    TxnOffsetCommitRequest,
    TxnOffsetCommitRequestPartition,
    TxnOffsetCommitRequestTopic,
)
from tests.oracle.answers.case import each, error, success
from tests.oracle.answers.offset_cases import NOT_YET, a_group, commit, coordinated, delete, fetch
from tests.oracle.answers.peer import Peer, encoded
from tests.processes import wait_until

TXN_OFFSET_COMMIT, OFFSET_FETCH, DELETE_GROUPS, OFFSET_DELETE = 28, 9, 42, 47
IMPLICIT = 5
"""From this version on the group is added to the transaction by the commit itself (KIP-890)."""
TRANSACTIONAL_ID = 1
BUSY = (*NOT_YET, "concurrent_transactions", "not_enough_replicas")


class Transactional:
    """A producer with a transactional id of this case's own, as a client would keep it."""

    def __init__(self, peer: Peer, version: int, name: str = "") -> None:
        self.peer = peer
        self.id = f"txn-{peer.case}{name}"
        self.uses_v2 = version >= IMPLICIT
        key = FindCoordinatorRequest(key=self.id, key_type=TRANSACTIONAL_ID)
        wait_until(lambda: peer.ask(key, 2)["error_code"] == "none", "a coordinator")
        self.producer_id = self.epoch = -1
        self.init()

    def init(self) -> None:
        request = InitProducerIdRequest(
            transactional_id=self.id,
            transaction_timeout_ms=60_000,
            producer_id=-1,
            producer_epoch=-1,
        )

        def given() -> bool:
            raw = self.peer.exchange(self.peer.frame(22, 4, encoded(request, 4)))
            assert raw is not None
            answer = decoder(InitProducerIdResponse, 4)(memoryview(raw), 5)[0]
            self.producer_id, self.epoch = answer.producer_id, answer.producer_epoch
            return not answer.error_code

        wait_until(given, "a producer id")

    def add_offsets(self, group: str) -> None:
        """What a client does before it commits; nothing where the commit itself does it."""
        if self.uses_v2:
            return
        request = AddOffsetsToTxnRequest(
            transactional_id=self.id,
            producer_id=self.producer_id,
            producer_epoch=self.epoch,
            group_id=group,
        )
        self._until_not_busy(request, 3)

    def end(self, committed: bool = True) -> Any:
        request = EndTxnRequest(
            transactional_id=self.id,
            producer_id=self.producer_id,
            producer_epoch=self.epoch,
            committed=committed,
        )
        answer = self._until_not_busy(request, 5 if self.uses_v2 else 3)
        if self.uses_v2 and answer["error_code"] == "none":
            self.producer_id, self.epoch = answer["producer_id"], answer["producer_epoch"]
        return answer["error_code"]

    def _until_not_busy(self, request: Any, version: int) -> Any:
        found: list[Any] = []

        def answered() -> bool:
            found[:] = [self.peer.ask(request, version)]
            return found[0]["error_code"] not in BUSY

        wait_until(answered, f"an answer to {type(request).__name__}")
        return found[0]

    def commit(self, version: int, group: str, topic: str, *parts: Any, **more: Any) -> Any:
        """`parts` are (partition, offset[, leader epoch[, metadata]])."""
        names = (
            "partition_index",
            "committed_offset",
            "committed_leader_epoch",
            "committed_metadata",
        )
        asked = [
            TxnOffsetCommitRequestPartition(**dict(zip(names, part, strict=False)))
            for part in parts or [(0, 5)]
        ]
        own = {
            "transactional_id": self.id,
            "producer_id": self.producer_id,
            "producer_epoch": self.epoch,
        }
        request = TxnOffsetCommitRequest(
            group_id=group,
            topics=[TxnOffsetCommitRequestTopic(name=topic, partitions=asked)],
            **(own | more),
        )
        found: list[Any] = []

        def answered() -> bool:
            found[:] = [self.peer.ask(request, version)]
            return not any(code in BUSY for code in codes(found[0]))

        wait_until(answered, "an answer to TxnOffsetCommit")
        return found[0]


def codes(answer: Any) -> list[str]:
    """Each partition's error."""
    if not isinstance(answer, dict):
        return [str(answer)]
    return [part["error_code"] for topic in answer["topics"] for part in topic["partitions"]]


def stable(peer: Peer, group: str, topic: str, *numbers: int) -> Any:
    return fetch(peer, 8, group, {topic: list(numbers or (0,))}, require_stable=True)


def settled(peer: Peer, group: str, topic: str) -> Any:
    """What is told once the markers have come: EndTxn is answered before."""
    found: list[Any] = []

    def is_stable() -> bool:
        found[:] = [stable(peer, group, topic)]
        return "unstable_offset_commit" not in repr(found)

    wait_until(is_stable, "the end of the transaction")
    return found[0]


@success(TXN_OFFSET_COMMIT)
def committed_pending_and_then_told(peer: Peer, version: int) -> Any:
    topic, group = peer.topic(2), a_group(peer)
    commit(peer, 8, group, topic, (0, 1))
    producer = Transactional(peer, version)
    producer.add_offsets(group)
    given = producer.commit(version, group, topic, (0, 5, 0, "mine"), (1, 7, -1, None))
    pending = [stable(peer, group, topic, 0, 1), fetch(peer, 8, group, {topic: [0, 1]})]
    pending.append(fetch(peer, 8, group, None, require_stable=True))
    return [given, pending, producer.end(), settled(peer, group, topic)]


@success(TXN_OFFSET_COMMIT)
def aborted_and_then_as_before(peer: Peer, version: int) -> Any:
    topic, group = peer.topic(), a_group(peer)
    commit(peer, 8, group, topic, (0, 1))
    producer = Transactional(peer, version)
    producer.add_offsets(group)
    given = producer.commit(version, group, topic, (0, 5))
    return [given, producer.end(committed=False), settled(peer, group, topic)]


@error(TXN_OFFSET_COMMIT, 0, 3, 5)
def a_plain_commit_while_another_is_pending(peer: Peer, version: int) -> Any:
    topic, group = peer.topic(), a_group(peer)
    producer = Transactional(peer, version)
    producer.add_offsets(group)
    given = producer.commit(version, group, topic, (0, 5))
    plain = commit(peer, 8, group, topic, (0, 9))
    pending = [stable(peer, group, topic), fetch(peer, 8, group, {topic: [0]})]
    return [given, plain, pending, producer.end(), settled(peer, group, topic)]


@error(TXN_OFFSET_COMMIT, 3, 5)
def of_two_transactions_the_first_ends_last(peer: Peer, version: int) -> Any:
    topic, group = peer.topic(), a_group(peer)
    first, second = Transactional(peer, version, "-1"), Transactional(peer, version, "-2")
    for producer, offset in ((first, 5), (second, 6)):
        producer.add_offsets(group)
        producer.commit(version, group, topic, (0, offset))
    answers = [second.end(), stable(peer, group, topic), first.end()]
    return [answers, settled(peer, group, topic)]


@error(TXN_OFFSET_COMMIT, 0, 3, 4, 5)
def h60_a_group_that_is_not_in_the_transaction(peer: Peer, version: int) -> Any:
    topic, group = peer.topic(), a_group(peer)
    producer = Transactional(peer, version)
    return [producer.commit(version, group, topic), fetch(peer, 8, group, {topic: [0]})]


@each(
    TXN_OFFSET_COMMIT,
    0,
    3,
    4,
    5,
    other_producer={"producer_id": 987654321},
    no_producer={"producer_id": -1, "producer_epoch": -1},
    later_epoch={"producer_epoch": 9},
    earlier_epoch={"producer_epoch": 0},
    other_transactional_id={"transactional_id": "nobody's"},
    no_transactional_id={"transactional_id": ""},
)
def h113_identity(peer: Peer, version: int, given: dict[str, Any]) -> Any:
    topic, group = peer.topic(), a_group(peer)
    coordinated(peer, group)
    producer = Transactional(peer, version)
    producer.init()  # a second epoch, so that there is an earlier one
    producer.add_offsets(group)
    return [
        producer.commit(version, group, topic, (0, 5), **given),
        stable(peer, group, topic),
    ]


@error(TXN_OFFSET_COMMIT, 3, 5)
def h113_an_epoch_that_is_over_by_an_unknown_member(peer: Peer, version: int) -> Any:
    topic, group = peer.topic(), a_group(peer)
    producer = Transactional(peer, version)
    producer.init()
    producer.add_offsets(group)
    given = producer.commit(version, group, topic, (0, 5))
    stale = {"producer_epoch": producer.epoch - 1, "member_id": "x", "generation_id": 1}
    return [given, producer.commit(version, group, topic, (0, 6), **stale)]


@error(TXN_OFFSET_COMMIT, 0, 5)
def h113_without_a_transactional_id_once_it_is_in(peer: Peer, version: int) -> Any:
    topic, group = peer.topic(), a_group(peer)
    producer = Transactional(peer, version)
    producer.add_offsets(group)
    given = producer.commit(version, group, topic, (0, 5))
    again = producer.commit(version, group, topic, (0, 6), transactional_id="")
    return [given, again, producer.end(), settled(peer, group, topic)]


@each(
    TXN_OFFSET_COMMIT,
    3,
    5,
    generation={"generation_id": 1},
    generation_zero={"generation_id": 0, "member_id": "x"},
    member={"member_id": "x"},
    instance={"group_instance_id": "x"},
)
def h102_unknown_group(peer: Peer, version: int, given: dict[str, Any]) -> Any:
    topic, group = peer.topic(), a_group(peer)
    producer = Transactional(peer, version)
    producer.add_offsets(group)
    refused = producer.commit(version, group, topic, (0, 5), **given)
    return [refused, producer.end(), settled(peer, group, topic)]


@each(
    TXN_OFFSET_COMMIT,
    3,
    5,
    generation={"generation_id": 1},
    member={"member_id": "x"},
    instance={"group_instance_id": "x"},
)
def h102_group_without_members(peer: Peer, version: int, given: dict[str, Any]) -> Any:
    topic, group = peer.topic(), a_group(peer)
    commit(peer, 8, group, topic, (0, 1))
    producer = Transactional(peer, version)
    producer.add_offsets(group)
    refused = producer.commit(version, group, topic, (0, 5), **given)
    return [refused, producer.end(), settled(peer, group, topic)]


@error(TXN_OFFSET_COMMIT, 0, 3, 5)
def h98_the_empty_group(peer: Peer, version: int) -> Any:
    coordinated(peer, "")
    topic = peer.topic()
    producer = Transactional(peer, version)
    return producer.commit(version, "", topic, (0, 7))


@error(TXN_OFFSET_COMMIT, 0, 3, 5)
def h109_unknown_topics_and_partitions(peer: Peer, version: int) -> Any:
    topic, group = peer.topic(), a_group(peer)
    producer = Transactional(peer, version)
    producer.add_offsets(group)
    return [
        producer.commit(version, group, "no-such-topic", (0, 1), (1, 1)),
        producer.commit(version, group, topic, (1, 1), (-1, 1)),
        producer.commit(version, group, topic, (0, 1), (1, 1)),
        stable(peer, group, topic),
    ]


@each(TXN_OFFSET_COMMIT, 0, 5, largest="x" * 4096, larger="x" * 4097)
def h109_metadata(peer: Peer, version: int, given: str) -> Any:
    topic, group = peer.topic(2), a_group(peer)
    producer = Transactional(peer, version)
    producer.add_offsets(group)
    committed = producer.commit(version, group, topic, (0, 1, -1, given), (1, 1))
    return [committed, producer.end(), settled(peer, group, topic)]


@each(TXN_OFFSET_COMMIT, 0, 5, minus_one=-1, least=-(2**63), most=2**63 - 1)
def h109_offset(peer: Peer, version: int, given: int) -> Any:
    topic, group = peer.topic(), a_group(peer)
    producer = Transactional(peer, version)
    producer.add_offsets(group)
    committed = producer.commit(version, group, topic, (0, given))
    return [committed, producer.end(), settled(peer, group, topic)]


@error(TXN_OFFSET_COMMIT, 0, 5)
def nothing(peer: Peer, version: int) -> Any:
    group = a_group(peer)
    producer = Transactional(peer, version)
    request = TxnOffsetCommitRequest(
        transactional_id=producer.id,
        group_id=group,
        producer_id=producer.producer_id,
        producer_epoch=producer.epoch,
        topics=[],
    )
    return peer.ask(request, version)


@error(TXN_OFFSET_COMMIT, 3, 5)
def after_the_end_of_the_transaction(peer: Peer, version: int) -> Any:
    topic, group = peer.topic(), a_group(peer)
    producer = Transactional(peer, version)
    before = producer.epoch
    producer.add_offsets(group)
    producer.commit(version, group, topic, (0, 5))
    producer.end()
    settled(peer, group, topic)
    late = producer.commit(version, group, topic, (0, 9), producer_epoch=before)
    return [late, settled(peer, group, topic)]


@error(OFFSET_DELETE, 0)
def while_another_is_pending(peer: Peer, version: int) -> Any:
    topic, group = peer.topic(), a_group(peer)
    producer = Transactional(peer, 3)
    producer.add_offsets(group)
    producer.commit(3, group, topic, (0, 5))
    deleted = delete(peer, version, group, topic, 0)
    return [deleted, stable(peer, group, topic), producer.end(), settled(peer, group, topic)]


@error(DELETE_GROUPS, 2)
def a_group_with_something_pending(peer: Peer, version: int) -> Any:
    topic, group = peer.topic(), a_group(peer)
    producer = Transactional(peer, 3)
    producer.add_offsets(group)
    producer.commit(3, group, topic, (0, 5))
    deleted = peer.ask(DeleteGroupsRequest(groups_names=[group]), version)
    return [deleted, stable(peer, group, topic), producer.end(), settled(peer, group, topic)]
