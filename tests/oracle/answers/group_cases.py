"""Cases of classic groups: joining, syncing, staying, leaving, and being looked at.

Every group is a case's own, but for one that is only looked at. Member ids, which brokers make up,
become names in the order in which they were given out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ottla.protocol.messages.delete_groups import DeleteGroupsRequest
from ottla.protocol.messages.describe_groups import DescribeGroupsRequest
from ottla.protocol.messages.heartbeat import HeartbeatRequest
from ottla.protocol.messages.join_group import JoinGroupRequest, JoinGroupRequestProtocol
from ottla.protocol.messages.leave_group import LeaveGroupRequest, MemberIdentity
from ottla.protocol.messages.list_groups import ListGroupsRequest
from ottla.protocol.messages.sync_group import SyncGroupRequest, SyncGroupRequestAssignment
from ottla.protocol.schema import Message
from tests.oracle.answers.case import each, error, success
from tests.oracle.answers.offset_cases import a_group, commit, coordinated, fetch
from tests.oracle.answers.peer import Peer, encoded
from tests.processes import wait_until

JOIN, HEARTBEAT, LEAVE, SYNC, DESCRIBE, LIST, DELETE = 11, 12, 13, 14, 15, 16, 42
# What consumers say of themselves: version, topics, own data. Kafka's coordinator reads it, and
# never answers a join whose metadata it can't read.
SUBSCRIPTION = b"\0\0" + b"\0\0\0\1\0\1t" + b"\xff\xff\xff\xff"
RANGE, ROUND_ROBIN = ("range", SUBSCRIPTION), ("roundrobin", SUBSCRIPTION + b"more")
LONG_MS = 30_000


def join(member: str = "", *protocols: tuple[str, bytes], **more: Any) -> JoinGroupRequest:
    named = [
        JoinGroupRequestProtocol(name=name, metadata=data) for name, data in protocols or (RANGE,)
    ]
    given = {
        "session_timeout_ms": LONG_MS,
        "rebalance_timeout_ms": LONG_MS,
        "protocol_type": "consumer",
        "protocols": named,
    }
    return JoinGroupRequest(member_id=member, **(given | more))


class Actor:
    """A client of one group on a connection of its own, so that it can wait."""

    def __init__(self, cast: Cast) -> None:
        self.cast = cast
        self.peer = Peer(cast.peer.name, ":".join(map(str, cast.peer.address)))
        self.id = ""
        self.generation = -1
        self._asked: tuple[int, int] = (0, 0)

    def send(self, message: Message, version: int) -> None:
        self._asked = (message.KEY, version)
        body = encoded(message, version)
        self.peer.send(self.peer.frame(message.KEY, version, body, "answers"))

    def receive(self) -> Any:
        answer = self.peer.decoded(*self._asked, self.peer.receive())
        if "generation_id" in answer:
            self.id = answer["member_id"] or self.id
            self.generation = answer["generation_id"]
            self.cast.name(answer["member_id"])
        return answer

    def ask(self, message: Message, version: int) -> Any:
        self.send(message, version)
        return self.receive()

    def join(self, version: int, *protocols: tuple[str, bytes], **more: Any) -> Any:
        """All the way into a generation, member id first where that is asked for."""
        self.ask_to_join(version, *protocols, **more)
        return self.receive()

    def ask_to_join(self, version: int, *protocols: tuple[str, bytes], **more: Any) -> None:
        wanted = join(self.id, *protocols, group_id=self.cast.group, **more)
        if version >= 4 and not self.id and "group_instance_id" not in more:
            self.ask(wanted, version)
            wanted.member_id = self.id
        self.send(wanted, version)

    def sync(self, version: int, assignments: dict[str, bytes] | None = None, **more: Any) -> Any:
        self.ask_to_sync(version, assignments, **more)
        return self.receive()

    def ask_to_sync(
        self, version: int, assignments: dict[str, bytes] | None = None, **more: Any
    ) -> None:
        given = {
            "member_id": self.id,
            "generation_id": self.generation,
            "protocol_type": "consumer",
            "protocol_name": "range",
        } | more
        self.send(
            SyncGroupRequest(
                group_id=self.cast.group,
                assignments=[
                    SyncGroupRequestAssignment(member_id=member, assignment=data)
                    for member, data in (assignments or {}).items()
                ],
                **given,
            ),
            version,
        )

    def heartbeat(self, version: int = 4, **more: Any) -> Any:
        given = {"member_id": self.id, "generation_id": self.generation} | more
        return self.ask(HeartbeatRequest(group_id=self.cast.group, **given), version)


class Cast:
    """The actors of a case, and names for their ids."""

    def __init__(self, peer: Peer, group: str) -> None:
        self.peer = peer
        self.group = group
        self.actors: list[Actor] = []
        self.names: dict[str, str] = {}

    def actor(self) -> Actor:
        self.actors.append(Actor(self))
        return self.actors[-1]

    def name(self, member_id: str) -> None:
        if len(member_id) > 36:
            head, tail = member_id[:-36], f"id {len(self.names) + 1}"
            self.names.setdefault(member_id, head + tail)

    def told(self, value: Any) -> Any:
        """An answer with names instead of ids."""
        if isinstance(value, dict):
            return {key: self.told(one) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [self.told(one) for one in value]
        return self.names.get(value, value) if isinstance(value, str) else value

    def rebalancing(self) -> None:
        """Wait until a join that was sent on another connection has arrived."""

        def begun() -> bool:
            answer = self.peer.ask(DescribeGroupsRequest(groups=[self.group]), 5)
            return bool(answer["groups"][0]["group_state"] == "PreparingRebalance")

        wait_until(begun, "a rebalance")

    def known(self) -> None:
        """Wait until a new group can be described: Kafka gives an id before it has kept the group."""

        def there() -> bool:
            answer = self.peer.ask(DescribeGroupsRequest(groups=[self.group]), 5)
            return bool(answer["groups"][0]["group_state"] != "Dead")

        wait_until(there, "a group that is known")

    def describe(self, version: int = 6) -> Any:
        request = DescribeGroupsRequest(groups=[self.group], include_authorized_operations=True)
        return self.told(self.peer.ask(request, version))


@contextmanager
def cast(peer: Peer, group: str | None = None) -> Iterator[Cast]:
    made = Cast(peer, a_group(peer) if group is None else group)
    try:
        yield made
    finally:
        for actor in made.actors:
            actor.peer.close()


def stable(made: Cast, version: int = 9, **more: Any) -> Actor:
    """A group with one member, which has its assignment."""
    actor = made.actor()
    actor.join(version, **more)
    answer = actor.sync(5, {actor.id: b"mine"})
    assert answer["error_code"] == "none", answer
    return actor


# --- JoinGroup ---------------------------------------------------------------------------------


@success(JOIN)
def one_member(peer: Peer, version: int) -> Any:
    with cast(peer) as made:
        actor = made.actor()
        first = actor.join(version, RANGE, ROUND_ROBIN)
        return made.told([first, actor.sync(0, {actor.id: b"mine"}), made.describe()])


@success(JOIN)
def two_members_in_one_generation(peer: Peer, version: int) -> Any:
    with cast(peer) as made:
        leader, other = stable(made), made.actor()
        other.ask_to_join(version, ROUND_ROBIN, RANGE)
        made.rebalancing()
        beat = leader.heartbeat()
        again = leader.join(version, RANGE, ROUND_ROBIN)
        joined = other.receive()
        early = made.describe()
        other.ask_to_sync(5)
        mine = leader.sync(5, {leader.id: b"one", other.id: b"two", "stranger": b"three"})
        return made.told([beat, again, joined, early, mine, other.receive(), made.describe()])


@success(JOIN, range(4, 10))
def an_id_first(peer: Peer, version: int) -> Any:
    with cast(peer) as made:
        first = made.actor().ask(join(group_id=made.group), version)
        made.known()
        return made.told([first, made.describe()])


@success(JOIN, range(5, 10))
def a_static_member_that_is_back(peer: Peer, version: int) -> Any:
    with cast(peer) as made:
        former = stable(made, 9, group_instance_id="static")
        back = made.actor()
        again = back.join(version, group_instance_id="static")
        fenced = former.heartbeat(group_instance_id="static")
        unknown = former.heartbeat()
        mine = back.sync(5, group_instance_id="static")
        return made.told([again, fenced, unknown, mine, made.describe()])


@error(JOIN)
def a_static_member_of_another_protocol(peer: Peer, version: int) -> Any:
    with cast(peer) as made:
        actor = made.actor()
        actor.join(9, RANGE, ROUND_ROBIN, group_instance_id="static")
        actor.sync(5, {actor.id: b"mine"})
        back = made.actor()
        return made.told(back.join(version, ROUND_ROBIN, RANGE, group_instance_id="static"))


@error(JOIN)
def the_same_again(peer: Peer, version: int) -> Any:
    """The leader makes a new generation by it."""
    with cast(peer) as made:
        actor = stable(made)
        return made.told([actor.join(version), actor.join(version), actor.heartbeat()])


@error(JOIN, 0, 9)
def h98_no_group(peer: Peer, version: int) -> Any:
    with cast(peer) as made:
        return made.actor().ask(join(group_id=""), version)


@each(JOIN, none=0, short=5999, long=1_800_001, negative=-1)
def h99_session_timeout(peer: Peer, version: int, timeout_ms: int) -> Any:
    with cast(peer) as made:
        wanted = join(group_id=made.group, session_timeout_ms=timeout_ms)
        return made.actor().ask(wanted, version)


@error(JOIN, 4, 9)
def h100_without_a_member_id(peer: Peer, version: int) -> Any:
    with cast(peer) as made:
        return made.told(made.actor().ask(join(group_id=made.group), version))


@error(JOIN, 3, 9)
def h102_unknown_member(peer: Peer, version: int) -> Any:
    with cast(peer) as made:
        unknown = made.actor().ask(join("nobody", group_id=made.group), version)
        stable(made)
        return [unknown, made.actor().ask(join("nobody", group_id=made.group), version)]


@each(JOIN, none={"protocols": []}, type={"protocol_type": ""})
def h104_protocols_of_nothing(peer: Peer, version: int, given: dict[str, Any]) -> Any:
    with cast(peer) as made:
        return made.actor().ask(join(group_id=made.group, **given), version)


@each(JOIN, type={"protocol_type": "connect"}, protocol={"protocols": []})
def h104_other_protocols_than_the_group(peer: Peer, version: int, given: dict[str, Any]) -> Any:
    with cast(peer) as made:
        stable(made)
        return made.actor().ask(join(group_id=made.group, **given), version)


@error(JOIN)
def h104_a_protocol_that_no_other_knows(peer: Peer, version: int) -> Any:
    with cast(peer) as made:
        stable(made)
        return made.actor().ask(join("", ("sticky", b""), group_id=made.group), version)


@error(JOIN)
def h105_an_instance_under_a_wrong_id(peer: Peer, version: int) -> Any:
    with cast(peer) as made:
        stable(made, 9, group_instance_id="static")
        wanted = join("wrong", group_id=made.group, group_instance_id="static")
        return made.actor().ask(wanted, version)


# --- SyncGroup ---------------------------------------------------------------------------------


@success(SYNC)
def a_leader_and_again(peer: Peer, version: int) -> Any:
    with cast(peer) as made:
        actor = made.actor()
        actor.join(9)
        first = actor.sync(version, {actor.id: b"mine"})
        return made.told([first, actor.sync(version), made.describe()])


@success(SYNC)
def a_leader_that_assigns_nothing(peer: Peer, version: int) -> Any:
    with cast(peer) as made:
        actor = made.actor()
        actor.join(9)
        return made.told([actor.sync(version), made.describe()])


@error(SYNC, 0, 5)
def h98_sync_without_a_group(peer: Peer, version: int) -> Any:
    with cast(peer, "") as made:
        return made.actor().sync(version, member_id="m", generation_id=1)


@each(
    SYNC,
    member={"member_id": "nobody"},
    generation={"generation_id": 7},
    instance={"group_instance_id": "nobody"},
    protocol={"protocol_name": "other"},
    type={"protocol_type": "connect"},
    null={"protocol_name": None},
)
def h102_sync_with_a_wrong(peer: Peer, version: int, given: dict[str, Any]) -> Any:
    with cast(peer) as made:
        actor = stable(made)
        return made.told(actor.sync(version, None, **given))


@error(SYNC)
def h102_sync_of_an_unknown_group(peer: Peer, version: int) -> Any:
    with cast(peer) as made:
        return made.actor().sync(version, member_id="m", generation_id=1)


@error(SYNC)
def h103_sync_during_a_rebalance(peer: Peer, version: int) -> Any:
    with cast(peer) as made:
        leader, other = stable(made), made.actor()
        other.ask_to_join(9)
        made.rebalancing()
        return made.told([leader.sync(version), leader.heartbeat()])


@error(SYNC)
def h106_h107_assignments_by_who_does_not_lead(peer: Peer, version: int) -> Any:
    with cast(peer) as made:
        leader, other = stable(made), made.actor()
        other.ask_to_join(9)
        made.rebalancing()
        leader.join(9)
        other.receive()
        other.ask_to_sync(version, {other.id: b"all of it", leader.id: b"nothing"})
        mine = leader.sync(version, {"stranger": b"x", leader.id: b"one"})
        return made.told([mine, other.receive(), made.describe()])


@error(SYNC)
def a_wait_that_ends_in_a_rebalance(peer: Peer, version: int) -> Any:
    with cast(peer) as made:
        leader, other = stable(made), made.actor()
        other.ask_to_join(9)
        made.rebalancing()
        leader.join(9)
        other.receive()
        other.ask_to_sync(version)
        leader.ask_to_join(9, ROUND_ROBIN, RANGE)
        made.rebalancing()
        return made.told(other.receive())


# --- Heartbeat ---------------------------------------------------------------------------------


@success(HEARTBEAT)
def alive(peer: Peer, version: int) -> Any:
    with cast(peer) as made:
        actor = made.actor()
        actor.join(9)
        early = actor.heartbeat(version)
        actor.sync(5, {actor.id: b""})
        return [early, actor.heartbeat(version)]


@error(HEARTBEAT, 0, 4)
def h98_beat_without_a_group(peer: Peer, version: int) -> Any:
    with cast(peer, "") as made:
        return made.actor().heartbeat(version)


@each(
    HEARTBEAT,
    member={"member_id": "nobody"},
    generation={"generation_id": 7},
    negative={"generation_id": -1},
    instance={"group_instance_id": "nobody"},
)
def h102_beat_with_a_wrong(peer: Peer, version: int, given: dict[str, Any]) -> Any:
    with cast(peer) as made:
        return stable(made).heartbeat(version, **given)


@error(HEARTBEAT)
def h102_beat_of_an_unknown_group(peer: Peer, version: int) -> Any:
    with cast(peer) as made:
        return made.actor().heartbeat(version, member_id="m")


@error(HEARTBEAT)
def h103_beat_during_a_rebalance(peer: Peer, version: int) -> Any:
    with cast(peer) as made:
        leader, other = stable(made), made.actor()
        other.ask_to_join(9)
        made.rebalancing()
        return leader.heartbeat(version)


# --- LeaveGroup --------------------------------------------------------------------------------


def leave(made: Cast, version: int, *members: MemberIdentity) -> Any:
    request = LeaveGroupRequest(group_id=made.group, members=list(members))
    if version < 3 and members:
        request.member_id = members[0].member_id
    return made.told(made.peer.ask(request, version))


@success(LEAVE)
def the_last_one(peer: Peer, version: int) -> Any:
    with cast(peer) as made:
        actor = stable(made)
        gone = leave(made, version, MemberIdentity(member_id=actor.id, reason="enough"))
        return made.told([gone, actor.heartbeat(), made.describe()])


@success(LEAVE, range(3, 6))
def static_members_by_instance_and_strangers(peer: Peer, version: int) -> Any:
    with cast(peer) as made:
        stable(made, group_instance_id="static")
        stranger = MemberIdentity(member_id="nobody")
        nowhere = MemberIdentity(member_id="", group_instance_id="nowhere")
        wrong = MemberIdentity(member_id="wrong", group_instance_id="static")
        right = MemberIdentity(member_id="", group_instance_id="static")
        return [leave(made, version, stranger, nowhere, wrong, right, right), made.describe()]


@error(LEAVE, 2, 5)
def one_that_was_promised_a_place(peer: Peer, version: int) -> Any:
    with cast(peer) as made:
        actor = made.actor()
        actor.ask(join(group_id=made.group), 9)
        return leave(made, version, MemberIdentity(member_id=actor.id))


@error(LEAVE, 0, 2, 5)
def h98_leave_without_a_group(peer: Peer, version: int) -> Any:
    with cast(peer, "") as made:
        return leave(made, version, MemberIdentity(member_id="m"))


@error(LEAVE, 2, 5)
def h102_leave_an_unknown_group(peer: Peer, version: int) -> Any:
    with cast(peer) as made:
        return leave(made, version, MemberIdentity(member_id="m"))


@error(LEAVE)
def nobody_leaves(peer: Peer, version: int) -> Any:
    with cast(peer) as made:
        return leave(made, version)


# --- DescribeGroups ----------------------------------------------------------------------------


@success(DESCRIBE)
def a_stable_group_and_one_of_offsets_alone(peer: Peer, version: int) -> Any:
    with cast(peer) as made:
        stable(made)
        simple = coordinated(peer, f"{made.group}-simple")
        commit(peer, 8, simple, peer.topic())
        names = [made.group, simple]
        asked = DescribeGroupsRequest(groups=names, include_authorized_operations=True)
        plain = DescribeGroupsRequest(groups=names)
        return made.told([peer.ask(asked, version), peer.ask(plain, version)])


@success(DESCRIBE)
def no_group_that_is_there(peer: Peer, version: int) -> Any:
    names = [coordinated(peer, "not-there"), coordinated(peer, "neither")]
    return peer.ask(
        DescribeGroupsRequest(groups=names, include_authorized_operations=True), version
    )


@error(DESCRIBE, 0, 6)
def h98_describe_without_a_group(peer: Peer, version: int) -> Any:
    coordinated(peer, "x")
    return peer.ask(DescribeGroupsRequest(groups=[""]), version)


@error(DESCRIBE, 5, 6)
def the_same_group_twice(peer: Peer, version: int) -> Any:
    coordinated(peer, "not-there")
    return peer.ask(DescribeGroupsRequest(groups=["not-there", "not-there"]), version)


# --- ListGroups --------------------------------------------------------------------------------


def mine_of(made: Cast, answer: Any) -> Any:
    answer["groups"] = [one for one in answer["groups"] if made.group in one["group_id"]]
    answer["groups"].sort(key=lambda one: str(one["group_id"]))
    return answer


@success(LIST)
def those_of_the_case(peer: Peer, version: int) -> Any:
    with cast(peer) as made:
        stable(made)
        simple = coordinated(peer, f"{made.group}-simple")
        commit(peer, 8, simple, peer.topic())
        return mine_of(made, peer.ask(ListGroupsRequest(), version))


@each(
    LIST,
    state={"states_filter": ["STABLE"]},
    other={"states_filter": ["Empty", "dead"]},
    nonsense={"states_filter": ["nonsense"]},
    type={"types_filter": ["CLASSIC"]},
    consumers={"types_filter": ["consumer"]},
    both={"types_filter": ["classic"], "states_filter": ["Stable", "Empty"]},
)
def a_filter_by(peer: Peer, version: int, given: dict[str, Any]) -> Any:
    with cast(peer) as made:
        stable(made)
        simple = coordinated(peer, f"{made.group}-simple")
        commit(peer, 8, simple, peer.topic())
        return mine_of(made, peer.ask(ListGroupsRequest(**given), version))


@error(LIST)
def a_type_that_there_is_not(peer: Peer, version: int) -> Any:
    return peer.ask(ListGroupsRequest(types_filter=["nonsense"]), version)


# --- DeleteGroups ------------------------------------------------------------------------------


@success(DELETE)
def an_empty_one_and_what_it_committed(peer: Peer, version: int) -> Any:
    with cast(peer) as made:
        topic = peer.topic()
        commit(peer, 8, made.group, topic)
        actor = stable(made)
        leave(made, 5, MemberIdentity(member_id=actor.id))
        gone = peer.ask(DeleteGroupsRequest(groups_names=[made.group]), version)
        again = peer.ask(DeleteGroupsRequest(groups_names=[made.group]), version)
        return [gone, again, fetch(peer, 7, made.group, {topic: [0]}), made.describe()]


@success(DELETE)
def one_in_which_somebody_was_promised_a_place(peer: Peer, version: int) -> Any:
    with cast(peer) as made:
        actor = made.actor()
        promise = actor.ask(join(group_id=made.group), 9)
        made.known()
        gone = peer.ask(DeleteGroupsRequest(groups_names=[made.group]), version)
        late = actor.ask(join(actor.id, group_id=made.group), 9)
        return made.told([promise, gone, late, made.describe()])


@error(DELETE)
def one_that_came_to_nothing(peer: Peer, version: int) -> Any:
    with cast(peer) as made:
        actor = made.actor()
        promise = actor.ask(join(group_id=made.group), 9)
        made.known()
        gone = leave(made, 5, MemberIdentity(member_id=actor.id))
        answer = peer.ask(DeleteGroupsRequest(groups_names=[made.group]), version)
        return made.told([promise, gone, answer])


@error(DELETE)
def h111_a_live_one(peer: Peer, version: int) -> Any:
    with cast(peer) as made:
        actor = stable(made)
        answer = peer.ask(DeleteGroupsRequest(groups_names=[made.group]), version)
        return [answer, actor.heartbeat()]


@error(DELETE, 0, 2)
def h98_delete_without_a_group(peer: Peer, version: int) -> Any:
    coordinated(peer, "x")
    return peer.ask(DeleteGroupsRequest(groups_names=[""]), version)


@error(DELETE)
def one_of_offsets_alone_and_one_unknown(peer: Peer, version: int) -> Any:
    with cast(peer) as made:
        commit(peer, 8, made.group, peer.topic())
        names = [made.group, coordinated(peer, "not-there"), made.group]
        return peer.ask(DeleteGroupsRequest(groups_names=names), version)


# --- commits of members ------------------------------------------------------------------------


@error(8, 8)
def h102_commits_by_members_right_and_wrong(peer: Peer, version: int) -> Any:
    with cast(peer) as made:
        topic = peer.topic()
        actor = stable(made)
        who = {"member_id": actor.id, "generation_id_or_member_epoch": actor.generation}
        answers = [
            commit(peer, version, made.group, topic, **{**who, **given})
            for given in (
                {},
                {"generation_id_or_member_epoch": 7},
                {"member_id": "nobody"},
                {"member_id": "", "generation_id_or_member_epoch": -1},
                {"group_instance_id": "nobody"},
            )
        ]
        actor.join(9)
        late = commit(peer, version, made.group, topic, **who)
        who["generation_id_or_member_epoch"] = actor.generation
        return [answers, late, commit(peer, version, made.group, topic, **who)]
