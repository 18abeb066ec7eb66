"""Groups in which both protocols meet, and their move from one to the other and back."""

from typing import Any

import pytest

from ottla.coordinator.entries.offsets_topic import encode_entry
from ottla.coordinator.group import conversion, mixed
from ottla.coordinator.group.caller import Caller
from ottla.coordinator.group.classic import ClassicGroup
from ottla.coordinator.group.consumer_group import KEYS, ConsumerGroup
from ottla.coordinator.group.consumer_protocol import (
    ConsumerProtocolAssignment,
    ConsumerProtocolSubscription,
    OwnedPartitions,
    read_assignment,
    read_subscription,
    write_assignment,
)
from ottla.core.options import broker_config
from ottla.core.pending import Pending
from ottla.protocol.codec import encoder
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.heartbeat import HeartbeatRequest
from ottla.protocol.messages.join_group import JoinGroupRequest, JoinGroupRequestProtocol
from ottla.protocol.messages.leave_group import LeaveGroupRequest, MemberIdentity
from ottla.protocol.messages.sync_group import SyncGroupRequest, SyncGroupRequestAssignment
from ottla.records.builder import build_batch
from ottla.records.reader import Record
from tests.unit.coordinator.group.consumer_world import GROUP, World, given

OLD = Caller("old", "/127.0.0.1", 5)
ALL = write_assignment([("t", [0, 1, 2, 3])], 1)


Owned = tuple[int, ...] | dict[str, list[int]]
"""Partitions of topic t, or of several."""


def subscription(topics: list[str], owned: Owned, version: int = 1) -> bytes:
    by_topic = owned if isinstance(owned, dict) else {"t": list(owned)}
    held = [OwnedPartitions(topic=topic, partitions=each) for topic, each in by_topic.items()]
    held = [each for each in held if each.partitions]
    told = ConsumerProtocolSubscription(topics=topics, owned_partitions=held)
    return version.to_bytes(2, "big") + b"".join(
        encoder(ConsumerProtocolSubscription, version)(told)
    )


class Mixed(World):
    """A world in which clients of the classic protocol live, too."""

    def answered(self, decision: Any) -> Any:
        reply = self.do(decision)
        if isinstance(reply, Pending):
            assert reply.done, "it waits for others"
            return reply.result()
        return reply

    def ask_to_join(self, member: str = "", owned: Owned = (), **fields: Any) -> Any:
        metadata = subscription(fields.pop("topics", ["t"]), owned)
        protocols = [JoinGroupRequestProtocol(name="range", metadata=metadata)]
        told = {
            "group_id": GROUP,
            "member_id": member,
            "session_timeout_ms": 10_000,
            "rebalance_timeout_ms": 8000,
            "protocol_type": "consumer",
            "protocols": protocols,
        }
        return self.shard.join_group(JoinGroupRequest(**(told | fields)), OLD)

    def classic_join(self, member: str = "", owned: Owned = (), **fields: Any) -> Any:
        answer = self.answered(self.ask_to_join(member, owned, **fields))
        if answer.error_code == ErrorCode.MEMBER_ID_REQUIRED:
            return self.classic_join(answer.member_id, owned, **fields)
        return answer

    def classic_sync(self, member: str, generation: int, assign: bool = False) -> Any:
        mine = [SyncGroupRequestAssignment(member_id=member, assignment=ALL)] if assign else []
        request = SyncGroupRequest(
            group_id=GROUP,
            member_id=member,
            generation_id=generation,
            protocol_type="consumer",
            protocol_name="range",
            assignments=mine,
        )
        answer = self.answered(self.shard.sync_group(request, OLD))
        if answer.error_code:
            return ErrorCode(answer.error_code)
        told = read_assignment(bytes(answer.assignment))
        assert told is not None
        return {each.topic: each.partitions for each in told.assigned_partitions}

    def classic_beat(self, member: str, generation: int) -> ErrorCode:
        request = HeartbeatRequest(group_id=GROUP, member_id=member, generation_id=generation)
        return ErrorCode(self.answered(self.shard.heartbeat(request, OLD)).error_code)

    def classic_leave(self, member: str) -> ErrorCode:
        identity = MemberIdentity(member_id=member)
        request = LeaveGroupRequest(group_id=GROUP, members=[identity])
        told = self.answered(self.shard.leave_group(request, OLD._replace(version=4)))
        return ErrorCode(told.members[0].error_code)

    def classic_group(self) -> tuple[str, int]:
        """A classic group of one member that has all; its id and generation."""
        joined = self.classic_join()
        told = self.classic_sync(joined.member_id, joined.generation_id, assign=True)
        assert told == {"t": [0, 1, 2, 3]}
        return joined.member_id, joined.generation_id

    def classic_members(self):
        """How many members it has, which is a classic group."""
        group = self.shard.groups[GROUP]
        assert isinstance(group, ClassicGroup)
        return len(group.members)

    def kind(self) -> type:
        return type(self.shard.groups.get(GROUP))


class Restarting(Mixed):
    """After each decision that changes a consumer group, or makes one classic, there is a restart."""

    def do(self, decision: Any) -> Any:
        reply = super().do(decision)
        changed = any(isinstance(entry.key, KEYS) for entry in decision.entries)
        if changed and not isinstance(reply, Pending):
            self.restart()
        return reply


@pytest.fixture(params=[Mixed, Restarting])
def world(request):
    return request.param({"t": 4})


def test_a_classic_group_is_taken_over_with_what_its_members_have(world):
    old, generation = world.classic_group()
    answer = world.join("new", "t")
    assert (answer.member_epoch, given(answer)) == (generation + 1, {})
    assert world.kind() is ConsumerGroup
    member = world.group.members[old]
    assert (member.epoch, member.classic.session_ms) == (generation, 10_000)
    assert world.group.state == "Reconciling"


def test_i36_a_classic_member_gives_up_by_joining_again_without_what_it_shall_not_have(world):
    old, generation = world.classic_group()
    world.join("new", "t")
    assert world.classic_beat(old, generation) == ErrorCode.REBALANCE_IN_PROGRESS
    joined = world.classic_join(old, (0, 1, 2, 3))
    assert joined.generation_id == generation
    assert world.classic_sync(old, generation) == {"t": [0, 1]}
    assert given(world.beat("new", generation + 1)) is None
    assert world.classic_beat(old, generation) == ErrorCode.REBALANCE_IN_PROGRESS
    joined = world.classic_join(old, (0, 1))
    assert joined.generation_id == generation + 1
    assert world.classic_beat(old, generation + 1) == ErrorCode.NONE
    assert given(world.beat("new", generation + 1)) == {"t": [2, 3]}
    assert world.group.state == "Stable"


def test_whoever_waits_in_a_classic_group_is_told_to_join_again_when_it_is_taken_over():
    world = Mixed({"t": 4})
    old, _ = world.classic_group()
    first = world.do(world.ask_to_join())
    assert first.error_code == ErrorCode.MEMBER_ID_REQUIRED
    waiting = world.do(world.ask_to_join(first.member_id))
    assert not waiting.done
    world.join("new", "t")
    assert waiting.result().error_code == ErrorCode.REBALANCE_IN_PROGRESS
    assert set(world.group.members) == {old, first.member_id, "new"}


def test_the_group_is_classic_again_when_the_last_of_the_other_protocol_leaves(world):
    old, generation = world.classic_group()
    world.join("new", "t")
    world.classic_join(old, (0, 1))
    world.beat("new", -1)
    assert world.kind() is ClassicGroup
    world.pass_ms(1)
    assert world.classic_beat(old, generation + 1) == ErrorCode.REBALANCE_IN_PROGRESS
    joined = world.classic_join(old)
    assert joined.generation_id == generation + 2
    assert world.classic_sync(old, joined.generation_id, assign=True) == {"t": [0, 1, 2, 3]}


def test_a_classic_member_that_is_left_alone_and_silent_is_out_after_its_session(world):
    old, _ = world.classic_group()
    world.join("new", "t")
    world.classic_join(old, (0, 1))
    world.beat("new", -1)
    world.pass_ms(1)
    world.pass_ms(60_000)
    assert not world.classic_members()


def test_a_classic_member_joins_a_consumer_group(world):
    world.join("new", "t")
    joined = world.classic_join()
    assert (joined.error_code, joined.generation_id, joined.leader) == (0, 3, "")
    old = joined.member_id
    assert world.classic_sync(old, 3) == {}
    assert given(world.beat("new", 2)) == {"t": [0, 1]}
    assert world.classic_beat(old, 3) == ErrorCode.NONE
    world.beat("new", 2, owned={"t": [0, 1]})
    assert world.classic_beat(old, 3) == ErrorCode.REBALANCE_IN_PROGRESS
    assert world.classic_join(old).generation_id == 3
    assert world.classic_sync(old, 3) == {"t": [2, 3]}


def test_a_member_that_was_told_to_join_and_does_not_is_out():
    world = Mixed({"t": 4})
    old, generation = world.classic_group()
    world.join("new", "t")
    for _ in range(5):
        world.classic_beat(old, generation)
        world.pass_ms(1900)
    assert set(world.group.members) == {"new"}
    assert given(world.beat("new", world.group.members["new"].epoch)) == {"t": [0, 1, 2, 3]}


def test_members_leave_by_either_protocol(world):
    world.join("new", "t")
    world.join("newer", "t")
    old = world.classic_join().member_id
    assert world.classic_leave("stranger") == ErrorCode.UNKNOWN_MEMBER_ID
    assert world.classic_leave(old) == ErrorCode.NONE
    assert world.classic_leave("newer") == ErrorCode.NONE
    assert set(world.group.members) == {"new"}


@pytest.mark.parametrize("session_ms", [1, 1 << 30])
def test_a_classic_session_out_of_bounds_is_refused_by_a_consumer_group_too(world, session_ms):
    world.join("new", "t")
    refused = world.classic_join("mine", session_timeout_ms=session_ms)
    assert (refused.error_code, refused.member_id) == (ErrorCode.INVALID_SESSION_TIMEOUT, "mine")
    assert set(world.group.members) == {"new"}


def test_what_a_classic_member_may_not_ask_of_a_consumer_group(world):
    world.join("new", "t")
    wrong = world.classic_join(protocol_type="connect")
    assert wrong.error_code == ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    nothing = world.classic_join(protocols=[])
    assert nothing.error_code == ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    strange = [JoinGroupRequestProtocol(name="range", metadata=b"\0")]
    assert world.classic_join(protocols=strange).error_code
    assert world.classic_beat("new", 2) == ErrorCode.UNKNOWN_MEMBER_ID
    assert world.classic_sync("new", 2) == ErrorCode.UNKNOWN_MEMBER_ID
    old = world.classic_join().member_id
    assert world.classic_sync(old, 99) == ErrorCode.ILLEGAL_GENERATION
    assert world.classic_beat(old, 99) == ErrorCode.ILLEGAL_GENERATION


def test_an_empty_group_stays_what_it_was_until_it_is_written_that_it_is_another():
    world = Mixed({"t": 4})
    world.join("a", "t")
    world.beat("a", -1)
    was = world.group
    decision = world.ask_to_join()
    assert world.shard.groups[GROUP] is was
    assert world.answered(decision).error_code == ErrorCode.MEMBER_ID_REQUIRED
    assert isinstance(world.shard.groups[GROUP], ClassicGroup)


def test_an_empty_group_becomes_what_its_next_member_speaks():
    world = Mixed({"t": 4})
    world.join("new", "t")
    world.beat("new", -1)
    refused = world.classic_join(session_timeout_ms=1)
    assert refused.error_code == ErrorCode.INVALID_SESSION_TIMEOUT
    assert world.kind() is ConsumerGroup
    old = world.classic_join().member_id
    assert world.kind() is ClassicGroup
    world.classic_leave(old)
    assert given(world.join("new", "t")) == {"t": [0, 1, 2, 3]}
    assert world.kind() is ConsumerGroup


def test_h105_a_static_member_of_either_kind_takes_the_place_of_the_other(world):
    world.join("new", "t", instance_id="i")
    joined = world.classic_join(group_instance_id="i")
    assert world.kind() is ClassicGroup
    world.pass_ms(1)
    assert world.shard.groups[GROUP].members.get(joined.member_id)
    answer = world.join("newer", "t", instance_id="i")
    assert given(answer) == {"t": [0, 1, 2, 3]}
    assert set(world.group.members) == {"newer"}


@pytest.mark.parametrize(
    ("policy", "up", "down"),
    [("disabled", False, False), ("upgrade", True, False), ("downgrade", False, True)],
)
def test_the_migration_policy_says_which_way_a_group_may_go(policy, up, down):
    world = Mixed({"t": 4}, group_consumer_migration_policy=policy)
    world.classic_group()
    assert (world.join("new", "t").error_code == ErrorCode.NONE) == up
    world = Mixed({"t": 4}, group_consumer_migration_policy=policy)
    world.join("new", "t")
    joined = world.classic_join()
    assert (joined.error_code == ErrorCode.NONE) == (policy != "disabled")
    world.beat("new", -1)
    assert (world.kind() is ClassicGroup) == down


def test_connect_and_assignors_of_their_own_are_not_taken_over():
    world = Mixed({"t": 4})
    connect = [JoinGroupRequestProtocol(name="x", metadata=b"opaque")]
    world.classic_join(protocol_type="connect", protocols=connect)
    assert world.join("new", "t").error_code == ErrorCode.GROUP_ID_NOT_FOUND
    own = Mixed({"t": 4})
    joined = own.classic_join()
    data = ConsumerProtocolAssignment(user_data=b"mine")
    assignment = b"\0\1" + b"".join(encoder(ConsumerProtocolAssignment, 1)(data))
    request = SyncGroupRequest(
        group_id=GROUP,
        member_id=joined.member_id,
        generation_id=joined.generation_id,
        protocol_type="consumer",
        protocol_name="range",
        assignments=[SyncGroupRequestAssignment(member_id=joined.member_id, assignment=assignment)],
    )
    own.do(own.shard.sync_group(request, OLD))
    assert own.join("new", "t").error_code == ErrorCode.GROUP_ID_NOT_FOUND


def test_a_group_that_only_committed_becomes_one_of_members_and_keeps_its_offsets():
    from tests.unit.coordinator.group.test_consumer_group import commit

    world = Mixed({"t": 4})
    assert commit(world, "", -1, 0) == ErrorCode.NONE
    assert given(world.join("new", "t")) == {"t": [0, 1, 2, 3]}
    world.restart()
    assert world.kind() is ConsumerGroup
    assert world.shard.offsets.find(GROUP, "t", 0) is not None


@pytest.mark.parametrize("version", [0, 1, 2, 3, 9])
def test_what_consumers_say_is_read_in_every_version(version):
    told = read_subscription(
        version.to_bytes(2, "big") + subscription(["t"], [1], min(version, 3))[2:]
    )
    assert told is not None
    assert told.topics == ["t"]
    assert bool(told.owned_partitions) == (version > 0)


@pytest.mark.parametrize("data", [b"", b"\0", b"\xff\xff", b"\0\1", b"\0\0\x7f\xff\xff\xff"])
def test_what_is_no_subscription_is_none(data):
    assert read_subscription(data) is None


@pytest.mark.parametrize("kind_of_world", [Mixed, Restarting])
def test_i37_classic_members_alone_get_what_the_last_one_of_the_new_protocol_had(kind_of_world):
    world = kind_of_world({"t": 4}, group_consumer_migration_policy="upgrade")
    world.join("new", "t")
    old = world.classic_join()
    generation = old.generation_id
    assert world.classic_sync(old.member_id, generation) == {}
    world.beat("new", -1)
    assert world.kind() is ConsumerGroup, "it may not become a classic one"
    assert world.classic_beat(old.member_id, generation) == ErrorCode.REBALANCE_IN_PROGRESS
    again = world.classic_join(old.member_id)
    told = world.classic_sync(old.member_id, again.generation_id)
    assert told == {"t": [0, 1, 2, 3]}
    assert world.classic_beat(old.member_id, again.generation_id) == ErrorCode.NONE


def test_i37_a_group_too_large_for_one_batch_as_a_classic_one_stays_as_it_is(world):
    world.config = broker_config(
        {"group.consumer.assignment.interval.ms": "0", "message.max.bytes": str(1024 + 2000)}
    )
    world.restart()
    world.join("new", "t")
    patient = {"session_timeout_ms": 60_000, "rebalance_timeout_ms": 60_000}
    joined = [world.classic_join(topics=["t", "x" * 249], **patient) for _ in range(6)]
    world.pass_ms(44_000)
    for old in joined:
        world.classic_beat(old.member_id, old.generation_id)
    before = len(world.log)
    world.pass_ms(1001)  # nobody has heard of the new one for too long
    assert world.kind() is ConsumerGroup
    assert set(world.group.members) == {old.member_id for old in joined}
    written = sum(len(key) + len(value or b"") for key, value in world.log[before:])
    assert written <= 2000


def test_what_makes_a_group_classic_is_never_more_than_was_reckoned(world, monkeypatch):
    reckoned: list[int] = []

    def reckon(draft, members):
        reckoned.append(conversion.bytes_as_classic(draft, members))
        return reckoned[-1]

    monkeypatch.setattr(mixed, "bytes_as_classic", reckon)
    world.join("new", "t")
    for _ in range(6):
        world.classic_join(topics=["t", "x" * 249])
    written: list[int] = []
    do = world.do

    def weigh(decision):
        records = [Record(*encode_entry(entry), 1) for entry in decision.entries]
        written.append(len(build_batch(records)) if records else 0)
        return do(decision)

    monkeypatch.setattr(world, "do", weigh)
    world.beat("new", -1)
    assert world.kind() is ClassicGroup
    assert reckoned[0] < 8000
    assert 0.7 * reckoned[0] < written[0] <= reckoned[0] + 61


def test_i37_whoever_joins_as_soon_as_the_group_is_classic_again_is_not_kept_waiting(world):
    old, _ = world.classic_group()
    world.join("new", "t")
    world.classic_join(old, (0, 1))
    world.beat("new", -1)
    assert world.kind() is ClassicGroup
    joined = world.classic_join(old)  # at once
    assert (joined.error_code, joined.leader) == (ErrorCode.NONE, old)
    assert world.classic_sync(old, joined.generation_id, assign=True) == {"t": [0, 1, 2, 3]}
    world.pass_ms(60_000)
    assert not world.classic_members()


def test_i37_whoever_leaves_as_soon_as_the_group_is_classic_again_leaves_no_round_without_end():
    world = Mixed({"t": 4})
    world.join("new", "t")
    first, second = world.classic_join().member_id, world.classic_join().member_id
    world.beat("new", -1)
    assert world.kind() is ClassicGroup
    assert world.classic_leave(first) == ErrorCode.NONE  # at once
    joined = world.classic_join(second)
    assert (joined.error_code, joined.leader) == (ErrorCode.NONE, second)
    world.pass_ms(60_000)
    assert not world.classic_members()


def test_the_group_is_classic_again_when_one_leaves_and_only_classic_members_are_left(world):
    world.join("new", "t")
    old = world.classic_join()
    world.classic_join("new")
    assert world.kind() is ConsumerGroup
    world.classic_leave("new")
    assert world.kind() is ClassicGroup
    again = world.classic_beat(old.member_id, old.generation_id)
    assert again == ErrorCode.REBALANCE_IN_PROGRESS
