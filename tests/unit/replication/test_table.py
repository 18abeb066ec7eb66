"""The table of partitions: topics that come, change, go and come again, and logs nobody owns."""

from __future__ import annotations

import logging
from errno import EDQUOT, EIO, EMFILE, ENFILE, ENOSPC

import pytest

from ottla.cluster.changes import (
    PartitionChanged,
    PartitionsAdded,
    TopicConfigChanged,
    TopicDeleted,
)
from ottla.cluster.image import PartitionImage, TopicImage
from ottla.core.model import LeaderEpoch, TopicPartition
from ottla.core.ports import DiskError, MakeDirectory, RenamePath
from ottla.protocol.errors import ErrorCode
from ottla.storage.log import Log
from ottla.testing.simfile import Fault
from ottla.testing.simnode import SimNode
from tests.asking import batch, batches, get, put


@pytest.fixture
def node() -> SimNode:
    return SimNode()


def names(node: SimNode) -> list[str]:
    """What lies in the data directory, files and logs set aside included."""
    node.disk.on_loop = False
    found = node.disk.names("/data")
    node.disk.on_loop = True
    return [name for name in found if name.startswith("t-")]


def test_a_partition_is_found_by_name_and_by_id(node: SimNode) -> None:
    topic_id = node.create_topic("t", 2)
    table = node.table
    assert table.get("t", 1) is table.get_by_id(topic_id, 1)
    assert len(table) == len(list(table)) == 2
    assert table.get("t", 2) is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert table.get("t", -1) is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert table.get("gone", 0) is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert table.get_by_id(topic_id, 2) is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert table.get_by_id(bytes(16), 0) is ErrorCode.UNKNOWN_TOPIC_ID


def test_a_new_topic_takes_batches_and_has_files_only_then(node: SimNode) -> None:
    node.create_topic("t", 2)
    assert names(node) == []
    put(node, batch(b"x"))
    assert names(node) == ["t-0"]


def test_partitions_that_are_added_are_served_beside_the_old_ones(node: SimNode) -> None:
    node.create_topic("t")
    put(node, batch(b"x"))
    before = node.partition("t")
    old = node.image.topics["t"]
    more = TopicImage("t", old.id, old.partitions * 3)
    node.table.apply(PartitionsAdded(more, 1))
    assert node.partition("t") is before
    assert put(node, batch(b"x"), partition=2).error_code == 0


def test_a_deleted_topic_is_gone_at_once_and_its_files_soon(node: SimNode) -> None:
    topic_id = node.create_topic("t", 2)
    put(node, batch(b"x"))
    node.delete_topic("t")
    assert node.table.get("t", 0) is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert node.table.get_by_id(topic_id, 0) is ErrorCode.UNKNOWN_TOPIC_ID
    node.settle()
    assert [name.partition(".")[0] for name in names(node)] == ["t-0"], "renamed; t-1 had no files"
    node.advance(59)
    assert names(node), "file.delete.delay.ms is a minute"
    node.advance(1)  # the segment's files
    node.advance(1)  # and then the rest
    assert names(node) == []


def test_a_topic_made_again_while_the_old_one_goes_begins_empty(node: SimNode) -> None:
    for life in range(3):
        topic_id = node.create_topic("t")
        first = put(node, batch(b"life %d" % life))
        assert first.base_offset == 0
        (one,) = batches(get(node))
        assert b"life %d" % life in bytes(one.view)
        assert node.table.get_by_id(topic_id, 0) is node.partition("t")
        node.delete_topic("t")
        assert node.disk.busy, "its files are still there"


def test_a_namesake_waits_for_the_old_files_and_takes_none_of_them(node: SimNode) -> None:
    node.create_topic("t")
    for _ in range(3):
        put(node, batch(b"old"))
    topic = node.image.topics["t"]
    node.table.apply(TopicDeleted(topic))
    again = TopicImage("t", type(topic.id)(b"\7" * 16), topic.partitions)
    node.table._add(again, 0)
    assert put(node, batch(b"new")).base_offset == 0
    assert [b"new" in bytes(one.view) for one in batches(get(node))] == [True]
    assert node.partition("t").log.topic_id == b"\7" * 16


def test_files_that_can_not_be_removed_are_told_and_a_namesake_can_not_write(
    node: SimNode, caplog: pytest.LogCaptureFixture
) -> None:
    node.create_topic("t")
    put(node, batch(b"old"))
    topic = node.image.topics["t"]
    node.disk.faults = [Fault("rename", EIO, path="t-0")]
    node.table.apply(TopicDeleted(topic))
    node.table._add(TopicImage("t", type(topic.id)(b"\7" * 16), topic.partitions), 0)
    assert put(node, batch(b"new")).error_code == ErrorCode.KAFKA_STORAGE_ERROR
    assert "could not be removed" in caplog.text


def test_a_topics_settings_reach_the_partitions_and_logs_that_are_there(node: SimNode) -> None:
    node.create_topic("t")
    topic = node.image.topics["t"]
    settings = {
        "max.message.bytes": "1000",
        "segment.ms": "5000",
        "compression.type": "zstd",
        "record.validation": "records",
    }
    node.table.apply(TopicConfigChanged(topic.id, "t", settings))
    partition = node.partition("t")
    assert partition.rules.message_max_bytes == 1000
    assert partition.log.settings.segment_ms == 5000
    assert partition.opening is not None
    node.table.apply(TopicConfigChanged(topic.id, "t", {}))
    assert partition.opening is None
    node.table.apply(TopicConfigChanged(type(topic.id)(b"\1" * 16), "gone", settings))


def test_the_brokers_settings_reach_the_topics_that_set_none(node: SimNode) -> None:
    node.create_topic("t")
    node.create_topic("own", max_message_bytes="700")
    node.create_topic("gone")
    node.table.apply(TopicDeleted(node.image.topics["gone"]))
    everybodys = {"message.max.bytes": "5000", "producer.id.expiration.ms": "9"}
    node.config.override(everybodys, {"log.segment.bytes": "2000000"})
    partition = node.partition("t")
    assert partition.rules.message_max_bytes == 5000
    assert partition.log.settings.segment_bytes == 2_000_000
    assert partition.log.settings.producer_id_expiration_ms == 9
    assert node.partition("own").rules.message_max_bytes == 700
    node.config.override({}, {})
    assert partition.rules.message_max_bytes == 1_048_588
    assert partition.log.settings.segment_bytes == 1 << 30


def test_a_new_leader_epoch_is_the_partitions_from_then_on(node: SimNode) -> None:
    node.create_topic("t")
    topic = node.image.topics["t"]
    before = topic.partitions[0]
    now = PartitionImage(before.leader, LeaderEpoch(5), before.replicas, before.isr)
    node.table.apply(PartitionChanged(topic.id, "t", 0, before, now))
    put(node, batch(b"x"))
    assert batches(get(node))[0].leader_epoch == 5


def test_each_start_writes_in_an_epoch_of_its_own(node: SimNode) -> None:
    node.create_topic("t")
    for end in (node.kill, node.stop, node.crash):
        put(node, batch(b"x"))
        end()
    put(node, batch(b"x"))
    assert [one.leader_epoch for one in batches(get(node))] == [0, 1, 2, 3]


def test_a_log_that_no_topic_owns_is_set_aside_and_kept(
    node: SimNode, caplog: pytest.LogCaptureFixture
) -> None:
    topic_id = node.create_topic("t")
    put(node, batch(b"x"))
    node.delete_topic("t")
    assert node.disk.busy, "its files are still there"
    node.kill()
    assert node.table.get("t", 0) is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert names(node) == [f"t-0.{topic_id.hex()}-stray"]
    assert "belongs to no topic" in caplog.text
    node.create_topic("t")
    assert put(node, batch(b"y")).base_offset == 0


def test_a_directory_that_lost_all_but_its_name_is_its_topics(
    node: SimNode, caplog: pytest.LogCaptureFixture
) -> None:
    node.create_topic("t")
    node.disk.on_loop = False
    node.disk.perform_now([MakeDirectory("/data/t-0")])
    node.kill()
    assert names(node) == ["t-0"]
    assert caplog.records == []
    put(node, batch(b"y"))
    node.kill()
    assert get(node).high_watermark == 1


@pytest.mark.parametrize("errno", [EMFILE, ENFILE, EDQUOT])
def test_what_passes_by_itself_refuses_an_append_and_ends_no_directory(
    node: SimNode, caplog: pytest.LogCaptureFixture, errno: int
) -> None:
    node.create_topic("t")
    node.table.disk_failed(DiskError("create", "/data/t-0/x.log", OSError(errno, "none left")))
    assert node.table.failure is None
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_a_disk_that_is_full_is_told_now_and_then_and_one_that_breaks_once(
    node: SimNode, caplog: pytest.LogCaptureFixture
) -> None:
    node.create_topic("t")
    full = DiskError("write", "/data/t-0/x.log", OSError(ENOSPC, "full"))
    for _ in range(3):
        node.table.disk_failed(full)
    node.advance(11.0)
    node.table.disk_failed(full)
    assert len(caplog.records) == 2
    assert node.table.failure is None
    broken = DiskError("write", "/data/t-0/x.log", OSError(EIO, "broken"))
    for _ in range(3):
        node.table.disk_failed(broken)
    assert [record.levelno for record in caplog.records[2:]] == [logging.CRITICAL]
    assert node.table.failure is broken
    log: Log = node.directory.logs[TopicPartition("t", 0)]
    assert not log.usable


def test_a_log_of_another_topic_of_that_name_is_set_aside_and_kept(node: SimNode) -> None:
    node.create_topic("t")
    other_id = node.create_topic("u")
    put(node, batch(b"x"))
    put(node, batch(b"of u"), topic="u")
    node.stop()
    node.disk.on_loop = False
    node.disk.perform_now(
        [RenamePath("/data/t-0", "/data/elsewhere"), RenamePath("/data/u-0", "/data/t-0")]
    )
    node.disk.on_loop = True
    node.start()
    node.settle()
    assert f"t-0.{other_id.hex()}-stray" in names(node)
    assert get(node).high_watermark == 0
    assert put(node, batch(b"y")).base_offset == 0
