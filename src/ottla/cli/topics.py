"""`ottla topic`: create, list, describe, alter and delete.

Owns what these commands ask of a cluster and what they print.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from ottla.cli.admin import OPERATION_S, connected, outcome
from ottla.cli.asking import Brokers
from ottla.cli.client import (
    PATIENCE_S,
    Cluster,
    admin_library,
    existing_topic,
    library,
    metadata,
    setting,
    wording,
)
from ottla.cli.errors import BadInput, CommandError, nearest
from ottla.cli.open_transactions import Open, open_in
from ottla.cli.render import counted, object_line
from ottla.cli.render import table as lines_of
from ottla.cli.topic_config import change
from ottla.cli.transactions import fields, holding_lines
from ottla.host.terminal import BOLD, DIM, painted

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient
    from confluent_kafka.admin._metadata import TopicMetadata

    from ottla.cli import arguments

Ends = dict[int, tuple[int | str, int | str]]
Held = list[tuple[Open, int]]
"""Transactions that hold back readers, each with the records behind it."""


def create(options: arguments.TopicCreate) -> int:
    """Create a topic. Raises CommandError if the cluster won't."""
    config = dict(setting(text, "--config") for text in options.config)
    cluster, admin = connected(options)
    new = admin_library().NewTopic(
        options.name,
        num_partitions=options.partitions or -1,
        replication_factor=options.replication_factor or -1,
        config=config,
    )
    outcome(cluster, admin.create_topics([new], operation_timeout=OPERATION_S)[options.name])
    count = f" with {counted(options.partitions, 'partition')}" if options.partitions else ""
    said = {"topic": options.name, "created": True}
    sys.stdout.write(object_line(said) if options.json else f"created {options.name}{count}\n")
    return 0


def show_names(options: arguments.TopicList) -> int:
    cluster, admin = connected(options)
    topics = metadata(admin, cluster).topics
    for name in sorted(topics):
        if options.internal or not name.startswith("__"):
            said = {"topic": name, "partitions": len(topics[name].partitions)}
            sys.stdout.write(object_line(said) if options.json else f"{name}\n")
    return 0


def describe(options: arguments.TopicDescribe) -> int:
    """Print one topic, or all, partition by partition."""
    cluster, admin = connected(options)
    if options.name is None:
        topics = metadata(admin, cluster).topics
    else:
        topics = {options.name: existing_topic(admin, cluster, options.name)}
    for name in sorted(topics):
        partitions = sorted(topics[name].partitions)
        ends = _ends(admin, cluster, name, partitions)
        held = _held_back(admin, cluster, name, ends)
        if options.json:
            sys.stdout.write(object_line(_described(topics[name], ends, held)))
            continue
        heading = f"{name}: {counted(len(partitions), 'partition')}"
        sys.stdout.write(painted(heading, BOLD, sys.stdout) + "\n")
        sys.stdout.writelines(_partition_lines(topics[name], ends))
        sys.stdout.writelines(holding_lines(one, records) for one, records in held)
    return 0


def _partition_lines(topic: TopicMetadata, ends: Ends) -> list[str]:
    header = ("partition", "leader", "replicas", "in sync", "first offset", "end offset")
    table = [header]
    for number, partition in sorted(topic.partitions.items()):
        first, end = ends[number]
        table.append(
            (
                str(number),
                str(partition.leader) if partition.leader >= 0 else "none",
                ",".join(map(str, partition.replicas)),
                ",".join(map(str, partition.isrs)),
                str(first),
                str(end),
            )
        )
    return lines_of(table, lambda line: painted(line, DIM, sys.stdout))


def _described(topic: TopicMetadata, ends: Ends, held: Held) -> dict[str, Any]:
    holding = {
        one.partition: {"held_back_by": fields(one) | {"records": records}} for one, records in held
    }
    return {
        "topic": topic.topic,
        "partitions": [
            {
                "partition": number,
                "leader": partition.leader if partition.leader >= 0 else None,
                "replicas": list(partition.replicas),
                "in_sync": list(partition.isrs),
                "first_offset": _or_none(ends[number][0]),
                "end_offset": _or_none(ends[number][1]),
            }
            | holding.get(number, {})
            for number, partition in sorted(topic.partitions.items())
        ],
    }


def _held_back(admin: AdminClient, cluster: Cluster, topic: str, ends: Ends) -> Held:
    """What holds back readers of committed records: in each partition the transaction that began
    first, and how many offsets lie behind it. Nothing where that can't be asked for (TLS)."""
    stable = _offsets(
        admin,
        cluster,
        [library().TopicPartition(topic, number) for number in ends],
        admin_library().OffsetSpec.latest(),
        isolation_level=library().IsolationLevel.READ_COMMITTED,
    )
    records: dict[int, int] = {}
    for number, (_, end) in ends.items():
        last = stable[number]
        if isinstance(end, int) and isinstance(last, int) and last < end:
            records[number] = end - last
    if not records:
        return []
    first: dict[int, Open] = {}
    try:
        with Brokers(cluster.bootstrap, cluster.extra) as brokers:
            for one in open_in(brokers, topic, list(records)):
                first.setdefault(one.partition, one)
    except CommandError as error:
        cluster.last_trouble = str(error)
    return [(one, records[number]) for number, one in sorted(first.items())]


def _or_none(offset: int | str) -> int | None:
    return offset if isinstance(offset, int) else None


def alter(options: arguments.TopicAlter) -> int:
    """Add partitions, set configs. Raises CommandError if the cluster won't."""
    config = dict(setting(text, "--config") for text in options.config)
    if options.partitions is None and not config:
        raise BadInput(
            f"there is nothing to alter; try: ottla topic alter {options.name} --partitions N"
        )
    cluster, admin = connected(options)
    now = len(existing_topic(admin, cluster, options.name).partitions)
    if options.partitions is not None and options.partitions <= now:
        raise BadInput(
            f"{options.name} has {counted(now, 'partition')}, and none can be taken away; try: "
            f"--partitions {now + 1}"
        )
    if config:
        change(cluster, admin, options.name, config, [])
    if options.partitions is not None:
        new = admin_library().NewPartitions(options.name, options.partitions)
        futures = admin.create_partitions([new], operation_timeout=OPERATION_S)
        outcome(cluster, futures[options.name], "ottla topic alter --help")
    said = {"topic": options.name, "partitions": options.partitions or now}
    text = f"{options.name} has {counted(options.partitions or now, 'partition')}"
    text += f" and {counted(len(config), 'option')} set\n" if config else "\n"
    sys.stdout.write(object_line(said) if options.json else text)
    return 0


def _ends(admin: AdminClient, cluster: Cluster, topic: str, partitions: list[int]) -> Ends:
    """First and end offset of each partition; a dash where its leader doesn't say."""
    spec_kind = admin_library().OffsetSpec
    wanted = [library().TopicPartition(topic, number) for number in partitions]
    first = _offsets(admin, cluster, wanted, spec_kind.earliest())
    last = _offsets(admin, cluster, wanted, spec_kind.latest())
    return {number: (first[number], last[number]) for number in partitions}


def _offsets(
    admin: AdminClient, cluster: Cluster, wanted: list[Any], spec: Any, **more: Any
) -> dict[int, int | str]:
    """An offset of each partition; a dash where its leader doesn't say."""
    asked = dict.fromkeys(wanted, spec)
    answers = admin.list_offsets(asked, request_timeout=PATIENCE_S, **more) if asked else {}
    offsets: dict[int, int | str] = {}
    for place, future in answers.items():
        try:
            offsets[place.partition] = future.result().offset
        except library().KafkaException as error:
            cluster.last_trouble = wording(error.args[0])
            offsets[place.partition] = "-"
    return offsets


def delete(options: arguments.TopicDelete) -> int:
    """Delete every topic named, or none if one of them isn't there."""
    cluster, admin = connected(options)
    known = metadata(admin, cluster).topics
    for name in options.names:
        if name not in known:
            meant = nearest(name, list(known))
            raise BadInput(f"there is no topic {name!r}; try: {meant or 'ottla topic list'}")
    names = list(dict.fromkeys(options.names))
    futures = admin.delete_topics(names, operation_timeout=OPERATION_S)
    for name in names:
        outcome(cluster, futures[name])
        said = {"topic": name, "deleted": True}
        sys.stdout.write(object_line(said) if options.json else f"deleted {name}\n")
    return 0
