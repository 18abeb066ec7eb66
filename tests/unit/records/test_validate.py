"""What is refused of a produced batch, and with which code. H numbers: the hostile table.

Unless a docstring says otherwise, Apache Kafka 4.3.1 was asked and answers the same code.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from typing import Any

import pytest

from ottla.protocol.errors import ErrorCode as E
from ottla.records.batch import CONTROL_BIT, LOG_APPEND_TIME_BIT, TRANSACTIONAL_BIT, BatchView
from ottla.records.builder import Producer, build_batch
from ottla.records.compress import GZIP, LZ4, SNAPPY, ZSTD, compress
from ottla.records.opening import Opened, Opening
from ottla.records.reader import Record, records_of
from ottla.records.validate import (
    RECORD_ERRORS_MAX,
    Rejected,
    Rules,
    check_header,
    check_records,
)

NOW = 1_800_000_000_000
HOUR = 3_600_000
RULES = Rules()
WALK = Rules(depth="records")


def a_batch(*keys: bytes | None, timestamp: int = NOW, **fields: Any) -> memoryview:
    records = [Record(key, b"value", timestamp) for key in keys or (b"a", b"b")]
    return memoryview(bytearray(build_batch(records, **fields)))


def error_of(
    records: memoryview | bytes | None, rules: Rules = RULES, version: int = 9
) -> E | None:
    """The code for a partition's records, through both depths; None if they are accepted."""
    view = None if records is None else memoryview(bytearray(records))
    outcome = check_header(view, rules, NOW, version)
    if isinstance(outcome, BatchView) and rules.walks:
        walked = check_records(outcome.view, rules, NOW)
        return walked.error if isinstance(walked, Rejected) else None
    return outcome.error if isinstance(outcome, Rejected) else None


@pytest.mark.parametrize("codec", range(5))
@pytest.mark.parametrize("rules", [RULES, WALK])
def test_a_sound_batch_is_accepted_with_every_codec(codec: int, rules: Rules) -> None:
    assert error_of(a_batch(codec=codec), rules) is None
    assert error_of(a_batch(codec=codec, producer=Producer(5, 0, 0)), rules) is None


def test_no_records_are_an_invalid_record() -> None:
    """H31. Kafka 4.3.1 never answers null records at all."""
    assert error_of(None) == E.INVALID_RECORD
    assert error_of(b"") == E.INVALID_RECORD


def test_two_batches_are_refused() -> None:
    """H32"""
    assert error_of(bytes(a_batch()) * 2) == E.INVALID_RECORD


@pytest.mark.parametrize(
    ("magic", "error"),
    [(0, E.INVALID_RECORD), (1, E.INVALID_RECORD), (3, E.CORRUPT_MESSAGE), (-1, E.CORRUPT_MESSAGE)],
)
def test_old_magic_is_refused_and_unknown_magic_is_corrupt(
    magic: int, error: E, altered: Callable[..., memoryview]
) -> None:
    """H33"""
    assert error_of(altered(a_batch(), magic=magic)) == error


def test_a_batch_cut_short_anywhere_is_no_batch() -> None:
    """H34"""
    whole = a_batch()
    for size in range(len(whole)):
        assert error_of(whole[:size]) == E.INVALID_RECORD, size


@pytest.mark.parametrize("length", [-(2**31), -12, -1, 0, 1, 13, 14, 15, 30, 48, 49, 50])
def test_a_length_that_no_batch_has_is_corrupt(
    length: int, altered: Callable[..., memoryview]
) -> None:
    """H34, H36"""
    assert error_of(altered(a_batch(), length=length)) == E.CORRUPT_MESSAGE


def test_a_length_beyond_the_bytes_is_no_batch(altered: Callable[..., memoryview]) -> None:
    """H34. Kafka answers UNKNOWN_SERVER_ERROR to 2^31-1, where its sum overflows."""
    whole = a_batch()
    for length in (len(whole) - 12 + 1, 2**30, 2**31 - 1):
        assert error_of(altered(whole, length=length)) == E.INVALID_RECORD


@pytest.mark.parametrize("tail", [b"\0\0\0", struct.pack(">qi", 0, 69), bytes(a_batch())[:-1]])
def test_an_incomplete_batch_behind_the_first_is_left_out(tail: bytes) -> None:
    whole = a_batch()
    batch = check_header(memoryview(bytes(whole) + tail), RULES, NOW, 9)
    assert isinstance(batch, BatchView)
    assert batch.view == whole


@pytest.mark.parametrize("tail", [bytes(12), bytes(17), b"\xff" * 20])
def test_what_cannot_begin_a_batch_behind_the_first_is_corrupt(tail: bytes) -> None:
    assert error_of(bytes(a_batch()) + tail) == E.CORRUPT_MESSAGE


def test_any_bit_flipped_behind_the_checksum_is_corrupt() -> None:
    """H35, exhaustive."""
    view = a_batch()
    for bit in range(21 * 8, len(view) * 8):
        view[bit // 8] ^= 1 << bit % 8
        assert error_of(view) == E.CORRUPT_MESSAGE, bit
        view[bit // 8] ^= 1 << bit % 8


@pytest.mark.parametrize("offset", [5, -1, 2**63 - 1])
def test_a_base_offset_that_is_not_zero_is_refused(
    offset: int, altered: Callable[..., memoryview]
) -> None:
    """H36"""
    assert error_of(altered(a_batch(), base_offset=offset)) == E.INVALID_RECORD


def test_any_leader_epoch_is_accepted(altered: Callable[..., memoryview]) -> None:
    """H36"""
    assert error_of(altered(a_batch(), leader_epoch=77)) is None


def test_a_batch_over_the_topics_limit_is_too_large() -> None:
    """H37"""
    size = len(a_batch())
    assert error_of(a_batch(), Rules(message_max_bytes=size)) is None
    assert error_of(a_batch(), Rules(message_max_bytes=size - 1)) == E.MESSAGE_TOO_LARGE


def test_a_batch_over_a_segments_size_is_too_large_for_the_list() -> None:
    """H38"""
    size = len(a_batch())
    assert error_of(a_batch(), Rules(segment_bytes=size)) is None
    assert error_of(a_batch(), Rules(segment_bytes=size - 1)) == E.RECORD_LIST_TOO_LARGE


@pytest.mark.parametrize(
    ("count", "delta"),
    [
        (0, 1),
        (-1, 1),
        (2**31 - 1, 1),
        (1, 1),
        (3, 1),
        (2, 0),
        (2, -1),
        (2, 2**31 - 1),
        (0, -1),
        (-1, -2),
        (-(2**31), -(2**31)),
    ],
)
def test_a_count_that_is_not_the_offsets_is_refused(
    count: int, delta: int, altered: Callable[..., memoryview]
) -> None:
    """H39"""
    batch = altered(a_batch(), records_count=count, last_offset_delta=delta)
    assert error_of(batch) == E.INVALID_RECORD


def test_a_count_that_only_a_walk_disproves_is_refused_by_it(
    altered: Callable[..., memoryview],
) -> None:
    """H39: under `header` such a batch is stored as sent."""
    batch = altered(a_batch(), records_count=5, last_offset_delta=4)
    assert error_of(batch) is None
    assert error_of(batch, WALK) == E.INVALID_RECORD


@pytest.mark.parametrize("length", [-1, -(2**31), 2**31 - 1, 9, 7, 0])
@pytest.mark.parametrize("codec", [0, GZIP])
def test_a_records_length_that_does_not_fit_is_refused(
    length: int,
    codec: int,
    raw_batch: Callable[..., memoryview],
    raw_record: Callable[..., bytes],
) -> None:
    """H40. Kafka lets some of them pass in a compressed batch, which it then writes anew."""
    batch = raw_batch(raw_record(length=length), codec=codec, timestamp=NOW)
    assert error_of(batch, WALK) == E.INVALID_RECORD
    assert error_of(batch) is None


def test_headers_that_the_bytes_cannot_hold_are_refused(
    raw_batch: Callable[..., memoryview],
    raw_record: Callable[..., bytes],
    varint: Callable[[int], bytes],
) -> None:
    """H41. Kafka takes a key, value or header value below -1 for null."""
    bad = [
        {"headers": varint(2**31 - 1)},
        {"headers": varint(-1)},
        {"headers": varint(1)},
        {"headers": varint(1) + varint(-1) + varint(-1)},
        {"headers": varint(1) + varint(99) + varint(-1)},
        {"headers": varint(1) + varint(1) + b"h" + varint(-2)},
        {"key": varint(-2)},
        {"value": varint(-2)},
        {"key": varint(2**31 - 1) + b"k"},
        {"value": varint(200) + b"v"},
        {"headers": b"\x80\x80\x80\x80\x80\x00"},
        {"headers": b"\xff\xff\xff\xff\x7f"},
    ]
    for parts in bad:
        assert error_of(raw_batch(raw_record(**parts), timestamp=NOW), WALK) == E.INVALID_RECORD
    fine = raw_record(headers=varint(1) + varint(1) + b"\xff" + varint(-1))
    assert error_of(raw_batch(fine, timestamp=NOW), WALK) is None


@pytest.mark.parametrize("codec", [0, GZIP])
def test_bytes_or_records_after_the_last_are_refused(
    codec: int, raw_batch: Callable[..., memoryview], raw_record: Callable[..., bytes]
) -> None:
    """H42"""
    for rest in (b"xyz", raw_record(offset=1)):
        batch = raw_batch(raw_record() + rest, codec=codec, timestamp=NOW)
        assert error_of(batch, WALK) == E.INVALID_RECORD


@pytest.mark.parametrize("offsets", [(0, 0), (0, 5), (1, 2), (1, 0), (-1, 0)])
@pytest.mark.parametrize("codec", [0, GZIP])
def test_offsets_that_do_not_count_up_are_refused(
    offsets: tuple[int, int],
    codec: int,
    raw_batch: Callable[..., memoryview],
    raw_record: Callable[..., bytes],
) -> None:
    """H43: a difference. Kafka stores them uncompressed, and fails (-1) on compressed ones."""
    body = b"".join(raw_record(offset=offset) for offset in offsets)
    batch = raw_batch(body, count=2, codec=codec, timestamp=NOW)
    assert error_of(batch, WALK) == E.INVALID_RECORD


def test_a_control_batch_from_a_client_is_refused(altered: Callable[..., memoryview]) -> None:
    """H44"""
    assert error_of(altered(a_batch(), attributes=CONTROL_BIT)) == E.INVALID_RECORD


@pytest.mark.parametrize("kind", ["CreateTime", "LogAppendTime"])
def test_log_append_time_is_not_the_producers_to_set(
    kind: Any, altered: Callable[..., memoryview]
) -> None:
    """H45: a difference on CreateTime topics, where Kafka opens the batch and clears the bit."""
    batch = altered(a_batch(), attributes=LOG_APPEND_TIME_BIT)
    assert error_of(batch, Rules(timestamp_type=kind)) == E.INVALID_TIMESTAMP


@pytest.mark.parametrize("rules", [RULES, WALK])
@pytest.mark.parametrize(
    ("timestamp", "error"),
    [
        (NOW + HOUR, None),
        (NOW + HOUR + 1, E.INVALID_TIMESTAMP),
        (2**63 - 1, E.INVALID_TIMESTAMP),
        (-1, None),
        (-2, None),
        (0, None),
    ],
)
def test_a_timestamp_may_lie_an_hour_ahead_and_any_time_back(
    timestamp: int, error: E | None, rules: Rules
) -> None:
    """H46"""
    assert error_of(a_batch(timestamp=timestamp), rules) == error


@pytest.mark.parametrize("depth", ["header", "records"])
def test_a_topic_may_limit_how_old_a_timestamp_is(depth: Any) -> None:
    """H46"""
    rules = Rules(before_max_ms=1_000, depth=depth)
    assert error_of(a_batch(timestamp=NOW - 1_000), rules) is None
    assert error_of(a_batch(timestamp=NOW - 1_001), rules) == E.INVALID_TIMESTAMP
    assert error_of(a_batch(timestamp=-5), rules) == E.INVALID_TIMESTAMP
    assert error_of(a_batch(timestamp=-1), rules) is None


@pytest.mark.parametrize("depth", ["header", "records"])
def test_timestamps_do_not_matter_where_the_broker_sets_them(depth: Any) -> None:
    rules = Rules(timestamp_type="LogAppendTime", depth=depth)
    assert error_of(a_batch(timestamp=NOW + 5 * HOUR), rules) is None


def test_a_walk_names_each_record_whose_timestamp_is_out_of_range() -> None:
    """H46"""
    times = (NOW, NOW + 2 * HOUR, NOW, NOW + 3 * HOUR)
    view = memoryview(bytearray(build_batch([Record(b"k", b"v", time) for time in times])))
    rejected = check_records(view, WALK, NOW)
    assert isinstance(rejected, Rejected)
    assert rejected.error == E.INVALID_TIMESTAMP
    assert [index for index, _ in rejected.record_errors] == [1, 3]


@pytest.mark.parametrize("codec", [0, GZIP])
@pytest.mark.parametrize("claimed", [NOW + 5 * HOUR, -1, 5])
def test_a_walk_corrects_a_greatest_timestamp_that_the_header_has_wrong(
    codec: int, claimed: int, altered: Callable[..., memoryview]
) -> None:
    """As Kafka does: it answers no error, and stores the records' own."""
    right = a_batch(codec=codec)
    view = altered(right, max_timestamp=claimed)
    batch = check_header(view, WALK, NOW, 9)
    assert isinstance(batch, BatchView)
    opened = Opening(WALK, None, None).open(batch.view, NOW)
    assert isinstance(opened, Opened)
    assert opened.apply(batch) is batch
    assert view == right
    assert batch.max_timestamp == NOW


@pytest.mark.parametrize("kind", ["CreateTime", "LogAppendTime"])
def test_a_timestamp_that_no_header_can_hold_is_refused(
    kind: Any, raw_batch: Callable[..., memoryview], raw_record: Callable[..., bytes]
) -> None:
    batch = raw_batch(raw_record(timestamp=1), timestamp=2**63 - 1)
    rules = Rules(depth="records", after_max_ms=2**63 - 1, timestamp_type=kind)
    assert error_of(batch, rules) == E.INVALID_TIMESTAMP


@pytest.mark.parametrize("codec", range(5))
def test_a_record_without_key_is_refused_on_a_compacted_topic(codec: int) -> None:
    """H47"""
    rules = Rules(compacted=True)
    batch = check_header(a_batch(b"k", None, None, codec=codec), rules, NOW, 9)
    assert isinstance(batch, BatchView)
    rejected = check_records(batch.view, rules, NOW)
    assert isinstance(rejected, Rejected)
    assert rejected.error == E.INVALID_RECORD
    assert [index for index, _ in rejected.record_errors] == [1, 2]
    assert error_of(a_batch(b"k", b"", codec=codec), rules) is None


def test_the_list_of_record_errors_is_bounded() -> None:
    view = a_batch(*[None] * (RECORD_ERRORS_MAX + 5))
    rejected = check_records(view, Rules(compacted=True), NOW)
    assert isinstance(rejected, Rejected)
    assert len(rejected.record_errors) == RECORD_ERRORS_MAX


@pytest.mark.parametrize("codec", [5, 6, 7])
def test_a_codec_that_does_not_exist_is_an_unsupported_compression(
    codec: int, altered: Callable[..., memoryview]
) -> None:
    """H48: a difference. Kafka answers UNKNOWN_SERVER_ERROR."""
    batch = altered(a_batch(), attributes=codec)
    assert error_of(batch) == E.UNSUPPORTED_COMPRESSION_TYPE


@pytest.mark.parametrize("version", [3, 6, 7])
def test_zstd_needs_produce_version_7(version: int) -> None:
    """H49"""
    error = error_of(a_batch(codec=ZSTD), version=version)
    assert error == (E.UNSUPPORTED_COMPRESSION_TYPE if version < 7 else None)


@pytest.mark.parametrize("codec", [GZIP, SNAPPY, LZ4, ZSTD])
def test_a_payload_that_does_not_decode_is_an_invalid_record(
    codec: int, raw_batch: Callable[..., memoryview], raw_record: Callable[..., bytes]
) -> None:
    """H50: a difference. Kafka answers UNKNOWN_SERVER_ERROR, mostly."""
    for payload in (b"\xde\xad\xbe\xef" * 8, b"", compress(codec, raw_record())[:-3]):
        batch = raw_batch(payload, codec=codec, packed=True, timestamp=NOW)
        assert error_of(batch, WALK) == E.INVALID_RECORD
        assert error_of(batch) is None


@pytest.mark.parametrize("codec", [GZIP, SNAPPY, LZ4, ZSTD])
def test_a_bomb_is_an_invalid_record(codec: int, raw_batch: Callable[..., memoryview]) -> None:
    """H51"""
    rules = Rules(depth="records", message_max_bytes=1 << 16)
    bomb = raw_batch(bytes(rules.decompressed_max + 1), codec=codec, timestamp=NOW)
    outcome = check_records(bytes(bomb), rules, NOW)
    assert isinstance(outcome, Rejected)
    assert outcome.error == E.INVALID_RECORD


def test_the_decompression_cap_follows_the_topics_limit_up_to_the_brokers() -> None:
    """H51"""
    assert Rules(message_max_bytes=1000).decompressed_max == 64_000
    assert Rules(message_max_bytes=100 << 20).decompressed_max == 128 << 20
    assert Rules(decompressed_bytes_max=1 << 20).decompressed_max == 1 << 20


def test_a_compression_attribute_on_a_record_is_refused(
    raw_batch: Callable[..., memoryview], raw_record: Callable[..., bytes]
) -> None:
    """H55. Kafka 4.3.1 no longer looks at it in batches of magic 2."""
    for codec in (0, GZIP):
        batch = raw_batch(raw_record(attributes=1), codec=codec, timestamp=NOW)
        assert error_of(batch, WALK) == E.INVALID_RECORD


def test_a_producer_id_needs_a_sequence_and_an_epoch() -> None:
    """H56. Of the epoch Kafka lets -1 pass."""
    assert error_of(a_batch(producer=Producer(5, 0, -1))) == E.INVALID_RECORD
    assert error_of(a_batch(producer=Producer(5, -1, 0))) == E.INVALID_RECORD
    assert error_of(a_batch(producer=Producer(-1, 0, 0))) is None
    assert error_of(a_batch(producer=Producer(-5, 0, 0))) is None


def test_a_transactional_batch_needs_a_producer_id() -> None:
    """A difference: Kafka stores it, where the request names a transaction."""
    assert error_of(a_batch(attributes=TRANSACTIONAL_BIT)) == E.INVALID_RECORD
    assert error_of(a_batch(attributes=TRANSACTIONAL_BIT, producer=Producer(5, 0, 0))) is None


def test_a_refusal_travels_from_a_worker() -> None:
    refused = Rejected(E.INVALID_RECORD, "text", [(0, None)])
    assert pickle.loads(pickle.dumps(refused)) == refused


def test_what_is_accepted_can_be_read() -> None:
    batch = check_header(a_batch(b"x", None), RULES, NOW, 9)
    assert isinstance(batch, BatchView)
    assert [record.key for record in records_of(batch)] == [b"x", None]
