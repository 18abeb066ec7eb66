"""DescribeConfigs, AlterConfigs, IncrementalAlterConfigs and ListConfigResources, as Kafka 4.3.1."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from ottla.cluster.configs import Alteration
from ottla.cluster.image import Settings
from ottla.cluster.keys import group_settings
from ottla.cluster.topics import Refused
from ottla.handlers import loggers
from ottla.handlers.altering import WAIT_S
from ottla.handlers.reply import Parked
from ottla.protocol.errors import ErrorCode as E
from ottla.protocol.messages import alter_configs as old
from ottla.protocol.messages import incremental_alter_configs as new
from ottla.protocol.messages.describe_configs import (
    DescribeConfigsRequest,
    DescribeConfigsResource,
)
from ottla.protocol.messages.list_config_resources import ListConfigResourcesRequest
from tests.unit.handlers.node import FakeNode, topic_image

TOPIC, BROKER, LOGGER, METRICS, GROUP = 2, 4, 8, 16, 32


def resource(kind: int, name: str, *names: str) -> DescribeConfigsResource:
    return DescribeConfigsResource(
        resource_type=kind, resource_name=name, configuration_keys=list(names) or None
    )


def described(node: FakeNode, *resources: DescribeConfigsResource, version: int = 4) -> list[Any]:
    request = DescribeConfigsRequest(
        resources=list(resources), include_synonyms=True, include_documentation=True
    )
    results: list[Any] = node.ask(request, version).results
    return results


@pytest.fixture
def node() -> FakeNode:
    topic = topic_image("t", 1).replace(configs={"retention.ms": "5"})
    return FakeNode(topic, topic_image("u", 2), log_segment_bytes="2000000")


# --- DescribeConfigs -----------------------------------------------------------------------


def test_only_the_names_asked_for_are_told_and_unknown_ones_left_out(node: FakeNode) -> None:
    (result,) = described(node, resource(TOPIC, "t", "retention.ms", "nope", "retention.ms"))
    assert (result.error_code, result.error_message) == (E.NONE, "")
    (one,) = result.configs
    assert (one.name, one.value, one.config_source, one.config_type) == ("retention.ms", "5", 1, 5)
    assert not one.read_only
    assert not one.is_sensitive
    assert one.documentation.endswith(".")
    assert [(s.name, s.value, s.source) for s in one.synonyms] == [("retention.ms", "5", 1)]


@pytest.mark.parametrize("names", [None, []])
def test_no_names_mean_all(node: FakeNode, names: list[str] | None) -> None:
    whole = resource(TOPIC, "u")
    whole.configuration_keys = names
    (result,) = described(node, whole)
    told = {one.name: one for one in result.configs}
    assert len(told) == 27
    assert [one.name for one in result.configs] == sorted(told)
    assert told["segment.bytes"].config_source == 4


def test_synonyms_documentation_and_types_come_when_asked_for_and_known(node: FakeNode) -> None:
    plain = DescribeConfigsRequest(resources=[resource(TOPIC, "u", "segment.bytes")])
    (one,) = node.ask(plain, 4).results[0].configs
    assert (one.synonyms, one.documentation, one.config_type) == ([], None, 3)
    (one,) = described(node, resource(TOPIC, "u", "segment.bytes"), version=1)[0].configs
    assert len(one.synonyms) == 2
    assert (one.documentation, one.config_type) == ("", 0)  # not on the wire before v3


@pytest.mark.parametrize(
    ("kind", "name", "error", "said"),
    [
        (TOPIC, "nope", E.UNKNOWN_TOPIC_OR_PARTITION, ""),
        (TOPIC, "", E.INVALID_TOPIC_EXCEPTION,
         "Topic name is invalid: the empty string is not allowed"),
        (TOPIC, "a/b", E.INVALID_TOPIC_EXCEPTION, ...),
        (TOPIC, "__cluster_metadata", E.UNKNOWN_TOPIC_OR_PARTITION, ""),
        (BROKER, "99", E.INVALID_REQUEST,
         "Unexpected broker id, expected 0 or empty string, but received 99"),
        (BROKER, "-1", E.INVALID_REQUEST,
         "Unexpected broker id, expected 0 or empty string, but received -1"),
        (BROKER, "abc", E.INVALID_REQUEST, "Broker id must be an integer, but it is: abc"),
        (BROKER, " 0", E.INVALID_REQUEST, "Broker id must be an integer, but it is:  0"),
        (LOGGER, "99", E.INVALID_REQUEST, "Unexpected broker id, expected 0 but received 99"),
        (LOGGER, "", E.INVALID_REQUEST, "Broker id must not be empty"),
        (LOGGER, "x", E.INVALID_REQUEST, "Broker id must be an integer, but it is: x"),
        (METRICS, "", E.INVALID_REQUEST, "Client metrics subscription name must not be empty"),
        (GROUP, "", E.INVALID_REQUEST, "Group name must not be empty"),
    ],
)  # fmt: skip
def test_what_cannot_be_described_gets_the_code_and_the_words_of_kafka(
    node: FakeNode, kind: int, name: str, error: E, said: str | None
) -> None:
    (result,) = described(node, resource(kind, name))
    assert result.error_code == error
    if said is not ...:
        assert result.error_message == said
    assert result.configs == []
    assert (result.resource_type, result.resource_name) == (kind, name)


@pytest.mark.parametrize("kind", [0, 1, 3, 64])
def test_an_unknown_type_spoils_the_whole_request(node: FakeNode, kind: int) -> None:
    results = described(node, resource(kind, "x"), resource(TOPIC, "t"))
    assert [one.error_code for one in results] == [E.INVALID_REQUEST] * 2


def test_a_resource_asked_for_twice_is_told_twice(node: FakeNode) -> None:
    results = described(
        node, resource(TOPIC, "t", "retention.ms"), resource(TOPIC, "t", "segment.bytes")
    )
    assert [one.configs[0].name for one in results] == ["retention.ms", "segment.bytes"]


def test_more_resources_than_one_answer_can_hold_are_refused(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ottla.handlers.describe_configs.RESOURCES_MAX", 2)
    results = described(node, *[resource(TOPIC, "t")] * 3)
    assert [one.error_code for one in results] == [E.INVALID_REQUEST] * 3


def test_a_broker_tells_all_its_options_and_the_default_only_what_is_set(node: FakeNode) -> None:
    node.context.config.override({"max.connections": "7"}, {})
    mine, everybodys = described(node, resource(BROKER, "0"), resource(BROKER, ""))
    told = {one.name: one for one in mine.configs}
    assert told["node.id"].read_only
    assert (told["max.connections"].value, told["max.connections"].config_source) == ("7", 3)
    assert [(one.name, one.value) for one in everybodys.configs] == [("max.connections", "7")]


def test_a_group_tells_its_own_settings(node: FakeNode) -> None:
    settings = {group_settings("g"): Settings({"consumer.session.timeout.ms": "50000"}, 1)}
    node.image = node.image.replace(settings=settings)
    mine, another = described(node, resource(GROUP, "g"), resource(GROUP, "h"))
    assert [(one.value, one.config_source) for one in mine.configs] == [
        ("1000", 5),
        ("5000", 5),
        ("50000", 8),
    ]
    assert {one.config_source for one in another.configs} == {5}


def test_client_metrics_have_no_settings(node: FakeNode) -> None:
    (result,) = described(node, resource(METRICS, "x"))
    assert (result.error_code, result.configs) == (E.NONE, [])


def test_loggers_tell_their_levels(node: FakeNode) -> None:
    logging.getLogger("ottla.test")
    (result,) = described(node, resource(LOGGER, "0", "ottla.test"))
    (one,) = result.configs
    assert one.value in loggers._LEVELS
    assert (one.config_source, one.config_type, one.read_only) == (6, 0, False)


# --- AlterConfigs --------------------------------------------------------------------------


def old_request(*resources: tuple[int, str, dict[str, str | None]]) -> old.AlterConfigsRequest:
    return old.AlterConfigsRequest(
        resources=[
            old.AlterConfigsResource(
                resource_type=kind,
                resource_name=name,
                configs=[old.AlterableConfig(name=n, value=v) for n, v in configs.items()],
            )
            for kind, name, configs in resources
        ],
        validate_only=True,
    )


@pytest.mark.parametrize("version", [0, 1, 2])
def test_the_older_request_replaces_everything(node: FakeNode, version: int) -> None:
    refused = Refused(E.INVALID_CONFIG, "because")
    node.controller.answer.complete([None, refused])
    request = old_request((TOPIC, "t", {"a": "1", "b": None}), (BROKER, "", {}))
    responses = node.ask(request, version).responses
    assert node.controller.asked == [
        Alteration(TOPIC, "t", [("a", 0, "1"), ("b", 0, None)], True),
        Alteration(BROKER, "", [], True),
    ]
    assert node.controller.validate_only
    assert [
        (r.error_code, r.error_message, r.resource_type, r.resource_name) for r in responses
    ] == [(0, None, TOPIC, "t"), (E.INVALID_CONFIG, "because", BROKER, "")]


def test_who_waits_too_long_is_told_that_it_timed_out(node: FakeNode) -> None:
    parked = node.ask(old_request((TOPIC, "t", {})), 2)
    assert isinstance(parked, Parked)
    assert parked.deadline_s == WAIT_S
    (response,) = node.as_sent(parked.resume(), 33, 2).responses
    assert (response.error_code, response.error_message) == (E.REQUEST_TIMED_OUT, None)


# --- IncrementalAlterConfigs ---------------------------------------------------------------


def new_request(
    *resources: tuple[int, str, list[tuple[str, int, str | None]]], validate_only: bool = False
) -> new.IncrementalAlterConfigsRequest:
    return new.IncrementalAlterConfigsRequest(
        resources=[
            new.AlterConfigsResource(
                resource_type=kind,
                resource_name=name,
                configs=[
                    new.AlterableConfig(name=n, config_operation=op, value=v)
                    for n, op, v in changes
                ],
            )
            for kind, name, changes in resources
        ],
        validate_only=validate_only,
    )


@pytest.mark.parametrize("version", [0, 1])
def test_each_operation_reaches_the_controller(node: FakeNode, version: int) -> None:
    node.controller.answer.complete([None])
    changes: list[tuple[str, int, str | None]] = [("a", 0, "1"), ("b", 1, None), ("c", 2, "x")]
    (response,) = node.ask(new_request((TOPIC, "t", changes)), version).responses
    assert node.controller.asked == [Alteration(TOPIC, "t", changes)]
    assert (response.error_code, response.resource_name) == (0, "t")


def test_loggers_and_other_resources_are_answered_in_the_order_asked(node: FakeNode) -> None:
    logger = logging.getLogger("ottla.test")
    logger.setLevel(logging.NOTSET)
    node.controller.answer.complete([Refused(E.INVALID_CONFIG, "because"), None])
    responses = node.ask(
        new_request(
            (TOPIC, "t", []),
            (LOGGER, "0", [("ottla.test", 0, "ERROR")]),
            (LOGGER, "9", [("ottla.test", 0, "ERROR")]),
            (TOPIC, "u", []),
        ),
        1,
    ).responses
    assert [r.error_code for r in responses] == [E.INVALID_CONFIG, 0, E.INVALID_REQUEST, 0]
    assert responses[2].error_message == "Unexpected node id. Expected 0, but received 9"
    assert logger.level == logging.ERROR
    logger.setLevel(logging.NOTSET)


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ([("ottla.test", 0, "DEBUG")], E.NONE, None),
        ([("ottla.test", 1, None)], E.NONE, None),
        ([("nope", 0, "DEBUG")], E.INVALID_CONFIG, "Logger nope does not exist!"),
        ([("asyncio", 0, "DEBUG")], E.INVALID_CONFIG, "Logger asyncio does not exist!"),
        ([("ottla.test", 0, "LOUD")], E.INVALID_CONFIG, ...),
        ([("ottla.test", 2, "DEBUG")], E.INVALID_REQUEST,
         "APPEND operation is not allowed for the BROKER_LOGGER resource"),
        ([("ottla.test", 7, "DEBUG")], E.INVALID_REQUEST, ...),
        ([("ottla", 1, None)], E.INVALID_REQUEST, ...),
        ([("ottla.test", 0, "INFO"), ("ottla.test", 1, None)], E.INVALID_REQUEST,
         "Error due to duplicate config keys"),
    ],
)  # fmt: skip
def test_a_level_is_set_by_kafkas_rules(
    node: FakeNode, changes: list[tuple[str, int, str | None]], error: E, said: Any
) -> None:
    logger = logging.getLogger("ottla.test")
    logger.setLevel(logging.WARNING)
    node.controller.answer.complete([])
    request = new_request((LOGGER, "0", changes), validate_only=True)
    (response,) = node.ask(request, 1).responses
    assert response.error_code == error
    if said is not ...:
        assert response.error_message == said
    assert logger.level == logging.WARNING
    logger.setLevel(logging.NOTSET)


def test_the_loggers_of_a_broker_named_twice_are_refused(node: FakeNode) -> None:
    node.controller.answer.complete([])
    responses = node.ask(new_request((LOGGER, "0", []), (LOGGER, "0", [])), 1).responses
    assert {r.error_message for r in responses} == {"Each resource must appear at most once."}


# --- ListConfigResources -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "kinds", "listed"),
    [
        (0, [], []),
        (1, [], [(32, "g"), (8, "0"), (4, "0"), (2, "t"), (2, "u")]),
        (1, [2], [(2, "t"), (2, "u")]),
        (1, [4], [(4, "0")]),
        (1, [8], [(8, "0")]),
        (1, [16], []),
        (1, [32], [(32, "g")]),
        (1, [2, 2, 4], [(4, "0"), (2, "t"), (2, "u")]),
    ],
)
def test_resources_are_listed_by_type(
    node: FakeNode, version: int, kinds: list[int], listed: list[tuple[int, str]]
) -> None:
    settings = {group_settings("g"): Settings({"a": "b"}, 1), "/cfg/b/": Settings({"a": "b"}, 2)}
    node.image = node.image.replace(settings=settings)
    response = node.ask(ListConfigResourcesRequest(resource_types=kinds), version)
    assert response.error_code == E.NONE
    found = [(one.resource_type, one.resource_name) for one in response.config_resources]
    assert found == listed


@pytest.mark.parametrize("kind", [0, 1, 64])
def test_an_unknown_type_cannot_be_listed(node: FakeNode, kind: int) -> None:
    response = node.ask(ListConfigResourcesRequest(resource_types=[kind, 2]), 1)
    assert response.error_code == E.UNSUPPORTED_VERSION
    assert response.config_resources == []
