"""`ottla bench compare`: the same loads on ottla and on other brokers, as ratios to ottla.

Owns which loads and conditions are compared, and the ratios. Measuring is rounds.py's. Must not
print.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from ottla.bench import contenders, restart, rounds, run, shapes, stats
from ottla.bench.contenders import Contender, Peer, Variant
from ottla.bench.pump import LoadFailed
from ottla.bench.rounds import Line, Say, Settings
from ottla.bench.shapes import Shape
from ottla.bench.stats import number
from ottla.host.descriptors import raise_descriptors_max

OS, COMMIT = ("flush.policy=os",), ("flush.policy=commit",)
_CROWDED = ("max.connections.per.ip=100000", "max.connection.creation.rate=1000000")
"""A thousand clients come from one address here."""

DURABLE = (
    Shape("acks=all, 16 KiB", "produce", 4, 4, 160),
    Shape("acks=all, small batches", "produce", 8, 16),
)
"""Sent with acks=all, to ottla with and without waiting for the disk."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing that brokers are compared by: a field of Cost, and how it is written."""

    name: str
    field: str
    factor: float = 1.0


FIGURES = (
    Figure("thousand records/s", "records_per_second", 1e-3),
    Figure("MB/s", "megabytes_per_second"),
    Figure("p50 ms", "p50_ms"),
    Figure("p99", "p99_ms"),
    Figure("p99.9", "p999_ms"),
    Figure("CPU s/GB", "s_per_gb"),
    Figure("CPU s/M records", "s_per_million_records"),
    Figure("MiB", "resident_mib"),
)

EXPLANATION = """\
Each load ran on all brokers in turn, round after round; figures are medians, and what stands in
brackets is how many times ottla's figure that is, in the same rounds. CPU is user and system time
of the broker's process, threads and children; MB/s is what is sent or answered, whichever is more.
The clients share the machine with the brokers: a rate depends on that, CPU far less."""


@dataclass(frozen=True, slots=True)
class Wanted:
    peers: Sequence[Peer]
    only: str = ""
    settings: Settings = field(default_factory=Settings)
    restarts: bool = False
    """Whether peers on this machine are ended and started again, to see how long it takes."""


def chosen(only: str) -> list[tuple[Shape, bool]]:
    """The loads by name, and whether each is one of DURABLE. Raises ValueError for none."""
    every = [(shape, False) for shape in shapes.COMPARE] + [(shape, True) for shape in DURABLE]
    found = [(shape, durable) for shape, durable in every if only.lower() in shape.name.lower()]
    if not found:
        names = "; ".join(shape.name for shape, _ in every)
        raise ValueError(f"--only {only!r} fits no load; there are: {names}")
    return found


def measure(
    wanted: Wanted, done: Callable[[list[Line]], None], say: Say = run.quiet
) -> list[restart.Start]:
    """Every load on every broker; `done` gets each load's lines. The starts that were measured.

    Raises pump.LoadFailed if an ottla of our own fails, ValueError for a bad choice.
    """
    picked = chosen(wanted.only)
    raise_descriptors_max()  # shells give 1,024, and there is a load of 1,000 connections
    starts: list[restart.Start] = []
    with (
        tempfile.TemporaryDirectory(prefix="ottla-compare-") as folder,
        contenders.own_broker(f"{folder}/os", (*_CROWDED, *OS)) as plain,
        contenders.own_broker(f"{folder}/commit", (*_CROWDED, *COMMIT)) as synced,
    ):
        peers = [peer.contender() for peer in wanted.peers]
        say("starting ottla")
        starts.append(restart.own(folder))
        if wanted.restarts:
            for at, peer in enumerate(peers):
                say(f"starting {peer.name} again")
                start, pid = restart.again(peer)
                starts.append(start)
                peers[at] = replace(peer, pid=pid)
        for shape, durable in picked:
            ours = [contenders.variant_contender(Variant(""), plain)]
            ours[0] = replace(ours[0], name="ottla", acks=-1 if durable else 1)
            if durable:
                waiting = contenders.variant_contender(Variant("", acks=-1), synced)
                ours.append(replace(waiting, name="ottla, on disk"))
            others = [replace(peer, acks=ours[0].acks) for peer in peers]
            _warm(others, shape, wanted.settings, say)
            done(
                rounds.run_shape(
                    shape, [*ours, *others], folder, wanted.settings, say, with_bare=False
                )
            )
    return starts


def _warm(peers: Sequence[Contender], shape: Shape, settings: Settings, say: Say) -> None:
    for peer in peers:
        say(f"warming up {peer.name}")
        with contextlib.suppress(LoadFailed, OSError):  # said where it is measured
            rounds.warm(peer, shape, settings)


def rows(lines: Sequence[Line]) -> list[list[str]]:
    """A heading with the load, and a row for each broker: figures, and times ottla's."""
    ours = lines[0]
    out = [[lines[0].shape.name, *(figure.name for figure in FIGURES)]]
    for line in lines:
        if line.failed:
            out.append([line.contender.name, "failed", *["-"] * (len(FIGURES) - 1)])
            continue
        cells = [line.contender.name]
        for figure in FIGURES:
            value = line.median(figure.field)
            text = number(None if value is None else value * figure.factor)
            ratio = stats.spread(stats.ratios(line.values(figure.field), ours.values(figure.field)))
            if line is not ours and ratio is not None:
                text += f" ({number(ratio.median, digits=2)}×)"
            cells.append(text)
        out.append(cells)
    return out


def as_json(lines: Sequence[Line]) -> list[dict[str, object]]:
    """One object for each broker: medians with their range, and the ratios to ottla's."""
    out: list[dict[str, object]] = []
    for line in lines:
        found: dict[str, object] = {
            "load": line.shape.name,
            "conditions": line.shape.conditions,
            "who": line.contender.name,
            "acks": line.contender.acks,
        }
        if line.failed:
            out.append({**found, "failed": line.failed})
            continue
        for figure in FIGURES:
            spread = line.of(figure.field)
            ratio = stats.spread(
                stats.ratios(line.values(figure.field), lines[0].values(figure.field))
            )
            found[figure.field] = None if spread is None else spread.as_json()
            found[f"{figure.field}_times_ottla"] = None if ratio is None else ratio.as_json()
        out.append(found)
    return out
