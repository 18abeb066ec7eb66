"""A loop, a socket, a file, a clock and timers that a test holds in its hands."""

from __future__ import annotations

import struct


class Loop:
    """Call-soon queue and readiness callbacks. Nothing runs until `run`."""

    def __init__(self):
        self.soon = []
        self.readers = {}
        self.writers = {}

    def call_soon(self, call, *arguments):
        self.soon.append(lambda: call(*arguments))

    def add_reader(self, fd, call, *arguments):
        self.readers[fd] = lambda: call(*arguments)

    def add_writer(self, fd, call, *arguments):
        self.writers[fd] = lambda: call(*arguments)

    def remove_reader(self, fd):
        return self.readers.pop(fd, None) is not None

    def remove_writer(self, fd):
        return self.writers.pop(fd, None) is not None

    def run(self):
        """Run what is to run soon, and what that makes run soon."""
        while self.soon:
            soon, self.soon = self.soon, []
            for call in soon:
                call()


class Clock:
    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now

    def wall_ms(self):
        return 0


class Timers:
    """Calls in the order of their times, when `advance` says so."""

    class Entry:
        def __init__(self, at, call):
            self.at = at
            self.call = call
            self.alive = True

        def cancel(self):
            self.alive = False

    def __init__(self, clock):
        self.clock = clock
        self.entries = []

    def after(self, delay_s, call):
        assert delay_s >= 0
        entry = self.Entry(self.clock.now + delay_s, call)
        self.entries.append(entry)
        return entry

    def soon(self, call):
        raise NotImplementedError

    @property
    def waiting(self):
        return [entry for entry in self.entries if entry.alive]

    def advance(self, seconds):
        to = self.clock.now + seconds
        while due := [entry for entry in self.waiting if entry.at <= to]:
            entry = min(due, key=lambda entry: entry.at)
            self.entries.remove(entry)
            self.clock.now = max(self.clock.now, entry.at)
            entry.alive = False
            entry.call()
        self.entries = self.waiting
        self.clock.now = to


class Socket:
    """Receives what the test put in `incoming`; takes at most `space` bytes of what is sent."""

    def __init__(self, fd=7):
        self.fd = fd
        self.incoming = bytearray()
        self.ended = False
        self.space = 1 << 40
        self.outgoing = bytearray()
        self.sends = 0
        self.closed = False
        self.error = None

    def fileno(self):
        return self.fd

    def recv_into(self, room):
        if self.error is not None:
            raise self.error
        if not self.incoming and not self.ended:
            raise BlockingIOError
        count = min(len(room), len(self.incoming))
        room[:count] = self.incoming[:count]
        del self.incoming[:count]
        return count

    def send(self, data, flags=0):
        if self.error is not None:
            raise self.error
        self.sends += 1
        if self.space == 0:
            raise BlockingIOError
        count = min(self.space, len(data))
        self.outgoing += data[:count]
        self.space -= count
        return count

    def close(self):
        self.closed = True

    def answers(self):
        """The bodies of the whole frames sent so far."""
        found = []
        at = 0
        while at + 4 <= len(self.outgoing):
            (size,) = struct.unpack_from(">i", self.outgoing, at)
            found.append(bytes(self.outgoing[at + 4 : at + 4 + size]))
            at += 4 + size
        assert at == len(self.outgoing), "a frame was cut"
        return found


class MemoryFile:
    """A file in memory that counts its pins. `warm` says whether it can be read at once."""

    path = "memory"

    def __init__(self, content, warm=True):
        self.content = content
        self.warm = warm
        self.pins = 0
        self.unreadable = ()

    def retain(self):
        self.pins += 1

    def release(self):
        self.pins -= 1
        assert self.pins >= 0, "released twice"

    def refused(self, position):
        self.unreadable += (position,)

    def read(self, position, length):
        return self.content[position : position + length]

    def read_nowait(self, position, length):
        return self.read(position, length) if self.warm else None
