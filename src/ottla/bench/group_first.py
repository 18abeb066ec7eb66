"""The first record of a group: after subscribe in a real client, and asked for without a wait.

Owns both ways to it. Each round takes brokers that were started for it on empty directories.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from ottla.bench import asking, pump, restarted, start
from ottla.bench.contenders import Peer
from ottla.bench.group_figures import OURS, Figure, spreads
from ottla.bench.group_members import join_request, sync_request
from ottla.protocol.apis import FIRST_FLEXIBLE
from ottla.protocol.codec import decoder
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages import fetch as ft
from ottla.protocol.messages import find_coordinator as fc
from ottla.protocol.messages import join_group as jg
from ottla.protocol.messages import list_offsets as lo
from ottla.protocol.messages import metadata as md
from ottla.protocol.messages import offset_fetch as of
from ottla.protocol.messages import sync_group as sg
from ottla.protocol.schema import Message

Say = Callable[[str], None]
Answer = TypeVar("Answer", bound=Message)

BUDGET_MS, BUDGET_HANDLING_MS, BUDGET_FIRST_USE_MS = 500.0, 100.0, 50.0
_NOT_YET = frozenset(
    {
        ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
        ErrorCode.COORDINATOR_NOT_AVAILABLE,
        ErrorCode.NOT_COORDINATOR,
    }
)
_REST_S, _DEADLINE_S = 0.001, 30.0

_SUBSCRIBE = """
import sys, time
from confluent_kafka import Consumer
servers, group, topic = sys.argv[1:]
consumer = Consumer(
    {"bootstrap.servers": servers, "group.id": group, "auto.offset.reset": "earliest"}
)
begun = time.perf_counter()
consumer.subscribe([topic])
while time.perf_counter() < begun + 30:
    message = consumer.poll(0.1)
    if message is not None and message.error() is None:
        print(time.perf_counter() - begun)
        break
consumer.close()
"""


def subscribed_ms(address: tuple[str, int], group: str, topic: str) -> float:
    """From subscribe to the record, in a process of its own. Raises LoadFailed."""
    command = [sys.executable, "-c", _SUBSCRIBE, f"{address[0]}:{address[1]}", group, topic]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=90)
    try:
        return float(done.stdout) * 1e3
    except ValueError:
        said = done.stderr.strip().splitlines()
        raise pump.LoadFailed(said[-1] if said else "no record within 30 s") from None


class _Asker:
    """One connection; how long each kind of question took, in all its tries."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._socket = socket.create_connection(address, timeout=_DEADLINE_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._stream = self._socket.makefile("rb")
        self.spent_ms: dict[str, float] = {}
        self.not_yet_count = 0
        """Answers after which a client waits for its retry interval."""

    def ask(self, message: Message, version: int, kind: type[Answer]) -> Answer:
        request = asking.frame(message, version)
        name = type(message).__name__.removesuffix("Request")
        begun = time.perf_counter()
        self._socket.sendall(request)
        size = self._stream.read(4)
        if len(size) < 4:
            raise pump.LoadFailed(f"the broker closed the connection instead of answering {name}")
        answer = memoryview(self._stream.read(struct.unpack(">i", size)[0]))
        took_ms = (time.perf_counter() - begun) * 1e3
        self.spent_ms[name] = self.spent_ms.get(name, 0.0) + took_ms
        flexible = FIRST_FLEXIBLE.get(message.KEY)
        tags = flexible is not None and version >= flexible
        return decoder(kind, version)(answer, 4 + tags)[0]

    def until(self, ask: Callable[[], Answer], error: Callable[[Answer], int], name: str) -> Answer:
        """Again while the broker isn't ready. Raises LoadFailed for any other error."""
        deadline = time.perf_counter() + _DEADLINE_S
        while time.perf_counter() < deadline:
            answer = ask()
            if not (code := error(answer)):
                return answer
            if code not in _NOT_YET:
                raise pump.LoadFailed(f"{name} was answered with {ErrorCode(code).name}")
            self.not_yet_count += 1
            self.spent_ms[name] = self.spent_ms.get(name, 0.0) + _REST_S * 1e3
            time.sleep(_REST_S)
        raise pump.LoadFailed(f"{name} had no good answer within {_DEADLINE_S:.0f} s")

    def close(self) -> None:
        self._stream.close()
        self._socket.close()


def handled_ms(address: tuple[str, int], group: str, topic: str) -> tuple[dict[str, float], int]:
    """Milliseconds by request, FindCoordinator to a Fetch that isn't empty; and how often the
    broker wasn't ready. Raises LoadFailed."""
    asker = _Asker(address)
    with contextlib.closing(asker):
        _take_part(asker, group, topic)
        _first_fetch(asker, group, topic)
        return asker.spent_ms, asker.not_yet_count


def _take_part(asker: _Asker, group: str, topic: str) -> None:
    find = fc.FindCoordinatorRequest(key_type=0, coordinator_keys=[group])
    asker.until(
        lambda: asker.ask(find, 4, fc.FindCoordinatorResponse),
        lambda answer: answer.coordinators[0].error_code,
        "FindCoordinator",
    )
    join = join_request(group, topic)

    def ask_to_join() -> jg.JoinGroupResponse:
        answer = asker.ask(join, 7, jg.JoinGroupResponse)
        if answer.error_code == ErrorCode.MEMBER_ID_REQUIRED:
            join.member_id = answer.member_id
            answer = asker.ask(join, 7, jg.JoinGroupResponse)
        return answer

    joined = asker.until(ask_to_join, lambda answer: answer.error_code, "JoinGroup")
    sync = sync_request(group, topic, joined)
    asker.until(
        lambda: asker.ask(sync, 5, sg.SyncGroupResponse),
        lambda answer: answer.error_code,
        "SyncGroup",
    )


def _first_fetch(asker: _Asker, group: str, topic: str) -> None:
    offsets = of.OffsetFetchRequest(
        group_id=group,
        topics=[of.OffsetFetchRequestTopic(name=topic, partition_indexes=[0])],
        require_stable=True,
    )
    asker.until(
        lambda: asker.ask(offsets, 7, of.OffsetFetchResponse),
        lambda answer: answer.error_code,
        "OffsetFetch",
    )
    earliest = lo.ListOffsetsPartition(partition_index=0, timestamp=-2)
    where = lo.ListOffsetsRequest(
        replica_id=-1, topics=[lo.ListOffsetsTopic(name=topic, partitions=[earliest])]
    )
    listed = asker.ask(where, 7, lo.ListOffsetsResponse).topics[0].partitions[0]
    wanted = ft.FetchPartition(
        partition=0, fetch_offset=max(0, listed.offset), partition_max_bytes=1 << 20
    )
    fetch = ft.FetchRequest(
        max_wait_ms=500,
        min_bytes=1,
        max_bytes=50 << 20,
        session_epoch=-1,
        topics=[ft.FetchTopic(topic=topic, partitions=[wanted])],
    )
    deadline = time.perf_counter() + _DEADLINE_S
    while time.perf_counter() < deadline:
        answer = asker.ask(fetch, 12, ft.FetchResponse)
        if answer.responses and answer.responses[0].partitions[0].records:
            return
    raise pump.LoadFailed("no Fetch brought a record")


@contextlib.contextmanager
def _fresh(environment: dict[str, str]) -> Iterator[tuple[str, int]]:
    """A broker of this round, every option at its default."""
    with (
        tempfile.TemporaryDirectory(prefix="ottla-first-") as directory,
        restarted.started(directory, (), environment) as process,
    ):
        yield process.address
        process.stop()


def has_groups(address: tuple[str, int]) -> bool:
    """Whether the broker has made its internal topic: then it is no fresh one."""
    request = md.MetadataRequest(topics=None)
    answer = asking.ask(address, request, 5, md.MetadataResponse)
    return any(topic.name == "__consumer_offsets" for topic in answer.topics)


Found = dict[str, dict[str, list[float]]]
"""By figure and broker: milliseconds, or a count, one of each round."""


def _both(address: tuple[str, int], who: str, *, handling: bool, found: Found) -> None:
    """A new group twice: whether the first was the broker's first is looked up."""
    with asking.new_topic(address, 1) as topic:
        asking.until_ready(address, topic, 1)
        for _ in range(2):
            when = "later" if has_groups(address) else "fresh"
            group = f"load-{os.getpid():x}-{time.monotonic_ns():x}"
            if not handling:
                took = {f"record, {when}": subscribed_ms(address, group, topic)}
            else:
                steps, not_yet_count = handled_ms(address, group, topic)
                took = {
                    f"handling, {when}": sum(steps.values()),
                    f"first use, {when}": steps["FindCoordinator"] + steps["JoinGroup"],
                    f"not yet, {when}": float(not_yet_count),
                }
                took |= {f"{name}, {when}": spent for name, spent in steps.items()}
            for key, value in took.items():
                found.setdefault(key, {}).setdefault(who, []).append(value)


def measure(rounds: int, peers: Sequence[Peer], say: Say) -> list[Figure]:
    """Interleaved with the peers. Raises LoadFailed if a broker of ours doesn't do it."""
    found: Found = {}
    with tempfile.TemporaryDirectory(prefix="ottla-compiled-") as cache:
        environment = start.compiled_into(cache)
        with _fresh(environment) as address:  # compiles what a group needs
            _both(address, OURS, handling=True, found={})
        for turn in range(rounds):
            for handling in (False, True):  # a peer is fresh but once
                say(f"groups: first record, round {turn + 1} of {rounds}")
                with _fresh(environment) as address:
                    _both(address, OURS, handling=handling, found=found)
                for peer in peers:
                    _both(peer.address, peer.name, handling=handling, found=found)
    return _figures(found)


_STEPS = ("FindCoordinator", "JoinGroup", "SyncGroup", "OffsetFetch", "ListOffsets", "Fetch")


def _figures(found: Found) -> list[Figure]:
    named: list[tuple[str, str, str, float | None]] = [
        ("record, fresh", "first record, fresh broker", "ms", BUDGET_MS),
        ("record, later", "first record, later", "ms", None),
        ("handling, fresh", "handling, fresh broker", "ms", BUDGET_HANDLING_MS),
        *((f"{step}, fresh", f"  of it {step}", "ms", None) for step in _STEPS),
        ("handling, later", "handling, later", "ms", None),
        ("first use, fresh", "first use of the internal topic", "ms", BUDGET_FIRST_USE_MS),
        ("first use, later", "  the same when it is there", "ms", None),
        ("not yet, fresh", "  times a client is sent away", "answers", 0.0),
    ]
    return [
        Figure(name, unit, spreads(found.get(key, {})), budget) for key, name, unit, budget in named
    ]
