"""A broker of which one partition's file can't be read: it starts, says why, and serves the rest."""

from __future__ import annotations

from pathlib import Path

import pytest
from confluent_kafka import Producer

from ottla.core import options
from ottla.core.ports import DiskError
from ottla.node import Node
from ottla.server.poller import new_loop
from tests.clients.clients import create_topic
from tests.processes import Broker

STEM = "0" * 20


def sent(broker: Broker, partition: int) -> int | None:
    """The offset of one more record; None where it is not taken."""
    told: list[int] = []
    producer = Producer(
        {
            "bootstrap.servers": broker.bootstrap,
            "message.timeout.ms": 2000,
            "retries": 0,
            "log_level": 0,
        }
    )
    producer.produce(
        "t",
        b"value",
        partition=partition,
        on_delivery=lambda error, message: None if error else told.append(message.offset()),
    )
    producer.flush(30)
    return told[0] if told else None


def test_one_partition_that_can_not_be_read_stays_away_alone(tmp_path: Path) -> None:
    with Broker(tmp_path / "data") as broker:
        create_topic(broker.bootstrap, "t", 2)
        assert [sent(broker, number) for number in (0, 1)] == [0, 0]
        broker.terminate()
        log = broker.directory / "t-0" / f"{STEM}.log"
        kept = log.rename(tmp_path / "kept")
        log.mkdir()
        (broker.directory / "notes-1").write_text("somebody's")
        broker.restart()
        assert [sent(broker, number) for number in (0, 1)] == [None, 1]
        broker.terminate()
        said = broker.said()
        assert "ERROR    t-0: A file that can't be made anew can't be read" in said
        assert f"{log}: Is a directory" in said
        assert "stopped, but not marked as clean because of 1 partition" in said
        log.rmdir()
        kept.rename(log)
        broker.restart()
        assert [sent(broker, number) for number in (0, 1)] == [1, 2]


def test_a_stop_after_the_directory_went_offline_is_not_called_clean(tmp_path: Path) -> None:
    loop = new_loop()
    node = Node(
        options.broker_config(
            {"log.dir": str(tmp_path / "d"), "listeners": "PLAINTEXT://127.0.0.1:0"}
        ),
        loop,
    )
    node.start()
    node.table.take_offline(DiskError("sync", "a file", OSError(5, "Input/output error")))
    with pytest.raises(DiskError, match="sync a file"):
        node.close(clean=True)
    loop.close()
