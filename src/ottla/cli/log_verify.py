"""`ottla log verify`: every partition under a directory checked, a line of summary each.

Owns the order of reading and the report. What is checked is in `log_checks.py`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from ottla.cli.log_checks import (
    Walk,
    check_epochs,
    check_index,
    check_snapshot,
    check_time_index,
    check_txn_index,
    walk_segment,
)
from ottla.cli.log_files import METADATA, Data, PartitionFiles, mapped, partitions_under
from ottla.cli.render import counted, object_line
from ottla.host.terminal import GREEN, RED, painted

if TYPE_CHECKING:
    from ottla.cli import arguments

PROBLEMS_SHOWN = 20
"""Problems printed of one partition; further ones are only counted."""


@dataclass(slots=True)
class Report:
    """What was found in one partition. Offsets are those of its first and last batch."""

    name: str
    segments: int = 0
    batches: int = 0
    records: int = 0
    bytes: int = 0
    first_offset: int | None = None
    last_offset: int | None = None
    torn: str | None = None
    problems: list[str] = field(default_factory=list)


def run(options: arguments.LogVerify) -> int:
    """Print a report; 1 if there is damage. Raises BadInput where there is no log."""
    partitions, passed = partitions_under(options.path)
    if not options.json:
        sys.stdout.writelines(f"{name}: passed over, {_why(name)}\n" for name in passed)
    problems = records = torn = 0
    for files in partitions:
        report = verify(files)
        if options.json:
            sys.stdout.write(object_line(asdict(report)))
        else:
            sys.stdout.writelines(report_lines(report))
        problems += len(report.problems)
        records += report.records
        torn += report.torn is not None
    if options.json:
        return 1 if problems else 0
    parts = [
        counted(len(partitions), "partition"),
        counted(records, "record"),
        counted(problems, "problem"),
    ]
    if torn:
        parts.append(counted(torn, "torn tail"))
    sys.stdout.write(painted(", ".join(parts), RED if problems else GREEN, sys.stdout) + "\n")
    return 1 if problems else 0


def _why(name: str) -> str:
    return "it's Apache Kafka's own metadata" if name == METADATA else "it isn't part of the log"


def verify(files: PartitionFiles) -> Report:
    """Check all files of a partition; one that can't be read is a problem. Reads only."""
    report = Report(files.name)
    try:
        _verify(files, report)
    except OSError as error:  # the directory
        report.problems.append(f"can't be read: {error.strerror}")
    return report


def _verify(files: PartitionFiles, report: Report) -> None:
    segments = files.segments()
    next_offset, leader_epoch = 0, -1
    for base_offset in segments:
        newest = base_offset == segments[-1]
        try:
            walk = _segment(files, report, base_offset, next_offset, newest)
        except OSError as error:
            _note_unreadable(report, files.file(base_offset, ".log"), error)
            continue
        if walk.last_offsets:
            next_offset = max(next_offset, walk.last_offsets[-1] + 1)
        if walk.leader_epoch != -1:
            if walk.leader_epoch < leader_epoch:
                report.problems.append(
                    f"{base_offset:020}.log: leader epoch {walk.leader_epoch} after {leader_epoch}"
                )
            leader_epoch = walk.leader_epoch
    for name in files.snapshots():
        snapshot = _maybe(report, os.path.join(files.path, name))
        if snapshot is not None:
            _note(report, name, check_snapshot(snapshot))
    epochs = _maybe(report, os.path.join(files.path, "leader-epoch-checkpoint"))
    if epochs is not None:
        text = bytes(epochs).decode("ascii", "replace")
        _note(report, "leader-epoch-checkpoint", check_epochs(text))


def _segment(
    files: PartitionFiles, report: Report, base_offset: int, next_offset: int, newest: bool
) -> Walk:
    # Indexes first: a running broker may append meanwhile, and its log is never behind them.
    indexes = {suffix: _maybe(report, files.file(base_offset, suffix)) for suffix in _INDEXES}
    data = mapped(files.file(base_offset, ".log"))
    torn_from = files.synced_until if newest else None
    walk = walk_segment(data, base_offset, next_offset, torn_from)
    name = f"{base_offset:020}.log"
    _note(report, name, iter(walk.problems))
    report.torn = f"{name}: {walk.torn}" if walk.torn else report.torn
    report.segments += 1
    report.batches += len(walk.positions)
    report.records += walk.records_count
    report.bytes += len(data)
    if walk.positions:
        if report.first_offset is None:
            report.first_offset = walk.first_offsets[0]
        report.last_offset = walk.last_offsets[-1]
    for suffix, index in indexes.items():
        if index is not None:
            _note(report, f"{base_offset:020}{suffix}", _INDEXES[suffix](walk, index))
        elif (
            suffix != ".txnindex"
            and walk.positions
            and not os.path.lexists(files.file(base_offset, suffix))  # else it is told already
        ):
            report.problems.append(f"{base_offset:020}{suffix} is missing")
    return walk


_INDEXES: dict[str, Callable[[Walk, Data], Iterator[str]]] = {
    ".index": check_index,
    ".timeindex": check_time_index,
    ".txnindex": lambda _walk, data: check_txn_index(data),
}


def _maybe(report: Report, path: str) -> Data | None:
    """A file's bytes; None if it is not there, or can't be read, which is noted."""
    try:
        return mapped(path)
    except OSError as error:
        _note_unreadable(report, path, error)
        return None


def _note_unreadable(report: Report, path: str, error: OSError) -> None:
    """Note it; but for a file that is gone: a broker that runs may have been faster."""
    if not isinstance(error, FileNotFoundError) or os.path.lexists(path):
        report.problems.append(f"{os.path.basename(path)} can't be read: {error.strerror}")


def _note(report: Report, name: str, faults: Iterator[str]) -> None:
    report.problems.extend(f"{name}: {fault}" for fault in faults)


def report_lines(report: Report) -> list[str]:
    """The report as printed: a summary, then what is wrong, indented."""
    span = "empty"
    if report.first_offset is not None:
        span = f"offsets {report.first_offset} to {report.last_offset}"
    count = len(report.problems)
    state = counted(count, "problem") if count else "ok"
    lines = [
        f"{report.name}: {counted(report.batches, 'batch', 'batches')}, "
        f"{counted(report.records, 'record')}, {span}, {counted(report.bytes, 'byte')} in "
        f"{counted(report.segments, 'segment')}: {state}\n"
    ]
    if report.torn:
        lines.append(f"  torn tail, which recovery will cut: {report.torn}\n")
    lines.extend(f"  {problem}\n" for problem in report.problems[:PROBLEMS_SHOWN])
    if count > PROBLEMS_SHOWN:
        lines.append(f"  and {count - PROBLEMS_SHOWN:,} more\n")
    return lines
