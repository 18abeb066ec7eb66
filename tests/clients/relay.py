"""A relay in front of a broker that leaves a feature out of its ApiVersions.

Owns the way of a client that believes a broker older than it is: a Java client that is not told of
`transaction.version` 2 speaks as it does to Kafka before 4.0. Must not change anything else.
"""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress

from ottla.protocol.codec import decoder, encoder
from ottla.protocol.messages.api_versions import ApiVersionsResponse

API_VERSIONS, FEATURES_SINCE = 18, 3
_HEAD = struct.Struct(">hhi")


class Relay:
    """Listens from the start on; `to` says where connections go on to."""

    def __init__(self, without_feature: str) -> None:
        self.to = ("", 0)
        self._without = without_feature
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for one in self._open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            broker = socket.create_connection(self.to)
            self._open += [client, broker]
            versions: dict[int, int] = {}
            for target in (self._requests, self._answers):
                threading.Thread(
                    target=target, args=(client, broker, versions), daemon=True
                ).start()

    def _requests(
        self, client: socket.socket, broker: socket.socket, versions: dict[int, int]
    ) -> None:
        with suppress(OSError):
            while frame := _frame(client):
                key, version, correlation = _HEAD.unpack_from(frame)
                if key == API_VERSIONS and version >= FEATURES_SINCE:
                    versions[correlation] = version
                broker.sendall(struct.pack(">i", len(frame)) + frame)
        _end(broker)

    def _answers(
        self, client: socket.socket, broker: socket.socket, versions: dict[int, int]
    ) -> None:
        with suppress(OSError):
            while frame := _frame(broker):
                version = versions.pop(int.from_bytes(frame[:4], "big"), None)
                if version is not None:
                    frame = frame[:4] + self._changed(frame[4:], version)
                client.sendall(struct.pack(">i", len(frame)) + frame)
        _end(client)

    def _changed(self, body: bytes, version: int) -> bytes:
        answer, end = decoder(ApiVersionsResponse, version)(memoryview(body), 0)
        if answer.error_code or end != len(body):
            return body  # in version 0, which has no features
        for features in (answer.supported_features, answer.finalized_features):
            features[:] = [one for one in features if one.name != self._without]
        return b"".join(bytes(part) for part in encoder(ApiVersionsResponse, version)(answer))


def _frame(source: socket.socket) -> bytes:
    """The next frame without its size; nothing at the end."""
    head = _exactly(source, 4)
    return _exactly(source, int.from_bytes(head, "big")) if head else b""


def _exactly(source: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        more = source.recv(size - len(found))
        if not more:
            return b""
        found += more
    return found


def _end(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
