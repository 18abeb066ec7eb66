"""Metadata. Where an expectation looks odd: Apache Kafka 4.3.1 was asked, and answered so."""

from __future__ import annotations

from typing import Any

import pytest

from ottla.cluster.topics import TopicResult
from ottla.handlers.nodes import NOT_ASKED
from ottla.handlers.reply import Parked
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.metadata import MetadataRequest, MetadataRequestTopic
from tests.unit.handlers.node import ENDPOINT, FakeNode, cluster_image, topic_id, topic_image

NONE = ErrorCode.NONE
UNKNOWN = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
INVALID_NAME = ErrorCode.INVALID_TOPIC_EXCEPTION
ALL_VERSIONS = range(14)


def asking(*names: str | None, create: bool = True, **more: Any) -> MetadataRequest:
    topics = [MetadataRequestTopic(name=name) for name in names]
    return MetadataRequest(topics=topics, allow_auto_topic_creation=create, **more)


def by_id(*numbers: int) -> MetadataRequest:
    topics = [MetadataRequestTopic(name=None, topic_id=topic_id(number)) for number in numbers]
    return MetadataRequest(topics=topics)


def errors(answer: Any) -> list[tuple[str | None, int]]:
    return [(topic.name, topic.error_code) for topic in answer.topics]


@pytest.fixture
def node() -> FakeNode:
    return FakeNode(topic_image("a", 1, partitions=2), topic_image("b", 2))


@pytest.mark.parametrize("version", ALL_VERSIONS)
def test_every_version_answers_a_topic_whole(node: FakeNode, version: int) -> None:
    answer = node.ask(asking("a"), version)
    (broker,) = answer.brokers
    assert (broker.node_id, broker.host, broker.port) == (0, *ENDPOINT)
    assert broker.rack == ("rack-1" if version >= 1 else None)
    assert answer.controller_id == (0 if version >= 1 else -1)
    assert answer.cluster_id == ("a-cluster" if version >= 2 else None)
    (topic,) = answer.topics
    assert (topic.error_code, topic.name, topic.is_internal) == (NONE, "a", False)
    assert topic.topic_id == (topic_id(1) if version >= 10 else bytes(16))
    assert [one.partition_index for one in topic.partitions] == [0, 1]
    for one in topic.partitions:
        assert (one.error_code, one.leader_id) == (NONE, 0)
        assert one.leader_epoch == (3 if version >= 7 else -1)
        assert (one.replica_nodes, one.isr_nodes, one.offline_replicas) == ([0], [0], [])


def test_no_topics_means_all_in_v0_and_none_later(node: FakeNode) -> None:
    assert [topic.name for topic in node.ask(asking(), 0).topics] == ["a", "b"]
    for version in ALL_VERSIONS[1:]:
        assert node.ask(asking(), version).topics == []


@pytest.mark.parametrize("version", ALL_VERSIONS[1:])
def test_null_means_all(node: FakeNode, version: int) -> None:
    answer = node.ask(MetadataRequest(topics=None), version)
    assert [topic.name for topic in answer.topics] == ["a", "b"]


def test_the_answer_gives_the_address_by_which_the_client_came(node: FakeNode) -> None:
    (broker,) = node.ask(asking("a"), 1).brokers
    assert node.image.nodes[broker.node_id].host != broker.host == ENDPOINT.host


def test_a_partition_that_nobody_leads_says_so() -> None:
    node = FakeNode(topic_image("a", 1, leader=-1))
    (partition,) = node.ask(asking("a"), 7).topics[0].partitions
    assert partition.error_code == ErrorCode.LEADER_NOT_AVAILABLE
    assert partition.leader_id == -1


@pytest.mark.parametrize("version", [8, 9, 10])
def test_authorized_operations_are_told_to_who_asks(node: FakeNode, version: int) -> None:
    request = asking(
        "a",
        include_cluster_authorized_operations=True,
        include_topic_authorized_operations=True,
    )
    answer = node.ask(request, version)
    assert answer.cluster_authorized_operations == 8096
    assert answer.topics[0].topic_authorized_operations == 3576
    answer = node.ask(asking("a"), version)
    assert answer.cluster_authorized_operations == NOT_ASKED
    assert answer.topics[0].topic_authorized_operations == NOT_ASKED


def test_a_topic_asked_for_twice_is_answered_once(node: FakeNode) -> None:
    answer = node.ask(asking("b", "a", "b", "x", "x", create=False), 4)
    assert errors(answer) == [("b", NONE), ("a", NONE), ("x", UNKNOWN)]


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a" * 250, "é", "bad name", "a\n"])
@pytest.mark.parametrize("version", [0, 4, 9, 12])
def test_a_name_that_no_topic_can_have_is_invalid(node: FakeNode, version: int, name: str) -> None:
    assert errors(node.ask(asking(name), version)) == [(name, INVALID_NAME)]
    assert node.controller.asked == []


# --- by id ----------------------------------------------------------------------------------


def test_where_an_id_is_named_names_are_left_out(node: FakeNode) -> None:
    asked = by_id(2)
    asked.topics.append(MetadataRequestTopic(name="a"))
    assert errors(node.ask(asked, 12)) == [("b", NONE)]


@pytest.mark.parametrize("version", [12, 13])
def test_a_topic_can_be_asked_for_by_id(node: FakeNode, version: int) -> None:
    answer = node.ask(by_id(2, 9), version)
    assert errors(answer) == [("b", NONE), (None, ErrorCode.UNKNOWN_TOPIC_ID)]
    assert answer.topics[1].topic_id == topic_id(9)


def test_an_id_beats_the_name_beside_it(node: FakeNode) -> None:
    topics = [MetadataRequestTopic(name="x", topic_id=topic_id(1))]
    assert errors(node.ask(MetadataRequest(topics=topics), 12)) == [("a", NONE)]


@pytest.mark.parametrize("version", [10, 11])
def test_an_id_before_v12_makes_the_request_invalid(node: FakeNode, version: int) -> None:
    topics = [
        MetadataRequestTopic(name="a", topic_id=topic_id(1)),
        MetadataRequestTopic(name="b"),
    ]
    answer = node.ask(MetadataRequest(topics=topics), version)
    code = ErrorCode.INVALID_REQUEST
    assert errors(answer) == [("a", code), ("b", code)]
    assert answer.brokers == []


@pytest.mark.parametrize(("version", "name"), [(10, ""), (11, ""), (12, None), (13, None)])
def test_a_topic_with_neither_name_nor_id_makes_the_request_invalid(
    node: FakeNode, version: int, name: str | None
) -> None:
    answer = node.ask(asking(None), version)
    assert errors(answer) == [(name, ErrorCode.INVALID_REQUEST)]
    assert answer.error_code == (ErrorCode.INVALID_REQUEST if version >= 13 else NONE)


# --- creation -------------------------------------------------------------------------------


def created(node: FakeNode, request: MetadataRequest, version: int = 12) -> Parked:
    outcome = node.ask(request, version)
    assert isinstance(outcome, Parked)
    assert not outcome.before_effect
    return outcome


def test_a_topic_that_is_created_on_the_way_is_in_the_answer(node: FakeNode) -> None:
    parked = created(node, asking("a", "new"))
    assert node.controller.asked == ["new"]
    topic = topic_image("new", 3, partitions=4)
    node.image = cluster_image(*node.image.topics.values(), topic)
    node.controller.answer.complete([TopicResult("new", topic=topic)])
    answer = node.as_sent(parked.resume(), 3, 12)
    assert errors(answer) == [("a", NONE), ("new", NONE)]
    assert [one.leader_id for one in answer.topics[1].partitions] == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (INVALID_NAME, INVALID_NAME),
        (ErrorCode.POLICY_VIOLATION, UNKNOWN),
        (ErrorCode.REQUEST_TIMED_OUT, UNKNOWN),
    ],
)
def test_a_topic_that_can_not_be_created_is_unknown_or_badly_named(
    node: FakeNode, error: ErrorCode, told: ErrorCode
) -> None:
    parked = created(node, asking("a_b"))
    node.controller.answer.complete([TopicResult("a_b", error)])
    assert errors(node.as_sent(parked.resume(), 3, 12)) == [("a_b", told)]


def test_a_creation_that_takes_too_long_is_answered_as_unknown(node: FakeNode) -> None:
    parked = created(node, asking("new"))
    assert parked.deadline_s == 10
    assert errors(node.as_sent(parked.resume(), 3, 12)) == [("new", UNKNOWN)]


def test_nothing_is_created_for_a_client_that_forbids_it(node: FakeNode) -> None:
    for version in ALL_VERSIONS[4:]:
        assert errors(node.ask(asking("new", create=False), version)) == [("new", UNKNOWN)]
    assert node.controller.asked == []


@pytest.mark.parametrize("version", range(4))
def test_before_v4_a_client_can_not_forbid_it(node: FakeNode, version: int) -> None:
    created(node, asking("new", create=False), version)


def test_nothing_is_created_where_it_is_switched_off() -> None:
    node = FakeNode(auto_create_topics_enable="false")
    assert errors(node.ask(asking("new"), 4)) == [("new", UNKNOWN)]


def test_h81_one_request_creates_no_more_than_its_cap() -> None:
    node = FakeNode(auto_create_topics_request_max="3")
    created(node, asking(*(f"t{number}" for number in range(10_000))))
    assert node.controller.asked == ["t0", "t1", "t2"]


def test_an_internal_topic_is_not_created_because_someone_asks(node: FakeNode) -> None:
    answer = node.ask(asking("__consumer_offsets"), 4)
    assert errors(answer) == [("__consumer_offsets", UNKNOWN)]
    assert answer.topics[0].is_internal


def test_a_topic_is_not_created_for_its_id(node: FakeNode) -> None:
    assert errors(node.ask(by_id(9), 12)) == [(None, ErrorCode.UNKNOWN_TOPIC_ID)]
    assert node.controller.asked == []


@pytest.mark.parametrize("version", [0, 4, 13])
def test_h28_a_request_that_names_too_many_topics_is_invalid(version: int) -> None:
    node = FakeNode(request_partitions_max="2")
    code = ErrorCode.INVALID_REQUEST
    assert errors(node.ask(asking("a", "b", "c"), version)) == [(one, code) for one in "abc"]
    assert node.controller.asked == []
