"""How long a start takes: of a process until its first answer, and of a broker embedded.

Owns the figures of `ottla bench start`. Each is measured some times, one after the other, and each
run finds our modules compiled, as every start but the first does. Must not count the first run.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ottla.bench import pump, restarted, wire
from ottla.bench.stats import Spread, number, spread

_IMPORT = "import time; a = time.perf_counter(); import ottla; print(time.perf_counter() - a)"

_EMBEDDED = """
import time
import ottla
broker = ottla.Broker()
begun = time.perf_counter()
broker.start()
import socket, struct
host, port = broker.bootstrap_servers.split(":")
peer = socket.create_connection((host, int(port)))
peer.sendall(struct.pack(">ihhih", 10, 18, 0, 1, -1))
peer.recv(4)
print(time.perf_counter() - begun)
broker.close()
"""
"""With what `ottla.Broker` needs imported: 50 ms are allowed from there."""

_FIRST_RECORD = """
import time
begun = time.perf_counter()
import ottla
with ottla.Broker() as broker:
    from confluent_kafka import Consumer, Producer
    servers = {"bootstrap.servers": broker.bootstrap_servers}
    producer = Producer(servers)
    producer.produce("t", b"v")
    consumer = Consumer({**servers, "group.id": "g", "auto.offset.reset": "earliest"})
    consumer.subscribe(["t"])
    producer.flush(10)
    deadline = begun + 10
    while time.perf_counter() < deadline:
        message = consumer.poll(0.1)
        if message is not None and message.error() is None:
            print(time.perf_counter() - begun)
            break
    consumer.close()
"""

EXPLANATION = """\
Wall time, which other work on the machine lengthens: the least is nearest to what a start costs.
first answer: from the process being started to its answer to ApiVersions. kill -9: the directory
had 4 partitions with a little data. embedded: from Broker.start() to an answer, ottla imported.
first record: from `import ottla` in a new interpreter to a record that a consumer group was given,
broker, producer and consumer (confluent-kafka, its defaults) in that process."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds from here to there; or why there are none."""

    name: str
    budget_ms: float | None
    found: Spread | None
    failed: str = ""

    def as_json(self) -> dict[str, Any]:
        out: dict[str, Any] = {"what": self.name, "budget_ms": self.budget_ms}
        return out | ({"ms": self.found.as_json()} if self.found else {"failed": self.failed})


def compiled_into(cache: str) -> dict[str, str]:
    """This process's, with compiled modules in `cache` even where writing them is turned off."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": cache}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment


def _write_a_little(address: tuple[str, int]) -> None:
    records = wire.batch(100, 100, int(time.time() * 1000))
    pump.ask(address, wire.create_topic("little", 4))
    for partition in range(4):
        for _ in range(50):
            pump.ask(address, wire.produce("little", partition, records, -1))


def _both_starts(environment: dict[str, str]) -> tuple[float, float]:
    """Seconds on an empty directory, and on the same after kill -9 with 4 partitions of data."""
    with tempfile.TemporaryDirectory(prefix="ottla-start-") as directory:
        with restarted.started(directory, (), environment) as process:
            fresh_s = process.until_answer()
            _write_a_little(process.address)
        with restarted.started(directory, (), environment) as process:
            killed_s = process.until_answer()
            process.stop()
    return fresh_s, killed_s


def _printed(code: str, environment: dict[str, str]) -> float:
    """The seconds that a program of its own prints. Raises LoadFailed."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=environment,
    )
    try:
        return float(done.stdout)
    except ValueError:
        said = done.stderr.strip().splitlines()
        raise pump.LoadFailed(said[-1] if said else "no record within 10 s") from None


def measure(runs: int, say: Callable[[str], None]) -> list[Timing]:
    """All figures, interleaved. Raises LoadFailed if a broker doesn't start."""
    programs = {"import": _IMPORT, "embedded": _EMBEDDED, "record": _FIRST_RECORD}
    seconds: dict[str, list[float]] = {"fresh": [], "killed": [], **{key: [] for key in programs}}
    failed: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="ottla-compiled-") as cache:
        environment = compiled_into(cache)
        for turn in range(runs + 1):  # the first compiles
            say(f"start, round {turn} of {runs}")
            fresh, killed = _both_starts(environment)
            found = {"fresh": fresh, "killed": killed}
            for key in programs.keys() - failed.keys():
                try:
                    found[key] = _printed(programs[key], environment)
                except (pump.LoadFailed, subprocess.TimeoutExpired) as failure:
                    failed[key] = str(failure)
            for key, value in found.items():
                seconds[key] += [value * 1e3] if turn else []
    return [
        Timing(
            name, budget_ms, None if key in failed else spread(seconds[key]), failed.get(key, "")
        )
        for key, name, budget_ms in (
            ("fresh", "first answer, empty directory", 150.0),
            ("killed", "first answer, after kill -9", 500.0),
            ("import", "import ottla", None),
            ("embedded", "embedded, after import", 50.0),
            ("record", "import to first record of a group", 500.0),
        )
    ]


def rows(found: Sequence[Timing]) -> list[list[str]]:
    table = [["", "least ms", "median", "most", "budget", "met"]]
    for timing in found:
        measured, budget = timing.found, timing.budget_ms
        if measured is None:
            table.append([f"{timing.name}: not measured: {timing.failed}", *[""] * 5])
            continue
        values = (measured.least, measured.median, measured.most)
        met = "" if budget is None else "yes" if measured.median <= budget else "no"
        table.append(
            [
                timing.name,
                *(number(value) for value in values),
                "" if budget is None else f"≤ {number(budget)}",
                met,
            ]
        )
    return table
