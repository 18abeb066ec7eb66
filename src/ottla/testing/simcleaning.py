"""Compaction on a simulated disk: the port `cleaner.Work`, done by a later turn of the loop.

Owns what stands in for the worker process. Must not be kinder than that: plans and results travel
as copies, and what it holds between two pieces of a round is gone after a crash.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from typing import TypeVar

from ottla.core.pending import Pending
from ottla.core.ports import DiskError
from ottla.storage.cleaner.cleaner import Failure
from ottla.storage.cleaner.round import Cleaned, Noted, Piece, Plan, Round, Uncleanable
from ottla.testing.simdisk import SimDisk
from ottla.testing.simloop import SimLoop

T = TypeVar("T")


class SimWork:
    """One round at a time, on a disk that may refuse and crash."""

    def __init__(self, disk: SimDisk, loop: SimLoop) -> None:
        self._disk = disk
        self._loop = loop
        self._boot = disk.boots
        self._round: Round | None = None
        self.ends = False
        """Whether the worker ends instead of doing the next piece."""
        self.rests_count = 0

    def note(self, plan: Plan, bytes_per_s_max: float) -> Pending[Noted | Failure]:
        assert bytes_per_s_max > 0, "a pace that would never end"
        sent = pickle.dumps(plan)

        def work() -> Noted:
            self._round = Round(self._disk, pickle.loads(sent), lambda _count: None)
            return self._round.note()

        return self._do(work)

    def clean(self, group: Sequence[Piece]) -> Pending[Cleaned | Failure]:
        sent = pickle.dumps(group)

        def work() -> Cleaned | Failure:
            if self._round is None:
                return Failure("the worker process was started anew", lasting=False)
            return self._round.clean(pickle.loads(sent))

        return self._do(work)

    def rest(self) -> None:
        self._round = None
        self.rests_count += 1

    def _do(self, work: Callable[[], T]) -> Pending[T | Failure]:
        pending: Pending[T | Failure] = Pending()

        def run() -> None:
            if self._boot != self._disk.boots:
                return  # of a process that is no more
            outcome: T | Failure
            blocked, self._disk.on_loop = self._disk.on_loop, False
            try:
                if self.ends:
                    self._round, self.ends = None, False
                    outcome = Failure("the worker process ended", lasting=False)
                else:
                    outcome = pickle.loads(pickle.dumps(work()))
            except (Uncleanable, DiskError) as error:
                outcome = Failure(str(error), isinstance(error, Uncleanable))
            finally:
                self._disk.on_loop = blocked
            pending.complete(outcome)

        self._loop.soon(run)
        return pending
