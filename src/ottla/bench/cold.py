"""`ottla bench cold`: what a reader of old records does to those who are in a hurry.

Owns the rounds: the same reading of the same bytes, at the same rate, once from the page cache and
once from the disk, piece by piece in turns, while a producer and a consumer at the end of another
topic are timed. Must know where a broker keeps its files: it reads that from the process's open
files.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from ottla.bench import asking, contenders, filling, pump, stats, wire
from ottla.bench.cold_roles import end_offset
from ottla.bench.contenders import Contender, Peer, Variant
from ottla.bench.rounds import Say
from ottla.host.residency import residency

Topics = tuple[str, str, int]
"""The name of the old one, that of the new, and where the old one ends."""
KINDS = ("page cache", "disk")
AT_MOST = 1.2
_READER_STARTS_S = 0.5
_PIECES = 8
"""A machine of two processors is another one a minute later: 0.4 ms from the page cache may be 0.5.
So no reading of the whole is compared with the next, but the pieces of both come in turns."""
_SEGMENT_BYTES = 128 << 20

EXPLANATION = """\
A producer sends 10 records every 5 ms, whether the last request was answered or not, and a consumer
reads them at the end of the log; p99 in milliseconds, from send to answer and from send to arrival.
Meanwhile another consumer reads the whole old log at a fixed rate, and throws it away unseen: each
eighth of it once out of the page cache and once from the disk, its pages having been dropped, in
turns. 'cached' is how much of it was in the page cache when the reading began. ratio: disk over
page cache, round by round, each p99 over all eighths; at most 1.2 is allowed."""


@dataclass(slots=True)
class Found:
    """What one contender's rounds gave, by where the old records came from."""

    contender: Contender
    p99_ms: dict[str, list[tuple[float, float]]] = field(
        default_factory=lambda: {kind: [] for kind in KINDS}
    )
    """(producer, consumer) of each round."""
    cached: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    read_mb_s: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    failed: str = ""

    @property
    def name(self) -> str:
        return "ottla" if self.contender.kind == "ottla" else self.contender.name

    def ratios(self, which: int) -> stats.Spread | None:
        """Disk over page cache; `which`: 0 the producer's, 1 the consumer's."""
        slow, quick = ([pair[which] for pair in self.p99_ms[k]] for k in reversed(KINDS))
        return stats.spread(stats.ratios(slow, quick))


@dataclass(frozen=True, slots=True)
class Wanted:
    mib: int = 2048
    mb_per_s: float = 200.0
    rounds: int = 3
    peers: Sequence[Peer] = ()


def measure(wanted: Wanted, say: Say) -> list[Found]:
    """All contenders, in turn. Raises pump.LoadFailed if ottla itself fails."""
    with (
        tempfile.TemporaryDirectory(prefix="ottla-cold-") as folder,
        contenders.own_broker(f"{folder}/data") as running,
    ):
        ottla = contenders.variant_contender(Variant(""), running)
        who = [Found(ottla), *(Found(peer.contender()) for peer in wanted.peers)]
        with contextlib.ExitStack() as stack:
            ready = [
                (one, topics)
                for one in who
                if (topics := _prepared(stack, one, wanted, say)) is not None
            ]
            for turn, (one, topics) in product(range(wanted.rounds), ready):
                say(f"cold: {one.name}, round {turn + 1} of {wanted.rounds}")
                _round(one, topics, wanted)
    return who


def _prepared(stack: contextlib.ExitStack, one: Found, wanted: Wanted, say: Say) -> Topics | None:
    """Its topics; None for a peer that can't be measured, which then says why."""
    try:
        return stack.enter_context(_topics(one.contender, wanted, one.name, say))
    except (pump.LoadFailed, OSError) as failure:
        if one.contender.kind == "ottla":
            raise
        one.failed = str(failure)
        return None


@contextlib.contextmanager
def _topics(contender: Contender, wanted: Wanted, name: str, say: Say) -> Iterator[Topics]:
    """A topic of old records and one for new."""
    address = contender.address
    with (
        asking.new_topic(address, 1, segment_bytes=str(_SEGMENT_BYTES)) as old,
        asking.new_topic(address, 1) as new,
    ):
        asking.until_ready(address, new, 1)
        say(f"cold: filling {wanted.mib:,} MiB of {name}")
        _until_leader(address, old)
        filling.fill(address, old, wanted.mib << 20)
        yield old, new, end_offset(address, old)


def _until_leader(address: tuple[str, int], topic: str) -> None:
    """A partition that is new may have no leader for a moment; one batch shows that it has."""
    # Of now: an old record would stand in a segment of its own, and retention would take it away.
    batch = wire.batch(*filling.LARGE, int(time.time() * 1000))
    asking.settle(address, topic, wire.produce(topic, 0, batch, 1), wire.produce_error_at(topic))


def files_of(pid: int, topic: str) -> list[Path]:
    """The log files of partition 0 of a topic, by what the process has open."""
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            path = Path(os.readlink(entry))
            if path.parent.name == f"{topic}-0":
                return sorted(path.parent.glob("*.log"))
    raise pump.LoadFailed(f"process {pid} has no file of {topic} open")


def _prepare(files: Sequence[Path], kind: str) -> float:
    """Bring the files into the page cache, or drop them from it; the share that is cached."""
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())  # what is not written yet can't be dropped
            if kind == "disk":
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            else:
                while file.read(1 << 20):
                    pass
    whole = sum(path.stat().st_size for path in files)
    known = [found.cached for path in files if (found := residency(str(path))) is not None]
    return sum(known) / whole if whole and known else float("nan")


@dataclass(slots=True)
class _Read:
    """What the pieces of one round gave together, from one of both places."""

    bytes: float = 0.0
    cached_bytes: float = 0.0
    seconds: float = 0.0
    produce_ms: list[float] = field(default_factory=list)
    consume_ms: list[float] = field(default_factory=list)


def pieces(files: Sequence[Path], end: int) -> list[tuple[Sequence[Path], int, int]]:
    """Some files at a time, with the offsets from which and up to which they hold records."""
    each = -(-len(files) // _PIECES)
    parts = [files[at : at + each] for at in range(0, len(files), each)]
    begins = [int(part[0].stem) for part in parts]
    return list(zip(parts, begins, [*begins[1:], end], strict=True))


def _round(one: Found, topics: Topics, wanted: Wanted) -> None:
    old, _new, end = topics
    pid = one.contender.pid
    if pid is None:
        raise pump.LoadFailed(f"the process of {one.contender.name} is not known")
    found = {kind: _Read() for kind in KINDS}
    for number, (files, begin, until) in enumerate(pieces(files_of(pid, old), end)):
        for kind in KINDS if number % 2 else reversed(KINDS):
            cached = _prepare(files, kind)
            read, hot = _piece(one.contender.address, topics, (begin, until), wanted.mb_per_s)
            into = found[kind]
            into.bytes += read["bytes"]
            into.cached_bytes += read["bytes"] * cached
            into.seconds += read["seconds"]
            into.produce_ms += hot["produce_ms"]
            into.consume_ms += hot["consume_ms"]
    for kind, into in found.items():
        one.cached[kind].append(into.cached_bytes / into.bytes)
        one.read_mb_s[kind].append(into.bytes / into.seconds / 1e6)
        produced, consumed = sorted(into.produce_ms), sorted(into.consume_ms)
        one.p99_ms[kind].append((stats.quantile(produced, 0.99), stats.quantile(consumed, 0.99)))


def _piece(
    address: tuple[str, int], topics: Topics, offsets: tuple[int, int], mb_per_s: float
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """What reading it came to, and what those in a hurry met meanwhile."""
    old, new, _end = topics
    where = address[0], str(address[1])
    command = [sys.executable, "-m", "ottla.bench.cold_roles"]
    hurried = subprocess.Popen(
        [*command, "hot", *where, new], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            hurried.wait(_READER_STARTS_S)
        how = [str(mb_per_s * 1e6), str(filling.LARGE[0]), *(str(one) for one in offsets)]
        reader = subprocess.run(
            [*command, "cold", *where, old, *how], stdout=subprocess.PIPE, text=True, check=False
        )
        said = hurried.communicate("over\n", timeout=60)[0]
    finally:
        hurried.kill()
    if reader.returncode or hurried.returncode:
        raise pump.LoadFailed("one of the clients failed")
    return json.loads(reader.stdout), json.loads(said)


def rows(found: Sequence[Found]) -> list[list[str]]:
    """A row for each contender and kind."""
    table = [
        ["", "produce p99 ms", "ratio", "consume p99 ms", "ratio", "read MB/s", "cached", "≤ 1.2"]
    ]
    for one in found:
        name = one.name
        if one.failed:
            table.append([f"{name}: not measured: {one.failed}", *[""] * 7])
            continue
        for kind in KINDS:
            both = [stats.spread(pair[which] for pair in one.p99_ms[kind]) for which in (0, 1)]
            ratios = [one.ratios(which) if kind == KINDS[1] else None for which in (0, 1)]
            cells = [f"{name}, {kind}"]
            for spread, ratio in zip(both, ratios, strict=True):
                cells += [_spread(spread), "-" if ratio is None else f"{ratio.median:.2f}"]
            cells.append(stats.number(_middle(one.read_mb_s[kind])))
            cells.append(f"{_middle(one.cached[kind]):.0%}")
            met = all(ratio is not None and ratio.median <= AT_MOST for ratio in ratios)
            cells.append("-" if kind == KINDS[0] else "yes" if met else "no")
            table.append(cells)
    return table


def _middle(values: Sequence[float]) -> float:
    found = stats.spread(values)
    return found.median if found else float("nan")


def _spread(found: stats.Spread | None) -> str:
    if found is None:
        return "-"
    least, most = (stats.number(value, digits=2) for value in (found.least, found.most))
    return f"{stats.number(found.median)} ({least}–{most})"


def as_json(found: Sequence[Found]) -> list[dict[str, Any]]:
    """One object for each contender: every round."""
    return [
        {
            "who": one.contender.name,
            "failed": one.failed or None,
            "p99_ms": one.p99_ms,
            "cached": one.cached,
            "read_mb_s": one.read_mb_s,
        }
        for one in found
    ]
