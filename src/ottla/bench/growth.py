"""How cost grows with partitions, connections, records in a batch, and bytes in a log.

Owns which tables there are. What is measured at each size stands in grow_*.py, the shape of a
table in growth_table.py. Must not print.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ottla.bench import grow_batches, grow_connections, grow_log, grow_partitions
from ottla.bench.growth_table import Growth, Limits, Say

_MEASURES: dict[str, Callable[[Limits, Say], Growth]] = {
    "batches": grow_batches.measure,
    "connections": grow_connections.measure,
    "partitions": grow_partitions.measure,
    "log": grow_log.measure,
}


def measure(names: Sequence[str], limits: Limits, say: Say) -> Iterator[Growth]:
    """Those named, or all. Raises ValueError for another name, pump.LoadFailed."""
    for name in names:
        if name not in _MEASURES:
            raise ValueError(f"nothing grows by {name!r}; there are: {', '.join(_MEASURES)}")
    for name in names or _MEASURES:
        yield _MEASURES[name](limits, say)
