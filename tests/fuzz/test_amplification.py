"""Small requests that ask for much: what a node takes to answer them is bounded.

Each asks for the same thing as often as a request may name it, or for as many as there may be.
"""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from ottla.protocol.codec import encoder
from ottla.protocol.frame import RequestHeader, request_frame
from ottla.protocol.messages.create_topics import CreatableTopic, CreateTopicsRequest
from ottla.protocol.messages.describe_configs import (
    DescribeConfigsRequest,
    DescribeConfigsResource,
)
from ottla.protocol.messages.describe_producers import DescribeProducersRequest, TopicRequest
from ottla.protocol.messages.fetch import FetchPartition, FetchRequest, FetchTopic
from ottla.protocol.messages.metadata import MetadataRequest, MetadataRequestTopic
from ottla.records.builder import Producer
from ottla.testing.simnode import SimNode
from tests.asking import batch
from tests.asking import put as produce
from tests.fuzz.test_requests import put

MANY = 10_000
PEAK_MAX = 256 << 20


def _configs(kind: int, name: str) -> DescribeConfigsRequest:
    one = DescribeConfigsResource(resource_type=kind, resource_name=name, configuration_keys=None)
    return DescribeConfigsRequest(
        resources=[one] * MANY, include_synonyms=True, include_documentation=True
    )


ASKED: dict[str, tuple[Any, int]] = {
    "the settings of a broker": (_configs(4, "0"), 3),
    "the settings of a topic": (_configs(2, "t"), 3),
    "the producers of a partition": (
        DescribeProducersRequest(topics=[TopicRequest(name="t", partition_indexes=[0] * MANY)]),
        0,
    ),
    "topics that are only checked": (
        CreateTopicsRequest(
            topics=[
                CreatableTopic(name=f"n{n}", num_partitions=1, replication_factor=1)
                for n in range(MANY)
            ],
            validate_only=True,
        ),
        5,
    ),
    "the partitions of a topic": (
        MetadataRequest(topics=[MetadataRequestTopic(name="t")] * MANY),
        9,
    ),
    "the records of a partition": (
        FetchRequest(
            min_bytes=0,
            topics=[
                FetchTopic(
                    topic="t",
                    partitions=[FetchPartition(partition=0, partition_max_bytes=100)] * MANY,
                )
            ],
        ),
        4,
    ),
}


@pytest.mark.parametrize(("message", "version"), ASKED.values(), ids=ASKED)
def test_asking_often_in_one_request_takes_no_more_than_it_may(message: Any, version: int) -> None:
    node = SimNode(0)
    node.create_topic("t", 100)
    for number in range(200):
        produce(node, batch(b"x", producer=Producer(1000 + number, 0, 0)))
    (body,) = encoder(type(message), version)(message)
    header = RequestHeader(message.KEY, version, 1, "x")
    frame = request_frame(header, [bytes(body)])
    tracemalloc.start()
    try:
        put(node, frame)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= PEAK_MAX
