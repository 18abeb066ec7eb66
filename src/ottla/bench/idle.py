"""What a broker takes that does nothing, and how fast an unclean log is recovered.

Owns the figures of `ottla bench idle`. Must not load a broker while its rest is measured.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ottla.bench import asking, contenders, filling, usage
from ottla.bench.contenders import Peer
from ottla.bench.stats import number

_SETTLE_S = 1.5


@dataclass(frozen=True, slots=True)
class Figure:
    """One number with its unit and what its budget allows; `at_least` turns the budget around."""

    name: str
    value: float | None
    unit: str
    budget: float | None = None
    at_least: bool = False

    @property
    def met(self) -> bool | None:
        if self.value is None or self.budget is None:
            return None
        return self.value >= self.budget if self.at_least else self.value <= self.budget

    def as_json(self) -> dict[str, Any]:
        return {
            "what": self.name,
            "value": self.value,
            "unit": self.unit,
            "budget": self.budget,
            "at_least": self.at_least,
            "met": self.met,
        }


def rest(pid: int, seconds: float) -> tuple[float, float]:
    """MiB in RAM and per cent of one core, of a process that nobody asks anything."""
    time.sleep(_SETTLE_S)
    before, begun = usage.run_seconds(pid), time.perf_counter()
    time.sleep(seconds)
    share = (usage.run_seconds(pid) - before) / (time.perf_counter() - begun)
    return usage.resident_bytes(pid) / (1 << 20), share * 100


def recovered(mib: int) -> tuple[float, float, float]:
    """GB of log, and the CPU and the wall seconds that a start spends on it after kill -9.

    What a start takes without data is taken off.
    """
    options = ("log.flush.offset.checkpoint.interval.ms=3600000",)
    with tempfile.TemporaryDirectory(prefix="ottla-recover-") as folder:
        directory = f"{folder}/data"
        empty_cpu, empty_wall = _start_cost(f"{folder}/empty", options)
        running = contenders.start(directory, options)
        try:
            # in four partitions: a segment that was closed is synced, and needs no recovery
            asking.create_topic(running.address, "recover", 4)
            asking.until_ready(running.address, "recover", 4)
            written = filling.fill(running.address, "recover", mib << 20, partitions_count=4)
        finally:
            contenders.stop(running, kill=True)
        cpu, wall = _start_cost(directory, options)
    return written / 1e9, max(cpu - empty_cpu, 1e-9), max(wall - empty_wall, 1e-9)


def _start_cost(directory: str, options: Sequence[str]) -> tuple[float, float]:
    begun = time.perf_counter()
    running = contenders.start(directory, options)
    wall, cpu = time.perf_counter() - begun, usage.cpu(running.pid).total
    contenders.stop(running)
    return cpu, wall


def measure(
    seconds: float,
    partitions_count: int,
    recover_mib: int,
    peers: Sequence[Peer],
    say: Callable[[str], None],
) -> list[Figure]:
    """Raises pump.LoadFailed, usage.Unmeasurable."""
    found = []
    with (
        tempfile.TemporaryDirectory(prefix="ottla-idle-") as folder,
        contenders.own_broker(f"{folder}/data") as running,
    ):
        say("idle: empty")
        memory, share = rest(running.pid, seconds)
        found += [
            Figure("idle, empty: memory", memory, "MiB", 45),
            Figure("idle, empty: CPU", share, "% of a core"),
        ]
        say(f"idle: {partitions_count} partitions")
        asking.create_topic(running.address, "idle", partitions_count)
        memory, share = rest(running.pid, seconds)
        name = f"idle, {partitions_count:,} partitions"
        budgets = (60, 0.2) if partitions_count <= 1000 else (None, None)
        found += [
            Figure(f"{name}: memory", memory, "MiB", budgets[0]),
            Figure(f"{name}: CPU", share, "% of a core", budgets[1]),
        ]
    for peer in peers:
        contender = peer.contender()
        if contender.pid is not None:
            say(f"idle: {peer.name}")
            memory, share = rest(contender.pid, seconds)
            found += [
                Figure(f"idle, {peer.name} as it is: memory", memory, "MiB"),
                Figure(f"idle, {peer.name} as it is: CPU", share, "% of a core"),
            ]
    say(f"recovery of {recover_mib} MiB")
    size_gb, cpu_s, wall_s = recovered(recover_mib)
    name = f"recovery of {size_gb:.2f} GB after kill -9"
    found += [
        Figure(f"{name}, by CPU", size_gb / cpu_s, "GB/s of a core", 1.0, at_least=True),
        Figure(f"{name}, by the clock", size_gb / wall_s, "GB/s"),
    ]
    return found


def rows(found: Sequence[Figure]) -> list[list[str]]:
    table = [["", "", "unit", "budget", "met"]]
    for figure in found:
        sign = "≥" if figure.at_least else "≤"
        table.append(
            [
                figure.name,
                number(figure.value),
                figure.unit,
                "" if figure.budget is None else f"{sign} {number(figure.budget)}",
                {True: "yes", False: "no", None: ""}[figure.met],
            ]
        )
    return table
