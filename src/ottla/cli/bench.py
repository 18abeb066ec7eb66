"""`ottla bench`: what requests, starts and sizes cost, as text or JSON.

Owns what these commands print and in which order. Must not measure: that is the room `bench`.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from ottla.cli.errors import BadInput, CommandError
from ottla.cli.render import object_line
from ottla.core.version import __version__

if TYPE_CHECKING:
    from ottla.bench.contenders import Peer
    from ottla.bench.rounds import Line
    from ottla.cli import bench_arguments as arguments


class Saying:
    """One line on a terminal that says what is going on; nothing where there is none."""

    def __init__(self) -> None:
        self._shown, self._width = sys.stderr.isatty(), 0

    def __call__(self, sentence: str) -> None:
        if self._shown:
            sys.stderr.write("\r" + sentence.ljust(self._width))
            sys.stderr.flush()
            self._width = len(sentence)

    def clear(self) -> None:
        if self._width:
            self("")
            sys.stderr.write("\r")


@contextmanager
def explained() -> Iterator[None]:
    """Turns what stops a measurement into one sentence. Raises CommandError.

    Ended from outside, it still takes its brokers and its files with it.
    """
    from ottla.bench.pump import LoadFailed
    from ottla.bench.usage import Unmeasurable

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    except (LoadFailed, Unmeasurable, ConnectionError) as failure:
        raise CommandError(f"no measurement: {failure}") from None
    except ValueError as error:
        raise BadInput(str(error)) from None


def peers(texts: Sequence[str]) -> list[Peer]:
    from ottla.bench.contenders import parse_peer

    return [parse_peer(text) for text in texts]


def produce(options: arguments.BenchProduce) -> int:
    """`ottla bench produce`."""
    from ottla.bench.contenders import VARIANTS

    names = [variant.name for variant in VARIANTS] if options.all else options.variant
    return load(options, "produce", names)


def load(options: arguments.BenchLoad, kind: str, variants: Sequence[str] = ()) -> int:
    """`ottla bench produce|fetch|requests`."""
    from ottla.bench import contenders, report, run, usage
    from ottla.bench.rounds import Settings

    saying = Saying()

    def done(lines: list[Line]) -> None:
        saying.clear()
        if options.json:
            for fields in report.as_json(lines):
                sys.stdout.write(object_line(fields))
        else:
            said = "".join(f"  {one}\n" for one in run.verdicts_on_client(lines))
            sys.stdout.write(f"{report.text(lines)}\n{said}\n")
        sys.stdout.flush()

    with explained():
        wanted = run.Wanted(
            kind=kind,
            only=options.only,
            variants=contenders.find_variants(variants),
            peers=peers(options.peer),
            options=options.option,
            settings=Settings(
                rounds=options.rounds,
                seconds=options.seconds,
                warm_up_s=options.warm_up,
                touched_mib=options.touch,
            ),
            check_client=options.check_client,
        )
        run.chosen(kind, options.only)  # says so before anything is started
        if not options.json:
            sys.stdout.write(f"{usage.machine()}\nacks=1, flush.policy=os, 4 partitions\n\n")
        found = run.measure(wanted, done, saying)
    if options.explain and not options.json:
        sys.stdout.write(report.EXPLANATION + "\n")
        for variant in wanted.variants:
            sys.stdout.write(f"  {f'ottla, {variant.name}':<18} {variant.means}\n")
    failure = run.failure_of(found)
    if failure:
        raise CommandError(f"no measurement of {failure}")
    return 0


def _print_table(rows: Sequence[Sequence[str]], explanation: str) -> None:
    """A table for reading, and under it what its columns mean."""
    from ottla.bench import stats

    sys.stdout.write("\n".join(stats.table(rows)) + "\n")
    if explanation:
        sys.stdout.write(explanation + "\n")


class _Figure(Protocol):
    def as_json(self) -> dict[str, Any]: ...


def _report(
    as_json: bool, found: Iterable[_Figure], rows: Sequence[Sequence[str]], explanation: str
) -> None:
    """Figures, one object a line, or the same as a table."""
    if as_json:
        sys.stdout.write("".join(object_line(one.as_json()) for one in found))
    else:
        _print_table(rows, explanation)


def codec(options: arguments.BenchCodec) -> int:
    """`ottla bench codec`."""
    from ottla.bench import codec as measured

    timings = measured.timings(options.rounds)
    _report(options.json, timings, measured.rows(timings), measured.EXPLANATION)
    return 0


def compact(options: arguments.BenchCompact) -> int:
    """`ottla bench compact`."""
    from ottla.bench import compacting as measured

    timings = list(measured.measure(options.size_mib, options.rounds))
    _report(options.json, timings, measured.rows(timings), measured.EXPLANATION)
    return 0


def start(options: arguments.BenchStart) -> int:
    """`ottla bench start`."""
    from ottla.bench import start as measured

    saying = Saying()
    with explained():
        timings = measured.measure(options.rounds, saying)
    saying.clear()
    _report(options.json, timings, measured.rows(timings), measured.EXPLANATION)
    return 0


def idle(options: arguments.BenchIdle) -> int:
    """`ottla bench idle`."""
    from ottla.bench import idle as measured

    saying = Saying()
    with explained():
        found = measured.measure(
            options.seconds,
            options.partitions,
            options.recover_mib,
            peers(options.peer),
            saying,
        )
    saying.clear()
    _report(options.json, found, measured.rows(found), "")
    return 0


def groups(options: arguments.BenchGroups) -> int:
    """`ottla bench groups`."""
    from ottla.bench import group_figures, group_offsets
    from ottla.bench import groups as measured

    saying = Saying()
    with explained():
        plan = measured.Plan(
            parts=options.what or [],
            rounds=options.rounds,
            seconds=options.seconds,
            members=options.members,
            commits=group_offsets.WHOLE if options.whole else options.commits,
            peers=peers(options.peer),
        )
        found = []
        for figures in measured.measure(plan, saying):
            saying.clear()
            found += figures
            if options.json:
                sys.stdout.write("".join(object_line(one.as_json()) for one in figures))
                sys.stdout.flush()
    if not options.json:
        names = [peer.name for peer in plan.peers]
        _print_table(group_figures.rows(found, names), group_figures.EXPLANATION)
    return 0


def transactions(options: arguments.BenchTransactions) -> int:
    """`ottla bench transactions`."""
    from ottla.bench import group_figures
    from ottla.bench import transactions as measured

    saying = Saying()
    found = []
    with explained():
        others = peers(options.peer)
        for figures in measured.measure(options.rounds, options.seconds, others, saying):
            saying.clear()
            found += figures
            if options.json:
                sys.stdout.write("".join(object_line(one.as_json()) for one in figures))
                sys.stdout.flush()
    if not options.json:
        names = [measured.SYNCED, *(peer.name for peer in others)]
        _print_table(group_figures.rows(found, names), measured.EXPLANATION)
    return 0


def growth(options: arguments.BenchGrowth) -> int:
    """`ottla bench growth`."""
    from pathlib import Path

    from ottla.bench import growth as measured
    from ottla.bench import plot, stats
    from ottla.bench.growth_table import Limits

    saying = Saying()
    limits = Limits(
        partitions=options.partitions,
        connections=options.connections,
        log_mib=options.log_mib,
        seconds=options.seconds,
    )
    with explained():
        for found in measured.measure(options.what or [], limits, saying):
            saying.clear()
            if options.json:
                sys.stdout.write(object_line(found.as_json()))
            else:
                sys.stdout.write(f"{found.title}\n")
                rows = stats.table(found.rows())
                sys.stdout.write("".join(f"  {row}\n" for row in rows))
                sys.stdout.write("".join(f"  {verdict}\n" for verdict in found.verdicts()))
                sys.stdout.write("\n")
            sys.stdout.flush()
            if options.plots:
                path = Path(options.plots) / f"growth-{found.name}.svg"
                path.write_text(plot.svg(found.chart()), encoding="utf-8")
    return 0


def compare(options: arguments.BenchCompare) -> int:
    """`ottla bench compare`."""
    from ottla.bench import compare as measured
    from ottla.bench import stats, usage
    from ottla.bench.rounds import Settings

    saying = Saying()

    def done(lines: list[Line]) -> None:
        saying.clear()
        if options.json:
            for one in measured.as_json(lines):
                sys.stdout.write(object_line({**one, "machine": usage.machine()}))
        else:
            sys.stdout.write(f"{lines[0].shape.conditions}, acks={lines[0].contender.acks}\n")
            sys.stdout.write("".join(f"  {row}\n" for row in stats.table(measured.rows(lines))))
            failed = (line for line in lines if line.failed)
            sys.stdout.write("".join(f"  {one.contender.name}: {one.failed}\n" for one in failed))
            sys.stdout.write("\n")
        sys.stdout.flush()

    with explained():
        wanted = measured.Wanted(
            peers=peers(options.peer),
            only=options.only,
            settings=Settings(
                rounds=options.rounds, seconds=options.seconds, warm_up_s=options.warm_up
            ),
            restarts=options.restart,
        )
        if not options.json:
            sys.stdout.write(f"{usage.machine()}\n\n")
        starts = measured.measure(wanted, done, saying)
    saying.clear()
    for start in starts:
        if options.json:
            sys.stdout.write(object_line(start.as_json()))
        else:
            took = start.failed or f"{stats.number(start.ms)} ms"
            sys.stdout.write(f"{start.name}: start to first answer: {took}\n")
    if not options.json:
        if options.peer and not options.restart:
            sys.stdout.write("(peers' starts are measured with --restart, which ends them)\n")
        sys.stdout.write(measured.EXPLANATION + "\n")
    return 0


def techniques(options: arguments.BenchTechniques) -> int:
    """`ottla bench techniques`."""
    from datetime import UTC, datetime
    from pathlib import Path

    from ottla.bench.techniques import html, run, table

    saying, found = Saying(), []
    when = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, ottla {__version__}"
    machine, file = run.conditions(), Path(options.html)
    with explained():
        names = run.chosen(options.what or [])
    try:
        file.touch()  # not after minutes of measuring: the report can't be written
    except OSError as error:
        why = f"{file} can't be written ({error.strerror}); name another with --html"
        raise BadInput(why) from None
    if not options.json:
        sys.stdout.write(f"{machine}; {when}\n\n")
    with explained():
        for experiment in run.measure(names, options.rounds, saying):
            saying.clear()
            found.append(experiment)
            if options.json:
                fields = experiment.as_json() | {"machine": machine, "when": when}
                sys.stdout.write(object_line(fields))
            else:
                sys.stdout.write(table.text(experiment) + "\n")
            sys.stdout.flush()
            file.write_text(html.page(found, machine, when), encoding="utf-8")
    if not options.json:
        sys.stdout.write(f"{table.EXPLANATION}\n\nThe report: {file}\n")
    return 0


def counters(options: arguments.BenchCounters) -> int:
    """`ottla bench counters`."""
    from ottla.bench import counters as measured
    from ottla.bench.rounds import Settings

    saying = Saying()
    with explained():
        found = measured.measure(
            Settings(rounds=options.rounds, seconds=options.seconds, touched_mib=256), saying
        )
    saying.clear()
    _print_table(measured.rows(found), measured.EXPLANATION)
    return 0


def cold(options: arguments.BenchCold) -> int:
    """`ottla bench cold`."""
    from ottla.bench import cold as measured

    saying = Saying()
    with explained():
        wanted = measured.Wanted(options.mib, options.rate, options.rounds, peers(options.peer))
        found = measured.measure(wanted, saying)
    saying.clear()
    if options.json:
        sys.stdout.write("".join(object_line(one) for one in measured.as_json(found)))
    else:
        _print_table(measured.rows(found), measured.EXPLANATION)
    return 0


def recover(options: arguments.BenchRecover) -> int:
    """`ottla bench recover`."""
    from ottla.bench import recover as measured
    from ottla.bench import recover_figures as figures
    from ottla.bench import usage

    saying = Saying()
    with explained():
        wanted = measured.Wanted(options.partitions, options.gib, options.rounds)
        found = measured.measure(wanted, saying)
    saying.clear()
    if options.json:
        for fields in figures.as_json(found):
            sys.stdout.write(object_line({**fields, "machine": usage.machine()}))
        return 0
    sys.stdout.write(f"{usage.machine()}\n")
    said = "\n".join((*figures.conditions(found), figures.EXPLANATION))
    _print_table(figures.rows(found), said)
    return 0


def check(options: arguments.BenchCheck) -> int:
    """`ottla bench check`: informs, and fails nothing by the clock."""
    from ottla.bench import guard
    from ottla.bench.rounds import Settings

    saying = Saying()
    with explained():
        found = guard.measure(Settings(rounds=options.rounds, seconds=options.seconds), saying)
        saying.clear()
        said = (
            guard.record(options.file, found)
            if options.record
            else guard.compare(options.file, found)
        )
    sys.stdout.write(said + "\n")
    return 0


def page(options: arguments.BenchPage) -> int:
    """`ottla bench page`: the whole measurement, into a page."""
    from ottla.bench import page as measured

    saying = Saying()
    with explained():
        plan = measured.Plan(
            peers=peers(options.peer),
            rounds=options.rounds,
            seconds=options.seconds,
            log_mib=options.log_mib,
            recover_whole=options.recover_whole,
        )
        failed = False
        for done in measured.write(options.file, options.section, plan, saying):
            saying.clear()
            failed = failed or bool(done.failed)
            sys.stdout.write(f"{done}\n")
            sys.stdout.flush()
    return int(failed)
