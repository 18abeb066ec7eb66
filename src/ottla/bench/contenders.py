"""Who is measured: an ottla of our own, the bare loop, any broker that was named.

Owns their processes: each is started here and gone when its block is left. Must not load them.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from ottla.bench import pump, usage

BASE_OPTIONS = ("flush.policy=os", "log.segment.delete.delay.ms=0")
"""Kafka's idea of durability, for a comparison that is fair; and what a measurement wrote is gone
before the next one begins."""

BARE = "bare loop"
_DYING_S = 0.5
_LAST_LINES = 12


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
    running: Running | None = None
    """Where it was started here: asked for its last words when it is gone."""

    def explain(self, failure: Exception) -> str:
        """A failed measurement in a sentence: with what the broker said, if it has ended."""
        words = None if self.running is None else self.running.last_words()
        return str(failure) if words is None else f"{words} ({failure})"


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


@dataclass(slots=True, eq=False)
class Running:
    """A process that was started here. It writes its log into a file: a pipe that nobody reads
    would stop it once it is full."""

    process: subprocess.Popen[str]
    address: tuple[str, int]
    said: IO[str]
    told: bool = False
    """Whether its end has been told already."""

    @property
    def pid(self) -> int:
        return self.process.pid

    def last_words(self) -> str | None:
        """That it has ended though nobody ended it, and how; None while it runs."""
        try:
            # A connection is refused a moment before its process is gone.
            code = self.process.wait(timeout=_DYING_S)
        except subprocess.TimeoutExpired:
            return None
        self.told = True
        return _how_it_ended(self.process, code, self.said)


def _how_it_ended(process: subprocess.Popen[str], code: int, said: IO[str]) -> str:
    assert isinstance(process.args, list), process.args
    name = "ottla serve" if "serve" in process.args else "the bare loop"
    how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
    said.seek(0)
    lines = said.read().strip().splitlines()[-_LAST_LINES:]
    return f"{name} {how}; it said: {' / '.join(lines) or 'nothing'}"


def _spawn(
    command: list[str], ready: str, environment: Mapping[str, str] | None = None
) -> tuple[subprocess.Popen[str], IO[str], re.Match[str]]:
    """A process, once it has said what fits `ready`. Raises pump.LoadFailed with what it said."""
    with contextlib.ExitStack() as stack:
        said = stack.enter_context(tempfile.TemporaryFile("w+", errors="replace"))
        process = subprocess.Popen(
            command,
            env={**os.environ, **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
        )
        assert process.stdout is not None
        found = re.search(ready, process.stdout.readline())
        if found is None:
            process.stdout.close()
            process.terminate()  # if it has not ended by itself, which is what it closed stdout by
            raise pump.LoadFailed(_how_it_ended(process, process.wait(), said))
        stack.pop_all()
    return process, said, found


def start(
    directory: str,
    options: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    module: str = "ottla",
) -> Running:
    """`ottla serve` on a free port; returns when it is ready. Raises pump.LoadFailed.

    `environment` is in addition to this process's own; `module` is what Python runs.
    """
    command = [sys.executable, "-m", module, "serve", "--data-dir", directory]
    command += ["--listen", "127.0.0.1:0"]
    command += [part for option in (*BASE_OPTIONS, *options) for part in ("-o", option)]
    process, said, ready = _spawn(command, r"ready on (\S+):(\d+)", environment)
    return Running(process, (ready[1], int(ready[2])), said)


def stop(running: Running, *, kill: bool = False) -> None:
    """End it, in order or as `kill -9` does, and wait until it is gone.

    Raises pump.LoadFailed if it has ended before, and nobody was told. On Ctrl-C it may have: the
    terminal interrupts it, too, and that is not for anybody to be told.
    """
    ended = running.process.poll() is not None
    ended = ended and not isinstance(sys.exception(), KeyboardInterrupt)
    words = running.last_words() if ended and not running.told else None
    if kill:
        running.process.kill()
    else:
        running.process.terminate()
    try:
        running.process.wait(timeout=60)
    except subprocess.TimeoutExpired:
        running.process.kill()
        running.process.wait()
    running.told = True
    running.said.close()
    if running.process.stdout is not None:
        running.process.stdout.close()
    if words is not None:
        raise pump.LoadFailed(words)


@contextlib.contextmanager
def own_broker(
    directory: str,
    options: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    module: str = "ottla",
) -> Iterator[Running]:
    """A broker that is stopped afterwards. Raises pump.LoadFailed."""
    running = start(directory, options, environment, module)
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
    process, said, ready = _spawn([*command, str(answer_bytes), str(slice_bytes)], r"(\d+)")
    running = Running(process, ("127.0.0.1", int(ready[1])), said)
    try:
        yield Contender(BARE, running.address, process.pid, "bare", running=running)
    finally:
        stop(running, kill=True)


def variant_contender(variant: Variant, running: Running) -> Contender:
    return Contender(
        f"ottla, {variant.name}",
        running.address,
        running.pid,
        acks=variant.acks,
        idempotent=variant.idempotent,
        running=running,
    )
