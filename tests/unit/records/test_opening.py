"""Opening a batch: what is walked, what is packed anew, and what is handed to a worker."""

from __future__ import annotations

import pickle

import pytest

from ottla.protocol.errors import ErrorCode
from ottla.records.batch import HEADER, BatchView, crc_ok, stamp_crc
from ottla.records.compress import GZIP, LZ4, NONE, SNAPPY, ZSTD
from ottla.records.opening import Opened, Opening, open_batch
from ottla.records.reader import records_of
from ottla.records.validate import Rejected, Rules
from tests.asking import NOW_MS, batch

WALK = Rules(depth="records")


def opening(rules: Rules = WALK, codec: int | None = None) -> Opening:
    return Opening(rules, codec, None)


def view(raw: bytes) -> BatchView:
    return BatchView(memoryview(bytearray(raw)))


def opened(raw: bytes, how: Opening) -> BatchView:
    """The batch that would be appended."""
    outcome = how.open(raw, NOW_MS)
    assert isinstance(outcome, Opened), outcome
    return outcome.apply(view(raw))


def test_a_walked_batch_is_appended_as_it_was_sent() -> None:
    raw = batch(b"a", b"b", codec=ZSTD)
    assert bytes(opened(raw, opening()).view) == raw


def test_a_greatest_timestamp_that_the_header_has_wrong_is_corrected_as_kafka_does() -> None:
    raw = bytearray(batch(b"a", b"b"))
    fields = list(HEADER.unpack_from(raw))
    fields[8] = NOW_MS + 5
    HEADER.pack_into(raw, 0, *fields)
    stamp_crc(memoryview(raw))
    mended = opened(bytes(raw), opening())
    assert mended.max_timestamp == NOW_MS
    assert crc_ok(mended.view)


@pytest.mark.parametrize("sent", [NONE, GZIP, SNAPPY, LZ4, ZSTD])
@pytest.mark.parametrize("asked", [NONE, GZIP, SNAPPY, LZ4, ZSTD])
def test_a_batch_is_packed_as_the_topic_asks(sent: int, asked: int) -> None:
    raw = batch(b"a" * 100, b"b", codec=sent)
    packed = opened(raw, opening(codec=asked))
    assert packed.codec == asked
    assert crc_ok(packed.view)
    assert [record.value for record in records_of(packed)] == [b"a" * 100, b"b"]
    if sent == asked:
        assert bytes(packed.view) == raw, "and left alone if it is packed so"


def test_a_batch_that_can_not_be_unpacked_is_refused_even_if_it_is_not_walked() -> None:
    raw = bytearray(batch(b"a" * 100, codec=GZIP))
    raw[61] ^= 0xFF
    stamp_crc(memoryview(raw))
    for rules in (WALK, Rules()):
        outcome = opening(rules, ZSTD).open(bytes(raw), NOW_MS)
        assert isinstance(outcome, Rejected)
        assert outcome.error is ErrorCode.INVALID_RECORD


@pytest.mark.parametrize(
    ("rules", "error"),
    [
        (Rules(message_max_bytes=1000), ErrorCode.MESSAGE_TOO_LARGE),
        (Rules(segment_bytes=1000), ErrorCode.RECORD_LIST_TOO_LARGE),
    ],
)
def test_a_batch_that_grows_past_the_limits_is_refused(rules: Rules, error: ErrorCode) -> None:
    outcome = opening(rules, NONE).open(batch(b"a" * 2000, codec=ZSTD), NOW_MS)
    assert isinstance(outcome, Rejected)
    assert outcome.error is error


@pytest.mark.parametrize(
    ("raw", "small"),
    [
        (batch(b"a"), True),
        (batch(b"a" * 10_000), True),
        (batch(b"a" * 20_000), False),
        (batch(*[b""] * 257), False),
        (batch(b"a" * 60_000, codec=ZSTD), True),
        (batch(b"a" * 100_000, codec=ZSTD), False),
    ],
    ids=["small", "10 KB", "20 KB", "many records", "unpacks to 60 KB", "unpacks to 100 KB"],
)
def test_what_takes_long_is_done_elsewhere(raw: bytes, small: bool) -> None:
    assert opening().is_small(view(raw)) is small


def test_a_worker_does_the_same() -> None:
    raw = batch(b"a" * 100, b"b", codec=GZIP)
    how = opening(codec=ZSTD)
    work, arguments = pickle.loads(pickle.dumps((open_batch, (raw, how, NOW_MS))))
    there = pickle.loads(pickle.dumps(work(*arguments)))
    here = how.open(raw, NOW_MS)
    assert isinstance(there, Opened)
    assert isinstance(here, Opened)
    assert (there.max_timestamp, there.packed) == (here.max_timestamp, here.packed)
