"""Accepting connections, within limits.

Owns the listening sockets and the set of open connections. Must not read from a connection.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from ottla.core.endpoints import Endpoint
from ottla.core.pending import Pending
from ottla.core.value import Value
from ottla.server.driver import Driver
from ottla.server.service import Service

if TYPE_CHECKING:
    from ottla.handlers.context import ConnectionState

_log = logging.getLogger("ottla.server")

_ACCEPTS_PER_TURN = 64
_PAUSE_S = 0.1  # how long accepting rests when the process has no descriptor left
_FREE_PORT_TRIES = 20

_EVERY_ADDRESS = ("0.0.0.0", "::")
_NOTHING_FREE = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class CannotListen(Exception):
    """An address that can't be listened on. The text is one sentence that says what to do."""


class ListenerLimits(Value):
    """Counts of connections, and sizes in bytes (-1: what the system gives).

    Past `connections_max` or `connections_per_ip_max` a connection is closed as soon as it is
    accepted; past `connections_per_s_max` accepting pauses, and so it does while fewer than
    `descriptors_reserved` of the process's `descriptors_max` (-1: not known) are free.
    """

    connections_max: int = 10_000  # max.connections
    connections_per_ip_max: int = 1024  # max.connections.per.ip
    connections_per_ip_overrides: Mapping[str, int] = MappingProxyType({})
    connections_per_s_max: int = 500  # max.connection.creation.rate
    descriptors_max: int = -1  # RLIMIT_NOFILE
    descriptors_reserved: int = 128  # file.descriptors.reserved
    backlog: int = 511  # socket.listen.backlog.size
    send_buffer_bytes: int = 102_400  # socket.send.buffer.bytes
    receive_buffer_bytes: int = -1  # socket.receive.buffer.bytes


class Listeners:
    """All listening sockets of a node and the connections that came by them.

    `connected(peer, endpoint)` makes the state of a new connection: who came ("host:port"), and
    by which address: one that `listen` returned or, of a wildcard, the one that was used.
    """

    def __init__(
        self,
        service: Service,
        limits: ListenerLimits,
        connected: Callable[[str, Endpoint], ConnectionState],
    ) -> None:
        self._service = service
        self._loop: asyncio.AbstractEventLoop = service.loop
        self._limits = limits
        self._connected = connected
        self._listening: dict[socket.socket, Endpoint] = {}
        self._drivers: dict[Driver, str] = {}  # with the address that each counts for
        self._per_ip: dict[str, int] = {}
        self._accepting = False
        # What is in use has the lowest numbers: from this one on, those that are reserved.
        # Where there are few, a quarter of them must do.
        reserved = min(limits.descriptors_reserved, limits.descriptors_max // 4)
        self._reserved_from = limits.descriptors_max - reserved
        self._is_scarce = False
        self._allowance = float(limits.connections_per_s_max)  # a bucket that a second fills
        self._allowance_at = service.monotonic()
        self._stopped: Pending[None] | None = None

    @property
    def connections_count(self) -> int:
        return len(self._drivers)

    def listen(self, hosts: Iterable[str], port: int) -> list[Endpoint]:
        """Listen on one port of every host; port 0 finds one that is free on all of them.

        A host may be a name, an address, or "" for every address of the machine. Loopback
        addresses of a family that the machine lacks are left out if another could be had.
        Raises CannotListen.
        """
        hosts = list(hosts)
        for tries_left in range(_FREE_PORT_TRIES, 0, -1):
            try:
                found = self._bind_all(hosts, port)
                break
            except CannotListen:
                # A port that was free on one address may be taken on the next.
                if port or tries_left == 1:
                    raise
        self._listening.update(found)
        self._accept_again()
        return list(found.values())

    def limit(self, limits: ListenerLimits) -> None:
        """Take other limits; connections that are there already stay."""
        self._limits = limits

    def stop(self) -> Pending[None]:
        """Accept nothing more and let every connection finish what it has in process.

        Done when the last connection is closed; `close` ends the waiting.
        """
        self._close_listening()
        assert self._stopped is None, "stopped twice"
        self._stopped = stopped = Pending[None]()
        for driver in list(self._drivers):
            driver.finish()
        self._tell_if_stopped()
        return stopped

    def close(self) -> None:
        """Close everything now."""
        self._close_listening()
        for driver in list(self._drivers):
            driver.close()

    def forget_in_child(self) -> None:
        """In a forked process: close its copies of all sockets, without a word to the loop.

        The loop's selector is the parent's too, and must not lose what the parent waits for.
        """
        for sock in self._listening:
            sock.close()
        for driver in self._drivers:
            driver.forget_in_child()

    # --- binding -----------------------------------------------------------------------------

    def _bind_all(self, hosts: list[str], port: int) -> dict[socket.socket, Endpoint]:
        found: dict[socket.socket, Endpoint] = {}
        missing: OSError | None = None
        try:
            for family, host in _addresses(hosts, port):
                try:
                    sock = self._bind(family, host, port)
                except OSError as error:
                    no_address = error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
                    if not no_address or host not in ("::1", "::"):
                        raise CannotListen(_why(host, port, error)) from error
                    missing = error  # no IPv6 on this machine
                    continue
                port = sock.getsockname()[1]
                found[sock] = Endpoint(host, port)
            if not found:
                cause = missing or OSError(errno.EADDRNOTAVAIL, "no address")
                raise CannotListen(_why(", ".join(hosts), port, cause))
        except BaseException:
            for sock in found:
                sock.close()
            raise
        return found

    def _bind(self, family: socket.AddressFamily, host: str, port: int) -> socket.socket:
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            # A port in TIME_WAIT may be taken at once; one that is listened on may not (on Linux).
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            # What is set here is inherited by the connections, at no cost for each.
            if self._limits.send_buffer_bytes > 0:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._limits.send_buffer_bytes)
            if self._limits.receive_buffer_bytes > 0:
                sock.setsockopt(
                    socket.SOL_SOCKET, socket.SO_RCVBUF, self._limits.receive_buffer_bytes
                )
            sock.bind((host, port))
            sock.listen(self._limits.backlog)
        except BaseException:
            sock.close()
            raise
        return sock

    # --- accepting ---------------------------------------------------------------------------

    def _accept_again(self) -> None:
        self._accepting = True
        for sock in self._listening:
            self._loop.add_reader(sock.fileno(), self._accept, sock)

    def _pause(self, delay_s: float) -> None:
        """Leave newcomers in the kernel's queue for a while, without being woken for them."""
        if not self._accepting:
            return
        self._accepting = False
        for sock in self._listening:
            self._loop.remove_reader(sock.fileno())
        self._service.timers.after(delay_s, self._unpause)

    def _unpause(self) -> None:
        if self._listening:
            self._accept_again()

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_ACCEPTS_PER_TURN):
            if not self._accepting or not self._may_accept():
                return
            try:
                sock, address = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _NOTHING_FREE:
                    raise
                self._rest(error.strerror or str(error))
                return
            self._allowance -= 1
            self._is_scarce = sock.fileno() >= self._reserved_from > 0
            self._take_over(listening, sock, address)

    def _may_accept(self) -> bool:
        if self._is_scarce and not self._enough_descriptors():
            return False
        rate = self._limits.connections_per_s_max
        now = self._service.monotonic()
        # Each time: what a full allowance lets pass in a quiet time must not come on top of it.
        self._allowance = min(float(rate), self._allowance + rate * (now - self._allowance_at))
        self._allowance_at = now
        if self._allowance >= 1:
            return True
        self._service.complaints.about(
            "max.connection.creation.rate", "listener", f"more than {rate} connections a second"
        )
        self._pause(1 / rate if rate else _PAUSE_S)
        return False

    def _enough_descriptors(self) -> bool:
        """Whether a connection leaves those alone that logs need to roll and topics to be made."""
        try:
            probe = os.dup(next(iter(self._listening)).fileno())
        except OSError as error:
            self._rest(error.strerror or str(error))
            return False
        os.close(probe)
        self._is_scarce = probe >= self._reserved_from
        if self._is_scarce:
            self._rest(
                f"{self._reserved_from} files are open, the rest is kept for logs "
                "(file.descriptors.reserved)"
            )
        return not self._is_scarce

    def _rest(self, reason: str) -> None:
        self._service.complaints.about(
            "file descriptors",
            "listener",
            f"{reason}: accepting rests until some are free; if this lasts, allow more open files "
            "(ulimit -n) or fewer connections (max.connections)",
        )
        self._pause(_PAUSE_S)

    def _take_over(
        self, listening: socket.socket, sock: socket.socket, address: tuple[str, int]
    ) -> None:
        ip = address[0]
        peer = str(Endpoint(ip, address[1]))
        here = self._per_ip.get(ip, 0)
        reached = self._limit_reached(ip, here)
        if reached is not None:
            self._service.complaints.about(
                reached, peer, f"refused beside {here} from there and {len(self._drivers)} in all"
            )
            sock.close()
            return
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:  # gone already
            sock.close()
            return
        self._per_ip[ip] = here + 1
        endpoint = self._listening[listening]
        if endpoint.host in _EVERY_ADDRESS:
            # Nobody can connect to "every address": the one that was used is known to work.
            endpoint = Endpoint(*sock.getsockname()[:2])
        state = self._connected(peer, endpoint)
        driver = Driver(self._service, sock, state, self._closed)
        self._drivers[driver] = ip
        _log.debug("%s: connected to %s", peer, endpoint)

    def _limit_reached(self, ip: str, here: int) -> str | None:
        """The option that forbids another connection from `ip`, beside `here` of them."""
        limits = self._limits
        if len(self._drivers) >= limits.connections_max:
            return "max.connections"
        if here >= limits.connections_per_ip_overrides.get(ip, limits.connections_per_ip_max):
            return "max.connections.per.ip"
        return None

    def _closed(self, driver: Driver) -> None:
        ip = self._drivers.pop(driver)
        left = self._per_ip[ip] - 1
        if left:
            self._per_ip[ip] = left
        else:
            del self._per_ip[ip]
        _log.debug("%s: connection closed", driver.state.peer)
        self._tell_if_stopped()

    def _close_listening(self) -> None:
        listening, self._listening = self._listening, {}
        for sock in listening:
            self._loop.remove_reader(sock.fileno())
            sock.close()

    def _tell_if_stopped(self) -> None:
        if self._stopped is not None and not self._drivers and not self._stopped.done:
            self._stopped.complete(None)


def _addresses(hosts: list[str], port: int) -> list[tuple[socket.AddressFamily, str]]:
    """What the hosts stand for, each once. Raises CannotListen for an unknown name."""
    found: dict[tuple[socket.AddressFamily, str], None] = {}
    for host in hosts:
        if not host:
            found[(socket.AF_INET, "0.0.0.0")] = found[(socket.AF_INET6, "::")] = None
            continue
        try:
            # As bytes where that will do: of a str Python makes an IDNA name: 2 ms of tables.
            name = host.encode() if host.isascii() else host
            for family, _, _, _, address in socket.getaddrinfo(
                name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            ):
                found[(family, str(address[0]))] = None
        except (socket.gaierror, UnicodeError):
            raise CannotListen(
                f"cannot listen on {host!r}: this machine has no address of that name"
            ) from None
    return list(found)


def _why(host: str, port: int, error: OSError) -> str:
    where = Endpoint(host, port)
    if error.errno == errno.EADDRINUSE:
        return f"cannot listen on {where}: the port is in use; stop what uses it or choose another"
    if error.errno == errno.EACCES:
        return f"cannot listen on {where}: ports below 1024 need privileges; choose another"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"cannot listen on {where}: this machine does not have that address"
    return f"cannot listen on {where}: {error.strerror or error}"
