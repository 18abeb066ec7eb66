"""Transactions of a partition whose outcome is not for readers yet: the last stable offset.

Owns which are open, and which have ended by a marker that is not committed. Must not judge who may
write (`producers`), nor know a high watermark but as the offset that `settle` is given.

A transaction begins with its first batch, at what is the end of the log then. So the order in
which they begin is that of their first offsets, and the first of them is the last stable offset.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator

from ottla.core.model import Offset
from ottla.storage.reading import LogPosition

OPEN = Offset(-1)


class Transaction:
    """One producer's transaction in this partition.

    `place` is where its first batch lies. `since_ms` is when that was written, by the wall clock;
    after a restart, the batch's own timestamp. `marker` is OPEN until it has ended.
    """

    __slots__ = ("epoch", "marker", "place", "producer_id", "since_ms")

    def __init__(self, producer_id: int, epoch: int, place: LogPosition, since_ms: int) -> None:
        self.producer_id = producer_id
        self.epoch = epoch
        self.place = place
        self.since_ms = since_ms
        self.marker = OPEN

    @property
    def first_offset(self) -> Offset:
        return self.place.offset


class Unstable:
    """The transactions that are not settled, by first offset; false if there is none."""

    __slots__ = ("_by_first", "ended", "first")

    def __init__(self) -> None:
        # Ordered, because the first of a plain dict is slow to find once many have left it there.
        self._by_first: OrderedDict[Offset, Transaction] = OrderedDict()
        self.ended: deque[Transaction] = deque()
        """Those whose markers may not be committed yet: something to settle, if there are any."""
        self.first: Transaction | None = None
        """The one that holds back the last stable offset."""

    def __len__(self) -> int:
        return len(self._by_first)

    def begin(self, transaction: Transaction) -> None:
        """A transaction's first batch is in the log, behind all that was there."""
        first_offset = transaction.place.offset
        assert first_offset not in self._by_first, "two batches at one offset"
        self._by_first[first_offset] = transaction
        if self.first is None:
            self.first = transaction

    def end(self, transaction: Transaction, marker: Offset) -> None:
        """Its marker is in the log. It holds readers back until that is committed."""
        assert transaction.marker == OPEN, "a transaction ends once"
        transaction.marker = marker
        self.ended.append(transaction)

    def settle(self, high_watermark: Offset) -> None:
        """Markers below the high watermark are committed: what they ended is for all to see."""
        ended, by_first = self.ended, self._by_first
        while ended and ended[0].marker < high_watermark:
            del by_first[ended.popleft().place.offset]
        self.first = next(iter(by_first.values())) if by_first else None

    def open(self) -> Iterator[Transaction]:
        """Those without a marker, the one that began first at first."""
        return (one for one in self._by_first.values() if one.marker == OPEN)

    def stable_after(self, ending: Transaction, marker: Offset) -> Offset:
        """The last stable offset once `ending` has ended at `marker` and all is committed."""
        others = (one.first_offset for one in self.open() if one is not ending)
        return next(others, Offset(marker + 1))
