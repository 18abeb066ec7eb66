"""`ottla bench produce|fetch|requests`: who takes part, which loads, and the report as it grows.

Owns the choice for one run. Must not know how a load is measured (rounds.py) or printed
(report.py).
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from ottla.bench import compiled, contenders, rounds, shapes, stats
from ottla.bench.contenders import Contender, Peer, Variant
from ottla.bench.pump import LoadFailed
from ottla.bench.rounds import Line, Say, Settings
from ottla.bench.shapes import Shape

KINDS: dict[str, tuple[Shape, ...]] = {
    "produce": shapes.PRODUCE,
    "fetch": shapes.FETCH,
    "requests": shapes.REQUESTS,
}
CLIENTS = {"crowd": f", {rounds.CROWD_COUNT} clients", "compiled": ", a compiled client"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What one run shall measure."""

    kind: str
    only: str = ""
    exactly: Sequence[str] = ()
    variants: Sequence[Variant] = ()
    peers: Sequence[Peer] = ()
    options: Sequence[str] = ()
    settings: Settings = field(default_factory=Settings)
    check_client: bool = False


def quiet(_sentence: str) -> None:
    """Say nothing about the progress."""


def chosen(kind: str, only: str) -> list[Shape]:
    """The loads whose name has `only` in it. Raises ValueError if none has."""
    found = [shape for shape in KINDS[kind] if only.lower() in shape.name.lower()]
    if not found:
        names = "; ".join(shape.name for shape in KINDS[kind])
        raise ValueError(f"--only {only!r} fits no load; there are: {names}")
    return found


@contextlib.contextmanager
def participants(
    folder: str, variants: Sequence[Variant], peers: Sequence[Peer], options: Sequence[str] = ()
) -> Iterator[list[Contender]]:
    """Brokers of our own for the conditions of the budgets and for each variant, and the peers."""
    with contextlib.ExitStack() as stack:
        # One broker for all variants that differ only in what the client does.
        brokers: dict[tuple[str, ...], contenders.Running] = {}
        found = []
        for variant in (Variant("ottla"), *variants):
            own = (*options, *variant.options)
            if own not in brokers:
                place = f"{folder}/data-{len(brokers)}"
                brokers[own] = stack.enter_context(contenders.own_broker(place, own))
            found.append(contenders.variant_contender(variant, brokers[own]))
        found[0] = replace(found[0], name="ottla")
        yield [*found, *(peer.contender() for peer in peers)]


def measure(
    wanted: Wanted, done: Callable[[list[Line]], None], say: Say = quiet
) -> list[list[Line]]:
    """Every load that was asked for; `done` gets each as soon as it is measured.

    Raises pump.LoadFailed if a broker of our own doesn't start, ValueError for a bad choice.
    """
    picked = chosen(wanted.kind, wanted.only)
    if wanted.exactly:
        picked = [shape for shape in picked if shape.name in wanted.exactly]
    found = []
    with (
        tempfile.TemporaryDirectory(prefix="ottla-bench-") as folder,
        participants(folder, wanted.variants, wanted.peers, wanted.options) as others,
    ):
        for peer in others:
            if peer.kind == "peer":
                say(f"warming up {peer.name}")
                with contextlib.suppress(LoadFailed, OSError):  # said where it is measured
                    rounds.warm(peer, picked[0], wanted.settings)
        for shape in picked:
            lines = rounds.run_shape(shape, others, folder, wanted.settings, say)
            if wanted.check_client and not shape.is_clients_own and shape.connections > 1:
                for client in other_clients():
                    lines += _by_client(client, shape, others[0], folder, wanted.settings, say)
            found.append(lines)
            done(lines)
    return found


def other_clients() -> list[str]:
    """Those that a load can be checked with on this machine."""
    return ["crowd", "compiled"] if compiled.compiler() else ["crowd"]


def _by_client(
    client: str, shape: Shape, ottla: Contender, folder: str, settings: Settings, say: Say
) -> list[Line]:
    """The same load on ottla alone, from another client."""
    found = rounds.run_shape(shape, [ottla], folder, replace(settings, client=client), say)
    for line in found:
        line.client = client
        line.contender = replace(line.contender, name=f"{line.contender.name}{CLIENTS[client]}")
    return found


def verdicts_on_client(lines: Sequence[Line]) -> list[str]:
    """Whether the one client was the limit, of lines measured with `check_client`."""
    by_name = {line.contender.name: line.median("cpu_us") for line in lines}
    one, said = by_name.get("ottla"), []
    for name in CLIENTS.values():
        other = by_name.get(f"ottla{name}")
        if one and other:
            said.append(
                f"check of the client: with{name.replace(',', '')} a request costs the broker "
                f"{stats.number(other)} µs instead of {stats.number(one)} ({other / one - 1:+.0%})"
            )
    return said


def failure_of(found: Sequence[Sequence[Line]]) -> str | None:
    """Why ottla itself wasn't measured, if anywhere."""
    for lines in found:
        for line in lines:
            if line.failed and line.contender.kind == "ottla":
                return f"{line.shape.kind} {line.shape.name}: {line.failed}"
    return None
