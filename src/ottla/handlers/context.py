"""What a handler may reach: the node's parts, the request and the connection it came by.

Owns these three shapes. Must not do anything itself; the parts are handed down by `node.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from ottla.cluster.controller import Controller
    from ottla.cluster.image import ClusterImage
    from ottla.core.config import Config
    from ottla.core.endpoints import Endpoint
    from ottla.core.model import NodeId, ProducerId
    from ottla.core.pending import Pending
    from ottla.core.ports import Clock, Offload, Timers
    from ottla.replication.table import PartitionTable

M = TypeVar("M")


class ConnectionState:
    """What is known of one connection. `endpoint` is the advertised one of its listener.

    The address by which a client came is the address it is told for this node: the one that
    is known to work for it.
    """

    __slots__ = ("client_software_name", "client_software_version", "endpoint", "listener", "peer")

    def __init__(self, peer: str, listener: str, endpoint: Endpoint) -> None:
        self.peer = peer
        self.listener = listener
        self.endpoint = endpoint
        self.client_software_name = "unknown"
        self.client_software_version = "unknown"


class Request(Generic[M]):
    """A decoded request. Views in its body are valid until the handler's effects are done."""

    __slots__ = ("body", "client_id", "connection", "version")

    def __init__(
        self, body: M, version: int, client_id: str | None, connection: ConnectionState
    ) -> None:
        self.body = body
        self.version = version
        self.client_id = client_id
        self.connection = connection


class Context:
    """The node, as handlers see it. One object for all requests.

    `image()` is the metadata in force now; a handler that parks asks again when it resumes.
    `next_producer_id()` draws from durable blocks, and may have to wait for a new one.
    `kept` belongs to handlers that keep something between requests, by the module's name
    (fetch sessions, the encoded answer of ApiVersions); each such module bounds what it keeps.
    """

    __slots__ = (
        "clock",
        "config",
        "controller",
        "image",
        "kept",
        "next_producer_id",
        "node_id",
        "offload",
        "table",
        "timers",
    )

    def __init__(  # noqa: PLR0913  # the composition root passes each by name
        self,
        *,
        config: Config,
        node_id: NodeId,
        image: Callable[[], ClusterImage],
        table: PartitionTable,
        controller: Controller,
        next_producer_id: Callable[[], Pending[ProducerId]],
        clock: Clock,
        timers: Timers,
        offload: Offload,
    ) -> None:
        self.config = config
        self.node_id = node_id
        self.image = image
        self.table = table
        self.controller = controller
        self.next_producer_id = next_producer_id
        self.clock = clock
        self.timers = timers
        self.offload = offload
        self.kept: dict[str, Any] = {}
