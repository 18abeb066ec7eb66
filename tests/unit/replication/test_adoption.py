"""What is concluded from a directory that no metadata store knows, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from errno import ENOTDIR
from typing import Any, cast

import pytest

from ottla.cluster import keys
from ottla.cluster.image import ClusterImage, PartitionImage, TopicImage
from ottla.cluster.store import (
    Applied,
    Compare,
    Delete,
    Entry,
    MetadataStore,
    Outcome,
    Put,
    Snapshot,
    Write,
)
from ottla.cluster.topics import NewTopic
from ottla.core import options
from ottla.core.config import LONG_MAX, Config
from ottla.core.model import LeaderEpoch, NodeId, Offset, TopicId, TopicPartition
from ottla.core.pending import Pending, completed
from ottla.core.ports import Disk, DiskError
from ottla.core.topic_config import check_topic_config
from ottla.replication.adoption import PRODUCER_IDS_AHEAD, Claim, claim, told
from ottla.storage.checkpoints import (
    MetaProperties,
    encode_epochs,
    encode_offsets,
    encode_partition_metadata,
)
from ottla.storage.directory import LogDirectory, WrongDirectory
from ottla.storage.epochs import LeaderEpochs

KAFKAS = b"#\n#Wed Nov 25 2026\nnode.id=1\ndirectory.id=o0kAeGnGk-7rfN3ZmtLvvw\nversion=1\ncluster.id=c\n"
ID, OTHER = TopicId(bytes([1] * 16)), TopicId(bytes([2] * 16))
OFFSETS = NewTopic("__consumer_offsets", 50, 1, configs={"cleanup.policy": "compact"})


class Files:
    """The reading half of the port `Disk`, over a mapping of paths below the directory."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = {f"/d/{path}": content for path, content in files.items()}

    def names(self, path: str) -> list[str]:
        if path in self.files:
            raise DiskError("list", path, OSError(ENOTDIR, "Not a directory"))
        below = [one[len(path) + 1 :] for one in self.files if one.startswith(f"{path}/")]
        return sorted({one.split("/")[0] for one in below})

    def read_file(self, path: str) -> bytes | None:
        return self.files.get(path)


def directory(*partitions: str, topic_id: TopicId = ID, **more: bytes) -> dict[str, bytes]:
    files = {f"{one}/partition.metadata": encode_partition_metadata(topic_id) for one in partitions}
    return {"meta.properties": KAFKAS, **files, **more}


def claimed(files: Mapping[str, bytes], left: ClusterImage | None = None) -> Claim | None:
    disk = cast(Disk, Files(files))
    return claim(disk, "/d", NodeId(1), [OFFSETS], lambda count: bytes([9] * count), left)


def topics(files: Mapping[str, bytes], left: ClusterImage | None = None) -> Mapping[str, Any]:
    found = claimed(files, left)
    assert found is not None
    return found.image.topics


def test_a_directory_without_partitions_claims_nothing() -> None:
    assert claimed({}) is None
    assert claimed({"meta.properties": KAFKAS}) is None


def test_topics_come_with_their_ids_and_as_many_partitions_as_there_are_directories() -> None:
    found = claimed(directory("t-0", "t-1") | directory("__consumer_offsets-0", topic_id=OTHER))
    assert found is not None
    assert (found.cluster_id, found.partitions_count) == ("c", 3)
    known = found.image.topics
    assert {name: (one.id, len(one.partitions)) for name, one in known.items()} == {
        "t": (ID, 2),
        "__consumer_offsets": (OTHER, 1),
    }


def test_what_is_not_a_log_of_ours_is_not_a_topic() -> None:
    files = directory("t-0", "__cluster_metadata-0", "t-1.0123abc-delete", "t-2.0123abc-stray")
    assert topics(files).keys() == {"t"}


def test_a_file_or_a_folder_of_somebody_s_is_passed_over_and_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    files = directory("t-0") | {"notes-1": b"", "backup-7/2026-01-01.tar": b"", "t-1/x.tmp": b""}
    assert {name: len(one.partitions) for name, one in topics(files).items()} == {"t": 1}
    told_of = [one.getMessage().split()[0] for one in caplog.records]
    assert told_of == ["/d/backup-7", "/d/notes-1", "/d/t-1"]


def test_nothing_is_deleted_of_topics_whose_options_are_not_known() -> None:
    assert topics(directory("t-0"))["t"].configs == {"retention.ms": "-1", "retention.bytes": "-1"}


def test_what_was_compacted_once_keeps_that_policy_and_loses_no_record_by_it() -> None:
    """Kafka's cleaner never forgets a topic: this one may have been told to keep all since."""
    files = directory("t-0", "u-0")
    files["cleaner-offset-checkpoint"] = encode_offsets({TopicPartition("t", 0): Offset(7)})
    found = claimed(files)
    assert found is not None
    settings = check_topic_config(Config(options.ALL, {}), found.image.topics["t"].configs)
    assert settings.compact
    assert settings.min_compaction_lag_ms == LONG_MAX
    assert "cleanup.policy" not in found.image.topics["u"].configs
    assert "(t)" in told(found)
    assert "--delete min.compaction.lag.ms" in told(found)


def test_options_of_internal_topics_are_known() -> None:
    found = topics(directory("__consumer_offsets-0"))
    assert found["__consumer_offsets"].configs == {"cleanup.policy": "compact"}


def test_an_empty_partition_that_lost_its_id_has_the_id_of_the_others() -> None:
    files = directory("t-1") | {"t-0/00000000000000000000.log": b""}
    assert topics(files)["t"].id == ID
    alone = directory() | {"t-0/00000000000000000000.log": b""}
    assert topics(alone)["t"].id == bytes([9] * 16)


@pytest.mark.parametrize(
    ("files", "why"),
    [
        (directory("t-0", "t-2"), "lacks t-1, but has t-2"),
        (directory("t-1"), "lacks t-0, but has t-1"),
        (directory("t-0") | directory("t-1", topic_id=OTHER), "two topics that are both named t"),
        (directory("t-0") | {"meta.properties": b"version=0\nbroker.id=1\n"}, "with ZooKeeper"),
        (directory("t-0") | {"meta.properties": b"what"}, "can't be understood"),
        ({"node-18/package.json": b""}, "no meta.properties"),
        (
            directory("t-0") | {"meta.properties": KAFKAS.replace(b"id=1", b"id=2")},
            "belongs to node 2, not 1",
        ),
    ],
)
def test_what_is_not_there_as_a_whole_is_refused_with_a_sentence(
    files: Mapping[str, bytes], why: str
) -> None:
    with pytest.raises(WrongDirectory, match=why):
        claimed(files)


OURS = {"meta.properties": MetaProperties("c", 1, "AQEBAQEBAQEBAQEBAQEBAQ").encode()}


@pytest.mark.parametrize("partitions", [(), ("t-0",), ("t-1", "u-0")])
def test_a_directory_of_ours_whose_store_was_lost_is_not_taken_over_unasked(
    partitions: tuple[str, ...],
) -> None:
    with pytest.raises(WrongDirectory, match="store of /d is missing, or empty") as raised:
        claimed(directory(*partitions) | OURS)
    assert f"hold {len(partitions)} partition" in str(raised.value)


def test_a_directory_of_ours_may_lack_partitions_that_never_had_a_record() -> None:
    """Its store was lost. Groups are found only if their topic has as many partitions as before."""
    files = directory("t-1", "__consumer_offsets-3") | OURS
    found = topics(files, ClusterImage(""))
    assert {name: len(one.partitions) for name, one in found.items()} == {
        "t": 2,
        "__consumer_offsets": 50,
    }


def test_a_directory_of_ours_without_a_record_is_taken_over_when_asked_for() -> None:
    found = claimed(OURS, ClusterImage(""))
    assert found is not None
    assert (found.cluster_id, found.topics) == ("c", ())


def left_with(*topics: TopicImage) -> ClusterImage:
    by_id = {topic.id: topic for topic in topics}
    return ClusterImage("", topics={topic.name: topic for topic in topics}, by_id=by_id)


def test_a_topic_that_the_store_was_left_with_has_its_options_and_partitions() -> None:
    part = PartitionImage(NodeId(1), LeaderEpoch(0), (NodeId(1),), (NodeId(1),))
    before = TopicImage("t", ID, (part,) * 4, {"retention.ms": "5"})
    files = directory("t-1", "u-0") | OURS
    found = claimed(files, left_with(before))
    assert found is not None
    known = found.image.topics
    assert (len(known["t"].partitions), known["t"].configs) == (4, {"retention.ms": "5"})
    assert known["u"].configs == {"retention.ms": "-1", "retention.bytes": "-1"}
    assert "left with for 1 topic, lost for the others" in told(found)


def test_a_topic_that_was_made_anew_since_takes_nothing_from_its_namesake() -> None:
    part = PartitionImage(NodeId(1), LeaderEpoch(0), (NodeId(1),), (NodeId(1),))
    left = left_with(TopicImage("t", OTHER, (part,) * 4, {"retention.ms": "5"}))
    found = claimed(directory("t-1") | OURS, left)
    assert found is not None
    assert len(found.topics[0].partitions) == 2
    assert found.topics[0].configs["retention.ms"] == "-1"
    store, opened = Store(), OpenDirectory({})
    found.adopt(cast(LogDirectory, opened), cast(MetadataStore, store), left)
    assert {keys.topic_key(OTHER), keys.configs_key(OTHER)} <= store.deleted
    assert keys.image_of(Snapshot(1, store.entries)).topics["t"].id == ID


class Producers:
    def entries(self) -> list[tuple[int, ...]]:
        return [(41, 0), (7, 0)]


class Opened:
    """What `adopt` asks of a log."""

    def __init__(self, topic_id: TopicId, epoch: int) -> None:
        self.topic_id = topic_id
        self.epochs = LeaderEpochs([(LeaderEpoch(epoch), Offset(0))])
        self.producers = Producers()


class OpenDirectory:
    """What `adopt` asks of a directory."""

    def __init__(self, logs: dict[TopicPartition, Opened]) -> None:
        self.logs = logs
        self.adopted: list[TopicId] = []

    def adopt(self, _log: Opened, topic_id: TopicId) -> None:
        self.adopted.append(topic_id)


class Store:
    """A store that does at once what it is told, as one does before the loop runs."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.deleted: set[str] = set()

    def transact(self, _compares: Sequence[Compare], writes: Sequence[Write]) -> Pending[Outcome]:
        self.entries = {one.key: Entry(one.value, 1, 1) for one in writes if isinstance(one, Put)}
        self.deleted = {one.key for one in writes if isinstance(one, Delete)}
        assert not self.deleted & self.entries.keys(), "a key is written once"
        return completed(Applied(1))


def test_epochs_and_producer_ids_go_on_beyond_those_in_the_logs() -> None:
    files = directory("t-0", "t-1")
    files["t-0/leader-epoch-checkpoint"] = encode_epochs([(LeaderEpoch(12), Offset(0))])
    found = claimed(files)
    assert found is not None
    logs = {
        TopicPartition("t", 0): Opened(ID, 3),
        TopicPartition("t", 1): Opened(TopicId(bytes(16)), 5),
    }
    store, opened = Store(), OpenDirectory(logs)
    found.adopt(cast(LogDirectory, opened), cast(MetadataStore, store), ClusterImage(""))
    image = keys.image_of(Snapshot(1, store.entries))
    assert image.cluster_id == "c"
    assert [one.leader_epoch for one in image.topics["t"].partitions] == [12, 5]
    assert opened.adopted == [ID]
    next_id = keys.decode("/pid", store.entries["/pid"], lambda value: value["next"])
    assert next_id == 41 + PRODUCER_IDS_AHEAD
