"""A way to any Kafka cluster through confluent-kafka, with its troubles in one sentence each.

Owns finding the library, reaching the cluster and wording what goes wrong. Must not print.
"""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from ottla.cli.errors import BadInput, CommandError, nearest

if TYPE_CHECKING:
    from confluent_kafka import Consumer, KafkaError, Producer
    from confluent_kafka.admin import AdminClient
    from confluent_kafka.admin._metadata import ClusterMetadata, TopicMetadata

PATIENCE_S = 5.0
"""How long a broker may take to answer before we say that it doesn't."""

Handle = TypeVar("Handle")


@dataclass(slots=True)
class Cluster:
    """Where the cluster is, and what was last heard of it."""

    bootstrap: str
    extra: dict[str, str] = field(default_factory=dict)
    last_trouble: str = ""

    def producer(self, **settings: Any) -> Producer:
        from confluent_kafka import Producer

        return self._made(Producer, settings)

    def consumer(self, **settings: Any) -> Consumer:
        from confluent_kafka import Consumer

        # Consumers need a group's name, even those that are assigned and never join one.
        fixed = {"group.id": "ottla-cli", "enable.auto.commit": False}
        return self._made(Consumer, fixed | settings)

    def admin(self) -> AdminClient:
        from confluent_kafka.admin import AdminClient

        return self._made(AdminClient, {})

    def _made(self, kind: type[Handle], settings: dict[str, Any]) -> Handle:
        common = {
            "bootstrap.servers": self.bootstrap,
            "client.id": "ottla-cli",
            "log_level": 0,  # librdkafka would write to stderr by itself
            "error_cb": self._heard,
        }
        try:
            return kind(common | settings | self.extra)  # type: ignore[call-arg]
        except library().KafkaException as error:
            sentence = error.args[0].str()
            raise BadInput(f"-X: {sentence}; see librdkafka's CONFIGURATION.md") from None

    def _heard(self, error: KafkaError) -> None:
        self.last_trouble = error.str()


def library() -> Any:
    """The module confluent_kafka. Raises CommandError where it isn't installed."""
    try:
        import confluent_kafka
    except ImportError:
        raise CommandError(
            "this command needs confluent-kafka; try: pip install 'ottla[client]'"
        ) from None
    return confluent_kafka


def admin_library() -> Any:
    """The module confluent_kafka.admin, whose stubs leave half of it out."""
    import confluent_kafka.admin

    return confluent_kafka.admin


def connect(bootstrap: str, settings: list[str]) -> Cluster:
    """A cluster that something answers for. Raises CommandError within 5 s if nothing does."""
    extra = dict(setting(text, "-X", "security.protocol=SSL") for text in settings)
    addresses = [address(part) for part in bootstrap.split(",") if part.strip()]
    if not addresses:
        raise BadInput("--bootstrap takes HOST:PORT, not nothing; try: --bootstrap 127.0.0.1:9092")
    library()
    _knock(addresses, bootstrap)
    return Cluster(bootstrap, extra)


def setting(text: str, where: str, such_as: str = "retention.ms=86400000") -> tuple[str, str]:
    """Name and value of KEY=VALUE. Raises BadInput, which says that `where` takes it."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise BadInput(f"{where} takes KEY=VALUE, not {text!r}; try: {where} {such_as}")
    return name.strip(), value.strip()


def address(text: str) -> tuple[str, int]:
    """Host and port of HOST:PORT, an IPv6 host in brackets. Raises BadInput."""
    host, _, port = text.strip().rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isascii() or not port.isdecimal() or not 0 < int(port) < 65536:
        bare = text.strip()
        hint = f"127.0.0.1:{bare}" if bare.isdecimal() else f"{bare}:9092"
        hint = "127.0.0.1:9092" if ":" in bare or not bare else hint
        raise BadInput(f"--bootstrap takes HOST:PORT, not {text!r}; try: --bootstrap {hint}")
    return host, int(port)


def _knock(addresses: list[tuple[str, int]], bootstrap: str) -> None:
    """Connect and hang up: librdkafka keeps trying in silence where nobody listens."""
    deadline = time.monotonic() + PATIENCE_S
    reason = ""
    for host, port in addresses:
        try:
            socket.create_connection((host, port), max(0.1, deadline - time.monotonic())).close()
            return
        except OSError as error:
            reason = (error.strerror or str(error) or "no answer").lower()
    raise CommandError(
        f"no broker at {bootstrap} ({reason}); try: ottla serve, or --bootstrap HOST:PORT"
    )


def metadata(handle: Any, cluster: Cluster, topic: str | None = None) -> ClusterMetadata:
    """What the cluster says of itself. Raises CommandError if it says nothing within 5 s."""
    try:
        found: ClusterMetadata = (
            handle.list_topics(timeout=PATIENCE_S)
            if topic is None
            else handle.list_topics(topic, timeout=PATIENCE_S)
        )
    except library().KafkaException as error:
        raise CommandError(no_answer(cluster, error)) from None
    return found


def no_answer(cluster: Cluster, error: Any) -> str:
    """The sentence for a request that got no answer, or a bad one."""
    kafka = library()
    cause = error.args[0]
    if cause.code() in {kafka.KafkaError._TRANSPORT, kafka.KafkaError._TIMED_OUT}:
        trouble = f" ({cluster.last_trouble})" if cluster.last_trouble else ""
        return (
            f"{cluster.bootstrap} doesn't answer as a Kafka broker does{trouble}; "
            "check the port, and -X security.protocol if it wants TLS"
        )
    return wording(cause)


def wording(error: Any) -> str:
    """What a KafkaError says, without librdkafka's prefixes."""
    text = str(error.str() or error.name())
    return text.removeprefix("Broker: ").removeprefix("Local: ")


def existing_topic(handle: Any, cluster: Cluster, topic: str) -> TopicMetadata:
    """A topic that must be there already. Raises BadInput with the name that was meant."""
    topics = metadata(handle, cluster).topics
    if topic in topics and topics[topic].error is None:
        return topics[topic]
    meant = nearest(topic, list(topics))
    hint = meant if meant else "ottla topic list"
    raise BadInput(f"there is no topic {topic!r}; try: {hint}")
