"""A client's side of one connection: requests out, answers matched.

Owns correlation ids and the receive buffer. Must not touch a socket. For followers, tools and
tests; a load generator, which repeats one request and only counts, uses `FrameCounter`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct

from ottla.protocol.apis import FIRST_FLEXIBLE
from ottla.protocol.connection import FrameBuffer, PeerError, ReceiveMemory
from ottla.protocol.frame import SIZE_BYTES, RequestHeader, request_frame
from ottla.protocol.primitives import CodecError, skip_tags

_SIZE = Struct(">i")
_CORRELATION = Struct(">i")
_API_VERSIONS = 18
_FRAME_BYTES_MAX = (1 << 31) - 1  # what a broker answers is as large as we asked for


@dataclass(frozen=True, slots=True)
class Sent:
    """A request that waits for its answer."""

    api_key: int
    api_version: int
    correlation_id: int

    @property
    def flexible_header(self) -> bool:
        """Whether the answer comes with response header v1. ApiVersions' never does (KIP-511)."""
        flexible = FIRST_FLEXIBLE.get(self.api_key)
        return (
            flexible is not None and self.api_version >= flexible and self.api_key != _API_VERSIONS
        )


class ClientConnection(FrameBuffer):
    """Requests out, answers matched to them. A broker answers in order, so a queue is enough.

    As on the server's side: receive into `room()`, then iterate over `answers(count)`.
    """

    __slots__ = ("_client_id", "_next", "_waiting")

    def __init__(self, client_id: str | None, memory: ReceiveMemory | None = None) -> None:
        super().__init__(_FRAME_BYTES_MAX, memory or ReceiveMemory(-1))
        self._client_id = client_id
        self._next = 0
        self._waiting: deque[Sent] = deque()

    @property
    def waiting_count(self) -> int:
        """Requests sent and not answered."""
        return len(self._waiting)

    def request(
        self, api_key: int, api_version: int, body: list[bytes], answered: bool = True
    ) -> bytes:
        """The frame to send. `answered` is False for a produce with acks=0."""
        correlation_id = self._next
        self._next = (correlation_id + 1) & 0x7FFF_FFFF
        if answered:
            self._waiting.append(Sent(api_key, api_version, correlation_id))
        header = RequestHeader(api_key, api_version, correlation_id, self._client_id)
        return request_frame(header, body)

    def answers(self, count: int) -> Iterator[tuple[Sent, memoryview]]:
        """Each answer that is now whole: what it answers, and its body.

        A view is valid until the next call of room(). Raises PeerError for an answer that belongs
        to no request or to another than the oldest.
        """
        for frame in self.received(count):
            if len(frame) < _CORRELATION.size:
                raise PeerError(f"an answer of {len(frame)} bytes")
            correlation_id = _CORRELATION.unpack_from(frame)[0]
            if not self._waiting:
                raise PeerError(f"answer {correlation_id} came without a request")
            sent = self._waiting.popleft()
            if correlation_id != sent.correlation_id:
                raise PeerError(f"answer {correlation_id} came instead of {sent.correlation_id}")
            begin = _CORRELATION.size
            if sent.flexible_header:
                try:
                    begin = skip_tags(frame, begin)
                except (CodecError, IndexError):
                    raise PeerError("an answer with a bad header") from None
            yield sent, frame[begin:]


class FrameCounter:
    """Counts answers as they stream by, without keeping or reading them."""

    __slots__ = ("_head", "_skip")

    def __init__(self) -> None:
        self._skip = 0  # bytes of the present frame that are still to come
        self._head = b""  # the beginning of a size that came in two pieces

    def feed(self, data: memoryview) -> int:
        """How many frames end within `data`, which may be received over afterwards."""
        at, size = 0, len(data)
        count = 0
        if self._head:
            at = min(SIZE_BYTES - len(self._head), size)
            self._head += bytes(data[:at])
            if len(self._head) < SIZE_BYTES:
                return 0
            self._skip = _SIZE.unpack(self._head)[0]
            self._head = b""
            count = int(self._skip == 0)
        if self._skip:
            if self._skip > size - at:
                self._skip -= size - at
                return count
            at += self._skip
            self._skip = 0
            count += 1
        while at + SIZE_BYTES <= size:
            end = at + SIZE_BYTES + _SIZE.unpack_from(data, at)[0]
            if end > size:
                self._skip = end - size
                return count
            count += 1
            at = end
        self._head = bytes(data[at:])
        return count
