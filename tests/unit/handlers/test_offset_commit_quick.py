"""OffsetCommit has a way of its own for what is committed again and again: told by nothing."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator, Sequence
from errno import EIO
from typing import Any

import pytest

from ottla.coordinator.group.classic import ClassicGroup
from ottla.handlers import offset_commit
from ottla.protocol.codec import CodecError, decoder, encoder
from ottla.protocol.messages.add_offsets_to_txn import AddOffsetsToTxnRequest
from ottla.protocol.messages.consumer_group_heartbeat import ConsumerGroupHeartbeatRequest
from ottla.protocol.messages.init_producer_id import InitProducerIdRequest
from ottla.protocol.messages.join_group import JoinGroupRequest, JoinGroupRequestProtocol
from ottla.protocol.messages.leave_group import LeaveGroupRequest, MemberIdentity
from ottla.protocol.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from ottla.protocol.messages.sync_group import SyncGroupRequest, SyncGroupRequestAssignment
from ottla.protocol.messages.txn_offset_commit import (
    TxnOffsetCommitRequest,
    TxnOffsetCommitRequestPartition,
    TxnOffsetCommitRequestTopic,
)
from ottla.testing.simfile import Fault
from ottla.testing.simnode import Call, SimNode

from .ways import Asked, answered_quickly, both_ways

VERSIONS = range(2, 11)
OPTIONS = {
    "offsets_topic_num_partitions": "2",
    "group_initial_rebalance_delay_ms": "0",
    "request_partitions_max": "35",
    "offset_metadata_max_bytes": "10",
    "group_offsets_bytes_max": "5000",
}


@pytest.fixture(autouse=True)
def nothing_known() -> Iterator[None]:
    forget()
    yield
    forget()


def forget() -> None:
    while known_count():
        offset_commit._memory.forget_oldest()


def known_count() -> int:
    return offset_commit._memory.places_count


class Session(Asked):
    """Clients of a node of its own, all that they were told, and what became of it."""

    def __init__(
        self, version: int, policy: str, names: Sequence[str] = ("t", "u"), **options: str
    ) -> None:
        self.version = version
        super().__init__(SimNode(0, flush_policy=policy, **(OPTIONS | options)))
        self.ids = {name: self.node.create_topic(name, 40) for name in names}
        self.ids["missing"] = b"m" * 16

    def answer(self, body: Any, version: int) -> Any:
        return self.node.answer(self.ask(body, version))

    def commit(
        self,
        *partitions: int,
        group: str = "g",
        topics: tuple[str, ...] = ("t",),
        member: tuple[str, int] = ("", -1),
        offset: int = 5,
        leader_epoch: int = -1,
        text: str | None = "",
        **more: Any,
    ) -> Call:
        """Without waiting."""
        parts = [
            OffsetCommitRequestPartition(
                partition_index=number,
                committed_offset=offset,
                committed_leader_epoch=leader_epoch,
                committed_metadata=text,
            )
            for number in partitions
        ]
        request = OffsetCommitRequest(
            group_id=group,
            generation_id_or_member_epoch=member[1],
            member_id=member[0],
            topics=[
                OffsetCommitRequestTopic(name=name, topic_id=self.ids[name], partitions=parts)
                for name in topics
            ],
            **more,
        )
        return self.ask(request, self.version)

    def commits(self, *partitions: int, **more: Any) -> None:
        """Three times, each behind the one before, and once more when all is done."""
        for offset in range(3):
            self.commit(*partitions, offset=offset, **more)
        self.node.settle()
        self.commit(*partitions, **more)
        self.node.settle()

    def join(self, member_id: str = "", **more: Any) -> Call:
        request = JoinGroupRequest(
            group_id="g",
            session_timeout_ms=10_000,
            rebalance_timeout_ms=10_000,
            member_id=member_id,
            protocol_type="consumer",
            protocols=[JoinGroupRequestProtocol(name="range", metadata=b"")],
            **more,
        )
        return self.ask(request, 7)

    def sync(self, member: tuple[str, int]) -> None:
        mine = SyncGroupRequestAssignment(member_id=member[0], assignment=b"mine")
        self.answer(
            SyncGroupRequest(
                group_id="g", generation_id=member[1], member_id=member[0], assignments=[mine]
            ),
            4,
        )

    def joined(self, **more: Any) -> tuple[str, int]:
        answer = self.node.answer(self.join(**more))
        if answer.error_code:
            answer = self.node.answer(self.join(answer.member_id, **more))
        assert not answer.error_code
        return answer.member_id, answer.generation_id

    def beat(self, name: str, epoch: int = 0, topics: Any = None) -> tuple[str, int]:
        """A heartbeat of a consumer group's member: its epoch."""
        answer = self.answer(
            ConsumerGroupHeartbeatRequest(
                group_id="g",
                member_id=name.ljust(22, "x"),
                member_epoch=epoch,
                rebalance_timeout_ms=60_000 if epoch == 0 else -1,
                subscribed_topic_names=["t"] if epoch == 0 else None,
                topic_partitions=[] if epoch == 0 else None,
            ),
            1,
        )
        return answer.member_id or name.ljust(22, "x"), answer.member_epoch

    def restarted(self) -> None:
        """Killed, and up again; what was told before is forgotten here."""
        self.node.settle()
        self.node.kill()
        self.calls.clear()

    def whole(self) -> list[Any]:
        """Every answer, every complaint, every byte of every log, and all that is kept."""
        told = super().whole()
        for shard in self.node.context.groups.shards():
            offsets = shard.offsets
            told += [offsets.groups, offsets.bytes_count, offsets._bytes, offsets._pending]
            told += [
                (group, place, one.producers, one.counts_since)
                for group, places in offsets._unstable.items()
                for place, one in places.items()
            ]
            for group in shard.groups.values():
                if isinstance(group, ClassicGroup):
                    told += [(member.id, member.deadline) for member in group.members]
        return told


def _on_its_own(session: Session) -> None:
    session.commits(0)
    for offset in (-1, -2, 1 << 62):
        session.commit(0, offset=offset, leader_epoch=offset & 0xFF)
    for text in (None, "a text", "", "x" * 11, "y" * 10, "", "é" * 3, None):
        session.commit(0, text=text)
        session.node.settle()
    session.commits(0, group="")
    session.commits(3, topics=("u",))
    session.commits(1, 2, 1)
    session.commits(*range(3, 20), leader_epoch=4)
    session.commits(*range(3, 21), leader_epoch=4)
    session.commits(*range(3, 20), text=None)
    session.commits(*range(3, 20), text="a")
    session.commit(*range(3, 20), offset=1 << 62)
    session.commits(0, topics=("t", "u"))
    session.commits()
    session.commits(0, topics=())
    session.commits(0, topics=("missing",))
    session.commits(0, topics=("t", "missing"))
    session.commits(40)
    session.commits(-1)
    session.commits(*range(36))
    session.commits(0, member=("nobody", -1))
    session.commits(0, member=("nobody", 3))
    session.commits(0, member=("", 3), group="nowhere")
    session.commits(0, group="g" * 300)
    session.commits(0, group="g" * 30_000)
    if session.version < 5:
        session.commits(0, retention_time_ms=1000)
        session.commits(0)


def _limits(session: Session) -> None:
    for number in range(7):
        session.commits(number)
    session.commits(0, text="longer")
    session.commits(0)
    session.commits(4, 5)
    session.commits(2, 3)
    session.commits(2, 3, text="longer")
    session.commits(2, 3)
    for group in ("h", "i", "j", "k"):
        session.commits(0, group=group)


def _classic(session: Session) -> None:
    member = session.joined()
    session.commits(0, member=member)  # the group is not assigned yet
    session.commits(1, 2, member=member)
    session.sync(member)
    for _ in range(3):
        session.commits(0, member=member)
        session.node.advance(3.0)
    session.commits(1, 2, member=member)
    session.commits(0)
    session.commits(0, member=(member[0], member[1] - 1))
    session.commits(0, member=(member[0], member[1] + 1))
    session.commits(0, member=("another", member[1]))
    if session.version >= 7:
        session.commits(0, member=member, group_instance_id="no such one")
    other = session.node.answer(session.join()).member_id
    session.join(other)
    session.node.settle()
    session.commits(0, member=member)  # while it is to join again
    session.commits(1, 2, member=member)
    again = session.join(member[0])
    generation = session.node.answer(again).generation_id
    session.commits(0, member=member)
    session.commits(0, member=(member[0], generation))
    session.sync((member[0], generation))
    session.commits(0, member=member)
    session.commits(1, 2, member=member)
    session.commits(1, 2, member=(member[0], generation))
    session.commits(0, member=(member[0], generation))
    session.commits(0, member=(other, generation))
    leaving = [MemberIdentity(member_id=one) for one in (other, member[0])]
    session.answer(LeaveGroupRequest(group_id="g", members=leaving), 4)
    session.commits(0, member=(member[0], generation))
    session.commits(0)


def _late(session: Session) -> None:
    member = session.joined()
    session.sync(member)
    session.commits(0, member=member)
    for seconds in (9.0, 9.0, 11.0):
        session.node.advance(seconds)
        session.commits(0, member=member)


def _static(session: Session) -> None:
    static = {"group_instance_id": "one"}
    member = session.joined(**static)
    session.sync(member)
    if session.version < 7:
        static = {}
    session.commits(0, member=member, **static)
    session.commits(0, member=member)
    again = session.joined(group_instance_id="one")
    session.sync(again)
    session.commits(0, member=member, **static)
    session.commits(0, member=again, **static)


def _consumers(session: Session) -> None:
    one = session.beat("one")
    session.commits(0, member=one)
    session.commits(0, member=(one[0], one[1] - 1))
    session.commits(0, member=(one[0], one[1] + 1))
    session.commits(0, member=("another", one[1]))
    session.commits(0)
    two = session.beat("two")
    session.commits(0, member=one)
    later = session.beat("one", one[1])
    for member in (one, later, two):
        session.commits(0, 39, member=member)
        session.commits(0, member=member)
        session.commits(39, member=member)
    session.beat("one", -1)
    session.beat("two", -1)
    session.commits(0, member=later)
    session.commits(0)


def _topics_come_and_go(session: Session) -> None:
    session.commits(0)
    session.commits(3)
    session.commits(2, 4)
    session.commits(0, topics=("u",))
    session.node.delete_topic("t")
    session.commits(2, 4)
    session.commits(0)
    session.node.settle()
    session.commits(0)
    former = session.ids["t"]
    session.ids["t"] = session.node.create_topic("t", 3)
    session.commits(0)
    session.commits(3)
    session.commits(2, 4)
    session.ids["t"] = former
    session.commits(0)
    session.restarted()
    for _ in range(2):
        session.commits(0)
        session.commits(0, topics=("u",))


def _known_elsewhere(session: Session) -> None:
    """What was committed on another node of this process."""
    roomy = {"request_partitions_max": "40", "group_offsets_bytes_max": "100000"}
    another = Session(session.version, "os", **roomy)
    member = another.joined()
    another.sync(member)
    another.commits(0, member=member)
    another.commits(0, 1, member=member)
    another.commits(0, group="h")
    another.commits(0, 1, group="h")
    another.commits(*range(36), group="wide")
    session.commits(*range(35), group="wide")
    session.commits(35, group="wide")
    session.commits(*range(36), group="wide")
    session.commits(0, group="h")
    session.commits(0, 1, group="h")
    session.commits(0, 1, member=member)
    session.commits(0, member=member)
    session.commits(0)
    session.commits(0, member=member)


def _in_transactions(session: Session) -> None:
    session.commits(0)
    request = InitProducerIdRequest(transactional_id="mine", transaction_timeout_ms=60_000)
    producer = session.answer(request, 4)
    who = {
        "transactional_id": "mine",
        "producer_id": producer.producer_id,
        "producer_epoch": producer.producer_epoch,
    }
    session.answer(AddOffsetsToTxnRequest(group_id="g", **who), 3)
    part = TxnOffsetCommitRequestPartition(
        partition_index=0, committed_offset=77, committed_metadata=""
    )
    topics = [TxnOffsetCommitRequestTopic(name="t", partitions=[part])]
    session.answer(TxnOffsetCommitRequest(group_id="g", topics=topics, **who), 3)
    session.commits(0)
    session.commits(1)
    session.commits(0, 1)


def _disk_fails(session: Session) -> None:
    member = session.joined()
    session.sync(member)
    session.commits(0, member=member)
    session.node.advance(3.0)
    session.node.disk.faults = [Fault("write", EIO)]
    session.commits(0, member=member)


STORIES = (
    _on_its_own,
    _limits,
    _classic,
    _late,
    _static,
    _consumers,
    _topics_come_and_go,
    _known_elsewhere,
    _in_transactions,
    _disk_fails,
)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("story", STORIES)
def test_a_commit_is_answered_written_and_kept_as_if_it_had_no_way_of_its_own(
    version: int, story: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each version with one policy or the other: every kind of layout has both.
    policy = "os" if version % 2 else "commit"
    options = {
        _limits: {"groups_max": "4", "group_offsets_bytes_max": "1100"},
        _known_elsewhere: {"group_offsets_bytes_max": "10000"},
    }.get(story, {})
    ways: list[bool] = []
    monkeypatch.setattr(offset_commit, "quick", _spied(offset_commit.quick, ways))

    def told() -> Any:
        session = Session(version, policy, **options)
        story(session)
        return session.whole()

    own, general = both_ways(monkeypatch, told, offset_commit)
    assert own == general
    assert any(ways) or (story is _consumers and version < 9), "none went the quick way"


def _spied(quick: Any, ways: list[bool]) -> Any:
    def spied(context: Any, version: int, body: Any) -> Any:
        ways.append(type(body) is tuple)
        return quick(context, version, body)

    return spied


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("numbers", [(0,), (2, 0, 1)])
def test_a_request_that_is_another_by_any_byte_is_read_as_the_decoder_reads_it(
    version: int, numbers: tuple[int, ...]
) -> None:
    session = Session(version, "os")
    session.commit(*numbers, leader_epoch=3)
    session.node.settle()
    assert known_count() == len(numbers) or version < 8
    parts = [OffsetCommitRequestPartition(partition_index=one) for one in numbers]
    topic = OffsetCommitRequestTopic(name="t", topic_id=session.ids["t"], partitions=parts)
    (whole,) = encoder(OffsetCommitRequest, version)(
        OffsetCommitRequest(group_id="g", topics=[topic])
    )
    assert type(whole) is bytes
    changed = [whole[:end] for end in range(len(whole))]
    changed += [whole + b"\0" * more for more in range(40)]
    for at in range(len(whole)):
        changed += [
            whole[:at] + bytes((byte,)) + whole[at + 1 :] for byte in (0, 1, 2, 3, 5, 0x80, 0xFF)
        ]
        changed += [whole[:at] + whole[at + 1 :], whole[:at] + b"\1" + whole[at:]]
    own, general = offset_commit.reader(version), decoder(OffsetCommitRequest, version)
    own_count = 0
    for one in changed:
        view = memoryview(b"head" + one)
        try:
            expected = general(view, 4)
        except CodecError:
            with pytest.raises(CodecError):
                own(view, 4)
            continue
        body, end = own(view, 4)
        if type(body) is tuple:
            own_count += 1
            usual, offsets, leader_epochs = body
            body = usual.body(offsets, leader_epochs)
            for part in expected[0].topics[0].partitions:
                part.committed_metadata = part.committed_metadata or ""  # null is the same
            body.topics[0].name = expected[0].topics[0].name
            body.topics[0].topic_id = expected[0].topics[0].topic_id
        assert (body, end) == expected
    assert own_count or (version < 8 and len(numbers) > 1)


def test_commits_of_one_topic_are_answered_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    done = answered_quickly(monkeypatch, offset_commit)
    session = Session(9, "os")
    member = session.joined()
    session.sync(member)
    session.commits(0, member=member)
    session.node.settle()
    session.commits(1, 2, 3, member=member)
    done.clear()
    session.commits(0, member=member)
    session.commits(1, 2, 3, member=member)
    assert done == [True] * 8


@pytest.mark.parametrize("partitions", [(0,), (0, 1)])
def test_what_has_the_same_id_on_another_node_of_the_process_is_known_by_its_own_name(
    partitions: tuple[int, ...],
) -> None:
    ids = set()
    for name in ("one", "another"):
        session = Session(10, "os", (name,))
        session.commits(*partitions, topics=(name,))
        ids.add(session.ids[name])
        groups = [shard.offsets.groups for shard in session.node.context.groups.shards()]
        assert [list(one["g"]) for one in groups if one] == [[name]]
    assert len(ids) == 1, "the same bytes were asked"


def test_i44_what_was_never_committed_is_not_remembered_and_of_what_was_not_too_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session = Session(9, "os", group_offsets_bytes_max="100000")
    session.node.settle()
    connection = session.node.connect()
    tracemalloc.start()
    try:
        for number in range(50):
            for group in (f"𝄞{number:04}".ljust(30_000, "x"), f"{number}"):
                part = OffsetCommitRequestPartition(partition_index=0, committed_metadata="")
                topic = OffsetCommitRequestTopic(name="none" * 5000, partitions=[part])
                connection.ask(OffsetCommitRequest(group_id=group, topics=[topic]), 9)
        session.node.settle()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 1_000_000
    assert not known_count()
    session.commits(0)
    session.commits(1, 2, 3)
    monkeypatch.setattr(offset_commit, "_KNOWN_MAX", 6)
    session.commits(4)
    session.commits(5)
    assert known_count() == 6
    session.commits(6)
    assert known_count() == 6
    session.commits(*range(7))
    assert known_count() == 7, "more than that at once: then of one request alone"


def test_what_was_known_first_is_forgotten_first_and_the_rest_stays_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session = Session(9, "os")
    session.node.settle()
    monkeypatch.setattr(offset_commit, "_KNOWN_MAX", 6)
    known = offset_commit._memory.of(9)
    session.commits(10, 11)
    for number in range(5):
        session.commits(number)
    assert [usual.place.partition for usual in known.one.values()] == [0, 1, 2, 3, 4]
    assert not known.several
    session.commits(5)
    session.commits(6)
    assert [usual.place.partition for usual in known.one.values()] == [1, 2, 3, 4, 5, 6]
    assert known_count() == 6
