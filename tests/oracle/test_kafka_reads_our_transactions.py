"""Files of partitions in transactions against Apache Kafka's own tools.

The same transactions are run on both brokers; what DumpLogSegments tells of ours, while the broker
runs, after kill -9 and after a clean stop, is what it tells of Kafka's own. Skipped with a reason
where Apache Kafka is not set up.
"""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from tests import reference
from tests.clients.clients import create_topic
from tests.oracle.test_kafka_reads_our_files import BEING_WRITTEN, COPIES, dump, segments
from tests.processes import OTTLA, Broker, wait_until

pytestmark = pytest.mark.reference

TOPIC = "dump-transactions"
PRODUCERS = 3
SEED = 7
SEGMENT_BYTES = 1 << 20
VALUE = b"v" * 40_000

ENTRY = re.compile(
    r"producerId: (\d+) firstOffset: (\d+) lastOffset: (\d+) lastStableOffset: (\d+)"
)
MARKER = re.compile(r"offset: (\d+) .*endTxnMarker: (\w+) coordinatorEpoch: (\d+)")
BATCH = re.compile(
    r"^baseOffset: (\d+) lastOffset: (\d+) .*isTransactional: (\w+) isControl: (\w+)", re.MULTILINE
)


class Aborted(NamedTuple):
    """An entry; the producer as the one whose id was the lowest, the second lowest …"""

    producer: int
    first_offset: int
    last_offset: int
    last_stable: int


class Told(NamedTuple):
    """What the tool says of a directory's partition."""

    aborted: list[Aborted]
    markers: list[tuple[int, str]]
    batches: list[tuple[str, ...]]


def run_transactions(bootstrap: str) -> None:
    """Begun, committed and aborted in an order that is the same each time, over segments."""
    create_topic(bootstrap, TOPIC, 1, segment_bytes=str(SEGMENT_BYTES))
    settings = {"bootstrap.servers": bootstrap, "linger.ms": 0, "transaction.timeout.ms": 600_000}
    producers = []
    for number in range(PRODUCERS):
        producer = Producer(settings | {"transactional.id": f"dump-{number}"})
        producer.init_transactions(120)
        producers.append(producer)
    asking = {"group.id": "none", "isolation.level": "read_uncommitted"}
    consumer = Consumer({"bootstrap.servers": bootstrap} | asking)
    place = TopicPartition(TOPIC, 0)
    chance = random.Random(SEED)
    open_ones: set[int] = set()

    def end() -> int:
        return int(consumer.get_watermark_offsets(place, timeout=30)[1])

    for _ in range(120):
        number = chance.randrange(PRODUCERS)
        producer = producers[number]
        if number in open_ones and chance.random() < 0.3:
            before = end()
            open_ones.discard(number)
            if chance.random() < 0.6:
                producer.abort_transaction(120)
            else:
                producer.commit_transaction(120)
            wait_until(lambda before=before: end() == before + 1, "the marker")
            continue
        if number not in open_ones:
            producer.begin_transaction()
            open_ones.add(number)
        producer.produce(TOPIC, VALUE, partition=0)
        assert producer.flush(120) == 0
    assert open_ones, "something stays open"
    consumer.close()


def told_of(directory: Path) -> Told:
    """What DumpLogSegments says of a copied directory; it complains of nothing."""
    logs = [one for one in segments(directory, ".log") if one.parent.name == f"{TOPIC}-0"]
    found = [one for one in segments(directory, ".txnindex") if one.parent.name == f"{TOPIC}-0"]
    assert len(logs) > 2, "segments were not rolled"
    entries = [tuple(map(int, one)) for one in ENTRY.findall(dump(found))]
    text = dump(logs, "--deep-iteration", "--print-data-log")
    ids = sorted({entry[0] for entry in entries})
    return Told(
        [Aborted(ids.index(entry[0]), *entry[1:]) for entry in entries],
        [(int(offset), kind) for offset, kind, _ in MARKER.findall(text)],
        BATCH.findall(text),
    )


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds the three copies."""
    folder = tmp_path_factory.mktemp("transactions")
    with Broker(folder / "data") as broker:
        run_transactions(broker.bootstrap)
        shutil.copytree(broker.directory, folder / "live", ignore=BEING_WRITTEN)
        broker.kill()
        shutil.copytree(broker.directory, folder / "killed")
        broker.restart()
        assert broker.terminate() == 0
        shutil.copytree(broker.directory, folder / "stopped")
    return folder


@pytest.fixture(scope="module")
def kafkas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    """What the tool says of Kafka's own directory."""
    folder = tmp_path_factory.mktemp("kafka")
    with reference.started(folder) as kafka:
        run_transactions(kafka.bootstrap)
        yield told_of(folder / "data")
    shutil.rmtree(folder, ignore_errors=True)  # Kafka's indexes take 20 MiB each


@pytest.mark.parametrize("copy", COPIES)
def test_kafka_reads_our_transactions_as_it_reads_its_own(
    ours: Path, kafkas: Told, copy: str
) -> None:
    told = told_of(ours / copy)
    assert len(kafkas.aborted) > 5
    assert told == kafkas


@pytest.mark.parametrize("copy", COPIES)
def test_log_verify_finds_nothing_wrong_with_them(ours: Path, copy: str) -> None:
    command = [str(OTTLA), "log", "verify", str(ours / copy)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout[-3000:]
