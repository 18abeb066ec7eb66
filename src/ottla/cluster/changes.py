"""Typed changes between two images, and `apply`.

Owns what can happen to a cluster, as values that parts of the node can act on without
comparing images. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from ottla.cluster.image import ClusterImage, Node, PartitionImage, Settings, TopicImage
from ottla.core.model import NodeId, TopicId
from ottla.core.value import Value


class TopicCreated(Value):
    topic: TopicImage


class TopicDeleted(Value):
    """`topic` is as it was last."""

    topic: TopicImage


class PartitionsAdded(Value):
    """A topic has more partitions: those from `first` on are new."""

    topic: TopicImage
    first: int


class PartitionChanged(Value):
    """A partition's leader, epoch, replicas or ISR changed."""

    topic_id: TopicId
    name: str
    partition: int
    was: PartitionImage
    now: PartitionImage


class TopicConfigChanged(Value):
    """`configs` is everything that is set now."""

    topic_id: TopicId
    name: str
    configs: Mapping[str, str]
    revision: int = 0


class SettingsChanged(Value):
    """What is set for a broker, all of them or a group changed; None where nothing is left.

    `whose` is one of `keys.ALL_BROKERS`, `keys.broker_settings`, `keys.group_settings`.
    """

    whose: str
    settings: Settings | None


class NodeChanged(Value):
    """A node registered, again or for the first time."""

    node: Node


class NodeGone(Value):
    node_id: NodeId


Change: TypeAlias = (
    TopicCreated
    | TopicDeleted
    | PartitionsAdded
    | PartitionChanged
    | TopicConfigChanged
    | SettingsChanged
    | NodeChanged
    | NodeGone
)


def apply(image: ClusterImage, change: Change) -> ClusterImage:
    """The image after `change`. Copies mappings, never the topics or partitions they hold."""
    match change:
        case TopicCreated(topic):
            assert topic.name not in image.topics, f"{topic.name} is created twice"
            assert topic.id not in image.by_id, f"{topic.id.hex()} is created twice"
            return _with_topic(image, topic)
        case TopicDeleted(topic):
            return _without_topic(image, topic)
        case PartitionsAdded(topic, _):
            return _with_topic(image, topic)
        case PartitionChanged(topic_id, _, partition, _, now):
            topic = image.by_id[topic_id]
            partitions = (*topic.partitions[:partition], now, *topic.partitions[partition + 1 :])
            return _with_topic(image, topic.replace(partitions=partitions))
        case TopicConfigChanged(topic_id, _, configs, revision):
            topic = image.by_id[topic_id].replace(configs=configs, configs_revision=revision)
            return _with_topic(image, topic)
        case SettingsChanged(whose, now):
            settings = {key: one for key, one in image.settings.items() if key != whose}
            if now is not None:
                settings[whose] = now
            return image.replace(settings=settings)
        case NodeChanged(node):
            return image.replace(nodes={**image.nodes, node.id: node})
        case NodeGone(node_id):
            nodes = {id_: node for id_, node in image.nodes.items() if id_ != node_id}
            return image.replace(nodes=nodes)


def _with_topic(image: ClusterImage, topic: TopicImage) -> ClusterImage:
    before = image.by_id.get(topic.id)
    added = len(topic.partitions) - (len(before.partitions) if before else 0)
    return image.replace(
        topics={**image.topics, topic.name: topic},
        by_id={**image.by_id, topic.id: topic},
        partitions_count=image.partitions_count + added,
    )


def _without_topic(image: ClusterImage, topic: TopicImage) -> ClusterImage:
    topics, by_id = dict(image.topics), dict(image.by_id)
    del topics[topic.name]
    gone = by_id.pop(topic.id)
    return image.replace(
        topics=topics,
        by_id=by_id,
        partitions_count=image.partitions_count - len(gone.partitions),
    )
