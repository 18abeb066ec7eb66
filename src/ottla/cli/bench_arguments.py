"""What `ottla bench` takes. Declarations alone, as in arguments.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import typer

from ottla.cli.arguments import AsJson

Seconds = Annotated[
    float, typer.Option(min=0.1, metavar="S", help="How long each measurement takes.")
]
Rounds = Annotated[
    int, typer.Option(min=1, metavar="N", help="How often each is measured, one after the other.")
]
Peers = Annotated[
    list[str],
    typer.Option(
        "--peer",
        metavar="NAME=HOST:PORT[:PID]",
        help="Another broker to measure beside ottla, any Kafka. PID is the process whose CPU "
        "counts; without it, the one that listens there. May be repeated.",
        show_default=False,
    ),
]
Touch = Annotated[
    int,
    typer.Option(
        min=0,
        metavar="MIB",
        help="Memory to touch and free before each measurement, so that no broker pays for the "
        "first touch of a virtual machine's pages; 0: none. More than a GiB can make it worse: "
        "a kernel gives back what is free.",
    ),
]


@dataclass(kw_only=True)
class BenchLoad:
    """Part of every command that compares loads."""

    only: Annotated[
        str,
        typer.Option(
            metavar="TEXT",
            help="Only loads whose name has TEXT in it, such as 'depth 16'.",
            show_default="all of them",
        ),
    ] = ""
    rounds: Rounds = 5
    seconds: Seconds = 2.0
    warm_up: Annotated[
        float,
        typer.Option(
            min=0.1, metavar="S", help="How long each load warms up a peer before it counts."
        ),
    ] = 5.0
    peer: Peers = field(default_factory=list)
    option: Annotated[
        list[str],
        typer.Option(
            "-o",
            metavar="NAME=VALUE",
            help="An option for the ottla that is started; may be repeated.",
            show_default=False,
        ),
    ] = field(default_factory=list)
    touch: Touch = 640
    check_client: Annotated[
        bool,
        typer.Option(
            "--check-client",
            help="Send each load from three processes too, and from a compiled client where there "
            "is a C compiler, to see whether the one in Python was the limit.",
        ),
    ] = False
    explain: Annotated[
        bool,
        typer.Option(help="Say at the end what the columns mean, what is good, what is noise."),
    ] = True
    json: AsJson = False


@dataclass(kw_only=True)
class BenchProduce(BenchLoad):
    variant: Annotated[
        list[str],
        typer.Option(
            metavar="NAME",
            help="Beside it, ottla under other conditions: commit, idempotent, records, acks=all, "
            "synced. May be repeated.",
            show_default=False,
        ),
    ] = field(default_factory=list)
    all: Annotated[bool, typer.Option("--all", help="Every variant.")] = False


@dataclass(kw_only=True)
class BenchCodec:
    rounds: Rounds = 7
    json: AsJson = False


@dataclass(kw_only=True)
class BenchCompact:
    rounds: Rounds = 3
    size_mib: Annotated[
        int, typer.Option(min=1, metavar="MIB", help="Size of the log, not compressed.")
    ] = 128
    json: AsJson = False


@dataclass(kw_only=True)
class BenchStart:
    rounds: Rounds = 7
    json: AsJson = False


@dataclass(kw_only=True)
class BenchIdle:
    seconds: Seconds = 5.0
    partitions: Annotated[
        int, typer.Option(min=1, metavar="N", help="How many the second broker has.")
    ] = 1000
    recover_mib: Annotated[
        int, typer.Option(min=1, metavar="MIB", help="Size of the log that is recovered.")
    ] = 1024
    peer: Peers = field(default_factory=list)
    json: AsJson = False


@dataclass(kw_only=True)
class BenchGroups:
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="WHAT",
            help="first, commits, members, loading.",
            show_default="all of them",
        ),
    ] = None
    rounds: Rounds = 3
    seconds: Seconds = 1.0
    members: Annotated[
        int, typer.Option(min=1, metavar="N", help="Of the large group; the budget is for 1,000.")
    ] = 1000
    commits: Annotated[
        int,
        typer.Option(min=1000, metavar="N", help="How many are loaded after a restart, twice."),
    ] = 100_000
    whole: Annotated[
        bool,
        typer.Option(
            "--whole", help="Load the million of the budget; takes some minutes to write."
        ),
    ] = False
    peer: Peers = field(default_factory=list)
    json: AsJson = False


@dataclass(kw_only=True)
class BenchTransactions:
    rounds: Rounds = 5
    seconds: Seconds = 1.0
    peer: Peers = field(default_factory=list)
    json: AsJson = False


@dataclass(kw_only=True)
class BenchGrowth:
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="WHAT",
            help="partitions, connections, batches, log.",
            show_default="all of them",
        ),
    ] = None
    partitions: Annotated[int, typer.Option(min=1, metavar="N", help="The most.")] = 10_000
    connections: Annotated[int, typer.Option(min=1, metavar="N", help="The most.")] = 5_000
    log_mib: Annotated[
        int,
        typer.Option(
            min=10, metavar="MIB", help="The largest log. As much is used of the disk, and freed."
        ),
    ] = 1024
    seconds: Seconds = 1.0
    plots: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Write a plot of each, as SVG.", show_default="none"),
    ] = None
    json: AsJson = False


@dataclass(kw_only=True)
class BenchRecover:
    partitions: Annotated[
        int, typer.Option(min=1, metavar="N", help="How many there are; budgets are for 2,000.")
    ] = 2000
    gib: Annotated[
        float,
        typer.Option(
            min=0.01,
            metavar="GIB",
            help="Size of all logs; budgets are for 20. Of the disk up to twice that is used while "
            "it is measured, and freed.",
        ),
    ] = 20.0
    rounds: Rounds = 3
    json: AsJson = False


@dataclass(kw_only=True)
class BenchCheck:
    file: Annotated[
        str,
        typer.Argument(metavar="FILE", help="Where the recorded ratios stand.", show_default=False),
    ]
    record: Annotated[
        bool, typer.Option("--record", help="Record what is measured now instead.")
    ] = False
    rounds: Rounds = 4
    seconds: Seconds = 0.8


@dataclass(kw_only=True)
class BenchPage:
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="The page; tables go between its lines '<!-- bench: NAME -->' and "
            "'<!-- end: NAME -->', plots beside it.",
            show_default=False,
        ),
    ]
    section: Annotated[
        list[str],
        typer.Option(
            metavar="NAME", help="Only this one; may be repeated.", show_default="all of them"
        ),
    ] = field(default_factory=list)
    peer: Peers = field(default_factory=list)
    rounds: Rounds = 3
    seconds: Seconds = 1.5
    log_mib: Annotated[
        int, typer.Option(min=10, metavar="MIB", help="The largest log; 10240 is 10 GiB.")
    ] = 10_240
    recover_whole: Annotated[
        bool,
        typer.Option(
            "--recover-whole",
            help="Starts with the 2,000 partitions and 20 GiB of the budgets, not a tenth of them; "
            "takes some minutes more.",
        ),
    ] = False


@dataclass(kw_only=True)
class BenchTechniques:
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="WHAT",
            help="sequential, zero-copy, page-cache, batching, partitions, offsets.",
            show_default="all of them",
        ),
    ] = None
    rounds: Rounds = 3
    html: Annotated[
        str,
        typer.Option(
            metavar="FILE", help="The report, with its charts: one file, readable anywhere."
        ),
    ] = "ottla-techniques.html"
    json: AsJson = False


@dataclass(kw_only=True)
class BenchCompare:
    peer: Peers = field(default_factory=list)
    only: Annotated[
        str,
        typer.Option(
            metavar="TEXT",
            help="Only loads whose name has TEXT in it, such as 'partitions'.",
            show_default="all of them",
        ),
    ] = ""
    rounds: Rounds = 3
    seconds: Seconds = 1.5
    warm_up: Annotated[
        float,
        typer.Option(min=0.1, metavar="S", help="How long each load warms up a peer."),
    ] = 3.0
    restart: Annotated[
        bool,
        typer.Option(
            "--restart",
            help="End the peers that run on this machine and start them again by their own command "
            "line, to see how long it takes. They stay up.",
        ),
    ] = False
    json: AsJson = False


@dataclass(kw_only=True)
class BenchCounters:
    rounds: Rounds = 15
    seconds: Seconds = 0.5


@dataclass(kw_only=True)
class BenchCold:
    mib: Annotated[
        int,
        typer.Option(min=64, metavar="MIB", help="How much is read; 10240 is the budget's 10 GB."),
    ] = 2048
    rate: Annotated[
        float, typer.Option(min=1, metavar="MB/S", help="How fast, from either place.")
    ] = 200.0
    rounds: Rounds = 3
    peer: Peers = field(default_factory=list)
    json: AsJson = False
