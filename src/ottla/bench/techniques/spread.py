"""Partitions: the same load over more of them, and over more brokers, each a process of its own.

Owns the brokers and clients of this experiment. What one machine can show ends at its cores.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from ottla.bench import contenders, crowd, pump, usage
from ottla.bench.contenders import Running
from ottla.bench.techniques import brokers
from ottla.bench.techniques.model import Experiment, Measure, Way
from ottla.records import compress

PARTITIONS = (1, 2, 4, 8)
BROKERS = (1, 2, 4)
_RECORDS = 100
_DEPTH = 4
_CONNECTIONS = 8
_SECONDS = 0.6
_RATE = Measure("rate", "thousand records/s", more_is_better=True)
_COST = Measure("broker CPU", "s/million records")
_QUOTED = (
    "Kafka's introduction: partitions are what lets a topic be spread over many brokers, and be "
    "written and read by many at once: throughput grows with them as long as there are disks, "
    "cores and machines to put them on."
)
_USUAL = "in proportion, with machines to put them on"


@contextlib.contextmanager
def experiments(folder: str) -> Iterator[list[Experiment]]:
    cores = os.cpu_count() or 1
    limits = (
        f"This machine has {cores} cores, which clients and brokers share: once all are busy, more "
        "brokers can't show any gain, whatever they could do on machines of their own."
    )
    with contextlib.ExitStack() as stack:
        running = [
            stack.enter_context(contenders.own_broker(f"{folder}/spread-{number}"))
            for number in range(max(BROKERS))
        ]
        yield [
            Experiment(
                "5 Partitions",
                f"Batches of {_RECORDS} records to so many partitions of one broker",
                f"Always {_CONNECTIONS} connections with 4 requests in flight on each, shared out "
                "over the partitions. A broker is one process: within it partitions are for "
                "independence, not for speed.",
                _QUOTED,
                [_RATE, _COST],
                [
                    Way(f"{count} partitions" if count > 1 else "1 partition",
                        partial(_one_broker, running[0], count))
                    for count in PARTITIONS
                ],
                ladder=True,
                usual=_USUAL,
            ),
            Experiment(
                "5 Partitions",
                f"Batches of {_RECORDS} records to so many brokers, a partition on each",
                "Independent broker processes, each with a client process of its own and as many "
                f"requests in flight as keep one busy: {_CONNECTIONS} times 4. {limits}",
                _QUOTED,
                [_RATE, _COST],
                [
                    Way(f"{count} brokers" if count > 1 else "1 broker",
                        partial(_many_brokers, running[:count]))
                    for count in BROKERS
                ],
                ladder=True,
                usual=_USUAL,
            ),
        ]  # fmt: skip


def _figures(cpu_s: float, seen: pump.Measured) -> Mapping[str, float]:
    records = seen.answers * _RECORDS
    return {"rate": records / seen.seconds / 1e3, "broker CPU": cpu_s / records * 1e6}


def _one_broker(running: Running, partitions_count: int) -> Mapping[str, float]:
    batch = brokers.log_lines(_RECORDS, compress.NONE)
    with brokers.topic(running, partitions_count) as topic:
        load = brokers.produce_load(
            topic,
            batch,
            partitions=[number % partitions_count for number in range(_CONNECTIONS)],
            depth=_DEPTH,
            seconds=_SECONDS,
        )
        cpu, seen = brokers.loaded(running, load)
    return _figures(cpu.total, seen)


def _many_brokers(running: list[Running]) -> Mapping[str, float]:
    batch = brokers.log_lines(_RECORDS, compress.NONE)
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(len(running)) as pool:
        loads = [
            brokers.produce_load(
                stack.enter_context(brokers.topic(one, 1)),
                batch,
                partitions=[0] * _CONNECTIONS,  # as many as keep one broker busy all the time
                depth=_DEPTH,
                seconds=_SECONDS,
            )
            for one in running
        ]
        before = [usage.cpu(one.pid).total for one in running]
        # Each thread only waits for a process that drives its broker.
        seen = pool.map(lambda one, load: crowd.run(one.address, load, 1), running, loads)
        merged = crowd.merged(list(seen))
        spent = sum(usage.cpu(one.pid).total for one in running) - sum(before)
    return _figures(spent, merged)
