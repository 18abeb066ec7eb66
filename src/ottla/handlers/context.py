"""What a handler may reach: the node's parts, the request and the connection it came by.

Owns these three shapes. Must not do anything itself; the parts are handed down by `node.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ottla.core.complaints import Complaints
from ottla.core.metrics import AskerTally, NodeMetrics

if TYPE_CHECKING:
    from ottla.cluster.controller import Controller
    from ottla.cluster.image import ClusterImage
    from ottla.coordinator.group.shard import GroupShard
    from ottla.coordinator.runtime import Runtime
    from ottla.coordinator.transaction.coordinator import Transactions
    from ottla.core.config import Config
    from ottla.core.endpoints import Endpoint
    from ottla.core.model import NodeId, ProducerId
    from ottla.core.pending import Pending
    from ottla.core.ports import Clock, Disk, Offload, Timers
    from ottla.handlers.dispatch import Route
    from ottla.replication.table import PartitionTable

Body = TypeVar("Body")


class ConnectionState:
    """What is known of one connection, as long as it is there.

    `peer` is "host:port" of the client. `endpoint` is what a client that came by this listener is
    told of this node: what the listener advertises, else the very address the client used, which
    is known to work for it. `client_software_*` is what ApiVersions v3+ brought (KIP-511).
    """

    __slots__ = (
        "client_software_name", "client_software_version", "endpoint", "listener", "peer", "route",
        "tally",
    )  # fmt: skip

    def __init__(self, peer: str, listener: str, endpoint: Endpoint) -> None:
        self.peer = peer
        self.listener = listener
        self.endpoint = endpoint
        self.client_software_name = "unknown"
        self.client_software_version = "unknown"
        self.route: Route | None = None
        """The dispatcher's own: by which its last request went."""
        self.tally = AskerTally()


class Request(Generic[Body]):
    """One decoded request. `body` may hold views of the receive buffer.

    Those are valid until the handler returns or, when it parks with `before_effect`, until
    `resume` returns something else than another such Parked.
    """

    __slots__ = ("api_key", "api_version", "body", "client_id", "connection", "correlation_id")

    def __init__(  # the header's fields, the body and where it came from
        self,
        api_key: int,
        api_version: int,
        correlation_id: int,
        client_id: str | None,
        body: Body,
        connection: ConnectionState,
    ) -> None:
        self.api_key = api_key
        self.api_version = api_version
        self.correlation_id = correlation_id
        self.client_id = client_id
        self.body = body
        self.connection = connection


class Context:
    """The node, as handlers see it: one object for all requests.

    `image()` is the metadata in force now; a handler that parks asks again when it resumes.
    `disk` is for warming what a read found cold and for asking how much space there is.
    `complaints` counts, and logs now and then, what peers overdo.
    `next_producer_id()` draws from durable blocks, and may have to wait for a new one.
    `metrics` counts what is done, for those who look at the running node.
    `groups` coordinates groups: `internal_topics.group_runtime` makes it, once the rest is there.
    `transactions` coordinates transactions, and says whether a batch belongs to one.
    `kept` is for handlers that keep something between requests, under the module's name (fetch
    sessions); each of them bounds what it keeps.
    """

    __slots__ = (
        "clock",
        "complaints",
        "config",
        "controller",
        "disk",
        "groups",
        "image",
        "kept",
        "metrics",
        "next_producer_id",
        "node_id",
        "offload",
        "table",
        "timers",
        "transactions",
    )

    groups: Runtime[GroupShard]
    transactions: Transactions

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
        disk: Disk,
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
        self.complaints = Complaints(clock)
        self.disk = disk
        self.timers = timers
        self.offload = offload
        self.metrics = NodeMetrics()
        self.kept: dict[str, Any] = {}
