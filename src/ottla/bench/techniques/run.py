"""`ottla bench techniques`: the experiments, one after the other, in a folder that is gone after.

Owns the choice and the order. Must not print.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

from ottla.bench import usage
from ottla.bench.techniques import batches, caches, copies, order, positions, spread
from ottla.bench.techniques.model import Experiment, Say

Prepared = Callable[[str], AbstractContextManager[list[Experiment]]]

TECHNIQUES: dict[str, Prepared] = {
    "sequential": lambda folder: nullcontext(order.experiments(folder)),
    "zero-copy": copies.experiments,
    "page-cache": lambda folder: nullcontext(caches.experiments(folder)),
    "batching": batches.experiments,
    "partitions": spread.experiments,
    "offsets": positions.experiments,
}
"""By what the command takes; the seventh, millions of messages a second, is what batching shows."""


def folder() -> str:
    """Where the files of the experiments lie: on a disk, if there is one.

    TMPDIR, if it is set; else /tmp, which is memory on many systems: then /var/tmp, which is not,
    or here.
    """
    usual = tempfile.gettempdir()
    if "TMPDIR" in os.environ or usage.file_system(usual) not in usage.IN_MEMORY:
        return usual
    for other in ("/var/tmp", os.getcwd()):
        if os.access(other, os.W_OK) and usage.file_system(other) not in usage.IN_MEMORY:
            return other
    return usual


def conditions() -> str:
    """One line: the machine, what the files lie on, and how busy others keep it."""
    where = folder()
    busy = f"; load before: {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{usage.machine()}; files in {where} ({usage.file_system(where) or 'unknown'}){busy}"


def chosen(names: Sequence[str]) -> list[str]:
    """Those named, or all. Raises ValueError for another name."""
    for name in names:
        if name not in TECHNIQUES:
            raise ValueError(f"there is no technique {name!r}; there are: {', '.join(TECHNIQUES)}")
    return list(names or TECHNIQUES)


def measure(names: Sequence[str], rounds_count: int, say: Say) -> Iterator[Experiment]:
    """Those of `chosen`, each as soon as it is measured.

    Raises pump.LoadFailed if a broker of our own fails.
    """
    for name in names:
        with (
            tempfile.TemporaryDirectory(prefix="ottla-techniques-", dir=folder()) as place,
            TECHNIQUES[name](place) as experiments,
        ):
            for experiment in experiments:
                experiment.measure_all(rounds_count, say)
                yield experiment
