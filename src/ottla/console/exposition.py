"""The report of `handlers/stats.py` in the text format that Prometheus reads.

Owns the names: those that Kafka's JMX exporter gives where Kafka has the thing, so that dashboards
made for it work; else names that begin with ottla_. docs/metrics.md lists them. Pure.
Source: https://prometheus.io/docs/instrumenting/exposition_formats/, text format 0.0.4.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Family(NamedTuple):
    """One metric: its name, kind and meaning."""

    name: str
    kind: str
    help: str


_TOPIC = "kafka_server_brokertopicmetrics_"
_REQUEST = "kafka_network_requestmetrics_"
_LOG = "kafka_log_log_"

BYTES_IN = Family(f"{_TOPIC}bytesin_total", "counter", "Bytes of batches appended, by topic.")
BYTES_OUT = Family(f"{_TOPIC}bytesout_total", "counter", "Bytes of batches fetched, by topic.")
MESSAGES_IN = Family(f"{_TOPIC}messagesin_total", "counter", "Records appended, by topic.")
REQUESTS = Family(f"{_REQUEST}requests_total", "counter", "Requests, by API.")
LOCAL_TIME = Family(
    f"{_REQUEST}localtimems",
    "summary",
    "Milliseconds on the loop (decode, handle, encode) of the one request in 64 that is timed.",
)
LOG_SIZE = Family(f"{_LOG}size", "gauge", "Bytes of a partition's segments.")
LOG_START = Family(f"{_LOG}logstartoffset", "gauge", "First offset of a partition.")
LOG_END = Family(f"{_LOG}logendoffset", "gauge", "Offset that the next record will get.")
SEGMENTS = Family(f"{_LOG}numlogsegments", "gauge", "Segments of a partition.")
PARTITIONS = Family("kafka_server_replicamanager_partitioncount", "gauge", "Partitions here.")
LEADERS = Family("kafka_server_replicamanager_leadercount", "gauge", "Partitions led here.")
OFFLINE = Family(
    "kafka_server_replicamanager_offlinereplicacount", "gauge", "Partitions that can't be served."
)
CPU = Family("process_cpu_seconds_total", "counter", "User and system CPU of the process.")
MEMORY = Family("process_resident_memory_bytes", "gauge", "Memory of the process in RAM.")
SENDFILE = Family("ottla_sendfile_bytes_total", "counter", "Bytes of logs sent by sendfile.")
COPIED = Family("ottla_copied_bytes_total", "counter", "Bytes of logs read and then sent.")
WRITES = Family("ottla_log_writes_total", "counter", "Writes to logs: one for each batch.")
BATCHES = Family("ottla_batches_total", "counter", "Batches appended, by topic and codec.")
OPENED = Family(
    "ottla_opened_batches_total", "counter", "Batches whose records were looked at, by reason."
)
RATIO = Family(
    "ottla_compression_ratio", "gauge", "Size of records over that of their batch, of a sample."
)
CACHED = Family("ottla_log_cached_bytes", "gauge", "Bytes of a partition in the page cache.")
FETCHES = Family("ottla_fetches_total", "counter", "Reads that found something, by topic.")
COLD = Family("ottla_cold_fetches_total", "counter", "Reads that had to wait for the disk.")
POSITIONS = Family("ottla_committed_positions", "gauge", "Offsets that groups have committed.")
LAG = Family("ottla_group_lag", "gauge", "Records between a group's positions and the end.")
SYNCS = Family("ottla_file_syncs_total", "counter", "Files synced.")
ROUNDS = Family("ottla_sync_rounds_total", "counter", "Rounds of syncs.")
TURN_TIME = Family(
    "ottla_loop_turn_seconds", "summary", "How long a turn of the loop kept the others waiting."
)
TURNS = Family("ottla_loop_turns_total", "counter", "Turns of the loop.")

FAMILIES = tuple(value for value in list(globals().values()) if isinstance(value, Family))


def text(report: Mapping[str, Any]) -> str:
    """The whole answer."""
    out: list[str] = []
    _broker(out, report)
    _by_topic(out, report["partitions"])
    _by_partition(out, report["partitions"])
    _requests(out, report)
    return "".join(out)


def _add(
    out: list[str], family: Family, samples: Iterable[tuple[Mapping[str, object], float]]
) -> None:
    lines = [f"{family.name}{_labels(labels)} {_number(value)}\n" for labels, value in samples]
    if lines:
        out.append(f"# HELP {family.name} {family.help}\n# TYPE {family.name} {family.kind}\n")
        out += lines


def _labels(labels: Mapping[str, object]) -> str:
    if not labels:
        return ""
    inside = ",".join(f'{name}="{_escaped(str(value))}"' for name, value in labels.items())
    return f"{{{inside}}}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return repr(value) if isinstance(value, float) else str(int(value))


def _broker(out: list[str], report: Mapping[str, Any]) -> None:
    count = report["broker"]["partitions"]
    online = report["broker"]["log_directory_online"]
    single: list[tuple[Family, float | None]] = [
        (PARTITIONS, count),
        (LEADERS, count if online else 0),
        (OFFLINE, 0 if online else count),
        (CPU, report["process"]["cpu_s"]),
        (MEMORY, report["process"]["resident_bytes"]),
        (SENDFILE, report["zero_copy"]["sendfile_bytes"]),
        (COPIED, report["zero_copy"]["copied_bytes"]),
        (WRITES, report["sequential_io"]["writes"]),
        (POSITIONS, report["offsets"]["positions"]),
        (SYNCS, report["durability"]["file_syncs"]),
        (ROUNDS, report["durability"]["sync_rounds"]),
        (TURNS, report["loop"]["turns"]),
    ]
    for family, value in single:
        if value is not None:
            _add(out, family, [({}, value)])
    reasons = report["opened_batches"]
    _add(out, OPENED, [({"reason": name}, count) for name, count in reasons.items()])
    ratios = report["batching"]["compression_ratio_sampled"]
    _add(out, RATIO, [({"codec": name}, ratio) for name, ratio in ratios.items()])
    behind = report["offsets"]["lag"]
    _add(out, LAG, [({"group": one["group"], "topic": one["topic"]}, one["lag"]) for one in behind])
    _summary(out, TURN_TIME, [({}, report["loop"]["turn_time"])], 1.0)


def _by_topic(out: list[str], partitions: Iterable[Mapping[str, Any]]) -> None:
    sums: dict[str, dict[str, int]] = {}
    codecs: dict[tuple[str, str], int] = {}
    for one in partitions:
        mine = sums.setdefault(one["topic"], {})
        for name in ("bytes_in", "bytes_out", "records_in", "fetches", "fetches_cold"):
            mine[name] = mine.get(name, 0) + one[name]
        for codec, count in one["batches_by_codec"].items():
            codecs[one["topic"], codec] = codecs.get((one["topic"], codec), 0) + count
    named = {
        BYTES_IN: "bytes_in",
        BYTES_OUT: "bytes_out",
        MESSAGES_IN: "records_in",
        FETCHES: "fetches",
        COLD: "fetches_cold",
    }
    for family, name in named.items():
        _add(out, family, [({"topic": topic}, mine[name]) for topic, mine in sums.items()])
    _add(
        out,
        BATCHES,
        [({"topic": topic, "codec": codec}, n) for (topic, codec), n in codecs.items()],
    )


def _by_partition(out: list[str], partitions: Iterable[Mapping[str, Any]]) -> None:
    labelled = [({"topic": one["topic"], "partition": one["partition"]}, one) for one in partitions]
    named = {LOG_SIZE: "size_bytes", LOG_START: "log_start_offset", LOG_END: "log_end_offset"}
    for family, name in named.items():
        _add(out, family, [(labels, one[name]) for labels, one in labelled])
    _add(out, SEGMENTS, [(labels, len(one["segments"])) for labels, one in labelled])
    known = [(labels, one) for labels, one in labelled if one.get("cached_bytes") is not None]
    _add(out, CACHED, [(labels, one["cached_bytes"]) for labels, one in known])


def _requests(out: list[str], report: Mapping[str, Any]) -> None:
    apis = [({"request": one["api"]}, one) for one in report["requests"]]
    _add(out, REQUESTS, [(labels, one["requests"]) for labels, one in apis])
    _summary(out, LOCAL_TIME, [(labels, one["time"]) for labels, one in apis], 1e3)


def _summary(
    out: list[str],
    family: Family,
    found: Iterable[tuple[Mapping[str, object], Mapping[str, Any]]],
    factor: float,
) -> None:
    lines = []
    for labels, one in found:
        for share, name in (("0.5", "p50_s"), ("0.99", "p99_s")):
            quantile = _labels({**labels, "quantile": share})
            lines.append(f"{family.name}{quantile} {_number(float(one[name]) * factor)}\n")
        plain = _labels(labels)
        lines.append(f"{family.name}_sum{plain} {_number(float(one['sum_s']) * factor)}\n")
        lines.append(f"{family.name}_count{plain} {one['timed']}\n")
    if lines:
        out.append(f"# HELP {family.name} {family.help}\n# TYPE {family.name} {family.kind}\n")
        out += lines
