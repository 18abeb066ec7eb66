"""ClusterView: the image in force on this node, kept up with the store.

Owns the current image and who is told of changes. The image moves only here, by the store's
updates, one after the other: so it always is what the store was at `image.revision`. Must not
decide or write anything.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count

from ottla.cluster import keys
from ottla.cluster.changes import Change, apply
from ottla.cluster.image import ClusterImage
from ottla.cluster.store import Compacted, MetadataStore, Snapshot, WatchEvent
from ottla.core.model import NodeId
from ottla.core.pending import Pending


class ClusterView:
    """Call `start` once; after that `image` is never behind what `when` has let through.

    `fence` is the revision of this node's fence key, `gaps` how often updates were missed and
    made up for by reading all again.
    """

    __slots__ = (
        "_fence_key",
        "_listeners",
        "_order",
        "_store",
        "_waiting",
        "fence",
        "gaps",
        "image",
    )

    def __init__(self, store: MetadataStore, node_id: NodeId) -> None:
        self._store = store
        self._fence_key = keys.fence_key(node_id)
        self._listeners: list[Callable[[Change], None]] = []
        self._waiting: list[tuple[int, int, Callable[[], None]]] = []
        self._order = count()
        self.image = ClusterImage(cluster_id="", controller_id=node_id)
        self.fence = 0
        self.gaps = 0

    def on_change(self, listener: Callable[[Change], None]) -> None:
        """Tell `listener` of every change after `start`, in order, once the image has it."""
        self._listeners.append(listener)

    def when(self, revision: int, call: Callable[[], None]) -> None:
        """Call once the image is at `revision` or past it: at once if it already is."""
        if self.image.revision >= revision:
            call()
        else:
            heapq.heappush(self._waiting, (revision, next(self._order), call))

    def start(self, snapshot: Snapshot) -> None:
        """Take all of a snapshot as the image, and follow the store from there."""
        self._take(snapshot)
        self._store.watch(keys.ROOT, snapshot.revision + 1, self._on_event)

    def _take(self, snapshot: Snapshot) -> None:
        self.image = keys.image_of(snapshot).replace(controller_id=self.image.controller_id)
        fence = snapshot.entries.get(self._fence_key)
        self.fence = fence.mod_revision if fence else 0

    def _on_event(self, event: WatchEvent) -> None:
        if isinstance(event, Compacted):
            pending = self._store.read(keys.ROOT)
            pending.then(lambda: self._catch_up(pending))
            return
        assert event.revision > self.image.revision, "updates come in order"
        changes = keys.changes_of(self.image, event)
        image = self.image
        for change in changes:
            image = apply(image, change)
        fence = event.entries.get(self._fence_key)
        if fence is not None:
            self.fence = fence.mod_revision
        self._move(image.replace(revision=event.revision), changes)

    def _catch_up(self, pending: Pending[Snapshot]) -> None:
        before = self.image
        snapshot = pending.result()
        self._take(snapshot)
        self.gaps += 1
        self._move(self.image, keys.difference(before, self.image))
        self._store.watch(keys.ROOT, snapshot.revision + 1, self._on_event)

    def _move(self, image: ClusterImage, changes: list[Change]) -> None:
        # Listeners see the image after the whole transaction: none is half there.
        self.image = image
        for change in changes:
            for listener in self._listeners:
                listener(change)
        while self._waiting and self._waiting[0][0] <= self.image.revision:
            heapq.heappop(self._waiting)[2]()
