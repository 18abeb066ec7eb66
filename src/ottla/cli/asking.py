"""Questions to brokers that no client library asks: a request and its answer on a plain socket.

Owns the connections and who of the cluster is asked. Without TLS and without a login alone: what
else there is would only refuse us. Must not print.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ottla.cli.client import PATIENCE_S, address
from ottla.cli.errors import CommandError
from ottla.protocol.client import ClientConnection
from ottla.protocol.codec import decoder, encoder
from ottla.protocol.connection import PeerError
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.find_coordinator import (
    FindCoordinatorRequest,
    FindCoordinatorResponse,
)
from ottla.protocol.messages.metadata import (
    MetadataRequest,
    MetadataRequestTopic,
    MetadataResponse,
)
from ottla.protocol.primitives import CodecError

if TYPE_CHECKING:
    from types import TracebackType

    from ottla.protocol.schema import Message

Answer = TypeVar("Answer", bound="Message")
Address = tuple[str, int]

_METADATA, _FIND_COORDINATOR = 9, 3
_TRANSACTION = 1


class Brokers:
    """The brokers of a cluster, each asked over a connection of its own. A context manager."""

    def __init__(self, bootstrap: str, extra: dict[str, str]) -> None:
        """Raises CommandError where the cluster is told to be behind TLS or a login."""
        if extra.get("security.protocol", "plaintext").lower() != "plaintext":
            raise CommandError(
                "this command speaks to brokers without TLS and without a login, and -X "
                "security.protocol says otherwise"
            )
        self._bootstrap = [address(part) for part in bootstrap.split(",") if part.strip()]
        self._open: dict[Address, tuple[socket.socket, ClientConnection]] = {}

    def __enter__(self) -> Brokers:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for sock, _ in self._open.values():
            sock.close()

    def ask(
        self, message: Message, version: int, answer: type[Answer], at: Address | None = None
    ) -> Answer:
        """Raises CommandError where there is no answer. `at` is the first that is, if not given."""
        place = at or self._anybody()
        try:
            return self._ask(place, message, version, answer)
        except (OSError, PeerError, CodecError) as error:
            host, port = place
            raise CommandError(
                f"{host}:{port} doesn't answer as a Kafka broker does ({error or 'no answer'})"
            ) from None

    def _ask(self, place: Address, message: Message, version: int, answer: type[Answer]) -> Answer:
        if place not in self._open:
            sock = socket.create_connection(place, PATIENCE_S)
            self._open[place] = sock, ClientConnection("ottla-cli")
        sock, connection = self._open[place]
        body = cast("list[bytes]", encoder(type(message), version)(message))
        sock.sendall(connection.request(message.KEY, version, body))
        while (room := connection.room()) is not None and (count := sock.recv_into(room)):
            for _, view in connection.answers(count):
                return decoder(answer, version)(view, 0)[0]
        raise PeerError("it hung up")

    def _anybody(self) -> Address:
        for place in self._bootstrap:
            if place in self._open:
                return place
            try:
                sock = socket.create_connection(place, PATIENCE_S)
            except OSError:
                continue
            self._open[place] = sock, ClientConnection("ottla-cli")
            return place
        return self._bootstrap[0]

    # --- who is asked ----------------------------------------------------------------------

    def all(self) -> list[Address]:
        """Every broker of the cluster."""
        found = self.ask(MetadataRequest(topics=[]), _METADATA, MetadataResponse)
        return [(broker.host, broker.port) for broker in found.brokers]

    def leaders(self, topic: str) -> dict[int, Address | None]:
        """The leader of each partition of a topic; nothing of one that there is not."""
        asked = MetadataRequest(
            topics=[MetadataRequestTopic(name=topic)], allow_auto_topic_creation=False
        )
        found = self.ask(asked, _METADATA, MetadataResponse)
        places = {broker.node_id: (broker.host, broker.port) for broker in found.brokers}
        return {
            part.partition_index: places.get(part.leader_id)
            for one in found.topics
            if not one.error_code
            for part in one.partitions
        }

    def coordinator(self, transactional_id: str) -> Address:
        """Who coordinates a transactional id."""
        asked = FindCoordinatorRequest(key=transactional_id, key_type=_TRANSACTION)
        found = self.ask(asked, _FIND_COORDINATOR, FindCoordinatorResponse)
        if found.error_code:
            raise CommandError(
                f"nobody coordinates {transactional_id!r} now ({said(found.error_code)}); try again"
            )
        return found.host, found.port


def said(code: int) -> str:
    """An error code by its name, as far as it is known."""
    known: Any = ErrorCode._value2member_map_.get(code)
    return f"error {code}" if known is None else str(known.name)
