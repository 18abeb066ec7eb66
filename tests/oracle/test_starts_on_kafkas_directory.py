"""A copy of Apache Kafka's own data directory, served by ottla: all of it is there and goes on.

After a clean stop of Kafka and after kill -9. Skipped with a reason where Kafka is not set up.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests import reference
from tests.clients.transactors import Confluent
from tests.oracle import kafka_directory
from tests.oracle.kafka_directory import GROUPS, Ledger
from tests.processes import OTTLA, Broker, free_port, wait_until

pytestmark = pytest.mark.reference

COUNT = 90
RECORDED = Path(__file__).with_name("kafka_directory.tar.xz")
SETTINGS = (
    "log.cleaner.backoff.ms=200",
    "log.initial.task.delay.ms=100",
    "log.cleaner.min.cleanable.ratio=0.01",
    "offsets.topic.num.partitions=3",
    "transaction.state.log.num.partitions=3",
    "log.index.size.max.bytes=65536",
)


class Kafka:
    """Apache Kafka on a directory of its own, started and ended as often as wanted."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.folder = folder
        self.data = folder / "data"
        self._running: reference.Kafka | None = None

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        self._running = reference.start(self.port, self.folder, *SETTINGS)
        # It listens before that; told to stop so early it would not do it cleanly.
        log = self.folder / "broker.log"
        wait_until(lambda: "Kafka Server started" in log.read_text(), "Apache Kafka's start", 180)

    def end(self, how: signal.Signals) -> None:
        assert self._running is not None, "it does not run"
        os.kill(self._running.pid, how)
        wait_until(self._is_gone, "Apache Kafka's end", 180)
        reference.ended(self._running)
        self._running = None

    def close(self) -> None:
        """Kill it, if it runs."""
        if self._running is not None:
            self.end(signal.SIGKILL)

    def _is_gone(self) -> bool:
        """It is not our child; a zombie would be somebody else's to reap."""
        assert self._running is not None, "it does not run"
        with contextlib.suppress(FileNotFoundError):
            return ") Z " in Path(f"/proc/{self._running.pid}/stat").read_text()
        return True


class Left(NamedTuple):
    """What Kafka has left: its directory after kill -9, and after a clean stop."""

    killed: Path
    clean: Path
    ledger: Ledger
    port: int
    transactor: Confluent
    """A client that has not noticed yet, with an open transaction."""


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Left]:
    if reason := reference.missing():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("kafka")
    kafka = Kafka(folder)
    kafka.start()
    try:
        ledger, transactor = kafka_directory.fill(kafka.bootstrap, COUNT)
        kafka_directory.await_compaction(kafka.bootstrap, kafka.data)
        kafka_directory.look(kafka.bootstrap, ledger)
        assert_refuses_what_kafka_has_open(kafka)
        kafka.end(signal.SIGKILL)
        copy(kafka.data, folder / "killed")
        kafka.start()
        kafka.end(signal.SIGTERM)
        copy(kafka.data, folder / "clean")
    finally:
        kafka.close()
    if "OTTLA_RECORD" in os.environ:
        record(folder, ledger)
    assert (folder / "clean" / ".kafka_cleanshutdown").exists()
    assert not (folder / "killed" / ".kafka_cleanshutdown").exists()
    yield Left(folder / "killed", folder / "clean", ledger, kafka.port, transactor)
    transactor.close()
    shutil.rmtree(folder, ignore_errors=True)


def record(folder: Path, ledger: Ledger) -> None:
    """What test_starts_on_recorded_directory.py goes by, where there is no Kafka."""
    ledger.save(folder / "ledger.json")
    with tarfile.open(RECORDED, "w:xz") as archive:
        for name in ("killed", "clean", "ledger.json"):
            archive.add(folder / name, name)


def copy(source: Path, target: Path) -> None:
    """Kafka reserves space for the indexes of each partition: holes must stay holes."""
    subprocess.run(["cp", "-a", "--sparse=always", source, target], check=True)


def _lasting_names(kafka: Kafka) -> list[str]:
    """Without the checkpoints that Kafka is just writing anew."""
    return sorted(one.name for one in kafka.data.iterdir() if one.suffix != ".tmp")


def assert_refuses_what_kafka_has_open(kafka: Kafka) -> None:
    before = _lasting_names(kafka)
    done = subprocess.run(
        [OTTLA, "serve", "--data-dir", kafka.data, "--listen", "127.0.0.1:0"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "in use by another process" in done.stderr
    assert _lasting_names(kafka) == before


def logs(directory: Path) -> list[Path]:
    return sorted(directory.glob("*-*/*.log"))


def assert_is_all_there(bootstrap: str, ledger: Ledger) -> None:
    found = Ledger(partitions=ledger.partitions)
    kafka_directory.look(bootstrap, found)
    assert found.cluster_id == ledger.cluster_id
    assert found.committed == ledger.committed
    for name, records in ledger.records.items():
        assert found.records[name] == records, name


def assert_goes_on(bootstrap: str, ledger: Ledger) -> None:
    """Groups read on from what they have committed, producers get the offsets that follow."""
    for group, protocol in GROUPS.items():
        first = kafka_directory.consume(bootstrap, group, protocol, COUNT)
        for place, offset in ledger.committed[group].items():
            topic, _, number = place.rpartition("-")
            assert first.get((topic, int(number)), offset) == offset, (group, place)
    offsets = kafka_directory.produce(bootstrap, "codecs", 0, 50, {})
    assert offsets == list(range(COUNT, COUNT + 50))


def assert_both_can_read(directory: Path) -> None:
    command = [str(OTTLA), "log", "verify", str(directory)]
    verified = subprocess.run(command, capture_output=True, text=True, check=False)
    assert verified.returncode == 0, verified.stdout
    done = reference.run("dump", *logs(directory))
    text = done.stdout + done.stderr
    assert "Exception" not in text
    assert "Found invalid" not in text
    assert text.count("Dumping ") == len(logs(directory))


def values(bootstrap: str) -> list[str]:
    return [one[3] for one in kafka_directory.read(bootstrap, "transactions", 0)]


def await_values(bootstrap: str, expected: list[str]) -> None:
    """A commit is answered before its markers are there."""
    found: list[list[str]] = [[]]

    def is_there() -> bool:
        found[:] = [values(bootstrap)]
        return found[0] == expected

    wait_until(is_there, f"{expected}", or_say=lambda: f"found {found[0]}")


@pytest.mark.parametrize("how", ["killed", "clean"])
def test_everything_in_a_copy_of_kafkas_directory_is_there_and_goes_on(
    left: Left, how: str, tmp_path: Path
) -> None:
    copy(left.killed if how == "killed" else left.clean, tmp_path / "data")
    with Broker(tmp_path / "data", "group.initial.rebalance.delay.ms=0") as broker:
        assert_is_all_there(broker.bootstrap, left.ledger)
        assert_goes_on(broker.bootstrap, left.ledger)
        following = Confluent(broker.bootstrap, left.ledger.hanging)  # aborts what is open
        following.begin()
        following.send("transactions", 0, b"of another")
        following.commit()
        following.close()
        await_values(broker.bootstrap, ["transaction 0", "transaction 2", "of another"])
        broker.kill()
        broker.restart()
        assert values(broker.bootstrap)[-1] == "of another"
        assert "WARNING  took over 5 topics with 14 partitions" in broker.said()
    assert_both_can_read(tmp_path / "data")


def test_a_client_with_an_open_transaction_does_not_notice_who_answers_now(
    left: Left, tmp_path: Path
) -> None:
    copy(left.killed, tmp_path / "data")
    broker = Broker(tmp_path / "data")
    broker.port = left.port
    with broker:
        left.transactor.send("transactions", 0, b"still of the same")
        left.transactor.commit()
        expected = ["transaction 0", "transaction 2", "never ended", "still of the same"]
        await_values(broker.bootstrap, expected)
