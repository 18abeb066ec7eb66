"""Classic groups on a whole node: over the wire, looked at, and after the node's end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ottla.handlers import listing
from ottla.protocol.errors import ErrorCode as E
from ottla.protocol.messages.delete_groups import DeleteGroupsRequest
from ottla.protocol.messages.describe_configs import (
    DescribeConfigsRequest,
    DescribeConfigsResource,
)
from ottla.protocol.messages.describe_groups import DescribeGroupsRequest
from ottla.protocol.messages.heartbeat import HeartbeatRequest
from ottla.protocol.messages.join_group import JoinGroupRequest, JoinGroupRequestProtocol
from ottla.protocol.messages.leave_group import LeaveGroupRequest
from ottla.protocol.messages.list_groups import ListGroupsRequest
from ottla.protocol.messages.sync_group import SyncGroupRequest, SyncGroupRequestAssignment
from ottla.testing.simnode import Call, SimConnection, SimNode


class Client:
    """A member with a connection of its own."""

    def __init__(self, node: SimNode, group: str = "g") -> None:
        self.node = node
        self.group = group
        self.connection: SimConnection = node.connect()
        self.id = ""
        self.generation = -1

    def ask(self, body: Any, version: int) -> Any:
        return self.node.answer(self.connection.ask(body, version))

    def ask_to_join(self, version: int = 9) -> Call:
        request = JoinGroupRequest(
            group_id=self.group,
            session_timeout_ms=10_000,
            rebalance_timeout_ms=10_000,
            member_id=self.id,
            protocol_type="consumer",
            protocols=[JoinGroupRequestProtocol(name="range", metadata=b"")],
        )
        return self.connection.ask(request, version)

    def join(self, version: int = 9) -> Any:
        answer = self.node.answer(self.ask_to_join(version))
        if answer.error_code == E.MEMBER_ID_REQUIRED:
            self.id = answer.member_id
            answer = self.node.answer(self.ask_to_join(version))
        self.id, self.generation = answer.member_id, answer.generation_id
        return answer

    def sync(self, version: int = 5) -> Any:
        mine = SyncGroupRequestAssignment(member_id=self.id, assignment=b"mine")
        request = SyncGroupRequest(
            group_id=self.group,
            generation_id=self.generation,
            member_id=self.id,
            protocol_type="consumer",
            protocol_name="range",
            assignments=[mine],
        )
        return self.ask(request, version)

    def heartbeat(self, version: int = 4) -> E:
        request = HeartbeatRequest(
            group_id=self.group, generation_id=self.generation, member_id=self.id
        )
        return E(self.ask(request, version).error_code)


@pytest.fixture
def node() -> Iterator[SimNode]:
    node = SimNode(**{"offsets.topic.num.partitions": "3"})
    yield node
    node.stop()


def stable(node: SimNode, group: str = "g") -> Client:
    client = Client(node, group)
    client.join()
    assert client.sync().assignment == b"mine"
    return client


@pytest.mark.parametrize("version", range(10))
def test_a_member_joins_in_every_version(node: SimNode, version: int) -> None:
    client = Client(node)
    answer = client.join(version)
    assert (answer.error_code, answer.leader, answer.generation_id) == (E.NONE, client.id, 1)
    assert client.sync().assignment == b"mine"


def test_a_group_is_listed_and_described(node: SimNode) -> None:
    client = stable(node)
    asking = Client(node)
    listed = asking.ask(ListGroupsRequest(states_filter=["STABLE"], types_filter=["classic"]), 5)
    assert [(one.group_id, one.group_type) for one in listed.groups] == [("g", "classic")]
    assert asking.ask(ListGroupsRequest(states_filter=["Empty"]), 5).groups == []
    described = asking.ask(DescribeGroupsRequest(groups=["g", "h"]), 6).groups
    assert [one.group_state for one in described] == ["Stable", "Dead"]
    assert described[0].members[0].member_id == client.id
    assert described[1].error_code == E.GROUP_ID_NOT_FOUND


@pytest.mark.parametrize("version", range(6))
def test_many_groups_are_listed_a_slice_at_a_time_with_the_same_answer(
    node: SimNode, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    asking = Client(node)
    for number in range(12):
        stable(node, f"g{number}")
    at_once = asking.ask(ListGroupsRequest(), version)
    monkeypatch.setattr(listing, "SLICE_COUNT", 3)
    assert asking.ask(ListGroupsRequest(), version) == at_once
    assert {one.group_id for one in at_once.groups} == {f"g{number}" for number in range(12)}
    call = asking.connection.ask(ListGroupsRequest(), version)
    turns = 0
    while not call.done:
        turns += node.loop.turn()
    assert turns >= 4


def test_h111_only_an_empty_group_is_deleted(node: SimNode) -> None:
    client = stable(node)
    request = DeleteGroupsRequest(groups_names=["g", "h"])
    codes = [one.error_code for one in client.ask(request, 2).results]
    assert codes == [E.NON_EMPTY_GROUP, E.GROUP_ID_NOT_FOUND]
    left = client.ask(LeaveGroupRequest(group_id="g", member_id=client.id), 2)
    assert left.error_code == E.NONE
    assert client.ask(request, 2).results[0].error_code == E.NONE
    assert client.ask(ListGroupsRequest(), 5).groups == []


def test_a_group_goes_on_after_the_node_was_killed(node: SimNode) -> None:
    client = stable(node)
    node.kill()
    node.start()
    client.connection = node.connect()
    assert client.heartbeat() == E.NONE
    assert client.sync().assignment == b"mine"


def test_a_member_whose_connection_went_while_it_joined_is_out_in_time(node: SimNode) -> None:
    first, second = stable(node), Client(node)
    second.id = node.answer(second.ask_to_join()).member_id
    second.ask_to_join()
    node.settle()
    second.connection.close()
    assert first.heartbeat() == E.REBALANCE_IN_PROGRESS
    first.join()
    assert first.sync().assignment == b"mine"
    for _ in range(11):
        node.advance(1)
        first.heartbeat()
    assert len(first.join().members) == 1


def test_the_timeline_is_a_setting_of_a_group_for_who_asks_by_name(node: SimNode) -> None:
    client = stable(node)

    def told(*names: str) -> list[str]:
        resource = DescribeConfigsResource(
            resource_type=32, resource_name="g", configuration_keys=list(names) or None
        )
        answer = client.ask(DescribeConfigsRequest(resources=[resource]), 4)
        return [one.name for one in answer.results[0].configs]

    assert told("ottla.timeline") == ["ottla.timeline"]
    assert "ottla.timeline" not in told()
