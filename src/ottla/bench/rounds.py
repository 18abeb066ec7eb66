"""The measuring itself: every contender in turn, round after round, so that all share the noise.

Owns the order of things: touch memory, make a topic, warm up, load, read the CPU. Must not print.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from ottla.bench import (
    asking,
    compiled,
    crowd,
    fanout,
    librdkafka,
    pump,
    shapes,
    stats,
    usage,
    wire,
)
from ottla.bench.contenders import BARE, Contender, bare_loop
from ottla.bench.shapes import Shape

CROWD_COUNT = 3
Say = Callable[[str], None]
Drive = Callable[[], pump.Measured]


@dataclass(frozen=True, slots=True)
class Cost:
    """One measurement. CPU in microseconds a request; None where no process could be watched.

    For librdkafka a request is a message here: how many it makes of them is its own affair.
    """

    user_us: float | None
    system_us: float | None
    per_second: float
    bytes_each: float
    records_each: int
    p50_ms: float | None
    p99_ms: float | None
    p999_ms: float | None
    resident_mib: float | None
    client_share: float
    """Of one core."""

    @property
    def cpu_us(self) -> float | None:
        if self.user_us is None or self.system_us is None:
            return None
        return self.user_us + self.system_us

    @property
    def s_per_gb(self) -> float | None:
        return None if self.cpu_us is None else self.cpu_us / self.bytes_each * 1e3

    @property
    def s_per_million_records(self) -> float | None:
        return None if self.cpu_us is None else self.cpu_us / self.records_each

    @property
    def records_per_second(self) -> float:
        return self.per_second * self.records_each

    @property
    def megabytes_per_second(self) -> float:
        """Of what is sent or answered, whichever is more."""
        return self.per_second * self.bytes_each / 1e6

    @property
    def per_cpu_second(self) -> float | None:
        return 1e6 / self.cpu_us if self.cpu_us else None


FIELDS = (
    "cpu_us", "user_us", "system_us", "s_per_gb", "s_per_million_records", "per_cpu_second",
    "per_second", "p50_ms", "p99_ms", "p999_ms", "resident_mib", "client_share",
)  # fmt: skip


@dataclass(slots=True)
class Line:
    """All measurements of one contender under one load; or why there are none."""

    shape: Shape
    contender: Contender
    costs: list[Cost] = field(default_factory=list)
    failed: str = ""
    client: str = "python"

    def of(self, name: str) -> stats.Spread | None:
        """The spread of one of FIELDS over the rounds; None where it couldn't be measured."""
        values = (getattr(cost, name) for cost in self.costs)
        return stats.spread(value for value in values if value is not None)

    def median(self, name: str) -> float | None:
        found = self.of(name)
        return None if found is None else found.median

    def values(self, name: str) -> list[float]:
        return [value for cost in self.costs if (value := getattr(cost, name)) is not None]


@dataclass(frozen=True, slots=True)
class Settings:
    """How long and how often. `warm_up_s` is for peers: a JVM compiles what runs often."""

    rounds: int = 5
    seconds: float = 2.0
    warm_up_s: float = 5.0
    touched_mib: int = usage.TOUCHED_MIB
    client: str = "python"
    """Which one sends: `python`, one of it; `crowd`, several processes of it; `compiled`."""


def measure(contender: Contender, shape: Shape, drive: Drive, settings: Settings) -> Cost:
    """One load on one contender. Raises pump.LoadFailed."""
    # Each time: deleted files have given theirs back. In pieces as large as the load's.
    usage.touch_memory(settings.touched_mib, shapes.batch_bytes(shape))
    before = usage.cpu(contender.pid) if contender.pid is not None else None
    if shape.pinned and contender.pid is not None:
        with usage.on_one_processor(contender.pid):
            seen = drive()
    else:
        seen = drive()
    cpu = resident = None
    if contender.pid is not None and before is not None:
        cpu = usage.cpu(contender.pid) - before
        resident = usage.resident_bytes(contender.pid) / (1 << 20)
    return cost_of(shape, seen, cpu, resident)


def _pumped(contender: Contender, load: pump.Load, settings: Settings) -> pump.Measured:
    if settings.client == "crowd":
        return crowd.run(contender.address, load, CROWD_COUNT)
    if settings.client == "compiled":
        return compiled.run(contender.address, load)
    return pump.run(contender.address, load)


def cost_of(
    shape: Shape, seen: pump.Measured, cpu: usage.Cpu | None, resident_mib: float | None
) -> Cost:
    """What was seen, for each request."""
    known = bool(seen.latencies)
    return Cost(
        user_us=None if cpu is None else cpu.user / seen.answers * 1e6,
        system_us=None if cpu is None else cpu.system / seen.answers * 1e6,
        per_second=seen.answers / seen.seconds,
        bytes_each=max(seen.bytes_in, seen.bytes_out) / seen.answers,
        records_each=shape.records_each,
        p50_ms=seen.latency(0.5) * 1e3 if known else None,
        p99_ms=seen.latency(0.99) * 1e3 if known else None,
        p999_ms=seen.latency(0.999) * 1e3 if known else None,
        resident_mib=resident_mib,
        client_share=seen.client_cpu_s / seen.seconds,
    )


def on_broker(contender: Contender, shape: Shape, seconds: float, settings: Settings) -> Cost:
    """One load in a topic of its own. Raises pump.LoadFailed, OSError."""
    address = contender.address
    with asking.new_topic(address, shape.partitions) as topic:
        if shape.kind == "fetch":
            for request in shapes.produces(shape, topic, 1):
                asking.settle(address, topic, request, wire.produce_error_at(topic))
        else:
            asking.until_ready(address, topic, shape.partitions)
        if shape.is_clients_own:
            client = librdkafka.run if shape.kind == "librdkafka" else fanout.run
            run = partial(client, address, topic, contender.acks, seconds, shape.value_bytes)
            return measure(contender, shape, run, settings)
        if shape.kind == "produce" and contender.idempotent:
            ids = [asking.producer_id(address) for _ in range(shape.connections)]
            load = shapes.idempotent_load(shape, topic, contender.acks, seconds, ids)
        else:
            load = shapes.load(shape, topic, contender.acks, seconds)
        if shape.kind == "request" and load.error_at is not None:
            # once alone: a coordinator may be a while in coming
            asking.settle(address, topic, load.requests[0], load.error_at)
        return measure(contender, shape, partial(_pumped, contender, load, settings), settings)


def run_shape(
    shape: Shape,
    others: Sequence[Contender],
    folder: str,
    settings: Settings,
    say: Say,
    *,
    with_bare: bool = True,
) -> list[Line]:
    """Every contender, interleaved. One that fails is left out from there, and says why."""
    lines = [Line(shape, contender) for contender in others]
    if with_bare and not shape.is_clients_own:
        # after the first, whose comparison with it matters most
        lines.insert(1, Line(shape, Contender(BARE, ("127.0.0.1", 0), None, "bare")))
    for turn in range(settings.rounds + 1):
        for line in lines:
            if line.failed:
                continue
            say(f"{shape.kind} {shape.name}: {line.contender.name}, {_turn(turn, settings)}")
            try:
                cost = _one(line.contender, shape, folder, settings, warming=turn == 0)
            except (pump.LoadFailed, OSError) as failure:
                line.failed, line.costs = line.contender.explain(failure), []
                continue
            if turn:
                line.costs.append(cost)
    return lines


def warm(contender: Contender, shape: Shape, settings: Settings) -> None:
    """Before anything counts. Raises pump.LoadFailed, OSError."""
    on_broker(contender, shape, settings.warm_up_s * 2, settings)


def _turn(turn: int, settings: Settings) -> str:
    return f"round {turn} of {settings.rounds}" if turn else "warming up"


def _one(
    contender: Contender, shape: Shape, folder: str, settings: Settings, *, warming: bool
) -> Cost:
    seconds = settings.seconds
    if warming:
        seconds = settings.warm_up_s if contender.kind == "peer" else min(0.5, seconds)
    if contender.kind != "bare":
        return on_broker(contender, shape, seconds, settings)
    carried = len(shapes.records(shape, 0)) if shape.kind == "fetch" else 0
    load = shapes.bare_load(shape, seconds)
    # A new one each time, for a new file: to write over the old one's pages costs half as much.
    with bare_loop(
        folder,
        answer_bytes=shapes.BARE_ANSWER_BYTES,
        slice_bytes=carried,
        writes=shape.kind != "request",
    ) as bare:
        return measure(bare, shape, partial(_pumped, bare, load, settings), settings)
