"""The usual request of a transaction, which has a way of its own: it must be told by nothing."""

from __future__ import annotations

from typing import Any

import pytest

from ottla.handlers import produce as handler
from ottla.protocol.messages.add_partitions_to_txn import (
    AddPartitionsToTxnRequest,
    AddPartitionsToTxnTopic,
)
from ottla.protocol.messages.end_txn import EndTxnRequest
from ottla.protocol.messages.init_producer_id import InitProducerIdRequest
from ottla.protocol.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from ottla.records.batch import TRANSACTIONAL_BIT
from ottla.records.builder import Producer
from ottla.testing.simnode import Call, SimConnection, SimNode
from tests.asking import batch

from .ways import answered_quickly, both_ways, checksums

_OLD = 11
"""The last version whose partitions are added by AddPartitionsToTxn."""


class Session:
    """A producer of transactions at a node of its own, and all that it was told."""

    def __init__(self, version: int, acks: int, policy: str) -> None:
        self.version = version
        self.acks = acks
        self.node = SimNode(flush_policy=policy)
        self.topic_id = self.node.create_topic("t", 3)
        self.id, self.epoch = 0, 0
        self.calls: list[tuple[str, Call, SimConnection]] = []

    def ask(self, name: str, body: Any, version: int, *, answered: bool = True) -> Call:
        connection = self.node.connect()
        call = connection.ask(body, version, answered=answered)
        self.calls.append((name, call, connection))
        return call

    def begin(self, name: str = "mine") -> None:
        request = InitProducerIdRequest(transactional_id=name, transaction_timeout_ms=60_000)
        answer = self.node.answer(self.ask("init", request, 4))
        self.id, self.epoch = answer.producer_id, answer.producer_epoch

    def add(self, *partitions: int) -> None:
        if self.version > _OLD:
            return
        topics = [AddPartitionsToTxnTopic(name="t", partitions=list(partitions))]
        request = AddPartitionsToTxnRequest(
            v3_and_below_transactional_id="mine",
            v3_and_below_producer_id=self.id,
            v3_and_below_producer_epoch=self.epoch,
            v3_and_below_topics=topics,
        )
        self.node.answer(self.ask("add", request, 3))

    def put(
        self,
        name: str,
        sequence: int,
        *,
        to: int = 0,
        by: str | None = "mine",
        later: int = 0,
        attributes: int = TRANSACTIONAL_BIT,
    ) -> None:
        """Without waiting for the answer. `later`: how many epochs after its own."""
        producer = Producer(self.id, self.epoch + later, sequence)
        records = batch(name.encode(), producer=producer, attributes=attributes)
        part = PartitionProduceData(index=to, records=records)
        topic = TopicProduceData(name="t", topic_id=self.topic_id, partition_data=[part])
        body = ProduceRequest(
            transactional_id=by, acks=self.acks, timeout_ms=1000, topic_data=[topic]
        )
        self.ask(name, body, self.version, answered=self.acks != 0)

    def put_all(
        self,
        name: str,
        sequences: dict[int, int],
        *,
        later: dict[int, int] | None = None,
        plain: tuple[int, ...] = (),
    ) -> None:
        """A batch for each of these partitions, and the answer. `plain`: in no transaction."""
        parts = []
        for number, sequence in sequences.items():
            producer = Producer(self.id, self.epoch + (later or {}).get(number, 0), sequence)
            attributes = 0 if number in plain else TRANSACTIONAL_BIT
            records = batch(name.encode(), producer=producer, attributes=attributes)
            parts.append(PartitionProduceData(index=number, records=records))
        topic = TopicProduceData(name="t", topic_id=self.topic_id, partition_data=parts)
        body = ProduceRequest(
            transactional_id="mine", acks=self.acks, timeout_ms=1000, topic_data=[topic]
        )
        self.ask(name, body, self.version, answered=self.acks != 0)
        self.node.settle()

    def end(self, *, commit: bool = True) -> None:
        """Without waiting until it has ended."""
        request = EndTxnRequest(
            transactional_id="mine",
            producer_id=self.id,
            producer_epoch=self.epoch,
            committed=commit,
        )
        call = self.ask("end", request, 5 if self.version > _OLD else 3)
        while not call.done:
            assert self.node.step()
        if self.version > _OLD:
            self.id, self.epoch = call.answer.producer_id, call.answer.producer_epoch

    def whole(self) -> list[tuple[Any, ...]]:
        """Every answer, and every byte of every log."""
        self.node.settle()
        told: list[tuple[Any, ...]] = []
        for name, call, connection in self.calls:
            answer = call.answer if call.done else None
            told.append((name, answer, connection.closed))
        for partition in self.node.table:
            segments = partition.log.segments
            told += [(partition.key, one.log.read_nowait(0, one.size)) for one in segments]
        return told


def _first(session: Session) -> None:
    session.put("before there is a coordinator", 0)
    session.node.settle()
    session.begin()
    session.begin()  # so that there is an earlier epoch
    session.put("not added, but by those that add", 0)
    session.node.settle()
    session.add(0)
    for name, sequence in (("first", 0), ("again", 0), ("a gap", 5), ("next", 1)):
        session.put(name, sequence)
        session.node.settle()
    session.put("a gap at first", 3, to=1)
    session.put("outside", 0, attributes=0)
    session.put("without an id", 2, by=None)
    session.put("of another id", 0, to=2, by="another")
    session.put("of an earlier epoch", 0, later=-1)
    session.put("of a later epoch", 0, to=2, later=1)
    session.node.settle()


def _ended(session: Session) -> None:
    session.begin()
    session.add(0, 1)
    session.put("first", 0)
    session.put("first of another partition", 0, to=1)
    session.node.settle()
    earlier = session.epoch
    session.end()
    session.put("while the one before is being ended", 0 if session.epoch > earlier else 1)
    session.node.settle()
    session.add(0)
    session.put("after it", 1)
    session.node.settle()
    session.put("as before the end", 1, later=earlier - session.epoch)
    session.node.settle()
    session.end(commit=False)
    session.node.settle()
    session.put("plain, after an abort", 0, to=1, later=1, attributes=0)


def _fenced(session: Session) -> None:
    session.begin()
    session.add(0)
    session.put("first", 0)
    session.node.settle()
    own = session.id, session.epoch
    session.begin()
    session.node.settle()
    session.begin()
    session.id, session.epoch = own
    session.put("fenced", 1)
    session.put("fenced, elsewhere", 0, to=1)


def _restarted(session: Session) -> None:
    session.begin()
    session.add(0, 1)
    session.put("first", 0)
    session.node.settle()
    session.calls.clear()
    session.node.kill()
    session.put("open here", 1)
    session.put("while the coordinator is loading", 0, to=1)
    session.put("never added", 0, to=2)
    session.node.settle()
    session.put("once it is there", 1, to=1)


def _without_room(session: Session) -> None:
    session.begin()
    session.add(0)
    session.put("first", 0)
    session.node.settle()
    session.node.table.little_room = True
    session.put("without room", 1)
    session.node.settle()


def _several(session: Session) -> None:
    session.put_all("before there is a coordinator", {0: 0, 1: 0})
    session.begin()
    session.add(0, 1)
    session.put_all("one of them not added, but by those that add", {0: 0, 2: 0})
    session.put_all("one begun, one not", {0: 1, 1: 0})
    session.put_all("again", {0: 1, 1: 0})
    session.put_all("a gap in one", {0: 2, 1: 5})
    session.put_all("one by an earlier epoch", {0: 3, 1: 1}, later={1: -1})
    session.put_all("one outside", {0: 3, 1: 1}, plain=(0,))
    session.put_all("all outside", {0: 3, 1: 1}, plain=(0, 1))
    session.put_all("all of a later epoch", {0: 0, 1: 0}, later={0: 1, 1: 1})
    session.end()
    session.add(1, 2)
    session.put_all("behind the end, perhaps before its markers", {1: 0, 2: 0})
    session.node.settle()
    session.put_all("once more", {0: 0, 1: 1, 2: 1})
    session.end(commit=False)
    session.node.settle()
    session.put_all("plain behind an abort", {0: 0, 1: 0}, later={0: 1, 1: 1}, plain=(0, 1))


def _several_fenced(session: Session) -> None:
    session.begin()
    session.add(0, 1)
    session.put_all("first", {0: 0, 1: 0})
    own = session.id, session.epoch
    session.begin()
    session.node.settle()
    session.begin()
    session.id, session.epoch = own
    session.put_all("fenced", {0: 1, 1: 1, 2: 0})


def _several_restarted(session: Session) -> None:
    session.begin()
    session.add(0, 1, 2)
    session.put_all("first", {0: 0, 1: 0})
    session.calls.clear()
    session.node.kill()
    session.put_all("while the coordinator is loading", {0: 1, 1: 1, 2: 0})
    session.put_all("once it is there", {0: 2, 1: 2, 2: 1})


STORIES = (
    _first,
    _ended,
    _fenced,
    _restarted,
    _without_room,
    _several,
    _several_fenced,
    _several_restarted,
)


@pytest.mark.parametrize("version", [5, 11, 12, 13])
@pytest.mark.parametrize("acks", [-1, 0, 1])
@pytest.mark.parametrize("policy", ["os", "commit"])
@pytest.mark.parametrize("story", STORIES)
def test_a_transactions_usual_request_is_answered_as_if_it_had_no_way_of_its_own(
    version, acks, policy, story, monkeypatch
):
    def told() -> list[tuple[Any, ...]]:
        session = Session(version, acks, policy)
        story(session)
        return session.whole()

    own, general = both_ways(monkeypatch, told, handler)
    assert own == general


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("policy", ["os", "commit"])
@pytest.mark.parametrize("commit", [True, False])
def test_a_batch_that_begins_a_transaction_waits_for_the_marker_of_the_one_before(
    commit, policy, quick, monkeypatch
):
    """The first abort of a segment has an index made before its marker is written."""
    if not quick:
        monkeypatch.delattr(handler, "quick")
    for seed in range(10):
        session = Session(12, 1, policy)
        session.node.random.seed(seed)
        session.begin()
        session.put("first", 0)
        session.node.settle()
        session.end(commit=commit)
        session.put("second", 0)
        session.node.settle()
        session.node.advance(1)
        answers = [call.answer for name, call, _ in session.calls if name in {"first", "second"}]
        told = [answer.responses[0].partition_responses[0].error_code for answer in answers]
        assert told == [0, 0], f"seed {seed}"


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("version", [9, 12])
@pytest.mark.parametrize("acks", [-1, 1])
def test_most_requests_of_transactions_go_the_quick_way(version, acks, several, monkeypatch):
    ways = answered_quickly(monkeypatch, handler)
    session = Session(version, acks, "os")
    session.begin()
    for turn in range(3):
        session.add(0, 1)
        first = 0 if version > _OLD else 2 * turn
        if several:
            session.put_all("begins", {0: first, 1: first})
            session.put_all("goes on", {0: first + 1, 1: first + 1})
        else:
            session.put("begins", first)
            session.node.settle()
            session.put("goes on", first + 1)
        session.end()
        session.node.settle()
    assert ways[1:] == [True] * 5, "the first waits for its log's files"
    codes = [call.answer for name, call, _ in session.calls if name in ("begins", "goes on")]
    parts = [part for one in codes for part in one.responses[0].partition_responses]
    assert not any(part.error_code for part in parts)
    assert len(parts) == (12 if several else 6)


@pytest.mark.parametrize("policy", ["os", "commit"])
@pytest.mark.parametrize("version", [9, 12])
def test_a_batch_of_a_transaction_that_waits_for_the_coordinator_is_checksummed_once(
    version, policy, monkeypatch
):
    session = Session(version, -1, policy)
    session.begin()
    session.add(0, 1, 2)
    sizes = checksums(monkeypatch)
    session.put("alone", 0)
    session.node.settle()
    assert len(sizes) == 1
    session.put_all("several", {1: 0, 2: 0})
    assert len(sizes) == 3
    session.put("to nobody's", 1, by=None)
    session.node.settle()
    assert len(sizes) == 4
    told = [one.answer.responses[0].partition_responses for _, one, _ in session.calls[-3:]]
    assert [part.error_code for parts in told for part in parts] == [0, 0, 0, 53]
