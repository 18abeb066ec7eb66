"""SimStore: a MetadataStore that keeps the contract and nothing beyond it.

Owns a seeded world in which outcomes are often Unknown (applied, lost, or applied much later),
answers overtake each other, watches lag and sometimes lose their place. What survives it
survives etcd. Deterministic: the same seed and the same calls give the same run.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence

from ottla.cluster.store import (
    Applied,
    Compacted,
    Compare,
    Delete,
    DeletePrefix,
    Entry,
    Failed,
    Outcome,
    Put,
    Snapshot,
    StoreError,
    Unknown,
    Update,
    WatchEvent,
    Write,
    holds,
)
from ottla.core.pending import Pending

_LINGERS = 0.97
"""How likely a transaction under way is to be overtaken once more: some outlast many others."""


class SimWatch:
    """A watch that lags: what it has not delivered waits in `queue`."""

    def __init__(self, prefix: str, on_event: Callable[[WatchEvent], None]) -> None:
        self.prefix = prefix
        self.on_event = on_event
        self.queue: deque[Update] = deque()
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class SimStore:
    """Does nothing by itself: `run` (or `wake`, once for each thing to do) makes it go on.

    `unknown` is the share of transactions whose outcome stays unknown, `gaps` the share of
    deliveries at which a watch is told that history is gone.
    """

    def __init__(
        self,
        seed: int,
        *,
        unknown: float = 0.3,
        gaps: float = 0.0,
        wake: Callable[[Callable[[], None]], object] | None = None,
    ) -> None:
        self._rng = random.Random(seed)
        self._unknown = unknown
        self._gaps = gaps
        self._wake = wake
        self._actions: list[Callable[[], None]] = []
        self._watches: list[SimWatch] = []
        self._closed = False
        self.entries: dict[str, Entry] = {}
        self.revision = 0
        self.history: list[Update] = []

    def read(self, prefix: str) -> Pending[Snapshot]:
        pending: Pending[Snapshot] = Pending()

        def look() -> None:
            found = {k: entry for k, entry in self.entries.items() if k.startswith(prefix)}
            snapshot = Snapshot(self.revision, found)
            self._later(lambda: pending.complete(snapshot))

        self._ask(pending, look)
        return pending

    def transact(self, compares: Sequence[Compare], writes: Sequence[Write]) -> Pending[Outcome]:
        pending: Pending[Outcome] = Pending()

        def answer(outcome: Outcome) -> None:
            self._later(lambda: pending.complete(outcome))

        def do() -> None:
            if self._rng.random() >= self._unknown:
                answer(self._apply(compares, writes))
                return
            fate = self._rng.choice(("applied", "lost", "late"))
            if fate == "applied":
                self._apply(compares, writes)
            elif fate == "late":
                self._later(lambda: self._linger(compares, writes))
            answer(Unknown())

        self._ask(pending, do)
        return pending

    def watch(
        self, prefix: str, from_revision: int, on_event: Callable[[WatchEvent], None]
    ) -> SimWatch:
        watch = SimWatch(prefix, on_event)
        self._watches.append(watch)
        for update in self.history:
            if update.revision >= from_revision:
                self._offer(watch, update)
        return watch

    def close(self) -> None:
        self._closed = True

    def run(self) -> None:
        """Go on until nothing is left to do."""
        while self._actions:
            self.step()

    def step(self) -> None:
        """Do one thing, whichever."""
        if self._actions:
            at = self._rng.randrange(len(self._actions))
            self._actions[at], self._actions[-1] = self._actions[-1], self._actions[at]
            self._actions.pop()()

    def _ask(self, pending: Pending[Snapshot] | Pending[Outcome], act: Callable[[], None]) -> None:
        if self._closed:
            pending.fail(StoreError("the simulated store is closed"))
        else:
            self._later(act)

    def _later(self, action: Callable[[], None]) -> None:
        self._actions.append(action)
        if self._wake is not None:
            self._wake(self.step)

    def _linger(self, compares: Sequence[Compare], writes: Sequence[Write]) -> None:
        """A transaction that is still under way: it may arrive at any time."""
        if self._rng.random() < _LINGERS:
            self._later(lambda: self._linger(compares, writes))
        else:
            self._apply(compares, writes)

    def _apply(self, compares: Sequence[Compare], writes: Sequence[Write]) -> Outcome:
        if not all(holds(compare, self.entries.get(compare.key)) for compare in compares):
            return Failed(self.revision)
        self.revision += 1
        changed: dict[str, Entry | None] = {}
        for write in writes:
            self._write(write, changed)
        update = Update(self.revision, changed)
        self.history.append(update)
        for watch in self._watches:
            self._offer(watch, update)
        return Applied(self.revision)

    def _write(self, write: Write, changed: dict[str, Entry | None]) -> None:
        match write:
            case Put(key, value):
                before = self.entries.get(key)
                created = before.create_revision if before else self.revision
                self.entries[key] = changed[key] = Entry(value, created, self.revision)
            case Delete(key):
                if self.entries.pop(key, None) is not None:
                    changed[key] = None
            case DeletePrefix(prefix):
                for key in [one for one in self.entries if one.startswith(prefix)]:
                    del self.entries[key]
                    changed[key] = None

    def _offer(self, watch: SimWatch, update: Update) -> None:
        entries = {k: v for k, v in update.entries.items() if k.startswith(watch.prefix)}
        watch.queue.append(Update(update.revision, entries))
        self._later(lambda: self._deliver(watch))

    def _deliver(self, watch: SimWatch) -> None:
        """Deliver the oldest of what waits: in order, whichever action it is that does it."""
        if watch.cancelled or not watch.queue:
            return
        if self._rng.random() < self._gaps:
            watch.queue.clear()
            watch.cancelled = True
            self._watches.remove(watch)
            watch.on_event(Compacted(self.revision))
        else:
            watch.on_event(watch.queue.popleft())
