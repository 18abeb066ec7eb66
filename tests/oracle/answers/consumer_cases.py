"""Cases of consumer groups (KIP-848), and of groups in which both protocols meet.

Every group is a case's own; members have the ids that they give themselves. Targets are computed
at once, by a setting of the group, so that nobody waits for a second to go by.
"""

from __future__ import annotations

from itertools import count
from typing import Any

from ottla.coordinator.group.consumer_protocol import (
    AssignedPartitions,
    ConsumerProtocolAssignment,
    ConsumerProtocolSubscription,
    OwnedPartitions,
)
from ottla.coordinator.runtime import java_hash
from ottla.protocol.messages.consumer_group_describe import ConsumerGroupDescribeRequest
from ottla.protocol.messages.consumer_group_heartbeat import (
    ConsumerGroupHeartbeatRequest,
    RequestTopicPartitions,
)
from ottla.protocol.messages.create_partitions import (
    CreatePartitionsRequest,
    CreatePartitionsTopic,
)
from ottla.protocol.messages.delete_groups import DeleteGroupsRequest
from ottla.protocol.messages.describe_groups import DescribeGroupsRequest
from ottla.protocol.messages.heartbeat import HeartbeatRequest
from ottla.protocol.messages.incremental_alter_configs import (
    AlterableConfig,
    AlterConfigsResource,
    IncrementalAlterConfigsRequest,
)
from ottla.protocol.messages.join_group import JoinGroupRequest, JoinGroupRequestProtocol
from ottla.protocol.messages.leave_group import LeaveGroupRequest, MemberIdentity
from ottla.protocol.messages.list_groups import ListGroupsRequest
from ottla.protocol.messages.sync_group import SyncGroupRequest, SyncGroupRequestAssignment
from tests.oracle.answers.case import each, error, success
from tests.oracle.answers.offset_cases import a_group, commit, fetch
from tests.oracle.answers.peer import Peer, encoded
from tests.processes import wait_until

BEAT, DESCRIBE = 68, 69
GROUP_RESOURCE, SET = 32, 0
LEAVE, LEAVE_FOR_NOW = -1, -2
SHARDS = 50


class Consumers:
    """One group, its topic of four partitions, and all that is asked of it, in order."""

    def __init__(self, peer: Peer, version: int = 1) -> None:
        self.peer = peer
        self.version = version
        self.group = a_group(peer)
        self.answers: list[Any] = []
        interval = AlterableConfig(
            name="consumer.assignment.interval.ms", config_operation=SET, value="0"
        )
        resource = AlterConfigsResource(
            resource_type=GROUP_RESOURCE, resource_name=self.group, configs=[interval]
        )
        answer = peer.ask(IncrementalAlterConfigsRequest(resources=[resource]), 1)
        assert answer["responses"][0]["error_code"] == "none", answer
        self._neighbours = count()
        # Kafka answers before the setting holds. It does where a topic is known that came later.
        self.topic = peer.topic(4)
        self.known(self.topic)

    def known(self, *topics: str) -> None:
        """Wait until the group's coordinator knows the topics: in Kafka each shard learns of them
        for itself. So other groups of the same shard are asked, a new one each time."""

        def ready() -> bool:
            group = next(
                name
                for name in (f"{self.group}-{number}" for number in self._neighbours)
                if java_hash(name) % SHARDS == java_hash(self.group) % SHARDS
            )
            request = ConsumerGroupHeartbeatRequest(
                group_id=group,
                member_id="a",
                rebalance_timeout_ms=1000,
                subscribed_topic_names=list(topics),
                topic_partitions=[],
            )
            told = self.peer.ask(request, 1)["assignment"]
            return told is not None and len(told["topic_partitions"]) == len(topics)

        wait_until(ready, f"a coordinator that knows {topics}")

    def beat(self, member: str, epoch: int, **fields: Any) -> Any:
        """A heartbeat; `owned` are partitions of the group's topic."""
        owned = fields.pop("owned", None)
        if owned is not None:
            topic_id = self.peer.id_of(fields.pop("topic", self.topic))
            parts = RequestTopicPartitions(topic_id=topic_id, partitions=owned)
            fields["topic_partitions"] = [parts] if owned else []
        given = {"group_id": self.group, "member_id": member, "member_epoch": epoch}
        request = ConsumerGroupHeartbeatRequest(**(given | fields))
        self.answers.append(self.peer.ask(request, self.version))
        return self.answers[-1]

    def join(self, member: str, *topics: str, **fields: Any) -> Any:
        given = {
            "rebalance_timeout_ms": 60_000,
            "subscribed_topic_names": list(topics or (self.topic,)),
            "owned": [],
        }
        return self.beat(member, 0, **(given | fields))

    def described(self, version: int = 1) -> Any:
        request = ConsumerGroupDescribeRequest(
            group_ids=[self.group], include_authorized_operations=True
        )
        answer = self.peer.ask(request, version)
        for group in answer["groups"]:
            for member in group["members"]:  # a set, in Kafka
                member["subscribed_topic_names"].sort()
        self.answers.append(answer)
        return answer

    def listed(self) -> None:
        answer = self.peer.ask(ListGroupsRequest(), 5)
        self.answers.append([one for one in answer["groups"] if one["group_id"] == self.group])

    def deleted(self) -> None:
        self.answers.append(self.peer.ask(DeleteGroupsRequest(groups_names=[self.group]), 2))

    def share(self) -> None:
        """Two members, each with its half: a with 0 and 1, b with 2 and 3."""
        self.join("a")
        self.join("b")
        self.beat("a", 2)
        self.beat("a", 2, owned=[0, 1])
        self.beat("b", 3)

    # --- members of the classic protocol ---------------------------------------------------

    def classic_join(self, member: str = "", owned: tuple[int, ...] = (), **fields: Any) -> Any:
        """All the way: the id first where it has none and no instance."""
        held = [OwnedPartitions(topic=self.topic, partitions=list(owned))] if owned else []
        told = ConsumerProtocolSubscription(topics=[self.topic], owned_partitions=held)
        protocol = JoinGroupRequestProtocol(name="range", metadata=b"\0\1" + encoded(told, 1))
        given = {
            "group_id": self.group,
            "member_id": member,
            "session_timeout_ms": 30_000,
            "rebalance_timeout_ms": 30_000,
            "protocol_type": "consumer",
            "protocols": [protocol],
        }
        answer = self.peer.ask(JoinGroupRequest(**(given | fields)), 9)
        if answer["error_code"] == "member_id_required":
            return self.classic_join(answer["member_id"], owned, **fields)
        self.answers.append(_nameless(answer))
        return answer

    def classic_sync(self, member: str, generation: int, assigned: bool = False) -> None:
        mine = [AssignedPartitions(topic=self.topic, partitions=[0, 1, 2, 3])]
        data = b"\0\1" + encoded(ConsumerProtocolAssignment(assigned_partitions=mine), 1)
        assignments = [SyncGroupRequestAssignment(member_id=member, assignment=data)]
        request = SyncGroupRequest(
            group_id=self.group,
            member_id=member,
            generation_id=generation,
            protocol_type="consumer",
            protocol_name="range",
            assignments=assignments if assigned else [],
        )
        self.answers.append(self.peer.ask(request, 5))

    def classic_beat(self, member: str, generation: int) -> Any:
        request = HeartbeatRequest(group_id=self.group, member_id=member, generation_id=generation)
        return self.peer.ask(request, 4)

    def classic_leave(self, member: str, instance: str | None = None) -> None:
        identity = MemberIdentity(member_id=member, group_instance_id=instance)
        request = LeaveGroupRequest(group_id=self.group, members=[identity])
        self.answers.append(_nameless(self.peer.ask(request, 5)))

    def classic_described(self) -> None:
        self.answers.append(self.peer.ask(DescribeGroupsRequest(groups=[self.group]), 6))


def _nameless(value: Any) -> Any:
    """Without the ids that brokers make up: only whether there is one."""
    if isinstance(value, dict):
        ids = ("member_id", "leader")
        return {
            key: bool(one) if key in ids and isinstance(one, str) else _nameless(one)
            for key, one in value.items()
        }
    return [_nameless(one) for one in value] if isinstance(value, list) else value


# --- ConsumerGroupHeartbeat --------------------------------------------------------------------


@success(BEAT)
def two_members_share(peer: Peer, version: int) -> Any:
    made = Consumers(peer, version)
    made.join("a")
    made.beat("a", 2)
    made.join("b")
    made.beat("a", 2)
    made.beat("b", 3)
    made.beat("a", 2, owned=[0, 1, 2, 3])
    made.beat("a", 2, owned=[0, 1])
    made.beat("b", 3)
    made.described()
    made.beat("a", 3, rebalance_timeout_ms=9, subscribed_topic_names=[made.topic], owned=[0, 1])
    made.beat("b", LEAVE)
    made.described()
    made.beat("a", 3)
    made.beat("a", LEAVE)
    made.described()
    made.listed()
    made.deleted()
    made.described()
    return made.answers


@success(BEAT)
def static_member(peer: Peer, version: int) -> Any:
    made = Consumers(peer, version)
    made.join("a", instance_id="i", rack_id="r")
    made.beat("a", 2, instance_id="i")
    made.beat("a", LEAVE_FOR_NOW, instance_id="i")
    made.described()
    made.join("b", instance_id="i")
    made.beat("b", 2, instance_id="i")
    made.described()
    made.beat("b", LEAVE, instance_id="i")
    return made.answers


@success(BEAT)
def changing_subscription(peer: Peer, version: int) -> Any:
    made = Consumers(peer, version)
    other = peer.topic(2)
    made.known(other)
    made.share()
    made.beat("b", 3, subscribed_topic_names=[other])
    made.beat("b", 3, owned=[])
    made.beat("b", 4)
    made.described()
    return made.answers


@success(BEAT)
def range_assignor(peer: Peer, version: int) -> Any:
    made = Consumers(peer, version)
    other = peer.topic(2)
    made.known(other)
    made.join("a", made.topic, other, server_assignor="range")
    made.join("b", made.topic, other, server_assignor="range")
    made.beat("a", 2)
    made.described()
    return made.answers


@success(BEAT)
def as_many_wishes_for_either_assignor(peer: Peer, version: int) -> Any:
    made = Consumers(peer, version)
    made.join("a", made.topic, server_assignor="range")
    made.join("b", made.topic, server_assignor="uniform")
    made.described()
    return made.answers


@success(BEAT)
def what_was_given_up_is_wanted_back(peer: Peer, version: int) -> Any:
    made = Consumers(peer, version)
    made.join("a", made.topic)
    made.beat("a", 2, subscribed_topic_names=[])
    made.beat("a", 2, subscribed_topic_names=[made.topic], owned=[])
    made.beat("a", 4)
    made.described()
    return made.answers


@error(BEAT)
def a_topic_that_comes_and_grows(peer: Peer, version: int) -> Any:
    made = Consumers(peer, version)
    later = f"{peer.case}-later"
    made.join("a", later)
    made.beat("a", 2)
    peer.make(later, 1, {})
    made.known(later)
    made.beat("a", 2)
    grown = CreatePartitionsTopic(name=later, count=3, assignments=None)
    peer.ask(CreatePartitionsRequest(topics=[grown], timeout_ms=10_000), 3)
    wait_until(lambda: peer._ready(later, 3), "three partitions")

    def grown_here() -> bool:
        return bool(made.beat("a", 3)["member_epoch"] == 4)

    wait_until(grown_here, "more partitions")
    del made.answers[3:-1]
    return made.answers


@error(BEAT)
def an_expression(peer: Peer, version: int) -> Any:
    """Once it is settled: Kafka needs one more heartbeat than ottla."""
    made = Consumers(peer, version)
    told = {"subscribed_topic_names": None, "subscribed_topic_regex": f"{made.topic}.*"}

    def settled() -> bool:
        answer = made.join("a", **told)
        return answer["error_code"] != "none" or bool(answer["assignment"]["topic_partitions"])

    wait_until(settled, "an assignment")
    del made.answers[:-1]
    made.described()
    made.beat("a", 2, subscribed_topic_regex="", subscribed_topic_names=[made.topic])
    made.described()
    return made.answers


@error(BEAT)
def members_that_begin_again(peer: Peer, version: int) -> Any:
    made = Consumers(peer, version)
    made.share()
    made.join("a")
    made.beat("a", LEAVE)
    made.join("a")
    return made.answers


FIRST: dict[str, dict[str, Any]] = {
    "no_rebalance_timeout": {"rebalance_timeout_ms": -1},
    "no_partitions": {"owned": None},
    "partitions": {"owned": [0]},
    "no_names": {"subscribed_topic_names": None},
    "empty_member": {"member_id": ""},
    "blank_member": {"member_id": " "},
    "empty_instance": {"instance_id": ""},
    "blank_rack": {"rack_id": " "},
    "assignor": {"server_assignor": "lucky"},
    "empty_assignor": {"server_assignor": ""},
    "expression": {"subscribed_topic_regex": "(x"},
    "back_reference": {"subscribed_topic_regex": r"(x)\1"},
}


@each(BEAT, **FIRST)
def h110_first_beat_with(peer: Peer, version: int, given: dict[str, Any]) -> Any:
    made = Consumers(peer, version)
    made.join("a", **given)
    made.described()
    return made.answers


@each(BEAT, five=-5, three=-3, for_now=LEAVE_FOR_NOW)
def h110_epoch_less(peer: Peer, version: int, epoch: int) -> Any:
    made = Consumers(peer, version)
    made.beat("a", epoch)
    return made.answers


@error(BEAT)
def h110_epochs_of_others(peer: Peer, version: int) -> Any:
    made = Consumers(peer, version)
    made.beat("a", 1)
    made.beat("a", LEAVE)
    made.share()
    made.beat("a", 9)
    made.beat("a", 1)
    made.beat("a", 2)
    made.beat("a", 2, owned=[2])
    made.beat("a", 2, owned=[0])
    made.beat("x", 3)
    made.beat("x", LEAVE)
    return made.answers


@error(BEAT, 0, 1)
def h98_no_group_at_all(peer: Peer, version: int) -> Any:
    made = Consumers(peer, version)
    made.join("a", group_id="")
    made.join("a", group_id=" ")
    return made.answers


@error(BEAT)
def h105_two_clients_with_one_instance(peer: Peer, version: int) -> Any:
    made = Consumers(peer, version)
    made.join("a", instance_id="i")
    made.join("b", instance_id="i")
    made.beat("b", 2, instance_id="i")
    made.beat("b", LEAVE_FOR_NOW, instance_id="i")
    made.beat("a", 2, instance_id="j")
    made.beat("a", LEAVE, instance_id="i")
    return made.answers


@error(BEAT)
def offsets_of_members(peer: Peer, version: int) -> Any:
    made = Consumers(peer, version)
    made.share()
    group, topic = made.group, made.topic
    for at, member, epoch, partition in (
        (8, "a", 3, 0),
        (9, "a", 3, 0),
        (10, "a", 3, 0),
        (9, "a", 2, 0),
        (9, "a", 2, 2),
        (9, "b", 2, 2),
        (9, "a", 4, 0),
        (9, "x", 3, 0),
        (9, "", -1, 0),
    ):
        who = {"member_id": member, "generation_id_or_member_epoch": epoch}
        made.answers.append(commit(peer, at, group, topic, (partition, 5), **who))
    made.answers.append(fetch(peer, 9, group, {topic: [0, 2]}))
    return made.answers


# --- both protocols in one group -----------------------------------------------------------------


@error(BEAT)
def a_classic_group_moves_over_and_back(peer: Peer, version: int) -> Any:
    made = Consumers(peer, version)
    joined = made.classic_join()
    old, generation = joined["member_id"], joined["generation_id"]
    made.classic_sync(old, generation, assigned=True)
    made.beat("new", 5)
    made.beat("new", LEAVE)
    made.listed()
    made.join("new")
    made.listed()
    made.answers.append(made.classic_beat(old, generation))
    made.classic_sync(old, generation)
    generation = made.classic_join(old, (0, 1, 2, 3))["generation_id"]
    made.classic_sync(old, generation)
    generation = made.classic_join(old, (0, 1))["generation_id"]
    made.classic_sync(old, generation)
    made.answers.append(made.classic_beat(old, generation))
    made.beat("new", 2)
    made.classic_sync("new", 2)
    made.answers.append(made.classic_beat("new", 2))
    made.classic_described()
    made.beat("new", LEAVE)
    wait_until(
        lambda: made.classic_beat(old, generation)["error_code"] == "rebalance_in_progress",
        "a rebalance",
    )
    made.listed()
    generation = made.classic_join(old)["generation_id"]
    made.classic_sync(old, generation, assigned=True)
    made.listed()
    return made.answers


@error(BEAT)
def a_classic_member_joins(peer: Peer, version: int) -> Any:
    made = Consumers(peer, version)
    made.join("new")
    joined = made.classic_join()
    old, generation = joined["member_id"], joined["generation_id"]
    made.classic_sync(old, generation)
    made.beat("new", 2)
    made.answers.append(made.classic_beat(old, generation))
    made.beat("new", 2, owned=[0, 1])
    made.answers.append(made.classic_beat(old, generation))
    generation = made.classic_join(old)["generation_id"]
    made.classic_sync(old, generation)
    made.classic_leave("stranger")
    made.classic_leave(old)
    made.beat("new", 3)
    made.classic_leave("new")
    made.listed()
    return made.answers


@error(BEAT)
def protocols_that_do_not_fit(peer: Peer, version: int) -> Any:
    made = Consumers(peer, version)
    made.join("new")
    made.classic_join(protocol_type="connect")
    made.classic_join(protocols=[])
    made.classic_join()
    strange = JoinGroupRequestProtocol(name="sticky", metadata=b"\0\1" + bytes(8))
    made.classic_join(protocols=[strange])
    return made.answers


@error(BEAT)
def what_who_is_refused_is_told(peer: Peer, version: int) -> Any:
    made = Consumers(peer, version)
    made.join("new")
    member = made.classic_join()["member_id"]
    made.classic_join(member, protocol_type="connect")
    made.classic_join("stranger", group_instance_id="i")
    broken = JoinGroupRequest(
        group_id=made.group,
        session_timeout_ms=30_000,
        rebalance_timeout_ms=30_000,
        protocol_type="consumer",
        protocols=[JoinGroupRequestProtocol(name="range", metadata=b"broken")],
    )
    made.answers.append(_nameless(peer.ask(broken, 9)))
    return made.answers


@error(BEAT)
def a_classic_subscription_that_can_not_be_read(peer: Peer, version: int) -> Any:
    made = Consumers(peer, version)
    made.join("new")
    broken = JoinGroupRequestProtocol(name="range", metadata=b"broken")
    made.classic_join(protocols=[broken])
    made.described()
    return made.answers


@error(BEAT)
def a_classic_session_that_is_too_short_or_too_long(peer: Peer, version: int) -> Any:
    made = Consumers(peer, version)
    made.join("new")
    made.classic_join(session_timeout_ms=1)
    made.classic_join("stranger", session_timeout_ms=1 << 30)
    return made.answers


@error(BEAT)
def an_empty_group_that_a_stranger_wants_to_join(peer: Peer, version: int) -> Any:
    made = Consumers(peer, version)
    made.join("new")
    made.beat("new", LEAVE)
    made.classic_join("stranger")
    made.beat("new", 5)
    return made.answers


@error(BEAT)
def classic_members_alone_of_whom_one_leaves(peer: Peer, version: int) -> Any:
    made = Consumers(peer, version)
    made.join("new")
    joined = made.classic_join()
    old, generation = joined["member_id"], joined["generation_id"]
    made.classic_join("new")
    made.listed()
    made.classic_leave("new")
    wait_until(
        lambda: made.classic_beat(old, generation)["error_code"] == "rebalance_in_progress",
        "a rebalance",
    )
    made.listed()
    return made.answers


@error(BEAT)
def static_members_of_either_kind_replace_each_other(peer: Peer, version: int) -> Any:
    made = Consumers(peer, version)
    made.join("new", instance_id="i")
    joined = made.classic_join(group_instance_id="i")
    made.listed()
    made.beat("new", 2, instance_id="i")
    made.join("newer", instance_id="i")
    made.listed()
    made.beat("newer", joined["generation_id"] + 1, instance_id="i")
    return made.answers


@error(BEAT)
def empty_groups_become_the_other_kind(peer: Peer, version: int) -> Any:
    made = Consumers(peer, version)
    made.join("new")
    made.beat("new", LEAVE)
    joined = made.classic_join()
    made.listed()
    made.classic_leave(joined["member_id"])
    made.join("new")
    made.listed()
    return made.answers


# --- ConsumerGroupDescribe -----------------------------------------------------------------------


@success(DESCRIBE)
def groups_of_either_kind(peer: Peer, version: int) -> Any:
    made = Consumers(peer)
    made.share()
    made.described(version)
    made.classic_join()
    commit(peer, 8, f"{made.group}-simple", made.topic, (0, 5))
    request = ConsumerGroupDescribeRequest(group_ids=[f"{made.group}-simple", "nobody's"])
    return [*made.answers[:-1], peer.ask(request, version)]


@error(DESCRIBE)
def h98_describe_no_group(peer: Peer, version: int) -> Any:
    return peer.ask(ConsumerGroupDescribeRequest(group_ids=["", ""]), version)
