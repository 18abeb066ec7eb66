"""DescribeCluster. Codes and words are those of Apache Kafka 4.3.1."""

from __future__ import annotations

import pytest

from ottla.handlers.nodes import NOT_ASKED
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.describe_cluster import DescribeClusterRequest
from tests.unit.handlers.node import ENDPOINT, FakeNode


@pytest.mark.parametrize("version", range(3))
def test_every_version_describes_the_brokers(version: int) -> None:
    answer = FakeNode().ask(DescribeClusterRequest(include_fenced_brokers=True), version)
    assert (answer.error_code, answer.cluster_id) == (ErrorCode.NONE, "a-cluster")
    assert (answer.controller_id, answer.endpoint_type) == (0, 1)
    (broker,) = answer.brokers
    assert (broker.broker_id, broker.host, broker.port, broker.rack) == (0, *ENDPOINT, "rack-1")
    assert not broker.is_fenced
    assert answer.cluster_authorized_operations == NOT_ASKED


def test_authorized_operations_are_told_to_who_asks() -> None:
    request = DescribeClusterRequest(include_cluster_authorized_operations=True)
    assert FakeNode().ask(request, 0).cluster_authorized_operations == 8096


@pytest.mark.parametrize(
    ("endpoint_type", "error"),
    [
        (2, ErrorCode.MISMATCHED_ENDPOINT_TYPE),
        (3, ErrorCode.UNSUPPORTED_ENDPOINT_TYPE),
        (-1, ErrorCode.UNSUPPORTED_ENDPOINT_TYPE),
    ],
)
@pytest.mark.parametrize("version", [1, 2])
def test_a_brokers_listener_describes_brokers_only(
    version: int, endpoint_type: int, error: ErrorCode
) -> None:
    answer = FakeNode().ask(DescribeClusterRequest(endpoint_type=endpoint_type), version)
    assert answer.error_code == error
    assert answer.error_message
    assert (answer.cluster_id, answer.controller_id, answer.brokers) == ("", -1, [])
