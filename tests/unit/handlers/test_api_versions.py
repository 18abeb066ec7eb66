"""ApiVersions."""

from __future__ import annotations

import pytest

from ottla.handlers.registry import APIS
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.api_versions import ApiVersionsRequest
from tests.unit.handlers.node import FakeNode


def software(name: str = "a-client", version: str = "1.0") -> ApiVersionsRequest:
    return ApiVersionsRequest(client_software_name=name, client_software_version=version)


@pytest.mark.parametrize("version", range(5))
def test_every_version_lists_the_registry(version: int) -> None:
    answer = FakeNode().ask(software(), version)
    assert answer.error_code == ErrorCode.NONE
    listed = [(one.api_key, one.min_version, one.max_version) for one in answer.api_keys]
    assert listed == [(api.key, api.lowest, api.highest) for api in APIS]


def test_produce_is_advertised_from_zero() -> None:
    # Older librdkafka sends nothing compressed to a broker that doesn't (KAFKA-18659).
    assert FakeNode().ask(software(), 0).api_keys[0].min_version == 0


@pytest.mark.parametrize("version", [3, 4])
def test_features_say_no_more_than_what_is_true(version: int) -> None:
    answer = FakeNode().ask(software(), version)
    # Before version 4 clients can't read a range that begins at 0.
    features = ["metadata.version", "group.version", "transaction.version"]
    supported = features if version >= 4 else features[:1]
    assert [one.name for one in answer.supported_features] == supported
    assert [one.name for one in answer.finalized_features] == features
    assert answer.finalized_features_epoch >= 0
    assert answer.zk_migration_ready is False


@pytest.mark.parametrize(
    ("name", "number"),
    [("", "1"), ("-a", "1"), ("a-", "1"), ("a b", "1"), ("a\n", "1"), ("a", ""), ("a", "1 2")],
)
@pytest.mark.parametrize("version", [3, 4])
def test_h13_client_software_named_against_the_rules_is_an_invalid_request(
    version: int, name: str, number: str
) -> None:
    answer = FakeNode().ask(software(name, number), version)
    assert answer.error_code == ErrorCode.INVALID_REQUEST
    assert answer.api_keys == []
    assert answer.finalized_features_epoch == -1


def test_client_software_is_remembered_with_the_connection() -> None:
    node = FakeNode()
    node.ask(software("apache-kafka-java", "4.3.1"), 4)
    assert node.connection.client_software_name == "apache-kafka-java"
    assert node.connection.client_software_version == "4.3.1"


def test_before_v3_there_is_no_client_software_to_judge() -> None:
    assert FakeNode().ask(software("", ""), 2).error_code == ErrorCode.NONE
