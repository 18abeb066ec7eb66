"""Requests as bytes, made once and sent many times: what a load generator puts on the wire.

Owns five requests in one version each, written by hand so that a generator costs next to
nothing, and so that it owes nothing to the codec it measures. Must not touch a socket.
Source: the protocol guide; Produce 9, Fetch 12, Metadata 1, CreateTopics 2, DeleteTopics 1.
"""

from __future__ import annotations

import struct

from ottla.records.builder import NO_PRODUCER, Producer, build_batch
from ottla.records.reader import Record

CORRELATION_AT = 8
"""Where the correlation id stands in a request: after size, key and version."""

_HEAD = struct.Struct(">hhih")
_CLIENT = b"load"


def _frame(key: int, version: int, body: bytes, *, flexible: bool) -> bytes:
    return _head(key, version, len(body), flexible=flexible) + body


def _head(key: int, version: int, body_bytes: int, *, flexible: bool) -> bytes:
    head = _HEAD.pack(key, version, 0, len(_CLIENT)) + _CLIENT + (b"\0" if flexible else b"")
    return struct.pack(">i", len(head) + body_bytes) + head


def _string(text: str) -> bytes:
    return struct.pack(">h", len(text)) + text.encode()


def _compact(content: bytes) -> bytes:
    """A compact string or bytes: an unsigned varint of its length plus one, then itself."""
    return _varint(len(content) + 1) + content


def _varint(value: int) -> bytes:
    size = bytearray()
    while value > 0x7F:
        size.append(value & 0x7F | 0x80)
        value >>= 7
    size.append(value)
    return bytes(size)


def batch(
    records_count: int, value_bytes: int, timestamp_ms: int, producer: Producer = NO_PRODUCER
) -> bytes:
    """Records without keys that don't compress to nothing, in one batch."""
    value = bytes(i * 7 % 251 for i in range(value_bytes))
    return build_batch(
        (Record(None, value, timestamp_ms) for _ in range(records_count)), producer=producer
    )


def produce(topic: str, partition: int, records: bytes, acks: int) -> bytes:
    """Produce, version 9, to one partition."""
    body = b"\0" + struct.pack(">hi", acks, 30_000)
    body += b"\2" + _compact(topic.encode())
    body += b"\2" + struct.pack(">i", partition) + _compact(records) + b"\0\0\0"
    return _frame(0, 9, body, flexible=True)


def produce_to_many(topic: str, partitions: range, records: bytes, acks: int) -> list[bytes]:
    """Produce, version 9: the same batch to each of some partitions.

    In pieces, most of which are the one batch: joined, each request would take a copy of them all.
    """
    begin = b"\0" + struct.pack(">hi", acks, 30_000) + b"\2" + _compact(topic.encode())
    begin += _varint(len(partitions) + 1)
    length = _varint(len(records) + 1)
    pieces = [begin]
    for partition in partitions:
        pieces += (struct.pack(">i", partition) + length, records, b"\0")
    pieces.append(b"\0\0")
    return [_head(0, 9, sum(map(len, pieces)), flexible=True), *pieces]


def produce_error_at(topic: str) -> int:
    """Where the error code stands in the answer: size, id, tags, 1 topic, 1 partition, index."""
    return 4 + 4 + 1 + 1 + (1 + len(topic)) + 1 + 4


def fetch(topic: str, partition: int, bytes_max: int) -> bytes:
    """Fetch, version 12, without a session, from the beginning of one partition."""
    body = struct.pack(">iiiibii", -1, 500, 1, bytes_max, 0, 0, -1)
    body += b"\2" + _compact(topic.encode())
    body += b"\2" + struct.pack(">iiqiqi", partition, -1, 0, -1, -1, bytes_max) + b"\0\0"
    body += b"\1" + b"\1" + b"\0"
    return _frame(1, 12, body, flexible=True)


def fetch_error_at(topic: str) -> int:
    """Where a partition's error code stands: size, id, tags, throttle, error, session … index."""
    return 4 + 4 + 1 + 4 + 2 + 4 + 1 + (1 + len(topic)) + 1 + 4


def create_topic(topic: str, partitions_count: int) -> bytes:
    """CreateTopics, version 2, with one replica each."""
    body = struct.pack(">i", 1) + _string(topic) + struct.pack(">ihi", partitions_count, 1, 0)
    body += struct.pack(">i", 0) + struct.pack(">i?", 30_000, False)
    return _frame(19, 2, body, flexible=False)


def create_topic_error(topic: str, answer: bytes) -> int:
    """The error code of an answer without its size: id, throttle, count, name, code."""
    at = 4 + 4 + 4 + 2 + len(topic)
    return int(struct.unpack_from(">h", answer, at)[0])


def delete_topic(topic: str) -> bytes:
    """DeleteTopics, version 1."""
    body = struct.pack(">i", 1) + _string(topic) + struct.pack(">i", 30_000)
    return _frame(20, 1, body, flexible=False)


def metadata(topic: str) -> bytes:
    """Metadata, version 1, of one topic."""
    return _frame(3, 1, struct.pack(">i", 1) + _string(topic), flexible=False)
