"""A small cluster over a store that does as it is told: what the tests of this room share."""

import itertools
import random

from ottla.cluster.controller import Controller
from ottla.cluster.image import Node
from ottla.cluster.view import ClusterView
from ottla.core import options
from ottla.core.config import Config
from ottla.core.model import NodeId
from ottla.testing.simstore import SimStore

_seeds = itertools.count()


class Cluster:
    """One node's controller and view, over a store that others may use as well."""

    def __init__(self, store: SimStore | None = None, node_id: int = 0, **given: str) -> None:
        self.store = store if store is not None else SimStore(0, unknown=0.0)
        self.view = ClusterView(self.store, NodeId(node_id))
        self.config = Config(options.ALL, {k.replace("_", "."): v for k, v in given.items()})
        self.node = Node(NodeId(node_id), "localhost", 9092)
        self.changes = []
        self.view.on_change(self.changes.append)
        random_bytes = random.Random(next(_seeds)).randbytes
        self.controller = Controller(self.store, self.view, self.config, self.node.id, random_bytes)

    def start(self, cluster_id: str | None = "cluster") -> "Cluster":
        self.wait(self.controller.start(self.node, cluster_id))
        return self

    def wait(self, pending):
        self.store.run()
        return pending.result()

    def create(self, *topics, **how):
        return self.wait(self.controller.create_topics(topics, **how))

    def delete(self, *references):
        return self.wait(self.controller.delete_topics(references))

    @property
    def image(self):
        return self.view.image
