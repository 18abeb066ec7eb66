"""`ottla topic`: create, list, describe and delete.

Owns what these commands ask of a cluster and what they print.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from ottla.cli.client import (
    PATIENCE_S,
    Cluster,
    admin_library,
    connect,
    existing_topic,
    library,
    metadata,
    no_answer,
    wording,
)
from ottla.cli.errors import BadInput, CommandError, nearest
from ottla.cli.render import counted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from confluent_kafka.admin import AdminClient
    from confluent_kafka.admin._metadata import TopicMetadata

    from ottla.cli import arguments

OPERATION_S = 30.0
"""How long the cluster may take to make or delete a topic."""


def create(options: arguments.TopicCreate) -> int:
    """Create a topic. Raises CommandError if the cluster won't."""
    config = dict(_config(text) for text in options.config)
    cluster, admin = _admin(options)
    new = admin_library().NewTopic(
        options.name,
        num_partitions=options.partitions or -1,
        replication_factor=options.replication_factor or -1,
        config=config,
    )
    _outcome(cluster, admin.create_topics([new], operation_timeout=OPERATION_S)[options.name])
    count = f" with {counted(options.partitions, 'partition')}" if options.partitions else ""
    sys.stdout.write(f"created {options.name}{count}\n")
    return 0


def _config(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise BadInput(
            f"--config takes KEY=VALUE, not {text!r}; try: --config retention.ms=86400000"
        )
    return name.strip(), value.strip()


def show_names(options: arguments.TopicList) -> int:
    cluster, admin = _admin(options)
    for name in sorted(metadata(admin, cluster).topics):
        if options.internal or not name.startswith("__"):
            sys.stdout.write(f"{name}\n")
    return 0


def describe(options: arguments.TopicDescribe) -> int:
    """Print one topic, or all, partition by partition."""
    cluster, admin = _admin(options)
    if options.name is None:
        topics = metadata(admin, cluster).topics
    else:
        topics = {options.name: existing_topic(admin, cluster, options.name)}
    for name in sorted(topics):
        partitions = sorted(topics[name].partitions)
        ends = _ends(admin, cluster, name, partitions)
        sys.stdout.write(f"{name}: {counted(len(partitions), 'partition')}\n")
        sys.stdout.writelines(_partition_lines(topics[name], ends))
    return 0


def _partition_lines(
    topic: TopicMetadata, ends: Mapping[int, tuple[int | str, int | str]]
) -> list[str]:
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
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  " + "  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) + "\n"
        for row in table
    ]


def _ends(
    admin: AdminClient, cluster: Cluster, topic: str, partitions: list[int]
) -> dict[int, tuple[int | str, int | str]]:
    """First and end offset of each partition; a dash where its leader doesn't say."""
    spec_kind = admin_library().OffsetSpec
    found: list[dict[int, int | str]] = []
    for spec in (spec_kind.earliest(), spec_kind.latest()):
        wanted = {library().TopicPartition(topic, number): spec for number in partitions}
        answers = admin.list_offsets(wanted, request_timeout=PATIENCE_S) if wanted else {}
        offsets: dict[int, int | str] = {}
        for place, future in answers.items():
            try:
                offsets[place.partition] = future.result().offset
            except library().KafkaException as error:
                cluster.last_trouble = wording(error.args[0])
                offsets[place.partition] = "-"
        found.append(offsets)
    return {number: (found[0][number], found[1][number]) for number in partitions}


def delete(options: arguments.TopicDelete) -> int:
    """Delete every topic named, or none if one of them isn't there."""
    cluster, admin = _admin(options)
    known = metadata(admin, cluster).topics
    for name in options.names:
        if name not in known:
            meant = nearest(name, list(known))
            raise BadInput(f"there is no topic {name!r}; try: {meant or 'ottla topic list'}")
    names = list(dict.fromkeys(options.names))
    futures = admin.delete_topics(names, operation_timeout=OPERATION_S)
    for name in names:
        _outcome(cluster, futures[name])
        sys.stdout.write(f"deleted {name}\n")
    return 0


def _admin(options: arguments.Connection) -> tuple[Cluster, AdminClient]:
    cluster = connect(options.bootstrap, options.setting)
    return cluster, cluster.admin()


def _outcome(cluster: Cluster, future: Any) -> None:
    """Wait for one operation. What the request itself got wrong is bad input."""
    kafka = library()
    try:
        future.result(OPERATION_S + PATIENCE_S)
    except kafka.KafkaException as error:
        code = error.args[0].code()
        sentence = no_answer(cluster, error).rstrip(".")
        if code == kafka.KafkaError.TOPIC_ALREADY_EXISTS:
            raise CommandError(
                f"{sentence}; try: ottla topic describe, or delete it first"
            ) from None
        mistakes = {
            kafka.KafkaError.TOPIC_EXCEPTION,
            kafka.KafkaError.INVALID_CONFIG,
            kafka.KafkaError.INVALID_PARTITIONS,
            kafka.KafkaError.INVALID_REPLICATION_FACTOR,
        }
        if code in mistakes:
            raise BadInput(f"{sentence}; try: ottla topic create --help") from None
        raise CommandError(sentence) from None
