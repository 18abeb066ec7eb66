"""From frame to handler and back."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from ottla.core.metrics import CPU_SAMPLE_EVERY, SAMPLE_EVERY
from ottla.core.pending import Pending
from ottla.handlers import describe_cluster
from ottla.handlers.dispatch import Dispatch
from ottla.handlers.reply import Closing, Parked, Reply
from ottla.protocol.codec import CodecError, decoder, encoder
from ottla.protocol.connection import PeerError
from ottla.protocol.frame import RequestHeader, request_frame
from ottla.protocol.messages.api_versions import ApiVersionsRequest, ApiVersionsResponse
from ottla.protocol.messages.describe_cluster import (
    DescribeClusterRequest,
    DescribeClusterResponse,
)
from tests.unit.handlers.node import FakeNode


def frame(body: Any, version: int, correlation_id: int = 7) -> memoryview:
    (sent,) = encoder(type(body), version)(body)
    header = RequestHeader(body.KEY, version, correlation_id, "test")
    return memoryview(request_frame(header, [bytes(sent)]))[4:]


def asked_for_a_cluster() -> memoryview:
    return frame(DescribeClusterRequest(), 0)


@pytest.fixture
def node() -> FakeNode:
    return FakeNode()


def test_an_answer_is_one_frame_with_the_requests_correlation_id(node: FakeNode) -> None:
    answer = Dispatch(node.context).dispatch(node.connection, asked_for_a_cluster())
    assert isinstance(answer, list)
    (sent,) = answer
    assert isinstance(sent, bytes)
    size, correlation_id, tags = struct.unpack_from(">iib", sent)
    assert (size, correlation_id, tags) == (len(sent) - 4, 7, 0)
    response, end = decoder(DescribeClusterResponse, 0)(memoryview(sent), 9)
    assert end == len(sent)
    assert response.cluster_id == "a-cluster"


@pytest.mark.parametrize("version", [0, 2, 3, 4])
def test_api_versions_is_answered_with_the_oldest_header(node: FakeNode, version: int) -> None:
    request = ApiVersionsRequest(client_software_name="a", client_software_version="1")
    answer = Dispatch(node.context).dispatch(node.connection, frame(request, version))
    assert isinstance(answer, list)
    (sent,) = answer
    assert isinstance(sent, bytes)
    response, end = decoder(ApiVersionsResponse, version)(memoryview(sent), 8)
    assert end == len(sent)
    assert response.error_code == 0


@pytest.mark.parametrize("version", [5, 9, -1, 32767])
def test_h12_an_unknown_version_of_api_versions_gets_the_range_in_v0(
    node: FakeNode, version: int
) -> None:
    sent = struct.pack(">hhih", 18, version, 1, 5) + b"probe" + b"\0\1\1\0"
    answer = Dispatch(node.context).dispatch(node.connection, memoryview(sent))
    # The very bytes that Apache Kafka 4.3.1 answers with.
    assert answer == [bytes.fromhex("0000001000000001002300000001001200000004")]


@pytest.mark.parametrize(("key", "version"), [(999, 0), (3, 99), (0, 2), (3, -1), (-1, 0)])
def test_a_key_or_version_that_is_not_served_ends_the_connection(
    node: FakeNode, key: int, version: int
) -> None:
    sent = struct.pack(">hhih", key, version, 1, 5) + b"probe\0"
    with pytest.raises(PeerError, match="is not served"):
        Dispatch(node.context).dispatch(node.connection, memoryview(sent))


@pytest.mark.parametrize("rest", [b"", b"\xff\xff\xff\xff\x0f", b"\1\0\x09x"])
def test_a_version_that_is_not_served_is_named_though_its_header_cannot_be_read(
    node: FakeNode, rest: bytes
) -> None:
    sent = struct.pack(">hhih", 3, 99, 1, 5) + b"probe" + rest
    with pytest.raises(PeerError, match="Metadata version 99 is not served"):
        Dispatch(node.context).dispatch(node.connection, memoryview(sent))


def test_a_header_of_a_version_that_is_served_is_told_what_is_wrong_with_it(
    node: FakeNode,
) -> None:
    for sent in (struct.pack(">hhih", 3, 12, 1, 5) + b"probe", b"\0\3\0\x63"):
        with pytest.raises(CodecError, match="header"):
            Dispatch(node.context).dispatch(node.connection, memoryview(sent))


def test_bytes_that_are_no_request_are_the_codecs_error(node: FakeNode) -> None:
    with pytest.raises(CodecError):
        Dispatch(node.context).dispatch(node.connection, asked_for_a_cluster()[:-1])


def test_h22_trailing_bytes_are_taken_and_counted_and_no_operator_is_troubled(
    node: FakeNode, caplog: pytest.LogCaptureFixture
) -> None:
    dispatch = Dispatch(node.context)
    longer = memoryview(bytes(asked_for_a_cluster()) + b"xx")
    assert dispatch.dispatch(node.connection, longer)
    assert node.context.complaints.counts == {"trailing bytes": 1}
    assert not [one for one in caplog.records if one.levelname != "DEBUG"]


def test_no_answer_is_no_chunks_and_a_close_is_one_without_chunks(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    replies = iter([Reply(None), Reply(None, close=True)])
    monkeypatch.setattr(describe_cluster, "handle", lambda *_: next(replies))
    dispatch = Dispatch(node.context)
    assert dispatch.dispatch(node.connection, asked_for_a_cluster()) == []
    answer = dispatch.dispatch(node.connection, asked_for_a_cluster())
    assert isinstance(answer, Closing)
    assert answer.chunks == []


def test_a_parked_request_is_encoded_when_it_resumes(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    pending: Pending[None] = Pending()

    def at_last() -> Reply:
        return Reply(DescribeClusterResponse(cluster_id="late"))

    def once_more() -> Parked:
        return Parked(pending, at_last)

    monkeypatch.setattr(describe_cluster, "handle", lambda *_: Parked(pending, once_more))
    dispatch = Dispatch(node.context)
    parked = dispatch.dispatch(node.connection, asked_for_a_cluster())
    assert isinstance(parked, Parked)
    again = dispatch.resume(parked)
    assert isinstance(again, Parked)
    answer = dispatch.resume(again)
    assert isinstance(answer, list)
    assert b"late" in bytes(answer[0])  # there are no slices in it


def test_requests_are_counted_by_api_when_a_connection_turns_to_another(node: FakeNode) -> None:
    dispatch = Dispatch(node.context)
    cluster, versions = asked_for_a_cluster(), frame(ApiVersionsRequest(), 0)
    unknown = memoryview(struct.pack(">hhihb", 18, 99, 1, -1, 0))
    asked = [cluster, cluster, versions, cluster, unknown, versions, versions, cluster]
    for number, one in enumerate(asked):
        node.connection.tally.asked = lambda number=number: number
        dispatch.dispatch(node.connection, one)
    node.connection.tally.asked = lambda: len(asked)
    node.context.metrics.settle()
    counts = {one.name: one.requests for one in node.context.metrics.apis.values()}
    assert counts == {"DescribeCluster": 4, "ApiVersions": 4}


def test_few_requests_are_timed_and_of_fewer_is_the_cpu_measured(node: FakeNode) -> None:
    asked: list[bool] = []

    def stopwatch(cpu: bool) -> tuple[float, float]:
        asked.append(cpu)
        return float(len(asked)), len(asked) * 0.5 if cpu else 0.0

    dispatch = Dispatch(node.context, stopwatch=stopwatch)
    for _ in range(CPU_SAMPLE_EVERY):
        dispatch.sampled(node.connection, asked_for_a_cluster())
    (tally,) = node.context.metrics.apis.values()
    assert (tally.wall.count, tally.cpu_timed) == (CPU_SAMPLE_EVERY // SAMPLE_EVERY, 1)
    assert (tally.wall.most_s, tally.cpu_s) == (1.0, 0.5)
    assert (asked.count(True), len(asked)) == (2, 2 * tally.wall.count)
