"""`ottla top`: what a running broker does, second by second, and by which technique.

Owns the screen. The figures are those of /stats (docs/metrics.md); a rate is the difference of
two of them over the time between.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ottla.cli.errors import BadInput, CommandError
from ottla.cli.render import table
from ottla.core.metrics import quantile
from ottla.host.terminal import BOLD, DIM, painted

if TYPE_CHECKING:
    from ottla.cli import arguments

Report = Mapping[str, Any]
_PATIENCE_S = 10.0
_ANSWER_BYTES_MAX = 256 << 20
_CLEAR, _HOME = "\x1b[2J", "\x1b[H\x1b[J"
_STYLE = re.compile(r"\x1b\[[0-9;]*m")
_STYLED = re.compile(rf"((?:{_STYLE.pattern})*)([^\x1b]*)")


def show(options: arguments.Top) -> int:
    """Until Ctrl-C; once, where nobody watches or --once is given."""
    address = _address(options.admin)
    before, seconds = fetched(address), 0.0
    watched = sys.stdout.isatty() and not options.once
    try:
        if watched:
            sys.stdout.write(_CLEAR)
        while True:
            begun = time.monotonic()
            time.sleep(options.interval)
            now = fetched(address)
            seconds = time.monotonic() - begun
            if options.json:
                sys.stdout.write(json.dumps(now) + "\n")
            else:
                _print(now, before, seconds, watched=watched)
            sys.stdout.flush()
            if not watched:
                return 0
            before = now
    except KeyboardInterrupt:
        return 0


def _print(now: Report, before: Report, seconds: float, *, watched: bool) -> None:
    """On a terminal as much as fits on it, in the place of what was there."""
    if watched:
        width, height = shutil.get_terminal_size()
        sys.stdout.write(_HOME)
        lines = screen(now, before, seconds, apis_max=max(5, height // 2 - 10))[: height - 1]
        # A line that ran on would push the first ones off the screen.
        lines = [fitting(line, width) for line in lines]
    else:
        lines = screen(now, before, seconds)
    sys.stdout.write("\n".join(lines) + "\n")


def fitting(line: str, width: int) -> str:
    """As much of a line as `width` columns take; what styles it takes none."""
    if len(_STYLE.sub("", line)) <= width:
        return line
    kept, left = [], width - 1
    for styles, text in _STYLED.findall(line):
        kept += [styles, text[:left]]
        left -= len(text[:left])
    return "".join(kept) + "…"


def _address(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal():
        raise BadInput(f"ottla top takes HOST:PORT, not {text!r}; try: ottla top 127.0.0.1:9644")
    return text


def fetched(address: str) -> Report:
    """The report of the broker that answers there. Raises CommandError."""
    from http.client import HTTPConnection, HTTPException  # most commands need none

    connection = HTTPConnection(address, timeout=_PATIENCE_S)
    try:
        connection.request("GET", "/stats")
        answer = connection.getresponse()
        body = answer.read(_ANSWER_BYTES_MAX)
        if answer.status != 200:
            raise CommandError(f"http://{address}/stats answers {answer.status} {answer.reason}")
        found: Report = json.loads(body)
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise CommandError(
            f"no figures at http://{address}/stats ({reason}); is the broker started with "
            f"`ottla serve --admin {address}`?"
        ) from None
    finally:
        connection.close()
    if "sequential_io" not in found:
        raise CommandError(f"http://{address}/stats is not ottla's")
    return found


# --- the screen ------------------------------------------------------------------------------


def screen(
    now: Report, before: Report, seconds: float, *, apis_max: int | None = None
) -> list[str]:
    """All lines, the most important first. Rates are over `seconds`.

    Of more APIs than `apis_max` those are left out that are asked least, for topics to be seen.
    """
    return [
        *_head(now, before, seconds),
        "",
        *_techniques(now, before, seconds),
        "",
        *_requests(now, before, seconds, apis_max),
        "",
        *_topics(now, before, seconds),
        *_groups(now),
    ]


def _title(text: str) -> str:
    return painted(text, BOLD, sys.stdout)


def _head(now: Report, before: Report, seconds: float) -> list[str]:
    broker, process = now["broker"], now["process"]
    cpu = max(0.0, process["cpu_s"] - before["process"]["cpu_s"]) / seconds
    memory, clients = process["resident_bytes"], broker["connections"]
    turns, before_turns = now["loop"]["turn_time"], before["loop"]["turn_time"]
    between = _between(turns, before_turns)
    lag = f"{_ms(quantile(between, 0.99))} at p99" if any(between) else "not timed just now"
    who = f"ottla {broker['version']}, node {broker['node_id']}, up {_span(broker['uptime_s'])}"
    state = "" if broker["log_directory_online"] else "THE LOG DIRECTORY IS OFFLINE"
    bytes_in = _rate(now, before, seconds, "sequential_io", "appended_bytes")
    records = _rate(now, before, seconds, "batching", "records")
    free = now["disk"]["free_bytes"]
    parts = [
        _title(who),
        f"CPU {cpu:.0%}",
        "" if memory is None else f"{size(memory)} of memory",
        "" if clients is None else f"{clients:,} clients",
        state,
    ]
    flow = [
        f"in {size(bytes_in)}/s, {records:,.0f} records/s",
        f"out {size(max(0, now['sent_bytes'] - before['sent_bytes']) / seconds)}/s",
        "" if free is None else f"{size(free)} of disk free",
    ]
    return [
        "   ".join(part for part in parts if part),
        "   ".join(part for part in flow if part),
        f"turns of the loop: {lag}, {_ms(turns['max_s'])} the longest since the start",
    ]


def _techniques(now: Report, before: Report, seconds: float) -> list[str]:
    io, durable, offsets = now["sequential_io"], now["durability"], now["offsets"]
    writes = _rate(now, before, seconds, "sequential_io", "writes")
    syncs = _rate(now, before, seconds, "durability", "file_syncs")
    records, policy = now["batching"]["records"], now["broker"]["flush_policy"]
    rows = {
        "sequential I/O": f"{writes:,.0f} writes/s, each at the end of its file; "
        f"{io['writes_per_mb']:,.1f} for a MB",
        "zero-copy": _zero_copy(now["zero_copy"]),
        "page cache": _page_cache(now["page_cache"]),
        "batching": _batching(now["batching"], now["opened_batches"]),
        "partitions": _partitions(now["partitions"]),
        "offsets": f"{offsets['positions']:,} positions of {offsets['groups']:,} groups; "
        f"no acks of {records:,} records",
        "durability": f"{syncs:,.0f} syncs/s, {durable['records_per_sync']:,.1f} records each "
        f"(flush.policy={policy})",
    }
    return [_title("techniques"), *(f"  {name:<15} {said}" for name, said in rows.items())]


def _zero_copy(sent: Mapping[str, int]) -> str:
    both = sent["sendfile_bytes"] + sent["copied_bytes"]
    if not both:
        return "nothing was sent yet"
    share = _share(sent["sendfile_bytes"], both)
    return f"{share} of {size(both)} by sendfile, slices of at most 32 KiB copied"


def _page_cache(cache: Mapping[str, Any]) -> str:
    cached, logs = cache["cached_bytes"], cache["asked_bytes"]
    if cached is None:
        known = "how much of the logs is cached is not known here"
    else:
        share = _share(cached, logs)
        known = f"{share} of {size(logs)} cached by the kernel"
    if not cache["fetches"]:
        return f"{known}; nothing was read yet"
    return f"{known}; {cache['fetches_warm_share']:.1%} of reads hit"


def _batching(batching: Mapping[str, Any], opened: Mapping[str, int]) -> str:
    ratios = batching["compression_ratio_sampled"]
    codecs = [
        f"{'uncompressed' if name == 'none' else name} {count / batching['batches']:.0%}"
        + (f" ({ratios[name]:.1f} B into 1)" if name in ratios else "")
        for name, count in batching["batches_by_codec"].items()
    ]
    count = sum(number for reason, number in opened.items() if reason != "statistics")
    said = [
        f"{batching['records_per_batch']:,.1f} records in a batch",
        ", ".join(codecs) or "no batch yet",
        f"{count:,} opened",
    ]
    return "; ".join(said)


def _partitions(partitions: Sequence[Mapping[str, Any]]) -> str:
    busiest = max(partitions, key=lambda one: one["load_share"], default=None)
    if busiest is None:
        return "none yet"
    name = f"{busiest['topic']}-{busiest['partition']}"
    return f"{len(partitions):,}; {name} has {busiest['load_share']:.0%} of the load"


def _requests(now: Report, before: Report, seconds: float, apis_max: int | None) -> list[str]:
    """Each API since the last look: its rate, what one took, and how busy that kept the loop.

    Where none was timed since then, one in 64 being so, what one took since the start.
    """
    were = {one["api"]: one for one in before["requests"]}

    def since(one: Mapping[str, Any]) -> int:
        was = were.get(one["api"])
        return max(0, int(one["requests"]) - (was["requests"] if was else 0))

    rows: list[Sequence[str]] = [("REQUESTS", "/S", "MEAN", "P99", "CPU", "OF A CORE", "TOTAL")]
    asked = sorted(now["requests"], key=lambda one: (-since(one), -one["requests"]))
    for one in asked[:apis_max]:
        time_, was = one["time"], were.get(one["api"])
        rate = since(one) / seconds
        between = _between(time_, was["time"] if was else None)
        sum_s, timed = time_["sum_s"] - (was["time"]["sum_s"] if was else 0.0), sum(between)
        if not timed or sum_s < 0:
            between, sum_s, timed = time_["buckets"], time_["sum_s"], time_["timed"]
        mean = sum_s / timed if timed else 0.0
        rows.append(
            (
                one["api"],
                f"{rate:,.0f}",
                _ms(mean) if timed else "-",
                _ms(quantile(between, 0.99)) if timed else "-",
                _ms(one["cpu_s"] / one["cpu_timed"]) if one["cpu_timed"] else "-",
                f"{rate * mean:.0%}" if timed else "-",
                f"{one['requests']:,}",
            )
        )
    return _table(rows)


def _between(now: Mapping[str, Any], before: Mapping[str, Any] | None) -> list[int]:
    """How many of each duration were added between two looks; all, if the broker is a new one."""
    late = now["buckets"]
    if before is None or before["timed"] > now["timed"]:
        return list(late)
    return [max(0, after - early) for early, after in zip(before["buckets"], late, strict=True)]


def _topics(now: Report, before: Report, seconds: float) -> list[str]:
    sums, were = _by_topic(now), _by_topic(before)
    rows: list[Sequence[str]] = [("TOPICS", "IN/S", "RECORDS/S", "OUT/S", "SIZE", "CACHED", "LOAD")]
    for topic, one in sorted(sums.items(), key=lambda item: -item[1]["load_share"]):
        was = were.get(topic, {})
        per_s = {
            name: max(0.0, one[name] - was.get(name, 0)) / seconds
            for name in ("bytes_in", "records_in", "bytes_out")
        }
        rows.append(
            (
                topic,
                size(per_s["bytes_in"]),
                f"{per_s['records_in']:,.0f}",
                size(per_s["bytes_out"]),
                size(one["size_bytes"]),
                _share(one["cached_bytes"], one["known_bytes"]),
                f"{one['load_share']:.0%}",
            )
        )
    return _table(rows)


def _groups(now: Report) -> list[str]:
    lags = now["offsets"]["lag"]
    if not lags:
        return []
    rows = [("GROUPS", "TOPIC", "LAG")]
    most = sorted(lags, key=lambda one: -one["lag"])
    rows += [(one["group"], one["topic"], f"{one['lag']:,}") for one in most]
    return ["", *_table(rows)]


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    first, *rest = (line.rstrip("\n") for line in table(rows))
    return [painted(first, DIM, sys.stdout), *rest]


def _by_topic(report: Report) -> dict[str, dict[str, float]]:
    sums: dict[str, dict[str, float]] = {}
    names = ("bytes_in", "records_in", "bytes_out", "size_bytes", "cached_bytes", "load_share")
    for one in report["partitions"]:
        mine = sums.setdefault(one["topic"], dict.fromkeys((*names, "known_bytes"), 0))
        for name in names:
            mine[name] += one[name] or 0
        if one["cached_bytes"] is not None:
            mine["known_bytes"] += one["size_bytes"]
    return sums


def _rate(now: Report, before: Report, seconds: float, part: str, name: str) -> float:
    # A broker that was started again counts from 0.
    return max(0.0, float(now[part][name] - before[part][name])) / seconds


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.0%}" if whole else "-"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e6:,.0f} µs" if seconds < 1e-3 else f"{seconds * 1e3:,.1f} ms"


def _span(seconds: float) -> str:
    minutes, left = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{left:02d}"


def size(count: float) -> str:
    """Bytes for a reader: 12 B, 1.5 kB, 230 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:,.0f} {unit}" if count >= 100 or unit == "B" else f"{count:,.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"
