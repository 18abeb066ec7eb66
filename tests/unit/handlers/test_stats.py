"""What a node says of itself: counts that mean what they are called, whatever happens to a log."""

from __future__ import annotations

from typing import Any

import pytest

from ottla.core.model import Offset
from ottla.handlers import stats
from ottla.protocol.messages.api_versions import ApiVersionsRequest
from ottla.protocol.messages.describe_cluster import DescribeClusterRequest
from ottla.records import compress
from ottla.testing.simnode import SimNode
from tests.asking import batch, produce, put


@pytest.fixture
def node() -> SimNode:
    node = SimNode()
    node.create_topic("t", 2)
    for _ in range(5):
        put(node, batch(b"x" * 100))
    return node


def reports(node: SimNode) -> list[dict[str, Any]]:
    return stats.partitions(node.table)


def test_records_that_are_deleted_take_nothing_from_what_came_in(node: SimNode) -> None:
    node.table.delete_records(node.partition("t"), Offset(3))
    node.settle()
    mine = reports(node)[0]
    assert (mine["records_in"], mine["batches_in"], mine["log_start_offset"]) == (5, 5, 3)


def test_a_node_that_starts_again_counts_from_its_start(node: SimNode) -> None:
    node.stop()
    node.start()
    put(node, batch(b"y"))
    mine = reports(node)[0]
    assert (mine["records_in"], mine["batches_in"], mine["log_end_offset"]) == (1, 1, 6)


def test_the_load_is_shared_out_completely(node: SimNode) -> None:
    put(node, batch(b"x" * 100), partition=1)
    found = reports(node)
    stats.shares(found)
    assert sum(one["load_share"] for one in found) == pytest.approx(1.0)
    assert found[0]["load_share"] == pytest.approx(5 / 6)


def test_the_batches_looked_into_are_those_of_the_busiest_compressed_partitions(
    node: SimNode,
) -> None:
    put(node, batch(b"x" * 500, codec=compress.LZ4), partition=1)
    assert stats.busiest_compressed(reports(node), 8) == [("t", 1)]
    [piece] = stats.compressed_samples(node.context, [("t", 1), ("gone", 0)])
    assert piece.length == len(batch(b"x" * 500, codec=compress.LZ4))
    piece.release()


def test_a_whole_report_of_nothing_divides_by_nothing() -> None:
    node = SimNode()
    found = stats.whole(stats.broker(node.context), reports(node), [], {})
    assert found["batching"]["records_per_batch"] == 0.0
    assert found["page_cache"]["fetches_warm_share"] == 1.0
    assert found["offsets"] == {"groups": 0, "positions": 0, "lag": []}


def test_requests_are_counted_exactly_though_nobody_adds_them_up(node: SimNode) -> None:
    requests: dict[str, int] = {}

    def counted() -> dict[str, int]:
        before = dict(requests)
        requests.update((one["api"], one["requests"]) for one in stats.broker(context)["requests"])
        more = {name: count - before.get(name, 0) for name, count in requests.items()}
        return {name: count for name, count in more.items() if count}

    context = node.context
    counted()
    connection = node.connect()
    for _ in range(3):
        connection.ask(ApiVersionsRequest(), 0)
    connection.ask(DescribeClusterRequest(), 0)
    connection.ask(produce({("t", 0): batch(b"x")}, 0), 9, answered=False)
    waits = connection.ask(produce({("t", 0): batch(b"x")}, -1), 9)
    connection.ask(ApiVersionsRequest(), 0)
    assert counted() == {"ApiVersions": 4, "DescribeCluster": 1, "Produce": 2}
    node.settle()
    assert waits.done
    connection.close()
    assert counted() == {}
    node.connect().ask(ApiVersionsRequest(), 0)
    assert counted() == {"ApiVersions": 1}
