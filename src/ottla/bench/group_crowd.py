"""Many members in one loop: each a small program that asks, gets its answer, rests, and goes on.

Owns their connections. A program yields a question (request, version, kind of answer) or seconds to
rest, and is sent the answer. Must not know what they ask. Linux alone: epoll.
"""

from __future__ import annotations

import heapq
import resource
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeAlias

from ottla.bench import pump
from ottla.protocol.client import ClientConnection
from ottla.protocol.codec import decoder, encoder
from ottla.protocol.schema import Message

Question: TypeAlias = tuple[Message, int, type[Message]]
Program: TypeAlias = Generator[Question | float, Any, None]

_SPARE_FILES = 64


class _Line:
    """One connection and whose answers it will bring, in order."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.protocol = ClientConnection("load")
        self.waiting: deque[tuple[int, type[Message]]] = deque()

    def ask(self, who: int, question: Question) -> None:
        message, version, kind = question
        # A request has no file slices, so its encoder gives bytes alone.
        body = [bytes(part) for part in encoder(type(message), version)(message)]  # type: ignore[arg-type]
        self.waiting.append((who, kind))
        self.socket.sendall(self.protocol.request(message.KEY, version, body))

    def answers(self) -> list[tuple[int, Message]]:
        """What has come, for whom. Raises LoadFailed when the broker has hung up."""
        room = self.protocol.room()
        assert room is not None, "a client's memory has no limit"
        count = self.socket.recv_into(room)
        if count == 0:
            raise pump.LoadFailed("the broker closed the connection of a member")
        found = []
        for sent, body in self.protocol.answers(count):
            who, kind = self.waiting.popleft()
            found.append((who, decoder(kind, sent.api_version)(body, 0)[0]))
        return found


class Crowd:
    """Connections that are open already, and programs that are then run over them.

    One that never sleeps looks for answers all the time. To wake up who sleeps on another processor
    costs a broker as much as a small request, and only if it is slower than who asks: so what two
    kinds of requests cost can only be compared if none of them is asked by who sleeps.
    """

    def __init__(
        self, address: tuple[str, int], connections_count: int, *, sleeps: bool = True
    ) -> None:
        """Raises OSError, and ValueError where so many files can't be open."""
        self._sleeps = sleeps
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if connections_count + _SPARE_FILES > hard:
            raise ValueError(f"{connections_count:,} connections need more than {hard:,} files")
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, hard), hard))
        self._lines = [_Line(address) for _ in range(connections_count)]
        self._by_fd = {line.socket.fileno(): line for line in self._lines}
        self._programs: Sequence[Program] = ()
        self._resting: list[tuple[float, int]] = []

    def ask_all(self, question: Question) -> None:
        """Once over every connection, so that each has been used."""
        for line in self._lines:
            line.ask(0, question)
            while line.waiting:
                line.answers()

    def run(
        self, programs: Sequence[Program], settled: Callable[[], bool], seconds_max: float
    ) -> float:
        """Until all are settled; the seconds that it took. Raises LoadFailed."""
        self._programs, self._resting = programs, []
        begun = time.perf_counter()
        with select.epoll() as poller:
            for fd in self._by_fd:
                poller.register(fd, select.EPOLLIN)
            for who in range(len(programs)):
                self._go_on(who, None)
            while not settled():
                if time.perf_counter() - begun > seconds_max:
                    raise pump.LoadFailed(f"a group did not settle within {seconds_max:.0f} s")
                for fd, _ in poller.poll(self._rest_s()):
                    for who, answer in self._by_fd[fd].answers():
                        self._go_on(who, answer)
                while self._resting and self._resting[0][0] <= time.perf_counter():
                    self._go_on(heapq.heappop(self._resting)[1], None)
        return time.perf_counter() - begun

    def _rest_s(self) -> float:
        """How long there is nothing to do, if no answer comes."""
        if not self._sleeps:
            return 0.0
        wait = self._resting[0][0] - time.perf_counter() if self._resting else 1.0
        return min(1.0, max(0.0, wait))

    def _go_on(self, who: int, answer: Message | None) -> None:
        wanted = self._programs[who].send(answer)
        if isinstance(wanted, float):
            heapq.heappush(self._resting, (time.perf_counter() + wanted, who))
        else:
            self._lines[who % len(self._lines)].ask(who, wanted)

    def close(self) -> None:
        for line in self._lines:
            line.socket.close()
