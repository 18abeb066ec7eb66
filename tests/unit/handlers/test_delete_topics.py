"""DeleteTopics: what goes to the controller and what comes back."""

from __future__ import annotations

import pytest

from ottla.cluster.controller import TopicRef
from ottla.cluster.topics import TopicResult
from ottla.core.model import NO_TOPIC_ID
from ottla.handlers.reply import Parked
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.delete_topics import DeleteTopicsRequest, DeleteTopicState
from tests.unit.handlers.node import FakeNode, topic_id

VERSIONS = range(1, 7)


def asking(*names: str, timeout_ms: int = 1000) -> DeleteTopicsRequest:
    """Both forms: a version sends the one it has."""
    states = [DeleteTopicState(name=name) for name in names]
    return DeleteTopicsRequest(topics=states, topic_names=list(names), timeout_ms=timeout_ms)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_deletes_by_name(version: int) -> None:
    node = FakeNode()
    refusal = TopicResult("b", ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "There is no such topic.")
    node.controller.answer.complete([TopicResult("a", topic_id=topic_id(1)), refusal])
    first, second = node.ask(asking("a", "b"), version).responses
    assert node.controller.asked == [TopicRef("a"), TopicRef("b")]
    assert (first.name, first.error_code) == ("a", ErrorCode.NONE)
    assert first.topic_id == (topic_id(1) if version >= 6 else NO_TOPIC_ID)
    assert (second.name, second.error_code) == ("b", ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
    assert second.error_message == ("There is no such topic." if version >= 5 else None)


def test_v6_deletes_by_id() -> None:
    node = FakeNode()
    refusal = TopicResult(None, ErrorCode.UNKNOWN_TOPIC_ID, None, topic_id(7))
    node.controller.answer.complete([refusal])
    request = DeleteTopicsRequest(topics=[DeleteTopicState(topic_id=topic_id(7))])
    (response,) = node.ask(request, 6).responses
    assert node.controller.asked == [TopicRef(None, topic_id(7))]
    assert (response.name, response.topic_id) == (None, topic_id(7))
    assert response.error_code == ErrorCode.UNKNOWN_TOPIC_ID


@pytest.mark.parametrize("version", VERSIONS)
def test_disabled_deletion_has_a_code_of_its_own_from_v3_on(version: int) -> None:
    node = FakeNode()
    node.controller.answer.complete([TopicResult("a", ErrorCode.TOPIC_DELETION_DISABLED)])
    (response,) = node.ask(asking("a"), version).responses
    disabled = version >= 3
    expected = ErrorCode.TOPIC_DELETION_DISABLED if disabled else ErrorCode.INVALID_REQUEST
    assert response.error_code == expected


@pytest.mark.parametrize(("timeout_ms", "deadline_s"), [(5000, 5), (0, 0), (-1, 0)])
def test_what_is_not_done_in_time_is_answered_timed_out(timeout_ms: int, deadline_s: float) -> None:
    node = FakeNode()
    parked = node.ask(asking("a", "a", timeout_ms=timeout_ms), 6)
    assert isinstance(parked, Parked)
    assert parked.deadline_s == deadline_s
    (response,) = node.as_sent(parked.resume(), 20, 6).responses
    assert (response.name, response.error_code) == ("a", ErrorCode.REQUEST_TIMED_OUT)


@pytest.mark.parametrize("version", [1, 5])
def test_h28_a_request_that_names_too_many_topics_deletes_none(version: int) -> None:
    node = FakeNode(request_partitions_max="2")
    answer = node.ask(asking(*"abc"), version)
    code = ErrorCode.INVALID_REQUEST
    told = [(one.name, one.error_code) for one in answer.responses]
    assert told == [(one, code) for one in "abc"]
    assert node.controller.asked == []
