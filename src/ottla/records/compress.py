"""The four codecs of record batches, each framed as Kafka's clients frame it.

Owns what is between the header of a compressed batch and its records. Must not know records.
Decompression is bounded before it begins: every frame is walked by hand first, its blocks
counted, and nothing larger than the cap, or than what the input could possibly hold, is
allocated (H50-H54).

gzip: members, several may follow each other. Snappy: xerial's framing, which Java writes, or
one raw block, which librdkafka writes. lz4: the frame format (KIP-57). zstd: frames (KIP-110).

cramjam is imported where it is used: most brokers never open a batch, and none does at start.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

from ottla.core.ports import Buffer
from ottla.records.batch import RecordError

NONE: Final = 0
GZIP: Final = 1
SNAPPY: Final = 2
LZ4: Final = 3
ZSTD: Final = 4
CODEC_NAMES: Final = ("none", "gzip", "snappy", "lz4", "zstd")

LZ4_LEVEL_DEFAULT: Final = 9
"""Kafka's default of compression.lz4.level; it means the fast compressor, every other level the
slow one (KIP-390)."""
ZSTD_WINDOW_MAX: Final = 8 << 20
"""What a zstd decoder must support, and all that ours does: a larger window is an attack (H53)."""

_XERIAL_MAGIC = b"\x82SNAPPY\x00"
_XERIAL_HEADER = _XERIAL_MAGIC + struct.pack(">ii", 1, 1)
_XERIAL_BLOCK = 32 << 10
_SNAPPY_RATIO = 22
"""Snappy's densest element makes 64 bytes of 3."""
_GZIP_PIECE = 16 << 10
_ZSTD_BLOCK_MAX = 128 << 10
_SKIPPABLE_MAGIC = 0x184D2A50
_LZ4_MAGIC = 0x184D2204
_LZ4_BLOCK_MAX = {4: 64 << 10, 5: 256 << 10, 6: 1 << 20, 7: 4 << 20}
_LZ4_RATIO = 255
_ZSTD_MAGIC = 0xFD2FB528

_INT32 = struct.Struct(">i")
_U32 = struct.Struct("<I")


class DecompressError(RecordError):
    """Compressed bytes that don't decode, or not within the cap."""


class _Frame(NamedTuple):
    """One frame of the input and the most bytes that it can decompress to; 0 if skippable."""

    start: int
    end: int
    output_max: int


def compress(codec: int, data: Buffer, level: int | None = None) -> bytes:
    """`data` as the records of a batch with this codec. `level` None is the codec's default.

    Levels as in Kafka (KIP-390): gzip -1 or 1 to 9, lz4 1 to 17, zstd -131072 to 22.
    """
    if codec == NONE:
        return bytes(data)
    if codec == GZIP:
        packer = zlib.compressobj(-1 if level is None else level, zlib.DEFLATED, 31)
        return packer.compress(data) + packer.flush()
    if codec == SNAPPY:
        return _compress_snappy(memoryview(data))
    import cramjam

    if codec == LZ4:
        fast = level is None or level == LZ4_LEVEL_DEFAULT
        # Linked blocks are smaller, but Kafka's Java clients can't read them.
        framer = cramjam.lz4.Compressor(
            level=0 if fast else level, content_checksum=False, block_linked=False
        )
        framer.compress(bytes(data))
        return bytes(framer.finish())
    if codec == ZSTD:
        return bytes(cramjam.zstd.compress(data, 3 if level is None else level))
    raise ValueError(f"there is no codec {codec}")


def decompress(codec: int, data: Buffer, cap: int) -> Buffer:
    """What `data` holds, at most `cap` bytes. Raises DecompressError.

    For codec 0 the bytes as they are. Allocates at most `cap` bytes beside the input.
    """
    if codec == NONE:
        return data
    unpack = _DECOMPRESSORS.get(codec)
    if unpack is None:
        raise DecompressError(f"there is no codec {codec}")
    return unpack(memoryview(data), cap)


def _compress_snappy(view: memoryview) -> bytes:
    import cramjam

    parts = [_XERIAL_HEADER]
    for at in range(0, len(view), _XERIAL_BLOCK):
        block = bytes(cramjam.snappy.compress_raw(view[at : at + _XERIAL_BLOCK]))
        parts += (_INT32.pack(len(block)), block)
    return b"".join(parts)


def _decompress_gzip(view: memoryview, cap: int) -> bytes:
    """By zlib, not cramjam: it streams, so that the cap holds without a buffer of that size.

    Fed in pieces: zlib copies what lies behind a member, which for a batch full of empty
    members would be quadratic in its size.
    """
    parts: list[bytes] = []
    room = cap
    at = 0
    while at < len(view):
        member = zlib.decompressobj(31)
        while not member.eof:
            piece = view[at : at + _GZIP_PIECE]
            if not piece:
                raise DecompressError("gzip: the last member is cut short")
            try:
                part = member.decompress(piece, room + 1)
            except zlib.error as error:
                raise DecompressError(f"gzip: {error}") from None
            if len(part) > room or member.unconsumed_tail:
                raise DecompressError(f"gzip: more than {cap} bytes")
            room -= len(part)
            parts.append(part)
            at += len(piece) - len(member.unused_data)
    if not parts:
        raise DecompressError("gzip: nothing there")
    return b"".join(parts)


def _decompress_snappy(view: memoryview, cap: int) -> bytearray:
    import cramjam

    if view[:8] != _XERIAL_MAGIC:
        blocks = [view]
    elif len(view) < len(_XERIAL_HEADER):
        raise DecompressError("snappy: the framing is cut short")
    else:
        blocks = _xerial_blocks(view)
    sizes = [_snappy_size(block) for block in blocks]
    output = _room(sum(sizes), cap, "snappy")
    room = memoryview(output)
    at = 0
    for block, size in zip(blocks, sizes, strict=True):
        _into("snappy", cramjam.snappy.decompress_raw_into, block, room[at : at + size])
        at += size
    return output


def _xerial_blocks(view: memoryview) -> list[memoryview]:
    """Each consumes at least 5 bytes, so the loop ends."""
    blocks: list[memoryview] = []
    at = len(_XERIAL_HEADER)
    while at < len(view):
        if at + 4 > len(view):
            raise DecompressError("snappy: a block's length is cut short")
        (size,) = _INT32.unpack_from(view, at)
        at += 4
        if not 0 < size <= len(view) - at:
            raise DecompressError(f"snappy: a block of {size} bytes where {len(view) - at} are")
        blocks.append(view[at : at + size])
        at += size
    return blocks


def _snappy_size(block: memoryview) -> int:
    """What the block claims to hold, refused where so few bytes can't hold it (H52)."""
    import cramjam

    try:
        size = int(cramjam.snappy.decompress_raw_len(block))
    except cramjam.DecompressionError as error:
        raise DecompressError(f"snappy: {error}") from None
    if not block or size > len(block) * _SNAPPY_RATIO:
        raise DecompressError(f"snappy: {size} bytes claimed of {len(block)}")
    return size


def _decompress_lz4(view: memoryview, cap: int) -> bytearray:
    import cramjam

    return _decompress_frames(view, cap, "lz4", cramjam.lz4.decompress_into, _lz4_frame)


def _decompress_zstd(view: memoryview, cap: int) -> bytearray:
    import cramjam

    return _decompress_frames(view, cap, "zstd", cramjam.zstd.decompress_into, _zstd_frame)


_Frames: TypeAlias = Callable[[memoryview, int, int], _Frame]
_Into: TypeAlias = Callable[[memoryview, memoryview], int]


def _decompress_frames(
    view: memoryview, cap: int, name: str, into: _Into, frame_at: _Frames
) -> bytearray:
    """Walk all frames, make room for the most that they can hold, then fill it."""
    frames: list[_Frame] = []
    at = 0
    try:
        while at < len(view):
            magic = _U32.unpack_from(view, at)[0]
            if magic & 0xFFFFFFF0 == _SKIPPABLE_MAGIC:
                frame = _Frame(at, at + 8 + _U32.unpack_from(view, at + 4)[0], 0)
            else:
                frame = frame_at(view, at, magic)
                frames.append(frame)
            if frame.end > len(view):
                raise DecompressError(f"{name}: a frame is cut short")
            at = frame.end
    except (struct.error, IndexError):
        raise DecompressError(f"{name}: a frame is cut short") from None
    if not frames:
        raise DecompressError(f"{name}: nothing there")
    # The bound may lie above the cap while the content does not; then the decoder tells.
    output = bytearray(min(sum(frame.output_max for frame in frames), cap))
    filled = 0
    with memoryview(output) as room:
        for frame in frames:
            filled += _into(name, into, view[frame.start : frame.end], room[filled:])
    del output[filled:]
    return output


def _lz4_frame(view: memoryview, start: int, magic: int) -> _Frame:
    """An lz4 frame: descriptor, blocks of a 4-byte size each, a size of 0 as its end."""
    flags = view[start + 4]
    block_max = _LZ4_BLOCK_MAX.get(view[start + 5] >> 4 & 7)
    if magic != _LZ4_MAGIC or flags >> 6 != 1 or flags & 1 or block_max is None:
        raise DecompressError("lz4: not a frame that Kafka's clients write")
    if not flags & 0x20:
        raise DecompressError("lz4: linked blocks, which Kafka's Java clients can't read")
    at = start + 7 + (8 if flags & 0x08 else 0)
    block_checksum = 4 if flags & 0x10 else 0
    output_max = 0
    while True:
        word: int = _U32.unpack_from(view, at)[0]
        at += 4
        if word == 0:
            break
        size = word & 0x7FFFFFFF
        if size > block_max or size == 0:
            raise DecompressError(f"lz4: a block of {size} bytes")
        output_max += size if word >> 31 else min(block_max, size * _LZ4_RATIO)
        at += size + block_checksum
    return _Frame(start, at + (4 if flags & 0x04 else 0), output_max)


def _zstd_frame(view: memoryview, start: int, magic: int) -> _Frame:
    """A zstd frame (RFC 8878): header, blocks of a 3-byte header each until one says last."""
    descriptor = view[start + 4]
    if magic != _ZSTD_MAGIC or descriptor & 0x08 or descriptor & 0x03:
        raise DecompressError("zstd: not a frame that Kafka's clients write")
    single_segment = bool(descriptor & 0x20)
    at = start + 5
    window = 0
    if not single_segment:
        exponent, mantissa = view[at] >> 3, view[at] & 7
        window = (1 << (10 + exponent)) // 8 * (8 + mantissa)
        at += 1
    size_bytes = (1 if single_segment else 0, 2, 4, 8)[descriptor >> 6]
    content = int.from_bytes(view[at : at + size_bytes], "little")
    content += 256 if size_bytes == 2 else 0
    at += size_bytes
    # Of one segment: the window is the content, which the cap bounds, not the window's limit.
    if window > ZSTD_WINDOW_MAX:
        raise DecompressError(f"zstd: a window of {window} bytes")
    block_max = min(_ZSTD_BLOCK_MAX, window or content)
    output_max = 0
    last = False
    while not last:
        header = view[at] | view[at + 1] << 8 | view[at + 2] << 16
        last, kind, size = bool(header & 1), header >> 1 & 3, header >> 3
        if kind == 3 or size > _ZSTD_BLOCK_MAX:
            raise DecompressError(f"zstd: a block of kind {kind} and {size} bytes")
        output_max += size if kind < 2 else block_max
        at += 3 + (1 if kind == 1 else size)
    return _Frame(start, at + (4 if descriptor & 0x04 else 0), output_max)


def _room(size: int, cap: int, name: str) -> bytearray:
    if size > cap:
        raise DecompressError(f"{name}: {size} bytes are more than {cap}")
    return bytearray(size)


def _into(name: str, into: _Into, source: memoryview, room: memoryview) -> int:
    import cramjam

    try:
        return into(source, room)
    except cramjam.DecompressionError as error:
        raise DecompressError(f"{name}: {error}") from None


_DECOMPRESSORS: dict[int, Callable[[memoryview, int], Buffer]] = {
    GZIP: _decompress_gzip,
    SNAPPY: _decompress_snappy,
    LZ4: _decompress_lz4,
    ZSTD: _decompress_zstd,
}
