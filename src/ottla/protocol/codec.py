"""Decoders and encoders of messages, compiled when a message and version is first met.

Owns the two caches. Must not know how the source is written (`decoding.py`, `encoding.py`), nor
do any I/O: bytes in, values out.

A decoder takes nothing for granted: whatever a peer sends is a message or a CodecError, and the
memory it takes is bounded by the bytes that were sent, not by what they claim. Bytes that follow
the message are not its concern: it says where it ended. Design: docs/design/0001-messages.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from ottla.core.model import FileSlice
from ottla.protocol.decoding import DecoderSource
from ottla.protocol.encoding import EncoderSource
from ottla.protocol.primitives import CodecError, read_uvarint, write_uvarint
from ottla.protocol.schema import Message

__all__ = ["CodecError", "decoder", "encoder", "read_uvarint", "write_uvarint"]

M = TypeVar("M", bound=Message)

_decoders: dict[tuple[type[Message], int], Callable[..., Any]] = {}
_encoders: dict[tuple[type[Message], int], Callable[..., Any]] = {}


def decoder(cls: type[M], version: int) -> Callable[[memoryview, int], tuple[M, int]]:
    """The function that reads a `cls` in that version: (view, at) → (message, where it ends).

    It raises CodecError, and nothing else, where the bytes are not such a message. Records in
    the message are parts of the view; all else is copied out of it.
    """
    found = _decoders.get((cls, version))
    if found is None:
        _check(cls, version)
        source = DecoderSource(cls, version)
        found = _compile(source.text, source.names, "decode", f"{cls.__name__} v{version}")
        _decoders[cls, version] = found
    return found


def encoder(cls: type[M], version: int) -> Callable[[M], list[bytes | FileSlice]]:
    """The function that writes a `cls` in that version, as bytes cut only where file slices are.

    It raises CodecError where a value cannot be written: None where null isn't allowed, a number
    out of range, a string too long, a type that the field doesn't have.
    """
    found = _encoders.get((cls, version))
    if found is None:
        _check(cls, version)
        source = EncoderSource(cls, version)
        found = _compile(source.text, source.names, "encode", f"{cls.__name__} v{version}")
        _encoders[cls, version] = found
    return found


def _check(cls: type[Message], version: int) -> None:
    first, last = cls.VERSIONS
    if not first <= version <= last:
        raise ValueError(f"{cls.__name__} has versions {first} to {last}, not {version}")


def _compile(text: str, names: dict[str, Any], name: str, title: str) -> Callable[..., Any]:
    exec(compile(text, f"<{name} {title}>", "exec"), names)
    made: Callable[..., Any] = names[name]
    return made
