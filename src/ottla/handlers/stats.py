"""What a running node says of itself: its counters, arranged by what they are evidence of.

Owns the shape of that report (docs/metrics.md describes it). Runs on the loop's thread and takes
no clock but the node's; a few hundred partitions at a time, so that nobody waits long for it. Must
not open a file: what lies in the page cache is found out elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from ottla.core.model import FileSlice
from ottla.core.version import __version__
from ottla.protocol.errors import ErrorCode
from ottla.records.compress import CODEC_NAMES
from ottla.storage.checked import Cold

if TYPE_CHECKING:
    from ottla.coordinator.group.offsets import Plain
    from ottla.core.metrics import Durations
    from ottla.handlers.context import Context
    from ottla.replication.partition import Partition

Report = dict[str, Any]
LAGS_MAX = 500


def broker(context: Context) -> Report:
    """The node as a whole: what doesn't belong to a partition."""
    metrics, table = context.metrics, context.table
    rounds = table.directory.rounds
    shards = context.groups.loaded_shards()
    return {
        "broker": {
            "version": __version__,
            "node_id": context.node_id,
            "cluster_id": context.image().cluster_id,
            "partitions": len(table),
            "flush_policy": rounds.policy,
            "log_directory_online": table.failure is None,
        },
        "zero_copy": {
            "sendfile_bytes": metrics.sent.sendfile,
            "copied_bytes": metrics.sent.copied,
        },
        "offsets": {
            "groups": sum(len(shard.group_ids()) for shard in shards),
            "positions": sum(
                len(committed)
                for shard in shards
                for topics in shard.offsets.groups.values()
                for committed in topics.values()
            ),
            "lag": lags(context),
        },
        "durability": {"sync_rounds": rounds.rounds_count, "file_syncs": rounds.syncs_count},
        "opened_batches": dict(metrics.opened),
        "requests": [
            {
                "api": tally.name,
                "requests": tally.requests,
                "time": durations(tally.wall),
                "cpu_s": tally.cpu_s,
                "cpu_timed": tally.cpu_timed,
            }
            for tally in metrics.apis.values()
        ],
        "loop": {"turns": metrics.turns.turns, "turn_time": durations(metrics.turns.took)},
    }


def lags(context: Context) -> list[Report]:
    """How far groups are behind, by topic: records between their positions and the end.

    The first LAGS_MAX that are found; a position that was deleted under a group counts as 0.
    """
    every = (
        {"group": group, "topic": topic, "lag": _lag(context, topic, committed)}
        for shard in context.groups.loaded_shards()
        for group, topics in shard.offsets.groups.items()
        for topic, committed in topics.items()
    )
    return list(islice(every, LAGS_MAX))


def _lag(context: Context, topic: str, committed: Mapping[int, Plain]) -> int:
    lag = 0
    for number, place in committed.items():
        partition = context.table.get(topic, number)
        if not isinstance(partition, ErrorCode):
            lag += max(0, partition.high_watermark - place[0])
    return lag


def durations(found: Durations) -> Report:
    """Seconds. `timed` of them were, one in 64; quantiles are rounded up to powers of two."""
    return {
        "timed": found.count,
        "sum_s": found.sum_s,
        "mean_s": found.sum_s / found.count if found.count else 0.0,
        "p50_s": found.quantile(0.5),
        "p99_s": found.quantile(0.99),
        "max_s": found.most_s,
    }


def partitions(found: Iterable[Partition]) -> list[Report]:
    """One report for each."""
    return [_partition(one) for one in found]


def _partition(partition: Partition) -> Report:
    log, tally = partition.log, partition.tally
    batches = tally.batches
    records = log.end - tally.first_offset
    return {
        "topic": partition.key.topic,
        "partition": partition.key.partition,
        "log_start_offset": log.start,
        "high_watermark": partition.high_watermark,
        "last_stable_offset": partition.last_stable,
        "log_end_offset": log.end,
        "size_bytes": log.size,
        "segments": [segment.log.path for segment in log.segments],
        "batches_in": batches,
        "records_in": records,
        "bytes_in": tally.bytes_in,
        "records_per_batch": records / batches if batches else 0.0,
        "bytes_per_batch": tally.bytes_in / batches if batches else 0.0,
        "batches_by_codec": {
            name: count for name, count in zip(CODEC_NAMES, tally.codecs, strict=False) if count
        },
        "fetches": tally.fetches,
        "fetches_cold": tally.cold,
        "bytes_out": tally.bytes_out,
    }


def compressed_samples(table: Iterable[Partition], count_max: int) -> list[FileSlice]:
    """The last batch of each of the busiest partitions that hold compressed ones, to look into.

    Whoever gets them releases them, on the loop's thread.
    """
    compressed = [one for one in table if any(one.tally.codecs[1:])]
    compressed.sort(key=lambda one: one.tally.bytes_in, reverse=True)
    samples = []
    for partition in compressed[:count_max]:
        bound = partition.high_position
        if bound.offset <= partition.log.start:
            continue
        piece = partition.log.read(type(bound.offset)(bound.offset - 1), 1, bound)
        if isinstance(piece, FileSlice):
            samples.append(piece)
        elif isinstance(piece, Cold):
            piece.slice.release()  # what nobody reads is not brought in for a figure
    return samples


def sequential_io(found: Sequence[Report]) -> Report:
    """Every batch is one write at the end of a file."""
    bytes_in = sum(one["bytes_in"] for one in found)
    writes = sum(one["batches_in"] for one in found)
    return {
        "appended_bytes": bytes_in,
        "writes": writes,
        "writes_per_mb": writes / (bytes_in / 1e6) if bytes_in else 0.0,
    }


def batching(found: Sequence[Report], ratios: dict[str, float]) -> Report:
    """How much company records have, and what was compressed how."""
    batches = sum(one["batches_in"] for one in found)
    records = sum(one["records_in"] for one in found)
    codecs: dict[str, int] = {}
    for one in found:
        for name, count in one["batches_by_codec"].items():
            codecs[name] = codecs.get(name, 0) + count
    return {
        "batches": batches,
        "records": records,
        "records_per_batch": records / batches if batches else 0.0,
        "batches_by_codec": codecs,
        "compression_ratio_sampled": ratios,
    }


def shares(found: Sequence[Report]) -> None:
    """Adds to each partition its share of the node's load: of all bytes in and out."""
    whole = sum(one["bytes_in"] + one["bytes_out"] for one in found)
    for one in found:
        one["load_share"] = (one["bytes_in"] + one["bytes_out"]) / whole if whole else 0.0


def whole(head: Report, found: list[Report], ratios: dict[str, float]) -> Report:
    """All of it, from its parts."""
    shares(found)
    fetches, cold = (sum(one[name] for one in found) for name in ("fetches", "fetches_cold"))
    records = sum(one["records_in"] for one in found)
    syncs = head["durability"]["file_syncs"]
    head["durability"]["records_per_sync"] = records / syncs if syncs else 0.0
    sizes = [one["size_bytes"] for one in found]
    cached = [one["cached_bytes"] for one in found if one.get("cached_bytes") is not None]
    return {
        **head,
        "sequential_io": sequential_io(found),
        "page_cache": {
            "log_bytes": sum(sizes),
            "cached_bytes": sum(cached) if cached else None,
            "fetches": fetches,
            "fetches_cold": cold,
            "fetches_warm_share": (fetches - cold) / fetches if fetches else 1.0,
            "bytes_cached_by_the_broker": 0,
        },
        "batching": batching(found, ratios),
        "partitions": found,
    }
