"""Answers to a socket: bytes and file slices, in order, without blocking and without copying files.

Owns what has been handed over for sending and is not sent: every slice in here is released
exactly once, sent or dropped. One `Sender` is the only writer of its socket. Must not know
requests or frames.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections import deque
from collections.abc import Callable

from ottla.core.metrics import SentTally
from ottla.core.model import FileSlice
from ottla.core.ports import DiskError
from ottla.protocol.frame import Chunk

PORTABLE = sys.platform != "linux" or os.environ.get("OTTLA_PORTABLE") in ("1", "server")
"""Whether files are read and sent, instead of sendfile (whose form differs between systems), and
the loop is asyncio's own."""
COPYING = PORTABLE or os.environ.get("OTTLA_PORTABLE") == "sending"
"""The first of the two alone: so `ottla bench techniques` sees what sendfile is worth."""

_MSG_MORE: int = getattr(socket, "MSG_MORE", 0)
_SEND_BYTES_MAX = 1 << 20  # per turn of the loop, so that one fast reader does not hold up others
_PIECE_BYTES = 128 << 10  # read and sent at once where there is no sendfile
_INLINE_BYTES_MAX = 32 << 10  # a slice up to this is read and joined to the bytes around it
_INLINE_BYTES_TOGETHER = 128 << 10  # of one send


_NAMES = ("EIO", "EBADMSG", "EILSEQ", "ENODATA", "ENOLINK", "EREMOTEIO", "ESTALE", "EUCLEAN")
_OF_THE_DISK = frozenset(getattr(errno, name, errno.EIO) for name in _NAMES)
"""What a read of a file may fail with, and no send to a socket does: bad sectors and checksums (as
devices and file systems tell of them), a transport that is gone, a file that a server has lost."""


class SliceCutShort(Exception):
    """The file ended before the slice did, or the disk refuses the rest of it.

    The frame's size is out already: nothing can mend it. Whoever asks again is answered, or told
    KAFKA_STORAGE_ERROR where the bytes are to be read from the disk and can't.
    """


class Sender:
    """Sends chunks in order; what the socket does not take waits until it is writable.

    `queued` and `sent` count bytes since the beginning, as far as they could not leave at once.
    """

    __slots__ = (
        "_at", "_ends", "_fd", "_on_progress", "_portable", "_queue", "_socket", "_tally", "queued",
        "sent",
    )  # fmt: skip

    def __init__(
        self,
        sock: socket.socket,
        on_progress: Callable[[int, int], None],
        portable: bool = PORTABLE,
        tally: SentTally | None = None,
    ) -> None:
        """`on_progress(answers, bytes of memory)` tells what `writable` has got rid of. `tally`
        counts the bytes of logs, for all senders of a node."""
        self._socket = sock
        self._fd = sock.fileno()
        self._on_progress = on_progress
        self._portable = portable
        self._tally = tally or SentTally()
        self._queue: deque[Chunk] = deque()
        self._at = 0  # how much of the first chunk is sent
        self._ends: deque[tuple[int, int, int]] = deque()  # of each call: end, answers, memory
        self.queued = 0
        self.sent = 0

    @property
    def blocked(self) -> bool:
        """Whether something waits: call `writable` when the socket is."""
        return bool(self._queue)

    def send(self, chunks: list[Chunk], sliced: bool, answers: int, memory: int) -> bool:
        """Send `answers` answers that hold `memory` bytes; True if all has left at once.

        What has not is reported later by `on_progress`. Raises OSError or SliceCutShort.
        """
        if sliced:
            chunks = _inlined(chunks, self._tally)
            if len(chunks) > 1:
                return self._send_sliced(chunks, answers, memory)
        data: bytes = b"".join(chunks) if len(chunks) > 1 else chunks[0]  # type: ignore[arg-type, assignment]
        if self._queue:
            self._enqueue([data], answers, memory)
            return False
        return self.send_first(data, answers, memory)

    def send_first(self, data: bytes, answers: int, memory: int) -> bool:
        """`send` for bytes, when nothing waits."""
        try:
            count = self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            count = 0
        if count == len(data):
            return True
        self._enqueue([data], answers, memory)
        if count:
            self._advance(count)
        return False

    def writable(self) -> None:
        """Send on. Raises OSError or SliceCutShort."""
        self._push()
        answers = memory = 0
        ends, sent = self._ends, self.sent
        while ends and ends[0][0] <= sent:
            _, batch_answers, batch_memory = ends.popleft()
            answers += batch_answers
            memory += batch_memory
        self._on_progress(answers, memory)

    def close(self) -> None:
        """Drop what is not sent."""
        queue = self._queue
        while queue:
            chunk = queue.popleft()
            if isinstance(chunk, FileSlice):
                chunk.release()
        self._ends.clear()

    def _send_sliced(self, chunks: list[Chunk], answers: int, memory: int) -> bool:
        blocked = bool(self._queue)
        self._enqueue(chunks, answers, memory)
        if blocked:
            return False
        self._push()
        if self._queue:
            return False
        self._ends.clear()
        return True

    def _enqueue(self, chunks: list[Chunk], answers: int, memory: int) -> None:
        self._queue.extend(chunks)
        for chunk in chunks:
            self.queued += len(chunk)
        self._ends.append((self.queued, answers, memory))

    def _push(self) -> None:
        """Send until the queue is empty, the socket is full, or this turn has sent enough."""
        queue = self._queue
        stop = self.sent + _SEND_BYTES_MAX
        try:
            while queue and self.sent < stop:
                head = queue[0]
                if isinstance(head, FileSlice):
                    wanted = head.length - self._at
                    count = self._send_slice(head, wanted)
                    if count == 0:
                        raise SliceCutShort(
                            f"{head.file.path} ended {wanted} bytes before a slice of {head.length}"
                            f" bytes at {head.position} did"
                        )
                else:
                    wanted = len(head) - self._at
                    data = memoryview(head)[self._at :] if self._at else head
                    # The header of what follows need not travel alone.
                    more = len(queue) > 1
                    count = self._socket.send(data, _MSG_MORE if more else 0)
                self._advance(count)
                if count < wanted and not (self._portable and isinstance(head, FileSlice)):
                    return  # the socket is full: asking it again would only say so
        except (BlockingIOError, InterruptedError):
            pass

    def _send_slice(self, piece: FileSlice, wanted: int) -> int:
        position = piece.position + self._at
        if not self._portable:
            try:
                fd = piece.file.fileno()
            except DiskError as error:
                raise SliceCutShort(str(error)) from error
            try:
                count = os.sendfile(self._fd, fd, position, wanted)
            except OSError as error:
                if error.errno not in _OF_THE_DISK:  # else it is the socket's
                    raise
                piece.file.refused(position)
                raise SliceCutShort(str(DiskError("read", piece.file.path, error))) from error
            self._tally.sendfile += count
            return count
        # Blocks on a cold page; where sendfile is not to be had, so does everything.
        try:
            data = piece.file.read(position, min(wanted, _PIECE_BYTES))
        except DiskError as error:
            raise SliceCutShort(str(error)) from error
        count = self._socket.send(data) if data else 0
        self._tally.copied += count
        return count

    def _advance(self, count: int) -> None:
        self.sent += count
        queue = self._queue
        self._at += count
        head = queue[0]
        if self._at == len(head):
            self._at = 0
            queue.popleft()
            if isinstance(head, FileSlice):
                head.release()


def _inlined(chunks: list[Chunk], tally: SentTally) -> list[Chunk]:
    """The same bytes, with small slices read and joined to what stands around them.

    One call to send and one to read cost less than the three that a header and a sendfile take.
    What can't be read here stays a slice: sendfile waits for cold pages, and reports errors.
    """
    joined: list[Chunk] = []
    run: list[bytes] = []
    left = _INLINE_BYTES_TOGETHER
    for chunk in chunks:
        if not isinstance(chunk, FileSlice):
            run.append(chunk)
            continue
        if chunk.length <= _INLINE_BYTES_MAX and chunk.length <= left:
            try:
                data = chunk.file.read_nowait(chunk.position, chunk.length)
            except DiskError:
                data = None
            if data is not None and len(data) == chunk.length:
                run.append(data)
                left -= len(data)
                chunk.release()
                continue
        if run:
            joined.append(b"".join(run))
            run = []
        joined.append(chunk)
    if run:
        joined.append(b"".join(run))
    tally.copied += _INLINE_BYTES_TOGETHER - left
    return joined
