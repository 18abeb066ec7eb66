"""CreateTopics: what goes to the controller and what comes back. Its decisions are tested there."""

from __future__ import annotations

from typing import Any

import pytest

from ottla.cluster.topics import NewTopic, TopicResult
from ottla.handlers.reply import Parked
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.create_topics import (
    CreatableReplicaAssignment,
    CreatableTopic,
    CreatableTopicConfig,
    CreateTopicsRequest,
)
from tests.unit.handlers.node import FakeNode, topic_id, topic_image

VERSIONS = range(2, 8)


def asking(*topics: CreatableTopic, **more: Any) -> CreateTopicsRequest:
    return CreateTopicsRequest(topics=list(topics), **more)


def plain(name: str = "t") -> CreatableTopic:
    return CreatableTopic(name=name, num_partitions=2, replication_factor=1)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_created_topic_is_answered_as_the_version_has_it(version: int) -> None:
    node = FakeNode()
    topic = topic_image("t", 1, partitions=2)
    node.controller.answer.complete([TopicResult("t", topic_id=topic.id, topic=topic)])
    (result,) = node.ask(asking(plain()), version).topics
    assert (result.name, result.error_code, result.error_message) == ("t", ErrorCode.NONE, None)
    assert result.topic_id == (topic_id(1) if version >= 7 else bytes(16))
    assert result.num_partitions == (2 if version >= 5 else -1)
    assert result.replication_factor == (1 if version >= 5 else -1)
    assert bool(result.configs) == (version >= 5)


def test_the_configs_in_the_answer_say_who_set_them() -> None:
    node = FakeNode(log_segment_bytes="2000000", log_retention_hours="1")
    topic = topic_image("t", 1)
    object.__setattr__(topic, "configs", {"cleanup.policy": "compact"})
    node.controller.answer.complete([TopicResult("t", topic=topic)])
    (result,) = node.ask(asking(plain()), 7).topics
    told = {one.name: (one.value, one.config_source) for one in result.configs}
    assert told["cleanup.policy"] == ("compact", 1)
    assert told["segment.bytes"] == ("2000000", 4)
    assert told["retention.ms"] == ("3600000", 4)
    assert told["max.message.bytes"] == ("1048588", 5)
    assert told["preallocate"] == ("false", 5)
    assert list(told) == sorted(told)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_refusal_brings_its_code_and_its_reason(version: int) -> None:
    node = FakeNode()
    refusal = TopicResult("t", ErrorCode.INVALID_PARTITIONS, "Number of partitions …")
    node.controller.answer.complete([refusal])
    (result,) = node.ask(asking(plain()), version).topics
    assert result.error_code == ErrorCode.INVALID_PARTITIONS
    assert result.error_message == "Number of partitions …"
    assert (result.num_partitions, result.replication_factor) == (-1, -1)
    assert not result.configs


def test_the_controller_gets_what_was_asked() -> None:
    node = FakeNode()
    node.controller.answer.complete([])
    topic = CreatableTopic(
        name="t",
        num_partitions=-1,
        replication_factor=-1,
        assignments=[CreatableReplicaAssignment(partition_index=0, broker_ids=[0])],
        configs=[
            CreatableTopicConfig(name="retention.ms", value="1"),
            CreatableTopicConfig(name="retention.ms", value="2"),
            CreatableTopicConfig(name="segment.ms", value=None),
        ],
    )
    node.ask(asking(topic, validate_only=True), 7)
    # Of two values for one name the last counts, as in Kafka.
    configs = {"retention.ms": "2", "segment.ms": None}
    assert node.controller.asked == [NewTopic("t", -1, -1, [(0, [0])], configs)]
    assert node.controller.validate_only


def test_no_topics_get_no_results() -> None:
    node = FakeNode()
    node.controller.answer.complete([])
    assert node.ask(asking(), 7).topics == []


@pytest.mark.parametrize(("timeout_ms", "deadline_s"), [(5000, 5), (0, 0), (-1, 0)])
def test_what_is_not_done_in_time_is_answered_timed_out(timeout_ms: int, deadline_s: float) -> None:
    node = FakeNode()
    request = asking(plain("t"), plain("u"), plain("u"), timeout_ms=timeout_ms)
    parked = node.ask(request, 7)
    assert isinstance(parked, Parked)
    assert parked.deadline_s == deadline_s
    answer = node.as_sent(parked.resume(), 19, 7)
    late = ErrorCode.REQUEST_TIMED_OUT
    assert [(one.name, one.error_code) for one in answer.topics] == [("t", late), ("u", late)]


@pytest.mark.parametrize("version", [2, 7])
def test_h28_a_request_that_names_too_many_topics_creates_none(version: int) -> None:
    node = FakeNode(request_partitions_max="2")
    answer = node.ask(asking(*map(plain, "abc")), version)
    code = ErrorCode.INVALID_REQUEST
    assert [(one.name, one.error_code) for one in answer.topics] == [(one, code) for one in "abc"]
    assert node.controller.asked == []
