"""Between a socket and a ServerConnection: receive, dispatch, park, resume, send.

Owns the socket of one connection, its deadlines and its back-pressure. The connection boundary is
here: whatever a request raises is logged with the request named and ends this connection alone.
Must not know any message.

The socket is ours alone, without an asyncio transport around it: a transport insists on being
the only writer of its descriptor, so that sendfile would need a duplicate, and then two writers
share one stream. Reading by add_reader and recv_into costs what BufferedProtocol costs.
Design: docs/design/0005-one-socket-one-owner.md.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING

from ottla.core.ports import Timer
from ottla.handlers.reply import Answer, Closing, Parked
from ottla.protocol.apis import API_NAMES
from ottla.protocol.connection import BUFFER_BYTES_IDLE, PeerError, ServerConnection, Slot
from ottla.protocol.frame import decode_request_header
from ottla.protocol.primitives import CodecError
from ottla.server.service import Service, Waiting
from ottla.server.transfer import Sender, SliceCutShort

if TYPE_CHECKING:
    from ottla.handlers.context import ConnectionState

_log = logging.getLogger("ottla.server")

_RELAX_S = 5.0  # how long a buffer stays large after the last request


class Driver:
    """One connection, from accept to close."""

    __slots__ = (
        "_active_at", "_begun_at", "_closed", "_connection", "_current", "_due", "_fd",
        "_finishing", "_frame_s", "_lent_to", "_on_close", "_reading", "_room", "_sender",
        "_socket", "_starved", "_stopped", "_stuck_at", "_stuck_sent", "_timer", "_writing",
        "service", "state",
    )  # fmt: skip

    def __init__(
        self,
        service: Service,
        sock: socket.socket,
        state: ConnectionState,
        on_close: Callable[[Driver], None],
    ) -> None:
        """Takes over a non-blocking socket. `on_close` is called once, when it is closed."""
        self.service = service
        self.state = state
        self._socket = sock
        self._fd = sock.fileno()
        self._on_close = on_close
        self._connection = ServerConnection(service.limits, service.memory)
        state.tally.asked = self._connection.asked
        self._sender = Sender(sock, self._connection.left, service.portable, service.sent)
        self._current: memoryview | Parked | None = None  # what is being answered, for the log
        self._lent_to: Waiting | None = None  # who waits before its effect, with the buffer
        self._stopped = False  # whole frames may lie in the buffer
        self._starved = False  # waits for receive memory
        self._finishing = False  # no new requests; close when all is answered
        self._closed = False
        self._reading = False
        self._writing = False
        room = self._connection.room()
        assert room is not None, "an empty buffer has room"
        self._room = room
        now = service.monotonic()
        self._active_at = now
        self._begun_at: float | None = now  # since when a frame is incomplete; here: the first
        self._frame_s = service.limits.first_frame_s
        self._stuck_at: float | None = None  # since when the socket is full, as last looked at
        self._stuck_sent = 0
        self._timer: Timer | None = None
        self._due = 0.0
        self._look_by(now + self._frame_s)
        self._read(True)

    # --- in ----------------------------------------------------------------------------------

    def _readable(self) -> None:
        try:
            try:
                count = self._socket.recv_into(self._room)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:  # reset, timed out: the peer is gone
                count = 0
            if count == 0:
                self.close()
                return
            service = self.service
            self._active_at = service.monotonic()
            frame = self._connection.sole(count)
            if frame is None:
                self._pump(count)
                return
            try:
                self._begun_at = None
                self._current = frame
                answer = service.dispatch(self.state, frame)
                if answer.__class__ is list and len(answer) == 1 and not self._closed:
                    # What most requests come to: all that was there is answered, and leaves.
                    self._current = None
                    data: bytes = answer[0]  # type: ignore[assignment]  # no slice comes alone
                    self._connection.done_tally += 1  # also where the peer is gone: it was taken
                    if not self._sender.send_first(data, 1, len(data)):
                        self._connection.hold(len(data))
                        self._settle()
                else:
                    self._go_on(self._take(answer))
            except Exception as error:
                self._failed(error)
        except Exception as error:
            self._broken(error)

    def _pump(self, count: int) -> None:
        """Dispatch every frame that is whole, send what may be sent, see whether to go on reading.

        The connection boundary of everything that a received byte can set off.
        """
        connection = self._connection
        dispatch, state = self.service.dispatch, self.state
        go_on = True
        try:
            for frame in connection.received(count):
                self._begun_at = None
                self._current = frame
                answer = dispatch(state, frame)
                go_on = (
                    connection.answer(answer) if answer.__class__ is list else self._take(answer)
                )
                if not go_on:
                    break
            self._go_on(go_on)
        except Exception as error:
            self._failed(error)

    def _take(self, answer: Answer) -> bool:
        """Put an answer in its place; whether to dispatch more."""
        if answer.__class__ is list:
            return self._connection.answer(answer)
        if isinstance(answer, Parked):
            return self._park(answer)
        assert isinstance(answer, Closing), f"a dispatcher returned {answer!r}"
        self._connection.answer(answer.chunks, last=True)
        return False

    def _go_on(self, go_on: bool) -> None:
        """After what was received is dispatched, or as much of it as may be."""
        self._current = None
        self._stopped = not go_on
        if self._connection.out:
            self._flush()
        self._settle()

    def _park(self, parked: Parked) -> bool:
        waiting = Waiting(self, parked)
        self._connection.park(waiting)
        if parked.before_effect:
            self._lent_to = waiting
        waiting.wait(self.service.timers)
        return not (parked.before_effect or self._connection.full)

    def resume(self, waiting: Waiting) -> None:
        """Let a parked request go on. What it answers is sent by the next `proceed`."""
        if self._closed or waiting.chunks is not None:
            return
        parked = waiting.parked
        self._current = parked
        try:
            answer = self.service.resume(parked)
            if isinstance(answer, Parked):
                waiting.parked = answer
                self._lend(waiting, answer.before_effect)
                waiting.wait(self.service.timers)
            else:
                self._lend(waiting, False)
                self._fill(waiting, answer)
            self._current = None
        except Exception as error:
            # Neither resumed to the end nor to be abandoned: it failed on its own.
            waiting.chunks = waiting.chunks or []
            self._failed(error)

    def _lend(self, waiting: Waiting, before_effect: bool) -> None:
        if before_effect:
            assert self._lent_to is waiting, "an effect can't be undone by parking again"
        elif self._lent_to is waiting:
            self._lent_to = None

    def _fill(self, waiting: Waiting, answer: Answer) -> None:
        if isinstance(answer, Closing):
            dropped = self._connection.fill(waiting, answer.chunks, last=True)
        else:
            assert isinstance(answer, list), f"a dispatcher returned {answer!r}"
            dropped = self._connection.fill(waiting, answer)
        self._abandon(dropped)

    def proceed(self) -> None:
        """Send what is ready, and take up again what was stopped."""
        if self._closed:
            return
        self._starved = False
        try:
            if self._connection.out:
                self._flush()
            if self._stopped and not self._held_up():
                self._pump(0)
            else:
                self._settle()
        except Exception as error:
            self._failed(error)

    def _held_up(self) -> bool:
        connection = self._connection
        return self._lent_to is not None or connection.ending or connection.full or self._finishing

    # Which flags may stand together, once _settle has run. One of the first three, no two of them:
    #
    #   _reading   nothing lies in the buffer but the beginning of a frame
    #   _starved   the same, and there is no memory for the rest of it: _fed will be called
    #   _stopped   whole frames may lie in the buffer; it is held up, or was until now: then the
    #              service will call proceed
    #   _writing   beside any of these: the socket is full, _writable will be called
    #   _closed    alone, and for ever
    #
    # What holds up is _lent_to, _finishing and the connection's `ending` and `full`, any of them at
    # a time. Only _lent_to and `full` go again.
    def _settle(self) -> None:
        """After everything that changes the state: decide whether to read, and by when to look."""
        connection = self._connection
        if self._writing is not self._sender.blocked:
            self._write(not self._writing)
        if self._held_up():
            self._stopped = True
            self._read(False)
            self._begun_at = None  # while we don't read, the peer can do nothing about its frame
            last_is_out = connection.ended or (self._finishing and not connection.in_process)
            if last_is_out and not self._writing:
                self.close()
            return
        if self._stopped:
            # All that was dispatched has left; let others have their turn before the rest.
            self._read(False)
            self.service.again(self)
            return
        room = connection.room()
        if room is None:
            self._starved = True
            self.service.complaints.about(
                "queued.max.request.bytes", self.state.peer, "no memory for its request: it waits"
            )
            self.service.memory.wait(self._fed)
            self._read(False)
        else:
            self._room = room
            if not self._reading:
                self._read(True)
        if connection.partial_bytes:
            if self._begun_at is None:
                self._begun_at = self.service.monotonic()
                self._frame_s = self.service.limits.frame_s
                self._look_by(self._begun_at + self._frame_s)
        elif connection.capacity > BUFFER_BYTES_IDLE:
            self._look_by(self._active_at + _RELAX_S)

    def _fed(self) -> None:
        self.service.again(self)

    # --- out ---------------------------------------------------------------------------------

    def _flush(self) -> None:
        connection = self._connection
        if self._closed:  # by what was dispatched
            connection.drop()
            return
        sliced = connection.out_sliced
        answers, memory = connection.out_answers, connection.out_memory
        if self._sender.send(connection.take(), sliced, answers, memory):
            connection.left(answers, memory)

    def _writable(self) -> None:
        try:
            try:
                self._sender.writable()
            except Exception as error:
                self._failed(error)
                return
            self._active_at = self.service.monotonic()
            self.proceed()
        except Exception as error:
            self._broken(error)

    def _read(self, on: bool) -> None:
        if on is self._reading:
            return
        self._reading = on
        if on:
            self.service.readiness.add_reader(self._fd, self._readable)
        else:
            self.service.readiness.remove_reader(self._fd)

    def _write(self, on: bool) -> None:
        self._writing = on
        if on:
            self.service.readiness.add_writer(self._fd, self._writable)
            self._stuck_at = self.service.monotonic()
            self._stuck_sent = self._sender.sent
            self._look_by(self._stuck_at + self.service.limits.write_s)
        else:
            self.service.readiness.remove_writer(self._fd)
            self._stuck_at = None

    # --- time --------------------------------------------------------------------------------

    def _look_by(self, due: float) -> None:
        """Have `_look` called at `due` (monotonic seconds; inf: never) or earlier."""
        if due == inf:
            return
        if self._timer is not None:
            if self._due <= due:
                return
            self._timer.cancel()
        self._due = due
        delay_s = max(0.0, due - self.service.monotonic())
        self._timer = self.service.timers.after(delay_s, self._look)

    def _look(self) -> None:
        """See whether a deadline has passed; come again by the earliest that has not.

        One timer for all of them, and none is touched while requests come and go.
        """
        self._timer = None
        now = self.service.monotonic()
        limits = self.service.limits
        connection = self._connection
        due = now + limits.idle_s
        if self._stuck_at is not None:
            if now >= self._stuck_at + limits.write_s:
                taken = self._sender.sent - self._stuck_sent
                if taken < limits.bytes_per_s_min * (now - self._stuck_at):
                    self._give_up("write deadline", "does not take its answers")
                    return
                self._stuck_at, self._stuck_sent = now, self._sender.sent
            due = min(due, self._stuck_at + limits.write_s)
        if self._begun_at is not None and (self._reading or self._starved):
            if now >= self._begun_at + self._frame_s:
                # Who is slow, and has what others wait for, is not waited for, at whatever rate.
                in_the_way = self.service.memory.is_short and not self._starved
                least = limits.bytes_per_s_min * (now - self._begun_at)
                if connection.partial_bytes < least or in_the_way:
                    self._give_up("frame deadline", "did not finish its request in time")
                    return
                due = min(due, now + self._frame_s)
            else:
                due = min(due, self._begun_at + self._frame_s)
        elif not connection.in_process:
            if now >= self._active_at + limits.idle_s:
                self.close()  # clients expect this: no reason to log it
                return
            due = min(due, self._active_at + limits.idle_s)
        if connection.capacity > BUFFER_BYTES_IDLE and self._reading:
            connection.relax(busy=now < self._active_at + _RELAX_S)
            room = connection.room()
            assert room is not None, "a smaller buffer needs no more memory"
            self._room = room
            if connection.capacity > BUFFER_BYTES_IDLE:
                due = min(due, now + _RELAX_S)
        self._look_by(due)

    # --- the end -----------------------------------------------------------------------------

    def finish(self) -> None:
        """Take no further requests, answer those in process, then close."""
        if not self._closed and not self._finishing:
            self._finishing = True
            self.proceed()

    def close(self) -> None:
        """Close at once: drop answers, release slices, abandon what is parked. May be repeated."""
        if self._closed:
            return
        self._closed = True
        self._read(False)
        if self._writing:
            self._write(False)
        if self._timer is not None:
            self._timer.cancel()
        self.service.memory.forget(self._fed)
        self._sender.close()
        self.state.tally.leave()
        self._abandon(self._connection.drop())
        # The buffer goes now, not when the collector comes by: peers decide how large it is.
        self._room = memoryview(b"")
        self._current = self._lent_to = None
        self._connection.close()
        self._socket.close()
        self._on_close(self)

    def forget_in_child(self) -> None:
        """In a forked process: close its copy of the socket; the connection is the parent's."""
        self._socket.close()

    def _abandon(self, slots: list[Slot]) -> None:
        for slot in slots:
            assert isinstance(slot, Waiting), "only a parked request leaves its slot empty"
            slot.chunks = []  # should it be ready already, it is not resumed any more
            try:
                slot.abandon()
            except Exception:
                _log.exception(
                    "%s: abandoning a request failed by a fault of ottla's. Please report it",
                    self.state.peer,
                )

    def _give_up(self, kind: str, text: str) -> None:
        self.service.complaints.about(kind, self.state.peer, f"{text}; its connection is closed")
        self.close()

    def _failed(self, error: Exception) -> None:
        """The connection boundary: one connection ends, with the request named.

        The answers to what came before the faulty request leave first, as far as they can.
        """
        if self._connection.out and not isinstance(error, OSError):
            with suppress(OSError, SliceCutShort):
                self._flush()
        if isinstance(error, PeerError):
            self._give_up("bad frame", str(error) + (f": {error.hint}" if error.hint else ""))
        elif isinstance(error, CodecError):
            self._give_up("bad request", f"{self._name_current()}: {error}")
        elif isinstance(error, SliceCutShort):  # the disk's fault, or somebody's who cut the file
            self._give_up("answer cut short", f"an answer can't be sent to its end: {error}")
        elif isinstance(error, (ConnectionError, TimeoutError)) and self._current is None:
            self.close()  # the peer is gone; any other error of a send may be the disk's
        else:
            what = self._name_current()
            _log.error(
                "%s: %s failed by a fault of ottla's; this connection is closed. Please report it",
                self.state.peer,
                what,
                exc_info=error,
                extra={"fields": {"event": "failed", "peer": self.state.peer}},
            )
            self.close()

    def _broken(self, error: Exception) -> None:
        """Even closing failed. Whoever calls when a socket is ready must not be raised at, or
        every other connection would end too: so this one is never called again.
        """
        _log.error(
            "%s: closing it failed by a fault of ottla's. Please report it",
            self.state.peer,
            exc_info=error,
            extra={"fields": {"event": "failed", "peer": self.state.peer}},
        )
        self._closed = True
        self.state.tally.leave()
        self.service.readiness.remove_reader(self._fd)
        self.service.readiness.remove_writer(self._fd)
        self._socket.close()

    def _name_current(self) -> str:
        current = self._current
        if isinstance(current, Parked):
            return f"a parked request ({current.request!r})"
        if current is None:
            return "sending"
        try:
            header, _ = decode_request_header(current)
        except CodecError:
            return f"a request of {len(current)} bytes"
        name = API_NAMES.get(header.api_key, f"api key {header.api_key}")
        client = (header.client_id or "")[:100]  # the log escapes it
        return (
            f"{name} v{header.api_version} (correlation id {header.correlation_id}, "
            f"client {client or 'without a name'})"
        )
