"""A second, independent reader of Kafka's log files: headers of batches, straight from the format.

Owns nothing of ottla on purpose: what it finds is compared with what ottla says.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_HEADER = struct.Struct(">qiibIhiqqqhii")  # Kafka's message format, version 2
NAMES_OF_CODECS = ("none", "gzip", "snappy", "lz4", "zstd")


class Header(NamedTuple):
    """The header of one batch, as it stands in the file."""

    base_offset: int
    length: int
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    base_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    records_count: int

    @property
    def codec(self) -> str:
        return NAMES_OF_CODECS[self.attributes & 7]


def headers(file: Path) -> Iterator[tuple[int, Header]]:
    """(position, header) of every whole batch of a .log file."""
    raw = file.read_bytes()
    at = 0
    while at + _HEADER.size <= len(raw):
        header = Header(*_HEADER.unpack_from(raw, at))
        end = at + 12 + header.length
        if header.length <= 0 or end > len(raw):
            return
        yield at, header
        at = end


def of_topic(directory: Path, topic: str) -> list[Path]:
    """The .log files of a topic, by partition and offset."""
    partitions = directory.glob(f"{topic}-*")
    found = [file for partition in partitions for file in partition.glob("*.log")]
    return sorted(found, key=lambda file: (int(file.parent.name.rpartition("-")[2]), file.name))
