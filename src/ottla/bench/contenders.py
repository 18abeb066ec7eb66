"""Who is measured: an ottla of our own, the bare loop, any broker that was named.

Owns their processes: each is started here and gone when its block is left. Must not load them.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ottla.bench import pump, usage

BASE_OPTIONS = ("flush.policy=os", "log.segment.delete.delay.ms=0")
"""Kafka's idea of durability, for a comparison that is fair; and what a measurement wrote is gone
before the next one begins."""

BARE = "bare loop"


@dataclass(frozen=True, slots=True)
class Variant:
    """Another way to run ottla, or to ask it, than the conditions of the budgets."""

    name: str
    options: tuple[str, ...] = ()
    acks: int = 1
    idempotent: bool = False
    means: str = ""


VARIANTS = (
    Variant(
        "commit", ("flush.policy=commit",), means="flush.policy=commit, acks=1: synced, not awaited"
    ),
    Variant("idempotent", idempotent=True, means="an idempotent producer on each connection"),
    Variant(
        "records",
        ("record.validation=records",),
        means="record.validation=records: each record is walked",
    ),
    Variant("acks=all", acks=-1, means="acks=all, flush.policy=os"),
    Variant(
        "synced",
        ("flush.policy=commit",),
        acks=-1,
        means="acks=all, flush.policy=commit (ottla's default): answered when on disk",
    ),
)


@dataclass(frozen=True, slots=True)
class Contender:
    """A broker: where it listens, the process whose CPU counts (None: unknown), how it is asked."""

    name: str
    address: tuple[str, int]
    pid: int | None
    kind: str = "ottla"  # or "bare", "peer"
    acks: int = 1
    idempotent: bool = False


@dataclass(frozen=True, slots=True)
class Peer:
    """What `--peer NAME=HOST:PORT[:PID]` says."""

    name: str
    address: tuple[str, int]
    pid: int | None = None

    def contender(self) -> Contender:
        """With its process looked up where it wasn't named and is on this machine."""
        pid = self.pid if self.pid is not None else usage.listening_pid(self.address[1])
        return Contender(self.name, self.address, pid, "peer")


_PEER = re.compile(
    r"(?P<name>[^=]+)=(?P<host>\[[^\]]+\]|[^:\[\]]+):(?P<port>\d{1,5})(?::(?P<pid>\d+))?"
)


def parse_peer(text: str) -> Peer:
    """Raises ValueError with what is expected."""
    found = _PEER.fullmatch(text)
    if found is None or not 0 < int(found["port"]) < 65_536:
        raise ValueError(f"--peer doesn't take {text!r}; try: --peer kafka=127.0.0.1:29092")
    address = (found["host"].strip("[]"), int(found["port"]))
    return Peer(found["name"], address, int(found["pid"]) if found["pid"] else None)


def find_variants(names: Sequence[str]) -> list[Variant]:
    """By name. Raises ValueError for one that doesn't exist."""
    known = {variant.name: variant for variant in VARIANTS}
    for name in names:
        if name not in known:
            raise ValueError(f"there is no variant {name!r}; there are: {', '.join(known)}")
    return [known[name] for name in names]


@dataclass(slots=True)
class Running:
    """A broker that was started here."""

    process: subprocess.Popen[str]
    address: tuple[str, int]
    options: Sequence[str] = field(default_factory=list)

    @property
    def pid(self) -> int:
        return self.process.pid


def start(
    directory: str, options: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> Running:
    """`ottla serve` on a free port; returns when it is ready. Raises pump.LoadFailed.

    `environment` is in addition to this process's own.
    """
    command = [sys.executable, "-m", "ottla", "serve", "--data-dir", directory]
    command += ["--listen", "127.0.0.1:0"]
    command += [part for option in (*BASE_OPTIONS, *options) for part in ("-o", option)]
    process = subprocess.Popen(
        command,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    ready = re.search(r"ready on (\S+):(\d+)", process.stdout.readline())
    if ready is None:
        process.kill()
        said = process.communicate()[1].strip().splitlines()
        raise pump.LoadFailed(f"ottla serve did not start: {said[-1] if said else 'no word'}")
    return Running(process, (ready[1], int(ready[2])), options)


def stop(running: Running, *, kill: bool = False) -> None:
    """End it, in order or as `kill -9` does, and wait until it is gone."""
    if kill:
        running.process.kill()
    else:
        running.process.terminate()
    try:
        running.process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        running.process.kill()
        running.process.communicate()


@contextlib.contextmanager
def own_broker(
    directory: str, options: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> Iterator[Running]:
    """A broker that is stopped afterwards. Raises pump.LoadFailed."""
    running = start(directory, options, environment)
    try:
        yield running
    finally:
        stop(running)


@contextlib.contextmanager
def bare_loop(
    folder: str, *, answer_bytes: int, slice_bytes: int, writes: bool
) -> Iterator[Contender]:
    """The bare loop for one shape (see bare.py); ended afterwards."""
    path = f"{folder}/bare" if writes else "-"
    command = [sys.executable, "-m", "ottla.bench.bare", path]
    command += [str(answer_bytes), str(slice_bytes)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            port = int(process.stdout.readline())
            yield Contender(BARE, ("127.0.0.1", port), process.pid, "bare")
        finally:
            process.kill()


def variant_contender(variant: Variant, running: Running) -> Contender:
    return Contender(
        f"ottla, {variant.name}",
        running.address,
        running.pid,
        acks=variant.acks,
        idempotent=variant.idempotent,
    )
