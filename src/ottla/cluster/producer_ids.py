"""ProducerIds: ids for idempotent producers, each given out once, whatever happens.

Owns this node's block of ids. A block belongs to a node once the store's counter has durably
moved past it; what a node has not given out when it stops is lost, as in Apache Kafka.
"""

from __future__ import annotations

from collections import deque

from ottla.cluster import keys
from ottla.cluster.store import (
    Absent,
    Applied,
    MetadataStore,
    Outcome,
    Put,
    Snapshot,
    StoreError,
    UnchangedSince,
)
from ottla.core.model import ProducerId
from ottla.core.pending import Pending, completed

BLOCK_SIZE = 1000
ATTEMPTS_MAX = 10


class ProducerIds:
    __slots__ = ("_attempts", "_end", "_fetching", "_next", "_store", "_waiting")

    def __init__(self, store: MetadataStore) -> None:
        self._store = store
        self._next = 0
        self._end = 0
        self._attempts = 0
        self._fetching = False
        self._waiting: deque[Pending[ProducerId]] = deque()

    def next_producer_id(self) -> Pending[ProducerId]:
        """An id nobody else has. Fails with StoreError if no block can be had."""
        if self._next < self._end and not self._waiting:
            self._next += 1
            return completed(ProducerId(self._next - 1))
        pending: Pending[ProducerId] = Pending()
        self._waiting.append(pending)
        if not self._fetching:
            self._attempts = 0
            self._fetch()
        return pending

    def _fetch(self) -> None:
        self._fetching = True
        self._attempts += 1
        pending = self._store.read(keys.PRODUCER_IDS)
        pending.then(lambda: self._found(pending))

    def _found(self, pending: Pending[Snapshot]) -> None:
        try:
            entry = pending.result().entries.get(keys.PRODUCER_IDS)
            start = keys.decode(keys.PRODUCER_IDS, entry, lambda v: int(v["next"])) if entry else 0
        except StoreError as error:
            self._fail(error)
            return
        compare = (
            UnchangedSince(keys.PRODUCER_IDS, entry.mod_revision)
            if entry
            else Absent(keys.PRODUCER_IDS)
        )
        value = keys.encode({"next": start + BLOCK_SIZE})
        moved = self._store.transact([compare], [Put(keys.PRODUCER_IDS, value)])
        moved.then(lambda: self._moved(moved, start))

    def _moved(self, pending: Pending[Outcome], start: int) -> None:
        try:
            outcome = pending.result()
        except StoreError as error:
            self._fail(error)
            return
        if isinstance(outcome, Applied):
            self._next, self._end = start, start + BLOCK_SIZE
            self._serve()
        elif self._attempts < ATTEMPTS_MAX:
            # Another node was faster; or it is unknown, and then that block is nobody's.
            self._fetch()
        else:
            self._fail(StoreError("no block of producer ids could be had from the store"))

    def _serve(self) -> None:
        self._fetching = False
        while self._waiting and self._next < self._end:
            self._next += 1
            self._waiting.popleft().complete(ProducerId(self._next - 1))
        if self._waiting and not self._fetching:
            self._attempts = 0
            self._fetch()

    def _fail(self, error: StoreError) -> None:
        self._fetching = False
        waiting, self._waiting = self._waiting, deque()
        for pending in waiting:
            pending.fail(error)
