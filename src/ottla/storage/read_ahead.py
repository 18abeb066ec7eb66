"""How far a segment has been read ahead of those who read old records, and reading on.

Owns one range of one file: what the disk's threads have brought in, and what they are at. Must not
read: a thread of the disk does, and the kernel keeps the pages.

The kernel reads ahead by itself, but in the thread that comes upon the edge of what it has: there
that takes 0.4 to 0.7 ms for 8 MiB, and a page that is on its way is waited for. So the loop stays
away from the edge. What reaches past it is given to a thread, which reads the same and several
times as much behind it; what lies within is there, and is sent by sendfile as ever.
"""

from __future__ import annotations

from ottla.core.model import FileSlice
from ottla.core.pending import Pending
from ottla.core.ports import Disk, DiskError, File

_TIMES = 8
"""How much is brought in for what one read wants, so that one of so many goes to a thread."""
_BYTES_MAX = 8 << 20
"""Of what nobody has asked for yet."""
_UNDER_WAY_MAX = 4
"""Pieces of a segment that are read ahead of somebody at a time. Who reads here and there would
otherwise ask for more than a slow disk can read, and what waits for it would never become less."""


class ReadAhead:
    """What was read last by a thread: [`_begin`, `_through`) is in, up to `_until` on its way.

    A hint: of several who read different places of a segment the last counts, one of two in the
    same place may get ahead of what is on its way, and the kernel may have pushed pages out again.
    So each read asks for some of its pages besides; who is mistaken waits for a disk once.
    """

    __slots__ = ("_begin", "_through", "_under_way", "_until")

    def __init__(self) -> None:
        self._begin = self._through = self._until = -1
        self._under_way = 0

    def at_edge(self, start: int, end: int) -> bool:
        """Whether bytes begin in what is in or on its way, and reach past what is in."""
        return end > self._through and self._begin <= start <= self._until

    def holds(self, start: int, end: int) -> bool:
        """Whether all was brought in; it may have been pushed out again since."""
        return self._begin <= start and end <= self._through

    def bring(self, disk: Disk, piece: FileSlice, limit: int) -> Pending[None]:
        """Bring a piece in, and then what lies behind it, up to `limit`. Fails with DiskError."""
        start, end = piece.position, piece.position + piece.length
        elsewhere = not self._begin <= start <= self._until
        pushed_out = end <= self._through  # it was in, and yet it is wanted
        if elsewhere or pushed_out:
            self._begin = self._through = self._until = start
        result: Pending[None] = Pending()
        bringing = disk.warm(piece)

        def brought() -> None:
            try:
                bringing.result()
            except DiskError as error:
                result.fail(error)
            else:
                self._reached(start, end)
                result.complete(None)

        bringing.then(brought)
        if end > self._until:
            self._until = end
            more = min((_TIMES - 1) * piece.length, _BYTES_MAX)
            self._go_on(disk, piece.file, end, min(end + more, limit))
        return result

    def _go_on(self, disk: Disk, file: File, start: int, end: int) -> None:
        if end <= start or self._under_way == _UNDER_WAY_MAX:
            return
        self._under_way += 1
        self._until = end
        ahead = FileSlice(file, start, end - start)
        bringing = disk.warm(ahead, ahead=True)

        def brought() -> None:
            self._under_way -= 1
            ahead.release()
            try:
                bringing.result()
            except DiskError:
                return  # whoever wants it learns of it by its own reading
            self._reached(start, end)

        bringing.then(brought)

    def _reached(self, start: int, end: int) -> None:
        if self._begin <= start <= self._until:
            self._through = max(self._through, end)
