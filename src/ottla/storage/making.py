"""Files being made for a log, one lot at a time, and who waits for them.

Owns the waiting, and what is asked of the disk for it; which files, when they are needed and what
they are to the log, the log knows. While a lot is being made nothing is appended, rolled or
deleted, so that each of these finds the files of one state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from ottla.core.pending import Pending
from ottla.core.ports import CreateFile, Disk, DiskError, File, ReserveSpace, Step, UnlinkFile


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

    def make(self, disk: Disk, step: CreateFile, made: Callable[[File], None]) -> Pending[None]:
        """As `begin`, where one file is all there is to it: `made` is given it before anybody is
        told."""
        pending = self.begin()
        making = disk.perform([step])

        def finish() -> None:
            try:
                [file] = making.result()
            except DiskError as error:
                self.end(error)
                return
            made(file)
            self.end(None)

        making.then(finish)
        return pending

    def unmake(
        self, disk: Disk, steps: Sequence[Step], error: DiskError, gone: Callable[[], None]
    ) -> None:
        """Remove what a refused lot has made, as well as it goes; then `gone`, then tell everybody
        the `error` that it was refused with."""
        removing = disk.perform([UnlinkFile(one.path) for one in steps if type(one) is CreateFile])

        def finish() -> None:
            with suppress(DiskError):
                removing.result()
            gone()
            self.end(error)

        removing.then(finish)

    def when_idle(self, call: Callable[[], None]) -> None:
        """Call once nothing is being made: deletion must not race with creation."""
        if self.waiting is None:
            call()
        else:
            self.wait().then(call)


def reserve(disk: Disk, file: File, position: int, length: int) -> None:
    """Ask for blocks and don't wait: it only makes the writes to come cheaper."""
    file.retain()
    pending = disk.perform([ReserveSpace(file, position, length)])

    def finish() -> None:
        file.release()
        with suppress(DiskError):  # a hint: the write itself will say if the disk is full
            pending.result()

    pending.then(finish)
