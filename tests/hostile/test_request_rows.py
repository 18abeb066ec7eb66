"""Rows of the hostile table about frames and headers, and about requests that name too much.

One request can show each; the broker, and what must hold after each row, is in rows.py.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ottla.protocol.errors import ErrorCode as E
from ottla.protocol.messages.api_versions import ApiVersionsRequest
from ottla.protocol.messages.fetch import FetchPartition, FetchRequest, FetchTopic
from ottla.protocol.messages.list_offsets import (
    ListOffsetsPartition,
    ListOffsetsRequest,
    ListOffsetsTopic,
)
from ottla.protocol.messages.metadata import MetadataRequest, MetadataRequestTopic
from ottla.protocol.messages.produce import (
    PartitionProduceData,
    ProduceRequest,
    TopicProduceData,
)
from tests.hostile.conftest import Start
from tests.hostile.rows import (
    MAX,
    broker_of_rows,
)
from tests.hostile.wire import (
    WELL,
    Victim,
    answer_of,
    framed,
    head,
    raw,
    request,
)


@pytest.fixture(scope="module")
def broker(start: Start) -> Victim:
    return broker_of_rows(start)


@pytest.fixture(autouse=True)
def unharmed(broker: Victim) -> Iterator[None]:
    yield
    broker.unharmed()


# --- what ends a connection -------------------------------------------------------------------

TWO_GIB = b"\xff\xff\xff\xff\x07"  # 2^31-1 as an unsigned varint
METADATA_V9_REST = b"\0\0\0\0"
INTER_BROKER = {
    4: "LeaderAndIsr", 5: "StopReplica", 6: "UpdateMetadata", 7: "ControlledShutdown", 52: "Vote",
    53: "BeginQuorumEpoch", 54: "EndQuorumEpoch", 56: "AlterPartition", 58: "Envelope",
    59: "FetchSnapshot", 67: "AllocateProducerIds", 73: "AssignReplicasToDirs",
}  # fmt: skip
REGISTRATIONS = {62: "BrokerRegistration", 63: "BrokerHeartbeat", 70: "ControllerRegistration"}

CLOSED = {
    "H1 a size of -1": struct.pack(">i", -1),
    "H1 a size of -2^31": struct.pack(">I", 1 << 31),
    "H2 a size above socket.request.max.bytes": struct.pack(">i", 104_857_601) + bytes(100),
    "H4 a size of 0": struct.pack(">i", 0),
    "H7 HTTP": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "H7 TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32),
    "H10 key 9999": raw(9999, 0),
    "H10 key -1": raw(-1, 0),
    "H11 Metadata v99": raw(3, 99, b"\0\0\0\0"),
    "H11 Metadata v-1": raw(3, -1, b"\0\0\0\0"),
    "H11 Fetch v3": raw(1, 3, bytes(40)),
    "H11 Produce v2": raw(0, 2, bytes(40)),
    **{f"H14 {name}": raw(key, 0, bytes(40)) for key, name in INTER_BROKER.items()},
    **{f"H80 {name}": raw(key, 0, bytes(40)) for key, name in REGISTRATIONS.items()},
    "H15 a header of 9 bytes": framed(head(3, 1)[:9]),
    "H15 cut inside the client id": framed(struct.pack(">hhih", 3, 1, 1, 9) + b"me"),
    "H15 a client id of -2 bytes": framed(struct.pack(">hhih", 3, 1, 1, -2) + b"me"),
    "H15 a client id of 32767 bytes": framed(struct.pack(">hhih", 3, 1, 1, 32767) + b"me"),
    "H15 a client id that is not UTF-8": framed(struct.pack(">hhih", 3, 1, 1, 2) + b"\xff\xfe"),
    "H16 2^31-1 tags in the header": raw(3, 9, METADATA_V9_REST, tags=TWO_GIB),
    "H16 2^31-1 tags in the body": raw(3, 9, b"\0\0\0\0" + TWO_GIB),
    "H16 one tag twice": raw(3, 9, METADATA_V9_REST, tags=b"\2\5\0\5\0"),
    "H16 tags that descend": raw(3, 9, METADATA_V9_REST, tags=b"\2\5\0\4\0"),
    "H16 a tag larger than the rest": raw(3, 9, METADATA_V9_REST, tags=b"\1\0\x7f"),
    "H17 a count of six bytes": raw(3, 9, b"\xff" * 6 + bytes(8)),
    "H17 tags in six bytes": raw(3, 9, METADATA_V9_REST, tags=b"\xff" * 6),
    "H17 a string's length of nine bytes": raw(3, 9, b"\2" + b"\xff" * 9 + bytes(8)),
    "H18 2^31-1 topics": raw(3, 1, struct.pack(">i", MAX) + bytes(20)),
    "H18 2^31-2 topics, compact": raw(3, 9, TWO_GIB + bytes(20)),
    "H18 2^31-1 partitions": raw(1, 4, struct.pack(">iiiibi", -1, 0, 0, 0, 0, MAX) + bytes(20)),
    "H19 a null name": raw(3, 1, struct.pack(">ih", 1, -1)),
    "H19 a null name, compact": raw(3, 9, b"\2\0\0" + bytes(4)),
    "H19 null topics": raw(0, 3, struct.pack(">hhii", -1, -1, 100, -1)),
    "H20 a compact string of 40000 bytes": raw(3, 9, b"\2\xc1\xb8\x02" + b"a" * 40_000 + bytes(5)),
    "H21 nothing behind the header": raw(3, 1),
    "H21 a Produce cut short": raw(0, 3, struct.pack(">hh", -1, -1)),
    "H21 a Fetch cut short": raw(1, 12, bytes(10)),
}  # fmt: skip


@pytest.mark.parametrize("data", CLOSED.values(), ids=CLOSED)
def test_is_no_request_and_ends_its_connection_alone(broker: Victim, data: bytes) -> None:
    with broker.peer() as other, broker.peer() as peer:
        peer.send(request(ApiVersionsRequest(), 0, 7) + data)
        first = peer.rest()
        # What came before it is answered; nothing else is.
        assert not first or struct.unpack_from(">ii", first) == (len(first) - 4, 7)
        other.ping()


# --- ApiVersions, and frames that are well all the same ---------------------------------------


def test_h12_an_unknown_version_of_api_versions_is_answered_in_version_0(broker: Victim) -> None:
    with broker.peer() as peer:
        for version in (5, 99, -1, 32767):
            peer.send(raw(18, version, b"\1\1\0"))
            answer = answer_of(ApiVersionsRequest(), 0, peer.answer())
            assert answer.error_code == E.UNSUPPORTED_VERSION
            assert [api.api_key for api in answer.api_keys] == [18]
        peer.ping()


@pytest.mark.parametrize("name", ["", "-a", "a-", "a b", "a\0", "ä", "a/b", "%s%n", "\n"])
def test_h13_a_software_name_out_of_shape_is_an_invalid_request(broker: Victim, name: str) -> None:
    with broker.peer() as peer:
        for bad in (
            ApiVersionsRequest(client_software_name=name, client_software_version="1"),
            ApiVersionsRequest(client_software_name="a", client_software_version=name),
        ):
            assert peer.ask(bad, 3).error_code == E.INVALID_REQUEST
        peer.ping()


def test_h22_bytes_behind_the_body_are_ignored(broker: Victim) -> None:
    with broker.peer() as peer:
        for extra in (b"\0", bytes(3), b"\xff" * 5000):
            asked = MetadataRequest(topics=[MetadataRequestTopic(name=WELL)])
            peer.send(framed(request(asked, 4, 9)[4:] + extra))
            assert answer_of(asked, 4, peer.answer()).topics[0].error_code == 0


def test_h25_correlation_ids_are_echoed_whatever_they_are(broker: Victim) -> None:
    ids = [7, 7, -1, -(2**31), MAX, 0, 7]
    with broker.peer() as peer:
        peer.send(b"".join(request(ApiVersionsRequest(), 0, number) for number in ids))
        assert [struct.unpack_from(">i", peer.answer())[0] for _ in ids] == ids


# --- H28: many partitions ---------------------------------------------------------------------

TOO_MANY = 100_001


def _too_many() -> dict[str, tuple[Any, int, Callable[[Any], set[int]]]]:
    """Requests beyond request.partitions.max, and where their answers have the errors."""

    def of_partitions(answer: Any) -> set[int]:
        (topic,) = answer.responses
        parts = getattr(topic, "partitions", None) or topic.partition_responses
        assert len(parts) == TOO_MANY
        return {part.error_code for part in parts}

    wanted = [FetchPartition(partition=n, fetch_offset=0) for n in range(TOO_MANY)]
    offered = [PartitionProduceData(index=n, records=b"") for n in range(TOO_MANY)]
    asked = [MetadataRequestTopic(name="x") for _ in range(TOO_MANY)]
    listed = [ListOffsetsPartition(partition_index=n, timestamp=-1) for n in range(TOO_MANY)]
    fetched_from = [FetchTopic(topic=WELL, partitions=wanted)]
    produced_to = [TopicProduceData(name=WELL, partition_data=offered)]
    listed_of = [ListOffsetsTopic(name=WELL, partitions=listed)]
    return {
        "Metadata": (
            MetadataRequest(topics=asked),
            9,
            lambda answer: {topic.error_code for topic in answer.topics},
        ),
        "Fetch v12": (
            FetchRequest(topics=fetched_from),
            12,
            lambda answer: {answer.error_code},
        ),
        "Fetch v4": (FetchRequest(topics=fetched_from), 4, of_partitions),
        "Produce": (ProduceRequest(acks=1, topic_data=produced_to), 9, of_partitions),
        "ListOffsets": (
            ListOffsetsRequest(topics=listed_of),
            6,
            lambda answer: {part.error_code for part in answer.topics[0].partitions},
        ),
    }


@pytest.mark.parametrize("which", ["Metadata", "Fetch v12", "Fetch v4", "Produce", "ListOffsets"])
def test_h28_more_partitions_than_a_request_may_name_are_refused(
    broker: Victim, which: str
) -> None:
    asked, version, errors = _too_many()[which]
    with broker.peer() as peer:
        assert errors(peer.ask(asked, version)) == {E.INVALID_REQUEST}
        peer.ping()


def test_h28_more_elements_than_any_request_has_end_the_connection(broker: Victim) -> None:
    """Two bytes each on the wire, a hundred as an object: refused while it is decoded."""
    many = 20 << 20
    with broker.peer() as peer:
        peer.send(framed(head(3, 9) + b"\x81\x80\x80\x0a" + b"\1\0" * many + bytes(4)))
        assert peer.rest() == b""
