"""Requests that name several partitions have a way of their own: it must be told by nothing.

Each story is played twice, with that way and without: answers and logs are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EIO, ENOSPC
from functools import partial
from typing import Any, TypeAlias

import pytest

from ottla.core import options
from ottla.core.model import Offset
from ottla.handlers import produce as handler
from ottla.protocol.codec import decoder, encoder
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.produce import (
    PartitionProduceData,
    ProduceRequest,
    ProduceResponse,
    TopicProduceData,
)
from ottla.records.builder import Producer
from ottla.records.compress import GZIP
from ottla.testing.simfile import Fault
from ottla.testing.simnode import Call, SimConnection, SimNode
from tests.asking import NOW_MS, batch, put

from .ways import both_ways, checksums

Wanted: TypeAlias = list[tuple[str, list[tuple[int, bytes | None]]]]

GOOD = batch(b"a", b"b")
CORRUPT = GOOD[:-1] + bytes([GOOD[-1] ^ 1])


def numbered(sequence: int, epoch: int = 0) -> bytes:
    return batch(b"%d" % sequence, producer=Producer(7, epoch, sequence))


class Session:
    """A node of its own with a topic of each kind, and all that was answered."""

    def __init__(self, version: int, acks: int, **given: str) -> None:
        self.version = version
        self.acks = acks
        self.node = SimNode(**given)
        create = self.node.create_topic
        self.ids = {
            "t": create("t", 4, max_message_bytes="2000"),
            "stamped": create("stamped", 3, message_timestamp_type="LogAppendTime"),
            "walked": create("walked", 2, cleanup_policy="compact"),
            "gone": bytes(range(16)),
        }
        self.told: list[tuple[str, Call, SimConnection]] = []
        for topic, count in (("t", 4), ("stamped", 3)):
            for number in range(count):  # so that no log waits for its files
                put(self.node, GOOD, acks=1, topic=topic, partition=number)

    def begin(self, name: str, wanted: Wanted) -> SimConnection:
        topics = [
            TopicProduceData(
                name=topic,
                topic_id=self.ids.get(topic, bytes(16)),
                partition_data=[PartitionProduceData(index=i, records=r) for i, r in parts],
            )
            for topic, parts in wanted
        ]
        body = ProduceRequest(acks=self.acks, timeout_ms=1000, topic_data=topics)
        connection = self.node.connect()
        call = connection.ask(body, self.version, answered=self.acks != 0)
        self.told.append((name, call, connection))
        return connection

    def ask(self, name: str, wanted: Wanted) -> None:
        self.begin(name, wanted)
        self.node.settle()

    def whole(self) -> list[Any]:
        """Every answer, every byte of every log, and what is counted."""
        self.node.settle()
        self.node.advance(2)  # what is to wait no longer than asked for is told by then
        seen: list[Any] = [(n, c.answer if c.done else None, s.closed) for n, c, s in self.told]
        for partition in self.node.table:
            tally = (partition.records_in, partition.bytes_in, partition.batches_by_codec)
            seen.append((partition.key, partition.high_watermark, partition.last_stable, *tally))
            segments = partition.log.segments
            seen += [(partition.key, one.log.read_nowait(0, one.size)) for one in segments]
        return seen


def _sound(session: Session) -> None:
    session.ask("two", [("t", [(0, GOOD), (1, GOOD)])])
    session.ask("all, in another order", [("t", [(3, GOOD), (0, GOOD), (2, GOOD), (1, GOOD)])])
    session.ask("two topics", [("t", [(2, GOOD)]), ("stamped", [(0, GOOD), (2, GOOD)])])
    session.ask("a topic twice", [("t", [(2, GOOD)]), ("t", [(1, GOOD), (3, GOOD)])])
    packed, many = batch(b"a" * 1000, codec=GZIP), batch(*[b"x"] * 50)
    session.ask("of all sorts", [("t", [(0, packed), (1, many)]), ("stamped", [(1, packed)])])


def _refused(session: Session) -> None:
    late = batch(b"a", timestamp=NOW_MS + 7_200_000)
    for name, records in {
        "none": None,
        "cut": GOOD[:-1],
        "two batches": GOOD + GOOD,
        "corrupt": CORRUPT,
        "too new": late,
        "too large": batch(b"a" * 3000),
        "transactional": batch(b"a", producer=Producer(7, 0, 0), attributes=0x10),
    }.items():
        session.ask(f"{name} first", [("t", [(0, records), (1, GOOD)])])
        session.ask(f"{name} last", [("t", [(0, GOOD), (1, GOOD), (2, records)])])
        session.ask(f"{name} in another topic", [("t", [(0, GOOD)]), ("stamped", [(1, records)])])
    session.ask("all corrupt", [("t", [(0, CORRUPT), (1, CORRUPT)])])


def _unknown(session: Session) -> None:
    session.ask("no such partition", [("t", [(0, GOOD), (4, GOOD), (-1, GOOD)])])
    session.ask("no such topic", [("gone", [(0, GOOD)]), ("t", [(0, GOOD), (1, GOOD)])])
    session.ask("no partitions", [("t", [])])
    session.ask("no partitions, and some", [("t", []), ("stamped", [(0, GOOD), (1, GOOD)])])
    session.ask("no topics", [])
    session.ask("internal", [("__consumer_offsets", [(0, GOOD)]), ("t", [(0, GOOD)])])
    session.ask("walked", [("walked", [(0, GOOD), (1, GOOD)]), ("t", [(0, GOOD)])])
    session.ask("named twice", [("t", [(0, GOOD), (1, GOOD), (0, GOOD)])])
    session.ask("named twice apart", [("t", [(0, GOOD), (1, GOOD)]), ("t", [(0, GOOD)])])
    session.ask("named twice, once corrupt", [("t", [(0, GOOD), (0, CORRUPT)])])


def _numbered(session: Session) -> None:
    def both(sequence: int, second: int, epoch: int = 0) -> Wanted:
        stamped = ("stamped", [(0, numbered(second, epoch))])
        return [("t", [(0, numbered(sequence, epoch)), (1, numbered(second, epoch))]), stamped]

    session.ask("first", both(0, 0))
    session.ask("again", both(0, 0))
    session.ask("next", both(1, 1))
    session.ask("a gap in one", both(2, 7))
    session.ask("again in one", both(3, 1))
    session.node.table.delete_records(session.node.partition("t", 1), Offset(3))
    session.node.settle()
    session.ask("a gap behind deleted records", both(4, 9))
    session.ask("a later epoch", both(0, 0, epoch=2))
    session.ask("an earlier epoch", both(1, 1, epoch=1))


def _without_room(session: Session) -> None:
    session.ask("with room", [("t", [(0, GOOD), (1, GOOD)])])
    session.node.table.little_room = True
    session.ask("without", [("t", [(0, GOOD), (1, GOOD)])])
    session.node.table.little_room = False
    session.ask("with room again", [("t", [(0, GOOD), (1, GOOD)])])


def _new(session: Session) -> None:
    session.node.create_topic("new", 3)
    session.ids["new"] = session.node.partition("new").topic_id
    session.ask("one that is there, one to be made", [("t", [(0, GOOD)]), ("new", [(0, GOOD)])])
    session.ask("some of them made", [("new", [(0, GOOD), (1, GOOD), (2, GOOD)])])
    session.begin("all made", [("new", [(2, GOOD), (1, GOOD)])])
    session.begin("behind it", [("new", [(1, GOOD), (2, GOOD)])])


def _rolling(session: Session) -> None:
    session.node.create_topic("rolls", 2, segment_ms="1000")
    session.ids["rolls"] = session.node.partition("rolls").topic_id

    def both(first_s: int, second_s: int) -> Wanted:
        times = (NOW_MS + first_s * 1000, NOW_MS + second_s * 1000)
        return [("rolls", [(i, batch(b"a", timestamp=time)) for i, time in enumerate(times)])]

    for turn, (first_s, second_s) in enumerate([(0, 0), (1, 1), (2, 0), (2, 2), (3, 9), (3, 0)]):
        session.ask(f"turn {turn}", both(first_s, second_s))


def _failing(errno: int, session: Session) -> None:
    """The disk refuses one of the writes: what is behind it in the request may be offline, too."""
    session.ask("before", [("t", [(0, GOOD), (1, GOOD)])])
    session.node.disk.faults.append(Fault("write", errno, path="/t-1/"))
    session.ask("fails", [("t", [(0, GOOD), (1, GOOD), (2, GOOD)])])
    session.ask("after it", [("t", [(0, GOOD), (1, GOOD), (2, GOOD)])])


def _late(session: Session) -> None:
    connection = session.begin("late", [("t", [(0, GOOD), (1, GOOD)])])
    session.node.loop.advance(1.5)
    session.node.settle()
    session.begin("one", [("t", [(2, GOOD)])])
    session.node.loop.advance(1.5)
    session.begin("nobody there any more", [("t", [(0, GOOD), (3, GOOD)])]).close()
    connection.close()
    session.ask("afterwards", [("t", [(0, GOOD), (1, GOOD)])])


def _deleted(session: Session) -> None:
    session.begin("deleted meanwhile", [("t", [(0, GOOD)]), ("stamped", [(1, GOOD), (2, GOOD)])])
    session.node.delete_topic("t")
    session.ask("gone", [("t", [(0, GOOD)]), ("stamped", [(1, GOOD)])])


def _unsynced(session: Session) -> None:
    session.node.disk.faults.append(Fault("sync", EIO, path="/t-1/"))
    session.begin("never on the disk", [("t", [(0, GOOD), (1, GOOD)]), ("stamped", [(0, GOOD)])])
    session.ask("refused", [("t", [(0, GOOD), (1, GOOD)])])


STORIES = (
    _sound,
    _refused,
    _unknown,
    _numbered,
    _without_room,
    _new,
    _rolling,
    _late,
    _deleted,
    _unsynced,
    partial(_failing, ENOSPC),
    partial(_failing, EIO),
)


def told_both_ways(
    story: Callable[[Session], None],
    monkeypatch: pytest.MonkeyPatch,
    version: int,
    acks: int,
    **given: str,
) -> tuple[list[Any], list[Any]]:
    def tell() -> list[Any]:
        session = Session(version, acks, **given)
        story(session)
        return session.whole()

    return both_ways(monkeypatch, tell, handler)


@pytest.mark.parametrize(
    ("version", "acks"),
    [(9, -1), (9, 0), (9, 1), (9, 2), (4, 1), (7, 1), (8, -1), (13, -1)],
)
@pytest.mark.parametrize("policy", ["os", "commit"])
@pytest.mark.parametrize("story", STORIES, ids=lambda story: getattr(story, "__name__", None))
def test_several_partitions_are_answered_as_if_they_had_no_way_of_their_own(
    story: Callable[[Session], None],
    version: int,
    acks: int,
    policy: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    quick, general = told_both_ways(story, monkeypatch, version, acks, flush_policy=policy)
    assert quick == general


@pytest.mark.parametrize("has_quick", [True, False])
def test_whose_partition_goes_offline_with_another_of_the_request_is_told_at_once(
    has_quick: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_quick:
        monkeypatch.delattr(handler, "quick")
    session = Session(9, -1, flush_policy="commit")
    session.node.settle()
    session.node.disk.faults.append(Fault("write", EIO, path="/t-1/"))
    session.ask("offline", [("t", [(0, GOOD), (1, GOOD), (2, GOOD)])])
    [(_, call, _)] = session.told
    assert call.done, "before its timeout is over"
    [topic] = call.answer.responses
    error = ErrorCode.KAFKA_STORAGE_ERROR
    assert [part.error_code for part in topic.partition_responses] == [error] * 3


def test_too_many_partitions_are_refused_whole_and_complained_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def story(session: Session) -> None:
        session.ask("as many as may be", [("t", [(0, GOOD), (1, GOOD)]), ("stamped", [(0, GOOD)])])
        session.ask(
            "too many", [("t", [(0, GOOD), (1, GOOD)]), ("stamped", [(0, GOOD), (1, GOOD)])]
        )

    quick, general = told_both_ways(story, monkeypatch, 9, 1, request_partitions_max="3")
    assert quick == general
    [_, (_, refused, _)] = quick[:2]
    codes = {part.error_code for topic in refused.responses for part in topic.partition_responses}
    assert codes == {ErrorCode.INVALID_REQUEST}


@pytest.mark.parametrize("version", [5, 7, 8, 9, 10, 12, 13])
@pytest.mark.parametrize("count", [2, 130])
def test_what_is_told_of_several_partitions_is_the_message_that_says_so(
    version: int, count: int
) -> None:
    """Byte by byte, also where a count or a name takes more than one byte to say."""
    node = SimNode(flush_policy="os")
    name = "x" * 130
    ids = {name: node.create_topic(name, count), "t": node.create_topic("t", 2)}
    topics = [
        TopicProduceData(
            name=topic,
            topic_id=ids[topic],
            partition_data=[PartitionProduceData(index=i, records=GOOD) for i in range(number)],
        )
        for topic, number in ((name, count), ("t", 2))
    ]
    body = ProduceRequest(acks=-1, timeout_ms=1000, topic_data=topics)
    first = node.answer(node.connect().ask(body, version))
    for topic in topics:
        for part in topic.partition_data:
            part.records = memoryview(bytearray(GOOD))
    done = handler.quick(node.context, version, body)
    assert isinstance(done, bytes)
    answer, end = decoder(ProduceResponse, version)(memoryview(done), 0)
    assert end == len(done)
    assert encoder(ProduceResponse, version)(answer) == [done]
    for before, after in zip(first.responses, answer.responses, strict=True):
        for one, other in zip(before.partition_responses, after.partition_responses, strict=True):
            assert (one.index, one.base_offset) == (other.index, 0)
            assert (other.error_code, other.base_offset, other.log_start_offset) == (0, 2, 0)


@pytest.mark.parametrize("acks", [-1, 1])
def test_most_requests_of_several_partitions_go_the_quick_way(acks: int) -> None:
    session = Session(9, acks, flush_policy="os")
    ways: list[bool] = []

    def ask(*wanted: tuple[str, int]) -> None:
        topics: dict[str, list[PartitionProduceData]] = {}
        for topic, number in wanted:
            part = PartitionProduceData(index=number, records=memoryview(bytearray(GOOD)))
            topics.setdefault(topic, []).append(part)
        told = [TopicProduceData(name=t, partition_data=p) for t, p in topics.items()]
        body = ProduceRequest(acks=acks, timeout_ms=1000, topic_data=told)
        ways.append(isinstance(handler.quick(session.node.context, 9, body), bytes))

    ask(("t", 0), ("t", 1))
    ask(("t", 3), ("stamped", 1), ("t", 2))
    ask(("t", 0), ("walked", 1))
    assert ways == [True, True, False]
    assert session.node.context.config[options.REQUEST_PARTITIONS_MAX] > 2


@pytest.mark.parametrize("acks", [-1, 0, 1])
@pytest.mark.parametrize(
    "last", ["walked", "gone", "no such partition", "without a batch", "new", "none"]
)
def test_the_batches_before_one_that_needs_the_general_way_are_checksummed_once(
    acks: int, last: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session(9, acks)
    session.node.create_topic("new", 1)
    sizes = checksums(monkeypatch)
    before: Wanted = [("t", [(0, GOOD), (1, GOOD)]), ("stamped", [(0, GOOD)])]
    behind: dict[str, Wanted] = {
        "no such partition": [("t", [(9, GOOD)])],
        "without a batch": [("t", [(2, None)])],
        "none": [],
    }
    session.ask(last, [*before, *behind.get(last, [(last, [(0, GOOD)])])])
    assert len(sizes) == (4 if last in ("walked", "new") else 3)
    ends = [
        session.node.partition(*place).log.end for place in (("t", 0), ("t", 1), ("stamped", 0))
    ]
    assert ends == [4, 4, 4]
