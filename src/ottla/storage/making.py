"""Files being made for a log, one lot at a time, and who waits for them.

Owns the waiting alone: which files, and when they are needed, the log knows. While a lot is being
made nothing is appended, rolled or deleted, so that each of these finds the files of one state.
"""

from __future__ import annotations

from collections.abc import Callable

from ottla.core.pending import Pending
from ottla.core.ports import DiskError


class Making:
    """What is being made for one log."""

    __slots__ = ("waiting",)

    def __init__(self) -> None:
        self.waiting: list[Pending[None]] | None = None
        """Who waits, while something is being made; else None. Every append asks."""

    def begin(self) -> Pending[None]:
        """Something is being made from here on; done, or failed with DiskError, when it is."""
        assert self.waiting is None, "begun while files are being made"
        pending: Pending[None] = Pending()
        self.waiting = [pending]
        return pending

    def wait(self) -> Pending[None]:
        """As `begin`, for one more who needs what is being made already."""
        assert self.waiting is not None, "nothing is being made"
        pending: Pending[None] = Pending()
        self.waiting.append(pending)
        return pending

    def end(self, error: DiskError | None) -> None:
        """It is made, or refused; tell everybody."""
        waiting, self.waiting = self.waiting or [], None
        for pending in waiting:
            if error is None:
                pending.complete(None)
            else:
                pending.fail(error)

    def when_idle(self, call: Callable[[], None]) -> None:
        """Call once nothing is being made: deletion must not race with creation."""
        if self.waiting is None:
            call()
        else:
            self.wait().then(call)
