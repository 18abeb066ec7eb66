"""Checksums that our small text files carry, and Apache Kafka's readers of these files.

Kafka's format has no room for them; each stands where its reader passes it over. Then Kafka itself
starts on a directory of ours: its own metadata log beside our logs, as a way back to it would be.
"""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from ottla.core.model import LeaderEpoch, Offset, TopicId, TopicPartition
from ottla.storage import checkpoints
from ottla.storage.checkpoints import MetaProperties
from tests import reference
from tests.clients.clients import create_topic
from tests.clients.transactors import Confluent
from tests.oracle.kafka_directory import produce, read
from tests.oracle.test_starts_on_kafkas_directory import Kafka
from tests.processes import Broker, wait_until

pytestmark = pytest.mark.reference


def test_kafkas_readers_pass_over_our_checksums(tmp_path: Path) -> None:
    offsets = {TopicPartition("t", 0): Offset(5), TopicPartition("u", 1): Offset(1 << 40)}
    for name in (
        checkpoints.RECOVERY_POINTS,
        checkpoints.LOG_STARTS,
        checkpoints.HIGH_WATERMARKS,
        checkpoints.CLEANED,
    ):
        (tmp_path / name).write_bytes(checkpoints.encode_offsets(offsets))
    identity = MetaProperties(checkpoints.uuid_text(b"c" * 16), 7, checkpoints.uuid_text(b"d" * 16))
    (tmp_path / checkpoints.META_PROPERTIES).write_bytes(identity.encode())
    topic_id = TopicId(b"t" * 16)
    epochs = [(LeaderEpoch(2), Offset(0)), (LeaderEpoch(9), Offset(1 << 33))]
    for number, of_partition in enumerate([epochs, epochs[:1], []]):
        partition = tmp_path / f"t-{number}"
        partition.mkdir()
        metadata = checkpoints.encode_partition_metadata(topic_id)
        (partition / checkpoints.PARTITION_METADATA).write_bytes(metadata)
        content = checkpoints.encode_epochs(of_partition)
        (partition / "leader-epoch-checkpoint").write_bytes(content)

    said = reference.run("java", Path(__file__).with_name("Checkpoints.java"), tmp_path).stdout

    lines = dict(line.split(" ", 1) for line in said.splitlines() if "-offset-checkpoint " in line)
    assert len(lines) == 4
    for told in lines.values():
        assert "t-0=5" in told
        assert f"u-1={1 << 40}" in told
        assert told.count("=") == 3, "ours, and the row that nobody asks for"
    assert f"clusterId={identity.cluster_id}, nodeId=7" in said
    assert f"directoryId={identity.directory_id}" in said
    for number in range(3):
        assert f"t-{number} {checkpoints.uuid_text(topic_id)}\n" in said
    first = "EpochEntry[epoch=2, startOffset=0]"
    assert f"t-0 [{first}, EpochEntry[epoch=9, startOffset={1 << 33}]]\n" in said
    assert f"t-1 [{first}]\n" in said
    assert "t-2 []\n" in said


def test_kafka_goes_on_with_its_directory_after_ottla_has_had_it(tmp_path: Path) -> None:
    """Our checkpoints, our batches behind Kafka's, an index of aborted transactions that we made."""
    kafka = Kafka(tmp_path / "kafka")
    kafka.start()
    try:
        create_topic(kafka.bootstrap, "t", 2)
        produce(kafka.bootstrap, "t", 0, 50, {})
        transactor = Confluent(kafka.bootstrap, "of Kafka's", 60_000)
        transactor.begin()
        transactor.send("t", 1, b"taken back")
        transactor.flush()
        transactor.abort()
        transactor.close()
        # Markers come after the answer to who ends a transaction, in either broker.
        index = kafka.data / "t-1" / f"{0:020}.txnindex"
        wait_until(lambda: index.exists() and index.stat().st_size == 34, "Kafka's marker")
        kafka.end(signal.SIGTERM)
        index.unlink()  # what it said is found in the batches
        with Broker(kafka.data) as ours:
            produce(ours.bootstrap, "t", 0, 60, {})
            produce(ours.bootstrap, "t", 1, 7, {})
            transactor = Confluent(ours.bootstrap, "a transaction", 60_000)
            for end in (transactor.abort, transactor.commit):
                transactor.begin()
                transactor.send("t", 1, b"in a transaction")
                transactor.flush()
                end()
            transactor.close()
            wait_until(lambda: len(read(ours.bootstrap, "t", 1)) == 8, "the marker of the commit")
            assert index.stat().st_size == 2 * 34
            ends = [read(ours.bootstrap, "t", partition) for partition in (0, 1)]
            assert [len(one) for one in ends] == [110, 8]
        epochs = (kafka.data / "t-0" / "leader-epoch-checkpoint").read_bytes()
        assert epochs.splitlines()[-1].endswith((b" ", b"\t")), "there is a checksum of ours"
        kafka.start()
        assert [read(kafka.bootstrap, "t", partition) for partition in (0, 1)] == ends
        produce(kafka.bootstrap, "t", 0, 5, {})
        said = (kafka.folder / "broker.log").read_text()
    finally:
        kafka.close()
    assert " ERROR " not in said
    assert "Found an unclean" not in said
