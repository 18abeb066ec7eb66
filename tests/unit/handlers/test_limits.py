"""request.partitions.max: what names more is refused whole, by every handler in its own words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ottla.protocol.errors import ErrorCode as E
from ottla.protocol.messages import alter_configs as old
from ottla.protocol.messages import alter_partition_reassignments as moves
from ottla.protocol.messages import alter_replica_log_dirs as moved
from ottla.protocol.messages import create_partitions as more
from ottla.protocol.messages import describe_configs as configs
from ottla.protocol.messages import describe_log_dirs as dirs
from ottla.protocol.messages import describe_topic_partitions as pages
from ottla.protocol.messages import elect_leaders as elections
from ottla.protocol.messages import find_coordinator as coordinators
from ottla.protocol.messages import incremental_alter_configs as new
from tests.unit.handlers.node import FakeNode, topic_image

TOPIC, LOGGER = 2, 8

Codes = Callable[[Any], list[int]]


def _partitions(count: int) -> list[int]:
    return list(range(count))


def _codes_of(name: str) -> Codes:
    return lambda answer: [one.error_code for one in getattr(answer, name)]


def _elected(answer: Any) -> list[int]:
    (topic,) = answer.replica_election_results
    return [answer.error_code, *(one.error_code for one in topic.partition_result)]


def _moved(answer: Any) -> list[int]:
    (topic,) = answer.results
    return [one.error_code for one in topic.partitions]


def create_partitions(count: int) -> Any:
    topics = [more.CreatePartitionsTopic(name=f"n{n}", count=2) for n in range(count)]
    return more.CreatePartitionsRequest(topics=topics)


def alter_configs(count: int) -> Any:
    resources = [
        old.AlterConfigsResource(resource_type=TOPIC, resource_name=f"n{n}") for n in range(count)
    ]
    return old.AlterConfigsRequest(resources=resources)


def incremental_alter_configs(count: int) -> Any:
    one = new.AlterableConfig(name="ottla", value="DEBUG")
    resources = [
        new.AlterConfigsResource(resource_type=LOGGER, resource_name="0", configs=[one])
        for _ in range(count)
    ]
    return new.IncrementalAlterConfigsRequest(resources=resources)


def describe_configs(count: int) -> Any:
    resources = [
        configs.DescribeConfigsResource(resource_type=TOPIC, resource_name=f"n{n}")
        for n in range(count)
    ]
    return configs.DescribeConfigsRequest(resources=resources)


def elect_leaders(count: int) -> Any:
    topics = [elections.TopicPartitions(topic="t", partitions=_partitions(count))]
    return elections.ElectLeadersRequest(topic_partitions=topics)


def alter_partition_reassignments(count: int) -> Any:
    partitions = [moves.ReassignablePartition(partition_index=n) for n in range(count)]
    topics = [moves.ReassignableTopic(name="t", partitions=partitions)]
    return moves.AlterPartitionReassignmentsRequest(topics=topics)


def alter_replica_log_dirs(count: int) -> Any:
    topics = [moved.AlterReplicaLogDirTopic(name="t", partitions=_partitions(count))]
    return moved.AlterReplicaLogDirsRequest(
        dirs=[moved.AlterReplicaLogDir(path="/d", topics=topics)]
    )


def describe_log_dirs(count: int) -> Any:
    topics = [dirs.DescribableLogDirTopic(topic="t", partitions=_partitions(count))]
    return dirs.DescribeLogDirsRequest(topics=topics)


def describe_topic_partitions(count: int) -> Any:
    topics = [pages.TopicRequest(name=f"n{n}") for n in range(count)]
    return pages.DescribeTopicPartitionsRequest(topics=topics)


def find_coordinator(count: int) -> Any:
    keys = [f"n{n}" for n in range(count)]
    return coordinators.FindCoordinatorRequest(key_type=0, coordinator_keys=keys)


@pytest.mark.parametrize(
    ("asking", "version", "codes"),
    [
        (create_partitions, 3, _codes_of("results")),
        (alter_configs, 2, _codes_of("responses")),
        (incremental_alter_configs, 1, _codes_of("responses")),
        (describe_configs, 4, _codes_of("results")),
        (elect_leaders, 2, _elected),
        (alter_partition_reassignments, 1, lambda answer: [answer.error_code]),
        (alter_replica_log_dirs, 2, _moved),
        (describe_log_dirs, 3, _codes_of("results")),
        (describe_topic_partitions, 0, _codes_of("topics")),
        (find_coordinator, 4, _codes_of("coordinators")),
    ],
)
def test_h28_a_request_that_names_too_many_is_refused_whole_and_complained_of(
    asking: Callable[[int], Any], version: int, codes: Codes
) -> None:
    node = FakeNode(topic_image("t", 1, 3), request_partitions_max="2")
    node.controller.answer.complete([])
    refused = codes(node.ask(asking(3), version))
    assert refused
    assert set(refused) == {E.INVALID_REQUEST}
    assert node.controller.asked == []
    assert node.context.complaints.counts == {"request.partitions.max": 1}


@pytest.mark.parametrize("asking", [elect_leaders, describe_log_dirs])
def test_a_request_that_names_as_many_as_it_may_is_answered(
    asking: Callable[[int], Any],
) -> None:
    node = FakeNode(topic_image("t", 1, 3), request_partitions_max="3")
    node.ask(asking(3), 2)
    assert node.context.complaints.counts == {}
