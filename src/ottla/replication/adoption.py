"""Taking over logs that no metadata store knows: Apache Kafka's own directory, or a copy of one.

So is a directory of ours whose store was lost, once the operator says so (`ottla log repair
--adopt`): by itself no start goes on as if what was only in the store had never been.

Owns what names of directories and small files tell of topics, what is refused, and the transaction
that makes them topics of ours. Must not read KRaft's log (`__cluster_metadata-0`), where Kafka has
everything else, nor change a file before all was looked at.

Which options topics had is not known here. By the defaults retention would delete what somebody
meant to keep, so topics begin with none, until they are told otherwise.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from ottla.cluster import keys
from ottla.cluster.image import ClusterImage, PartitionImage, TopicImage
from ottla.cluster.store import (
    Absent,
    Applied,
    Delete,
    DeletePrefix,
    MetadataStore,
    Put,
    StoreError,
    Write,
)
from ottla.cluster.topics import NewTopic
from ottla.core.config import LONG_MAX
from ottla.core.model import NO_TOPIC_ID, LeaderEpoch, NodeId, TopicId, TopicPartition
from ottla.core.ports import Disk
from ottla.core.value import Value
from ottla.storage import checkpoints
from ottla.storage.directory import LogDirectory, WrongDirectory, is_foreign, partition_of
from ottla.storage.epochs import FILE_NAME as EPOCHS
from ottla.storage.opening import read_derived

_log = logging.getLogger("ottla.replication")

PRODUCER_IDS_AHEAD = 1 << 32
"""How far past the greatest id in a log ours begin. Kafka hands them out in order, but the greatest
may be in no log any more; that one is ahead of the others by no more than producers there were."""
_FIRST = LeaderEpoch(0)
KEPT_FOR_EVER: Mapping[str, str] = {"retention.ms": "-1", "retention.bytes": "-1"}
COMPACTION_HELD: Mapping[str, str] = {
    "cleanup.policy": "compact",
    "min.compaction.lag.ms": str(LONG_MAX),
}
"""For what was compacted once: a cleaner's checkpoint also keeps topics that have long been told to
keep every record. As compacted ones they'd lose some; as others, clients that need a compacted one
(Connect, a schema registry) would not start. So they have the policy, and nothing comes of it."""


class Claim(Value):
    """What a directory holds, as it will be known. `compacted` were so before, as the cleaner's
    checkpoint says; `remembered` have the options that the store was left with."""

    cluster_id: str
    topics: tuple[TopicImage, ...]
    compacted: tuple[str, ...]
    remembered: frozenset[TopicId] = frozenset()

    @property
    def image(self) -> ClusterImage:
        """The topics alone: whose options hold while the logs are opened."""
        return ClusterImage(self.cluster_id, topics={topic.name: topic for topic in self.topics})

    @property
    def partitions_count(self) -> int:
        return sum(len(topic.partitions) for topic in self.topics)

    def adopt(self, directory: LogDirectory, store: MetadataStore, image: ClusterImage) -> None:
        """Make these topics those of `store`, durably and all at once. Blocks, at a start.

        `directory` is open: leader epochs and producer ids must lie beyond all in its logs.
        `image` is what the store has, without a cluster yet: topics that have no log stay as they
        are there. Raises StoreError, DiskError.
        """
        assert not image.cluster_id, "the store belongs to a cluster"
        greatest_id = 0
        writes: list[Write] = [Delete(keys.ADOPTION)]
        for topic in self.topics:
            namesake = image.topics.get(topic.name)
            if namesake is not None and namesake.id != topic.id:  # it was deleted since
                writes += [
                    Delete(keys.topic_key(namesake.id)),
                    Delete(keys.configs_key(namesake.id)),
                    DeletePrefix(keys.partitions_prefix(namesake.id)),
                ]
            parts = list(topic.partitions)
            for number, one in enumerate(topic.partitions):
                log = directory.logs.get(TopicPartition(topic.name, number))
                if log is None:
                    continue
                if log.topic_id == NO_TOPIC_ID:
                    directory.adopt(log, topic.id)
                latest = max(one.leader_epoch, log.epochs.latest)
                parts[number] = one.replace(leader_epoch=latest)
                greatest_id = max([greatest_id, *(entry[0] for entry in log.producers.entries())])
            writes += keys.put_topic(topic.replace(partitions=tuple(parts)))
        writes.append(Put(keys.CLUSTER, keys.encode({"id": self.cluster_id})))
        first_id = {"next": greatest_id + PRODUCER_IDS_AHEAD}
        writes.append(Put(keys.PRODUCER_IDS, keys.encode(first_id)))
        done = store.transact([Absent(keys.CLUSTER), Absent(keys.PRODUCER_IDS)], writes).result()
        if not isinstance(done, Applied):
            raise StoreError("the topics found could not be written to the metadata store")
        _log.warning("%s", told(self), extra={"fields": {"event": "adopted"}})


class _Place(Value):
    """One partition's directory."""

    topic_id: TopicId
    latest_epoch: LeaderEpoch


def claim(
    disk: Disk,
    path: str,
    node_id: NodeId,
    internal: Sequence[NewTopic],
    random_bytes: Callable[[int], bytes],
    left: ClusterImage | None = None,
) -> Claim | None:
    """The topics of a directory without a metadata store; None if it is a new one.

    `internal` are topics whose options are known by their names; `left` is what the store was left
    with, where the operator wants the rest to be taken over. Only reads. Raises WrongDirectory
    where the store is lost and nobody has said so, where it can't be told whose the directory is,
    or a topic isn't there as a whole; DiskError.
    """
    found, foreign = _found(disk, path)
    is_new = read_derived(disk, f"{path}/{checkpoints.META_PROPERTIES}") is None
    if is_new and not found and not foreign:
        return None
    cluster_id, is_kafkas = _cluster_of(disk, path, node_id)
    is_ours = left is not None
    if not is_kafkas and not is_ours:
        raise WrongDirectory(
            f"the metadata store of {path} is missing, or empty, and a cluster has been here: "
            "bring it back from a copy (all files ottla-metadata.sqlite*), or let ottla log repair "
            f"say what is lost without it. {held(disk, path)}"
        )
    if not found and not is_ours:
        return None
    left = left or ClusterImage(cluster_id)
    known = {topic.name: topic for topic in internal}
    cleaned = checkpoints.decode_offsets(read_derived(disk, f"{path}/{checkpoints.CLEANED}")) or {}
    compacted = {key.topic for key in cleaned} & found.keys()
    topics = []
    for name, places in found.items():
        count = max(places) + 1
        before = left.topics.get(name)
        if is_kafkas and not is_ours:
            _check_whole(path, name, places)
        elif name in known:  # ours have no directory before their first record
            count = max(count, known[name].partitions_count)
        ids = {place.topic_id for place in places.values()} - {NO_TOPIC_ID}
        if len(ids) > 1:
            raise WrongDirectory(
                f"{path} holds partitions of two topics that are both named {name}: by their "
                "partition.metadata they have different ids; keep the directories of one of them"
            )
        topic_id = ids.pop() if ids else before.id if before else TopicId(random_bytes(16))
        if before is not None and before.id == topic_id:
            configs = dict(before.configs)
            count = max(count, len(before.partitions))
        elif name in known:
            configs = {key: text for key, text in known[name].configs.items() if text is not None}
        else:
            configs = {**KEPT_FOR_EVER, **(COMPACTION_HELD if name in compacted else {})}
        epochs = [places[n].latest_epoch if n in places else _FIRST for n in range(count)]
        parts = tuple(PartitionImage(node_id, one, (node_id,), (node_id,)) for one in epochs)
        topics.append(TopicImage(name, topic_id, parts, configs))
    remembered = left.by_id.keys() & {topic.id for topic in topics}
    unknown = compacted - known.keys() - {left.by_id[one].name for one in remembered}
    return Claim(cluster_id, tuple(topics), tuple(sorted(unknown)), frozenset(remembered))


def held(disk: Disk, path: str) -> str:
    """What the directories have, for whoever has lost the store. Raises DiskError."""
    places = [key for key in map(partition_of, disk.names(path)) if key is not None]
    topics = _counted(len({key.topic for key in places}), "topic")
    return f"The directories hold {_counted(len(places), 'partition')} of {topics}"


def _found(disk: Disk, path: str) -> tuple[dict[str, dict[int, _Place]], list[str]]:
    """The partitions that there are, by topic; and what is only named like one."""
    found: dict[str, dict[int, _Place]] = {}
    foreign = []
    for name in sorted(disk.names(path)):
        key = partition_of(name)
        if key is None:
            continue
        if is_foreign(disk, f"{path}/{name}"):
            foreign.append(name)
            _log.warning("%s/%s is passed over: there is no log in it", path, name)
        else:
            found.setdefault(key.topic, {})[key.partition] = _place(disk, f"{path}/{name}")
    return found, foreign


def _place(disk: Disk, directory: str) -> _Place:
    metadata = read_derived(disk, f"{directory}/{checkpoints.PARTITION_METADATA}")
    epochs = checkpoints.decode_epochs(read_derived(disk, f"{directory}/{EPOCHS}"))
    return _Place(
        checkpoints.decode_partition_metadata(metadata) or NO_TOPIC_ID,
        epochs[-1][0] if epochs else _FIRST,
    )


def _cluster_of(disk: Disk, path: str, node_id: NodeId) -> tuple[str, bool]:
    """The cluster's id, and whether it was Kafka that wrote it down last, not ottla."""
    raw = read_derived(disk, f"{path}/{checkpoints.META_PROPERTIES}")
    identity = checkpoints.decode_meta_properties(raw)
    if identity is not None:
        if identity.node_id != node_id:
            raise WrongDirectory(f"{path} belongs to node {identity.node_id}, not {node_id}")
        return identity.cluster_id, identity.encode() != raw
    if raw is None:
        raise WrongDirectory(
            f"{path} holds partitions, but no {checkpoints.META_PROPERTIES} that says whose they "
            "are; copy the whole data directory, or choose an empty one"
        )
    if b"version=0" in raw.splitlines():
        raise WrongDirectory(
            f"{path} was written by Apache Kafka with ZooKeeper; let Kafka migrate it to KRaft "
            "first, then start on a copy"
        )
    raise WrongDirectory(
        f"{path}/{checkpoints.META_PROPERTIES} can't be understood, and there is no metadata store "
        "that would know; bring back one of the two"
    )


def _check_whole(path: str, name: str, places: Mapping[int, _Place]) -> None:
    missing = next((n for n in range(len(places)) if n not in places), None)
    if missing is not None:
        raise WrongDirectory(
            f"{path} lacks {TopicPartition(name, missing)}, but has {name}-{max(places)}: one "
            "node takes over topics as a whole. If the others are in another of Kafka's log.dirs "
            "or on another broker, copy them here too; else move the directories of "
            f"{name} elsewhere"
        )


_HELD = (
    "Of those that a cleaner has been at ({}) nothing is compacted until you take back their "
    "min.compaction.lag.ms (ottla topic config TOPIC --delete min.compaction.lag.ms), or their "
    "cleanup.policy where it is delete by now"
)


def told(claimed: Claim) -> str:
    """What an operator has to know, in one line."""
    compacted = ", ".join(claimed.compacted)
    elsewhere = "in another metadata store (Apache Kafka's own is not read)"
    if claimed.remembered:
        count = _counted(len(claimed.remembered), "topic")
        elsewhere = f"those that the metadata store was left with for {count}, lost for the others"
    return (
        f"took over {_counted(len(claimed.topics), 'topic')} with "
        f"{_counted(claimed.partitions_count, 'partition')} of "
        f"cluster {claimed.cluster_id}, as their directories say. Their options are {elsewhere}: "
        "until you set them (ottla topic config), "
        "retention.ms=-1 and retention.bytes=-1 keep all records"
        + (f". {_HELD.format(compacted)}" if compacted else "")
        + ". If a topic's last partitions lay elsewhere, stop now and copy them here first"
    )


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' if count != 1 else ''}"
