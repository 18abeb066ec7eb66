"""How far a segment has been read ahead of those who read old records, and reading on.

Owns one range of one file: what the disk's threads have brought in, and what they are at. Must not
read: a thread of the disk does, and the kernel keeps the pages.

The kernel reads ahead by itself, but in the thread that comes upon the edge of what it has: there
that takes 0.4 to 0.7 ms for 8 MiB, and a page that is on its way is waited for. So the loop stays
away from the edge. What reaches past it is given to a thread, which reads the same and several
times as much behind it; what lies within is there, and is sent by sendfile as ever.

To be parked for a thread holds the loop for several times what a read from memory takes. So who
reads on does not get to the edge either: the next piece is asked for while he is half through.
"""

from __future__ import annotations

from collections.abc import Callable

from ottla.core.model import FileSlice
from ottla.core.pending import Pending
from ottla.core.ports import Disk, DiskError, File

_TIMES = 8
"""How much is brought in for what one read wants, so that one of so many goes to a thread."""
_BYTES_MAX = 8 << 20
"""Of what is asked for at a time. Half as much again may lie ahead of who reads on."""
_UNDER_WAY_MAX = 4
"""Pieces of a segment that are read ahead of somebody at a time. Who reads here and there would
otherwise ask for more than a slow disk can read, and what waits for it would never become less."""


class ReadAhead:
    """What was read last by threads: [`_begin`, `_through`) is in, up to `_until` on its way.

    A hint: of several who read different places of a segment the last counts, one of two in the
    same place may get ahead of what is on its way, and the kernel may have pushed pages out again.
    So each read asks for some of its pages besides; who is mistaken waits for a disk once.
    """

    __slots__ = ("_begin", "_disk", "_islands", "_through", "_under_way", "_until")

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._begin = self._through = self._until = -1
        self._islands: list[tuple[int, int]] = []
        """(start, end) of what is in behind something that is not: it is late, or unreadable."""
        self._under_way = 0

    def at_edge(self, start: int, end: int) -> bool:
        """Whether bytes begin in what is in or on its way, and reach past what is in."""
        return end > self._through and self._begin <= start <= self._until

    def holds(self, start: int, end: int) -> bool:
        """Whether all was brought in; it may have been pushed out again since."""
        return self._begin <= start and end <= self._through

    def go_on(self, file: File, start: int, end: int, limit: int) -> None:
        """Have more brought in, up to `limit`, if a read of what is in comes near its end."""
        if self._begin <= start and end <= self._through:
            more = _more(end - start)
            if self._until - end < more // 2 < limit - self._until:  # not for each record appended
                self._ask(file, self._until, more, limit)

    def bring(self, piece: FileSlice, needed: int, limit: int) -> Pending[None]:
        """Bring a piece in, of which `needed` bytes are, and what lies behind it up to `limit`.

        Fails with DiskError.
        """
        start, end = piece.position, piece.position + piece.length
        elsewhere = not self._begin <= start <= self._until
        pushed_out = end <= self._through  # it was in, and yet it is wanted
        if elsewhere or pushed_out:
            self._begin = self._through = self._until = start
            self._islands.clear()

        def brought(length: int) -> None:
            if self._through < start <= self._until:  # go on from here, whatever lies before
                self._begin = self._through = start
            self._reached(start, start + length)

        result = bring_in(self._disk, piece, needed, brought)
        if end > self._until:
            self._until = end
            self._ask(piece.file, end, _more(piece.length), limit)
        return result

    def _ask(self, file: File, start: int, more: int, limit: int) -> None:
        end = min(start + more, limit)
        if limit - end < more // 2:
            end = limit  # or its last bytes would have to be waited for
        if file.unreadable:
            end = start + readable(file.unreadable, start - 1, end - start + 1) - 1
        if end <= start or self._under_way == _UNDER_WAY_MAX:
            return
        self._under_way += 1
        self._until = end
        ahead = FileSlice(file, start, end - start)
        bringing = self._disk.warm(ahead, ahead=True)

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
        """Never past a gap: what the disk could not read is not to be taken for being there."""
        if not self._begin <= start <= self._until:
            return
        islands = self._islands
        islands.append((start, end))
        islands.sort()
        while islands and islands[0][0] <= self._through:
            self._through = max(self._through, islands.pop(0)[1])


def bring_in(
    disk: Disk, piece: FileSlice, needed: int, learn: Callable[[int], None] | None = None
) -> Pending[None]:
    """Bring a piece in; where the disk can't, its first `needed` bytes. Fails with DiskError.

    So an unreadable sector keeps nobody from what lies before it: where one was met that was not
    known of, it doesn't fail, and who asks again is given less. `learn` is told how many came.
    """
    result: Pending[None] = Pending()
    file = piece.file
    known = file.unreadable

    def begin(part: FileSlice) -> None:
        bringing = disk.warm(part)
        bringing.then(lambda: brought(part, bringing))

    def brought(part: FileSlice, bringing: Pending[None]) -> None:
        length = part.length
        if part is not piece:
            part.release()
        try:
            bringing.result()
        except DiskError as error:
            if is_news(file, known, piece.position, piece.position + needed):
                result.complete(None)
            elif length > needed:
                begin(FileSlice(file, piece.position, needed))
            else:
                result.fail(error)
        else:
            if learn is not None:
                learn(length)
            result.complete(None)

    begin(piece)
    return result


def is_news(file: File, known: tuple[int, ...], start: int, end: int) -> bool:
    """Whether it was found meanwhile that some of these bytes, not the first, are unreadable."""
    return any(start < at < end and at not in known for at in file.unreadable)


def readable(unreadable: tuple[int, ...], position: int, length: int) -> int:
    """How many of `length` bytes come before the first that is unreadable behind `position`."""
    return min([length, *(at - position for at in unreadable if at > position)])


def _more(length: int) -> int:
    return min((_TIMES - 1) * length, _BYTES_MAX)
