"""The history of leader epochs of a partition: which epoch began at which offset.

Owns the list and its text form, Kafka's `leader-epoch-checkpoint`. Must not write the file: the
log does, before the first append of an epoch. Sources: KIP-101, KIP-279.
"""

from __future__ import annotations

from bisect import bisect_right

from ottla.core.model import LeaderEpoch, Offset

FILE_NAME = "leader-epoch-checkpoint"
NO_EPOCH = LeaderEpoch(-1)


class LeaderEpochs:
    """Epochs and the offsets they start at; both rise strictly."""

    __slots__ = ("_epochs", "_starts", "latest")

    def __init__(self, entries: list[tuple[LeaderEpoch, Offset]] | None = None) -> None:
        self._epochs: list[LeaderEpoch] = []
        self._starts: list[Offset] = []
        self.latest = NO_EPOCH
        for epoch, start in entries or []:
            self.assign(epoch, start)

    def entries(self) -> list[tuple[LeaderEpoch, Offset]]:
        """(epoch, first offset), oldest first."""
        return list(zip(self._epochs, self._starts, strict=True))

    def assign(self, epoch: LeaderEpoch, start: Offset) -> bool:
        """Let `epoch` begin at `start`; False if it is not newer than all that are known.

        An epoch that turns out to have written nothing gives way to the next.
        """
        if epoch <= self.latest:
            return False
        while self._starts and self._starts[-1] >= start:
            self._starts.pop()
            self._epochs.pop()
        self._epochs.append(epoch)
        self._starts.append(start)
        self.latest = epoch
        return True

    def end_of(self, epoch: LeaderEpoch, log_end: Offset) -> tuple[LeaderEpoch, Offset]:
        """(largest known epoch <= `epoch`, the offset at which it ends); (-1, -1) if none.

        What OffsetForLeaderEpoch answers (KIP-320).
        """
        at = bisect_right(self._epochs, epoch)
        if epoch < 0 or at == 0:
            return NO_EPOCH, Offset(-1)
        end = self._starts[at] if at < len(self._starts) else log_end
        return self._epochs[at - 1], end

    def epoch_at(self, offset: Offset) -> LeaderEpoch:
        """The epoch that wrote `offset`; -1 if unknown."""
        at = bisect_right(self._starts, offset)
        return self._epochs[at - 1] if at else NO_EPOCH

    def truncate(self, end: Offset) -> None:
        """Forget epochs that begin at or after `end`: what they wrote is not there."""
        while self._starts and self._starts[-1] >= end:
            self._starts.pop()
            self._epochs.pop()
        self.latest = self._epochs[-1] if self._epochs else NO_EPOCH

    def raise_start(self, start: Offset) -> None:
        """Forget epochs that ended at or before `start`; the one in force there begins there."""
        keep = max(bisect_right(self._starts, start) - 1, 0)
        del self._epochs[:keep], self._starts[:keep]
        if self._starts and self._starts[0] < start:
            self._starts[0] = start
