"""Has the hot path become dearer? Its CPU per request over the bare loop's, beside a recorded one.

Owns the loads that are watched and the file of ratios. Informs; fails nothing: two machines, or one
on two days, differ by more than a change may.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from ottla.bench import run, usage
from ottla.bench.rounds import Line, Say, Settings
from ottla.bench.stats import number
from ottla.core.version import __version__

WATCHED = {
    "produce": ("100 B, depth 16", "100 B, depth 1", "16 KiB"),
    "fetch": ("100 B, depth 8",),
}
WORSE = 0.10
"""By so much of the recorded ratio a change is worth a look."""


def measure(settings: Settings, say: Say) -> dict[str, float]:
    """The ratio of each load that is watched. Raises pump.LoadFailed."""
    found: dict[str, float] = {}

    def done(lines: Sequence[Line]) -> None:
        ours, bare = lines[0].of("cpu_us"), lines[1].of("cpu_us")
        if ours is not None and bare is not None and bare.least:
            # The least of each, since noise only adds.
            found[f"{lines[0].shape.kind} {lines[0].shape.name}"] = ours.least / bare.least

    for kind, names in WATCHED.items():
        run.measure(run.Wanted(kind=kind, exactly=names, settings=settings), done, say)
    return found


def changes(recorded: Mapping[str, float], now: Mapping[str, float]) -> list[tuple[str, float]]:
    """Of the loads in both: how much dearer each is now, as a share."""
    return [(name, now[name] / ratio - 1) for name, ratio in recorded.items() if name in now]


def summary(recorded: Mapping[str, float], now: Mapping[str, float]) -> str:
    """A sentence for each load, and one for the whole."""
    lines, worse = [], []
    for name, change in changes(recorded, now):
        said = f"{now[name]:.2f} × the bare loop, recorded {recorded[name]:.2f} ({change:+.0%})"
        lines.append(f"{name}: {said}")
        if change > WORSE:
            worse.append(name)
    lines += [f"{name}: {number(now[name])}, not recorded" for name in now.keys() - recorded.keys()]
    if worse:
        lines.append(
            f"more than {WORSE:.0%} dearer: {', '.join(worse)}. Noise can do that: run it again. "
            "If it stays, see what the change put on a request's way."
        )
    else:
        lines.append(f"nothing is more than {WORSE:.0%} dearer than recorded")
    return "\n".join(lines)


def compare(file: str, now: Mapping[str, float]) -> str:
    """What has changed since the file was written; how to write it if there is none."""
    path = Path(file)
    if not path.exists():
        return f"{file} isn't there yet: ottla bench check --record {file}"
    kept = json.loads(path.read_text(encoding="utf-8"))
    head = f"recorded {kept['date']}, ottla {kept['version']}, {kept['machine']}"
    return f"{head}\n{summary(kept['ratios'], now)}"


def record(file: str, now: Mapping[str, float]) -> str:
    """Write the file; what it says now."""
    fields = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "version": __version__,
        "machine": usage.machine(),
        "ratios": {name: round(ratio, 3) for name, ratio in now.items()},
    }
    Path(file).write_text(json.dumps(fields, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return f"recorded in {file}: " + ", ".join(f"{n} {r:.2f}" for n, r in now.items())
