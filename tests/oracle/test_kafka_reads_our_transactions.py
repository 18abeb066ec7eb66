"""__transaction_state against Apache Kafka: its tool decodes ours, and both write the same entries.

Skipped with a reason where Apache Kafka is not set up.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ottla.coordinator.entries.transaction_log import (
    TransactionLogKey,
    TransactionLogValue,
    decode_entry,
    encode_entry,
)
from ottla.coordinator.transaction.states import TransactionState
from ottla.records.reader import pairs_of, read_batches
from tests import reference
from tests.clients.clients import create_topic
from tests.oracle.answers.peer import Peer
from tests.oracle.answers.txn_cases import Producer, begun
from tests.processes import Broker, free_port

pytestmark = pytest.mark.reference

DUMP = "org.apache.kafka.tools.DumpLogSegments"
KEY_AND_VALUE = re.compile(r"key: (\{.*?\}) payload: (\{.*\}|<DELETE>)")
ONE_PARTITION = ("transaction.state.log.num.partitions=1", "offsets.topic.num.partitions=1")
STEPS_OF_THE_STORY = 23


def story(bootstrap: str) -> list[int]:
    """Transactions of both versions, of several producers; the ids that these were given."""
    create_topic(bootstrap, "t", 2)
    peer = Peer("peer", bootstrap)
    peer.begin("story", 0)
    old = begun(peer, "-old")
    for committed in (True, False):
        old.add(3, ("t", 0), ("t", 1))
        old.add_offsets(3)
        old.end(3, committed)
        old.described()
    new = begun(peer, "-new")
    for committed in (True, False):
        new.add(5, ("t", 0))
        new.end(5, committed)
        new.described()
    new.end(5, committed=False)  # of nothing, for an epoch
    new.described()
    new.again()
    new.add(5, ("t", 1))
    zombie = Producer(peer, "-new")
    zombie.init()
    zombie.described()
    peer.close()
    return [*old.ids, *zombie.ids]


def logs(directory: Path) -> list[Path]:
    return sorted(directory.glob("__transaction_state-*/*.log"))


def written(directory: Path) -> Iterator[tuple[bytes, bytes | None]]:
    for path in logs(directory):
        for batch in read_batches(path.read_bytes()):
            for key, value in pairs_of(batch):
                assert key is not None
                yield key, value


def told(directory: Path) -> list[dict[str, Any]]:
    """What the entries say, in order, producer ids by when they were first seen."""
    found: list[dict[str, Any]] = []
    ids: list[int] = []

    def name(producer_id: int) -> int:
        if producer_id >= 0 and producer_id not in ids:
            ids.append(producer_id)
        return ids.index(producer_id) if producer_id >= 0 else producer_id

    for key, value in written(directory):
        entry = decode_entry(key, value)
        assert entry is not None
        assert isinstance(entry.key, TransactionLogKey)
        assert isinstance(entry.value, TransactionLogValue)
        what = entry.value
        found.append(
            {
                "id": entry.key.transactional_id,
                "producer": name(what.producer_id),
                "previous": name(what.previous_producer_id),
                "next": name(what.next_producer_id),
                "epoch": what.producer_epoch,
                "next epoch": what.next_producer_epoch,
                "timeout": what.transaction_timeout_ms,
                "state": TransactionState(what.transaction_status).title,
                "partitions": None
                if what.transaction_partitions is None
                else sorted(
                    (one.topic, number)
                    for one in what.transaction_partitions
                    for number in one.partition_ids
                ),
                "begun": what.transaction_start_timestamp_ms > 0,
                "version": what.client_transaction_version,
            }
        )
    return found


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of an ottla that was told the story."""
    directory = tmp_path_factory.mktemp("ottla") / "data"
    with Broker(directory, *ONE_PARTITION) as broker:
        story(broker.bootstrap)
    return directory


@pytest.fixture(scope="module")
def kafkas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The directory of an Apache Kafka that was told the story."""
    folder = tmp_path_factory.mktemp("kafka")
    started = reference.run("start", str(free_port()), folder, *ONE_PARTITION)
    pid, bootstrap, _ = started.stdout.split()[-3:]
    try:
        story(bootstrap)
    finally:
        os.kill(int(pid), signal.SIGKILL)
    yield folder / "data"
    shutil.rmtree(folder, ignore_errors=True)


def test_kafkas_tool_decodes_what_we_write(ours: Path) -> None:
    names = ",".join(map(str, logs(ours)))
    done = reference.run("tool", DUMP, "--transaction-log-decoder", "--files", names)
    text = done.stdout + done.stderr
    assert "Exception" not in text
    shown = [(json.loads(key), json.loads(value)) for key, value in KEY_AND_VALUE.findall(text)]
    assert len(shown) == STEPS_OF_THE_STORY
    assert {key["type"] for key, _ in shown} == {"0"}
    assert {value["version"] for _, value in shown} == {"1"}
    ours_told = told(ours)
    assert [
        (
            key["data"]["transactionalId"],
            value["data"]["producerEpoch"],
            value["data"]["transactionStatus"],
            value["data"].get("clientTransactionVersion", 0),
        )
        for key, value in shown
    ] == [
        (
            one["id"],
            one["epoch"],
            next(state.value for state in TransactionState if state.title == one["state"]),
            one["version"],
        )
        for one in ours_told
    ]


def test_kafka_writes_the_same_entries_for_the_same_transactions(ours: Path, kafkas: Path) -> None:
    assert told(ours) == told(kafkas)


def test_what_kafka_writes_comes_back_to_the_same_bytes(kafkas: Path) -> None:
    found = list(written(kafkas))
    assert len(found) == STEPS_OF_THE_STORY
    for key, value in found:
        entry = decode_entry(key, value)
        assert entry is not None
        assert encode_entry(entry) == (key, value)
