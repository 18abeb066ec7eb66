"""What the client commands and the log tools take: their options, with types, defaults and help.

Owns the declarations. Must not act on them. A class per command, because a function with ten
parameters is hard to read and its logic hard to call; `app.py` turns the fields into options.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated

import typer

from ottla.cli import render, rows

PARTITIONS_MAX = 100_000
"""The most that librdkafka asks for."""


class Compression(StrEnum):
    NONE = "none"
    GZIP = "gzip"
    SNAPPY = "snappy"
    LZ4 = "lz4"
    ZSTD = "zstd"


class Acks(StrEnum):
    NONE = "0"
    LEADER = "1"
    ALL = "all"


AsJson = Annotated[
    bool,
    typer.Option("--json", help="Print JSON, an object a line, for other programs to read."),
]

LogPlace = Annotated[
    str,
    typer.Argument(
        metavar="DIR", help="A data directory, or a partition's directory.", show_default=False
    ),
]

Topic = Annotated[
    str, typer.Argument(metavar="TOPIC", help="The topic's name.", show_default=False)
]


@dataclass(kw_only=True)
class Connection:
    """How to reach the cluster; part of every client command."""

    bootstrap: Annotated[
        str,
        typer.Option(
            "--bootstrap",
            "-b",
            metavar="HOST:PORT",
            envvar="OTTLA_BOOTSTRAP",
            show_envvar=True,
            help="A broker of the cluster, any Kafka; several with commas between them.",
        ),
    ] = "127.0.0.1:9092"
    setting: Annotated[
        list[str],
        typer.Option(
            "-X",
            metavar="KEY=VALUE",
            help="A librdkafka property, such as security.protocol=SSL; may be repeated.",
            show_default=False,
        ),
    ] = field(default_factory=list)


@dataclass(kw_only=True)
class TopicCreate(Connection):
    name: Annotated[str, typer.Argument(metavar="NAME", help="The new topic.", show_default=False)]
    partitions: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=PARTITIONS_MAX,
            metavar="N",
            help="Number of partitions.",
            show_default="the broker's choice: 1",
        ),
    ] = None
    replication_factor: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=32767,
            metavar="N",
            help="Brokers that keep each partition.",
            show_default="the broker's choice",
        ),
    ] = None
    config: Annotated[
        list[str],
        typer.Option(
            metavar="KEY=VALUE",
            help="An option of the topic by Kafka's name, such as retention.ms=86400000; "
            "may be repeated. Sizes are in bytes, times in ms.",
            show_default=False,
        ),
    ] = field(default_factory=list)
    json: AsJson = False


@dataclass(kw_only=True)
class TopicAlter(Connection):
    name: Annotated[str, typer.Argument(metavar="NAME", help="The topic.", show_default=False)]
    partitions: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=PARTITIONS_MAX,
            metavar="N",
            help="How many partitions it shall have: more than now. Keys then move: records with "
            "one key may lie in two partitions.",
            show_default=False,
        ),
    ] = None
    config: Annotated[
        list[str],
        typer.Option(
            metavar="KEY=VALUE",
            help="Set an option of the topic by Kafka's name; may be repeated.",
            show_default=False,
        ),
    ] = field(default_factory=list)
    json: AsJson = False


@dataclass(kw_only=True)
class TopicConfig(Connection):
    name: Annotated[str, typer.Argument(metavar="NAME", help="The topic.", show_default=False)]
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY[=VALUE]",
            help="KEY shows an option by Kafka's name, KEY=VALUE sets it; without any, those are "
            "shown that are not at their default.",
            show_default=False,
        ),
    ] = None
    delete: Annotated[
        list[str],
        typer.Option(
            metavar="KEY",
            help="Take back what was set: the broker's default holds again; may be repeated.",
            show_default=False,
        ),
    ] = field(default_factory=list)
    all: Annotated[bool, typer.Option("--all", help="Show every option.")] = False
    json: AsJson = False


@dataclass(kw_only=True)
class Cluster(Connection):
    apis: Annotated[
        bool, typer.Option("--apis", help="List each API with the versions served.")
    ] = False
    json: AsJson = False


@dataclass(kw_only=True)
class TopicList(Connection):
    internal: Annotated[
        bool, typer.Option("--internal", help="List Kafka's own topics (__…) too.")
    ] = False
    json: AsJson = False


@dataclass(kw_only=True)
class TopicDescribe(Connection):
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="One topic; all of them without.", show_default=False),
    ] = None
    json: AsJson = False


@dataclass(kw_only=True)
class TopicDelete(Connection):
    names: Annotated[
        list[str],
        typer.Argument(metavar="NAME", help="The topics to delete.", show_default=False),
    ]
    json: AsJson = False


@dataclass(kw_only=True)
class Produce(Connection):
    topic: Topic
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE",
            help="What to send, plain, .gz or .zip; stdin without it.",
            show_default=False,
        ),
    ] = None
    format: Annotated[
        rows.Format | None,
        typer.Option(
            help="lines: each is a value as it is. csv: each row becomes a JSON object with the "
            "header's names. json: each line is a JSON value. record: each line is a record as "
            "consume --json prints it, an object with value, key, headers and timestamp.",
            show_default="by FILE's extension, else lines",
        ),
    ] = None
    key: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="The CSV column or JSON field whose content is the key.",
            show_default="no keys",
        ),
    ] = None
    header: Annotated[
        list[str],
        typer.Option(
            metavar="NAME=VALUE",
            help="A header of every record; may be repeated. Of single records: --format record.",
            show_default=False,
        ),
    ] = field(default_factory=list)
    compression: Annotated[Compression, typer.Option(help="Codec of the batches.")] = (
        Compression.NONE
    )
    acks: Annotated[
        Acks,
        typer.Option(
            help="When a record counts as delivered. 0: when sent. 1: when the leader has "
            "written it. all: when it is safe by the broker's rules; with ottla, on disk."
        ),
    ] = Acks.ALL
    json: Annotated[
        bool, typer.Option("--json", help="Print the account of what was sent as JSON, to stdout.")
    ] = False


@dataclass(kw_only=True)
class Consume(Connection):
    topic: Topic
    start: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="WHERE",
            help="beginning, end, an OFFSET, a time (2013-01-01T05:00, local unless it names a "
            "zone) or an age (-5m; units s, m, h, d).",
        ),
    ] = "beginning"
    partition: Annotated[
        int | None,
        typer.Option(
            min=0, metavar="N", help="Read this partition alone.", show_default="all of them"
        ),
    ] = None
    number: Annotated[
        int | None,
        typer.Option(
            "-n", min=1, metavar="N", help="Stop after N records.", show_default="no limit"
        ),
    ] = None
    follow: Annotated[
        bool,
        typer.Option(
            "--follow",
            "-f",
            help="Wait for more. Without it, stop at the end of what was there at the start.",
        ),
    ] = False
    format: Annotated[
        render.Format,
        typer.Option(
            help="value: a line each. key-value: with a tab between. json: an object a line, "
            "with offset, timestamp in ms, key, value, headers. raw: the bytes of the values."
        ),
    ] = render.Format.VALUE
    json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False


Group = Annotated[str, typer.Argument(metavar="GROUP", help="The group.", show_default=False)]


@dataclass(kw_only=True)
class GroupList(Connection):
    json: AsJson = False


@dataclass(kw_only=True)
class Top:
    admin: Annotated[
        str, typer.Argument(metavar="HOST:PORT", help="What the broker's --admin says.")
    ] = "127.0.0.1:9644"
    interval: Annotated[
        float, typer.Option(min=0.1, metavar="S", help="Seconds between two looks.")
    ] = 1.0
    once: Annotated[bool, typer.Option("--once", help="Look once, and leave.")] = False
    json: AsJson = False


@dataclass(kw_only=True)
class GroupDescribe(Connection):
    group: Group
    timeline: Annotated[
        bool, typer.Option("--timeline", help="Also what happened to the group lately (ottla).")
    ] = False
    json: AsJson = False


@dataclass(kw_only=True)
class GroupOffsets(Connection):
    group: Group
    json: AsJson = False


@dataclass(kw_only=True)
class GroupReset(Connection):
    group: Group
    to: Annotated[
        str | None,
        typer.Option(
            metavar="WHERE",
            help="beginning, end, an OFFSET, a time (2013-01-01T05:00, local unless it names a "
            "zone) or an age (-5m; units s, m, h, d).",
            show_default=False,
        ),
    ] = None
    shift: Annotated[
        int | None,
        typer.Option(metavar="N", help="N records on, or back if negative.", show_default=False),
    ] = None
    topic: Annotated[
        list[str],
        typer.Option(
            metavar="TOPIC[:PARTITION]",
            help="Only these; without it, all that the group has committed. May be repeated.",
            show_default=False,
        ),
    ] = field(default_factory=list)
    execute: Annotated[
        bool, typer.Option("--execute", help="Do it. Without it, only say what would be done.")
    ] = False
    json: AsJson = False


@dataclass(kw_only=True)
class GroupDelete(Connection):
    groups: Annotated[
        list[str], typer.Argument(metavar="GROUP", help="The groups.", show_default=False)
    ]
    json: AsJson = False


@dataclass(kw_only=True)
class TxnList(Connection):
    state: Annotated[
        list[str],
        typer.Option(
            metavar="STATE",
            help="Only those in this state: ongoing, prepare-commit, prepare-abort, "
            "complete-commit, complete-abort or empty; may be repeated.",
            show_default=False,
        ),
    ] = field(default_factory=list)
    older_than: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="Only those whose transaction has been open for longer.",
            show_default=False,
        ),
    ] = None
    json: AsJson = False


@dataclass(kw_only=True)
class TxnDescribe(Connection):
    transactional_id: Annotated[
        str, typer.Argument(metavar="ID", help="The transactional id.", show_default=False)
    ]
    json: AsJson = False


@dataclass(kw_only=True)
class TxnAbort(Connection):
    place: Annotated[
        str,
        typer.Argument(
            metavar="TOPIC:PARTITION", help="Where the transaction is open.", show_default=False
        ),
    ]
    start_offset: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="OFFSET",
            help="Where it begins; needed where several are open.",
            show_default=False,
        ),
    ] = None
    producer_id: Annotated[
        int | None,
        typer.Option(min=0, metavar="ID", help="Whose it is.", show_default=False),
    ] = None
    execute: Annotated[
        bool, typer.Option("--execute", help="Do it. Without it, only say what would be done.")
    ] = False
    json: AsJson = False


@dataclass(kw_only=True)
class LogDump:
    path: Annotated[
        str,
        typer.Argument(
            metavar="DIR|FILE",
            help="A data directory, a partition's directory, or one file of it.",
            show_default=False,
        ),
    ]
    records: Annotated[
        bool, typer.Option(help="Print the records, or the headers of their batches alone.")
    ] = True
    json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print JSON, a record (or batch) a line, records as consume does."
        ),
    ] = False


@dataclass(kw_only=True)
class LogCompact:
    path: Annotated[
        str,
        typer.Argument(
            metavar="DIR",
            help="A data directory, for its compacted topics, or a partition's directory in one.",
            show_default=False,
        ),
    ]
    buffer_mib: Annotated[
        int, typer.Option(min=1, metavar="MIB", help="Memory for the keys of one round.")
    ] = 128
    json: AsJson = False


@dataclass(kw_only=True)
class LogRepair:
    path: LogPlace
    cut: Annotated[
        bool, typer.Option("--cut", help="Give up everything from the first damage on.")
    ] = False
    skip: Annotated[
        bool, typer.Option("--skip", help="Give up only what is damaged; offsets will be missing.")
    ] = False
    adopt: Annotated[
        bool,
        typer.Option(
            "--adopt",
            help="Go on without a metadata store that is damaged or lost: take over the topics that"
            " the directories tell of.",
        ),
    ] = False
    json: AsJson = False


@dataclass(kw_only=True)
class LogVerify:
    path: LogPlace
    json: AsJson = False
