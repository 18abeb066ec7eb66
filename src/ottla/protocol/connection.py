"""A server's side of one connection: bytes in, requests out, answers in order.

Owns the receive buffer, the limits on what a peer may claim, and the queue that keeps answers in
the order of their requests. Must not touch a socket, a clock or a message.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from struct import Struct

from ottla.core.model import FileSlice
from ottla.core.value import Value
from ottla.protocol.frame import SIZE_BYTES, Chunk

_unpack_size = Struct(">i").unpack_from

BUFFER_BYTES_IDLE = 4 << 10
"""What an idle connection holds: 10,000 of them are 40 MB."""

_BUFFER_STEP = 16 << 10
_BUFFER_BYTES_MANY = 64 << 10  # how far many small frames together may widen the buffer
_LARGE_FRAME = 8 << 10  # from here on a frame is received alone, so that nothing has to be shifted


class PeerError(Exception):
    """The peer does not speak the protocol or goes past a limit: its connection ends.

    `hint` is a sentence for the log where the bytes look like a known mistake.
    """

    def __init__(self, reason: str, hint: str | None = None) -> None:
        super().__init__(reason)
        self.hint = hint


class ConnectionLimits(Value):
    """What one connection may take. Sizes in bytes, times in seconds.

    Reaching `frame_bytes_max` or one of the times closes the connection; reaching
    `requests_max` or `output_bytes_max` stops reading until answers have left.
    """

    frame_bytes_max: int = 100 << 20  # socket.request.max.bytes
    requests_max: int = 64
    output_bytes_max: int = 4 << 20
    first_frame_s: float = 10.0
    frame_s: float = 30.0
    bytes_per_s_min: int = 1024
    idle_s: float = 600.0  # connections.max.idle.ms
    write_s: float = 60.0  # connection.write.timeout


class ReceiveMemory:
    """What all connections together hold in receive buffers (queued.max.request.bytes).

    The first BUFFER_BYTES_IDLE of each connection are free of charge. -1: no limit. One holder at
    a time may go past the limit, or requests that are half there would wait for one another.
    """

    __slots__ = ("_beyond", "_waiting", "bytes_max", "used")

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.used = 0
        self._beyond: object = None
        self._waiting: dict[Callable[[], None], None] = {}

    @property
    def is_short(self) -> bool:
        """Whether someone waits: who needs nothing just now gives back what it has."""
        return bool(self._waiting)

    def take(self, count: int, holder: object) -> bool:
        """Whether `holder` may have `count` more bytes; if so, it has them."""
        if self.used + count > self.bytes_max >= 0:
            if self._beyond is None:
                self._beyond = holder
            elif self._beyond is not holder:
                return False
        self.used += count
        return True

    def give(self, count: int, holder: object) -> None:
        """Give bytes back; everyone who waits is told to try again."""
        self.used -= count
        assert self.used >= 0, self.used
        if self._beyond is holder or self.used <= self.bytes_max:
            self._beyond = None
        if self._waiting and count:
            waiting, self._waiting = self._waiting, {}
            for call in waiting:
                call()

    def wait(self, call: Callable[[], None]) -> None:
        """Have `call` called once, when there may be room again. It must only take note."""
        self._waiting[call] = None

    def forget(self, call: Callable[[], None]) -> None:
        """Whoever waited is gone."""
        self._waiting.pop(call, None)


class FrameBuffer:
    """Turns received bytes into frames. Owns the receive buffer."""

    __slots__ = ("_buffer", "_capacity", "_end", "_frame_bytes_max", "_memory", "_peak", "_start")

    def __init__(self, frame_bytes_max: int, memory: ReceiveMemory) -> None:
        self._frame_bytes_max = frame_bytes_max
        self._memory = memory
        self._capacity = BUFFER_BYTES_IDLE
        self._buffer = memoryview(bytearray(BUFFER_BYTES_IDLE))
        self._start = self._end = 0
        self._peak = 0  # the largest frame since the last call of relax()

    @property
    def capacity(self) -> int:
        return self._capacity

    @property
    def partial_bytes(self) -> int:
        """Bytes that arrived and are not yielded yet."""
        return self._end - self._start

    def room(self) -> memoryview | None:
        """Where the driver may receive next; None when there is no memory to grow into.

        Grows with what has arrived, not with what a frame claims. Every frame yielded before must
        be done with, and no whole frame may be left inside.
        """
        start, end = self._start, self._end
        arrived = end - start
        if arrived == 0:
            if self._capacity > BUFFER_BYTES_IDLE and self._memory.is_short:
                self.relax(busy=False)
                return self._buffer
            self._start = self._end = 0
            if end == self._capacity < _BUFFER_BYTES_MANY:  # small frames filled all there was
                self._grow(2 * end)
            return self._buffer
        if arrived < SIZE_BYTES:
            whole = SIZE_BYTES
        else:
            whole = SIZE_BYTES + _unpack_size(self._buffer, start)[0]
            assert whole > arrived, "a whole frame was left in the buffer"
        if start + whole > self._capacity:
            # Assigning overlapping views of one buffer moves the bytes as memmove does.
            self._buffer[:arrived] = self._buffer[start:end]
            self._start, self._end = start, end = 0, arrived
            if end == self._capacity and not self._grow(min(whole, max(_BUFFER_STEP, 2 * arrived))):
                return None
        # A large frame is given exactly its rest: what follows then begins at the buffer's begin.
        stop = start + whole if whole >= _LARGE_FRAME else self._capacity
        return self._buffer[end : min(stop, self._capacity)]

    def received(self, count: int) -> Iterator[memoryview]:
        """Yield each frame that is now whole, without its size. Raises PeerError if one cannot be.

        A view is valid until the next call of room(). A driver that stops early goes on with
        received(0).
        """
        self._end += count
        buffer = self._buffer
        while True:
            begin = self._start + SIZE_BYTES
            if begin > self._end:
                return
            size = _unpack_size(buffer, self._start)[0]
            if not 0 <= size <= self._frame_bytes_max:
                raise _size_refused(size, self._frame_bytes_max, bytes(buffer[begin - 4 : begin]))
            stop = begin + size
            if stop > self._end:
                return
            if size >= self._peak:
                self._peak = size + SIZE_BYTES
            self._start = stop  # before the yield: a driver that stops here must not see it again
            yield buffer[begin:stop]

    def relax(self, busy: bool) -> None:
        """Give back what recent frames did not need, or all when idle. Ends the validity of room().

        To be called now and then while `capacity` is above BUFFER_BYTES_IDLE.
        """
        peak, self._peak = self._peak, 0
        wanted = max(BUFFER_BYTES_IDLE, peak) if busy else BUFFER_BYTES_IDLE
        if self._start == self._end and self._capacity > wanted * (4 if busy else 1):
            self._start = self._end = 0
            given, self._capacity = self._capacity - wanted, wanted
            self._buffer = memoryview(bytearray(wanted))
            self._memory.give(given, self)

    def close(self) -> None:
        """Give all back. Nothing may be received any more."""
        self._memory.give(self._capacity - BUFFER_BYTES_IDLE, self)
        self._capacity = BUFFER_BYTES_IDLE
        self._buffer = memoryview(b"")
        self._start = self._end = 0

    def _grow(self, capacity: int) -> bool:
        if not self._memory.take(capacity - self._capacity, self):
            return False
        grown = memoryview(bytearray(capacity))
        arrived = self._end - self._start
        grown[:arrived] = self._buffer[self._start : self._end]
        self._start, self._end = 0, arrived
        self._buffer, self._capacity = grown, capacity
        return True


class Slot:
    """The place of one answer in the order of answers. Empty until `chunks` is set."""

    __slots__ = ("chunks", "last", "size")

    def __init__(self) -> None:
        self.chunks: list[Chunk] | None = None
        self.size = 0
        self.last = False


class ServerConnection(FrameBuffer):
    """Requests in, answers out in the same order.

    What may be sent gathers in `out`; the driver takes it with `take`, and says with `left` how
    many answers have left for good. Until then they count as in process.
    """

    __slots__ = (
        "_bytes_max", "_held", "_held_bytes", "_requests_max", "_slots", "done_tally", "ended",
        "ending", "out", "out_answers", "out_memory", "out_sliced",
    )  # fmt: skip

    def __init__(self, limits: ConnectionLimits, memory: ReceiveMemory) -> None:
        super().__init__(limits.frame_bytes_max, memory)
        self._requests_max = limits.requests_max
        self._bytes_max = limits.output_bytes_max
        self._slots: deque[Slot] = deque()
        self._held = 0  # answers in `out` or taken, and not yet left
        self._held_bytes = 0  # their memory, and that of filled slots; slices hold none
        self.done_tally = 0
        """Requests that are through: their answer has left, or there was none."""
        self.ending = False
        """A last answer was given: no further request may be dispatched."""
        self.ended = False
        """The last answer is in `out` or was taken: close when all has left."""
        self.out: list[Chunk] = []
        self.out_answers = 0
        self.out_memory = 0
        self.out_sliced = False

    @property
    def in_process(self) -> int:
        """Requests yielded and not answered to the end."""
        return self._held + len(self._slots)

    def asked(self) -> int:
        """Requests since the beginning, but for the one that is being dispatched."""
        return self.done_tally + self._held + len(self._slots)

    @property
    def full(self) -> bool:
        """Whether no further request may be dispatched until answers have left.

        Answers that were joined count until all of them have left.
        """
        return (
            self._held + len(self._slots) >= self._requests_max
            or self._held_bytes >= self._bytes_max
        )

    def sole(self, count: int) -> memoryview | None:
        """The frame that `count` bytes just received are, if nothing else is under way here.

        It is yielded as by `received`, and leaves nothing behind that `room` would have to tidy: an
        answer that leaves at once need not pass through here at all. None, and nothing has
        happened, for whatever is not as simple: then call `received`.
        """
        if (
            self._end
            or self._held
            or self._slots
            or not SIZE_BYTES <= count < self._capacity
            or _unpack_size(self._buffer)[0] != count - SIZE_BYTES
            or count - SIZE_BYTES > self._frame_bytes_max
        ):
            return None
        if self._capacity != BUFFER_BYTES_IDLE:
            if self._memory.is_short:
                return None
            self._peak = max(self._peak, count)
        return self._buffer[SIZE_BYTES:count]

    def hold(self, size: int) -> None:
        """The answer to the `sole` request, of `size` bytes, is on its way and has not left.

        It was counted as one that is through.
        """
        self.done_tally -= 1
        self._held += 1
        self._held_bytes += size

    def answer(self, chunks: list[Chunk], last: bool = False) -> bool:
        """Answer the request yielded last. False means: dispatch nothing more for now."""
        if self._slots:
            slot = Slot()
            self._slots.append(slot)
            self._fill(slot, chunks, last)
        elif chunks:  # as _put_out does, without the call
            if len(chunks) == 1:
                memory = len(chunks[0])
            else:
                memory = _memory_of(chunks)
                self.out_sliced = True
            self.out += chunks
            self.out_answers += 1
            self.out_memory += memory
            self._held += 1
            self._held_bytes += memory
        else:
            self.done_tally += 1
        if last:
            self.ending = True
            self.ended = not self._slots
            return False
        return (  # not self.full, without the call
            self._held + len(self._slots) < self._requests_max
            and self._held_bytes < self._bytes_max
        )

    def park(self, slot: Slot) -> None:
        """Keep the place of an answer that is not there yet."""
        self._slots.append(slot)

    def fill(self, slot: Slot, chunks: list[Chunk], last: bool = False) -> list[Slot]:
        """Answer a parked request. Moves what is now in order to `out`.

        Returns the empty slots that are dropped since they stand behind a last answer.
        """
        self._fill(slot, chunks, last)
        self.ending = self.ending or last
        slots = self._slots
        while slots and slots[0].chunks is not None:
            head = slots.popleft()
            ready: list[Chunk] = head.chunks or []
            if ready:
                self._put_out(ready, head.size)
            else:
                self.done_tally += 1
            if head.last:
                self.ended = True
                self.done_tally += len(slots)
                dropped = _emptied(list(slots))
                slots.clear()
                return dropped
        return []

    def take(self) -> list[Chunk]:
        """What may be sent now, in order: `out`, which is empty then.

        `out_answers`, `out_memory` and `out_sliced` describe what is in `out`, so they are reset
        with it: read them before, since it is by them that `left` is told what has gone. Taken the
        other way round they are 0, and the connection is `full` for ever.
        """
        out, self.out = self.out, []
        self.out_answers = self.out_memory = 0
        self.out_sliced = False
        return out

    def left(self, answers: int, size: int) -> None:
        """Answers of together `size` bytes in memory have left for good."""
        self._held -= answers
        self.done_tally += answers
        self._held_bytes -= size
        assert self._held >= 0, "more answers left than there were"

    def drop(self) -> list[Slot]:
        """Forget all answers: the connection is gone. Slices are released.

        Returns the slots that are still empty: who was to fill them must hear of it.
        """
        release_slices(self.take())
        slots = list(self._slots)
        self._slots.clear()
        return _emptied(slots)

    def _fill(self, slot: Slot, chunks: list[Chunk], last: bool) -> None:
        assert slot.chunks is None, "a request is answered once"
        slot.chunks, slot.last = chunks, last
        slot.size = _memory_of(chunks)
        self._held_bytes += slot.size

    def _put_out(self, chunks: list[Chunk], memory: int) -> None:
        self.out += chunks
        self.out_answers += 1
        self.out_memory += memory
        self._held += 1
        if len(chunks) > 1:
            self.out_sliced = True


def _emptied(slots: list[Slot]) -> list[Slot]:
    """Drop the answers that these slots hold; the slots that hold none yet."""
    for slot in slots:
        if slot.chunks is not None:
            release_slices(slot.chunks)
    return [slot for slot in slots if slot.chunks is None]


def release_slices(chunks: list[Chunk]) -> None:
    """Drop an answer that will not be sent."""
    for chunk in chunks:
        if isinstance(chunk, FileSlice):
            chunk.release()


def _memory_of(chunks: list[Chunk]) -> int:
    memory = 0
    for chunk in chunks:  # written out: a generator costs as much again, for two or three chunks
        if type(chunk) is bytes:
            memory += len(chunk)
    return memory


_HINTS = {
    b"GET ": "an HTTP request came to a Kafka port",
    b"POST": "an HTTP request came to a Kafka port",
    b"HEAD": "an HTTP request came to a Kafka port",
    b"PUT ": "an HTTP request came to a Kafka port",
    b"OPTI": "an HTTP request came to a Kafka port",
    b"PRI ": "an HTTP/2 request came to a Kafka port",
    b"SSH-": "an SSH client came to a Kafka port",
}


def _size_refused(size: int, size_max: int, raw: bytes) -> PeerError:
    hint = _HINTS.get(raw)
    if raw[:2] == b"\x16\x03":  # a TLS record: handshake, SSL 3.0 or later
        hint = "a TLS handshake came to a plaintext port: is security.protocol right?"
    if size < 0:
        return PeerError(f"a frame of {size} bytes", hint)
    return PeerError(f"a frame of {size} bytes, at most {size_max} are taken", hint)
