"""A client that can say anything, and what it does to the broker's process.

Owns raw connections, frames by hand and the measuring of a process. Must not judge answers.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import time
from collections import Counter
from contextlib import suppress
from datetime import datetime
from importlib import import_module
from itertools import pairwise
from types import TracebackType
from typing import Any

from ottla.protocol.apis import FIRST_FLEXIBLE, MODULES
from ottla.protocol.codec import decoder, encoder
from ottla.protocol.frame import RequestHeader, request_frame
from ottla.protocol.messages.api_versions import ApiVersionsRequest
from ottla.protocol.messages.create_topics import (
    CreatableTopic,
    CreatableTopicConfig,
    CreateTopicsRequest,
)
from ottla.protocol.messages.delete_topics import DeleteTopicsRequest, DeleteTopicState
from ottla.protocol.messages.fetch import FetchPartition, FetchRequest, FetchTopic
from ottla.protocol.messages.produce import (
    PartitionProduceData,
    ProduceRequest,
    TopicProduceData,
)
from ottla.records.builder import build_batch
from ottla.records.reader import Record
from tests.processes import Broker, wait_until

PATIENCE_S = 30
API_VERSIONS = 18
WELL = "well"
COMPLAINT_S = 10
"""A broker logs each kind of complaint at most once in so many seconds."""
NOW_MS = 1_700_000_000_000

MEASURED = sys.platform == "linux"
"""Whether memory, descriptors and CPU of another process can be read here."""

KEPT = Counter({"/dev/null": 1})
"""What a broker may open later and keep: pages that are not in the cache are read into this, and
whether a page is there is up to the kernel."""

_ESTABLISHED, _CLOSE_WAIT = "01", "08"  # as in /proc/net/tcp


def framed(body: bytes) -> bytes:
    return struct.pack(">i", len(body)) + body


def head(key: int, version: int, correlation_id: int = 1, tags: bytes | None = None) -> bytes:
    """A request header; `tags` in place of the empty tagged fields of a flexible one."""
    flexible = FIRST_FLEXIBLE.get(key)
    if tags is None:
        tags = b"\0" if flexible is not None and version >= flexible else b""
    return struct.pack(">hhih", key, version, correlation_id, 2) + b"me" + tags


def raw(key: int, version: int, body: bytes = b"", tags: bytes | None = None) -> bytes:
    """A frame with any body."""
    return framed(head(key, version, tags=tags) + body)


def request(message: Any, version: int, correlation_id: int = 1) -> bytes:
    """A frame with a message."""
    body: list[Any] = encoder(type(message), version)(message)
    return request_frame(RequestHeader(message.KEY, version, correlation_id, "me"), body)


def answer_of(message: Any, version: int, frame: bytes) -> Any:
    """The response to `message`, out of a frame without its size."""
    flexible = type(message).FLEXIBLE
    at = 4 + (flexible is not None and version >= flexible and message.KEY != API_VERSIONS)
    name = type(message).__name__.removesuffix("Request") + "Response"
    cls = getattr(import_module(f"ottla.protocol.messages.{MODULES[message.KEY]}"), name)
    return decoder(cls, version)(memoryview(frame), at)[0]


class Peer:
    """One connection to a broker; a context manager that closes it."""

    def __init__(self, broker: Broker, receive_buffer: int | None = None) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(PATIENCE_S)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            self.socket.connect((broker.host, broker.port))
        except BaseException:
            self.socket.close()
            raise
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self) -> bytes:
        """The next frame, without its size."""
        return self._exactly(struct.unpack(">i", self._exactly(4))[0])

    def ask(self, message: Any, version: int, correlation_id: int = 1) -> Any:
        """The response to a message."""
        self.send(request(message, version, correlation_id))
        frame = self.answer()
        assert struct.unpack_from(">i", frame) == (correlation_id,)
        return answer_of(message, version, frame)

    def rest(self, within_s: float = PATIENCE_S) -> bytes:
        """What still comes, until the broker closes the connection; TimeoutError if it does not."""
        said = bytearray()
        end = time.monotonic() + within_s
        with suppress(ConnectionResetError):
            self.socket.settimeout(within_s)
            while piece := self.socket.recv(1 << 16):
                said += piece
                # Of all reads together: bytes that trickle in would hold up each anew.
                if (left := end - time.monotonic()) <= 0:
                    raise TimeoutError(f"{len(said)} bytes, and the connection is still open")
                self.socket.settimeout(left)
        return bytes(said)

    def is_closed(self) -> bool:
        """Whether the broker has closed it by now, nothing being left to read."""
        self.socket.setblocking(False)
        try:
            return self.socket.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True
        finally:
            self.socket.settimeout(PATIENCE_S)

    def ping(self) -> None:
        """A round trip: what was sent on any connection before has been read after two of them."""
        self.ask(ApiVersionsRequest(), 0)

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Peer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def _exactly(self, count: int) -> bytes:
        said = bytearray()
        while len(said) < count:
            piece = self.socket.recv(count - len(said))
            assert piece, f"the connection ended {count - len(said)} bytes too early"
            said += piece
        return bytes(said)


# --- ordinary requests ------------------------------------------------------------------------


def batch(*values: bytes, key: bytes | None = None, timestamp: int = NOW_MS, **more: Any) -> bytes:
    return build_batch([Record(key, value, timestamp) for value in values], **more)


def produce(
    topic: str, *batches: tuple[int, bytes | None], acks: int = -1, timeout_ms: int = 10_000
) -> ProduceRequest:
    parts = [PartitionProduceData(index=number, records=records) for number, records in batches]
    data = [TopicProduceData(name=topic, partition_data=parts)]
    return ProduceRequest(acks=acks, timeout_ms=timeout_ms, topic_data=data)


def fetch(topic: str | bytes, *offsets: tuple[int, int], **more: Any) -> FetchRequest:
    """A fetch of (partition, offset), by name or by id."""
    part_max = more.pop("partition_max_bytes", 1 << 20)
    epoch = more.pop("current_leader_epoch", -1)
    parts = [
        FetchPartition(
            partition=number,
            fetch_offset=offset,
            partition_max_bytes=part_max,
            current_leader_epoch=epoch,
        )
        for number, offset in offsets
    ]
    named = {"topic": topic} if isinstance(topic, str) else {"topic_id": topic}
    given = {"max_wait_ms": 0, "min_bytes": 0, "max_bytes": 1 << 26} | more
    return FetchRequest(topics=[FetchTopic(partitions=parts, **named)], **given)


def create(name: str, partitions: int = 1, **configs: object) -> CreateTopicsRequest:
    given = [
        CreatableTopicConfig(name=key.replace("_", "."), value=str(value))
        for key, value in configs.items()
    ]
    topic = CreatableTopic(
        name=name, num_partitions=partitions, replication_factor=1, configs=given
    )
    return CreateTopicsRequest(topics=[topic])


def delete(*names: str) -> DeleteTopicsRequest:
    return DeleteTopicsRequest(
        topics=[DeleteTopicState(name=name) for name in names], timeout_ms=10_000
    )


def produced(answer: Any) -> tuple[int, int]:
    """(error, base offset) of an answer about one partition."""
    ((part,),) = (topic.partition_responses for topic in answer.responses)
    return part.error_code, part.base_offset


def fetched(answer: Any) -> Any:
    """The one partition of an answer to Fetch."""
    ((part,),) = (topic.partitions for topic in answer.responses)
    return part


# --- the process ------------------------------------------------------------------------------


def resident_bytes(pid: int) -> int:
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def open_files(pid: int) -> list[str]:
    """What each descriptor of a process is: a path, or the kind of what has none."""
    found = []
    for number in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/{pid}/fd/{number}").partition(":")[0])
    return sorted(found)


def connections_of(port: int) -> int:
    """How many connections a broker on this port of 127.0.0.1 has, those included whose end it has
    not noticed yet."""
    with open("/proc/net/tcp", encoding="ascii") as file:
        rows = [line.split() for line in file.readlines()[1:]]
    here = int.from_bytes(socket.inet_aton("127.0.0.1"), sys.byteorder)
    ours = f"{here:08X}:{port:04X}"
    return sum(row[1] == ours and row[3] in (_ESTABLISHED, _CLOSE_WAIT) for row in rows)


def cpu_s(pid: int) -> float:
    """User and system time that a process has used."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Victim:
    """A broker that hostile clients talk to, and what it looked like before.

    `unharmed` is what must hold after everything that they do.
    """

    def __init__(self, broker: Broker, memory_more_max: int = 64 << 20) -> None:
        self.broker = broker
        self.memory_more_max = memory_more_max
        self._files: Counter[str] = Counter()
        self._resident = 0

    def remember(self) -> None:
        """Take the present state for the sound one, once it has come to rest."""
        self.well()
        if not MEASURED:
            return
        # A busy machine can let a moment's rest pass before the broker sees that these are closed.
        port = self.broker.port
        wait_until(lambda: connections_of(port) == 0, "the broker to see its connections closed")
        seen: list[Counter[str]] = []

        def at_rest() -> bool:
            seen.append(Counter(open_files(self.broker.pid)))
            return seen[-20:] == [seen[-1]] * 20

        wait_until(at_rest, "the broker to come to rest")
        self._files = seen[-1]
        self._resident = resident_bytes(self.broker.pid)

    def memory_more(self) -> int:
        """Bytes that the broker holds beyond what it held when it was well."""
        return resident_bytes(self.broker.pid) - self._resident if MEASURED else 0

    @property
    def sockets(self) -> int:
        """How many sockets it had, its own included."""
        return self._files["socket"]

    def unharmed(self) -> None:
        """The next connection works, and memory and open files are back."""
        self.well()
        if not MEASURED:
            return
        pid = self.broker.pid

        def as_before() -> bool:
            now = Counter(open_files(pid))
            return self._files <= now <= self._files + KEPT

        wait_until(
            as_before,
            "the open files of before",
            or_say=lambda: (
                f"beside {Counter(open_files(pid)) - self._files}, "
                f"without {self._files - Counter(open_files(pid))}"
            ),
        )
        assert self.memory_more() <= self.memory_more_max

    def peer(self, **more: Any) -> Peer:
        return Peer(self.broker, **more)

    def create(self, name: str, partitions: int = 1, **configs: object) -> None:
        """A topic, each partition with a record, so that its files are open."""
        with self.peer() as peer:
            (topic,) = peer.ask(create(name, partitions, **configs), 5).topics
            assert topic.error_code == 0, topic.error_message
            for number in range(partitions):
                answer = peer.ask(produce(name, (number, batch(b"first", key=b"k"))), 9)
                assert produced(answer) == (0, 0)

    def logged(self, what: str) -> list[str]:
        """The lines of the broker's log that have `what` in them."""
        return [line for line in self.broker.said().splitlines() if what in line]

    def has_complained(self, what: str) -> bool:
        """Whether the log tells of it, and at most once in ten seconds however often it happened."""
        lines = self.logged(what)
        at = [datetime.fromisoformat(line.partition(" WARNING")[0]) for line in lines]
        rests = [(later - earlier).total_seconds() for earlier, later in pairwise(at)]
        return bool(at) and min(rests, default=COMPLAINT_S) > COMPLAINT_S - 1

    def well(self) -> None:
        """A new connection works: it produces, and fetches what it produced."""
        with self.peer() as peer:
            assert len(peer.ask(ApiVersionsRequest(), 0).api_keys) > 10
            error, offset = produced(peer.ask(produce(WELL, (0, batch(b"well"))), 9))
            assert error == 0
            part = fetched(peer.ask(fetch(WELL, (0, offset)), 12))
            assert part.error_code == 0
            assert part.high_watermark == offset + 1
            assert bytes(part.records).endswith(b"well\0")
