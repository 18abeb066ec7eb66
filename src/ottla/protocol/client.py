"""A client's side of one connection: requests out, answers matched.

Owns correlation ids and the receive buffer. Must not touch a socket.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct

from ottla.protocol.apis import FIRST_FLEXIBLE
from ottla.protocol.connection import FrameBuffer, PeerError, ReceiveMemory
from ottla.protocol.frame import RequestHeader, request_frame
from ottla.protocol.primitives import CodecError, skip_tags

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
