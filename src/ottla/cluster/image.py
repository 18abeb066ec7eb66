"""ClusterImage: what is known of the cluster, as one immutable value.

Owns the shapes; `changes.py` makes a new image from an old one and shares whatever did not
change. Whoever holds an image may keep it across a wait: it never changes under them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ottla.core.model import LeaderEpoch, NodeId, TopicId

NO_NODE = NodeId(-1)


@dataclass(frozen=True, slots=True)
class Node:
    """A member of the cluster. `epoch` is the revision at which it registered (KIP-631)."""

    id: NodeId
    host: str
    port: int
    rack: str | None = None
    epoch: int = -1


@dataclass(frozen=True, slots=True)
class PartitionImage:
    """Who leads a partition and who keeps it. `epoch` is the revision of its last change.

    `leader` is -1 while nobody leads. The first of `replicas` is the preferred leader.
    """

    leader: NodeId
    leader_epoch: LeaderEpoch
    replicas: tuple[NodeId, ...]
    isr: tuple[NodeId, ...]
    epoch: int = -1


@dataclass(frozen=True, slots=True)
class TopicImage:
    """A topic; `partitions[n]` is partition n. `configs` holds what was set, as text."""

    name: str
    id: TopicId
    partitions: tuple[PartitionImage, ...]
    configs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ClusterImage:
    """The cluster as of `revision` of its store. Never change what its mappings hold."""

    cluster_id: str
    controller_id: NodeId = NO_NODE
    nodes: Mapping[NodeId, Node] = field(default_factory=dict)
    topics: Mapping[str, TopicImage] = field(default_factory=dict)
    by_id: Mapping[TopicId, TopicImage] = field(default_factory=dict)
    partitions_count: int = 0
    revision: int = 0
