"""__consumer_offsets against Apache Kafka: its tool decodes ours, and we decode its own.

Skipped with a reason where Apache Kafka is not set up.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ottla.coordinator.decision import Entry
from ottla.coordinator.entries.offsets_topic import (
    OffsetCommitKey,
    OffsetCommitValue,
    decode_entry,
    encode_entry,
)
from ottla.records.reader import pairs_of, read_batches
from tests import reference
from tests.clients.clients import create_topic
from tests.processes import Broker

pytestmark = pytest.mark.reference

DUMP = "org.apache.kafka.tools.DumpLogSegments"
KEY_AND_VALUE = re.compile(r"key: (\{.*?\}) payload: (\{.*\}|<DELETE>)")


def commit(bootstrap: str, group: str, offsets: dict[int, int]) -> None:
    from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition

    consumer = KafkaConsumer(bootstrap_servers=bootstrap, group_id=group, enable_auto_commit=False)
    try:
        consumer.assign([TopicPartition("t", number) for number in offsets])
        consumer.commit(
            {
                TopicPartition("t", number): OffsetAndMetadata(offset, f"m{offset}", 3)
                for number, offset in offsets.items()
            }
        )
    finally:
        consumer.close(autocommit=False)


def logs(directory: Path) -> list[Path]:
    return sorted(directory.glob("__consumer_offsets-*/*.log"))


def entries(directory: Path) -> list[tuple[tuple[bytes, bytes | None], Entry]]:
    """Each record of the topic: its bytes, and what they say."""
    found = []
    for path in logs(directory):
        for batch in read_batches(path.read_bytes()):
            for key, value in pairs_of(batch):
                assert key is not None
                entry = decode_entry(key, value)
                assert entry is not None, key
                found.append(((key, value), entry))
    return found


def test_kafkas_tool_decodes_what_we_commit(tmp_path: Path) -> None:
    from confluent_kafka.admin import AdminClient

    with Broker(tmp_path / "data", "offsets.topic.num.partitions=1") as broker:
        create_topic(broker.bootstrap, "t", 2)
        commit(broker.bootstrap, "g", {0: 7, 1: 8})
        commit(broker.bootstrap, "ä", {0: 9})
        create_topic(broker.bootstrap, "u", 1)
        admin = AdminClient({"bootstrap.servers": broker.bootstrap})
        admin.delete_topics(["t"])["t"].result()
        commit_of_another_topic(broker.bootstrap)
    names = ",".join(map(str, logs(tmp_path / "data")))
    done = reference.run("tool", DUMP, "--offsets-decoder", "--files", names)
    text = done.stdout + done.stderr
    assert "Exception" not in text
    told = [(json.loads(key), value) for key, value in KEY_AND_VALUE.findall(text)]
    assert [key["type"] for key, _ in told] == ["1"] * len(told)
    committed = [
        (key["data"]["group"], key["data"]["topic"], key["data"]["partition"], json.loads(value))
        for key, value in told
        if value != "<DELETE>"
    ]
    assert [one[:3] for one in committed] == [
        ("g", "t", 0),
        ("g", "t", 1),
        ("ä", "t", 0),
        ("g", "u", 0),
    ]
    first = committed[0][3]
    assert first["version"] == "4"
    assert (first["data"]["offset"], first["data"]["metadata"]) == (7, "m7")
    assert first["data"]["leaderEpoch"] == 3
    assert len(first["data"]["topicId"]) == 22
    deleted = {
        (key["data"]["group"], key["data"]["partition"])
        for key, value in told
        if value == "<DELETE>"
    }
    assert deleted == {("g", 0), ("g", 1), ("ä", 0)}


def commit_of_another_topic(bootstrap: str) -> None:
    from confluent_kafka import Consumer, TopicPartition

    settings = {"bootstrap.servers": bootstrap, "group.id": "g", "enable.auto.commit": False}
    consumer = Consumer(settings)
    [done] = consumer.commit(offsets=[TopicPartition("u", 0, 1)], asynchronous=False)
    assert done.error is None
    consumer.close()


@pytest.fixture
def kafka(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Apache Kafka on a directory of its own."""
    folder = tmp_path / "kafka"
    with reference.started(folder, "offsets.topic.num.partitions=1") as running:
        yield running.bootstrap, folder / "data"
    shutil.rmtree(folder, ignore_errors=True)


def test_what_kafka_commits_comes_back_to_the_same_bytes(kafka: tuple[str, Path]) -> None:
    bootstrap, data = kafka
    create_topic(bootstrap, "t", 2)
    commit(bootstrap, "g", {0: 7, 1: 8})
    found = entries(data)
    assert {
        (entry.key.partition, entry.value.offset, entry.value.metadata, entry.value.leader_epoch)
        for _, entry in found
        if isinstance(entry.key, OffsetCommitKey) and isinstance(entry.value, OffsetCommitValue)
    } == {(0, 7, "m7", 3), (1, 8, "m8", 3)}
    for written, entry in found:
        assert encode_entry(entry) == written
