"""What connections cost that are open and idle, and how fast they are accepted."""

from __future__ import annotations

import resource
import socket
import struct
import tempfile
import time

from ottla.bench import asking, contenders, idle, pump, sample, usage, wire
from ottla.bench.growth_table import Column, Growth, Limits, Say, sizes

_API_VERSIONS = struct.pack(">ihhih", 10, 18, 0, 1, -1)
_OPTIONS = (
    "max.connections=100000",
    "max.connections.per.ip=100000",
    "max.connection.creation.rate=1000000",
)
_AT_ONCE = 200  # opened before their answers are read: below what a listener lets wait
_SPARE = 64

_COLUMNS = (
    Column("memory of one", "KiB", at_most=64),
    Column("accept and first answer", "CPU µs"),
    Column("accepted", "per s"),
    Column("at rest", "% of a core"),
    Column("produce on another", "µs", flat=True),
)


def measure(limits: Limits, say: Say) -> Growth:
    """Raises pump.LoadFailed; ValueError where so many files can't be open."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if limits.connections + _SPARE > hard:
        raise ValueError(f"{limits.connections:,} connections need more than {hard:,} open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    growth = Growth("connections", "Idle connections", "connections", _COLUMNS)
    for count in sizes(1, limits.connections):
        say(f"growth: {count:,} connections")
        with (
            tempfile.TemporaryDirectory(prefix="ottla-growth-") as folder,
            contenders.own_broker(f"{folder}/data", _OPTIONS) as running,
        ):
            growth.add(count, _point(running, count, limits.seconds))
    return growth


def _point(running: contenders.Running, count: int, seconds: float) -> dict[str, float | None]:
    asking.create_topic(running.address, "t", 1)
    asking.until_ready(running.address, "t", 1)
    request = wire.produce("t", 0, wire.batch(1, 100, int(time.time() * 1000)), 1)
    load = sample.load_of([request], seconds, wire.produce_error_at("t"))
    sample.cpu_us(running, load)  # what a first load allocates isn't the connections'
    memory, cpu = sample.resident_kib(running), usage.run_seconds(running.pid)
    begun = time.perf_counter()
    peers = _opened(running.address, count)
    took = time.perf_counter() - begun
    cpu = usage.run_seconds(running.pid) - cpu
    memory = sample.resident_kib(running) - memory
    try:
        busy, _ = sample.cpu_us(running, load)
        _, share = idle.rest(running.pid, seconds)
    finally:
        for peer in peers:
            peer.close()
    return {
        "memory of one": memory / count if count >= 100 else None,  # less is within a page or two
        "accept and first answer": cpu / count * 1e6 if count >= 10 else None,
        "accepted": count / took,
        "at rest": share,
        "produce on another": busy,
    }


def _opened(address: tuple[str, int], count: int) -> list[socket.socket]:
    """So many connections, each with an answer to its first request."""
    peers: list[socket.socket] = []
    while len(peers) < count:
        fresh = [
            socket.create_connection(address, timeout=30)
            for _ in range(min(_AT_ONCE, count - len(peers)))
        ]
        for peer in fresh:
            peer.sendall(_API_VERSIONS)
        for peer in fresh:
            if not peer.recv(1 << 16):
                raise pump.LoadFailed("the broker closed a connection")
        peers += fresh
    return peers
