"""What a request costs the broker: its CPU per request, rate and latency, beside a bare loop.

    python -m ottla.bench.load                                 starts a broker of its own
    python -m ottla.bench.load --broker HOST:PORT --pid PID    any broker, Apache Kafka too

Owns the choice of loads and the report. Each round measures each load on the broker and on the
bare loop one after the other, since two cores of a virtual machine are not the same for long.
CPU is user + system of the process, its threads and its children, as the kernel counts them.
"""

from __future__ import annotations

import argparse
import contextlib
import mmap
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ottla.bench import pump, wire

PARTITIONS_COUNT = 4
# A kernel that reports free pages hands them back to the host once about a GiB of them waits, and
# whoever writes there next pays 1 s/GB for them: touch less than that, and send less still.
_TOUCHED_BYTES = 768 << 20
_SENT_BYTES_MAX = 512 << 20  # by one measurement: within what was touched
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Shape:
    """One line of the report. A fetch has `slice_bytes`: what one answer carries at most."""

    name: str
    connections: int
    depth: int
    records_count: int
    value_bytes: int = 100
    slice_bytes: int = 0


SHAPES = (
    Shape("produce 100 B, depth 16", 8, 16, 1),
    Shape("produce 100 B, depth 1", 16, 1, 1),
    Shape("produce 16 KiB", 4, 4, 160),
    Shape("produce 1 MiB", 4, 2, 960, 1024),
    Shape("fetch 1 MiB", 4, 2, 960, 1024, slice_bytes=1 << 20),
    Shape("fetch 100 B, depth 8", 8, 8, 1, slice_bytes=1),
)


@dataclass(frozen=True, slots=True)
class Cost:
    """One measurement: microseconds of CPU per request, and what the pump saw."""

    cpu_us: float
    rate: float
    p50_ms: float
    p99_ms: float
    bytes_each: float

    @property
    def cpu_s_per_gb(self) -> float:
        return self.cpu_us / self.bytes_each * 1e3


@dataclass(frozen=True, slots=True)
class Target:
    """A broker: where it listens, and the process whose CPU counts."""

    address: tuple[str, int]
    pid: int


def touch_memory() -> None:
    """Touch and free pages: on a virtual machine the first touch of a page is paid to the host."""
    with mmap.mmap(-1, _TOUCHED_BYTES) as memory:
        memory[:: mmap.PAGESIZE] = bytes(_TOUCHED_BYTES // mmap.PAGESIZE)


def _family(pid: int) -> Iterator[int]:
    """A process and all that descend from it."""
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in children.read_text().split():
                yield from _family(int(child))


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, its threads and its children, reaped ones too."""
    ticks = 0
    for one in _family(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))  # utime, stime, cutime, cstime
    return ticks / _TICKS


def measure(target: Target, load: pump.Load) -> Cost:
    """Raises pump.LoadFailed."""
    touch_memory()  # each time, since files that were deleted have given their pages back
    before = cpu_seconds(target.pid)
    seen = pump.run(target.address, load)
    cpu = cpu_seconds(target.pid) - before
    return Cost(
        cpu_us=cpu / seen.answers * 1e6,
        rate=seen.answers / seen.seconds,
        p50_ms=seen.latency(0.5) * 1e3,
        p99_ms=seen.latency(0.99) * 1e3,
        bytes_each=max(seen.bytes_in, seen.bytes_out) / seen.answers,
    )


@contextlib.contextmanager
def new_topic(target: Target) -> Iterator[str]:
    """A topic with four partitions and a leader for each, gone afterwards."""
    topic = f"load-{os.getpid():x}-{time.monotonic_ns():x}"
    error = wire.create_topic_error(
        topic, pump.ask(target.address, wire.create_topic(topic, PARTITIONS_COUNT))
    )
    if error:
        raise pump.LoadFailed(f"the broker made no topic: error {error}")
    try:
        yield topic
    finally:
        with contextlib.suppress(OSError, pump.LoadFailed):
            pump.ask(target.address, wire.delete_topic(topic))


def _until_led(target: Target, topic: str, request: bytes) -> None:
    """Fill a partition, and wait for its leader where a broker takes its time to have one."""
    error_at = wire.produce_error_at(topic) - 4
    for _ in range(100):
        answer = pump.ask(target.address, request)
        if answer[error_at : error_at + 2] == b"\0\0":
            return
        time.sleep(0.05)
    raise pump.LoadFailed("the broker takes no record")


def on_broker(target: Target, shape: Shape, seconds: float, acks: int) -> Cost:
    """One shape on the broker, in a topic of its own. Raises pump.LoadFailed."""
    records = wire.batch(shape.records_count, shape.value_bytes, int(time.time() * 1000))
    with new_topic(target) as topic:
        produces = [wire.produce(topic, p, records, acks) for p in range(PARTITIONS_COUNT)]
        for request in produces:
            _until_led(target, topic, request)
        if shape.slice_bytes:
            requests = [wire.fetch(topic, p, shape.slice_bytes) for p in range(PARTITIONS_COUNT)]
            error_at = wire.fetch_error_at(topic)
        else:
            requests, error_at = produces, wire.produce_error_at(topic)
        return measure(target, _load(shape, requests, error_at, seconds))


def on_bare_loop(folder: str, shape: Shape, seconds: float) -> Cost:
    """The same requests to the bare loop."""
    records = wire.batch(shape.records_count, shape.value_bytes, 0)
    carried = len(records) if shape.slice_bytes else 0
    request = wire.fetch("bare", 0, 1) if carried else wire.produce("bare", 0, records, 1)
    command = [sys.executable, "-m", "ottla.bench.bare", f"{folder}/bare", "60", str(carried)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            target = Target(("127.0.0.1", int(process.stdout.readline())), process.pid)
            return measure(target, _load(shape, [request], 8, seconds))
        finally:
            process.kill()


def _load(shape: Shape, requests: Sequence[bytes], error_at: int, seconds: float) -> pump.Load:
    return pump.Load(
        requests=[requests[i % len(requests)] for i in range(shape.connections)],
        depth=shape.depth,
        error_at=error_at,
        seconds=seconds,
        answers_max=max(1, _SENT_BYTES_MAX // len(requests[0])),
    )


@contextlib.contextmanager
def own_broker(folder: str, options: Sequence[str]) -> Iterator[Target]:
    """`ottla serve` on a free port, with Kafka's idea of durability; stopped afterwards."""
    command = [sys.executable, "-m", "ottla", "serve", "--data-dir", f"{folder}/data"]
    command += ["--listen", "127.0.0.1:0"]
    command += [part for option in options for part in ("-o", option)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            ready = re.search(r"ready on (\S+):(\d+)", process.stdout.readline())
            if ready is None:
                raise pump.LoadFailed("ottla serve did not start")
            yield Target((ready[1], int(ready[2])), process.pid)
        finally:
            process.terminate()


def median(costs: Sequence[Cost], of: Callable[[Cost], float]) -> float:
    return statistics.median(map(of, costs))


def report(shape: Shape, broker: Sequence[Cost], bare: Sequence[Cost]) -> str:
    """One line: medians over the rounds, and the least, which noise can't make smaller."""
    cpu, yardstick = median(broker, lambda c: c.cpu_us), median(bare, lambda c: c.cpu_us)
    return (
        f"{shape.name:<24} {cpu:8.1f} {min(c.cpu_us for c in broker):8.1f} {yardstick:8.1f}"
        f" {cpu / yardstick if yardstick else 0:6.2f} {median(broker, lambda c: c.rate):9.0f}"
        f" {median(broker, lambda c: c.p50_ms):8.3f} {median(broker, lambda c: c.p99_ms):8.3f}"
        f" {median(broker, lambda c: c.cpu_s_per_gb):7.2f}"
    )


HEADING = (
    f"{'medians':<24} {'µs CPU':>8} {'least':>8} {'bare':>8} {'ratio':>6} {'req/s':>9}"
    f" {'p50 ms':>8} {'p99 ms':>8} {'s/GB':>7}"
)


def measure_all(target: Target, folder: str, arguments: argparse.Namespace) -> None:
    """Every round of every shape that was asked for; prints the report."""
    shapes = [shape for shape in SHAPES if re.search(arguments.only, shape.name)]
    print(HEADING, flush=True)
    for shape in shapes:
        broker, bare = [], []
        for turn in range(arguments.rounds + 1):
            seconds = arguments.seconds if turn else min(1.0, arguments.seconds)
            costs = (
                on_broker(target, shape, seconds, arguments.acks),
                on_bare_loop(folder, shape, seconds),
            )
            if turn:  # the first is for warming up
                broker.append(costs[0])
                bare.append(costs[1])
        print(report(shape, broker, bare), flush=True)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m ottla.bench.load", description=__doc__)
    parser.add_argument("--broker", help="HOST:PORT of a running broker; default: start one")
    parser.add_argument("--pid", type=int, help="the process of that broker")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--acks", type=int, default=1, choices=(1, -1))
    parser.add_argument("--only", default="", help="a pattern of the loads to run")
    parser.add_argument(
        "-o", dest="options", action="append", default=["flush.policy=os"], metavar="KEY=VALUE",
        help="an option for the broker that is started, such as flush.policy=commit",
    )  # fmt: skip
    parsed = parser.parse_args(arguments)
    if parsed.broker and not parsed.pid:
        parser.error("--broker needs --pid, the process whose CPU is measured")
    return parsed


def main(argv: Sequence[str]) -> int:
    arguments = parse(argv)
    with tempfile.TemporaryDirectory(prefix="ottla-load-") as folder:
        try:
            if arguments.broker:
                host, _, port = arguments.broker.rpartition(":")
                measure_all(Target((host, int(port)), arguments.pid), folder, arguments)
            else:
                with own_broker(folder, arguments.options) as target:
                    measure_all(target, folder, arguments)
        except pump.LoadFailed as failure:
            print(f"no measurement: {failure}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
