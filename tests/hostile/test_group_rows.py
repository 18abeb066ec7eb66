"""The rows of the hostile table about groups and their members, through a broker on a real socket.

What is expected is the table's column "Ours". After each row the next well-formed connection works,
and the broker's memory and open files are back. Rows about committed offsets: test_offset_rows.py.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from ottla.protocol.errors import ErrorCode as E
from ottla.protocol.messages.consumer_group_heartbeat import ConsumerGroupHeartbeatRequest
from ottla.protocol.messages.delete_groups import DeleteGroupsRequest
from ottla.protocol.messages.describe_groups import DescribeGroupsRequest
from ottla.protocol.messages.find_coordinator import FindCoordinatorRequest
from ottla.protocol.messages.heartbeat import HeartbeatRequest
from ottla.protocol.messages.join_group import JoinGroupRequest, JoinGroupRequestProtocol
from ottla.protocol.messages.leave_group import LeaveGroupRequest, MemberIdentity
from ottla.protocol.messages.sync_group import SyncGroupRequest, SyncGroupRequestAssignment
from tests.hostile.conftest import Start
from tests.hostile.test_offset_rows import codes, commit
from tests.hostile.wire import WELL, Peer, Victim, request

MEMBERS_MAX = 3
SAID_MAX = 1 << 14
ROUNDS_MAX = 60
SESSION_MS = 30_000
HASTY_MS = 1000


@pytest.fixture(scope="module")
def broker(start: Start) -> Victim:
    victim = start(
        "request.partitions.max=1000",
        "offsets.topic.num.partitions=1",
        f"group.max.size={MEMBERS_MAX}",
        f"group.consumer.max.size={MEMBERS_MAX}",
        f"group.metadata.bytes.max={SAID_MAX}",
        f"group.rebalances.per.minute.max={ROUNDS_MAX}",
    )
    with victim.peer() as peer:
        assert codes(peer.ask(commit("warm", 1), 8)) == {0}
    victim.remember()
    return victim


@pytest.fixture(autouse=True)
def unharmed(broker: Victim) -> Iterator[None]:
    yield
    broker.unharmed()


class Member:
    """One client of a classic group, on a connection of its own."""

    def __init__(self, peer: Peer, group: str) -> None:
        self.peer = peer
        self.group = group
        self.id = ""
        self.generation = -1

    def joining(self, metadata: bytes = b"mine", **more: Any) -> JoinGroupRequest:
        given = {
            "session_timeout_ms": SESSION_MS,
            "rebalance_timeout_ms": SESSION_MS,
            "protocol_type": "connect",
            "protocols": [JoinGroupRequestProtocol(name="range", metadata=metadata)],
            "member_id": self.id,
        }
        return JoinGroupRequest(group_id=self.group, **(given | more))

    def join(self, version: int = 5, **more: Any) -> int:
        """Join; the error code. Up to version 3 no promise comes first (KIP-394)."""
        answer = self.peer.ask(self.joining(**more), version)
        self.id = answer.member_id or self.id
        self.generation = answer.generation_id
        return int(answer.error_code)

    def sync(self, assignments: dict[str, bytes] | None = None, **more: Any) -> Any:
        given = {"member_id": self.id, "generation_id": self.generation} | more
        told = [
            SyncGroupRequestAssignment(member_id=member, assignment=data)
            for member, data in (assignments or {}).items()
        ]
        return self.peer.ask(SyncGroupRequest(group_id=self.group, assignments=told, **given), 3)

    def beat(self, **more: Any) -> int:
        given = {"member_id": self.id, "generation_id": self.generation} | more
        return int(self.peer.ask(HeartbeatRequest(group_id=self.group, **given), 3).error_code)

    def leave(self) -> int:
        leaving = [MemberIdentity(member_id=self.id)]
        asked = LeaveGroupRequest(group_id=self.group, members=leaving)
        return int(self.peer.ask(asked, 3).members[0].error_code)


@pytest.fixture
def peer(broker: Victim) -> Iterator[Peer]:
    with broker.peer() as one:
        yield one


@pytest.fixture
def other(broker: Victim) -> Iterator[Peer]:
    with broker.peer() as one:
        yield one


def stable(peer: Peer, group: str, **more: Any) -> Member:
    """A group with one member, which has its assignment."""
    member = Member(peer, group)
    assert member.join(3 if "group_instance_id" not in more else 5, **more) == 0
    assert member.sync({member.id: b"all"}).error_code == 0
    return member


def heartbeat(group: str, epoch: int = 0, **more: Any) -> ConsumerGroupHeartbeatRequest:
    first = {"rebalance_timeout_ms": SESSION_MS, "topic_partitions": []} if epoch == 0 else {}
    if epoch == 0 and "subscribed_topic_regex" not in more:
        first["subscribed_topic_names"] = [WELL]
    given = {"member_id": "m"} | first | more
    return ConsumerGroupHeartbeatRequest(group_id=group, member_epoch=epoch, **given)


def test_h98_the_empty_group_has_no_members(peer: Peer) -> None:
    member = Member(peer, "")
    assert member.join() == E.INVALID_GROUP_ID
    assert member.sync().error_code == E.INVALID_GROUP_ID
    assert member.beat() == E.INVALID_GROUP_ID
    assert peer.ask(heartbeat(""), 1).error_code == E.INVALID_REQUEST


@pytest.mark.parametrize("timeout_ms", [-(2**31), -1, 0, 5999, 1_800_001, 2**31 - 1])
def test_h99_session_timeouts_have_bounds(peer: Peer, timeout_ms: int) -> None:
    member = Member(peer, "h99")
    assert member.join(session_timeout_ms=timeout_ms) == E.INVALID_SESSION_TIMEOUT


def test_h100_a_member_without_an_id_is_promised_one_and_promises_are_capped(peer: Peer) -> None:
    for _ in range(MEMBERS_MAX):
        assert Member(peer, "h100").join() == E.MEMBER_ID_REQUIRED
    assert Member(peer, "h100").join() == E.GROUP_MAX_SIZE_REACHED


def test_h101_a_group_takes_so_many_members_and_no_more(broker: Victim) -> None:
    for number in range(MEMBERS_MAX + 1):
        with broker.peer() as peer:
            answer = peer.ask(heartbeat("h101", member_id=f"m{number}"), 1)
            full = number == MEMBERS_MAX
            assert answer.error_code == (E.GROUP_MAX_SIZE_REACHED if full else 0)


def test_h101_a_node_begins_so_many_groups_and_no_more_whatever_begins_them(start: Start) -> None:
    crowded = start("groups.max=2", "offsets.topic.num.partitions=3")
    with crowded.peer() as peer:
        for group in "ab":
            assert codes(peer.ask(commit(f"only-{group}", 1), 8)) == {0}
            stable(peer, group)
        many = E.GROUP_MAX_SIZE_REACHED
        assert codes(peer.ask(commit("only-c", 1), 8)) == {many}
        assert Member(peer, "c").join(3) == many
        assert peer.ask(heartbeat("c"), 1).error_code == many
        assert codes(peer.ask(commit("only-a", 2), 8)) == {0}, "what there is goes on"
    crowded.well()
    assert "group.max" in crowded.broker.said(), "a limit that is reached is logged"


def test_h102_strangers_and_wrong_generations_are_told_so(peer: Peer) -> None:
    member = stable(peer, "h102")
    assert member.sync(member_id="stranger").error_code == E.UNKNOWN_MEMBER_ID
    assert member.beat(member_id="stranger") == E.UNKNOWN_MEMBER_ID
    for generation in (-1, member.generation + 1, 2**31 - 1):
        assert member.sync(generation_id=generation).error_code == E.ILLEGAL_GENERATION
        assert member.beat(generation_id=generation) == E.ILLEGAL_GENERATION
        if generation >= 0:
            late = {"member_id": member.id, "generation_id_or_member_epoch": generation}
            assert codes(peer.ask(commit("h102", 5, **late), 7)) == {E.ILLEGAL_GENERATION}
    assert member.beat() == 0


def test_h108_who_does_not_join_again_holds_others_up_until_the_timeout_and_no_longer(
    peer: Peer, other: Peer
) -> None:
    hasty = {"rebalance_timeout_ms": HASTY_MS}
    silent, newcomer = stable(peer, "h108", **hasty), Member(other, "h108")
    assert newcomer.join(**hasty) == E.MEMBER_ID_REQUIRED
    assert newcomer.join(**hasty) == 0, "answered once the silent one's time is up"
    assert silent.beat() == E.UNKNOWN_MEMBER_ID


def test_h103_a_heartbeat_tells_of_a_rebalance(peer: Peer, other: Peer) -> None:
    member = stable(peer, "h103")
    newcomer = Member(other, "h103")
    assert newcomer.join() == E.MEMBER_ID_REQUIRED
    other.send(request(newcomer.joining(), 5))
    while (told := member.beat()) == 0:
        peer.ping()
    assert told == E.REBALANCE_IN_PROGRESS
    assert member.join() == 0
    other.answer()


def test_h104_who_speaks_another_protocol_may_not_join(peer: Peer, other: Peer) -> None:
    stable(peer, "h104")
    strange = E.INCONSISTENT_GROUP_PROTOCOL
    for wrong in (
        {"protocol_type": "consumer"},
        {"protocol_type": ""},
        {"protocols": []},
        {"protocols": [JoinGroupRequestProtocol(name="unheard-of", metadata=b"")]},
    ):
        assert Member(other, "h104").join(3, **wrong) == strange
    assert Member(other, "h104-new").join(3, protocols=[]) == strange


def test_h105_of_two_that_say_they_are_one_instance_the_first_is_fenced(
    peer: Peer, other: Peer
) -> None:
    first = stable(peer, "h105", group_instance_id="i")
    second = Member(other, "h105")
    assert second.join(group_instance_id="i") == 0
    fenced = E.FENCED_INSTANCE_ID
    assert first.beat(group_instance_id="i") == fenced
    assert first.sync(group_instance_id="i").error_code == fenced
    mine = {"member_id": first.id, "generation_id_or_member_epoch": first.generation}
    again = commit("h105", 5, group_instance_id="i", **mine)
    assert codes(peer.ask(again, 7)) == {fenced}
    assert peer.ask(heartbeat("h105-new", instance_id="i"), 1).error_code == 0
    twice = other.ask(heartbeat("h105-new", member_id="n", instance_id="i"), 1)
    assert twice.error_code == E.UNRELEASED_INSTANCE_ID


def test_h106_assignments_for_strangers_are_ignored_and_too_large_ones_refused(peer: Peer) -> None:
    member = Member(peer, "h106")
    assert member.join(3) == 0
    assert member.sync({"stranger": b"x" * 100}).assignment == b""
    assert member.join(3) == 0
    refused = member.sync({member.id: b"x" * (1 << 20)})  # more than a record may be
    assert refused.error_code == E.UNKNOWN_SERVER_ERROR


def test_h106_what_members_say_together_is_capped_in_groups_of_both_kinds(peer: Peer) -> None:
    assert Member(peer, "h106-said").join(3, metadata=b"x" * (SAID_MAX + 1)) == (
        E.GROUP_MAX_SIZE_REACHED
    )
    names = [f"{number:03}-{'x' * 240}" for number in range(40)]
    first = heartbeat("h106-new", subscribed_topic_names=names)
    assert peer.ask(first, 1).error_code == 0
    second = heartbeat("h106-new", member_id="n", subscribed_topic_names=names)
    assert peer.ask(second, 1).error_code == E.GROUP_MAX_SIZE_REACHED


def test_h107_who_does_not_lead_assigns_nothing(peer: Peer, other: Peer) -> None:
    leader, follower = stable(peer, "h107"), Member(other, "h107")
    assert leader.leave() == 0
    leader.id = ""
    assert leader.join(3) == 0
    assert leader.sync({leader.id: b"all"}).assignment == b"all"
    follower.id, follower.generation = leader.id, leader.generation
    assert follower.sync({leader.id: b"stolen"}).assignment == b"all"


def test_h108_coming_and_going_without_end_leaves_nothing_behind(peer: Peer) -> None:
    began, rounds, took_s = time.monotonic(), 0, 0.0
    while took_s < 3 or rounds <= ROUNDS_MAX:
        member = Member(peer, "h108-flaps")
        assert member.join(3) == 0
        assert member.leave() == 0
        rounds, took_s = rounds + 1, time.monotonic() - began
    assert rounds <= ROUNDS_MAX + took_s * ROUNDS_MAX / 60 + 1
    (told,) = peer.ask(DescribeGroupsRequest(groups=["h108-flaps"]), 5).groups
    assert (told.group_state, told.members) == ("Empty", [])


@pytest.mark.parametrize(
    ("epoch", "wrong", "error"),
    [
        (-5, {}, E.INVALID_REQUEST),
        (0, {"rebalance_timeout_ms": -1}, E.INVALID_REQUEST),
        (0, {"topic_partitions": None}, E.INVALID_REQUEST),
        (0, {"subscribed_topic_names": None}, E.INVALID_REQUEST),
        (0, {"member_id": ""}, E.INVALID_REQUEST),
        (0, {"server_assignor": "unheard-of"}, E.UNSUPPORTED_ASSIGNOR),
        (0, {"subscribed_topic_regex": "(((("}, E.INVALID_REGULAR_EXPRESSION),
        (0, {"subscribed_topic_regex": "(" * 4096 + ")" * 4096}, E.INVALID_REGULAR_EXPRESSION),
        (0, {"subscribed_topic_regex": "(a{1000}){1000}"}, E.INVALID_REGULAR_EXPRESSION),
        (7, {}, E.GROUP_ID_NOT_FOUND),
    ],
)
def test_h110_a_heartbeat_that_is_wrong_begins_no_group(
    peer: Peer, epoch: int, wrong: dict[str, Any], error: E
) -> None:
    assert peer.ask(heartbeat("h110", epoch, **wrong), 1).error_code == error
    (deleted,) = peer.ask(DeleteGroupsRequest(groups_names=["h110"]), 2).results
    assert deleted.error_code == E.GROUP_ID_NOT_FOUND


def test_h110_an_epoch_ahead_is_fenced(peer: Peer) -> None:
    epoch = peer.ask(heartbeat("h110-ahead"), 1).member_epoch
    ahead = peer.ask(heartbeat("h110-ahead", epoch + 1), 1)
    assert ahead.error_code == E.FENCED_MEMBER_EPOCH


def test_h111_a_group_with_members_is_not_deleted(peer: Peer) -> None:
    member = stable(peer, "h111")
    assert peer.ask(heartbeat("h111-new"), 1).error_code == 0
    told = peer.ask(DeleteGroupsRequest(groups_names=["h111", "h111-new"]), 2).results
    assert [one.error_code for one in told] == [E.NON_EMPTY_GROUP] * 2
    assert member.beat() == 0


def test_h120_keys_are_capped_and_unknown_kinds_refused(peer: Peer) -> None:
    many = FindCoordinatorRequest(coordinator_keys=[f"g{number}" for number in range(1001)])
    for wrong in (many, FindCoordinatorRequest(coordinator_keys=["g"], key_type=9)):
        told = peer.ask(wrong, 6).coordinators
        assert {one.error_code for one in told} == {E.INVALID_REQUEST}
