"""Frames: the size prefix, request headers in and response headers out.

Owns the bytes around a message, hand-written because every request passes here. Must not know
any message. Source: the protocol guide, "Request Header" v1 and v2, "Response Header" v0 and v1.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import TypeAlias

from ottla.core.model import FileSlice
from ottla.protocol.apis import FIRST_FLEXIBLE
from ottla.protocol.primitives import CodecError, skip_tags

Chunk: TypeAlias = bytes | FileSlice

SIZE_BYTES = 4

_HEAD = Struct(">hhih")  # api key, api version, correlation id, length of the client id
_HEAD_BYTES = _HEAD.size
_KEY_AND_VERSION = Struct(">hh")
_SIZE_AND_CORRELATION = Struct(">ii")
_SIZE_CORRELATION_NO_TAGS = Struct(">iix")
_SIZED_HEAD = Struct(">ihhih")


class RequestHeader:
    """The header of a request. A null client id stays None; Kafka reads it as ""."""

    __slots__ = ("api_key", "api_version", "client_id", "correlation_id")

    def __init__(
        self, api_key: int, api_version: int, correlation_id: int, client_id: str | None
    ) -> None:
        self.api_key = api_key
        self.api_version = api_version
        self.correlation_id = correlation_id
        self.client_id = client_id


def decode_request_header(view: memoryview) -> tuple[RequestHeader, int]:
    """The header at the start of a frame, and where the body begins. Raises CodecError."""
    key, version, correlation_id, client_id, at = request_head(view)
    return RequestHeader(key, version, correlation_id, client_id), at


def request_head(view: memoryview) -> tuple[int, int, int, str | None, int]:
    """The header's fields (key, version, correlation id, client id), and where the body begins.

    Raises CodecError. Bare, since every request passes here and has an object of its own anyway.
    An unknown api key is read as one that has no flexible version: whoever looks it up refuses it.
    """
    size = len(view)
    if size < _HEAD_BYTES:
        raise CodecError(f"a frame of {size} bytes cannot hold a request header")
    key, version, correlation_id, length = _HEAD.unpack_from(view)
    at = _HEAD_BYTES
    client_id: str | None
    if length >= 0:
        at += length
        if at > size:
            raise CodecError(f"a client id of {length} bytes in a frame of {size}")
        try:
            client_id = str(view[_HEAD_BYTES:at], "utf-8")
        except UnicodeDecodeError:
            raise CodecError("the client id is not UTF-8") from None
    elif length == -1:
        client_id = None
    else:
        raise CodecError(f"a client id of {length} bytes")
    flexible = FIRST_FLEXIBLE.get(key)
    if flexible is not None and version >= flexible:
        if at < size and view[at] == 0:  # no tags: nobody has yet defined one for requests
            at += 1
        else:
            try:
                at = skip_tags(view, at)
            except IndexError:
                raise CodecError("the frame ends inside the header's tagged fields") from None
    return key, version, correlation_id, client_id, at


def request_kind(view: memoryview) -> tuple[int, int] | None:
    """Key and version of a frame whose header may not be ours to read; None if it is too short."""
    return _KEY_AND_VERSION.unpack_from(view) if len(view) >= _HEAD_BYTES else None


def response_head(flexible_header: bool) -> tuple[Callable[[int, int], bytes], int]:
    """What packs (size, correlation id) into the head of a frame, and what of it the size counts.

    For who frames many answers of one kind, and knows that they are bytes: see `response_frame`.
    """
    head = _SIZE_CORRELATION_NO_TAGS if flexible_header else _SIZE_AND_CORRELATION
    return head.pack, head.size - SIZE_BYTES


def response_frame(correlation_id: int, flexible_header: bool, body: list[Chunk]) -> list[Chunk]:
    """A whole frame: size, response header (v1 when flexible, else v0), `body`.

    Adjacent bytes are joined, so it begins with bytes and is one chunk when `body` has no slices.
    ApiVersions is answered with header v0 in every version: the client can't know ours yet.
    """
    pack, size = response_head(flexible_header)
    if not body:
        return [pack(size, correlation_id)]
    for chunk in body:
        size += len(chunk)
    prefix = pack(size, correlation_id)
    first = body[0]
    if isinstance(first, bytes):
        return [prefix + first, *body[1:]]
    return [prefix, *body]


def request_frame(header: RequestHeader, body: list[bytes]) -> bytes:
    """A whole frame with request header v1 or v2, as the version asks. For clients and tests."""
    name = b"" if header.client_id is None else header.client_id.encode()
    flexible = FIRST_FLEXIBLE.get(header.api_key)
    tags = b"\0" if flexible is not None and header.api_version >= flexible else b""
    rest = b"".join((name, tags, *body))
    return (
        _SIZED_HEAD.pack(
            _HEAD_BYTES + len(rest),
            header.api_key,
            header.api_version,
            header.correlation_id,
            -1 if header.client_id is None else len(name),
        )
        + rest
    )
