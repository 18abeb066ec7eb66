"""The four codecs: what is written, what is read, and what is refused before it costs anything."""

from __future__ import annotations

import gzip
import random
import struct
import tracemalloc

import cramjam
import pytest

from ottla.records.compress import (
    GZIP,
    LZ4,
    NONE,
    SNAPPY,
    ZSTD,
    ZSTD_WINDOW_MAX,
    DecompressError,
    compress,
    decompress,
)

CODECS = [GZIP, SNAPPY, LZ4, ZSTD]
TEXT = b"the quick brown fox " * 20_000
NOISE = random.Random(1).randbytes(300_000)
SKIPPABLE = struct.pack("<II", 0x184D2A53, 4) + b"abcd"
XERIAL = b"\x82SNAPPY\x00" + struct.pack(">ii", 1, 1)


@pytest.mark.parametrize("codec", [NONE, *CODECS])
@pytest.mark.parametrize("data", [b"", b"x", TEXT, NOISE])
def test_what_is_compressed_comes_back(codec: int, data: bytes) -> None:
    assert bytes(decompress(codec, compress(codec, data), len(data))) == data


@pytest.mark.parametrize("codec", CODECS)
def test_one_byte_over_the_cap_is_refused(codec: int) -> None:
    for data in (b"x", TEXT, NOISE):
        with pytest.raises(DecompressError):
            decompress(codec, compress(codec, data), len(data) - 1)


@pytest.mark.parametrize(
    ("codec", "levels"), [(GZIP, (1, 9)), (LZ4, (1, 12)), (ZSTD, (-100, 19)), (LZ4, (17, 9))]
)
def test_every_level_can_be_read(codec: int, levels: tuple[int, int]) -> None:
    for level in levels:
        assert bytes(decompress(codec, compress(codec, TEXT, level), len(TEXT))) == TEXT


def test_levels_are_honoured() -> None:
    assert len(compress(GZIP, TEXT, 9)) < len(compress(GZIP, TEXT, 1))
    assert len(compress(ZSTD, TEXT, 19)) < len(compress(ZSTD, TEXT, -100))


def test_lz4_blocks_are_independent_as_java_clients_need() -> None:
    """Byte 4 of the frame: version 1, bit 5 for independent blocks (KIP-57)."""
    assert compress(LZ4, NOISE)[4] & 0xE0 == 0x60


def test_linked_lz4_blocks_are_refused() -> None:
    """H50. Kafka refuses them too (with UNKNOWN_SERVER_ERROR): its clients can't read them."""
    linked = bytearray(compress(LZ4, TEXT))
    linked[4] &= ~0x20
    with pytest.raises(DecompressError, match="linked"):
        decompress(LZ4, linked, len(TEXT))


def test_snappy_is_written_in_blocks_as_java_does_and_read_raw_too() -> None:
    framed = compress(SNAPPY, TEXT)
    assert framed[:16] == XERIAL
    raw = bytes(cramjam.snappy.compress_raw(TEXT))
    assert bytes(decompress(SNAPPY, raw, len(TEXT))) == TEXT


@pytest.mark.parametrize("codec", CODECS)
def test_no_codec_accepts_garbage_or_a_cut_or_nothing(codec: int) -> None:
    """H50"""
    whole = compress(codec, TEXT)
    for data in (b"", b"\x05", b"\xde\xad\xbe\xef" * 9, whole[:-1], whole[: len(whole) // 2]):
        with pytest.raises(DecompressError):
            decompress(codec, data, len(TEXT))


def test_a_codec_that_does_not_exist_is_refused() -> None:
    with pytest.raises(DecompressError):
        decompress(5, b"abc", 100)


@pytest.mark.parametrize("codec", CODECS)
def test_a_bomb_costs_no_more_memory_than_the_cap(codec: int) -> None:
    """H51"""
    cap = 1 << 20
    bomb = compress(codec, bytes(64 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(DecompressError):
            decompress(codec, bomb, cap)
        assert tracemalloc.get_traced_memory()[1] < 2 * cap + len(bomb)
    finally:
        tracemalloc.stop()


def test_a_snappy_block_that_claims_what_it_cannot_hold_is_refused_unallocated() -> None:
    """H52"""
    for claim in (b"\xff\xff\xff\xff\x0f", b"\x80\x80\x80\x20" + b"\0" * 20):
        tracemalloc.start()
        try:
            with pytest.raises(DecompressError):
                decompress(SNAPPY, claim, 128 << 20)
            assert tracemalloc.get_traced_memory()[1] < 1 << 16
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("exponent", [3, 13, 14, 17, 21, 22, 31])
def test_a_zstd_window_over_8_mib_is_refused(exponent: int) -> None:
    """H53. Kafka reads up to 2^27."""
    data = b"hello"
    block = struct.pack("<I", len(data) << 3 | 1)[:3] + data
    frame = b"\x28\xb5\x2f\xfd\x00" + bytes([exponent << 3]) + block
    if 1 << 10 + exponent <= ZSTD_WINDOW_MAX:
        assert bytes(decompress(ZSTD, frame, 100)) == data
    else:
        with pytest.raises(DecompressError, match="window"):
            decompress(ZSTD, frame, 100)


@pytest.mark.parametrize("length", [2**31 - 1, 0, -1, -(2**31)])
def test_a_xerial_block_of_impossible_length_is_refused(length: int) -> None:
    """H54"""
    with pytest.raises(DecompressError):
        decompress(SNAPPY, XERIAL + struct.pack(">i", length) + b"\x01\x00a", 100)


def test_gzip_members_and_frames_may_follow_each_other() -> None:
    """H54"""
    assert bytes(decompress(GZIP, gzip.compress(b"ab") + gzip.compress(b"cd"), 4)) == b"abcd"
    for codec in (LZ4, ZSTD):
        pieces = [SKIPPABLE, compress(codec, b"ab"), SKIPPABLE, compress(codec, b"cd")]
        assert bytes(decompress(codec, b"".join(pieces), 4)) == b"abcd"


def test_thousands_of_empty_frames_end() -> None:
    """H54"""
    assert bytes(decompress(GZIP, gzip.compress(b"") * 5_000, 10)) == b""
    for codec in (LZ4, ZSTD):
        assert bytes(decompress(codec, compress(codec, b"") * 5_000, 10)) == b""


@pytest.mark.parametrize("codec", [LZ4, ZSTD])
def test_a_skippable_frame_longer_than_the_input_is_refused(codec: int) -> None:
    """H54"""
    with pytest.raises(DecompressError):
        decompress(codec, struct.pack("<II", 0x184D2A50, 2**32 - 1) + b"abcd", 100)
