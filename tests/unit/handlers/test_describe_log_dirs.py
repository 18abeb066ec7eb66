"""DescribeLogDirs: the one directory, its partitions and its room."""

from __future__ import annotations

from errno import EIO
from typing import Any

import pytest

from ottla.core.ports import DiskError, Space
from ottla.handlers.reply import Parked
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.describe_log_dirs import (
    DescribableLogDirTopic,
    DescribeLogDirsRequest,
)
from tests.unit.handlers.node import FakeLog, FakeNode

VERSIONS = range(1, 6)
ERROR = DiskError("write", "/data/x", OSError(EIO, "no"))


def a_node() -> FakeNode:
    node = FakeNode()
    for topic, number, size in (("a", 0, 100), ("a", 1, 0), ("b", 0, 7)):
        node.partition(topic, number, FakeLog()).log.size = size
    return node


def asking(*wanted: tuple[str, list[int]]) -> DescribeLogDirsRequest:
    return DescribeLogDirsRequest(
        topics=[DescribableLogDirTopic(topic=name, partitions=numbers) for name, numbers in wanted]
    )


def answered(node: FakeNode, request: DescribeLogDirsRequest, version: int = 5) -> Any:
    outcome = node.ask(request, version)
    if isinstance(outcome, Parked):
        node.disk.spaces[-1].complete(Space(1000, 300))
        outcome = node.as_sent(outcome.resume(), 35, version)
    (result,) = outcome.results
    return result


def sizes(result: Any) -> dict[tuple[str, int], int]:
    return {
        (topic.name, one.partition_index): one.partition_size
        for topic in result.topics
        for one in topic.partitions
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_tells_the_sizes(version: int) -> None:
    result = answered(a_node(), DescribeLogDirsRequest(topics=None), version)
    assert (result.error_code, result.log_dir) == (ErrorCode.NONE, "/data")
    assert sizes(result) == {("a", 0): 100, ("a", 1): 0, ("b", 0): 7}
    space = (1000, 300) if version >= 4 else (-1, -1)
    assert (result.total_bytes, result.usable_bytes) == space
    lags = [(one.offset_lag, one.is_future_key) for t in result.topics for one in t.partitions]
    assert lags == [(0, False)] * 3


def test_only_what_is_asked_for_and_there_is_told_and_once() -> None:
    node = a_node()
    request = asking(("a", [1, 1, 9]), ("a", [1]), ("c", [0]), ("b", []))
    assert sizes(answered(node, request)) == {("a", 1): 0}
    assert sizes(answered(node, asking())) == {}


def test_an_offline_directory_tells_its_error_and_nothing_else() -> None:
    node = a_node()
    node.table.failure = ERROR
    result = answered(node, DescribeLogDirsRequest(topics=None))
    assert result.error_code == ErrorCode.KAFKA_STORAGE_ERROR
    assert (result.topics, result.total_bytes) == ([], -1)


@pytest.mark.parametrize("refuses", [True, False])
def test_a_disk_that_does_not_tell_its_space_leaves_it_unknown(refuses: bool) -> None:
    node = a_node()
    parked = node.ask(asking(("a", [0])), 5)
    assert isinstance(parked, Parked)
    if refuses:
        node.disk.spaces[0].fail(ERROR)
    (result,) = node.as_sent(parked.resume(), 35, 5).results
    assert (result.total_bytes, result.usable_bytes) == (-1, -1)
    assert sizes(result) == {("a", 0): 100}
