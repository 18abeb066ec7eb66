"""Measurements as text for a terminal, as a table for a page, and as JSON.

Owns the columns and their explanation. Must not measure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ottla.bench import stats
from ottla.bench.rounds import FIELDS, Line
from ottla.bench.stats import number

HEADING = (
    "", "µs/req", "least–most", "user", "system", "× bare", "s/GB", "s/M rec", "req/CPU s", "req/s",
    "p50 ms", "p99", "p99.9", "MiB", "client",
)  # fmt: skip
_COSTS = HEADING.index("s/M rec") + 1
"""Columns of what it costs; the others are what the client saw. A terminal has 80 columns for them,
which is why they stand below each other."""

CLIENT_BUSY = 0.9
"""From this share of a core on, the load generator may have been the limit."""

EXPLANATION = """\
How to read this. Each load ran on all of the above in turn, round after round;
these are medians.
  µs/req      CPU that the broker spent on one request: user and system time of
              its process, its threads and its children, by the kernel's count,
              over the number of answers. This is the figure to look at: a rate
              depends on what else the machine does, this far less.
  least–most  the same in the best and in the worst round. What lies within is
              noise: of two figures whose ranges overlap neither is better.
              More --rounds or --seconds narrow it.
  user,       which part of it was the broker's own code, and which the
   system     kernel's (sockets, files).
  × bare      µs/req over that of the bare loop: 150 lines that receive the same
              bytes, checksum and write them to a file (or sendfile them back)
              and know nothing of Kafka. No broker can do without that, so 1.0
              is the floor. Tiny requests cost most in the protocol: 2 is good
              for one at a time, 4 for many at a time. At 1 MiB it should be
              near 1.
  s/GB        CPU seconds for 10⁹ bytes of requests, or of answers where those
              are larger.
  s/M rec     CPU seconds for a million records.
  req/CPU s   requests that one second of CPU is enough for.
  req/s, p50, p99, p99.9
              what the client saw with all its requests in flight. They wait for
              one another, so that is the latency of a queue; 'alone' shows a
              broker that has nothing else to do. Most of that is two sleeping
              processors waking each other, which the bare loop shows too; with
              both on one processor it is the broker's own.
  MiB         memory of the broker in RAM, right after the load.
  client      share of one core that the load generator took. Near 100 % the
              rate is its limit; µs/req counts all the same, but a faster client
              would put more requests into one turn of the broker, and each
              would cost a little less. --check-client shows that."""


def cells(line: Line, bare: Line | None) -> list[str]:
    """One row of the table."""
    if line.failed:
        return [f"{line.contender.name}: not measured: {line.failed}", *[""] * (len(HEADING) - 1)]
    cpu = line.of("cpu_us")
    ratio = against(line, bare)
    client = line.median("client_share")
    return [
        line.contender.name,
        number(cpu.median if cpu else None),
        f"{number(cpu.least)}–{number(cpu.most)}" if cpu else "-",
        *(number(line.median(name)) for name in ("user_us", "system_us")),
        "-" if ratio is None else f"{ratio.median:.2f}",
        *(number(line.median(name)) for name in ("s_per_gb", "s_per_million_records")),
        *(whole(line.median(name)) for name in ("per_cpu_second", "per_second")),
        *(number(line.median(name)) for name in ("p50_ms", "p99_ms", "p999_ms")),
        whole(line.median("resident_mib")),
        "-" if client is None else f"{client:.0%}",
    ]


def whole(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def against(line: Line, bare: Line | None) -> stats.Spread | None:
    """Round by round, the CPU of one over that of the bare loop."""
    if bare is None or bare is line:
        return None
    return stats.spread(stats.ratios(line.values("cpu_us"), bare.values("cpu_us")))


def bare_of(lines: Sequence[Line], line: Line) -> Line | None:
    """The bare loop that the same client drove."""
    return next((o for o in lines if o.contender.kind == "bare" and o.client == line.client), None)


def text(lines: Sequence[Line]) -> str:
    """What was measured of one load, for a terminal."""
    shape = lines[0].shape
    measured = [line for line in lines if not line.failed]
    rows = [HEADING, *(cells(line, bare_of(lines, line)) for line in measured)]
    costs = stats.table([row[:_COSTS] for row in rows])
    seen = stats.table([[row[0], *row[_COSTS:]] for row in rows])
    out = [f"{shape.kind} {shape.name} ({shape.conditions})"]
    out += [f"  {row}" if row else "" for row in (*costs, "", *seen)]
    out += [
        f"  {line.contender.name}: not measured: {line.failed}" for line in lines if line.failed
    ]
    out += [f"  {remark}" for remark in remarks(lines)]
    return "\n".join(out)


def remarks(lines: Sequence[Line]) -> list[str]:
    """What a reader should know before believing the figures."""
    said = []
    for line in lines:
        cpu, client = line.of("cpu_us"), line.median("client_share")
        if cpu is not None and cpu.noise > 0.3:
            said.append(
                f"{line.contender.name}: the rounds differ by {cpu.noise:.0%}; the machine is busy"
            )
        if client is not None and client > CLIENT_BUSY and not line.shape.is_clients_own:
            name = line.contender.name
            said.append(f"{name}: the client took {client:.0%} of a core: the rate is its limit")
    return said


PAGE_HEADING = (
    "", "µs/req", "least–most", "user", "system", "× bare", "s/GB", "s/M rec", "req/s", "p50 ms",
    "p99", "p99.9", "MiB",
)  # fmt: skip


def page(lines: Sequence[Line]) -> list[str]:
    """The same as a table of a page, the load as its first column's heading."""
    keep = [HEADING.index(name) for name in PAGE_HEADING]
    rows: list[list[str]] = [[f"{lines[0].shape.kind} {lines[0].shape.name}", *PAGE_HEADING[1:]]]
    for line in lines:
        found = cells(line, bare_of(lines, line))
        rows.append([found[at] for at in keep])
    return stats.markdown(rows)


def as_json(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """One object for each line: medians, extremes and every round."""
    out = []
    for line in lines:
        shape = line.shape
        fields: dict[str, Any] = {
            "load": f"{shape.kind} {shape.name}",
            "conditions": shape.conditions,
            "who": line.contender.name,
            "acks": line.contender.acks,
        }
        if line.failed:
            out.append({**fields, "failed": line.failed})
            continue
        for name in FIELDS:
            found = line.of(name)
            fields[name] = None if found is None else found.as_json()
        ratio = against(line, bare_of(lines, line))
        fields["ratio_to_bare"] = None if ratio is None else ratio.as_json()
        fields["rounds"] = len(line.costs)
        fields["cpu_us_rounds"] = line.values("cpu_us")
        out.append(fields)
    return out
