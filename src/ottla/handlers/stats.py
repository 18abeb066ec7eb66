"""What a running node says of itself: its counters, arranged by what they are evidence of.

Owns the shape of that report (docs/metrics.md describes it). Runs on the loop's thread and takes
no clock but the node's; a few hundred partitions at a time, so that nobody waits long for it. Must
not open a file: what lies in the page cache is found out elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from heapq import nlargest
from itertools import islice
from typing import TYPE_CHECKING, Any

from ottla.core.model import FileSlice, Offset
from ottla.core.ports import DiskError
from ottla.core.version import __version__
from ottla.protocol.errors import ErrorCode
from ottla.records.compress import CODEC_NAMES
from ottla.storage.checked import Cold

if TYPE_CHECKING:
    from ottla.coordinator.group.offsets import Plain
    from ottla.coordinator.group.shard import GroupShard
    from ottla.core.metrics import Durations
    from ottla.handlers.context import Context
    from ottla.replication.partition import Partition

Report = dict[str, Any]
LAGS_MAX = 500
QUANTILES = {"p50_s": 0.5, "p95_s": 0.95, "p99_s": 0.99, "p999_s": 0.999}


def broker(context: Context) -> Report:
    """The node as a whole: what doesn't belong to a partition or a group."""
    metrics, table, image = context.metrics, context.table, context.image()
    metrics.settle()
    rounds, gone = table.directory.rounds, table.gone
    return {
        "broker": {
            "version": __version__,
            "node_id": context.node_id,
            "cluster_id": image.cluster_id,
            "partitions": len(table),
            "topics": len(image.topics),
            "flush_policy": rounds.policy,
            "log_directory_online": table.failure is None,
        },
        "zero_copy": {
            "sendfile_bytes": metrics.sent.sendfile,
            "copied_bytes": metrics.sent.copied,
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
        "deleted": {
            "bytes_in": gone.bytes_in,
            "records_in": gone.records,
            "batches_in": gone.batches,
            "bytes_out": gone.bytes_out,
            "fetches": gone.fetches,
            "fetches_cold": gone.cold,
            "batches_by_codec": _by_codec(gone.codecs),
        },
    }


def offsets(context: Context, shard: GroupShard, lags_max: int) -> Report:
    """What the groups of one shard keep, and how far they are behind, by topic.

    The first `lags_max` that are found: records between their positions and the end. A position
    whose partition was deleted under a group counts as 0.
    """
    groups = shard.offsets.groups
    every = (
        {"group": group, "topic": topic, "lag": _lag(context, topic, committed)}
        for group, topics in groups.items()
        for topic, committed in topics.items()
    )
    return {
        "groups": len(shard.group_ids()),
        "positions": sum(len(one) for topics in groups.values() for one in topics.values()),
        "lag": list(islice(every, lags_max)),
    }


def _lag(context: Context, topic: str, committed: Mapping[int, Plain]) -> int:
    lag = 0
    for number, place in committed.items():
        partition = context.table.get(topic, number)
        if not isinstance(partition, ErrorCode):
            lag += max(0, partition.high_watermark - place[0])
    return lag


def durations(found: Durations) -> Report:
    """Seconds. `timed` of them were, about one in 64; quantiles are rounded up to powers of two, of
    which `buckets` has the counts: below 1 µs, below 2, below 4 …"""
    return {
        "timed": found.count,
        "buckets": list(found.buckets),
        "sum_s": found.sum_s,
        "mean_s": found.sum_s / found.count if found.count else 0.0,
        **{name: found.quantile(share) for name, share in QUANTILES.items()},
        "max_s": found.most_s,
    }


def partitions(found: Iterable[Partition]) -> list[Report]:
    """One report for each."""
    return [_partition(one) for one in found]


def _partition(partition: Partition) -> Report:
    log, tally = partition.log, partition.tally
    batches, bytes_in, records = partition.batches_in, partition.bytes_in, partition.records_in
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
        "bytes_in": bytes_in,
        "records_per_batch": _over(records, batches),
        "bytes_per_batch": _over(bytes_in, batches),
        "batches_by_codec": _by_codec(partition.batches_by_codec),
        "fetches": tally.fetches,
        "fetches_cold": tally.cold,
        "bytes_out": tally.bytes_out,
    }


def _by_codec(counts: Sequence[int]) -> dict[str, int]:
    return {name: count for name, count in zip(CODEC_NAMES, counts, strict=False) if count}


def busiest_compressed(found: Iterable[Report], count_max: int) -> list[tuple[str, int]]:
    """The partitions that took in most, of those that hold compressed batches."""
    packed = (one for one in found if one["batches_by_codec"].keys() - {CODEC_NAMES[0]})
    most = nlargest(count_max, packed, key=lambda one: one["bytes_in"])
    return [(one["topic"], one["partition"]) for one in most]


def compressed_samples(context: Context, places: Iterable[tuple[str, int]]) -> list[FileSlice]:
    """The last batch of each of these partitions, to look into.

    Whoever gets them releases them, on the loop's thread.
    """
    samples = []
    for topic, number in places:
        partition = context.table.get(topic, number)
        if isinstance(partition, ErrorCode) or not partition.log.usable:
            continue
        bound = partition.high_position
        if bound.offset <= partition.log.start:
            continue
        try:
            piece = partition.log.read(Offset(bound.offset - 1), 1, bound)
        except DiskError:  # who fetches it is told; a figure can do without
            continue
        if isinstance(piece, FileSlice):
            samples.append(piece)
        elif isinstance(piece, Cold):
            piece.slice.release()  # what nobody reads is not brought in for a figure
    return samples


def shares(found: Sequence[Report]) -> None:
    """Adds to each partition its share of the load: of all bytes in and out since the start."""
    whole = sum(one["bytes_in"] + one["bytes_out"] for one in found)
    for one in found:
        one["load_share"] = (one["bytes_in"] + one["bytes_out"]) / whole if whole else 0.0


def whole(
    head: Report, found: list[Report], kept: Sequence[Report], ratios: Mapping[str, float]
) -> Report:
    """All of it, from its parts: the node, its partitions, what shards of groups keep.

    Sums are over the partitions that are there and those that are deleted by now.
    """
    shares(found)
    gone = head["deleted"]
    total = {
        name: count + sum(one[name] for one in found)
        for name, count in gone.items()
        if isinstance(count, int)
    }
    codecs = dict(gone["batches_by_codec"])
    for one in found:
        for name, count in one["batches_by_codec"].items():
            codecs[name] = codecs.get(name, 0) + count
    bytes_in, batches, records = total["bytes_in"], total["batches_in"], total["records_in"]
    syncs = head["durability"]["file_syncs"]
    known = [one for one in found if one.get("cached_bytes") is not None]
    return {
        **head,
        "sequential_io": {
            "appended_bytes": bytes_in,
            "writes": batches,
            "writes_per_mb": _over(batches, bytes_in / 1e6),
        },
        "sent_bytes": total["bytes_out"],
        "page_cache": {
            "log_bytes": sum(one["size_bytes"] for one in found),
            "asked_bytes": sum(one["size_bytes"] for one in known),
            "cached_bytes": sum(one["cached_bytes"] for one in known) if known else None,
            "fetches": total["fetches"],
            "fetches_cold": total["fetches_cold"],
            "fetches_warm_share": 1 - _over(total["fetches_cold"], total["fetches"]),
            "bytes_cached_by_the_broker": 0,
        },
        "batching": {
            "batches": batches,
            "records": records,
            "records_per_batch": _over(records, batches),
            "bytes_per_batch": _over(bytes_in, batches),
            "batches_by_codec": codecs,
            "compression_ratio_sampled": dict(ratios),
        },
        "offsets": {
            "groups": sum(one["groups"] for one in kept),
            "positions": sum(one["positions"] for one in kept),
            "lag": [lag for one in kept for lag in one["lag"]],
        },
        "durability": {**head["durability"], "records_per_sync": _over(records, syncs)},
        "partitions": found,
    }


def _over(part: float, by: float) -> float:
    return part / by if by else 0.0
