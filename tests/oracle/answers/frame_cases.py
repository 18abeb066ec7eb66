"""Cases of frames that are no request: after each, the connection's end is compared (H10 to H22)."""

from __future__ import annotations

import struct
from typing import Any

from tests.oracle.answers.case import each, error
from tests.oracle.answers.peer import CLOSED, Peer

API_VERSIONS, METADATA = 18, 3


def outcome(peer: Peer, frame: bytes) -> str:
    """Whether a frame is answered at all, and that the next connection is."""
    answer = peer.exchange(frame)
    after = peer.exchange(peer.frame(API_VERSIONS, 0, b""))
    assert after is not None, "the next connection does not work"
    return CLOSED if answer is None else "answered"


def head(key: int, version: int, client: bytes) -> bytes:
    return struct.pack(">hhi", key, version, 1) + client


KEYS = {"9999": 9999, "negative": -1, "lowest": -32768, "highest": 32767}
BETWEEN_BROKERS = {
    "leader_and_isr": 4,
    "stop_replica": 5,
    "update_metadata": 6,
    "controlled_shutdown": 7,
    "vote": 52,
    "alter_partition": 56,
    "fetch_snapshot": 59,
    "broker_registration": 62,
    "broker_heartbeat": 63,
    "allocate_producer_ids": 67,
    "assign_replicas_to_dirs": 73,
}


@each(API_VERSIONS, 0, **KEYS)
def h10_key(peer: Peer, _version: int, given: int) -> Any:
    return outcome(peer, peer.frame(given, 0, b""))


@each(METADATA, 0, higher=99, negative=-1, highest=32767)
def h11_version(peer: Peer, _version: int, given: int) -> Any:
    return outcome(peer, head(METADATA, given, b"\0\0") + b"\0\0\0\0")


@each(API_VERSIONS, 0, **BETWEEN_BROKERS)
def h14_key(peer: Peer, _version: int, given: int) -> Any:
    return outcome(peer, peer.frame(given, 0, b"\0" * 40))


CLIENTS = {
    "truncated": b"\0\x09abc",
    "length_minus_2": b"\xff\xfe",
    "length_32767": b"\x7f\xff",
    "null": b"\xff\xff",
    "empty": b"\0\0",
    "no_utf_8": b"\0\x02\xff\xfe",
}


@each(API_VERSIONS, 0, **CLIENTS)
def h15_client_id(peer: Peer, _version: int, given: bytes) -> Any:
    return outcome(peer, head(API_VERSIONS, 0, given))


VARINT_MAX = b"\xff\xff\xff\xff\x07"
TAGS = {
    "count_huge": VARINT_MAX,
    "not_ascending": b"\x02\x05\x00\x04\x00",
    "twice": b"\x02\x05\x00\x05\x00",
    "size_past_the_end": b"\x01\x05\x7f",
    "unknown": b"\x01\x63\x03abc",
    "varint_of_6_bytes": b"\xff\xff\xff\xff\xff\xff",
}


@each(API_VERSIONS, 3, **TAGS)
def h16_tags_of_the_header(peer: Peer, version: int, given: bytes) -> Any:
    return outcome(peer, head(API_VERSIONS, version, b"\0\x01a") + given + b"\x02a\x021\0")


@each(METADATA, 9, **TAGS)
def h16_tags_of_the_body(peer: Peer, version: int, given: bytes) -> Any:
    return outcome(peer, peer.frame(METADATA, version, b"\x01\0\0\0" + given))


BODIES = {
    "h18_array_huge": b"\x7f\xff\xff\xff" + bytes(20),
    "h19_null_name": b"\0\0\0\x01\xff\xff",
    "h21_too_short": b"\0\0",
    "h21_empty": b"",
    "h22_three_bytes_more": b"\0\0\0\0abc",
}


@each(METADATA, 1, **BODIES)
def body(peer: Peer, version: int, given: bytes) -> Any:
    return outcome(peer, head(METADATA, version, b"\0\0") + given)


@error(METADATA, 9)
def h20_compact_string_of_40000(peer: Peer, version: int) -> Any:
    name = b"\xc1\xb8\x02" + b"x" * 40_000
    return outcome(peer, peer.frame(METADATA, version, b"\x02" + name + b"\0\0\0\0\0"))


@error(API_VERSIONS, 0)
def h25_correlation_ids_are_echoed(peer: Peer, _version: int) -> Any:
    found = []
    for number in (7, 7, -1, -(1 << 31)):
        answer = peer.exchange(struct.pack(">hhih", API_VERSIONS, 0, number, -1))
        assert answer is not None
        found.append(int.from_bytes(answer[:4], "big", signed=True))
    return found
