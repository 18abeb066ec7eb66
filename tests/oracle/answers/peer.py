"""One broker of the two, as a case sees it: raw frames in, answers as plain values out.

Owns the connection, and what can't be the same in two brokers: topic ids, addresses, directories,
producer ids become names. Requests are encoded by ottla's codec, which other tests hold against
kio; answers are decoded by kio, which knows nothing of ottla. Must not know what is right.
"""

from __future__ import annotations

import dataclasses
import datetime
import socket
import struct
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from kio.schema.errors import ErrorCode
from kio.schema.index import api_key_map
from kio.serial import entity_reader

from ottla.protocol import apis
from ottla.protocol.codec import decoder, encoder
from ottla.protocol.messages.create_topics import (
    CreatableTopic,
    CreatableTopicConfig,
    CreateTopicsRequest,
)
from ottla.protocol.messages.list_offsets import (
    ListOffsetsPartition,
    ListOffsetsRequest,
    ListOffsetsTopic,
)
from ottla.protocol.messages.metadata import (
    MetadataRequest,
    MetadataRequestTopic,
    MetadataResponse,
)
from ottla.protocol.schema import Message
from tests.processes import wait_until

CLOSED = "the connection is closed"
SILENCE = "no answer"
TIMED_OUT = "no answer in time"
ABSENT = "absent"
PATIENCE_S = 120.0
STORE_COUNT = 400
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
MS = datetime.timedelta(milliseconds=1)
API_VERSIONS = 18


class Peer:
    """A broker that a case talks to. The same case makes the same calls on each of the two."""

    def __init__(self, name: str, bootstrap: str) -> None:
        self.name = name
        host, _, port = bootstrap.rpartition(":")
        self.address = (host, int(port))
        self.socket: socket.socket | None = None
        self.topic_names: dict[bytes, str] = {}
        self.correlation = 0
        self.patience_s = PATIENCE_S
        self.case = ""
        self._topics_made = 0
        self.made: set[str] = set()
        self.taken = 0

    def begin(self, case: str, taken: int) -> None:
        """A new case: its topics have the same names on both sides.

        `taken` of the topics in store are used up, on either.
        """
        self.case = case
        self.taken = taken
        self._topics_made = 0

    def close(self) -> None:
        if self.socket is not None:
            self.socket.close()
            self.socket = None

    # --- asking ----------------------------------------------------------------------------

    def ask(self, message: Message, version: int) -> Any:
        """The answer as plain values, or CLOSED, or TIMED_OUT."""
        try:
            return self.ask_raw(message.KEY, version, encoded(message, version))
        except TimeoutError:
            return TIMED_OUT

    @contextmanager
    def less_patient(self) -> Iterator[None]:
        """For what is known to have no answer from Apache Kafka."""
        self.close()
        if self.name == "kafka":
            self.patience_s = 1.0
        yield
        self.patience_s = PATIENCE_S
        self.close()

    def ask_raw(self, key: int, version: int, body: bytes) -> Any:
        """As `ask` for a body that is given in bytes."""
        return self.decoded(key, version, self.exchange(self.frame(key, version, body)))

    def frame(self, key: int, version: int, body: bytes, client: str | None = "answers") -> bytes:
        """A request without its size: header v2 where the version is flexible, else v1."""
        self.correlation += 1
        name = struct.pack(">h", -1)
        if client is not None:
            name = struct.pack(">h", len(client)) + client.encode()
        head = struct.pack(">hhi", key, version, self.correlation) + name
        flexible = apis.FIRST_FLEXIBLE.get(key)
        tags = b"\0" if flexible is not None and version >= flexible else b""
        return head + tags + body

    def exchange(self, frame: bytes) -> bytes | None:
        """One frame there, one back; None if the connection was closed instead."""
        self.send(frame)
        return self.receive()

    def send(self, frame: bytes) -> None:
        if self.socket is None:
            self.socket = socket.create_connection(self.address, self.patience_s)
        self.socket.sendall(struct.pack(">i", len(frame)) + frame)

    def receive(self) -> bytes | None:
        assert self.socket is not None
        raw = b""
        while len(raw) < 4 or len(raw) < 4 + int.from_bytes(raw[:4], "big"):
            try:
                more = self.socket.recv(1 << 20)
            except ConnectionResetError:
                more = b""
            except TimeoutError:
                self.close()
                raise
            if not more:
                self.close()
                return None
            raw += more
        return raw[4:]

    def after(self, message: Message, version: int) -> Any:
        """What follows a request that has no answer: SILENCE if the connection lives on."""
        self.send(self.frame(message.KEY, version, encoded(message, version)))
        answer = self.exchange(self.frame(API_VERSIONS, 0, b""))
        return CLOSED if answer is None else SILENCE

    # --- decoding --------------------------------------------------------------------------

    def decoded(self, key: int, version: int, raw: bytes | None) -> Any:
        """An answer, by kio, as plain values; a wrong correlation id or a rest is one too."""
        if raw is None:
            return CLOSED
        assert int.from_bytes(raw[:4], "big", signed=True) == self.correlation
        module = f"kio.schema.{api_key_map[key]}.v{version}.response"
        response = getattr(__import__(module, fromlist=["_"]), f"{apis.API_NAMES[key]}Response")
        start = 4
        if response.__flexible__ and key != API_VERSIONS:
            assert raw[4] == 0, "a tagged field in the header"
            start = 5
        found, size = entity_reader(response)(memoryview(raw), start)
        rest = raw[start + size :]
        plain = self.plain(found)
        return (plain, f"{len(rest)} bytes more") if rest else plain

    def plain(self, value: Any) -> Any:
        """Plain values in which what can't be the same has a name instead."""
        if dataclasses.is_dataclass(value):
            named = {
                field.name: self.plain(getattr(value, field.name))
                for field in dataclasses.fields(value)
            }
            return self._named(named)
        if isinstance(value, tuple | list):
            return [self.plain(one) for one in value]
        if isinstance(value, ErrorCode):
            return value.name
        if isinstance(value, uuid.UUID):
            return self.topic_names.get(value.bytes, str(value))
        if isinstance(value, datetime.datetime):
            return (value - EPOCH) // MS
        if isinstance(value, datetime.timedelta):
            return value // MS
        return bytes(value) if isinstance(value, memoryview) else value

    def _named(self, fields: dict[str, Any]) -> dict[str, Any]:
        if fields.get("log_append_time") is not None:
            fields["log_append_time"] = "now"
        if (fields.get("host"), fields.get("port")) == self.address:
            fields |= {"host": "its host", "port": "its port"}
        if fields.get("cluster_id") and len(fields["cluster_id"]) == 22:
            fields["cluster_id"] = "its cluster"
        if str(fields.get("log_dir", "")).startswith("/"):
            fields["log_dir"] = "its directory"
        return fields

    # --- topics ----------------------------------------------------------------------------

    def topic(self, partitions: int = 1, **configs: str) -> str:
        """A topic of this case's own. Its partitions have a leader on return."""
        if partitions == 1 and not configs and self.taken < STORE_COUNT:
            name = f"stored-{self.taken:03}"
            self.taken += 1
            wait_until(lambda: self._ready(name, 1), f"a leader of {name}")
            return name
        self._topics_made += 1
        name = f"{self.case}-{self._topics_made}"
        self.make(name, partitions, configs)
        return name

    def fill_store(self) -> None:
        """Make topics for `topic`, all at once: one by one takes Kafka 50 ms each."""
        wanted = [
            CreatableTopic(name=f"stored-{at:03}", num_partitions=1, replication_factor=1)
            for at in range(STORE_COUNT)
        ]
        answer = self.ask(CreateTopicsRequest(topics=wanted, timeout_ms=120_000), 2)
        assert {one["error_code"] for one in answer["topics"]} == {"none"}, answer

    def make(self, name: str, partitions: int, configs: dict[str, str]) -> None:
        wanted = CreatableTopic(
            name=name,
            num_partitions=partitions,
            replication_factor=1,
            configs=[
                CreatableTopicConfig(name=key.replace("_", "."), value=value)
                for key, value in configs.items()
            ],
        )
        answer = self.ask(CreateTopicsRequest(topics=[wanted], timeout_ms=120_000), 5)
        assert answer["topics"][0]["error_code"] == "none", answer
        wait_until(lambda: self._ready(name, partitions), f"a leader of {name}")
        self.made.add(name)

    def _ready(self, name: str, partitions: int) -> bool:
        """Kafka answers the creation of a topic before it can be used: first its metadata say who
        leads, a little later the leader knows it, too."""
        wanted = MetadataRequest(
            topics=[MetadataRequestTopic(name=name)], allow_auto_topic_creation=False
        )
        raw = self.exchange(self.frame(3, 12, encoded(wanted, 12)))
        assert raw is not None
        (found,) = decoder(MetadataResponse, 12)(memoryview(raw), 5)[0].topics
        if found.error_code or len(found.partitions) != partitions:
            return False
        self.topic_names[bytes(found.topic_id)] = f"id of {name}"
        numbers = range(partitions)
        ends = [ListOffsetsPartition(partition_index=number, timestamp=-1) for number in numbers]
        there = [ListOffsetsTopic(name=name, partitions=ends)]
        answer = self.ask(ListOffsetsRequest(replica_id=-1, topics=there), 1)
        return all(one["error_code"] == "none" for one in answer["topics"][0]["partitions"])

    def directory(self, asking: Message) -> str:
        """Its log directory, by an answer that is not turned into names."""
        raw = self.exchange(self.frame(asking.KEY, 1, encoded(asking, 1)))
        assert raw is not None
        answer: Any = decoder(apis.response_class(asking.KEY), 1)(memoryview(raw), 4)[0]
        return str(answer.results[0].log_dir)

    def id_of(self, topic: str) -> bytes:
        ids = [raw for raw, name in self.topic_names.items() if name == f"id of {topic}"]
        return ids[-1]


def encoded(message: Message, version: int) -> bytes:
    return b"".join(bytes(part) for part in encoder(type(message), version)(message))


def ordered(value: Any) -> Any:
    """With every array of structs in an order of its own: the protocol promises none."""
    if isinstance(value, dict):
        return {key: ordered(one) for key, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        each = [ordered(one) for one in value]
        if each and all(isinstance(one, dict) for one in each):
            each.sort(key=lambda one: [str(one.get(name)) for name in ORDER if name in one])
        return each
    return value


ORDER = (
    "name",
    "topic",
    "topic_name",
    "topic_id",
    "resource_name",
    "config_name",
    "partition_index",
    "partition",
    "index",
    "partition_id",
    "api_key",
    "node_id",
    "broker_id",
    "producer_id",
    "group_id",
    "member_id",
    "error_code",
)


def differences(kafka: Any, ottla: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    """(path, Kafka's value, ottla's) wherever two answers are not the same."""
    if isinstance(kafka, dict) and isinstance(ottla, dict):
        return [
            one
            for key in {**kafka, **ottla}
            for one in differences(
                kafka.get(key, ABSENT), ottla.get(key, ABSENT), f"{path}.{key}" if path else key
            )
        ]
    if isinstance(kafka, list) and isinstance(ottla, list) and len(kafka) == len(ottla):
        return [
            one
            for at, (left, right) in enumerate(zip(kafka, ottla, strict=True))
            for one in differences(left, right, f"{path}[{at}]")
        ]
    return [] if kafka == ottla else [(path, kafka, ottla)]
