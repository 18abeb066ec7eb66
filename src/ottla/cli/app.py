"""The commands other than `serve`, as a typer app; `serve` is listed in it so that --help is whole.

Owns the command tree and turns every usage error into one line. Must not hold logic: each command
calls a function of its own module, imported when it is called.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast, get_args, get_type_hints

import typer

from ottla import __version__
from ottla.cli import arguments, bench_arguments
from ottla.cli.errors import BadInput, ReaderLeft, nearest
from ottla.cli.serve import VALUED as SERVE_VALUED

Options = TypeVar("Options")

_UsageError = cast("type[Exception]", typer.BadParameter.__bases__[0])
"""click's, wherever this typer keeps it: newer ones bring their own copy of click."""

_INSTEAD = {
    ("ottla topic config", "--set"): "NAME KEY=VALUE",
    ("ottla topic config", "--config"): "NAME KEY=VALUE",
    ("ottla topic config", "--add-config"): "NAME KEY=VALUE",
    ("ottla topic create", "--set"): "NAME --config KEY=VALUE",
    ("ottla topic alter", "--set"): "NAME --config KEY=VALUE",
}
"""What is meant by options that there are not, where the nearest name would mislead."""

_APP: dict[str, Any] = {
    "rich_markup_mode": None,
    "pretty_exceptions_enable": False,
    "context_settings": {"help_option_names": ["--help", "-h"]},
}
app = typer.Typer(
    help="A Kafka-compatible event log. `ottla serve` starts a broker; the other commands are "
    "clients of any Kafka cluster, and tools for the files of a log.",
    add_completion=True,
    epilog="Exit codes: 0 done, 1 it failed, 2 the input was bad.",
    **_APP,
)
topic = typer.Typer(
    help="Create, list, describe, alter, configure and delete topics.", add_completion=False, **_APP
)
group = typer.Typer(
    help="List, describe and delete groups, and see or set their offsets.",
    add_completion=False,
    **_APP,
)
txn = typer.Typer(
    help="List and describe transactions, and abort one that hangs.", add_completion=False, **_APP
)
log = typer.Typer(
    help="Print or check the files of a log, without a broker.", add_completion=False, **_APP
)


bench = typer.Typer(
    help="Measure what a broker costs. CPU per request, memory, starts, growth. Starts an ottla of "
    "its own; --peer names other brokers to measure beside it.",
    add_completion=False,
    **_APP,
)


def command(group: typer.Typer, name: str) -> Callable[[Callable[[Any], int]], Callable[..., None]]:
    """Make a command of a function from one class of `arguments` to the exit code."""

    def register(function: Callable[[Any], int]) -> Callable[..., None]:
        kind = get_type_hints(function)["options"]

        def call(**values: Any) -> None:
            try:
                code = function(kind(**values))
            except BrokenPipeError:
                raise ReaderLeft from None  # click would make it exit code 1
            raise typer.Exit(code)

        call.__doc__ = function.__doc__
        # typer makes the options of the signature, and some versions look for the hints beside it.
        signature = _signature(kind)
        cast(Any, call).__signature__ = signature
        call.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
        return cast("Callable[..., None]", group.command(name)(call))

    return register


def _signature(kind: type[Any]) -> inspect.Signature:
    """The fields of a class of options as parameters, those of the connection last."""
    hints = get_type_hints(kind, include_extras=True)
    shared = arguments.Connection.__dataclass_fields__
    parameters = []
    for parameter in inspect.signature(kind).parameters.values():
        factory = kind.__dataclass_fields__[parameter.name].default_factory
        default = factory() if callable(factory) else parameter.default
        parameters.append(parameter.replace(default=default, annotation=hints[parameter.name]))
    return inspect.Signature(sorted(parameters, key=lambda p: p.name in shared))


def serve(context: typer.Context, **_: Any) -> None:
    """Start a broker. `ottla serve --help` lists its options."""
    from ottla.cli import serve as command_serve

    raise typer.Exit(command_serve.run(context.args))


def _declare_serve() -> None:
    """List `serve`, with the names of its options for the shell to complete.

    `main.py` runs it before typer is even imported, so nothing is ever parsed by these.
    """
    kind = inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter("context", kind, annotation=typer.Context)]
    for name in SERVE_VALUED:
        option = typer.Option(None, name, metavar=SERVE_VALUED[name])
        parameters.append(
            inspect.Parameter(
                "o_" + name.strip("-").replace("-", "_"), kind, default=option, annotation=str
            )
        )
    cast(Any, serve).__signature__ = inspect.Signature(parameters)
    serve.__annotations__ = {p.name: p.annotation for p in parameters}
    settings = {"ignore_unknown_options": True, "allow_extra_args": True}
    app.command("serve", context_settings=settings, add_help_option=False)(serve)


_declare_serve()


@command(topic, "create")
def topic_create(options: arguments.TopicCreate) -> int:
    """Create a topic."""
    from ottla.cli import topics

    return topics.create(options)


@command(topic, "list")
def topic_list(options: arguments.TopicList) -> int:
    """List the topics' names, one a line."""
    from ottla.cli import topics

    return topics.show_names(options)


@command(topic, "describe")
def topic_describe(options: arguments.TopicDescribe) -> int:
    """Describe topics. Each partition's leader, replicas and offsets (the end is exclusive)."""
    from ottla.cli import topics

    return topics.describe(options)


@command(topic, "alter")
def topic_alter(options: arguments.TopicAlter) -> int:
    """Give a topic more partitions, or set its options."""
    from ottla.cli import topics

    return topics.alter(options)


@command(topic, "config")
def topic_config(options: arguments.TopicConfig) -> int:
    """Show or set a topic's options. What was set can be taken back with --delete."""
    from ottla.cli import topic_config as command_config

    return command_config.run(options)


@command(topic, "delete")
def topic_delete(options: arguments.TopicDelete) -> int:
    """Delete topics and all their records. It doesn't ask again."""
    from ottla.cli import topics

    return topics.delete(options)


@command(app, "top")
def top_(options: arguments.Top) -> int:
    """Watch a running broker. Rates, the seven techniques, requests, topics, lag of groups."""
    from ottla.cli import top

    return top.show(options)


@command(app, "cluster")
def cluster(options: arguments.Cluster) -> int:
    """Describe the cluster. Its id, nodes and controller, and what the broker serves."""
    from ottla.cli import cluster as command_cluster

    return command_cluster.run(options)


@command(app, "produce")
def produce(options: arguments.Produce) -> int:
    """Send lines, CSV rows or JSON lines to a topic, a record each."""
    from ottla.cli import produce as command_produce

    return command_produce.run(options)


@command(app, "consume")
def consume(options: arguments.Consume) -> int:
    """Print the records of a topic."""
    from ottla.cli import consume as command_consume

    return command_consume.run(options)


@command(group, "list")
def group_list(options: arguments.GroupList) -> int:
    """List the groups, one a line."""
    from ottla.cli import groups

    return groups.show_list(options)


@command(group, "describe")
def group_describe(options: arguments.GroupDescribe) -> int:
    """Describe a group. Its state, its members and which partitions they have."""
    from ottla.cli import groups

    return groups.describe(options)


@command(group, "offsets")
def group_offsets(options: arguments.GroupOffsets) -> int:
    """Show what a group has committed, and how far it is behind. The end is exclusive."""
    from ottla.cli import groups

    return groups.offsets(options)


@command(group, "reset")
def group_reset(options: arguments.GroupReset) -> int:
    """Say what a reset of offsets would do; --execute does it."""
    from ottla.cli import groups

    return groups.reset(options)


@command(group, "delete")
def group_delete(options: arguments.GroupDelete) -> int:
    """Delete groups that nobody is in, with all they have committed. It doesn't ask again."""
    from ottla.cli import groups

    return groups.delete(options)


@command(txn, "list")
def txn_list(options: arguments.TxnList) -> int:
    """List transactional ids. Their producers, and how far their transactions are."""
    from ottla.cli import transactions

    return transactions.show_list(options)


@command(txn, "describe")
def txn_describe(options: arguments.TxnDescribe) -> int:
    """Show one transactional id. Its producer, since when its transaction is open, and where."""
    from ottla.cli import transactions

    return transactions.describe(options)


@command(txn, "abort")
def txn_abort(options: arguments.TxnAbort) -> int:
    """Abort a transaction that hangs. In one partition, where it holds back readers."""
    from ottla.cli import transactions

    return transactions.abort(options)


@command(log, "dump")
def log_dump(options: arguments.LogDump) -> int:
    """Print what the files of a log hold. Batches, records, index entries, producers."""
    from ottla.cli import log_dump as command_dump

    return command_dump.run(options)


@command(log, "verify")
def log_verify(options: arguments.LogVerify) -> int:
    """Check every batch, record and index entry of a log. Exit code 1 if something is wrong.

    A torn tail, such as a crash leaves and recovery cuts, is reported but isn't wrong.
    """
    from ottla.cli import log_verify as command_verify

    return command_verify.run(options)


@command(log, "repair")
def log_repair(options: arguments.LogRepair) -> int:
    """Say what damage costs. With --cut, --skip or --adopt go on at that price.

    Changes nothing without one of them; what is given up is kept in a directory aside.
    """
    from ottla.cli import log_repair as command_repair

    return command_repair.run(options)


@command(log, "compact")
def log_compact(options: arguments.LogCompact) -> int:
    """Keep of each key only the latest record. In a directory that no broker has open.

    The logs are opened as at a broker's start, and what is compacted becomes smaller for good.
    """
    from ottla.cli import log_compact as command_compact

    return command_compact.run(options)


@command(bench, "produce")
def bench_produce(options: bench_arguments.BenchProduce) -> int:
    """What it costs to take records. One at a time to 1 MiB at a time."""
    from ottla.cli import bench as command_bench

    return command_bench.produce(options)


@command(bench, "fetch")
def bench_fetch(options: bench_arguments.BenchLoad) -> int:
    """What it costs to hand out records, from the page cache."""
    from ottla.cli import bench as command_bench

    return command_bench.load(options, "fetch")


@command(bench, "requests")
def bench_requests(options: bench_arguments.BenchLoad) -> int:
    """What small requests cost that carry no records."""
    from ottla.cli import bench as command_bench

    return command_bench.load(options, "requests")


@command(bench, "codec")
def bench_codec(options: bench_arguments.BenchCodec) -> int:
    """What it costs to decode and encode messages. Three of them, without a broker."""
    from ottla.cli import bench as command_bench

    return command_bench.codec(options)


@command(bench, "compact")
def bench_compact(options: bench_arguments.BenchCompact) -> int:
    """What it costs to compact a log, for each byte in it."""
    from ottla.cli import bench as command_bench

    return command_bench.compact(options)


@command(bench, "start")
def bench_start(options: bench_arguments.BenchStart) -> int:
    """How long a start takes, as a process and embedded."""
    from ottla.cli import bench as command_bench

    return command_bench.start(options)


@command(bench, "idle")
def bench_idle(options: bench_arguments.BenchIdle) -> int:
    """What a broker takes that does nothing. And how fast it recovers a log after kill -9."""
    from ottla.cli import bench as command_bench

    return command_bench.idle(options)


@command(bench, "groups")
def bench_groups(options: bench_arguments.BenchGroups) -> int:
    """What groups cost. First record, commits, a large group, loading after a restart."""
    from ottla.cli import bench as command_bench

    return command_bench.groups(options)


@command(bench, "transactions")
def bench_transactions(options: bench_arguments.BenchTransactions) -> int:
    """What a transaction costs. New and old, beside a plain produce of the same records."""
    from ottla.cli import bench as command_bench

    return command_bench.transactions(options)


@command(bench, "growth")
def bench_growth(options: bench_arguments.BenchGrowth) -> int:
    """How cost grows. With partitions, connections, records in a batch, bytes in a log."""
    from ottla.cli import bench as command_bench

    return command_bench.growth(options)


@command(bench, "compare")
def bench_compare(options: bench_arguments.BenchCompare) -> int:
    """Run the same loads on ottla and on other brokers. Figures are ratios to ottla's."""
    from ottla.cli import bench as command_bench

    return command_bench.compare(options)


@command(bench, "techniques")
def bench_techniques(options: bench_arguments.BenchTechniques) -> int:
    """Run each of the seven techniques with and without. A table, and a report as HTML."""
    from ottla.cli import bench as command_bench

    return command_bench.techniques(options)


@command(bench, "counters")
def bench_counters(options: bench_arguments.BenchCounters) -> int:
    """What the figures of `ottla top` cost. A broker that counts beside one that does not."""
    from ottla.cli import bench as command_bench

    return command_bench.counters(options)


@command(bench, "cold")
def bench_cold(options: bench_arguments.BenchCold) -> int:
    """What a reader of old records does to others. To who is in a hurry: a producer, a consumer."""
    from ottla.cli import bench as command_bench

    return command_bench.cold(options)


@command(bench, "recover")
def bench_recover(options: bench_arguments.BenchRecover) -> int:
    """How long starts take. After a clean stop and after kill -9, from memory and from the disk."""
    from ottla.cli import bench as command_bench

    return command_bench.recover(options)


@command(bench, "check")
def bench_check(options: bench_arguments.BenchCheck) -> int:
    """Compare the hot path with a recorded ratio to the bare loop. Fails nothing."""
    from ottla.cli import bench as command_bench

    return command_bench.check(options)


@command(bench, "page")
def bench_page(options: bench_arguments.BenchPage) -> int:
    """Measure everything, and write the tables into a page. In under 25 minutes."""
    from ottla.cli import bench as command_bench

    return command_bench.page(options)


app.add_typer(topic, name="topic")
app.add_typer(group, name="group")
app.add_typer(txn, name="txn")
app.add_typer(log, name="log")
app.add_typer(bench, name="bench")


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"ottla {__version__}\n")
        raise typer.Exit


@app.callback()
def root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Show the version and leave."
    ),
) -> None:
    """Only --version: what is asked of no command in particular."""
    del version


# typer would show the callback's docstring as the help of the whole.
root.__doc__ = None


def run(argv: Sequence[str]) -> int:
    """Run a command; return its exit code. Raises CommandError with one sentence."""
    words = list(argv) or ["--help"]
    group: Any = typer.main.get_command(app)
    if len(words) == 1 and hasattr(group.commands.get(words[0]), "commands"):
        words.append("--help")
    try:
        return int(group.main(words, prog_name="ottla", standalone_mode=False) or 0)
    except typer.Abort:
        return 130
    except _UsageError as error:
        raise BadInput(one_line(error)) from None


def one_line(error: Any) -> str:
    """A usage error of click's, and what to type instead."""
    context = error.ctx
    path = context.command_path if context is not None else "ottla"
    message = " ".join(error.format_message().split()).rstrip(".")
    message = message[:1].lower() + message[1:].replace("Value error, ", "")
    kind = type(error).__name__
    if kind == "MissingParameter":
        usage = context.command.collect_usage_pieces(context)
        pieces = [re.sub("[{}]", "", piece) for piece in usage if piece != "[OPTIONS]"]
        return f"{error.param.metavar} is missing; try: {' '.join([path, *pieces])}"
    if kind == "NoSuchOption":
        if instead := _INSTEAD.get((path, error.option_name)):
            return f"{path} has no option {error.option_name}; try: {path} {instead}"
        options = [name for p in context.command.params for name in (*p.opts, *p.secondary_opts)]
        meant = nearest(error.option_name, [name for name in options if name.startswith("-")])
        return f"{path} has no option {error.option_name}; try: {path} {meant or '--help'}"
    if kind == "BadParameter" and (wanted := _number_wanted(context, error.param, path)):
        return wanted
    commands = getattr(getattr(context, "command", None), "commands", None)
    if commands and "command" in message.lower():
        word = message.partition("'")[2].partition("'")[0]
        meant = nearest(word, list(commands))
        return f"{path} has no command {word!r}; try: {path} {meant or '--help'}"
    return f"{message}; try: {path} --help"


def _number_wanted(context: Any, option: Any, path: str) -> str | None:
    """What an option of numbers takes, in our words: typer's differ with its versions."""
    declared = get_args(getattr(context.command.callback, "__annotations__", {}).get(option.name))
    if len(declared) != 2 or not {int, float} & {declared[0], *get_args(declared[0])}:
        return None
    least, most = declared[1].min, declared[1].max
    name = max(option.opts, key=len)
    whole = "" if float in {declared[0], *get_args(declared[0])} else "whole "
    limits = "" if least is None else f" from {least}"
    limits += "" if most is None else f" to {most}"
    known = option.default if isinstance(option.default, int | float) else least
    example = 1 if known is None else known
    return f"{name} takes a {whole}number{limits}; try: {path} {name} {example}"
