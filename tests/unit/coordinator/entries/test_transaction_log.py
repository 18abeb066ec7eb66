"""The records of __transaction_state as bytes. That Kafka reads and writes the same: tests/oracle."""

from __future__ import annotations

import pytest

from ottla.coordinator.decision import Entry
from ottla.coordinator.entries.transaction_log import (
    PartitionsSchema,
    TransactionLogKey,
    TransactionLogValue,
    decode_entry,
    encode_entry,
)
from ottla.protocol.codec import CodecError, encoder

KEY = TransactionLogKey(transactional_id="x")


def value(**more: object) -> TransactionLogValue:
    given: dict[str, object] = {
        "producer_id": 7,
        "previous_producer_id": 6,
        "next_producer_id": 8,
        "producer_epoch": 3,
        "transaction_timeout_ms": 60_000,
        "transaction_status": 1,
        "transaction_partitions": [PartitionsSchema(topic="t", partition_ids=[0, 2])],
        "transaction_last_update_timestamp_ms": 20,
        "transaction_start_timestamp_ms": 10,
        "client_transaction_version": 2,
    }
    return TransactionLogValue(**(given | more))


def test_an_entry_comes_back_as_it_was() -> None:
    entry = Entry(KEY, value())
    assert decode_entry(*encode_entry(entry)) == entry


def test_an_id_without_partitions_has_none_rather_than_an_empty_list() -> None:
    entry = Entry(KEY, value(transaction_status=0, transaction_partitions=None))
    decoded = decode_entry(*encode_entry(entry))
    assert decoded is not None
    assert isinstance(decoded.value, TransactionLogValue)
    assert decoded.value.transaction_partitions is None


@pytest.mark.parametrize("topics", [None, 0, 1, 126, 127, 200])
@pytest.mark.parametrize("numbers", [0, 1, 127, 20_000])
@pytest.mark.parametrize(("previous", "next_one"), [(-1, 1), (-1, -1), (2**62, -1), (9, 10)])
@pytest.mark.parametrize("version", [0, 2])
def test_a_value_is_written_as_the_codec_writes_it(
    topics: int | None, numbers: int, previous: int, next_one: int, version: int
) -> None:
    partitions = None
    if topics is not None:
        ids = list(range(numbers if topics < 2 else 1))
        partitions = [
            PartitionsSchema(topic="ä" * (at % 130), partition_ids=ids) for at in range(topics)
        ]
    content = value(
        transaction_partitions=partitions,
        previous_producer_id=previous,
        next_producer_id=next_one,
        client_transaction_version=version,
    )
    _, written = encode_entry(Entry(KEY, content))
    chunks = encoder(TransactionLogValue, 1)(content)
    assert written == b"\0\1" + b"".join(bytes(chunk) for chunk in chunks)


def test_a_field_that_nobody_sets_is_written_all_the_same() -> None:
    entry = Entry(KEY, value(next_producer_epoch=4))
    assert decode_entry(*encode_entry(entry)) == entry


def test_a_tombstone_comes_back_as_one() -> None:
    assert decode_entry(*encode_entry(Entry(KEY, None))) == Entry(KEY, None)


def test_version_0_of_a_value_is_read_which_kafka_wrote_before_flexible_fields() -> None:
    old = (
        b"\0\0"  # the version
        b"\0\0\0\0\0\0\0\7\0\3\0\0\xea\x60\1"  # id, epoch, timeout, status
        b"\0\0\0\1\0\1t\0\0\0\1\0\0\0\2"  # partition 2 of t
        b"\0\0\0\0\0\0\0\x14\0\0\0\0\0\0\0\x0a"  # last update, start
    )
    decoded = decode_entry(encode_entry(Entry(KEY, None))[0], old)
    assert decoded == Entry(
        KEY,
        value(
            previous_producer_id=-1,
            next_producer_id=-1,
            transaction_partitions=[PartitionsSchema(topic="t", partition_ids=[2])],
            client_transaction_version=0,
        ),
    )


def test_a_kind_that_is_not_known_is_passed_over() -> None:
    assert decode_entry(b"\0\1\0\1x", b"\0\0") is None


@pytest.mark.parametrize("status", [-1, 8])
def test_a_state_that_there_is_not_is_damage(status: int) -> None:
    key, content = encode_entry(Entry(KEY, value(transaction_status=status)))
    with pytest.raises(CodecError, match="in state"):
        decode_entry(key, content)


@pytest.mark.parametrize("content", [b"", b"\0", b"\0\1", b"\0\2\0", b"\xff\xff"])
def test_a_value_that_is_none_is_damage(content: bytes) -> None:
    key, _ = encode_entry(Entry(KEY, None))
    with pytest.raises(CodecError):
        decode_entry(key, content)


def test_a_key_without_a_version_is_damage() -> None:
    with pytest.raises(CodecError, match="key"):
        decode_entry(b"\0", None)
