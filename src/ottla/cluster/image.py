"""ClusterImage: what is known of the cluster, as one immutable value.

Owns the shapes; `changes.py` makes a new image from an old one and shares whatever did not
change. Whoever holds an image may keep it across a wait: it never changes under them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ottla.core.model import LeaderEpoch, NodeId, TopicId
from ottla.core.value import Value

NO_NODE = NodeId(-1)
_EMPTY: Mapping[Any, Any] = {}


class Node(Value):
    """A member of the cluster. `epoch` is the revision at which it registered (KIP-631)."""

    id: NodeId
    host: str
    port: int
    rack: str | None = None
    epoch: int = -1


class PartitionImage(Value):
    """Who leads a partition and who keeps it. `epoch` is the revision of its last change.

    `leader` is -1 while nobody leads. The first of `replicas` is the preferred leader.
    """

    leader: NodeId
    leader_epoch: LeaderEpoch
    replicas: tuple[NodeId, ...]
    isr: tuple[NodeId, ...]
    epoch: int = -1


class TopicImage(Value):
    """A topic; `partitions[n]` is partition n. `configs` holds what was set, as text.

    `configs_revision` is that of the last change of `configs`; 0 while nothing is set.
    """

    name: str
    id: TopicId
    partitions: tuple[PartitionImage, ...]
    configs: Mapping[str, str] = _EMPTY
    configs_revision: int = 0


class Settings(Value):
    """What was set for a broker, for all of them, or for a group, and when it last changed."""

    configs: Mapping[str, str] = _EMPTY
    revision: int = 0


NO_SETTINGS = Settings()


class ClusterImage(Value):
    """The cluster as of `revision` of its store. Never change what its mappings hold.

    `settings` are those of brokers and groups, by `keys.broker_settings` and `group_settings`.
    """

    cluster_id: str
    controller_id: NodeId = NO_NODE
    nodes: Mapping[NodeId, Node] = _EMPTY
    topics: Mapping[str, TopicImage] = _EMPTY
    by_id: Mapping[TopicId, TopicImage] = _EMPTY
    partitions_count: int = 0
    revision: int = 0
    settings: Mapping[str, Settings] = _EMPTY
