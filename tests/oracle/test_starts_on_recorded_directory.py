"""What Apache Kafka 4.3.1 once left, recorded: ottla starts on it where there is no Kafka, too.

The archive is written by test_starts_on_kafkas_directory.py with OTTLA_RECORD=1. By now the open
transaction in it is over its time, so it is aborted at the start.
"""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.oracle.kafka_directory import Ledger
from tests.oracle.test_starts_on_kafkas_directory import (
    RECORDED,
    assert_goes_on,
    assert_is_all_there,
)
from tests.processes import OTTLA, Broker


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded")
    with tarfile.open(RECORDED) as archive:
        archive.extractall(folder, filter="data")
    return folder


def said(*words: str) -> list[str]:
    done = subprocess.run([str(OTTLA), *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("how", ["killed", "clean"])
def test_a_recorded_directory_of_kafkas_is_looked_at_without_a_change(
    recorded: Path, how: str
) -> None:
    before = {path: path.stat().st_mtime_ns for path in recorded.rglob("*")}
    lines = said("log", "verify", str(recorded / how))
    assert "__cluster_metadata-0: passed over, it's Apache Kafka's own metadata" in lines
    assert lines[-1].startswith("14 partitions, ")
    text = "\n".join(said("log", "dump", str(recorded / how)))
    assert "OffsetCommitKey(group='classic', topic='codecs', partition=" in text
    assert "TransactionLogKey(transactional_id='a transaction')" in text
    assert "crc ok" in text
    assert "CRC WRONG" not in text
    assert {path: path.stat().st_mtime_ns for path in recorded.rglob("*")} == before


@pytest.mark.parametrize("how", ["killed", "clean"])
def test_everything_in_a_recorded_directory_of_kafkas_is_there_and_goes_on(
    recorded: Path, how: str
) -> None:
    ledger = Ledger.load(recorded / "ledger.json")
    with Broker(recorded / how, "group.initial.rebalance.delay.ms=0") as broker:
        assert_is_all_there(broker.bootstrap, ledger)
        broker.kill()
        broker.restart()
        assert_is_all_there(broker.bootstrap, ledger)
        assert_goes_on(broker.bootstrap, ledger)
