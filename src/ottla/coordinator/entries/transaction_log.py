"""The records of __transaction_state, in Apache Kafka 4.3.1's own formats.

Owns their declarations, which version is written, and the way between entries and bytes. Must not
know what an entry means. Source: the message definitions of Kafka's transaction coordinator.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct as Packing
from struct import pack

from ottla.coordinator.decision import Entry
from ottla.coordinator.entries.versioned import (
    decode_key,
    decode_value,
    encode_key,
    encode_value,
    kind_of,
)
from ottla.protocol import schema as t
from ottla.protocol.codec import CodecError
from ottla.protocol.primitives import write_uvarint


class TransactionLogKey(t.Message, key=0, kind="key", versions=(0, 0), flexible=None):
    transactional_id: str = t.string()


class PartitionsSchema(t.Struct):
    topic: str = t.string()
    partition_ids: list[int] = t.array(t.int32)


class Named(list[PartitionsSchema]):
    """Partitions by topic, that two or three entries in turn hold: nobody changes it once it is
    in one. So what it is as bytes is worked out once."""

    __slots__ = ("packed",)

    packed: bytes | None


class TransactionLogValue(t.Message, key=0, kind="value", versions=(0, 1), flexible=1):
    """Written in version 1, as Kafka does once `transaction.version` is 1 or more (KIP-890).

    `transaction_partitions` is null where the status is Empty. Times are in ms since 1970.
    """

    producer_id: int = t.int64()
    previous_producer_id: int = t.int64(default=-1, since=1, tag=0)
    next_producer_id: int = t.int64(default=-1, since=1, tag=1)
    producer_epoch: int = t.int16()
    next_producer_epoch: int = t.int16(default=-1, since=1, tag=3)
    transaction_timeout_ms: int = t.int32()
    transaction_status: int = t.int8()
    transaction_partitions: list[PartitionsSchema] | None = t.array(PartitionsSchema, null_since=0)
    transaction_last_update_timestamp_ms: int = t.int64()
    transaction_start_timestamp_ms: int = t.int64()
    client_transaction_version: int = t.int16(since=1, tag=2)


WRITTEN_VERSION = 1
NO_EPOCH = -1
STATUS_MAX = 7


def encode_entry(entry: Entry) -> tuple[bytes, bytes | None]:
    """The key and the value of the record, None for a tombstone. Raises CodecError."""
    key, value = entry
    assert isinstance(key, TransactionLogKey), entry
    written = _key(key.transactional_id)
    if value is None:
        return written, None
    assert isinstance(value, TransactionLogValue), entry
    if value.next_producer_epoch != NO_EPOCH:  # Kafka has the field, and never sets it
        return written, encode_value(value, WRITTEN_VERSION)
    return written, _value(value)


@lru_cache(maxsize=4096)  # a transaction writes three entries under the same key
def _key(transactional_id: str) -> bytes:
    return encode_key(TransactionLogKey(transactional_id=transactional_id))


_HEAD = Packing(">hqhib")
_ONE_PARTITION = Packing(">BiB")
_TIMES = Packing(">qq")
_ID_TAG, _VERSION_TAG = Packing(">BBq"), Packing(">BBh")


def _value(value: TransactionLogValue) -> bytes:
    """What the compiled encoder makes of it, by hand: each transaction writes three of these."""
    topics = _topics(value.transaction_partitions)
    previous, version = value.previous_producer_id, value.client_transaction_version
    if previous != -1 and value.next_producer_id == -1:
        # Tags are a number, a length and the content; and their count comes first.
        tags = (2, 0, 8, previous, 2, 2, version) if version else (1, 0, 8, previous)
        return _usual(len(topics), len(tags)).pack(
            WRITTEN_VERSION,
            value.producer_id,
            value.producer_epoch,
            value.transaction_timeout_ms,
            value.transaction_status,
            topics,
            value.transaction_last_update_timestamp_ms,
            value.transaction_start_timestamp_ms,
            *tags,
        )
    head = _HEAD.pack(
        WRITTEN_VERSION,
        value.producer_id,
        value.producer_epoch,
        value.transaction_timeout_ms,
        value.transaction_status,
    )
    return head + topics + _any_end(value)


_USUAL_TAGS = "BBBqBBh"


@lru_cache(maxsize=256)
def _usual(topics_bytes: int, tags_fields: int) -> Packing:
    """A value with the one tag that nearly all have, or the two of new clients, around its
    partitions."""
    return Packing(f">hqhib{topics_bytes}sqq{_USUAL_TAGS[:tags_fields]}")


def _topics(topics: list[PartitionsSchema] | None) -> bytes:
    if not topics:
        return b"\0" if topics is None else b"\1"
    if not isinstance(topics, Named):
        return _packed(topics)
    packed = topics.packed
    if packed is None:
        packed = topics.packed = _packed(topics)
    return packed


def _packed(topics: list[PartitionsSchema]) -> bytes:
    chunks = [_length(len(topics))]
    for one in topics:
        numbers = one.partition_ids
        chunks.append(_name(one.topic))
        if len(numbers) == 1:
            chunks.append(_ONE_PARTITION.pack(2, numbers[0], 0))
        else:
            chunks += (_length(len(numbers)), pack(f">{len(numbers)}i", *numbers), b"\0")
    return b"".join(chunks)


def _any_end(value: TransactionLogValue) -> bytes:
    times = _TIMES.pack(
        value.transaction_last_update_timestamp_ms, value.transaction_start_timestamp_ms
    )
    tags = []
    if value.previous_producer_id != -1:
        tags.append(_ID_TAG.pack(0, 8, value.previous_producer_id))
    if value.next_producer_id != -1:
        tags.append(_ID_TAG.pack(1, 8, value.next_producer_id))
    if value.client_transaction_version:
        tags.append(_VERSION_TAG.pack(2, 2, value.client_transaction_version))
    return b"".join((times, bytes((len(tags),)), *tags))


@lru_cache(maxsize=1024)
def _name(topic: str) -> bytes:
    name = topic.encode()
    return _length(len(name)) + name


def _length(length: int) -> bytes:
    """One more than the length, as a varint: 0 would be null."""
    return write_uvarint(length + 1)


def decode_entry(key: bytes, value: bytes | None) -> Entry | None:
    """The entry, or None of a kind that is not known: Kafka passes those over, too.

    Raises CodecError where the bytes are not what their key says.
    """
    if kind_of(key) != TransactionLogKey.KEY:
        return None
    name = decode_key(TransactionLogKey, key)
    if value is None:
        return Entry(name, None)
    content = decode_value(TransactionLogValue, value)
    if not 0 <= content.transaction_status <= STATUS_MAX:
        raise CodecError(f"a transaction in state {content.transaction_status}")
    return Entry(name, content)
