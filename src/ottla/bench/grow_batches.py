"""How the cost of a produce grows with the records in its batch."""

from __future__ import annotations

import tempfile

from ottla.bench import contenders, rounds
from ottla.bench.contenders import BARE, Variant
from ottla.bench.growth_table import Column, Growth, Limits, Say, sizes
from ottla.bench.shapes import Shape

_RECORDS_MAX = 10_000
_VALUE_BYTES = 90  # so that the largest batch is just below Kafka's limit of 1 MiB

_REQUEST = Column("request", "µs")
_COLUMNS = (
    _REQUEST,
    Column("bare loop", "µs"),
    Column("record", "µs"),
    Column("a GB", "CPU s"),
    Column("p50", "ms"),
)


def measure(limits: Limits, say: Say) -> Growth:
    growth = Growth("batches", "Records in a batch (4 × 4 requests)", "records", _COLUMNS)
    settings = rounds.Settings(rounds=2, seconds=limits.seconds)
    with (
        tempfile.TemporaryDirectory(prefix="ottla-growth-") as folder,
        contenders.own_broker(f"{folder}/data") as running,
    ):
        ottla = contenders.variant_contender(Variant(""), running)
        for count in sizes(1, _RECORDS_MAX):
            shape = Shape(f"{count} records", "produce", 4, 4, count, _VALUE_BYTES)
            lines = rounds.run_shape(shape, [ottla], folder, settings, say)
            found = {line.contender.name: line for line in lines}
            line = next(line for line in lines if line.contender.name != BARE)
            growth.add(
                count,
                {
                    "request": line.median("cpu_us"),
                    "bare loop": found[BARE].median("cpu_us"),
                    "record": line.median("s_per_million_records"),
                    "a GB": line.median("s_per_gb"),
                    "p50": line.median("p50_ms"),
                },
            )
    return growth
