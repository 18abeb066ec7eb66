"""A key or a value of an internal topic's record: two bytes for a version, then the message.

Owns that layout, as Kafka's own classes write it. A key is always of version 0, and its two bytes
say of what kind it is. Must not know which kinds there are.
"""

from __future__ import annotations

from struct import Struct as Packing
from typing import TypeVar

from ottla.protocol.codec import CodecError, decoder, encoder
from ottla.protocol.schema import Message

M = TypeVar("M", bound=Message)

_TWO_BYTES = Packing(">h")


def encode_key(key: Message) -> bytes:
    """Raises CodecError."""
    return _TWO_BYTES.pack(key.KEY) + _encoded(key, 0)


def encode_value(value: Message, version: int) -> bytes:
    """Raises CodecError."""
    return _TWO_BYTES.pack(version) + _encoded(value, version)


def _encoded(message: Message, version: int) -> bytes:
    chunks = encoder(type(message), version)(message)
    assert len(chunks) == 1, "entries have no slices of files"
    chunk = chunks[0]
    assert isinstance(chunk, bytes), "entries have no slices of files"
    return chunk


def kind_of(key: bytes) -> int:
    """What the two bytes of a key say. Raises CodecError where there are none."""
    if len(key) < _TWO_BYTES.size:
        raise CodecError("a key without a version")
    kind: int = _TWO_BYTES.unpack_from(key)[0]
    return kind


def decode_key(kind: type[M], key: bytes) -> M:
    """A key of this kind. Raises CodecError."""
    found, _ = decoder(kind, 0)(memoryview(key), _TWO_BYTES.size)
    return found


def decode_value(kind: type[M], value: bytes) -> M:
    """A value, of any version that this kind has. Raises CodecError."""
    if len(value) < _TWO_BYTES.size:
        raise CodecError("a value without a version")
    (version,) = _TWO_BYTES.unpack_from(value)
    if not 0 <= version <= kind.VERSIONS[1]:
        raise CodecError(f"{kind.__name__} in version {version}")
    found, _ = decoder(kind, version)(memoryview(value), _TWO_BYTES.size)
    return found
