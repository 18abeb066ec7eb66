"""Which batches of a log belong to transactions that were taken back, batch by batch in order.

Owns what a compaction must remember of transactions on its way through a log. Must not read files:
whoever walks says what it meets. As Kafka's CleanedTransactionMetadata.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ottla.records.batch import TRANSACTIONAL_BIT, BatchView
from ottla.records.control import ControlType, end_marker_of
from ottla.storage.aborted import Aborted


class Transactions:
    """Told of every batch up to the last stable offset, once, in order.

    `aborted` are those that may have begun there. What is left out of it is taken for committed.
    """

    __slots__ = ("_begun", "_committed", "_next", "_seen", "_waiting", "observed")

    def __init__(self, aborted: Iterable[Aborted]) -> None:
        self._waiting: Iterator[Aborted] = iter(sorted(aborted, key=lambda one: one.first_offset))
        self._next = next(self._waiting, None)
        self._begun: dict[int, Aborted] = {}
        self._seen: set[int] = set()
        self._committed: set[int] = set()
        self.observed: list[Aborted] = []
        """Aborted transactions of which something was met, as their markers come by."""

    def data(self, batch: BatchView) -> bool:
        """Whether a batch of records was taken back, and goes."""
        if not batch.attributes & TRANSACTIONAL_BIT:
            return False
        self._begin(batch.last_offset)
        if batch.producer_id in self._begun:
            self._seen.add(batch.producer_id)
            return True
        self._committed.add(batch.producer_id)
        return False

    def control(self, batch: BatchView) -> bool:
        """Whether nothing of a marker's transaction was met any more: then it may go, in time.

        Raises RecordError.
        """
        self._begin(batch.last_offset)
        if batch.records_count == 0:
            return True  # kept for its producer's epoch alone
        marker = end_marker_of(batch)
        if marker is None:
            return False  # of a kind that we don't know
        producer_id = batch.producer_id
        if marker.type == ControlType.COMMIT:
            known = producer_id in self._committed
            self._committed.discard(producer_id)
            return not known
        aborted = self._begun.pop(producer_id, None)
        if producer_id not in self._seen:
            return True
        self._seen.discard(producer_id)
        assert aborted is not None, "what was seen of it was seen because it had begun"
        self.observed.append(aborted)
        return False

    def _begin(self, offset: int) -> None:
        while self._next is not None and self._next.first_offset <= offset:
            self._begun.setdefault(self._next.producer_id, self._next)
            self._next = next(self._waiting, None)
