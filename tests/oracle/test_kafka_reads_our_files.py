"""Files against Apache Kafka's own tools: it reads ours without a complaint, we read its.

Three copies of one directory that ottla wrote: taken while it runs, after kill -9, after a clean
stop. Skipped with a reason where Apache Kafka is not set up.
"""

import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import reference
from tests.clients import flights
from tests.clients.clients import CLIENTS, CODECS, create_topic
from tests.clients.flights import Record
from tests.processes import OTTLA, Broker

pytestmark = pytest.mark.reference

DUMP = "org.apache.kafka.tools.DumpLogSegments"
COPIES = ("live", "killed", "stopped")
BEING_WRITTEN = shutil.ignore_patterns("*.tmp")
"""What a running broker puts in place of another file meanwhile, so that it can't be copied."""
FILES_A_CALL_MAX = 200

# What DumpLogSegments prints when something is wrong; its exit code stays 0.
COMPLAINTS = (
    "Found mismatch",
    "Mismatches in",
    "Found timestamp mismatch",
    "Found out of order timestamp",
    "isvalid: false",
    "is corrupt",
    "Exception",
    "invalid bytes",
)
RECORD = re.compile(
    r"^\| offset: (\d+) (CreateTime|LogAppendTime): (\d+) .*?headerKeys: \[(.*?)\]"
    r" key: (.*?) payload: (.*)$"
)
# Its own files too begin with "-1 is followed by", where they don't begin at offset 0.
GAP = re.compile(r"^\s+(?!-1 )-?\d+ is followed by \d+$")
SUMMARY = re.compile(r"^(\S+)-(\d+): ([\d,]+) batch\w*, ([\d,]+) records?, .*: ok$", re.MULTILINE)

Found = dict[tuple[str, int], list[tuple[int, bytes, bytes]]]


def segments(directory: Path, suffix: str) -> list[Path]:
    return sorted(directory.glob(f"*-*/*{suffix}"))


def dump(files: list[Path], *options: str) -> str:
    """What DumpLogSegments prints about files; fails the test where it complains."""
    output = []
    for at in range(0, len(files), FILES_A_CALL_MAX):
        names = ",".join(map(str, files[at : at + FILES_A_CALL_MAX]))
        done = reference.run("tool", DUMP, *options, "--files", names, timeout=300)
        output.append(done.stdout + done.stderr)
    text = "".join(output)
    wrong = [
        line
        for line in text.splitlines()
        if any(complaint in line for complaint in COMPLAINTS) or GAP.match(line)
    ]
    assert wrong == []
    return text


def dumped_records(directory: Path) -> Found:
    """(topic, partition) -> (timestamp, key, value) in order, as Kafka's tool reads the logs."""
    found: Found = defaultdict(list)
    text = dump(segments(directory, ".log"), "--deep-iteration", "--print-data-log")
    where = ("", 0)
    for line in text.splitlines():
        if line.startswith("Dumping "):
            topic, _, partition = Path(line.removeprefix("Dumping ")).parent.name.rpartition("-")
            where = (topic, int(partition))
        elif record := RECORD.match(line):
            records = found[where]
            assert int(record[1]) == len(records), f"{where}: {line[:80]}"
            records.append((int(record[3]), record[5].encode(), record[6].encode()))
    return found


def write_small_batches(bootstrap: str, topic: str, partitions: flights.Partitions) -> None:
    """Some records a batch, idempotent: many index entries, and sequence numbers in each batch."""
    from confluent_kafka import Producer

    settings = {"enable.idempotence": True, "batch.num.messages": 7, "linger.ms": 5}
    producer = Producer({"bootstrap.servers": bootstrap, **settings})
    for partition, records in enumerate(partitions):
        for record in records:
            producer.produce(
                topic,
                value=record.value,
                key=record.key,
                partition=partition,
                timestamp=record.timestamp,
            )
    assert producer.flush(120) == 0


def write_everything(bootstrap: str) -> None:
    """Every codec from an idempotent producer in small segments, and a topic with append time."""
    partitions = flights.by_partition(count=20_000)
    for codec in CODECS:
        create_topic(bootstrap, f"dump-{codec}", len(partitions), segment_bytes=str(1 << 20))
        writer = "kafka-python" if codec in ("gzip", "lz4") else "confluent-kafka"
        CLIENTS[writer].write(bootstrap, f"dump-{codec}", codec, partitions)
    create_topic(bootstrap, "dump-small", len(partitions), segment_bytes=str(1 << 20))
    write_small_batches(bootstrap, "dump-small", partitions)
    stamped = {"message_timestamp_type": "LogAppendTime"}
    create_topic(bootstrap, "dump-stamped", len(partitions), **stamped)
    CLIENTS["aiokafka"].write(bootstrap, "dump-stamped", "zstd", flights.by_partition(count=2_000))


def read_everything(bootstrap: str) -> Found:
    """The same through a client."""
    found: Found = {}
    whole = [f"dump-{name}" for name in (*CODECS, "small")]
    for topic, count in {**dict.fromkeys(whole, 20_000), "dump-stamped": 2_000}.items():
        counts = [len(records) for records in flights.by_partition(count=count)]
        partitions: list[list[Record]] = CLIENTS["confluent-kafka"].read(bootstrap, topic, counts)
        for partition, records in enumerate(partitions):
            found[topic, partition] = [(r.timestamp, r.key, r.value) for r in records]
    return found


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Found]:
    """The folder that holds the three copies, and what a client reads from them."""
    folder = tmp_path_factory.mktemp("written")
    with Broker(folder / "data") as broker:
        write_everything(broker.bootstrap)
        found = read_everything(broker.bootstrap)
        shutil.copytree(broker.directory, folder / "live", ignore=BEING_WRITTEN)
        broker.kill()
        shutil.copytree(broker.directory, folder / "killed")
        broker.restart()
        assert read_everything(broker.bootstrap) == found
        assert broker.terminate() == 0
        shutil.copytree(broker.directory, folder / "stopped")
    return folder, found


@pytest.mark.parametrize("copy", COPIES)
def test_kafka_reads_the_records_that_clients_read(written, copy):
    folder, found = written
    dumped = dumped_records(folder / copy)
    assert dumped.keys() == found.keys()
    differing = [where for where in found if dumped[where] != found[where]]
    assert differing == []


@pytest.mark.parametrize("copy", COPIES)
@pytest.mark.parametrize("suffix", [".index", ".timeindex"])
def test_kafka_accepts_our_indexes(written, copy, suffix):
    folder, _ = written
    files = segments(folder / copy, suffix)
    assert len(files) > 3 * len(CODECS), "segments were not rolled"
    dump(files)
    checked = dump(files, "--index-sanity-check")
    assert checked.count("passed sanity check.") + checked.count("is empty.") == len(files)


@pytest.mark.parametrize("copy", COPIES)
def test_kafka_reads_our_producer_snapshots(written, copy):
    folder, _ = written
    files = segments(folder / copy, ".snapshot")
    assert files, "there is a snapshot for each rolled segment"
    text = dump(files)
    assert text.count("Dumping ") == len(files)
    assert "producerId: " in text


def test_a_clean_stop_leaves_a_snapshot_at_the_end_of_each_log(written):
    folder, found = written
    for (topic, partition), records in found.items():
        if topic in ("dump-gzip", "dump-lz4", "dump-small"):  # from idempotent producers
            at_end = folder / "stopped" / f"{topic}-{partition}" / f"{len(records):020}.snapshot"
            assert at_end.exists()


def verified(directory: Path) -> dict[tuple[str, int], int]:
    """(topic, partition) -> records, as `ottla log verify` counts them; fails on any problem."""
    command = [str(OTTLA), "log", "verify", str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout[-3000:]
    return {
        (topic, int(partition)): int(records.replace(",", ""))
        for topic, partition, _, records in SUMMARY.findall(done.stdout)
    }


@pytest.mark.parametrize("copy", COPIES)
def test_log_verify_agrees_with_clients_about_our_files(written, copy):
    folder, found = written
    counts = verified(folder / copy)
    assert counts == {where: len(records) for where, records in found.items()}


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Found]]:
    """A directory that Apache Kafka wrote and was killed over, and what a client read from it."""
    folder = tmp_path_factory.mktemp("kafka")
    with reference.started(folder) as running:
        write_everything(running.bootstrap)
        found = read_everything(running.bootstrap)
    yield folder / "data", found
    shutil.rmtree(folder)  # Kafka's indexes take 20 MiB each


def test_log_verify_reads_what_kafka_wrote(kafka):
    directory, found = kafka
    counts = verified(directory)
    ours = {where: count for where, count in counts.items() if where[0].startswith("dump-")}
    assert ours == {where: len(records) for where, records in found.items()}
