"""A node for handlers to stand in: small fakes, and a way to ask as a client would.

`ask` takes the request and the answer through the codec in the version asked, so that a handler
sees what the wire leaves of a request, and a test what it leaves of an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

from ottla.cluster.image import ClusterImage, Node, PartitionImage, TopicImage
from ottla.core.endpoints import Endpoint
from ottla.core.model import LeaderEpoch, NodeId, Offset, ProducerId, TopicId, TopicPartition
from ottla.core.options import broker_config
from ottla.core.pending import Pending
from ottla.core.ports import DiskError, Space
from ottla.handlers.context import ConnectionState, Context, Request
from ottla.handlers.registry import API
from ottla.handlers.reply import Parked, Reply
from ottla.protocol.codec import decoder, encoder
from ottla.protocol.errors import ErrorCode
from ottla.storage.epochs import LeaderEpochs
from ottla.storage.producers import ProducerStates
from ottla.storage.reading import INTACT

ENDPOINT = Endpoint("here.example", 9092)


def topic_id(number: int) -> TopicId:
    return TopicId(number.to_bytes(16, "big"))


def topic_image(
    name: str, number: int, partitions: int = 1, leader: int = 0, **configs: str
) -> TopicImage:
    node = NodeId(0)
    one = PartitionImage(NodeId(leader), LeaderEpoch(3), (node,), (node,))
    own = {key.replace("_", "."): value for key, value in configs.items()}
    return TopicImage(name, topic_id(number), (one,) * partitions, own)


def cluster_image(*topics: TopicImage) -> ClusterImage:
    return ClusterImage(
        cluster_id="a-cluster",
        controller_id=NodeId(0),
        nodes={NodeId(0): Node(NodeId(0), "elsewhere.example", 1, "rack-1")},
        topics={topic.name: topic for topic in topics},
        by_id={topic.id: topic for topic in topics},
        partitions_count=sum(len(topic.partitions) for topic in topics),
    )


class FakeClock:
    def __init__(self) -> None:
        self.now = 100.0

    def wall_ms(self) -> int:
        return int(self.now * 1000)

    def monotonic(self) -> float:
        return self.now


class FakeLog:
    """A log that answers by what the test put into `places`, one call after the other."""

    def __init__(self, start: int = 0, end: int = 0) -> None:
        self.start = Offset(start)
        self.damaged_at = INTACT
        self.usable = True
        self.end = Offset(end)
        self.size = 0
        self.epochs = LeaderEpochs()
        self.producers = ProducerStates()
        self.places: list[Callable[[], Any]] = []
        self.asked: list[int | str] = []

    def offset_for_time(self, timestamp: int, _bound: object) -> Any:
        self.asked.append(timestamp)
        return self.places.pop(0)() if self.places else None

    def max_timestamp(self) -> Any:
        self.asked.append("max")
        return self.places.pop(0)() if self.places else None


class FakePartition:
    def __init__(
        self, log: FakeLog, high_watermark: int | None = None, key: tuple[str, int] = ("?", 0)
    ) -> None:
        self.log = log
        self.key = TopicPartition(*key)
        self.leader_epoch = LeaderEpoch(3)
        self.high_watermark = log.end if high_watermark is None else Offset(high_watermark)
        self.last_stable = self.high_watermark
        self.high_position = object()
        self.read_errors: list[DiskError] = []
        self.on_read_error = self.read_errors.append

    def check_epoch(self, epoch: int) -> ErrorCode:
        if epoch in (-1, self.leader_epoch):
            return ErrorCode.NONE
        if epoch < self.leader_epoch:
            return ErrorCode.FENCED_LEADER_EPOCH
        return ErrorCode.UNKNOWN_LEADER_EPOCH


class FakeDirectory:
    path = "/data"


class FakeTable:
    def __init__(self) -> None:
        self.partitions: dict[tuple[str, int], FakePartition] = {}
        self.failure: DiskError | None = None
        self.directory = FakeDirectory()
        self.deletions: list[Pending[None]] = []

    def __iter__(self) -> Iterator[FakePartition]:
        return iter(self.partitions.values())

    def delete_records(self, partition: FakePartition, offset: int) -> Pending[None] | ErrorCode:
        """Moves the start at once; the test says when that is durable."""
        if not 0 <= offset <= partition.high_watermark:
            return ErrorCode.OFFSET_OUT_OF_RANGE
        partition.log.start = Offset(max(offset, partition.log.start))
        self.deletions.append(Pending())
        return self.deletions[-1]

    def get(self, topic: str, partition: int) -> FakePartition | ErrorCode:
        found = self.partitions.get((topic, partition))
        return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION if found is None else found


class FakeOffload:
    """Does the work when told to."""

    def __init__(self) -> None:
        self.runs: list[Callable[[], None]] = []
        self.pending: Pending[Any] = Pending()

    def run(self, work: Callable[..., Any], *arguments: Any) -> Pending[Any]:
        self.pending = pending = Pending[Any]()
        self.runs.append(lambda: pending.complete(work(*arguments)))
        return pending

    def fail(self, error: Exception) -> None:
        self.pending.fail(error)


class FakeDisk:
    def __init__(self) -> None:
        self.warming: list[Pending[None]] = []
        self.spaces: list[Pending[Space]] = []

    def space(self, _path: str) -> Pending[Space]:
        self.spaces.append(Pending())
        return self.spaces[-1]

    def warm(self, _piece: object) -> Pending[None]:
        self.warming.append(Pending())
        return self.warming[-1]


class FakeController:
    """Remembers what it was asked, and answers with what the test gives it."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.validate_only = False
        self.answer: Pending[Any] = Pending()

    def auto_create(self, names: Any) -> Pending[Any]:
        self.asked.extend(names)
        return self.answer

    def create_topics(self, topics: Any, *, validate_only: bool) -> Pending[Any]:
        self.asked.extend(topics)
        self.validate_only = validate_only
        return self.answer

    def delete_topics(self, topics: Any) -> Pending[Any]:
        self.asked.extend(topics)
        return self.answer

    def create_partitions(self, topics: Any, *, validate_only: bool) -> Pending[Any]:
        return self.create_topics(topics, validate_only=validate_only)

    def alter_configs(self, alterations: Any, *, validate_only: bool) -> Pending[Any]:
        return self.create_topics(alterations, validate_only=validate_only)


class FakeNode:
    """The parts, each for a test to change, and `context` to hand to a handler."""

    def __init__(self, *topics: TopicImage, **given: str) -> None:
        self.image = cluster_image(*topics)
        self.clock = FakeClock()
        self.table = FakeTable()
        self.offload = FakeOffload()
        self.disk = FakeDisk()
        self.controller = FakeController()
        self.producer_ids: list[Pending[ProducerId]] = []
        parts: dict[str, Any] = {
            "config": broker_config({name.replace("_", "."): text for name, text in given.items()}),
            "node_id": NodeId(0),
            "image": lambda: self.image,
            "table": self.table,
            "controller": self.controller,
            "next_producer_id": lambda: self.producer_ids.pop(0),
            "clock": self.clock,
            "disk": self.disk,
            "timers": None,
            "offload": self.offload,
        }
        self.context = Context(**parts)
        self.connection = ConnectionState("10.0.0.9:5", "PLAINTEXT", ENDPOINT)

    def partition(self, topic: str, number: int, log: FakeLog, **more: int) -> FakePartition:
        made = FakePartition(log, more.get("high_watermark"), (topic, number))
        self.table.partitions[topic, number] = made
        return self.table.partitions[topic, number]

    def ask(self, body: Any, version: int) -> Any:
        """The response to `body`, or the Parked by which it waits."""
        api = API[body.KEY]
        assert api.accepted <= version <= api.highest
        (sent,) = encoder(type(body), version)(body)
        seen, _end = decoder(type(body), version)(memoryview(bytes(sent)), 0)
        request = Request(api.key, version, 1, "test", seen, self.connection)
        outcome = import_module(f"ottla.handlers.{api.module}").handle(self.context, request)
        return outcome if isinstance(outcome, Parked) else self.as_sent(outcome, body.KEY, version)

    def as_sent(self, reply: Reply | Parked, key: int, version: int) -> Any:
        """What a client reads of a reply."""
        assert isinstance(reply, Reply)
        if isinstance(reply.body, bytes):
            sent: Any = reply.body
        else:
            (sent,) = encoder(type(reply.body), version)(reply.body)
        messages = import_module(f"ottla.protocol.messages.{API[key].module}")
        response = getattr(messages, f"{API[key].name}Response")
        return decoder(response, version)(memoryview(bytes(sent)), 0)[0]
