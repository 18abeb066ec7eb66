"""How the cluster's metadata lies in its store: keys, values, and how they become an image.

Owns the layout below; nothing else builds or takes apart a key. Values are JSON objects;
fields that are not known are ignored, so that a newer node may add some.

    /cluster            {"id"}                      the cluster this store belongs to
    /b/<node>           {"host", "port", "rack"}    a node; its last write is its epoch
    /fence/<node>       {}                          written to end the unknown (controller.py)
    /name/<topic>       the topic's id in hex       makes a name unique
    /t/<id>             {"name", "partitions"}      a topic
    /p/<id>/<n>         {"leader", "leader_epoch", "replicas", "isr"}
    /cfg/t/<id>         {option: text}              what was set for a topic
    /cfg/b/             {option: text}              what was set for all brokers
    /cfg/b/<node>       {option: text}              what was set for one broker
    /cfg/g/<group>      {option: text}              what was set for a group
    /pid                {"next"}                    the first producer id not yet handed to a node
    /adopt              {}                          topics may be taken over from their directories,
                                                    while there is no /cluster (adoption.py)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from ottla.cluster.changes import (
    Change,
    NodeChanged,
    NodeGone,
    PartitionChanged,
    PartitionsAdded,
    SettingsChanged,
    TopicConfigChanged,
    TopicCreated,
    TopicDeleted,
)
from ottla.cluster.image import (
    NO_SETTINGS,
    ClusterImage,
    Node,
    PartitionImage,
    Settings,
    TopicImage,
)
from ottla.cluster.store import Entry, Put, Snapshot, StoreCorrupt, Update
from ottla.core.model import LeaderEpoch, NodeId, TopicId

ROOT = "/"
CLUSTER = "/cluster"
PRODUCER_IDS = "/pid"
ADOPTION = "/adopt"
ALL_BROKERS = "/cfg/b/"

# Made once: json.dumps with separators builds an encoder each time, and a start encodes thousands.
_to_json = json.JSONEncoder(separators=(",", ":")).encode
_from_json = json.JSONDecoder().decode

T = TypeVar("T")


def node_key(node_id: NodeId) -> str:
    return f"/b/{node_id}"


def fence_key(node_id: NodeId) -> str:
    return f"/fence/{node_id}"


def name_key(name: str) -> str:
    return f"/name/{name}"


def topic_key(topic_id: TopicId) -> str:
    return f"/t/{topic_id.hex()}"


def partitions_prefix(topic_id: TopicId) -> str:
    return f"/p/{topic_id.hex()}/"


def partition_key(topic_id: TopicId, partition: int) -> str:
    return f"/p/{topic_id.hex()}/{partition}"


def configs_key(topic_id: TopicId) -> str:
    return f"/cfg/t/{topic_id.hex()}"


def broker_settings(node_id: NodeId) -> str:
    return f"/cfg/b/{node_id}"


def group_settings(group: str) -> str:
    return f"/cfg/g/{group}"


def _is_settings(key: str) -> bool:
    return key.startswith(("/cfg/b/", "/cfg/g/"))


def encode(value: Mapping[str, Any]) -> bytes:
    return _to_json(value).encode()


def put_node(node: Node) -> Put:
    value = {"host": node.host, "port": node.port, "rack": node.rack}
    return Put(node_key(node.id), encode(value))


def put_topic(topic: TopicImage) -> list[Put]:
    """Everything that makes a topic, in one transaction."""
    puts = [Put(name_key(topic.name), topic.id.hex().encode()), put_head(topic)]
    puts += [put_partition(topic.id, n, one) for n, one in enumerate(topic.partitions)]
    if topic.configs:
        puts.append(Put(configs_key(topic.id), encode(topic.configs)))
    return puts


def put_head(topic: TopicImage) -> Put:
    """A topic's name and how many partitions it has."""
    head = {"name": topic.name, "partitions": len(topic.partitions)}
    return Put(topic_key(topic.id), encode(head))


def put_partition(topic_id: TopicId, partition: int, image: PartitionImage) -> Put:
    value = {
        "leader": image.leader,
        "leader_epoch": image.leader_epoch,
        "replicas": image.replicas,
        "isr": image.isr,
    }
    return Put(partition_key(topic_id, partition), encode(value))


def decode(key: str, entry: Entry, make: Callable[[Any], T]) -> T:
    """`make` of the entry's JSON. Raises StoreCorrupt, naming the key, where it can't be."""
    try:
        return make(_from_json(entry.value.decode()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        text = f"the metadata store holds something that cannot be understood at {key}: {error!r}"
        raise StoreCorrupt(text) from error


def image_of(snapshot: Snapshot) -> ClusterImage:
    """The whole image that a snapshot of everything holds. Raises StoreCorrupt."""
    cluster = snapshot.entries.get(CLUSTER)
    cluster_id = decode(CLUSTER, cluster, lambda value: str(value["id"])) if cluster else ""
    nodes: dict[NodeId, Node] = {}
    by_id: dict[TopicId, TopicImage] = {}
    settings: dict[str, Settings] = {}
    parts = _parts(snapshot.entries.items())
    for key, entry in snapshot.entries.items():
        if key.startswith("/b/"):
            node = _node(key, entry)
            nodes[node.id] = node
        elif key.startswith("/t/"):
            topic = _topic(key, snapshot.entries, parts.get(key[3:], {}))
            by_id[topic.id] = topic
        elif _is_settings(key):
            settings[key] = _settings(key, entry)
    return ClusterImage(
        cluster_id=cluster_id,
        nodes=nodes,
        topics={topic.name: topic for topic in by_id.values()},
        by_id=by_id,
        partitions_count=sum(len(topic.partitions) for topic in by_id.values()),
        revision=snapshot.revision,
        settings=settings,
    )


def changes_of(image: ClusterImage, update: Update) -> list[Change]:
    """What an update means, against the image before it. Raises StoreCorrupt."""
    changes: list[Change] = []
    touched: dict[str, None] = {}
    for key, entry in update.entries.items():
        if key.startswith("/b/"):
            node_id = NodeId(int(key[3:]))
            changes.append(NodeChanged(_node(key, entry)) if entry else NodeGone(node_id))
        elif key.startswith(("/t/", "/p/")):
            touched[key.split("/")[2]] = None
        elif key.startswith("/cfg/t/"):
            touched[key.split("/")[3]] = None
        elif _is_settings(key):
            changes.append(SettingsChanged(key, _settings(key, entry) if entry else None))
    if touched:
        parts = _parts((k, e) for k, e in update.entries.items() if e is not None)
        for text in touched:
            before = image.by_id.get(TopicId(bytes.fromhex(text)))
            after = _topic_after(text, before, update, parts.get(text, {}))
            changes += topic_changes(before, after)
    return changes


def difference(old: ClusterImage, new: ClusterImage) -> list[Change]:
    """What leads from one image to another: deletions first, since a name may be used again."""
    changes: list[Change] = [NodeGone(one) for one in old.nodes if one not in new.nodes]
    changes += [NodeChanged(node) for node in new.nodes.values() if old.nodes.get(node.id) != node]
    changes += [TopicDeleted(one) for id_, one in old.by_id.items() if id_ not in new.by_id]
    for topic in new.by_id.values():
        changes += topic_changes(old.by_id.get(topic.id), topic)
    changes += [
        SettingsChanged(whose, new.settings.get(whose))
        for whose in {**old.settings, **new.settings}
        if old.settings.get(whose) != new.settings.get(whose)
    ]
    return changes


def topic_changes(before: TopicImage | None, after: TopicImage | None) -> list[Change]:
    """What leads from one state of a topic to another; None where it does not exist."""
    if before is None or after is None:
        if after is not None:
            return [TopicCreated(after)]
        return [TopicDeleted(before)] if before is not None else []
    changes: list[Change] = [
        PartitionChanged(after.id, after.name, n, was, now)
        for n, (was, now) in enumerate(zip(before.partitions, after.partitions, strict=False))
        if was != now
    ]
    if len(after.partitions) > len(before.partitions):
        changes.append(PartitionsAdded(after, len(before.partitions)))
    if after.configs_revision != before.configs_revision:
        changes.append(
            TopicConfigChanged(after.id, after.name, after.configs, after.configs_revision)
        )
    return changes


def _parts(entries: Iterable[tuple[str, Entry]]) -> dict[str, dict[int, PartitionImage]]:
    """Partitions by the hex of their topic's id."""
    found: dict[str, dict[int, PartitionImage]] = {}
    for key, entry in entries:
        if key.startswith("/p/"):
            _, _, text, partition = key.split("/")
            found.setdefault(text, {})[int(partition)] = _partition(key, entry)
    return found


def _topic(
    key: str, entries: Mapping[str, Entry | None], parts: Mapping[int, PartitionImage]
) -> TopicImage:
    entry = entries[key]
    assert entry is not None, key
    name, count = decode(key, entry, lambda value: (str(value["name"]), int(value["partitions"])))
    if parts.keys() != set(range(count)):
        raise StoreCorrupt(f"the metadata store lacks partitions of topic {name} ({key})")
    topic_id = TopicId(bytes.fromhex(key[3:]))
    partitions = tuple(parts[n] for n in range(count))
    own = _own(topic_id, entries)
    return TopicImage(name, topic_id, partitions, own.configs, own.revision)


def _own(topic_id: TopicId, entries: Mapping[str, Entry | None]) -> Settings:
    key = configs_key(topic_id)
    entry = entries.get(key)
    return NO_SETTINGS if entry is None else _settings(key, entry)


def _settings(key: str, entry: Entry) -> Settings:
    configs = decode(key, entry, lambda value: {str(k): str(v) for k, v in value.items()})
    return Settings(configs, entry.mod_revision)


def _topic_after(
    text: str, before: TopicImage | None, update: Update, parts: Mapping[int, PartitionImage]
) -> TopicImage | None:
    key = f"/t/{text}"
    if key in update.entries and update.entries[key] is None:
        return None
    if before is None:
        # Only what is left of a topic that is gone, such as its configs.
        return _topic(key, update.entries, parts) if key in update.entries else None
    known = dict(enumerate(before.partitions))
    partitions = {**known, **parts}
    own = Settings(before.configs, before.configs_revision)
    if configs_key(before.id) in update.entries:
        own = _own(before.id, update.entries)
    ordered = tuple(partitions[n] for n in sorted(partitions))
    return TopicImage(before.name, before.id, ordered, own.configs, own.revision)


def _node(key: str, entry: Entry) -> Node:
    node_id = NodeId(int(key[3:]))
    return decode(
        key,
        entry,
        lambda value: Node(
            node_id, str(value["host"]), int(value["port"]), value["rack"], entry.mod_revision
        ),
    )


def _partition(key: str, entry: Entry) -> PartitionImage:
    return decode(
        key,
        entry,
        lambda value: PartitionImage(
            NodeId(value["leader"]),
            LeaderEpoch(value["leader_epoch"]),
            tuple(value["replicas"]),
            tuple(value["isr"]),
            entry.mod_revision,
        ),
    )
