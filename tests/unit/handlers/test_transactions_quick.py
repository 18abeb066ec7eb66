"""EndTxn and AddPartitionsToTxn have a way of their own for the usual request: told by nothing."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from ottla.handlers import add_partitions_to_txn, end_txn
from ottla.protocol.codec import CodecError, decoder, encoder
from ottla.protocol.messages.add_partitions_to_txn import (
    AddPartitionsToTxnRequest,
    AddPartitionsToTxnTopic,
)
from ottla.protocol.messages.end_txn import EndTxnRequest
from ottla.protocol.messages.init_producer_id import InitProducerIdRequest
from ottla.testing.simnode import Call, SimNode

from .ways import Asked, answered_quickly, both_ways

HANDLERS = (add_partitions_to_txn, end_txn)


class Session(Asked):
    """A producer of transactions at a node of its own, and all that it was told."""

    def __init__(self, add_version: int, end_version: int, policy: str) -> None:
        self.versions = add_version, end_version
        super().__init__(
            SimNode(
                flush_policy=policy, transaction_partitions_max="30", request_partitions_max="35"
            )
        )
        self.node.create_topic("t", 40)
        self.node.create_topic("u", 2)
        self.id, self.epoch = 0, 0

    def begin(self, name: str = "mine") -> None:
        request = InitProducerIdRequest(transactional_id=name, transaction_timeout_ms=60_000)
        answer = self.node.answer(self.ask(request, 4))
        self.id, self.epoch = answer.producer_id, answer.producer_epoch

    def add(
        self,
        *partitions: int,
        topic: str = "t",
        beside: str | None = None,
        name: str = "mine",
        later: int = 0,
    ) -> None:
        """Without waiting. `later`: how many epochs after its own."""
        topics = [AddPartitionsToTxnTopic(name=topic, partitions=list(partitions))]
        if beside is not None:
            topics.append(AddPartitionsToTxnTopic(name=beside, partitions=[0]))
        request = AddPartitionsToTxnRequest(
            v3_and_below_transactional_id=name,
            v3_and_below_producer_id=self.id,
            v3_and_below_producer_epoch=self.epoch + later,
            v3_and_below_topics=topics,
        )
        self.ask(request, self.versions[0])

    def end(self, *, commit: bool = True, name: str = "mine", later: int = 0) -> Call:
        """Without waiting until it has ended."""
        request = EndTxnRequest(
            transactional_id=name,
            producer_id=self.id,
            producer_epoch=self.epoch + later,
            committed=commit,
        )
        return self.ask(request, self.versions[1])

    def ended(self, *, commit: bool = True) -> None:
        answer = self.node.answer(self.end(commit=commit))
        if self.versions[1] == 5 and not answer.error_code:
            self.id, self.epoch = answer.producer_id, answer.producer_epoch


def _partitions(session: Session) -> None:
    session.add(0)
    session.node.settle()
    session.begin()
    session.begin()  # so that there is an earlier epoch
    for named in ((0,), (0,), (1, 0), (3, 2, 3), (), tuple(range(20)), (99,), (-1,)):
        session.add(*named)
    session.add(0, topic="missing")
    session.add(0, beside="u")
    session.add(0, beside="missing")
    session.add(4, name="")
    session.add(4, name="another")
    session.add(4, later=-1)
    session.add(4, later=1)
    session.node.settle()
    session.add(*range(15), topic="t")
    session.add(*range(20, 36))
    session.add(*range(40))
    session.node.settle()


def _ends(session: Session) -> None:
    session.end()
    session.node.settle()
    session.begin()
    session.end()
    session.end(commit=False)
    session.ended(commit=False)
    for commit in (True, False):
        session.add(0, 1)
        session.node.settle()
        session.end(commit=commit, name="")
        session.end(commit=commit, name="another")
        session.end(commit=commit, later=-1)
        session.end(commit=commit, later=1)
        session.ended(commit=commit)
        session.add(0)
        session.node.settle()
        session.ended(commit=commit)
        session.node.settle()
        session.end(commit=commit, later=-1)
        session.end(commit=not commit, later=-1)


def _in_a_row(session: Session) -> None:
    session.begin()
    for turn in range(5):
        session.add(0)
        session.add(turn)
        session.end()
        session.end()
        session.add(1)
        session.node.settle()
        session.begin()


def _restarted(session: Session) -> None:
    session.begin()
    session.add(0, 1)
    session.node.settle()
    session.node.kill()
    session.calls.clear()
    session.add(2)
    session.end()
    session.node.settle()
    session.node.kill()
    session.calls.clear()
    session.end()


STORIES = (_partitions, _ends, _in_a_row, _restarted)


@pytest.mark.parametrize(
    ("add_version", "end_version"), [(0, 0), (1, 1), (2, 2), (3, 3), (3, 4), (3, 5)]
)
@pytest.mark.parametrize("policy", ["os", "commit"])
@pytest.mark.parametrize("story", STORIES)
def test_a_usual_request_is_answered_as_if_it_had_no_way_of_its_own(
    add_version, end_version, policy, story, monkeypatch
):
    def told() -> list[tuple[Any, ...]]:
        session = Session(add_version, end_version, policy)
        story(session)
        return session.whole()

    own, general = both_ways(monkeypatch, told, *HANDLERS)
    assert own == general


def test_most_requests_of_transactions_go_the_quick_way(monkeypatch):
    ways = answered_quickly(monkeypatch, *HANDLERS)
    session = Session(3, 5, "os")
    session.begin()
    session.add(0)
    session.node.settle()
    ways.clear()  # the first waits for its log's files
    for commit in (True, False, True):
        session.add(0, 1)
        session.node.settle()
        session.ended(commit=commit)
    assert ways == [True] * 6


def test_i44_names_that_can_be_none_are_not_kept_however_long_they_are():
    session = Session(3, 5, "os")
    session.begin()
    session.node.settle()
    connection = session.node.connect()
    tracemalloc.start()
    try:
        for number in range(20):  # 120 kB each
            name = f"𝄞{number:04}".ljust(30_000, "x")
            topics = [AddPartitionsToTxnTopic(name=name, partitions=[0])]
            connection.ask(AddPartitionsToTxnRequest(v3_and_below_topics=topics), 3)
            connection.ask(EndTxnRequest(transactional_id=name), 5)
        session.node.settle()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 1_000_000


def add_request(version: int, number: int, topics: list[AddPartitionsToTxnTopic]) -> bytes:
    request = AddPartitionsToTxnRequest(
        v3_and_below_transactional_id=f"x{number:06}",
        v3_and_below_producer_id=7,
        v3_and_below_producer_epoch=1,
        v3_and_below_topics=topics,
    )
    (whole,) = encoder(AddPartitionsToTxnRequest, version)(request)
    assert type(whole) is bytes
    return whole


@pytest.mark.parametrize("version", range(4))
def test_a_request_that_is_another_by_any_byte_is_not_taken_for_what_is_remembered(
    version: int,
) -> None:
    whole = add_request(version, 1, [AddPartitionsToTxnTopic(name="t", partitions=[0, 1])])
    changed = [whole, whole + b"\0", *(whole[:end] for end in range(len(whole)))]
    for at in range(len(whole)):
        changed += [whole[:at] + bytes((byte,)) + whole[at + 1 :] for byte in (0, 1, 2, 3, 0xFF)]
        changed += [whole[:at] + whole[at + 1 :], whole[:at] + b"\1" + whole[at:]]
    own = add_partitions_to_txn.reader(version)
    general = decoder(AddPartitionsToTxnRequest, version)
    for one in changed + changed:  # also each when it is known
        view = memoryview(b"head" + one)
        try:
            expected = general(view, 4)
        except CodecError:
            with pytest.raises(CodecError):
                own(view, 4)
        else:
            assert own(view, 4) == expected
    assert own(memoryview(whole), 0)[0] is own(memoryview(whole), 0)[0], "nothing is remembered"


@pytest.mark.parametrize("version", [0, 3])
def test_i44_requests_of_many_topics_are_not_remembered(version: int) -> None:
    read = add_partitions_to_txn.reader(version)
    many = [AddPartitionsToTxnTopic(name="", partitions=[])] * (150 if version == 3 else 75)
    requests = [add_request(version, number, many) for number in range(60)]
    tracemalloc.start()
    try:
        for one in requests:
            assert len(read(memoryview(one), 0)[0].v3_and_below_topics) == len(many)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 2_000 * len(requests)
