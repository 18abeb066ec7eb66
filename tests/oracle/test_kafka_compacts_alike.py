"""The same records in ottla and in Apache Kafka, compacted by each: consumers read the same.

Keys, values without and with content, transactions committed and aborted, batches of all codecs.
A dictionary says what must be left. Then Kafka's own tool reads the segments that ottla has
written anew, and `ottla log verify` does. Skipped with a reason where Kafka is not set up.
"""

from __future__ import annotations

import json
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests import reference
from tests.processes import OTTLA, Broker, wait_until

pytestmark = pytest.mark.reference

TOPIC = "compacted"
DUMP = "org.apache.kafka.tools.DumpLogSegments"
CONFIG = {
    "cleanup.policy": "compact",
    "segment.bytes": str(1 << 20),
    "min.cleanable.dirty.ratio": "0.001",
    "min.compaction.lag.ms": "3600000",  # until all is there: nobody begins early
    "delete.retention.ms": "1000",
}
CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
WAIT_S = 180.0


class Put(NamedTuple):
    """A record as it is sent."""

    key: bytes
    value: bytes | None
    timestamp: int


class Sides:
    """Both brokers, told the same."""

    def __init__(self, addresses: dict[str, str]) -> None:
        from confluent_kafka.admin import AdminClient, NewTopic

        self.addresses = addresses
        self.admins = {
            name: AdminClient({"bootstrap.servers": where, "log_level": 0})
            for name, where in addresses.items()
        }
        for admin in self.admins.values():
            [made] = admin.create_topics([NewTopic(TOPIC, 1, 1, config=CONFIG)]).values()
            made.result()

    def set(self, name: str, value: str) -> None:
        from confluent_kafka.admin import (
            AlterConfigOpType,
            ConfigEntry,
            ConfigResource,
            ResourceType,
        )

        entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        for admin in self.admins.values():
            resource = ConfigResource(ResourceType.TOPIC, TOPIC, incremental_configs=[entry])
            [done] = admin.incremental_alter_configs([resource]).values()
            done.result()

    def producers(self, **config: Any) -> list[Any]:
        from confluent_kafka import Producer

        return [
            Producer({"bootstrap.servers": where, "linger.ms": 50, "log_level": 0, **config})
            for where in self.addresses.values()
        ]

    def await_end(self, offset: int) -> None:
        """Markers come a little after their transaction has ended."""
        from confluent_kafka import TopicPartition
        from confluent_kafka.admin import OffsetSpec

        place = TopicPartition(TOPIC, 0)
        for admin in self.admins.values():

            def is_there(admin: Any = admin) -> bool:
                [found] = admin.list_offsets({place: OffsetSpec.latest()}).values()
                return bool(found.result().offset == offset)

            wait_until(is_there, f"the marker before {offset}")

    def read(self, name: str, isolation: str) -> dict[int, Put]:
        from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

        consumer = Consumer(
            {
                "bootstrap.servers": self.addresses[name],
                "group.id": "none",
                "isolation.level": isolation,
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "log_level": 0,
            }
        )
        found: dict[int, Put] = {}
        try:
            consumer.assign([TopicPartition(TOPIC, 0, OFFSET_BEGINNING)])
            while (message := consumer.poll(WAIT_S)) is not None and message.error() is None:
                found[message.offset()] = Put(
                    message.key(), message.value(), message.timestamp()[1]
                )
        finally:
            consumer.close()
        return found


def send(producer: Any, puts: list[Put]) -> list[int]:
    """The offsets that they got."""
    offsets: list[int] = []
    for put in puts:
        producer.produce(
            TOPIC,
            key=put.key,
            value=put.value,
            timestamp=put.timestamp,
            partition=0,
            on_delivery=lambda error, message: offsets.append(message.offset()),
        )
    assert producer.flush(WAIT_S) == 0
    assert len(offsets) == len(puts)
    return sorted(offsets)


def both(producers: list[Any], puts: list[Put]) -> list[int]:
    ours, theirs = [send(producer, puts) for producer in producers]
    assert ours == theirs
    return ours


def fill(sides: Sides, rounds: str) -> dict[int, Put]:
    """More than two segments of keys that nobody else has."""
    now_ms = int(time.time() * 1000)
    producers = sides.producers()
    found: dict[int, Put] = {}
    for number in range(24):
        puts = [
            Put(b"filler-%s-%d-%d" % (rounds.encode(), number, at), bytes(10_000), now_ms)
            for at in range(11)
        ]
        found |= dict(zip(both(producers, puts), puts, strict=True))
    return found


def write(sides: Sides, seed: int) -> dict[int, Put]:
    """What is committed in the end, by offset."""
    chance = random.Random(seed)
    now_ms = int(time.time() * 1000)
    plain = {codec: sides.producers(**{"compression.type": codec}) for codec in CODECS}
    transactional = [sides.producers(**{"transactional.id": f"t{n}"}) for n in range(2)]
    for pair in transactional:
        for producer in pair:
            producer.init_transactions(WAIT_S)
    committed: dict[int, Put] = {}
    for number in range(60):
        puts = [
            Put(
                b"key-%d" % chance.randrange(40) * chance.choice((1, 4)),
                None if chance.random() < 0.2 else chance.randbytes(chance.choice((0, 9, 900))),
                now_ms + number * 10 + chance.randrange(10),
            )
            for _ in range(chance.choice((1, 2, 30, 90)))
        ]
        if chance.random() < 0.5:
            pair = plain[chance.choice(CODECS)]
            committed |= dict(zip(both(pair, puts), puts, strict=True))
            continue
        pair = chance.choice(transactional)
        for producer in pair:
            producer.begin_transaction()
        offsets = both(pair, puts)
        aborts = chance.random() < 0.5
        for producer in pair:
            if aborts:
                producer.abort_transaction(WAIT_S)
            else:
                producer.commit_transaction(WAIT_S)
        sides.await_end(offsets[-1] + 2)
        if not aborts:
            committed |= dict(zip(offsets, puts, strict=True))
    return committed


def latest(records: dict[int, Put]) -> dict[int, Put]:
    last = {put.key: offset for offset, put in sorted(records.items())}
    return {offset: records[offset] for offset in sorted(last.values())}


def await_left(sides: Sides, name: str, wanted: dict[int, Put]) -> None:
    found: dict[int, Put] = {}

    def is_there() -> bool:
        found.clear()
        found.update(sides.read(name, "read_uncommitted"))
        return found == wanted

    def differs() -> str:
        left = {offset: put for offset, put in found.items() if wanted.get(offset) != put}
        gone = {offset: put for offset, put in wanted.items() if found.get(offset) != put}
        return f"too much: {str(left)[:1000]}; too little: {str(gone)[:1000]}"

    wait_until(is_there, f"{name} to have compacted", WAIT_S, differs)
    assert sides.read(name, "read_committed") == wanted


def await_both(sides: Sides, wanted: dict[int, Put]) -> None:
    for name in sides.addresses:
        await_left(sides, name, wanted)


@pytest.fixture
def sides(tmp_path: Path) -> Iterator[Sides]:
    fast = ["log.cleaner.backoff.ms=100"]
    with (
        reference.started(tmp_path / "kafka", *fast) as kafka,
        Broker(tmp_path / "ottla", *fast) as ours,
    ):
        yield Sides({"ottla": ours.bootstrap, "kafka": kafka.bootstrap})


def test_both_leave_the_same_and_kafkas_tool_reads_ours(sides, tmp_path, seed, tally):
    committed = write(sides, int(seed))
    left = latest(committed)
    assert len(left) < len(committed) / 2
    filler = fill(sides, "first")
    sides.set("min.compaction.lag.ms", "0")
    await_both(sides, left | filler)
    tally["records compacted by ottla and Kafka alike"] += len(committed)
    # What says that a key is gone stays for delete.retention.ms, and goes with the next round.
    until = time.monotonic() + 1.5
    wait_until(lambda: time.monotonic() > until, "delete.retention.ms")
    filler |= fill(sides, "second")
    await_both(sides, {o: put for o, put in left.items() if put.value is not None} | filler)
    files = sorted((tmp_path / "ottla").glob(f"{TOPIC}-0/*.log"))
    for path in files:
        indexes = [path.with_suffix(".index"), path.with_suffix(".timeindex")]
        dumped = reference.run(
            "tool", DUMP, "--deep-iteration", "--files", ",".join(map(str, [path, *indexes[:1]]))
        )
        assert "isvalid: false" not in dumped.stdout.lower()
        assert "mismatch" not in dumped.stdout.lower(), dumped.stdout[-2000:]
    verified = verify(tmp_path / "ottla" / f"{TOPIC}-0")
    assert verified["problems"] == [], verified


def verify(path: Path) -> dict[str, Any]:
    done = subprocess.run(
        [OTTLA, "log", "verify", path, "--json"], capture_output=True, text=True, check=False
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found
