"""Batching and compression: what a record costs alone and in company, and who compresses it.

Owns the sizes and the codecs on trial. Every figure is of a broker of its own; what the producer
spends is its own affair, and is what the broker saves.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from functools import partial

from ottla.bench import contenders
from ottla.bench.contenders import Running
from ottla.bench.techniques import brokers
from ottla.bench.techniques.model import Experiment, Measure, Way
from ottla.records import compress

SIZES = (1, 10, 100, 1_000, 10_000)
_CODEC_RECORDS = 400
_SECONDS = 0.5
_PARTITIONS = (0, 1, 2, 3)
_DEPTH = 4

_PER_RECORD = Measure("CPU by record", "s/million")
_PER_GB = Measure("CPU by size", "s/GB of records")
_RATE = Measure("rate", "thousand records/s", more_is_better=True)

_QUOTED_BATCHES = (
    "'Millions of messages a second' (LinkedIn, 2014: 2 million writes a second on three machines, "
    "with records of 100 bytes in batches). A cost for each request is shared by all in it."
)
_QUOTED_CODECS = (
    "Kafka's design page: the broker keeps a batch as the producer compressed it. "
    "compression.type on a topic, or an old message format, costs it an unpacking and a packing."
)
_QUOTED_VALIDATION = (
    "Apache Kafka walks every record of a batch, and unpacks it for that, whatever the topic says. "
    "ottla checks the batch's header and its CRC-32C, and records only where it is told to."
)


@contextlib.contextmanager
def experiments(folder: str) -> Iterator[list[Experiment]]:
    with (
        contenders.own_broker(f"{folder}/batches") as plain,
        contenders.own_broker(f"{folder}/walking", ["record.validation=records"]) as walking,
    ):
        yield [_sizes(plain), _validation(plain, walking), *_codecs(plain)]


def _sizes(running: Running) -> Experiment:
    ways = [
        Way(f"{count:,} a batch", partial(_produced, running, count, compress.NONE))
        for count in SIZES
    ]
    return Experiment(
        "4 Batching",
        "Records of about 150 B, so many in a batch",
        "4 connections with 4 requests in flight, acks=1, to 4 partitions.",
        _QUOTED_BATCHES,
        [_PER_RECORD, _RATE],
        ways,
        ladder=True,
        usual="2 million records/s on three machines",
    )


def _codecs(running: Running) -> Iterator[Experiment]:
    for codec in (compress.GZIP, compress.SNAPPY, compress.LZ4, compress.ZSTD):
        name = compress.CODEC_NAMES[codec]
        other = "zstd" if codec != compress.ZSTD else "lz4"
        yield Experiment(
            "4 Compression",
            f"Batches of {_CODEC_RECORDS} records, compressed with {name}",
            f"Stored as they came; or opened by the broker and compressed anew, as a topic with "
            f"compression.type={other} asks for. CPU of the broker and its workers for a GB of "
            f"records before compression.",
            _QUOTED_CODECS,
            [_PER_GB, _RATE],
            [
                Way("stored as it came", partial(_produced, running, _CODEC_RECORDS, codec)),
                Way(
                    f"compressed anew ({other})",
                    partial(_produced, running, _CODEC_RECORDS, codec, compression_type=other),
                ),
            ],
        )


def _validation(plain: Running, walking: Running) -> Experiment:
    return Experiment(
        "4 Batching",
        f"Batches of {_CODEC_RECORDS} records, checked as one thing or record by record",
        "Compressed with lz4, the same batches to two brokers: record.validation=header against "
        "record.validation=records.",
        _QUOTED_VALIDATION,
        [_PER_GB, _RATE],
        [
            Way("header and checksum", partial(_produced, plain, _CODEC_RECORDS, compress.LZ4)),
            Way("every record", partial(_produced, walking, _CODEC_RECORDS, compress.LZ4)),
        ],
    )


def _produced(
    running: Running, records_count: int, codec: int, **configs: str
) -> Mapping[str, float]:
    batch = brokers.log_lines(records_count, codec)
    unpacked_batch = brokers.log_lines(records_count, compress.NONE)
    largest = str(max(1 << 20, len(unpacked_batch)))  # Kafka's default, or what is tried here
    with brokers.topic(running, len(_PARTITIONS), max_message_bytes=largest, **configs) as topic:
        load = brokers.produce_load(
            topic, batch, partitions=_PARTITIONS, depth=_DEPTH, seconds=_SECONDS
        )
        cpu, seen = brokers.loaded(running, load)
    records = seen.answers * records_count
    return {
        _PER_RECORD.name: cpu.total / records * 1e6,
        _PER_GB.name: cpu.total / (len(unpacked_batch) * seen.answers) * 1e9,
        _RATE.name: records / seen.seconds / 1e3,
    }
