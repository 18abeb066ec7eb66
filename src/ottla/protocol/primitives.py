"""What compiled decoders and encoders call off their straight line, and their one exception.

Owns varints, tagged fields that nobody knows, and the wording of refusals. Must not know any
message. Source: KIP-482 (compact forms, tagged fields).
"""

from __future__ import annotations

from typing import Any

from ottla.core.model import FileSlice

STRING_BYTES_MAX = 0x7FFF
"""Longest string in any form: Kafka refuses a compact one above what the older form can say."""

_UVARINT_MAX = 0x7FFF_FFFF  # lengths, counts and tags are signed 32-bit numbers in Kafka


class CodecError(Exception):
    """These bytes are not such a message, or this value cannot be written as one."""


TAGS_MAX = 1024
"""Tagged fields in one place, far more than Kafka will ever have: each takes time to skip."""


def read_uvarint(view: memoryview, at: int) -> tuple[int, int]:
    """(value, where it ends) of an unsigned varint. Raises CodecError beyond 5 bytes or 31 bits.

    Raises IndexError where the view ends first; decoders turn that into a CodecError.
    """
    value = view[at]
    at += 1
    if value < 0x80:
        return value, at
    value &= 0x7F
    shift = 7
    while True:
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift > 28:
            raise CodecError("a varint of more than 5 bytes")
    if value > _UVARINT_MAX:
        raise CodecError("a varint of more than 31 bits")
    return value, at


def write_uvarint(value: int) -> bytes:
    """An unsigned varint, of which the first 7 bits come first."""
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def next_tag(view: memoryview, at: int, last: int) -> tuple[int, int, int]:
    """(tag, where its value begins, where it ends) of the tagged field at `at`.

    Raises CodecError where tags don't ascend, or the value would reach past the view.
    """
    tag, at = read_uvarint(view, at)
    if tag <= last:
        raise CodecError(f"tag {tag} after tag {last}")
    size, at = read_uvarint(view, at)
    if size > len(view) - at:
        raise CodecError(f"tag {tag} has {size} bytes, {len(view) - at} are left")
    return tag, at, at + size


def tags_count(view: memoryview, at: int) -> tuple[int, int]:
    """(count, where the first begins): the count of tagged fields at `at`, against what is left."""
    count, at = read_uvarint(view, at)
    if count > (len(view) - at) // 2:  # a tag and a size are a byte each, or more
        raise CodecError(f"{count} tagged fields, {len(view) - at} bytes are left")
    if count > TAGS_MAX:
        raise CodecError(f"{count} tagged fields, at most {TAGS_MAX} are taken")
    return count, at


def skip_tags(view: memoryview, at: int) -> int:
    """Where the tagged fields end whose count is at `at`. None of them is known here."""
    count, at = tags_count(view, at)
    last = -1
    for _ in range(count):
        last, _, at = next_tag(view, at, last)
    return at


def bad_count(what: str, count: int, left: int) -> CodecError:
    """Why a declared count of elements is refused: null, more than is left, or than the limit."""
    if count < 0:
        return CodecError(f"{what}: null, or a count of {count}, is not allowed")
    return CodecError(f"{what}: {count} elements are too many, {left} bytes are left")


def bad_length(what: str, length: int, left: int) -> CodecError:
    """Why a declared length of `what` is refused. Null is said as -1."""
    if length < 0:
        return CodecError(f"{what}: null, or a length of {length}, is not allowed")
    if length <= left:
        return CodecError(f"{what}: a string of {length} bytes")
    return CodecError(f"{what}: length {length}, {left} bytes are left")


def bad_tag_size(what: str, surplus: int) -> CodecError:
    """Why a tagged field is refused whose value and size disagree."""
    return CodecError(f"{what}: its tag's size is off by {surplus} bytes")


def cut(parts: list[Any], slices: list[int]) -> list[bytes | FileSlice]:
    """Join what lies between the file slices, whose places `slices` tells; they stay as they are.

    Bytes stand before each, its length at least; there may be none behind the last.
    """
    chunks: list[bytes | FileSlice] = []
    begin = 0
    for at in slices:
        chunks.append(b"".join(parts[begin:at]))
        chunks.append(parts[at])
        begin = at + 1
    if begin < len(parts):
        chunks.append(b"".join(parts[begin:]))
    return chunks
