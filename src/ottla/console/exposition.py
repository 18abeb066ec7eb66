"""The report of `handlers/stats.py` in the text format that Prometheus reads.

Owns the names: those that Kafka's JMX exporter gives where Kafka has the thing, so that dashboards
made for it work; else names that begin with ottla_. docs/metrics.md lists them. Pure.
Source: https://prometheus.io/docs/instrumenting/exposition_formats/, text format 0.0.4.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Family(NamedTuple):
    """One metric: its name, kind and meaning."""

    name: str
    kind: str
    help: str


_QUANTILES = {"0.50": "p50_s", "0.95": "p95_s", "0.99": "p99_s", "0.999": "p999_s"}
"""Written as the JMX exporter does, which makes them out of "50thPercentile" and so on."""
_TOPIC = "kafka_server_brokertopicmetrics_"
_REQUEST = "kafka_network_requestmetrics_"
_LOG = "kafka_log_log_"

BYTES_IN = Family(
    f"{_TOPIC}bytesin_total", "counter", "Bytes of batches appended: of all, and by topic."
)
BYTES_OUT = Family(
    f"{_TOPIC}bytesout_total", "counter", "Bytes of batches fetched: of all, and by topic."
)
MESSAGES_IN = Family(
    f"{_TOPIC}messagesin_total", "counter", "Records appended: of all, and by topic."
)
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
UNDER_REPLICATED = Family(
    "kafka_server_replicamanager_underreplicatedpartitions",
    "gauge",
    "Partitions with too few replicas in sync: 0, each has one replica.",
)
_CONTROLLER = "kafka_controller_kafkacontroller_"
CONTROLLERS = Family(f"{_CONTROLLER}activecontrollercount", "gauge", "1: this node is it.")
NO_LEADER = Family(
    f"{_CONTROLLER}offlinepartitionscount", "gauge", "Partitions of the cluster without a leader."
)
ALL_TOPICS = Family(f"{_CONTROLLER}globaltopiccount", "gauge", "Topics of the cluster.")
ALL_PARTITIONS = Family(f"{_CONTROLLER}globalpartitioncount", "gauge", "Partitions of the cluster.")
CONNECTIONS = Family(
    "kafka_server_socket_server_metrics_connection_count", "gauge", "Clients' open connections."
)
CPU = Family("process_cpu_seconds_total", "counter", "User and system CPU of the process.")
MEMORY = Family("process_resident_memory_bytes", "gauge", "Memory of the process in RAM.")
DESCRIPTORS = Family("process_open_fds", "gauge", "Open file descriptors.")
DESCRIPTORS_MAX = Family("process_max_fds", "gauge", "File descriptors that may be open.")
STARTED = Family(
    "process_start_time_seconds", "gauge", "When the node was started, in seconds since 1970."
)
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
COLD = Family(
    "ottla_cold_fetches_total", "counter", "Reads that a thread had to bring in or check first."
)
POSITIONS = Family("ottla_committed_positions", "gauge", "Offsets that groups have committed.")
LAG = Family(
    "kafka_consumergroup_lag_sum",
    "gauge",
    "Records between a group's positions in a topic and the end (the name is kafka_exporter's).",
)
SYNCS = Family("ottla_file_syncs_total", "counter", "Files synced.")
ROUNDS = Family("ottla_sync_rounds_total", "counter", "Rounds of syncs.")
TURN_TIME = Family(
    "ottla_loop_turn_seconds", "summary", "How long a turn of the loop kept the others waiting."
)
TURNS = Family("ottla_loop_turns_total", "counter", "Turns of the loop.")
DISK = Family("ottla_disk_bytes", "gauge", "Size of the file system below the log directory.")
DISK_FREE = Family("ottla_disk_free_bytes", "gauge", "What is free of it for the broker.")

FAMILIES = tuple(value for value in list(globals().values()) if isinstance(value, Family))


def text(report: Mapping[str, Any]) -> str:
    """The whole answer."""
    return "".join(lines(report))


def lines(report: Mapping[str, Any]) -> Iterator[str]:
    """The same, line by line or a few together."""
    yield from _broker(report)
    yield from _by_topic(report)
    yield from _by_partition(report["partitions"])
    yield from _requests(report)


def _lines(family: Family, samples: Iterable[tuple[Mapping[str, object], float]]) -> Iterator[str]:
    head = f"# HELP {family.name} {family.help}\n# TYPE {family.name} {family.kind}\n"
    for labels, value in samples:
        yield f"{head}{family.name}{_labels(labels)} {_number(value)}\n"
        head = ""


def _labels(labels: Mapping[str, object]) -> str:
    if not labels:
        return ""
    inside = ",".join(f'{name}="{_escaped(str(value))}"' for name, value in labels.items())
    return f"{{{inside}}}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return repr(value) if isinstance(value, float) else str(int(value))


def _broker(report: Mapping[str, Any]) -> Iterator[str]:
    broker, process = report["broker"], report["process"]
    count = broker["partitions"]
    online = broker["log_directory_online"]
    single: list[tuple[Family, float | None]] = [
        (PARTITIONS, count),
        (LEADERS, count if online else 0),
        (OFFLINE, 0 if online else count),
        (UNDER_REPLICATED, 0),
        (CONTROLLERS, 1),
        (NO_LEADER, 0 if online else count),
        (ALL_TOPICS, broker["topics"]),
        (ALL_PARTITIONS, count),
        (CPU, process["cpu_s"]),
        (MEMORY, process["resident_bytes"]),
        (DESCRIPTORS, process["open_descriptors"]),
        (DESCRIPTORS_MAX, process["descriptors_max"]),
        (STARTED, process["started_at_s"]),
        (DISK, report["disk"]["bytes"]),
        (DISK_FREE, report["disk"]["free_bytes"]),
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
            yield from _lines(family, [({}, value)])
    if broker["connections"] is not None:
        yield from _lines(CONNECTIONS, [({"listener": "PLAINTEXT"}, broker["connections"])])
    reasons = report["opened_batches"]
    yield from _lines(OPENED, [({"reason": name}, count) for name, count in reasons.items()])
    ratios = report["batching"]["compression_ratio_sampled"]
    yield from _lines(RATIO, [({"codec": name}, ratio) for name, ratio in ratios.items()])
    behind = report["offsets"]["lag"]
    yield from _lines(
        LAG,
        [({"consumergroup": one["group"], "topic": one["topic"]}, one["lag"]) for one in behind],
    )
    yield from _summary(TURN_TIME, [({}, report["loop"]["turn_time"])], 1.0)


def _by_topic(report: Mapping[str, Any]) -> Iterator[str]:
    sums: dict[str, dict[str, int]] = {}
    codecs: dict[tuple[str, str], int] = {}
    for one in report["partitions"]:
        mine = sums.setdefault(one["topic"], {})
        for name in ("bytes_in", "bytes_out", "records_in", "fetches", "fetches_cold"):
            mine[name] = mine.get(name, 0) + one[name]
        for codec, count in one["batches_by_codec"].items():
            codecs[one["topic"], codec] = codecs.get((one["topic"], codec), 0) + count
    # What has no topic is the node's, with what was deleted, as Kafka has it: a sum over topics
    # would fall when one goes.
    cache = report["page_cache"]
    named = {
        BYTES_IN: ("bytes_in", report["sequential_io"]["appended_bytes"]),
        BYTES_OUT: ("bytes_out", report["sent_bytes"]),
        MESSAGES_IN: ("records_in", report["batching"]["records"]),
        FETCHES: ("fetches", cache["fetches"]),
        COLD: ("fetches_cold", cache["fetches_cold"]),
    }
    for family, (name, total) in named.items():
        by_topic = [({"topic": topic}, mine[name]) for topic, mine in sums.items()]
        yield from _lines(family, [({}, total), *by_topic])
    yield from _lines(
        BATCHES, [({"topic": topic, "codec": codec}, n) for (topic, codec), n in codecs.items()]
    )


def _by_partition(partitions: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    labelled = [({"topic": one["topic"], "partition": one["partition"]}, one) for one in partitions]
    named = {LOG_SIZE: "size_bytes", LOG_START: "log_start_offset", LOG_END: "log_end_offset"}
    for family, name in named.items():
        yield from _lines(family, ((labels, one[name]) for labels, one in labelled))
    yield from _lines(SEGMENTS, ((labels, len(one["segments"])) for labels, one in labelled))
    known = ((labels, one) for labels, one in labelled if one.get("cached_bytes") is not None)
    yield from _lines(CACHED, ((labels, one["cached_bytes"]) for labels, one in known))


def _requests(report: Mapping[str, Any]) -> Iterator[str]:
    apis = [({"request": one["api"]}, one) for one in report["requests"]]
    # Kafka counts a fetch of a consumer under two names; dashboards ask for this one.
    apis += [({"request": "FetchConsumer"}, one) for labels, one in apis if one["api"] == "Fetch"]
    yield from _lines(REQUESTS, [(labels, one["requests"]) for labels, one in apis])
    yield from _summary(LOCAL_TIME, [(labels, one["time"]) for labels, one in apis], 1e3)


def _summary(
    family: Family,
    found: Iterable[tuple[Mapping[str, object], Mapping[str, Any]]],
    factor: float,
) -> Iterator[str]:
    head = f"# HELP {family.name} {family.help}\n# TYPE {family.name} {family.kind}\n"
    for labels, one in found:
        for share, name in _QUANTILES.items():
            quantile = _labels({**labels, "quantile": share})
            yield f"{head}{family.name}{quantile} {_number(float(one[name]) * factor)}\n"
            head = ""
        plain = _labels(labels)
        yield f"{family.name}_sum{plain} {_number(float(one['sum_s']) * factor)}\n"
        yield f"{family.name}_count{plain} {one['timed']}\n"
